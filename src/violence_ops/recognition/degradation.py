"""True skeletons made as coarse as a pose estimator would have found them: what it does to people, measured and borrowed.

From true and found poses of the same clips it learns a linear map (an estimator pulls limbs towards where they usually are)
and keeps, person by person, what the map leaves over as a sequence over time: residuals, frames where the person was missed,
and ghosts (rows that belong to nobody). A new person borrows the sequence of a measured one in a crowd of similar density, so
that heavy tails, correlations over joints and time, and the merging of close pairs are those of the estimator.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from violence_ops.records import JOINTS, FloatArray, FramePoses

_MATCH_IOU = 0.3
_MIN_VISIBLE = 4  # joints: a person with fewer is not asked for
_MIN_SIDE_PX = 6.0
_CANDIDATES = 12
_RIDGE = 1.0
_XY, _BOX = 2 * JOINTS, 4
_ROW = _XY + _BOX + JOINTS + 1
"""A found person as numbers: joints and box corners in units of the true box about its centre, logits of the scores."""

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Truth:
    """The people of F frames: keypoints `(F, P, 17, 2)` px, visibility `(F, P, 17)` (2 visible, 1 hidden, 0 outside), bboxes
    `(F, P, 4)` xyxy px (zeros when out of view)."""

    keypoints: FloatArray
    visibility: NDArray[np.uint8]
    bboxes: FloatArray

    def present(self) -> NDArray[np.bool_]:
        """`(F, P)` who can be seen well enough to be asked for."""
        sides = self.bboxes[..., 2:] - self.bboxes[..., :2]
        return np.asarray((sides.min(-1) >= _MIN_SIDE_PX) & ((self.visibility == 2).sum(-1) >= _MIN_VISIBLE))

    def units(self) -> tuple[Float, Float]:
        """Centres `(F, P, 2)` and sizes `(F, P)` (root of the area) of the boxes, px."""
        boxes = self.bboxes.astype(np.float64)
        area = np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)
        return (boxes[..., :2] + boxes[..., 2:]) / 2, np.sqrt(np.maximum(area, 1.0))

    def crowding(self) -> Float:
        """`(F, P)` largest overlap (IoU) with another person's box."""
        overlap = np.stack([_iou(boxes, boxes) for boxes in self.bboxes.astype(np.float64)])
        people = np.arange(overlap.shape[-1])
        overlap[:, people, people] = 0.0
        return np.asarray(overlap.max(axis=-1))

    def features(self) -> Float:
        """`(F, P, 53)` what the linear map sees: joints in box units, which are visible, the crowding, 1."""
        centre, size = self.units()
        joints = (self.keypoints - centre[:, :, None]) / size[:, :, None, None]
        joints = np.clip(joints, -2.0, 2.0).reshape(*joints.shape[:2], _XY)
        crowding = self.crowding()[..., None]
        return np.concatenate([joints, self.visibility == 2, crowding, np.ones_like(crowding)], axis=-1)


@dataclass(frozen=True, slots=True)
class Donor:
    """One measured person over T frames: found `(T,)`, residuals `(T, 56)` (zeros where missed), the mean crowding, and the
    ghosts `(frame, row (56,))` nearest to this person."""

    found: NDArray[np.bool_]
    residuals: Float
    crowding: float
    ghosts: tuple[tuple[int, Float], ...]


@dataclass(frozen=True, slots=True)
class Degradation:
    """What an estimator does to people: the linear map `(53, 56)` and the measured persons."""

    mapping: Float
    donors: tuple[Donor, ...]

    @classmethod
    def measure(cls, samples: Iterable[tuple[Truth, list[FramePoses]]]) -> Degradation:
        """Learn from clips with both true and found poses, frame by frame. Raises ValueError if nobody was found."""
        clips = [(truth, *_matched(truth, found)) for truth, found in samples]
        inputs = [truth.features()[rows.any(-1)] for truth, rows, _ in clips]
        outputs = [rows[rows.any(-1)] for _, rows, _ in clips]
        if not sum(map(len, inputs)):
            raise ValueError("no person of these clips was found: there is nothing to measure")
        x, y = np.concatenate(inputs), np.concatenate(outputs)
        mapping = np.asarray(np.linalg.solve(x.T @ x + _RIDGE * np.eye(x.shape[1]), x.T @ y), np.float64)
        donors = [donor for truth, rows, ghosts in clips for donor in _donors(truth, rows, ghosts, mapping)]
        return cls(mapping, tuple(donors))

    def apply(self, truth: Truth, rng: np.random.Generator) -> list[FramePoses]:
        """The people of each frame as the estimator might have found them, strongest first."""
        centre, size = truth.units()
        rows = truth.features() @ self.mapping
        present, crowding = truth.present(), truth.crowding()
        found: list[list[FramePoses]] = [[] for _ in rows]
        for person in np.flatnonzero(present.any(axis=0)):
            donor = self._donor(float(crowding[present[:, person], person].mean()), rng)
            times = _borrowed_times(len(donor.found), len(rows), rng)
            for frame in np.flatnonzero(present[:, person]):
                place = centre[frame, person], size[frame, person]
                if donor.found[times[frame]]:
                    found[frame].append(_person(rows[frame, person] + donor.residuals[times[frame]], *place))
                found[frame] += [_person(row, *place) for time, row in donor.ghosts if time == times[frame]]
        return [_joined(people) for people in found]

    def _donor(self, crowding: float, rng: np.random.Generator) -> Donor:
        """Of some measured persons drawn at random, the one in the most similar crowd."""
        drawn = [self.donors[index] for index in rng.integers(0, len(self.donors), _CANDIDATES)]
        return min(drawn, key=lambda donor: abs(donor.crowding - crowding))


