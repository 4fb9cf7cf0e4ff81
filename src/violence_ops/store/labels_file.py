"""data/labels.csv: labels that arrived after their clip. The last line of a clip counts and wins over what the inbox said.

Whatever writes to it makes a new version: a number that its lines share, with who said so, when, and where it came from.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from violence_ops.errors import UsageError
from violence_ops.files import write_text
from violence_ops.folders import check_clip_id
from violence_ops.records import LABELS, Label
from violence_ops.store.inbox import parse_label
from violence_ops.wording import printable
from violence_ops.workspace import Workspace

LabelSource = Literal["inbox", "label", "review"]
"""Where a label came from: the inbox (folder or labels.csv), or a person, by `label` or by `review import`. Lines from before 24 November
2026 say `review` of both."""

HEADER: Final = "clip_id,label,by,at,source,version\n"


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One line of data/labels.csv. Lines from before there were versions belong to version 0."""

    clip_id: str
    label: Label
    by: str
    at: str
    source: LabelSource
    version: int


def read(workspace: Workspace) -> list[LabelRow]:
    """The lines of data/labels.csv, oldest first. Raises UsageError naming the line if a person broke the file."""
    if not workspace.labels_file.is_file():
        return []
    try:
        with workspace.labels_file.open(encoding="utf-8-sig", newline="") as handle:
            lines = list(csv.DictReader(handle))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(
            f"{workspace.labels_file} is no CSV in UTF-8 ({error}): save it as such, or restore it with git."
        ) from None
    return [_row(line, f"{workspace.labels_file} line {number}") for number, line in enumerate(lines, start=2)]


def in_force(workspace: Workspace) -> dict[str, LabelRow]:
    """The line that counts for each clip: its last."""
    return {row.clip_id: row for row in read(workspace)}


def later_labels(workspace: Workspace) -> dict[str, Label]:
    """clip_id to the last label given. Raises UsageError as `read` does."""
    return {clip_id: row.label for clip_id, row in in_force(workspace).items()}


def record(workspace: Workspace, labels: Mapping[str, Label], by: str, source: LabelSource = "review") -> int | None:
    """Append labels as a new version, without those that the file says already; returns its number, None if nothing was new."""
    with workspace.lock("labels"):
        rows = read(workspace)
        known = {row.clip_id: (row.label, row.source) for row in rows}
        new = {clip_id: label for clip_id, label in labels.items() if known.get(clip_id) != (label, source)}
        if not new:
            return None
        version = max((row.version for row in rows), default=0) + 1
        at = datetime.now(UTC).isoformat(timespec="seconds")
        rows += [LabelRow(key, label, printable(by), at, source, version) for key, label in sorted(new.items())]
        _write(workspace, rows)
    return version


def forget(workspace: Workspace, clip_id: str) -> int:
    """Take the lines of a clip out of data/labels.csv; returns how many there were."""
    with workspace.lock("labels"):
        rows = read(workspace)
        kept = [row for row in rows if row.clip_id != clip_id]
        if len(kept) < len(rows):
            _write(workspace, kept)
    return len(rows) - len(kept)


def _write(workspace: Workspace, rows: Sequence[LabelRow]) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(asdict(row).values() for row in rows)
    write_text(workspace.labels_file, HEADER + out.getvalue())


def _row(line: dict[str, str | None], where: str) -> LabelRow:
    by, version = line.get("by") or "", line.get("version") or "0"
    # lines from before there was a source name `ingest` as who labelled
    given = line.get("source") or ("inbox" if by == "ingest" else "review")
    source: LabelSource = "inbox" if given == "inbox" else "label" if given == "label" else "review"
    if not (version.isdecimal() and len(version) < 10):
        raise UsageError(f"{where}: {version!r} is no version's number: restore the file with git.")
    label = checked_label(line.get("label"), where)
    return LabelRow(
        check_clip_id((line.get("clip_id") or "").strip()), label, by, line.get("at") or "", source, int(version)
    )


def checked_label(text: str | None, where: str) -> Label:
    """The label that a text means; UsageError, beginning with `where`, if it means none."""
    label = parse_label(text)
    if label is None:
        raise UsageError(f"{where}: {text!r} is not a label: give one of {', '.join(LABELS)}.")
    return label
