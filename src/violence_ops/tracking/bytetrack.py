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
from violence_ops.records import ClipPoses, IntArray
from violence_ops.tracking.boxes import Float, area, iou, is_box, to_cxcyah, to_xyxy
from violence_ops.tracking.kalman import Motion
from violence_ops.tracking.similarity import Poses, Single

_NOISE_RATE: Final = 30.0
"""Frames per second that the noise of the Kalman filter is meant for."""
_ANY: Final = 1e-9
"""The least overlap that is one."""

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
        looked_at = np.union1d(frames, people.frame[np.diff(people.frame, prepend=-1) > 0])
        starts = np.searchsorted(people.frame, looked_at)
        ends = np.searchsorted(people.frame, looked_at, side="right")
        sure = np.append(0, np.cumsum(people.sure))
        weak = starts + sure[ends] - sure[starts]
        fps = poses.fps or 1.0
        buffer, steps = self.params.buffer_s * fps, _NOISE_RATE / fps
        run = _Run(self.params, buffer, steps, people, np.full(len(people.row) + 1, -1, np.int32))
        for bounds in zip(looked_at.tolist(), starts.tolist(), weak.tolist(), ends.tolist(), strict=True):
            run.step(*bounds)
        ids = np.zeros(len(poses), np.int32)
        ids[people.row] = _numbered(run.owner[:-1], self.params.min_hits)
        return ids


@dataclass(frozen=True, slots=True)
class _People:
    """The rows of a clip that can be followed, by frame, the sure before the weak, from the top of the picture down.

    `row` `(N,)` says which of the clip's; bboxes `(N, 4)` xyxy, areas `(N,)` px², measured `(4, N)` cx, cy, aspect, height.
    """

    row: Rows
    frame: IntArray
    scores: Float
    sure: NDArray[np.bool_]
    bboxes: Float
    areas: Float
    measured: Float
    poses: Poses

    @classmethod
    def of(cls, poses: ClipPoses, high_score: float) -> Self:
        usable = np.flatnonzero(is_box(poses.bboxes) & np.isfinite(poses.scores))
        sure = poses.scores[usable] >= high_score
        boxes = poses.bboxes[usable]
        row = usable[np.lexsort((poses.scores[usable], *boxes.T, ~sure, poses.frame[usable]))]
        bboxes = np.asfortranarray(poses.bboxes[row].astype(np.float64))
        areas = area(bboxes)
        return cls(
            row=row, frame=poses.frame[row], scores=poses.scores[row].astype(np.float64),
            sure=poses.scores[row] >= high_score, bboxes=bboxes, areas=areas, measured=np.ascontiguousarray(to_cxcyah(bboxes).T),
            poses=Poses.of(poses.keypoints, poses.keypoint_scores, row, areas),
        )  # fmt: skip


