"""ByteTrack (Zhang et al., ECCV 2022): sure boxes are matched first, and weak ones may still carry a known track on.

Where boxes leave a choice, as those of two who fight do, the poses decide along with them: a track remembers the joints it
saw last, moved on by what the Kalman filter says, and compares them with those that are there now.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from violence_ops.params import TrackingParams
from violence_ops.records import JOINTS, ClipPoses, IntArray
from violence_ops.tracking.boxes import Float, iou, is_box, to_cxcyah, to_xyxy
from violence_ops.tracking.kalman import Motion
from violence_ops.tracking.similarity import oks

_NOISE_RATE: Final = 30.0
"""Frames per second that the noise of the Kalman filter is meant for."""

Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]
Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class ByteTrack:
    """Gives every person of a clip an identity that lasts. Holds no state: each clip starts anew."""

    params: TrackingParams

    def track(self, poses: ClipPoses, frames: IntArray) -> IntArray:
        """`(R,)` int32 track id of every row of `poses`: from 1 in order of appearance (who appear in the same frame: from
        the top); 0 = followed by nothing.

        `frames` `(F,)` are the frames that were looked at, those without anybody included. A box that is not finite or
        has no area belongs to no track. The same rows give the same ids, in whatever order a frame's rows come.
        """
        people = _People.of(poses, self.params.high_score)
        looked_at = np.union1d(frames, people.frame)
        starts = np.searchsorted(people.frame, looked_at)
        ends = np.append(starts[1:], len(people.frame))
        sure = np.append(0, np.cumsum(people.sure))
        weak = starts + sure[ends] - sure[starts]
        run = _Run(self.params, poses.fps or 1.0, people, np.full(len(people.row), -1, np.int32))
        for bounds in zip(looked_at.tolist(), starts.tolist(), weak.tolist(), ends.tolist(), strict=True):
            run.step(*bounds)
        ids = np.zeros(len(poses), np.int32)
        ids[people.row] = _numbered(run.owner, self.params.min_hits)
        return ids


@dataclass(frozen=True, slots=True)
class _People:
    """The rows of a clip that can be followed, by frame, the sure before the weak, from the top of the picture down.

    `row` `(N,)` says which of the clip's; bboxes `(N, 4)` xyxy, measured `(N, 4)` cx, cy, aspect, height, joints
    `(N, 17, 2)` px, trust `(N, 17)`: how sure a joint is.
    """

    row: Rows
    frame: IntArray
    scores: Float
    sure: NDArray[np.bool_]
    bboxes: Float
    measured: Float
    joints: Float
    trust: Float

    @classmethod
    def of(cls, poses: ClipPoses, high_score: float) -> Self:
        usable = np.flatnonzero(is_box(poses.bboxes) & np.isfinite(poses.scores))
        sure = poses.scores[usable] >= high_score
        boxes = poses.bboxes[usable]
        row = usable[np.lexsort((poses.scores[usable], *boxes.T, ~sure, poses.frame[usable]))]
        known = np.isfinite(poses.keypoints[row]).all(axis=2) & np.isfinite(poses.keypoint_scores[row])
        bboxes = poses.bboxes[row].astype(np.float64)
        return cls(
            row=row, frame=poses.frame[row], scores=poses.scores[row].astype(np.float64),
            sure=poses.scores[row] >= high_score, bboxes=bboxes, measured=to_cxcyah(bboxes),
            joints=np.where(known[..., None], poses.keypoints[row], 0.0).astype(np.float64),
            trust=np.where(known, poses.keypoint_scores[row], 0.0).clip(0.0, None).astype(np.float64),
        )  # fmt: skip


@dataclass(slots=True)
class _Run:
    """The tracks alive in one clip. `owner` `(N,)` is, for each of the `people`, the track he was given to, -1 = none;
    `joints` `(T, 17, 2)` px are where a track's joints should be now, `trust` `(T, 17)` how sure it was of them."""

    params: TrackingParams
    fps: float
    people: _People
    owner: IntArray
    motion: Motion = field(default_factory=lambda: Motion.at(np.zeros((0, 4))))
    track: IntArray = field(default_factory=lambda: np.zeros(0, np.int32))
    hits: IntArray = field(default_factory=lambda: np.zeros(0, np.int32))
    last_seen: IntArray = field(default_factory=lambda: np.zeros(0, np.int32))
    joints: Float = field(default_factory=lambda: np.zeros((0, JOINTS, 2)))
    trust: Float = field(default_factory=lambda: np.zeros((0, JOINTS)))
    frame: int = -1
    born: int = 0

    def step(self, frame: int, start: int, weak: int, end: int) -> None:
        """Look at one more frame: the people `start` to `end`, of whom those from `weak` on are not sure."""
        previous, self.frame = self.frame, frame
        seen, confirmed = self.last_seen == previous, self.hits >= self.params.min_hits
        if previous >= 0:
            self._predict(frame - previous, seen)
        unproven = ~confirmed
        sure = np.arange(start, weak)
        if start < end and len(self.track):
            overlap = iou(to_xyxy(self.motion.position), self.people.bboxes[start:end])
            self._match(overlap, np.flatnonzero(confirmed), sure, start, self.params.match_iou)
            self._match(
                overlap,
                np.flatnonzero(confirmed & seen & self._missing),
                np.arange(weak, end),
                start,
                self.params.second_match_iou,
            )
            sure = sure[self.owner[sure] < 0]
            self._match(overlap, np.flatnonzero(unproven), sure, start, self.params.match_iou)
            sure = sure[self.owner[sure] < 0]
        self._forget(unproven & self._missing)
        self._begin(sure[self.people.scores[sure] >= self.params.new_track_score])

    @property
    def _missing(self) -> NDArray[np.bool_]:
        """`(T,)` the tracks that were not found in this frame (so far)."""
        return self.last_seen != self.frame

    def _predict(self, gap: int, seen: NDArray[np.bool_]) -> None:
        """Move all tracks on by `gap` frames; a lost one keeps its size, which it can only guess."""
        before = self.motion
        if not seen.all():
            before = before.without_growth(~seen)
        self.motion = before.predicted(gap * _NOISE_RATE / self.fps)
        self.joints += (self.motion.position - before.position)[:, None, :2]

    def _match(self, overlap: Float, tracks: Rows, people: Rows, start: int, least: float) -> None:
        """Give `people` to `tracks` whose boxes overlap (`overlap` of all tracks and the people from `start`) by `least`."""
        if not (len(tracks) and len(people)):
            return
        similar = overlap[tracks[:, None], people - start]
        possible = similar >= max(least, 1e-9)
        first, second = possible.nonzero()
        if not len(first):
            return
        slots, taken = tracks[first], people[second]
        if len(set(first.tolist())) < len(first) or len(set(second.tolist())) < len(first):
            scores = similar[first, second]
            if self.params.keypoint_weight:
                scores = scores + self.params.keypoint_weight * (self._alike(slots, taken) - scores)
            chosen = best_pairs(first, second, scores, possible.shape)
            slots, taken = slots[chosen], taken[chosen]
        self._update(slots, taken)

    def _alike(self, tracks: Rows, people: Rows) -> Float:
        """`(K,)` similarity of the joints of K pairs."""
        trust = np.sqrt(self.trust[tracks] * self.people.trust[people])
        boxes = self.motion.position[tracks]
        return oks(self.joints[tracks], self.people.joints[people], trust, boxes[:, 2] * boxes[:, 3] ** 2)

    def _update(self, tracks: Rows, people: Rows) -> None:
        """These tracks were found: each is one of `people`."""
        self.motion.values[tracks] = Motion(self.motion.values[tracks]).updated(self.people.measured[people]).values
        self.owner[people] = self.track[tracks]
        self.hits[tracks] += 1
        self.last_seen[tracks] = self.frame
        self.joints[tracks] = self.people.joints[people]
        self.trust[tracks] = self.people.trust[people]

    def _forget(self, unproven: NDArray[np.bool_]) -> None:
        """Drop tracks that were not confirmed at once, and those lost for longer than the buffer."""
        drop = unproven | (self.frame - self.last_seen > self.params.buffer_s * self.fps)
        if drop.any():
            for name in ("track", "hits", "last_seen", "joints", "trust"):
                setattr(self, name, getattr(self, name)[~drop])
            self.motion = Motion(self.motion.values[~drop])

    def _begin(self, people: Rows) -> None:
        """A new track for every one of `people`."""
        count = len(people)
        if not count:
            return
        fresh = np.arange(self.born, self.born + count, dtype=np.int32)
        self.born += count
        self.owner[people] = fresh
        self.motion = Motion(np.concatenate([self.motion.values, Motion.at(self.people.measured[people]).values]))
        self.track = np.concatenate([self.track, fresh])
        self.hits = np.concatenate([self.hits, np.ones(count, np.int32)])
        self.last_seen = np.concatenate([self.last_seen, np.full(count, self.frame, np.int32)])
        self.joints = np.concatenate([self.joints, self.people.joints[people]])
        self.trust = np.concatenate([self.trust, self.people.trust[people]])


def best_pairs(first: Rows, second: Rows, scores: Float, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """`(K,)` which of K pairs, indices into a matrix of that `shape`, make the one-to-one choice of largest total score."""
    wanted = np.zeros(shape)
    wanted[first, second] = scores + 1e-6
    partner = np.full(shape[0], -1)
    rows, columns = linear_sum_assignment(wanted, maximize=True)
    partner[rows] = columns
    return partner[first] == second


def _numbered(owner: IntArray, min_hits: int) -> IntArray:
    """Ids from 1, in order of appearance, for the tracks with at least `min_hits` rows; 0 for all else."""
    ids = np.zeros(len(owner), np.int32)
    followed = np.flatnonzero(owner >= 0)
    _, inverse, counts = np.unique(owner[followed], return_inverse=True, return_counts=True)
    kept = counts >= min_hits
    numbers = np.where(kept, np.cumsum(kept), 0)
    ids[followed] = numbers[inverse]
    return ids
