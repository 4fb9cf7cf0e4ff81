"""One row per clip about its poses and tracks, so that expectations over millions of rows cost a few thousand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from violence_ops.evaluation import scene
from violence_ops.records import (
    COMPONENTS,
    POSES_SCHEMA,
    TRACKS_SCHEMA,
    ClipPoses,
    ClipRecord,
    ClipTracks,
    piece_starts,
)


def scene_of(frame: NDArray[np.integer], crowd: int) -> scene.Scene:
    """How many people a clip shows at once, in words, from the frame `(R,)` of every row of its tracks."""
    return scene.scene_of(scene.persons_at_once(frame), crowd)


def summary_row(clip: ClipRecord, poses: pa.Table, tracks: pa.Table, crowd: int) -> dict[str, Any]:
    """The scene, counts of what must not be, and the ranges of scores and components (null where a clip shows nobody)."""
    differences = [not poses.schema.equals(POSES_SCHEMA), not tracks.schema.equals(TRACKS_SCHEMA)]
    row: dict[str, Any] = {"clip_id": clip.clip_id, "schema_differences": sum(differences)}
    if any(differences):
        return row
    people, followed = ClipPoses.from_table(poses, clip), ClipTracks.from_table(tracks, clip)
    everything = (
        people.bboxes,
        people.scores,
        people.keypoints,
        people.keypoint_scores,
        followed.involvement,
        followed.components,
    )
    row |= {
        "scene": scene_of(followed.frame, crowd),
        "without_person": float(len(people) == 0),
        "frames_outside": _outside(people.frame, clip) + _outside(followed.frame, clip),
        "bad_boxes": int((people.bboxes[:, 2:] <= people.bboxes[:, :2]).any(axis=1).sum()),
        "not_finite": int(sum((~np.isfinite(values)).sum() for values in everything)),
        "repeated_tracks": len(followed) - len(np.unique(np.stack([followed.frame, followed.track_id]), axis=1).T),
        "tracks_without_poses": max(0, int((~followed.interpolated).sum()) - len(people)),
        "bad_ranks": _bad_ranks(followed),
    }
    ranges = {"score": people.scores, "keypoint_score": people.keypoint_scores}
    ranges |= {name: followed.components[:, column] for column, name in enumerate(COMPONENTS)}
    for name, values in ranges.items():
        row[f"{name}_min"] = float(values.min()) if values.size else None
        row[f"{name}_max"] = float(values.max()) if values.size else None
    return row


def _outside(frame: NDArray[np.int32], clip: ClipRecord) -> int:
    return int(((frame < 0) | (frame >= (clip.frame_count or 0))).sum())


def _bad_ranks(tracks: ClipTracks) -> int:
    """How many pieces of the clip have a track of two ranks, or ranks above 0 that are not 1, 2, 3, … with one track each; none if
    the whole clip was ranked at once, as it was before November 2026."""
    if not _are_bad(tracks.track_id, tracks.rank):
        return 0
    piece = np.searchsorted(piece_starts(tracks.frame_count, tracks.fps), tracks.frame, side="right")
    return sum(_are_bad(tracks.track_id[piece == one], tracks.rank[piece == one]) for one in np.unique(piece))


def _are_bad(track_id: NDArray[np.int32], rank: NDArray[np.int32]) -> bool:
    pairs = np.unique(np.stack([track_id, rank]), axis=1)
    one_each = len(np.unique(pairs[0])) == pairs.shape[1]
    ranked = np.sort(pairs[1][pairs[1] > 0])
    return not one_each or not np.array_equal(ranked, np.arange(1, len(ranked) + 1))
