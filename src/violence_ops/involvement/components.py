"""The components of involvement that look at persons and not at the frame (SPEC 5), vectorised over all rows of a clip."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Float = NDArray[np.float64]
Rows = NDArray[np.intp]
Flags = NDArray[np.bool_]

_UNKNOWN = 0.5
"""What movement and consistency say of a person who was not seen often enough."""
_LIMBS, _TRUNK = (9, 10, 15, 16), (5, 6, 11, 12)  # wrists and ankles; shoulders and hips
_FAR = 1e7
"""px; farther keypoints than this are no keypoints: no frame is as large."""


def valid_keypoints(keypoints: NDArray[np.floating], scores: NDArray[np.floating]) -> NDArray[np.bool_]:
    """`(R, 17)` which keypoints count: score above 0, and somewhere. keypoints `(R, 17, 2)` px, scores `(R, 17)`."""
    with np.errstate(invalid="ignore"):
        return (scores > 0) & (np.abs(keypoints) < _FAR).all(axis=2)


def centres(keypoints: NDArray[np.floating], valid: NDArray[np.bool_]) -> Float:
    """`(R, 2)` mean of each person's valid keypoints, px; NaN without any."""
    total = np.where(valid[..., None], keypoints, 0.0).astype(np.float64).sum(axis=1)
    count = valid.sum(axis=1, keepdims=True)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def detection(scores: NDArray[np.floating], valid: NDArray[np.bool_]) -> Float:
    """`(R,)` in [0, 1]: 0.7 x mean score of the valid keypoints + 0.3 x their share."""
    count = valid.sum(axis=1)
    total = np.where(valid, scores, 0.0).astype(np.float64).sum(axis=1)
    mean = np.divide(total, count, out=np.zeros(len(count)), where=count > 0)
    return 0.7 * np.minimum(mean, 1.0) + 0.3 * count / valid.shape[1]


def interaction(points: Float, frame: NDArray[np.integer], reach: Float) -> Float:
    """`(R,)` in [0, 1]: max(0, 1 - distance to the nearest other person of the frame / reach); 0 alone or without centre.

    points `(R, 2)` px, frame `(R,)`, reach `(R,)` px. A tree over (x, y, frame), with frames farther apart than any
    two persons, finds the nearest of the same frame in one go.
    """
    result = np.zeros(len(points))
    known = np.flatnonzero(np.isfinite(points).all(axis=1))
    if len(known) < 2:
        return result
    extent = float(np.ptp(points[known], axis=0).sum()) + 1.0
    order = np.unique(frame[known], return_inverse=True)[1]
    places = np.column_stack([points[known], 2 * extent * order])
    _, nearest = cKDTree(places).query(places, k=2)
    own = np.arange(len(known))
    # the person itself may come first or second when two stand on the same spot
    other = np.where(nearest[:, 0] == own, nearest[:, 1], nearest[:, 0])
    distance = np.linalg.norm(points[known] - points[known[other]], axis=1)
    near = np.maximum(0.0, 1 - distance / reach[known])
    result[known] = np.where(order[other] == order, near, 0.0)
    return result


def movement(points: Float, track: Rows, unit: Float, history: int) -> Float:
    """`(R,)` in [0, 1]: mean distance to the person's last up to `history` centres, over `unit` `(R,)` px, at most 1.

    0.5 with fewer than 2 earlier centres. Rows are in the order of time; `track` `(R,)` says who each row is.
    """
    result = np.full(len(points), _UNKNOWN)
    known = np.flatnonzero(np.isfinite(points).all(axis=1))
    earlier = _earlier_rows(track[known], history)
    seen = earlier >= 0
    steps = points[known][:, None] - points[known][earlier]
    total = np.where(seen, np.linalg.norm(steps, axis=2), 0.0).sum(axis=1)
    count = seen.sum(axis=1)
    mean = total / np.maximum(count, 1)
    result[known] = np.where(count >= 2, np.minimum(mean / unit[known], 1.0), _UNKNOWN)
    return result


def limbs(keypoints: NDArray[np.floating], valid: NDArray[np.bool_], seconds: Float, track: Rows, unit: Float) -> Float:
    """`(R,)` in [0, 1]: mean speed of wrists and ankles relative to the trunk since the person's row before, over `unit`, at most 1.

    keypoints `(R, 17, 2)` px, valid `(R, 17)`, seconds `(R,)` time of each row, unit `(R,)` px/s. The trunk is the mean of the
    valid shoulders and hips. NaN where no wrist or ankle, or no trunk, is known in both rows. Rows are in the order of time.
    """
    points = np.where(valid[..., None], keypoints, np.nan).astype(np.float64)
    relative = points[:, _LIMBS] - centres(keypoints[:, _TRUNK], valid[:, _TRUNK])[:, None]
    before = _earlier_rows(track, 1)[:, 0]
    steps = np.linalg.norm(relative - relative[before], axis=2)
    known = np.isfinite(steps) & (before >= 0)[:, None]
    count = known.sum(axis=1)
    mean = np.where(known, steps, 0.0).sum(axis=1) / np.maximum(count, 1)
    elapsed = np.where(count > 0, seconds - seconds[before], 1.0)
    return np.where(count > 0, np.minimum(mean / (elapsed * unit), 1.0), np.nan)


def consistency(partial: Float, track: Rows, weight: float, history: int) -> Float:
    """`(R,)` in [0, 1]: 1 / (1 + standard deviation of the person's last up to `history` composite scores).

    0.5 with fewer than 3. A composite is `partial` `(R,)`, the weighted sum of the other components, plus `weight` x this
    one, so time is walked through, all tracks at once. Rows are in the order of time.
    """
    result = np.full(len(partial), _UNKNOWN)
    composite = partial + weight * result
    earlier = _earlier_rows(track, history)
    place = _place_in_track(track)
    by_place = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[by_place], np.arange(3, place.max(initial=0) + 2))
    for start, end in pairwise(starts):
        rows = by_place[start:end]
        length = min(int(place[rows[0]]), history)
        result[rows] = 1 / (1 + composite[earlier[rows, :length]].std(axis=1))
        composite[rows] = partial[rows] + weight * result[rows]
    return result


def _place_in_track(track: Rows) -> Rows:
    """`(R,)` how many earlier rows the track of each row has."""
    order = np.argsort(track, kind="stable")
    _, starts, counts = np.unique(track[order], return_index=True, return_counts=True)
    place = np.empty(len(track), np.intp)
    place[order] = np.arange(len(track)) - np.repeat(starts, counts)
    return place


def _earlier_rows(track: Rows, history: int) -> Rows:
    """`(R, history)` the rows of the same track before each row, the last one first; -1 where there is none."""
    order = np.argsort(track, kind="stable")
    back = np.maximum(np.arange(len(track))[:, None] - np.arange(1, history + 1), 0)
    place = _place_in_track(track)[order][:, None]
    rows = np.where(np.arange(1, history + 1) <= place, order[back], -1)
    earlier = np.empty_like(rows)
    earlier[order] = rows
    return earlier
