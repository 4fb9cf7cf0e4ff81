"""The values of a sealed batch's clips that drift is measured by, read a clip at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from violence_ops.files import load_table
from violence_ops.folders import Batch
from violence_ops.records import JOINTS, sampled_frames
from violence_ops.store import batches

if TYPE_CHECKING:
    from violence_ops.evaluation.drift import ClipValues


def clip_values(batch: Batch, wanted: set[str] | None = None, judged_by: str | None = None) -> Iterator[ClipValues]:
    """The accepted clips of a sealed batch, or the `wanted` ones; with the probabilities that the model `judged_by` gave."""
    from violence_ops.evaluation.drift import ClipValues, of_poses, of_tracks

    clips = {clip.clip_id: clip for clip in batches.accepted_clips(batch, wanted)}
    rate = batches.read_manifest(batch).facts["params"]["pose"]["max_frames_per_second"]
    values: dict[str, dict[str, float]] = {clip_id: {"persons": 0.0} for clip_id in clips}
    for clip_id, rows in batches.rows_by_clip(batch.table("poses"), ["bbox", "score", "keypoint_scores"]):
        if clip := clips.get(clip_id):
            values[clip_id] |= of_poses(
                len(sampled_frames(clip, rate)), clip.height or 1,
                _column(rows, "bbox", 4), _column(rows, "score"), _column(rows, "keypoint_scores", JOINTS),
            )  # fmt: skip
    for clip_id, rows in batches.rows_by_clip(batch.table("tracks"), ["frame", "track_id", "rank", "involvement"]):
        if clip := clips.get(clip_id):
            columns = (_column(rows, name) for name in ("frame", "track_id", "rank", "involvement"))
            values[clip_id] |= of_tracks(clip.fps or 1.0, *columns)
    if judged_by is not None:
        for clip_id, probability in _judged(batch, judged_by):
            values[clip_id]["probability"] = probability
    return (
        ClipValues(named_group(clip_id, clips[clip_id].source_group), clips[clip_id].camera_id, found)
        for clip_id, found in values.items()
    )


def named_group(clip_id: str, source_group: str) -> str | None:
    """The source group that somebody has named; None of a clip that is a group of its own because nobody has."""
    return source_group if source_group != clip_id else None


def _judged(batch: Batch, version: str) -> Iterator[tuple[str, float]]:
    table = load_table(
        batch.table("predictions"), columns=["clip_id", "clip_probability"],
        filters=[("model_version", "=", version), ("window", "=", 0)],
    )  # fmt: skip
    return ((row["clip_id"], row["clip_probability"]) for row in table.to_pylist())


def _column(rows: pa.Table, name: str, *shape: int) -> NDArray[Any]:
    column = rows.column(name).combine_chunks()
    if not shape:
        return np.asarray(column.to_numpy(zero_copy_only=False))
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False)).reshape(-1, *shape)
