"""Give clips a label after they arrived, one at a time or from a file, and say which label of a clip counts."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from violence_ops import versioning
from violence_ops.errors import UsageError
from violence_ops.files import load_table
from violence_ops.folders import check_clip_id
from violence_ops.records import TRANSIENT, Label
from violence_ops.stages import batches, quarantine
from violence_ops.stages.inbox import printable
from violence_ops.stages.index import open_catalog
from violence_ops.stages.labels_file import LabelSource, checked_label, in_force, record
from violence_ops.stages.who import named
from violence_ops.wording import counted
from violence_ops.workspace import Workspace

_FOR_GOOD: Final = "what it is, so that no dataset will ever hold it"


@dataclass(frozen=True, slots=True)
class LabelResult:
    """How many clips got a label, and how many had it already; `unusable` got none, as they were refused for their bytes. `waiting`
    counts those with the label that lie in quarantine, by a reason that `retry` knows."""

    labelled: int
    unchanged: int
    unusable: tuple[str, ...] = ()
    waiting: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"labelled   {self.labelled}"
        yield f"unchanged  {self.unchanged}"
        if self.unusable:
            more = f" and {len(self.unusable) - 1} more" if len(self.unusable) > 1 else ""
            yield f"unusable   {len(self.unusable)}: no label was given to {self.unusable[0]}{more}, refused for {_FOR_GOOD}"
        for reason, count in self.waiting.items():
            them = "it" if count == 1 else "them"
            yield f"waiting    {count} in quarantine: `violence-ops retry --reason {reason}` brings {them} back"


def run(workspace: Workspace, clip_id: str, label: str, by: str | None = None) -> LabelResult:
    """Give one clip a label; `by` is written beside it. Raises UsageError without a name, if there is no such clip or label, or if
    the clip was refused for its bytes."""
    by = named(by)
    result = _apply(workspace, {check_clip_id(clip_id): checked_label(label, clip_id)}, by)
    if result.unusable:
        raise UsageError(f"Clip {clip_id} was refused for {_FOR_GOOD}: `violence-ops explain {clip_id}` says why.")
    return result


def import_file(workspace: Workspace, path: Path, by: str | None = None) -> LabelResult:
    """Take labels from a CSV with the columns label and clip_id or path (as it was in the inbox).

    All of it, but for clips that were refused for their bytes, or, if a line is wrong or nobody is named (UsageError), nothing.
    """
    by = named(by)
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"))))
    except FileNotFoundError:
        raise UsageError(
            f"{path} does not exist: name a CSV file with the columns label and clip_id or path."
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error}): name a CSV file.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as CSV in UTF-8 ({error}): save it as such.") from None
    if rows and not ("label" in rows[0] and {"clip_id", "path"} & rows[0].keys()):
        raise UsageError(f"{path} must name the columns label and clip_id or path in its first line.")
    by_path = {} if not rows or "clip_id" in rows[0] else _ids_by_path(workspace, [row["path"] or "" for row in rows])
    wanted = {}
    for number, row in enumerate(rows, start=2):
        clip_id = (row.get("clip_id") or by_path.get(row.get("path") or "") or "").strip()
        if not clip_id:
            raise UsageError(
                f"{path} line {number}: no clip came from {row.get('path')!r}: write the whole path that it had in the inbox."
            )
        wanted[check_clip_id(clip_id)] = checked_label(row["label"], f"{path} line {number}")
    return _apply(workspace, wanted, by)


def effective_labels(workspace: Workspace) -> dict[str, tuple[Label, LabelSource]]:
    """Every labelled clip of the sealed and open batches: clip_id to label and where it came from.

    The source is `inbox` (folder or labels.csv at arrival), or `label` or `review` (a person said so later); data/labels.csv wins.
    """
    known: dict[str, tuple[Label, LabelSource]] = {}
    for batch in workspace.sealed_batches():
        table = load_table(batch.table("clips"), columns=["clip_id", "label"])
        known |= {row["clip_id"]: (row["label"], "inbox") for row in table.to_pylist() if row["label"]}
    for batch_id in batches.open_batch_ids(workspace):
        clips = batches.read_manifest(workspace.batch(batch_id)).clips
        known |= {clip.clip_id: (clip.label, "inbox") for clip in clips if clip.label}
    return known | {clip_id: (row.label, row.source) for clip_id, row in in_force(workspace).items()}


def relabelled(workspace: Workspace, then: Mapping[str, Label | None]) -> tuple[str, ...]:
    """Those clips of `then`, clip_id to the label that each had, which have another one by now."""
    now = effective_labels(workspace)
    return tuple(clip_id for clip_id, label in then.items() if clip_id in now and now[clip_id][0] != label)


def _ids_by_path(workspace: Workspace, paths: list[str]) -> dict[str, str]:
    with open_catalog(workspace) as catalog:
        return catalog.find_paths(paths)


def give(workspace: Workspace, wanted: Mapping[str, Label], by: str, source: LabelSource) -> int | None:
    """Write labels of known clips as a new version of data/labels.csv, and into the catalog; returns the version, None if all
    of it was said before. Can be repeated after a crash. Raises WorkspaceError, writing nothing, if git is on no branch."""
    versioning.check_branch(workspace)
    version = record(workspace, wanted, by, source)
    with open_catalog(workspace) as catalog:
        catalog.set_labels(wanted)
    message = f"Labels of {counted(len(wanted), 'clip')} by {printable(by)}" + (
        f", version {version}" if version else ""
    )
    versioning.git_commit(workspace, [workspace.labels_file], message)
    return version


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
    give(workspace, new, by, "label")
    refused = [clip for clip_id, clip in sorted(known.items()) if clip_id in usable and clip.status == "quarantined"]
    waiting = Counter(str(clip.reason) for clip in refused if _has_original(workspace, clip.clip_id))
    return LabelResult(len(new), len(usable) - len(new), unusable, dict(sorted(waiting.items())))


def _has_original(workspace: Workspace, clip_id: str) -> bool:
    """Whether the quarantine has the clip's file, and `retry` has not put it back into the inbox."""
    return bool((quarantine.read(workspace.quarantined(clip_id)) or {}).get("original"))