def _borrowed_times(length: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`(count,)` frames of a donor of `length` frames, from a random one on, forwards and backwards in turn."""
    period = max(1, 2 * length - 2)
    steps = (np.arange(count) + rng.integers(period)) % period
    return np.asarray(np.where(steps < length, steps, period - steps))


def _matched(truth: Truth, found: list[FramePoses]) -> tuple[Float, list[tuple[int, int, Float]]]:
    """Rows `(F, P, 56)` of the persons that were found (zeros: missed), and ghosts as (frame, nearest person, row)."""
    centre, size = truth.units()
    present = truth.present()
    rows = np.zeros((*size.shape, _ROW))
    ghosts = []
    for frame, people in enumerate(found):
        seen = np.flatnonzero(present[frame])
        if not len(seen):
            continue
        overlap = _iou(truth.bboxes[frame, seen].astype(np.float64), people.bboxes.astype(np.float64))
        pairs = [(i, j) for i, j in zip(*linear_sum_assignment(-overlap), strict=True) if overlap[i, j] >= _MATCH_IOU]
        for i, j in pairs:
            rows[frame, seen[i]] = _row(people, j, centre[frame, seen[i]], size[frame, seen[i]])
        middles = (people.bboxes[:, :2] + people.bboxes[:, 2:]) / 2
        for j in sorted(set(range(len(people))) - {j for _, j in pairs}):
            near = seen[np.linalg.norm(centre[frame, seen] - middles[j], axis=1).argmin()]
            ghosts.append((frame, int(near), _row(people, j, centre[frame, near], size[frame, near])))
    return rows, ghosts


def _donors(truth: Truth, rows: Float, ghosts: list[tuple[int, int, Float]], mapping: Float) -> list[Donor]:
    """The persons of a clip, each over the frames in which he was present."""
    found, present, crowding = np.asarray(rows.any(-1)), truth.present(), truth.crowding()
    residuals = np.where(found[..., None], rows - truth.features() @ mapping, 0.0)
    donors = []
    for person in np.flatnonzero(present.any(axis=0)):
        frames = np.flatnonzero(present[:, person])
        place = {int(frame): index for index, frame in enumerate(frames)}
        own = tuple((place[frame], row) for frame, near, row in ghosts if near == person and frame in place)
        mean = float(crowding[frames, person].mean())
        donors.append(Donor(found[frames, person], residuals[frames, person], mean, own))
    return donors


def _row(people: FramePoses, index: int, centre: Float, size: float) -> Float:
    joints = (people.keypoints[index] - centre) / size
    box = (people.bboxes[index].reshape(2, 2) - centre) / size
    scores = np.clip([*people.keypoint_scores[index], people.scores[index]], 1e-3, 1 - 1e-3)
    return np.concatenate([joints.reshape(-1), box.reshape(-1), np.log(scores / (1 - scores))])


def _person(row: Float, centre: Float, size: float) -> FramePoses:
    joints = row[:_XY].reshape(1, JOINTS, 2) * size + centre
    corners = np.sort(row[_XY : _XY + _BOX].reshape(1, 2, 2), axis=1) * size + centre
    scores = 1 / (1 + np.exp(-row[_XY + _BOX :]))
    parts = (joints, scores[None, :JOINTS], corners.reshape(1, 4), scores[JOINTS:])
    return FramePoses(*(part.astype(np.float32) for part in parts))


def _joined(people: list[FramePoses]) -> FramePoses:
    """The persons of one frame, strongest first."""
    if not people:
        shapes = ((0, JOINTS, 2), (0, JOINTS), (0, 4), (0,))
        return FramePoses(*(np.zeros(shape, np.float32) for shape in shapes))
    people = sorted(people, key=lambda person: -float(person.scores[0]))
    names = ("keypoints", "keypoint_scores", "bboxes", "scores")
    return FramePoses(*(np.concatenate([getattr(person, name) for person in people]) for name in names))


def _iou(first: Float, second: Float) -> Float:
    """`(N, M)` overlap of boxes `(N, 4)` and `(M, 4)`."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0.0, None), axis=-1)
    areas = [np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None), axis=-1) for boxes in (first, second)]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1] - shared, 1e-9))
