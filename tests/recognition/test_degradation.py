"""People made as coarse as an estimator finds them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from violence_ops.recognition.degradation import Degradation, Truth
from violence_ops.records import FramePoses


def people(seed: int, frames: int = 12, persons: int = 3) -> Truth:
    """Boxes of moving people with joints within, all visible; two of them may overlap."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(30, 90, (1, persons, 1))
    corner = rng.uniform(0, 200, (1, persons, 2)) + rng.normal(0, 2, (frames, persons, 2)).cumsum(0)
    boxes = np.concatenate([corner, corner + size * [1.0, 2.0]], axis=2)
    joints = corner[:, :, None] + rng.uniform(0.1, 0.9, (frames, persons, 17, 2)) * (size * [1.0, 2.0])[:, :, None]
    return Truth(joints.astype(np.float32), np.full(joints.shape[:3], 2, np.uint8), boxes.astype(np.float32))


def found(truth: Truth, shift: float = 0.0, miss: int | None = None) -> list[FramePoses]:
    """What a simple estimator finds: everybody, `shift` px to the right, but for the person `miss`."""
    kept = [person for person in range(truth.bboxes.shape[1]) if person != miss]
    return [
        FramePoses(
            (keypoints[kept] + [shift, 0]).astype(np.float32),
            np.full((len(kept), 17), 0.9, np.float32),
            boxes[kept],
            np.full(len(kept), 0.8, np.float32),
        )
        for keypoints, boxes in zip(truth.keypoints, truth.bboxes, strict=True)
    ]


def measured(**how: float) -> Degradation:
    return Degradation.measure([(truth := people(seed), found(truth, **how)) for seed in range(12)])


@given(seed=st.integers(0, 10_000), persons=st.integers(1, 4), frames=st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_what_comes_out_is_poses_of_those_frames_with_scores_in_range_and_no_more_people_than_there_are(
    seed: int, persons: int, frames: int
) -> None:
    degraded = measured(shift=3.0).apply(people(seed, frames, persons), np.random.default_rng(seed))
    assert len(degraded) == frames
    for poses in degraded:
        assert len(poses) <= persons
        assert poses.keypoints.shape == (len(poses), 17, 2)
        assert np.isfinite(poses.keypoints).all()
        assert ((poses.keypoint_scores > 0) & (poses.keypoint_scores < 1)).all()
        assert (poses.bboxes[:, 2:] >= poses.bboxes[:, :2]).all()
        assert (np.diff(poses.scores) <= 0).all()


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_the_same_generator_gives_the_same_poses(seed: int) -> None:
    degradation, truth = measured(), people(seed)
    one, two = (degradation.apply(truth, np.random.default_rng(seed)) for _ in range(2))
    assert all(np.array_equal(a.keypoints, b.keypoints) for a, b in zip(one, two, strict=True))


def test_an_estimator_without_error_leaves_people_almost_where_they_are() -> None:
    truth = people(99)
    for frame, poses in enumerate(measured().apply(truth, np.random.default_rng(0))):
        order = [int(np.abs(truth.bboxes[frame] - box).sum(1).argmin()) for box in poses.bboxes]
        assert sorted(order) == [0, 1, 2]
        assert np.abs(poses.keypoints - truth.keypoints[frame, order]).mean() < 3


def test_persons_that_an_estimator_misses_are_missed_as_often() -> None:
    truths = [people(seed) for seed in range(12)]
    half = Degradation.measure(
        [(truth, found(truth, miss=0 if number % 2 else None)) for number, truth in enumerate(truths)]
    )
    rng = np.random.default_rng(0)
    counts = [len(poses) for seed in range(40) for poses in half.apply(people(100 + seed), rng)]
    assert 3 * 0.7 < np.mean(counts) < 3 * 0.95


def test_measuring_without_anybody_found_is_refused() -> None:
    truth = people(0)
    nobody = [FramePoses(p.keypoints[:0], p.keypoint_scores[:0], p.bboxes[:0], p.scores[:0]) for p in found(truth)]
    with pytest.raises(ValueError, match="nothing to measure"):
        Degradation.measure([(truth, nobody)])
