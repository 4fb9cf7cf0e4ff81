"""`label`: give clips a label after they arrived, one at a time or from a file."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from violence_ops.errors import UsageError
from violence_ops.folders import check_clip_id
from violence_ops.jsonable import Jsonable
from violence_ops.records import TRANSIENT, Label
from violence_ops.store import clip_names, frozen, quarantine, tombstones
from violence_ops.store.inbox import path_of_row
from violence_ops.store.index import open_catalog
from violence_ops.store.labels import effective_labels, give
from violence_ops.store.labels_file import checked_label
from violence_ops.who import named
from violence_ops.wording import listed, printable
from violence_ops.workspace import Workspace

_Line = tuple[int, dict[str, str | None]]
"""A line of a CSV: its number, and its cells by column."""
_FOR_GOOD: Final = "what it is, so that no dataset will ever hold it"


@dataclass(frozen=True, slots=True)
class LabelResult(Jsonable):
    """How many clips got a label, and how many had it already; `unusable` got none, as they were refused for their bytes. `waiting`
    counts those with the label that lie in quarantine, by a reason that `retry` knows; `in_holdout` counts the clips labelled that
    are in a frozen holdout, which keeps the label it was frozen with."""

    labelled: int
    unchanged: int
    unusable: tuple[str, ...] = ()
    waiting: dict[str, int] = field(default_factory=dict)
    in_holdout: int = 0

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"labelled   {self.labelled}"
        yield f"unchanged  {self.unchanged}"
        if self.unusable:
            yield f"unusable   {len(self.unusable)}: no label was given to {listed(self.unusable, 1)}, refused for {_FOR_GOOD}"
        for reason, count in self.waiting.items():
            them = "it" if count == 1 else "them"
            yield f"waiting    {count} in quarantine: `violence-ops retry --reason {reason}` brings {them} back"
        if self.in_holdout:
            yield frozen.corrected(self.in_holdout)


def run(workspace: Workspace, clip_id: str, label: str, by: str | None = None) -> LabelResult:
    """Give one clip a label; `by` is written beside it. Raises UsageError without a name, if there is no such clip or label, or if
    the clip was refused for its bytes."""
    by = named(by)
    result = _apply(workspace, {check_clip_id(clip_id): checked_label(label, clip_id)}, by)
    if result.unusable:
        raise UsageError(f"Clip {clip_id} was refused for {_FOR_GOOD}: `violence-ops explain {clip_id}` says why.")
    return result


def import_file(workspace: Workspace, path: Path, by: str | None = None) -> LabelResult:
    """Take labels from a CSV with the columns label and clip_id (or at least 4 of its first digits) or path (as it was in the inbox).

    All of it, but for clips that were refused for their bytes, or, if a line is wrong, two contradict each other or nobody is named
    (UsageError), nothing. Of a labels.csv in the inbox, only the lines that came too late count: those with a label, of a clip that was
    taken before, of several the newest under that path. In any other file, a path that several clips came from is a wrong line.
    """
    by = named(by)
    lines = _read(path)
    if path.resolve().is_relative_to(workspace.inbox.resolve()):
        lines = _late(workspace, path.resolve(), lines)
    ids = _clip_ids(workspace, path, lines)
    shown = printable(str(path))
    wanted: dict[str, Label] = {}
    first: dict[str, int] = {}
    for (number, row), clip_id in zip(lines, ids, strict=True):
        label = checked_label(row["label"], f"{shown} line {number}")
        if wanted.setdefault(clip_id, label) != label:
            raise UsageError(
                f"{shown} contradicts itself: line {first[clip_id]} says {wanted[clip_id]} and line {number} says {label} of clip "
                f"{clip_id}; delete one of them. Nothing was labelled."
            )
        first.setdefault(clip_id, number)
    return _apply(workspace, wanted, by)


def _read(path: Path) -> list[_Line]:
    """The lines of a CSV with labels. Raises UsageError if it cannot be read, or its first line does not name the columns."""
    shown = printable(str(path))
    try:
        reader = csv.reader(io.StringIO(path.read_text("utf-8-sig"), newline=""))
        head = next(reader, [])
        columns: dict[str, int] = {name: head.index(name) for name in ("clip_id", "path", "label") if name in head}
        lines = [(reader.line_num, _cells(columns, line)) for line in reader if line]
    except FileNotFoundError:
        raise UsageError(
            f"{shown} does not exist: name a CSV file with the columns label and clip_id or path."
        ) from None
    except OSError as error:
        raise UsageError(f"{shown} cannot be read ({error.strerror or error}): name a CSV file.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{shown} cannot be read as CSV in UTF-8 ({error}): save it as such.") from None
    if not ("label" in columns and {"clip_id", "path"} & columns.keys()):
        raise UsageError(f"{shown} does not name its columns: make clip_id,label or path,label its first line.")
    return lines


def _cells(columns: Mapping[str, int], line: list[str]) -> dict[str, str | None]:
    return {name: line[place] if place < len(line) else None for name, place in columns.items()}


def _late(workspace: Workspace, path: Path, lines: list[_Line]) -> list[_Line]:
    """The lines of a labels.csv in the inbox that are about clips that were taken without them, as if it lay in the inbox itself."""
    inbox = workspace.inbox.resolve()
    named = [(number, row, printable(path_of_row(inbox, path, row.get("path") or ""))) for number, row in lines]
    with open_catalog(workspace) as catalog:
        taken = catalog.find_paths(shown for *_, shown in named)
    late: list[_Line] = [
        (number, {"clip_id": taken[shown][-1].clip_id, "label": row["label"]})
        for number, row, shown in named
        if shown in taken and (row["label"] or "").strip()
    ]
    if not late:
        raise UsageError(
            f"{printable(str(path))} names no clip with a label that was taken before: what it says of files to come counts when they are taken."
        )
    return late


def _clip_ids(workspace: Workspace, path: Path, lines: list[_Line]) -> list[str]:
    """The clip that each line of a CSV speaks of. Raises UsageError, naming the line, if there is none, or several."""
    shown = printable(str(path))
    names = [(row.get("clip_id") or "").strip() for _, row in lines]
    with open_catalog(workspace) as catalog:
        whole = catalog.find(name for name in names if clip_names.is_beginning(name))
        by_path = catalog.find_paths(row.get("path") or "" for _, row in lines)
    found = []
    for (number, row), name in zip(lines, names, strict=True):
        if name in whole:
            found.append(name)
        elif name:
            try:
                found.append(clip_names.clip_id(workspace, name))
            except UsageError as error:
                raise UsageError(f"{shown} line {number}: {error}") from None
        elif clips := by_path.get(row.get("path") or ""):
            if len(clips) > 1:
                raise UsageError(
                    f"{shown} line {number}: {clip_names.ambiguous(row['path'] or '', clips)}: write the clip's id."
                )
            found.append(clips[0].clip_id)
        else:
            said = f"no clip came from {row['path']!r}" if row.get("path") else "it names no clip"
            if row.get("path") and tombstones.all_of(workspace):  # which keep no path
                said += ", or it was forgotten (delete the line then)"
            raise UsageError(
                f"{shown} line {number}: {said}: write the clip's id, or the whole path that it had in the inbox."
            )
    return found


def _apply(workspace: Workspace, wanted: dict[str, Label], by: str) -> LabelResult:
    with open_catalog(workspace) as catalog:
        known = catalog.find(wanted)
    if unknown := wanted.keys() - known.keys():
        raise UsageError(f"No clip {min(unknown)} in this workspace: `violence-ops explain PATH` says a clip's id.")
    unusable = tuple(
        clip_id
        for clip_id, clip in sorted(known.items())
        if clip.status == "quarantined" and clip.reason not in TRANSIENT
    )
    usable = {key: label for key, label in wanted.items() if key not in unusable}
    current = effective_labels(workspace)
    new = {key: label for key, label in usable.items() if current.get(key, (None,))[0] != label}
    held_out = {clip.clip_id for clip in frozen.held_out(workspace)}
    give(workspace, new, by, "label")
    refused = [clip for clip_id, clip in sorted(known.items()) if clip_id in usable and clip.status == "quarantined"]
    waiting = Counter(str(clip.reason) for clip in refused if _has_original(workspace, clip.clip_id))
    return LabelResult(
        len(new), len(usable) - len(new), unusable, dict(sorted(waiting.items())), len(new.keys() & held_out)
    )


def _has_original(workspace: Workspace, clip_id: str) -> bool:
    """Whether the quarantine has the clip's file, and `retry` has not put it back into the inbox."""
    return bool((quarantine.read(workspace.quarantined(clip_id)) or {}).get("original"))
