"""data/labels.csv: labels that arrived after their clip. The last line of a clip counts and wins over what the inbox said."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from violence_ops.errors import UsageError
from violence_ops.records import LABELS, Label
from violence_ops.stages.inbox import parse_label, printable
from violence_ops.workspace import Workspace, check_clip_id, write_text

_HEADER: Final = ("clip_id", "label", "by", "at")


def later_labels(workspace: Workspace) -> dict[str, Label]:
    """data/labels.csv: clip_id to the last label given. Raises UsageError naming the line if a person broke the file."""
    if not workspace.labels_file.is_file():
        return {}
    found = {}
    with workspace.labels_file.open(encoding="utf-8-sig", newline="") as handle:
        for number, row in enumerate(csv.DictReader(handle), start=2):
            where = f"{workspace.labels_file} line {number}"
            found[check_clip_id((row.get("clip_id") or "").strip())] = checked_label(row.get("label"), where)
    return found


def record(workspace: Workspace, labels: Mapping[str, Label], by: str) -> int:
    """Append labels to data/labels.csv, without those it says already; returns how many were new."""
    with workspace.lock("labels"):
        known = later_labels(workspace)
        new = {clip_id: label for clip_id, label in labels.items() if known.get(clip_id) != label}
        if new:
            at = datetime.now(UTC).isoformat(timespec="seconds")
            rows = [(clip_id, label, printable(by), at) for clip_id, label in sorted(new.items())]
            _append(workspace.labels_file, rows)
    return len(new)


def _append(path: Path, rows: Sequence[tuple[str, str, str, str]]) -> None:
    before = path.read_text("utf-8-sig") if path.is_file() else ",".join(_HEADER) + "\n"
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    write_text(path, before + ("" if before.endswith("\n") else "\n") + out.getvalue())


def checked_label(text: str | None, where: str) -> Label:
    """The label that a text means; UsageError, beginning with `where`, if it means none."""
    label = parse_label(text)
    if label is None:
        raise UsageError(f"{where}: {text!r} is not a label: give one of {', '.join(LABELS)}.")
    return label
