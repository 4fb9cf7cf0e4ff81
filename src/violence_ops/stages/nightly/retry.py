"""Give refused clips another chance: those whose reason does not lie in their bytes, such as a machine that was too busy."""

from __future__ import annotations

import csv
import io
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from violence_ops.catalog import CatalogClip
from violence_ops.errors import UsageError
from violence_ops.files import sync_folder, write_text
from violence_ops.folders import Batch
from violence_ops.jsonable import Jsonable
from violence_ops.records import TRANSIENT
from violence_ops.store import batches, quarantine, tombstones
from violence_ops.store.inbox import LABELS_FILE, new_again
from violence_ops.store.index import open_catalog
from violence_ops.wording import counted
from violence_ops.workspace import Workspace

_COLUMNS: Final = ("label", "source_group", "camera_id", "recorded_at")
"""What a clip came with and brings again."""

_Place = Literal["batch", "waiting", "kept"]
"""Where a refused clip of a batch is judged anew: there, in another batch once that one is sealed, or nowhere."""


@dataclass(frozen=True, slots=True)
class RetryResult(Jsonable):
    """The clips that went back to the inbox, and to their batch if nothing follows its validation yet. The others stay in
    quarantine: `waiting` until their batch is sealed, `kept` because a sealed one holds their refusal, `unlabelled` until they have
    the label for want of which they were refused."""

    reason: str
    inbox: list[str]
    batch: list[str]
    waiting: list[str]
    kept: list[str]
    dry_run: bool
    unlabelled: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For people."""
        verb = "would go" if self.dry_run else "went"
        lines = [
            f"{counted(len(self.inbox), 'clip')} refused for {self.reason} {verb} back to the inbox, {len(self.batch)} to their open batch."
        ]
        if self.inbox or self.batch:
            lines.append("`violence-ops night`, or the next run of nightly_ingestion in Airflow, judges them again.")
        if self.waiting:
            lines.append(
                f"{counted(len(self.waiting), 'waits', 'wait')} in quarantine because of a night that is under way: once it is sealed, "
                f"`violence-ops retry --reason {self.reason}` takes them to the inbox."
            )
        if self.kept:
            lines.append(f"{len(self.kept)} stay in quarantine: a batch was sealed with their refusal in it.")
        if self.unlabelled:
            lines.append(
                f"{counted(len(self.unlabelled), 'has', 'have')} no label yet and would be refused again, such as "
                f"{self.unlabelled[0]}: first `violence-ops label CLIP LABEL --by NAME`."
            )
        return lines


def run(workspace: Workspace, *, reason: str, dry_run: bool = False) -> RetryResult:
    """Take the clips in quarantine for this reason back to where they are judged anew: their batch while nothing follows its
    validation, and once it is sealed the inbox, called after their ids and with what they came with.

    A second run finds nothing more to do; killed at any point, it finishes, and no original is lost. Raises UsageError if the
    reason lies in the bytes.
    """
    if reason not in TRANSIENT:
        raise UsageError(
            f"Clips refused for {reason[:80]!r} would be refused again: give one of {', '.join(TRANSIENT)} with --reason."
        )
    with workspace.lock("retry"):
        refused, unlabelled = _refused(workspace, reason), []
        if reason == "unlabelled" and workspace.params().validation.require_label:
            unlabelled = [entry["clip_id"] for entry, clip in refused if clip.label is None]
            refused = [(entry, clip) for entry, clip in refused if clip.label]
        free = [entry for entry, clip in refused if clip.batch_id is None]
        places: dict[_Place, list[str]] = {"batch": [], "waiting": [], "kept": []}
        for entry, batch in [(entry, workspace.batch(clip.batch_id)) for entry, clip in refused if clip.batch_id]:
            place = _place(batch, entry)
            if place == "batch" and not dry_run:
                place = _to_batch(workspace, batch, entry)
            if place:
                places[place].append(entry["clip_id"])
        if not dry_run:
            _to_inbox(workspace, free)
    inbox = [entry["clip_id"] for entry in free]
    return RetryResult(reason, inbox, **places, dry_run=dry_run, unlabelled=unlabelled)


def in_inbox(workspace: Workspace, clip_id: str) -> list[Path]:
    """A clip's files that `run` has put into the inbox. No link is followed: uploaders can make them there."""
    return _files_again(workspace, f"{clip_id}.*")


