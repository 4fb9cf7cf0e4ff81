"""What the stages that work clip by clip share: their progress files, giving up a clip, and finding one again."""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa

from violence_ops.errors import Rejected, UsageError, WorkspaceError
from violence_ops.files import fingerprint, read_fingerprint, write_table
from violence_ops.folders import Batch, check_clip_id
from violence_ops.records import CLIPS_SCHEMA, ClipRecord
from violence_ops.stages import batches, clip_names, quarantine
from violence_ops.stages.index import open_catalog
from violence_ops.workspace import Workspace

STAGES: Final = {"validate": "clips", "extract-poses": "poses", "annotate": "tracks", "score": "predictions"}
"""The stages that work clip by clip, in order, and the table that each makes."""


def record_progress(workspace: Workspace, *stages: str) -> None:
    """Write `data/progress/<stage>.json`: of every open batch, how many clips have the stage's table, and a digest of them.

    The same batches give the same bytes, whatever shards did the work; without an open batch the files stay as they are. It looks
    at all clips, so a shard leaves it to `seal`.
    """
    with workspace.lock("progress"):
        content: dict[str, dict[str, Any]] = {stage: {} for stage in stages}
        for batch_id in batches.open_batch_ids(workspace):
            batch = workspace.batch(batch_id)
            clips = batches.accepted_clips(batch)
            for stage in stages:
                content[stage][batch_id] = _progress_of(batch, clips, STAGES[stage])
        for stage, found in content.items():
            if found or not workspace.read_progress(stage):
                workspace.write_progress(stage, found)


def _progress_of(batch: Batch, clips: list[ClipRecord], table: str) -> dict[str, Any]:
    prints = {clip.clip_id: read_fingerprint(batch.part(table, clip.clip_id)) for clip in clips}
    done = {clip_id: found for clip_id, found in sorted(prints.items()) if found}
    return {"clips": len(done), "digest": fingerprint(done)}


def withdraw(workspace: Workspace, batch: Batch, clip: ClipRecord, refusal: Rejected) -> None:
    """Take an accepted clip out of an open batch: original and reason to quarantine, its rows away. Can be repeated."""
    refused = clip.with_(status="quarantined", reason=refusal.reason)
    video, record = batches.video_of(batch, clip), batch.part("clips", clip.clip_id)
    quarantine.put(
        workspace,
        refused,
        night=batches.read_manifest(batch).night,
        message=str(refusal),
        original=video if video.exists() else None,
        suffix=video.suffix,
    )
    row = pa.Table.from_pylist([refused.to_dict()], schema=CLIPS_SCHEMA)
    write_table(record, row, read_fingerprint(record))
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
