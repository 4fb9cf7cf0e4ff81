"""What the stages that work clip by clip share: their progress files, writing of a clip that may be forgotten meanwhile, giving up
a clip, and finding one again."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa

from violence_ops.catalog import Catalog
from violence_ops.errors import Forgotten, Rejected, UsageError, UserError, WorkspaceError
from violence_ops.files import fingerprint, read_fingerprint, write_table
from violence_ops.folders import Batch, check_clip_id
from violence_ops.records import CLIPS_SCHEMA, ClipRecord
from violence_ops.store import batches, clip_names, quarantine, tombstones
from violence_ops.store.index import open_catalog
from violence_ops.wording import counted
from violence_ops.workspace import Workspace

_log = logging.getLogger(__name__)

STAGES: Final = {"validate": "clips", "extract-poses": "poses", "annotate": "tracks", "score": "predictions"}
"""The stages that work clip by clip, in order, and the table that each makes."""


def record_progress(workspace: Workspace, *stages: str, batch_id: str | None = None) -> None:
    """Write `data/progress/<stage>.json`: of every open batch, how many clips have the stage's table, and a digest of them. With
    `batch_id` only that one is looked at, and of the others stays what was recorded.

    The same batches give the same bytes, whatever shards did the work; without an open batch the files stay as they are. It looks
    at all clips, so a shard leaves it to `seal`. A batch that cannot be read is logged and left out: its own stages fail.
    """
    with workspace.lock("progress"):
        opened = batches.open_batch_ids(workspace)
        seen = {
            one: found for one in opened if batch_id in (None, one) and (found := _progress(workspace, one, stages))
        }
        for stage in stages:
            before = workspace.read_progress(stage)
            kept = {one: before[one] for one in opened if batch_id not in (None, one) and one in before}
            content = kept | {one: found[stage] for one, found in seen.items()}
            if content or not before:
                workspace.write_progress(stage, content)


def _progress(workspace: Workspace, batch_id: str, stages: Iterable[str]) -> dict[str, Any]:
    """What `record_progress` says of one batch, by stage; nothing if it cannot be read."""
    batch = workspace.batch(batch_id)
    try:
        clips = batches.accepted_clips(batch)
    except WorkspaceError as error:
        _log.warning("The progress of batch %s is not recorded: %s", batch_id, error)
        return {}
    return {stage: _progress_of(batch, clips, STAGES[stage]) for stage in stages}


def _progress_of(batch: Batch, clips: list[ClipRecord], table: str) -> dict[str, Any]:
    prints = {clip.clip_id: read_fingerprint(batch.part(table, clip.clip_id)) for clip in clips}
    done = {clip_id: found for clip_id, found in sorted(prints.items()) if found}
    return {"clips": len(done), "digest": fingerprint(done)}


@contextmanager
def writing(workspace: Workspace, batch: Batch, clip_id: str) -> Iterator[None]:
    """Hold a clip's batch while something is written of the clip: parts, quarantine, catalog.

    `forget` writes the tombstone first and then takes the clip's files away with the batch held alone, so that nothing of it
    comes after that. Raises Forgotten if the tombstone is there.
    """
    with batches.locked(workspace, batch, shared=True):
        if tombstones.stands(workspace, clip_id):
            raise Forgotten(clip_id)
        yield


@contextmanager
def unless_forgotten(workspace: Workspace, clip_id: str) -> Iterator[None]:
    """The work on one clip: what goes wrong with it is no error if the clip was forgotten meanwhile, with all its files."""
    try:
        yield
    except (UserError, OSError):
        if not tombstones.stands(workspace, clip_id):
            raise


def record(workspace: Workspace, catalog: Catalog, batch: Batch, clips: Iterable[ClipRecord]) -> None:
    """Tell the catalog of clips of an open batch, but for forgotten ones."""
    with batches.locked(workspace, batch, shared=True):
        catalog.record([clip for clip in clips if not tombstones.stands(workspace, clip.clip_id)], batch.batch_id)


def judged_clips(workspace: Workspace, batch: Batch) -> list[ClipRecord]:
    """The clips of an open batch, in clip_id order, but for forgotten ones. Raises WorkspaceError if `validate` has not judged all."""
    known = {clip.clip_id for clip in batches.read_manifest(batch).clips} - set(tombstones.all_of(workspace))
    clips = [clip for clip in batches.read_clips(batch) if clip.clip_id in known]
    if missing := len(known) - len(clips):
        raise WorkspaceError(
            f"{counted(missing, 'clip')} of batch {batch.batch_id} must be validated: run `violence-ops validate` first."
        )
    return clips


def withdraw(workspace: Workspace, batch: Batch, clip: ClipRecord, refusal: Rejected) -> None:
    """Take an accepted clip out of an open batch: original and reason to quarantine, its rows away. Can be repeated.

    Raises Forgotten.
    """
    with writing(workspace, batch, clip.clip_id):
        _withdraw(workspace, batch, clip, refusal)


def _withdraw(workspace: Workspace, batch: Batch, clip: ClipRecord, refusal: Rejected) -> None:
    refused = clip.with_(status="quarantined", reason=refusal.reason)
    video, part = batches.video_of(batch, clip), batch.part("clips", clip.clip_id)
    quarantine.put(
        workspace,
        refused,
        night=batches.read_manifest(batch).night,
        message=str(refusal),
        original=video if video.exists() else None,
        suffix=video.suffix,
    )
    row = pa.Table.from_pylist([refused.to_dict()], schema=CLIPS_SCHEMA)
    write_table(part, row, read_fingerprint(part))
    for table in ("poses", "tracks", "predictions"):
        batch.part(table, clip.clip_id).unlink(missing_ok=True)
    video.unlink(missing_ok=True)
    with open_catalog(workspace) as catalog:
        catalog.record([refused], batch.batch_id)


def batch_of(workspace: Workspace, clip_id: str) -> Batch | None:
    """The batch that a clip came with; None if it never got into one. Raises UsageError if the workspace does not know it."""
    with open_catalog(workspace) as catalog:
        found = catalog.find([check_clip_id(clip_id)]).get(clip_id)
    if found is None:
        raise UsageError(f"No clip {clip_id} in this workspace: {clip_names.WAYS}.")
    return workspace.batch(found.batch_id) if found.batch_id else None


def accepted_clip(workspace: Workspace, clip_id: str) -> tuple[Batch, ClipRecord]:
    """An accepted clip and its batch, open or sealed. Raises UsageError for an unknown clip, WorkspaceError for one not accepted."""
    batch = batch_of(workspace, clip_id)
    clips = batches.accepted_clips(batch, [clip_id]) if batch else []
    if batch is None or not clips:
        raise WorkspaceError(
            f"Clip {clip_id} is not among the accepted ones: `violence-ops explain {clip_id}` says why."
        )
    return batch, clips[0]
