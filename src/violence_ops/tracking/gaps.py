"""Gaps inside a track, filled in between the rows on either side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from violence_ops.records import ClipTracks, IntArray
from violence_ops.tracking.boxes import Float


def fill(tracks: ClipTracks, frames: IntArray, limit_s: float) -> ClipTracks:
    """`tracks` with a row for every frame that a track misses between two of its rows that lie at most `limit_s` apart.

    Boxes and joints go linearly from one row to the other; a joint that only one of them has stays unseen; scores are the
    lower of the two. Such rows are marked `interpolated`. `frames` `(F,)` are those that were looked at; only they are
    filled. Rows stay by frame and track; the values of a track (rank, components) are those of the row before the gap.
    """
    looked_at = np.union1d(frames, tracks.frame)
    order = np.lexsort((tracks.frame, tracks.track_id))
    before, after = order[:-1], order[1:]
    first, last = (np.searchsorted(looked_at, tracks.frame[rows]) for rows in (before, after))
    short = (tracks.frame[after] - tracks.frame[before]) <= limit_s * (tracks.fps or 1.0) + 1e-6
    missing = np.where((tracks.track_id[before] == tracks.track_id[after]) & short, last - first - 1, 0).clip(0)
    if not missing.any():
        return tracks
    before, after, first = (np.repeat(each, missing) for each in (before, after, first))
    place = np.arange(len(before)) - np.repeat(np.cumsum(missing) - missing, missing)
    frame = looked_at[first + 1 + place].astype(np.int32)
    share = (frame - tracks.frame[before]) / (tracks.frame[after] - tracks.frame[before])
    added = _between(tracks, before, after, share, frame)
    joined = {name: np.concatenate([getattr(tracks, name), values]) for name, values in added.items()}
    rows = np.lexsort((joined["track_id"], joined["frame"]))
    return replace(tracks, **{name: values[rows] for name, values in joined.items()})


def _between(
    tracks: ClipTracks, before: np.ndarray, after: np.ndarray, share: Float, frame: IntArray
) -> dict[str, np.ndarray]:
    """The columns of M rows, each `share` `(M,)` of the way from one row to another."""

    def linear(values: np.ndarray) -> np.ndarray:
        weight = share.reshape(-1, *[1] * (values.ndim - 1))
        return np.asarray((values[before] + weight * (values[after] - values[before])).astype(np.float32))

    sure = np.minimum(tracks.keypoint_scores[before], tracks.keypoint_scores[after])
    same = {name: getattr(tracks, name)[before] for name in ("track_id", "rank", "involvement", "components")}
    return same | {
        "frame": frame, "bboxes": linear(tracks.bboxes), "scores": np.minimum(tracks.scores[before], tracks.scores[after]),
        "keypoints": np.where((sure > 0)[..., None], linear(tracks.keypoints), np.float32(0)), "keypoint_scores": sure,
        "interpolated": np.ones(len(frame), bool),
    }  # fmt: skip
