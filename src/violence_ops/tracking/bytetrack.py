"""ByteTrack (Zhang et al., ECCV 2022): sure boxes are matched first, and weak ones may still carry a known track on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from violence_ops.params import TrackingParams
from violence_ops.records import ClipPoses, IntArray
from violence_ops.tracking.boxes import Float, iou, is_box, to_cxcyah, to_xyxy
from violence_ops.tracking.kalman import Motion

_NOISE_RATE: Final = 30.0
"""Frames per second that the noise of the Kalman filter is meant for."""

Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]
Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class ByteTrack:
    """Gives every person of a clip an identity that lasts. Holds no state: each clip starts anew."""

    params: TrackingParams

    def track(self, poses: ClipPoses, frames: IntArray) -> IntArray:
        """`(R,)` int32 track id of every row of `poses`: from 1 in order of appearance; 0 = followed by nothing.

        `frames` `(F,)` are the frames that were looked at, those without anybody included. A box that is not finite or
        has no area belongs to no track. The same rows give the same ids.
        """
        run = _Run(self.params, poses.fps or 1.0, np.full(len(poses), -1, np.int32))
        usable = is_box(poses.bboxes) & np.isfinite(poses.scores)
        measured = to_cxcyah(np.where(usable[:, None], poses.bboxes, [0, 0, 1, 1]).astype(np.float64))
        order = np.argsort(poses.frame, kind="stable")
        looked_at = np.union1d(frames, poses.frame)
        bounds = np.searchsorted(poses.frame[order], looked_at)
        for frame, start, end in zip(looked_at, bounds, [*bounds[1:], len(order)], strict=True):
            rows = order[start:end]
            run.step(int(frame), rows[usable[rows]], measured, poses.scores)
        return _numbered(run.owner, self.params.min_hits)


@dataclass(slots=True)
class _Run:
    """The tracks alive in one clip. `owner` `(R,)` is, for each row, the track it was given to, -1 = none."""

    params: TrackingParams
    fps: float
    owner: IntArray
    motion: Motion = field(default_factory=lambda: Motion.at(np.zeros((0, 4))))
    track: IntArray = field(default_factory=lambda: np.zeros(0, np.int32))
    hits: IntArray = field(default_factory=lambda: np.zeros(0, np.int32))
    last_seen: IntArray = field(default_factory=lambda: np.zeros(0, np.int32))
    frame: int = -1
    born: int = 0

    def step(self, frame: int, rows: Rows, measured: Float, scores: NDArray[np.floating]) -> None:
        """Look at one more frame. `rows` index `measured` `(R, 4)` and `scores` `(R,)`."""
        previous, self.frame = self.frame, frame
        if previous >= 0:
            self._predict(frame - previous, seen=self.last_seen == previous)
        seen, confirmed = self.last_seen == previous, self.hits >= self.params.min_hits
        sure, weak = (
            rows[mask] for mask in (scores[rows] >= self.params.high_score, scores[rows] < self.params.high_score)
        )
        sure, known = self._match(np.flatnonzero(confirmed), sure, measured, self.params.match_iou)
        self._match(known[seen[known]], weak, measured, self.params.second_match_iou)
        sure, unproven = self._match(np.flatnonzero(~confirmed), sure, measured, self.params.match_iou)
        self._forget(unproven)
        self._begin(sure[scores[sure] >= self.params.new_track_score], measured)

    def _predict(self, gap: int, seen: NDArray[np.bool_]) -> None:
        """Move all tracks on by `gap` frames; a lost one keeps its size, which it can only guess."""
        velocity = self.motion.velocity.copy()
        velocity[~seen, 2:] = 0.0
        moving = Motion(self.motion.position, velocity, *(getattr(self.motion, name) for name in Motion.__slots__[2:]))
        self.motion = moving.predicted(gap * _NOISE_RATE / self.fps)

    def _match(self, tracks: Rows, rows: Rows, measured: Float, least: float) -> tuple[Rows, Rows]:
        """Give `rows` to `tracks` where they overlap by `least`; returns the rows and the tracks left over."""
        overlap = iou(to_xyxy(self.motion.position[tracks]), to_xyxy(measured[rows]))
        chosen, given = best_pairs(overlap, least)
        slots, taken = tracks[chosen], rows[given]
        self.motion = self.motion.replaced(slots, self.motion[slots].updated(measured[taken]))
        self.owner[taken] = self.track[slots]
        self.hits[slots] += 1
        self.last_seen[slots] = self.frame
        return np.delete(rows, given), np.delete(tracks, chosen)

    def _forget(self, unproven: Rows) -> None:
        """Drop tracks that were not confirmed at once, and those lost for longer than the buffer."""
        age = self.frame - self.last_seen
        keep = age <= self.params.buffer_s * self.fps
        keep[unproven] = False
        self.motion, self.track = self.motion[keep], self.track[keep]
        self.hits, self.last_seen = self.hits[keep], self.last_seen[keep]

    def _begin(self, rows: Rows, measured: Float) -> None:
        """A new track for every one of `rows`."""
        count = len(rows)
        fresh = np.arange(self.born, self.born + count, dtype=np.int32)
        self.born += count
        self.owner[rows] = fresh
        self.motion = self.motion.followed_by(Motion.at(measured[rows]))
        self.track = np.concatenate([self.track, fresh])
        self.hits = np.concatenate([self.hits, np.ones(count, np.int32)])
        self.last_seen = np.concatenate([self.last_seen, np.full(count, self.frame, np.int32)])


def best_pairs(overlap: Float, least: float) -> Pairs:
    """Indices of the one-to-one pairs of largest total `overlap` `(N, M)`, none of them below `least`."""
    wanted = np.where(overlap >= max(least, 1e-9), overlap, 0.0)
    first, second = linear_sum_assignment(wanted, maximize=True)
    kept = wanted[first, second] > 0
    return first[kept], second[kept]


def _numbered(owner: IntArray, min_hits: int) -> IntArray:
    """Ids from 1, in order of appearance, for the tracks with at least `min_hits` rows; 0 for all else."""
    ids = np.zeros(len(owner), np.int32)
    followed = np.flatnonzero(owner >= 0)
    _, inverse, counts = np.unique(owner[followed], return_inverse=True, return_counts=True)
    kept = counts >= min_hits
    numbers = np.where(kept, np.cumsum(kept), 0)
    ids[followed] = numbers[inverse]
    return ids
