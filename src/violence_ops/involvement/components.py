"""The components of involvement that look at persons and not at the frame (SPEC 5), vectorised over all rows of a clip."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from violence_ops import blocks
from violence_ops.records import LIMBS, TRUNK

Float = NDArray[np.float64]
Rows = NDArray[np.intp]
Flags = NDArray[np.bool_]

_UNKNOWN = 0.5
"""What movement and consistency say of a person who was not seen often enough."""
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

    points `(R, 2)` px, frame `(R,)` in order, reach `(R,)` px.
    """
    result = np.zeros(len(points))
    known = np.flatnonzero(np.isfinite(points).all(axis=1))
    # some frames at a time, each of them whole
    starts = np.unique(np.searchsorted(frame[known], frame[known[:: blocks.AT_ONCE]]))
    for start, end in pairwise([*starts, len(known)]):
        some = known[start:end]
        result[some] = _nearness(points[some], frame[some], reach[some])
    return result


def _nearness(points: Float, frame: NDArray[np.integer], reach: Float) -> Float:
    """`interaction` of persons who have a centre. A tree over (x, y, frame), with frames farther apart than any two persons,
    finds the nearest of the same frame in one go."""
    if len(points) < 2:
        return np.zeros(len(points))
    extent = float(np.ptp(points, axis=0).sum()) + 1.0
    order = np.unique(frame, return_inverse=True)[1]
    places = np.column_stack([points, 2 * extent * order])
    _, nearest = cKDTree(places).query(places, k=2)
    own = np.arange(len(points))
    # the person itself may come first or second when two stand on the same spot
    other = np.where(nearest[:, 0] == own, nearest[:, 1], nearest[:, 0])
    distance = np.linalg.norm(points - points[other], axis=1)
    return np.where(order[other] == order, np.maximum(0.0, 1 - distance / reach), 0.0)


def movement(points: Float, track: Rows, unit: Float, history: int) -> Float:
    """`(R,)` in [0, 1]: mean distance to the person's last up to `history` centres, over `unit` `(R,)` px, at most 1.

    0.5 with fewer than 2 earlier centres. Rows are in the order of time; `track` `(R,)` says who each row is.
    """
    known = np.flatnonzero(np.isfinite(points).all(axis=1))
    places, past = points[known], _Past.of(track[known])

    def moved(rows: Rows, unit: Float) -> Float:
        earlier = past.before(rows, history)
        seen = earlier >= 0
        steps = places[rows][:, None] - places[earlier]
        total = np.where(seen, np.linalg.norm(steps, axis=2), 0.0).sum(axis=1)
        count = seen.sum(axis=1)
        mean = total / np.maximum(count, 1)
        return np.where(count >= 2, np.minimum(mean / unit, 1.0), _UNKNOWN)

    result = np.full(len(points), _UNKNOWN)
    result[known] = blocks.in_blocks(moved, np.arange(len(known)), unit[known])
    return result


def limbs(keypoints: NDArray[np.floating], valid: NDArray[np.bool_], seconds: Float, track: Rows, unit: Float) -> Float:
    """`(R,)` in [0, 1]: mean speed of wrists and ankles relative to the trunk since the person's row before, over `unit`, at most 1.

    keypoints `(R, 17, 2)` px, valid `(R, 17)`, seconds `(R,)` time of each row, unit `(R,)` px/s. The trunk is the mean of the
    valid shoulders and hips. NaN where no wrist or ankle, or no trunk, is known in both rows. Rows are in the order of time.
    """
    past = _Past.of(track)

    def from_trunk(rows: Rows) -> Float:
        trunk = centres(keypoints[rows[:, None], TRUNK], valid[rows[:, None], TRUNK])
        relative: Float = joints(keypoints, valid, rows, LIMBS) - trunk[:, None]
        return relative

    def speed(rows: Rows, unit: Float) -> Float:
        before = past.before(rows, 1)[:, 0]
        steps = np.linalg.norm(from_trunk(rows) - from_trunk(before), axis=2)
        known = np.isfinite(steps) & (before >= 0)[:, None]
        count = known.sum(axis=1)
        mean = np.where(known, steps, 0.0).sum(axis=1) / np.maximum(count, 1)
        elapsed = np.where(count > 0, seconds[rows] - seconds[before], 1.0)
        return np.where(count > 0, np.minimum(mean / (elapsed * unit), 1.0), np.nan)

    return blocks.in_blocks(speed, np.arange(len(track)), unit)


def consistency(partial: Float, track: Rows, weight: float, history: int) -> Float:
    """`(R,)` in [0, 1]: 1 / (1 + standard deviation of the person's last up to `history` composite scores).

    0.5 with fewer than 3. A composite is `partial` `(R,)`, the weighted sum of the other components, plus `weight` x this
    one, so time is walked through, all tracks at once. Rows are in the order of time.
    """
    result = np.full(len(partial), _UNKNOWN)
    composite = partial + weight * result
    past = _Past.of(track)
    by_place = np.argsort(past.place, kind="stable")
    position, back = past.position[by_place][:, None], np.arange(1, history + 1)
    places = np.arange(3, past.place.max(initial=0) + 2)
    starts = np.searchsorted(past.place[by_place], places).tolist()
    for place, (start, end) in zip(places.tolist(), pairwise(starts), strict=False):
        rows = by_place[start:end]
        # all of them have so many earlier rows
        earlier = past.order[position[start:end] - back[:place]]
        result[rows] = 1 / (1 + composite[earlier].std(axis=1))
        composite[rows] = partial[rows] + weight * result[rows]
    return result


def joints(keypoints: NDArray[np.floating], valid: Flags, rows: Rows, which: tuple[int, ...]) -> Float:
    """`(M, J, 2)` px: the joints `which` of some rows; NaN where not valid."""
    chosen = rows[:, None], which
    return np.where(valid[chosen][..., None], keypoints[chosen], np.nan).astype(np.float64)


@dataclass(frozen=True, slots=True)
class _Past:
    """Who was there before. order `(R,)` the rows, those of a track together; of each row, position `(R,)` where it stands in
    `order`, place `(R,)` how many earlier rows its track has."""

    order: Rows
    position: Rows
    place: Rows

    @classmethod
    def of(cls, track: Rows) -> Self:
        """`track` `(R,)` says who each row is; rows are in the order of time."""
        order = np.argsort(track, kind="stable")
        _, starts, counts = np.unique(track[order], return_index=True, return_counts=True)
        position, place = np.empty_like(order), np.empty_like(order)
        position[order] = np.arange(len(track))
        place[order] = np.arange(len(track)) - np.repeat(starts, counts)
        return cls(order, position, place)

    def before(self, rows: Rows, history: int) -> Rows:
        """`(M, history)` the rows of the same track before each of `rows`, the last one first; -1 where there is none."""
        back = np.arange(1, history + 1)
        earlier = self.order[np.maximum(self.position[rows][:, None] - back, 0)]
        return np.where(back <= self.place[rows][:, None], earlier, -1)
