"""Sealing: check a finished batch, join its per-clip tables, make it immutable and put it under version control."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from violence_ops import expectations, git, versioning
from violence_ops.code_revision import code_revision
from violence_ops.errors import WorkspaceError
from violence_ops.files import (
    atomic_path,
    fingerprint,
    load_table,
    read_fingerprint,
    read_json,
    sha256_file,
    sync_folder,
    write_json,
)
from violence_ops.folders import Batch
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params
from violence_ops.records import CLIPS_SCHEMA, POSES_SCHEMA, PREDICTIONS_SCHEMA, TRACKS_SCHEMA, TRANSIENT, ClipRecord
from violence_ops.stages.nightly import annotate, extract_poses, score
from violence_ops.stages.nightly.annotation_summary import summary_row
from violence_ops.store import batches, inbox
from violence_ops.store.batches import Progress
from violence_ops.store.index import open_catalog
from violence_ops.store.parts import STAGES, judged_clips, record_progress, unless_forgotten
from violence_ops.workspace import Workspace

_TABLES: Final = {"poses": POSES_SCHEMA, "tracks": TRACKS_SCHEMA, "predictions": PREDICTIONS_SCHEMA}
_NIGHT: Final = ("ingest", "validate", "extract-poses", "annotate", "score", "seal")


@dataclass(frozen=True, slots=True)
class SealResult(Jsonable):
    """The batches that are sealed, how many accepted clips they hold, the rows of their tables, and the git revision of the last one
    (of the workspace, if there is none)."""

    batch_ids: list[str]
    clips: int
    rows: dict[str, int]
    revision: str


def run(
    workspace: Workspace, params: Params, *, batch_id: str | None = None, progress: Progress | None = None
) -> SealResult:
    """Seal one batch, or every open one. Already sealed: a no-op; killed half-way: it goes on where it stopped.

    Raises ExpectationsFailed (everything stays in place), WorkspaceError if a stage before has not run for all clips, or ran with
    other weights or parameters, or with several champions, or a video is no longer the one that came, ServiceUnavailable if the DVC
    remote cannot be reached (the batch is sealed then; run again to send it).
    """
    chosen = (
        [workspace.batch(batch_id)] if batch_id else half_sealed(workspace) + batches.chosen_batches(workspace, None)
    )
    rows: Counter[str] = Counter()
    clips = 0
    for batch in chosen:
        if not batch.is_sealed:
            _refuse_changed(workspace, batch)
    _record_shards(workspace, batch_id)
    for batch in chosen:
        with batches.locked(workspace, batch):
            if not batch.is_sealed:
                _seal(workspace, params, batch, progress)
            _register(workspace, batch)
            _record_night(workspace, params, batch)
            # last: as long as it is there, a later night takes the batch up again
            if batch.open.exists():
                shutil.rmtree(batch.open)
        facts = batches.read_manifest(batch).facts
        rows.update({name: table["rows"] for name, table in facts["tables"].items()})
        clips += facts["accepted"]
    if not chosen:
        _record_night(workspace, params, None)
    revision = versioning.batch_revision(workspace, chosen[-1].batch_id) if chosen else git.revision(workspace)
    return SealResult([batch.batch_id for batch in chosen], clips, dict(rows), revision)


def half_sealed(workspace: Workspace) -> list[Batch]:
    """The sealed batches whose sealing was interrupted before all of it was done."""
    versioned = versioning.versioned_batches(workspace)
    return [b for b in workspace.sealed_batches() if b.batch_id not in versioned or b.open.exists()]


def _refuse_changed(workspace: Workspace, batch: Batch) -> None:
    """Raise WorkspaceError if the bytes of a clip of an open batch are no longer those that came: its id is their hash, and so the
    same clip could not come again if it were refused by that id."""
    for clip in batches.accepted_clips(batch):
        with unless_forgotten(workspace, clip.clip_id):
            video = batches.video_of(batch, clip)
            if sha256_file(video) != clip.sha256:
                raise WorkspaceError(
                    f"The bytes of {clip.source_path} were changed after it was validated (a disk that fails, or somebody who may write to "
                    f"{video.parent}): put the file that came into its place again ({video.name}), or remove the clip with `violence-ops forget "
                    f"{clip.clip_id} --by NAME --reason …`."
                )


def _seal(workspace: Workspace, params: Params, batch: Batch, progress: Progress | None) -> None:
    # what was refused for no fault of its bytes may come again, and has one batch then as any other clip
    clips = [clip for clip in judged_clips(workspace, batch) if clip.reason not in TRANSIENT]
    accepted = [clip for clip in clips if clip.status == "accepted"]
    weights_sha256 = extract_poses.source_sha256(params.pose)
    _refuse_outdated(params, weights_sha256, batch, accepted)
    if accepted:
        _check(workspace, params, batch, accepted)
    staging = workspace.sealing(batch.batch_id)
    if staging.exists():
        shutil.rmtree(staging)
    staging.mkdir(parents=True)
    _link_videos(batch, accepted, staging)
    counts = {"clips": _write_clips(clips, staging / "clips.parquet")}
    for done, (name, schema) in enumerate(_TABLES.items(), start=1):
        counts[name] = _join(batch, name, schema, accepted, staging / f"{name}.parquet")
        if progress:
            progress(f"seal {batch.batch_id}", done, len(_TABLES))
    _write_manifest(params, weights_sha256, batch, clips, counts, staging)
    sync_folder(staging)
    batch.sealed.parent.mkdir(parents=True, exist_ok=True)
    staging.rename(batch.sealed)
    sync_folder(batch.sealed.parent)


def _register(workspace: Workspace, batch: Batch) -> None:
    """Version a sealed batch and tell the catalog."""
    if batch.batch_id not in versioning.versioned_batches(workspace):
        versioning.add_batch(workspace, batch)
    with open_catalog(workspace) as catalog:
        catalog.seal_batch(batch.batch_id)


def _record_shards(workspace: Workspace, batch_id: str | None) -> None:
    """Record what the shards of the stages before have done; in `dvc repro` each stage, and DVC, has done so itself."""
    if batches.open_batch_ids(workspace) and not versioning.inside_repro(workspace):
        record_progress(workspace, *STAGES, batch_id=batch_id)


def _record_night(workspace: Workspace, params: Params, sealed: Batch | None) -> None:
    """Commit what the night left to git, and tell DVC that the stages are done: none while a batch is open, ingestion only if no
    file that came meanwhile waits for it."""
    _write_progress(workspace)
    done: tuple[str, ...] = ()
    if not batches.open_batch_ids(workspace):
        waiting = inbox.scan(workspace.inbox, params.ingest.settle_s)
        done = _NIGHT[1:] if waiting.drops or waiting.left else _NIGHT
    versioning.commit_stage(workspace, done, f"Night: {sealed.batch_id if sealed else 'nothing new'}", params)


def _refuse_outdated(params: Params, weights_sha256: str, batch: Batch, accepted: list[ClipRecord]) -> None:
    """Refuse poses and tracks that are not those of the present weights and parameters, which batch.json will name, and
    predictions that are not of these tracks and one champion."""
    champion = score.pinned_champion(batch)
    for clip in accepted:
        wanted = {
            ("poses", "extract-poses"): extract_poses.expected(clip, weights_sha256, params.pose),
            ("tracks", "annotate"): annotate.expected(batch, clip, params),
            ("predictions", "score"): score.expected(batch, clip, champion),
        }
        for (table, verb), mark in wanted.items():
            part = batch.part(table, clip.clip_id)
            if read_fingerprint(part) != mark:
                causes = "tracks or another champion" if table == "predictions" else "weights or parameters"
                state = f"{table} of other {causes}" if part.is_file() else f"no {table} yet"
                raise WorkspaceError(
                    f"Clip {clip.clip_id} of batch {batch.batch_id} has {state}: run `violence-ops {verb}` and what follows it."
                )


def _check(workspace: Workspace, params: Params, batch: Batch, accepted: list[ClipRecord]) -> None:
    import pandas as pd

    rows = [
        summary_row(
            clip,
            load_table(batch.part("poses", clip.clip_id)),
            load_table(batch.part("tracks", clip.clip_id)),
            params.annotation.crowd,
        )
        for clip in accepted
    ]
    expectations.check_annotations(workspace, batch.batch_id, pd.DataFrame(rows), params.expectations)


def _link_videos(batch: Batch, accepted: list[ClipRecord], staging: Path) -> None:
    (staging / "videos").mkdir()
    for clip in accepted:
        video = batches.video_of(batch, clip)
        os.link(video, staging / "videos" / video.name)


def _write_clips(clips: list[ClipRecord], path: Path) -> int:
    with atomic_path(path) as temporary:
        pq.write_table(
            pa.Table.from_pylist([clip.to_dict() for clip in clips], CLIPS_SCHEMA), temporary, compression="zstd"
        )
    return len(clips)


def _join(batch: Batch, name: str, schema: pa.Schema, accepted: list[ClipRecord], path: Path) -> int:
    """Write one table of all clips, in clip_id order, a row group a clip, with one clip in memory at a time."""
    count = 0
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for clip in accepted:
            part = batch.part(name, clip.clip_id)
            table = load_table(part).replace_schema_metadata(None)
            if len(table):
                writer.write_table(table, row_group_size=len(table))
                count += len(table)
    return count


def _write_manifest(
    params: Params, weights_sha256: str, batch: Batch, clips: list[ClipRecord], counts: dict[str, int], staging: Path
) -> None:
    draft = batches.read_manifest(batch)
    tables = {
        name: {"rows": number, "sha256": sha256_file(staging / f"{name}.parquet")} for name, number in counts.items()
    }
    refused = Counter(clip.reason or "" for clip in clips if clip.status == "quarantined")
    content = {
        "batch_id": batch.batch_id, "night": draft.night, "tables": tables, "params": params.model_dump(mode="json"),
        "accepted": len(clips) - refused.total(), "quarantined": dict(refused),
        "code_revision": code_revision(),
        "pose_weights": {"name": extract_poses.source_name(params.pose), "sha256": weights_sha256},
        "run": {
            "run_id": os.environ.get("AIRFLOW_CTX_DAG_RUN_ID"), "sealed_at": datetime.now(UTC).isoformat(),
            "pose_costs": _costs(batch, clips),
        },
    }  # fmt: skip
    write_json(staging / "batch.json", content)


def _costs(batch: Batch, clips: list[ClipRecord]) -> dict[str, Any]:
    """Seconds that the pose network took for each clip, by device, as measured when its poses were found."""
    paths = {clip.clip_id: batch.cost(clip.clip_id) for clip in clips if clip.status == "accepted"}
    costs = {
        clip_id: read_json(path, "remove it; what the clip's poses cost is lost then")
        for clip_id, path in paths.items()
        if path.is_file()
    }
    seconds: Counter[str] = Counter()
    for cost in costs.values():
        seconds[cost["device"]] += cost["engine_s"]
    return {"engine_s": {device: round(total, 3) for device, total in seconds.items()}, "clips": costs}


def _write_progress(workspace: Workspace) -> None:
    batch_ids = [batch.batch_id for batch in workspace.sealed_batches()]
    workspace.write_progress("seal", {"batches": len(batch_ids), "digest": fingerprint(batch_ids)})
