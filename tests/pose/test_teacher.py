"""The teacher labels whom it is sure of and finds again; everybody else is neither wanted nor wrong."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from violence_ops.pose import coco, teacher
from violence_ops.records import FramePoses
from violence_ops.stages.poses.weights import teacher_files

DATA = Path(__file__).parents[3] / "shared" / "data"
FRAME = np.zeros((200, 300, 3), np.uint8)


def _people(count: int, score: float = 0.8, joints: float = 0.6) -> FramePoses:
    """People side by side, each in a box of 40 × 100 px."""
    corner = np.stack([20 + 60 * np.arange(count), np.full(count, 50)], axis=1).astype(np.float32)
    grid = np.stack(np.meshgrid([5, 20, 35], np.linspace(5, 95, 6)), axis=-1).reshape(-1, 2)[:17].astype(np.float32)
    return FramePoses(
        keypoints=corner[:, None] + grid, keypoint_scores=np.full((count, 17), joints, np.float32),
        bboxes=np.hstack([corner, corner + np.array([40, 100])]).astype(np.float32), scores=np.full(count, score, np.float32),
    )  # fmt: skip


class _Says:
    """A teacher that has its answers ready."""

    def __init__(self, *answers: FramePoses) -> None:
        self.answers = answers

    def estimate(self, frames: Sequence[np.ndarray]) -> list[FramePoses]:
        return list(self.answers)


def _agreed(found: FramePoses, again: FramePoses) -> teacher.Sample:
    return teacher.agreed(_Says(found, again), FRAME, FRAME)


def _shifted(poses: FramePoses, joint: int, by: float) -> FramePoses:
    moved = poses.keypoints.copy()
    moved[:, joint, 0] += by
    return replace(poses, keypoints=moved)


def test_who_is_sure_and_found_again_is_wanted_with_all_joints() -> None:
    sample = _agreed(_people(3), _people(3))
    assert not sample.ignored.any()
    assert (sample.visibility == 2).all()


@pytest.mark.parametrize(
    ("found", "again"),
    [
        pytest.param(_people(1, score=0.3), _people(1), id="a weak box"),
        pytest.param(_people(1, joints=0.2), _people(1), id="weak joints"),
        pytest.param(_people(1), _people(0), id="gone a moment later"),
    ],
)
def test_who_is_not_sure_is_ignored(found: FramePoses, again: FramePoses) -> None:
    assert _agreed(found, again).ignored.tolist() == [True]


def test_only_the_unsure_one_of_several_is_ignored() -> None:
    found = _people(3)
    found.scores[1] = 0.2
    assert _agreed(found, _people(3)).ignored.tolist() == [False, True, False]


def test_a_joint_that_jumps_is_not_taught_and_faint_ones_count_as_hidden() -> None:
    found = _people(2)
    found.keypoint_scores[0, 3] = 0.2
    found.keypoint_scores[1, 3] = 0.1
    sample = _agreed(found, _shifted(_people(2), joint=7, by=30.0))
    assert not sample.ignored.any()
    assert (sample.visibility[:, 7] == 0).all()
    assert sample.visibility[:, 3].tolist() == [1, 0]
    assert (np.delete(sample.visibility, (3, 7), axis=1) == 2).all()


def test_a_pose_that_jumps_in_most_joints_is_no_lesson() -> None:
    moved = _people(1)
    moved.keypoints[:, :12, 0] += 30.0
    assert _agreed(_people(1), moved).ignored.tolist() == [True]


def test_pairs_are_every_few_frames_with_the_one_a_moment_later() -> None:
    frames = [np.full((1, 1, 3), number, np.uint8) for number in range(20)]
    pairs = [(int(first[0, 0, 0]), int(later[0, 0, 0])) for first, later in teacher.pairs(frames, 8)]
    assert pairs == [(0, 2), (8, 10), (16, 18)]
    assert len(list(teacher.pairs(frames, 8, at_most=2))) == 2
    assert list(teacher.pairs(frames[:2], 8)) == []


@pytest.mark.skipif(not (DATA / "teachers").is_dir(), reason="needs the teacher models in ../shared/data/teachers")
def test_the_real_teacher_wants_the_clear_people_of_a_still_scene_and_never_a_place_without_one() -> None:
    guide = teacher.guide(*teacher_files(DATA / "teachers"))
    pictures = list(coco.pictures(DATA / "keypoints" / "coco" / "test_coco.json"))
    wanted = 0
    for picture in pictures:
        sample = teacher.agreed(guide, picture.sample.image, picture.sample.image)
        sure = np.flatnonzero(~sample.ignored)
        overlap = teacher.overlaps(sample.bboxes[sure], picture.sample.bboxes)
        assert (overlap.max(axis=1) > 0.5).all()
        wanted += len(sure)
    assert wanted >= 8
    (empty,) = teacher.labelled(guide, None, [(FRAME, FRAME)])
    assert len(empty.bboxes) == 0