@dataclass(slots=True)
class _Run:
    """The tracks alive in one clip.

    `owner` `(N + 1,)` is, for each of the `people`, the track he was given to, -1 = none; its last entry takes what nobody
    (-1) was given to. `buffer`: how many frames a lost track is kept; `steps`: time steps of the Kalman filter per frame;
    `last` `(T,)` is who a track was last, `place` `(2, T)` px where it was believed to be then, `lost` `(T,)` whether that
    was before the last frame.
    """

    params: TrackingParams
    buffer: float
    steps: float
    people: _People
    owner: IntArray
    motion: Motion = field(default_factory=lambda: Motion.at(np.zeros((4, 0))))
    track: IntArray = field(default_factory=lambda: np.zeros(0, np.int32))
    hits: IntArray = field(default_factory=lambda: np.zeros(0, np.int32))
    last: Rows = field(default_factory=lambda: np.zeros(0, np.intp))
    place: Float = field(default_factory=lambda: np.zeros((2, 0)))
    lost: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    any_lost: bool = False
    frame: int = -1
    born: int = 0

    def step(self, frame: int, start: int, weak: int, end: int) -> None:
        """Look at one more frame: the people `start` to `end`, of whom those from `weak` on are not sure."""
        gap, self.frame = frame - self.frame, frame
        if len(self.track):
            if self.any_lost:
                self.motion.stop_growing(self.lost)  # the size of a lost one can only be guessed
            self.motion.predict(gap * self.steps)
            confirmed = self.hits >= self.params.min_hits
            self._update(self._found(start, weak, end, confirmed))
            if self.any_lost:
                self._forget(self.people.frame[self.last] < frame - confirmed * self.buffer)
        fresh = start + (self.owner[start:weak] < 0).nonzero()[0]
        if len(fresh):
            self._begin(fresh[self.people.scores[fresh] >= self.params.new_track_score])

    def _found(self, start: int, weak: int, end: int, confirmed: NDArray[np.bool_]) -> Rows:
        """`(T,)` who of the people `start` to `end` every track is, -1 = nobody.

        First the `confirmed` tracks may choose among the sure, then those of them that were there a frame ago among the
        weak, then the others among the sure that are left.
        """
        found = np.empty(len(self.track), np.intp)
        found.fill(-1)
        if start == end:
            return found
        overlap = iou(to_xyxy(self.motion.position), self.people.bboxes[start:end], self.people.areas[start:end])
        sure = overlap[:, : weak - start]
        possible = sure >= max(self.params.match_iou, _ANY)
        all_confirmed = np.count_nonzero(confirmed) == len(confirmed)
        taken = self._match(possible if all_confirmed else possible & confirmed[:, None], sure, start, found)
        if weak < end:
            able = found < 0
            able &= confirmed
            if self.any_lost:
                able &= ~self.lost
            if np.count_nonzero(able):
                unsure = overlap[:, weak - start :]
                self._match((unsure >= max(self.params.second_match_iou, _ANY)) & able[:, None], unsure, weak, found)
        if not all_confirmed:
            possible[:, taken] = False
            possible[confirmed] = False
            self._match(possible, sure, start, found)
        return found

    def _match(self, possible: NDArray[np.bool_], overlap: Float, start: int, found: Rows) -> Rows:
        """Choose pairs of tracks and people among the `possible` `(T, M)`, by how much their boxes `overlap` and, where that
        leaves a choice, how much their joints are alike; into `found`. People count from `start`; gives who was chosen."""
        tracks, people = possible.nonzero()
        count = len(tracks)
        if len(set(tracks.tolist())) < count or len(set(people.tolist())) < count:
            scores = overlap[possible]
            if self.params.keypoint_weight:
                scores += self.params.keypoint_weight * (self._alike(tracks, people + start) - scores)
            tracks, people = best_pairs(possible, scores)
        found[tracks] = people + start
        return people

    def _alike(self, tracks: Rows, people: Rows) -> Single:
        """`(K,)` similarity of the joints of K pairs, those of the tracks moved on as their boxes were."""
        x, y = (self.motion.centre - self.place).astype(np.float32)
        return self.people.poses.oks(self.last[tracks], people, (x + 1j * y)[tracks])

    def _update(self, found: Rows) -> None:
        """These people were found for the tracks, -1 = nobody."""
        seen = found >= 0
        self.any_lost = bool(np.count_nonzero(seen) < len(seen))
        self.lost = ~seen
        self.owner[found] = self.track
        self.motion.update(self.people.measured.take(found, axis=1), seen if self.any_lost else None)
        np.copyto(self.last, found, where=seen)
        np.copyto(self.place, self.motion.centre, where=seen)
        self.hits += seen

    def _forget(self, which: NDArray[np.bool_]) -> None:
        """Drop these tracks."""
        if np.count_nonzero(which):
            for name in ("track", "hits", "last", "place", "lost"):
                setattr(self, name, getattr(self, name)[..., ~which])
            self.motion.keep(~which)

    def _begin(self, people: Rows) -> None:
        """A new track for every one of `people`."""
        count = len(people)
        if count:
            fresh = np.arange(self.born, self.born + count, dtype=np.int32)
            self.born += count
            self.owner[people] = fresh
            self.motion.add(self.people.measured[:, people])
            self.track = np.concatenate([self.track, fresh])
            self.hits = np.concatenate([self.hits, np.ones(count, np.int32)])
            self.last = np.concatenate([self.last, people])
            self.place = np.concatenate([self.place, self.motion.centre[:, -count:]], axis=1)
            self.lost = np.concatenate([self.lost, np.zeros(count, bool)])


def best_pairs(possible: NDArray[np.bool_], scores: Float) -> tuple[Rows, Rows]:
    """Rows and columns of those of the `possible` pairs `(T, M)` that make the one-to-one choice of largest total score.

    `scores` >= 0 are theirs, row by row.
    """
    wanted = np.zeros(possible.shape)
    wanted[possible] = scores + 1e-6
    rows, columns = linear_sum_assignment(wanted, maximize=True)
    chosen = possible[rows, columns]
    return rows[chosen], columns[chosen]


def _numbered(owner: IntArray, min_hits: int) -> IntArray:
    """Ids from 1, in order of appearance, for the tracks with at least `min_hits` rows; 0 for all else."""
    ids = np.zeros(len(owner), np.int32)
    followed = np.flatnonzero(owner >= 0)
    _, inverse, counts = np.unique(owner[followed], return_inverse=True, return_counts=True)
    kept = counts >= min_hits
    numbers = np.where(kept, np.cumsum(kept), 0)
    ids[followed] = numbers[inverse]
    return ids