def all_in_inbox(workspace: Workspace) -> set[str]:
    """The ids of the clips of which the same is true, if a file is not only called so."""
    return {path.stem for path in _files_again(workspace, "*")}


def _files_again(workspace: Workspace, pattern: str) -> list[Path]:
    folders = [path for path in sorted(workspace.inbox.glob("again-*")) if not path.is_symlink()]
    found = [path for folder in folders for path in sorted(folder.glob(pattern))]
    return [path for path in found if path.is_file() and not path.is_symlink()]


def half_done(workspace: Workspace, clip_id: str) -> list[Path]:
    """A clip's files that a killed run was about to put there."""
    return sorted(workspace.retrying.glob(f"{clip_id}.*"))


def _refused(workspace: Workspace, reason: str) -> list[tuple[dict[str, Any], CatalogClip]]:
    """The clips that are refused for this reason and whose original is here, with what the catalog knows of them."""
    entries = [one for one in quarantine.entries(workspace) if one["reason"] == reason and one.get("original")]
    with open_catalog(workspace) as catalog:
        known = catalog.find(entry["clip_id"] for entry in entries)
    found = [(entry, known[entry["clip_id"]]) for entry in entries if entry["clip_id"] in known]
    return [(entry, clip) for entry, clip in found if (clip.status, clip.reason) == ("quarantined", reason)]


def _original(workspace: Workspace, entry: dict[str, Any]) -> Path:
    return workspace.quarantined(entry["clip_id"]) / str(entry["original"])


def _to_inbox(workspace: Workspace, entries: list[dict[str, Any]]) -> None:
    """Those that a killed run has not put there yet, in one new folder, which is there at once."""
    new = [entry for entry in entries if not _is_in_inbox(workspace, entry)]
    if workspace.retrying.exists():
        shutil.rmtree(workspace.retrying)
    if new:
        workspace.retrying.mkdir(parents=True)
        _fill(workspace, new, workspace.retrying)
        workspace.retrying.rename(new_again(workspace.inbox))
        sync_folder(workspace.inbox)
    for entry in entries:
        quarantine.release(workspace, entry["clip_id"])


def _is_in_inbox(workspace: Workspace, entry: dict[str, Any]) -> bool:
    """Whether the very original has a second name there, and not only a file that is called so."""
    original = _original(workspace, entry)
    return any(path.samefile(original) for path in in_inbox(workspace, entry["clip_id"]))


def _fill(workspace: Workspace, entries: list[dict[str, Any]], folder: Path) -> None:
    """Link the originals into a folder, and say in its labels.csv what they came with."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(("path", *_COLUMNS))
    for entry in entries:
        original = _original(workspace, entry)
        path = f"{entry['clip_id']}{original.suffix}"
        os.link(original, folder / path)
        table.writerow((path, *(entry.get(column) or "" for column in _COLUMNS)))
    write_text(folder / LABELS_FILE, out.getvalue())


def _place(batch: Batch, entry: dict[str, Any]) -> _Place | None:
    """Where a clip that was refused in this batch is judged anew; None if it waits in the batch for that already."""
    if batch.is_sealed:
        # without it: sealing has not come to the catalog yet, which then lets the clip go
        return "kept" if batches.read_rows(batch, "clips", entry["clip_id"]).num_rows else "waiting"
    if _video(batch, entry).exists() and not batch.part("clips", entry["clip_id"]).exists():
        return None
    # its checkpoint makes the folder: nobody would validate a clip after that, and the batch could not be sealed
    goes_on = (batch.open / "poses").exists()
    return "batch" if batch.manifest.is_file() and not goes_on else "waiting"


def _to_batch(workspace: Workspace, batch: Batch, entry: dict[str, Any]) -> _Place | None:
    """Take back the verdict on a clip of an open batch, unless the night went on or the clip was forgotten meanwhile; returns
    its place then.

    The quarantine keeps its link, so that the original has a name whatever ends in between.
    """
    with batches.locked(workspace, batch):
        if tombstones.stands(workspace, entry["clip_id"]):
            return None
        if (place := _place(batch, entry)) == "batch":
            if not (video := _video(batch, entry)).exists():
                os.link(_original(workspace, entry), video)
                sync_folder(video.parent)
            batch.part("clips", entry["clip_id"]).unlink(missing_ok=True)
    return place


def _video(batch: Batch, entry: dict[str, Any]) -> Path:
    return batches.video_of(batch, quarantine.as_clip(entry))
