"""Two persons at a time: how near they stand, and whether one's limbs are at the other's head or trunk (docs/involvement.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from violence_ops.involvement.components import Flags, Float, Rows, joints
from violence_ops.records import LIMBS, TRUNK

TARGETS: Final = (0, *TRUNK)
"""Nose, shoulders and hips: what is struck."""
_DEPTH: Final = 0.5
"""How long a step towards the camera looks, beside one across: a camera that looks down at 30 degrees."""
_AT_ONCE: Final = 20_000
"""Pairs of rows looked at together: bounds the memory whatever the clip."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of tracks that share a frame. first, second `(Q,)` tracks, first < second; closeness, contact `(Q,)` in [0, 1]."""

    first: Rows
    second: Rows
    closeness: Float
    contact: Float


def pairs(
    frame: NDArray[np.integer], track: Rows, bboxes: Float, scores: NDArray[np.floating], keypoints: NDArray[np.floating],
    valid: Flags, heights: Float, *, frames: int, closeness_reach: float, contact_reach: float,
) -> Pairs:  # fmt: skip
    """Closeness and contact of every two tracks: the mean over the frames that both are in, times the root of these frames'
    share of the `frames` of the clip: who meet only for a moment count little, a track that tears now and then counts on.
    In each frame the two count as much as the score of the less sure: beside one who fights, false people are near and weak.

    Rows are in the order of `frame` `(R,)`; `track` `(R,)`, bboxes `(R, 4)` xyxy px, scores `(R,)` in [0, 1], keypoints
    `(R, 17, 2)` px, valid `(R, 17)`, heights `(R,)` px of the person standing. Both reaches are in body heights: the mean of the two.

    closeness: max(0, 1 - distance of the middles of the boxes' lower edges / reach), with what lies in the depth counted double.
    contact: mean over both directions of max(0, 1 - distance of the nearest of one's wrists and ankles to the nearest of
    the other's nose, shoulders and hips / reach).
    """
    tracks = int(track.max(initial=-1)) + 1
    feet = np.stack([(bboxes[:, 0] + bboxes[:, 2]) / 2, bboxes[:, 3] / _DEPTH], axis=1)
    found = []
    for one, other in _row_pairs(frame):
        unit = (heights[one] + heights[other]) / 2
        near = 1 - np.linalg.norm(feet[one] - feet[other], axis=1) / (closeness_reach * unit)
        there = _touch(keypoints, valid, one, other, contact_reach * unit)
        back = _touch(keypoints, valid, other, one, contact_reach * unit)
        low, high = np.minimum(track[one], track[other]), np.maximum(track[one], track[other])
        sure = np.minimum(scores[one], scores[other])
        values = np.stack([sure * np.fmax(near, 0.0), sure * (there + back) / 2, np.ones(len(one))], axis=1)
        found.append(_summed(low * tracks + high, values))
    codes = np.concatenate([codes for codes, _ in found]) if found else np.zeros(0, np.intp)
    sums = np.concatenate([sums for _, sums in found]) if found else np.zeros((0, 3))
    codes, sums = _summed(codes, sums)
    shared = sums[:, 2]
    means = sums[:, :2] / shared[:, None] * np.sqrt(np.minimum(shared / max(frames, 1), 1.0))[:, None]
    return Pairs(codes // max(tracks, 1), codes % max(tracks, 1), means[:, 0], means[:, 1])


def partners(found: Pairs, own: Float, weights: tuple[float, float, float], eligible: NDArray[np.bool_]) -> Float:
    """`(tracks, 3)` closeness and contact of every track with its partner, and the partner's `own`; zeros without one.

    The partner is the eligible track with which weights (closeness, contact, own) give the largest sum; of equals the one
    that stands closer, then the lower one. own `(tracks,)` in [0, 1] is what a person does alone, eligible `(tracks,)`.
    """
    result = np.zeros((len(own), 3))
    track, other = np.concatenate([found.first, found.second]), np.concatenate([found.second, found.first])
    values = np.stack([np.tile(found.closeness, 2), np.tile(found.contact, 2), own[other]], axis=1)
    track, other, values = (each[eligible[other]] for each in (track, other, values))
    order = np.lexsort((other, -values[:, 0], -(values @ np.array(weights)).round(12), track))
    _, first = np.unique(track[order], return_index=True)
    best = order[first]
    result[track[best]] = values[best]
    return result


def _row_pairs(frame: NDArray[np.integer]) -> Iterator[tuple[Rows, Rows]]:
    """Every two rows of one frame, some at a time: rows `(M,)` and later rows `(M,)`."""
    last = np.searchsorted(frame, frame, side="right")
    counts = last - np.arange(len(frame)) - 1
    until = np.cumsum(counts)
    start = 0
    while start < len(frame):
        done = int(until[start - 1]) if start else 0
        end = max(int(np.searchsorted(until, done + _AT_ONCE, side="right")), start + 1)
        some = counts[start:end]
        one = np.repeat(np.arange(start, end), some)
        place = np.arange(len(one)) - np.repeat(np.cumsum(some) - some, some)
        if len(one):
            yield one, one + 1 + place
        start = end


def _touch(keypoints: NDArray[np.floating], valid: Flags, one: Rows, other: Rows, reach: Float) -> Float:
    """`(M,)` in [0, 1] how near the limbs of rows `one` come to the heads and trunks of rows `other`; reach `(M,)` px."""
    result = np.zeros(len(one))
    limbs, targets = joints(keypoints, valid, one, LIMBS), joints(keypoints, valid, other, TARGETS)
    distance = np.linalg.norm(limbs[:, :, None] - targets[:, None], axis=3).reshape(len(one), -1)
    known = np.isfinite(distance).any(axis=1)
    result[known] = np.maximum(0.0, 1 - np.nanmin(distance[known], axis=1) / reach[known])
    return result


def _summed(codes: Rows, values: Float) -> tuple[Rows, Float]:
    """Equal codes once, in order, with the sums of their values `(M, C)`."""
    unique, place = np.unique(codes, return_inverse=True)
    sums = [np.bincount(place, column, len(unique)) for column in values.T]
    return unique, np.stack(sums, axis=1)
