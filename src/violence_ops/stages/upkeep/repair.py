"""Repairing a batch where no stage can: its list is lost, or it has clips that are those of an earlier batch.

What is known of its clips is kept: a source group that is lost could put one incident on both sides of a holdout.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from violence_ops import git, versioning_erase
from violence_ops.catalog import Catalog, CatalogClip
from violence_ops.errors import UnknownBatch, WorkspaceError
from violence_ops.files import sync_folder, write_text
from violence_ops.folders import Batch
from violence_ops.jsonable import Jsonable
from violence_ops.records import ClipRecord
from violence_ops.stages.inspection.findings import DAMAGED
from violence_ops.store import batches, labels_file, rewrite
from violence_ops.store.inbox import LABELS_FILE, new_again
from violence_ops.store.index import open_catalog
from violence_ops.store.labels import give
from violence_ops.wording import counted
from violence_ops.workspace import Workspace

_COLUMNS: Final = ("label", "source_group", "camera_id", "recorded_at")


@dataclass(frozen=True, slots=True)
class RepairResult(Jsonable):
    """The clips that went back to the `inbox`, those among them that are `unknown` but for their bytes, and those that were `removed`
    from the batch because an earlier one has them."""

    batch_id: str
    inbox: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """For people."""
        if self.inbox:
            yield (
                f"{counted(len(self.inbox), 'clip')} of batch {self.batch_id} went back to the inbox, with what is known of them; the "
                "next night takes them."
            )
        if self.unknown:
            yield (
                f"Of {len(self.unknown)} no label, source group or camera is known any more, such as {self.unknown[0]}: look into that "
                f"{LABELS_FILE} before the night does."
            )
        if self.removed:
            yield f"{counted(len(self.removed), 'clip')} left batch {self.batch_id}: an earlier batch has the same bytes."
        if not (self.inbox or self.removed):
            yield f"Nothing of batch {self.batch_id} had to be repaired here: `violence-ops check` says what else is wrong."


def run(workspace: Workspace, batch_id: str) -> RepairResult:
    """Give the clips of an open batch whose `batch.json` cannot be read back to the inbox, with a labels.csv of what is known of them;
    of any other batch, take out the clips that an earlier one has accepted too.

    Killed at any point, it can be run again. Raises UnknownBatch, WorkspaceError if the batch is not pulled, if another table is damaged
    or git is on no branch, ServiceUnavailable if the catalog or the DVC remote cannot be reached.
    """
    batch, aside = workspace.batch(batch_id), workspace.repairing / batch_id
    if not batch.is_sealed and batch.pointer.is_file():
        raise WorkspaceError(
            f"Batch {batch_id} is not here: `violence-ops dvc pull` its pointer {batch.pointer} first."
        )
    with workspace.lock("repair"), batches.locked(workspace, batch):
        if aside.exists() or _has_lost_its_list(batch):
            return _to_inbox(workspace, batch, aside)
        return RepairResult(batch_id, removed=_without_repeated(workspace, batch))


def _has_lost_its_list(batch: Batch) -> bool:
    if batch.is_sealed:
        return False
    try:
        batches.read_manifest(batch)
    except UnknownBatch:
        if not batch.videos.is_dir():
            raise
        return True
    except (*DAMAGED, AttributeError):
        return True
    return False


def _to_inbox(workspace: Workspace, batch: Batch, aside: Path) -> RepairResult:
    """The batch goes aside first, as the same clips on the same night are the same batch again; and the catalog lets its clips go
    before they lie in the inbox, as they would be duplicates there."""
    moved = replace(batch, open=aside)
    # not `open_catalog`: one that is lost could not be made with this batch
    with Catalog(workspace.catalog_url) as catalog:
        if aside.exists():  # a run before this one was killed
            clips = dict.fromkeys(_originals(moved), True)
        else:
            clips = _write_table(batch, catalog)
            aside.parent.mkdir(parents=True, exist_ok=True)
            batch.open.rename(aside)
            sync_folder(workspace.work)
        if moved.videos.is_dir():
            catalog.dissolve_batch(batch.batch_id)
            moved.videos.rename(new_again(workspace.inbox))
            sync_folder(workspace.inbox)
    shutil.rmtree(aside)
    return RepairResult(batch.batch_id, tuple(clips), tuple(name for name, is_known in clips.items() if not is_known))


def _originals(batch: Batch) -> dict[str, Path]:
    """The original videos by clip_id."""
    paths = sorted(batch.videos.iterdir()) if batch.videos.is_dir() else []
    return {path.stem: path for path in paths if path.name != LABELS_FILE}


def _write_table(batch: Batch, catalog: Catalog) -> dict[str, bool]:
    """Say in a labels.csv beside the originals what they came with; returns the clips and whether anything is known of them."""
    batch.videos.mkdir(exist_ok=True)
    paths = _originals(batch)
    indexed = catalog.find(paths)
    known = {name: _known(batch, name, indexed.get(name)) for name in paths}
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(("path", *_COLUMNS))
    table.writerows((paths[name].name, *(row.get(column) or "" for column in _COLUMNS)) for name, row in known.items())
    write_text(batch.videos / LABELS_FILE, out.getvalue())
    return {name: bool(row) for name, row in known.items()}


def _known(batch: Batch, clip_id: str, indexed: CatalogClip | None) -> dict[str, Any]:
    """What a clip came with: as its validation has kept it, or else as the catalog knows it. The catalog's label is the newest."""
    part = batch.open / "clips" / f"{clip_id}.parquet"
    try:
        row = ClipRecord.from_dict(pq.read_table(part).to_pylist()[0]).to_dict()
    except (*DAMAGED, IndexError):
        row = asdict(indexed) if indexed else {}
    return row | ({"label": indexed.label} if indexed and indexed.label else {})


def _without_repeated(workspace: Workspace, batch: Batch) -> tuple[str, ...]:
    """Take out the clips that an earlier batch has too, and let that one have the label that it lacked."""
    git.check_branch(workspace)
    accepted = {clip.clip_id: clip for clip in batches.accepted_clips(batch)}
    homes = _homes(workspace, batch, accepted)
    said = labels_file.in_force(workspace)
    lacking = [clip_id for clip_id, (_, first) in homes.items() if first.label is None and clip_id not in said]
    if new := {clip_id: label for clip_id in lacking if (label := accepted[clip_id].label)}:
        give(workspace, new, by="ingest", source="inbox")
    with open_catalog(workspace) as catalog:
        for home, first in homes.values():
            catalog.record([first], home.batch_id)
    for clip_id in homes:
        rewrite.sealed_without(batch, clip_id)
        if not batch.is_sealed:
            rewrite.open_without(batch, clip_id)
    if batch.is_sealed:
        # also where nothing was left to be taken out: a killed run may have come so far
        message = f"Batch {batch.batch_id} without clips of earlier batches"
        versioning_erase.replace(workspace, batch.sealed, message, f"batch/{batch.batch_id}")
    return tuple(sorted(homes))


def _homes(workspace: Workspace, batch: Batch, accepted: Collection[str]) -> dict[str, tuple[Batch, ClipRecord]]:
    """Of each clip that earlier batches have accepted too, the first of them, and what the clip is there."""
    opened = map(workspace.batch, batches.open_batch_ids(workspace))
    earlier = {
        other.batch_id: other for other in (*workspace.sealed_batches(), *opened) if other.batch_id < batch.batch_id
    }
    homes: dict[str, tuple[Batch, ClipRecord]] = {}
    for _, other in sorted(earlier.items(), reverse=True):
        homes |= {clip.clip_id: (other, clip) for clip in batches.accepted_clips(other, accepted)}
    return homes
