"""Recall of labelled people, overall and by height; COCO's files."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from violence_ops.errors import InputUnusable
from violence_ops.pose import coco
from violence_ops.pose.agreement import Labelled, agreement
from violence_ops.pose.samples import Sample
from violence_ops.records import FramePoses


def _people(heights: Sequence[float], ignored: Sequence[bool] | None = None) -> Sample:
    """People side by side, of these heights."""
    count = len(heights)
    corner = np.stack([20 + 200 * np.arange(count), np.full(count, 10)], axis=1).astype(np.float32)
    size = np.stack([np.asarray(heights) / 2, heights], axis=1).astype(np.float32)
    joints = corner[:, None] + np.random.default_rng(0).random((count, 17, 2)) * size[:, None]
    return Sample(
        np.zeros((300, 900, 3), np.uint8), joints.astype(np.float32), np.full((count, 17), 2, np.uint8),
        np.hstack([corner, corner + size]), np.zeros(count, bool) if ignored is None else np.array(ignored),
    )  # fmt: skip


class _Sees:
    """Finds exactly some of the people, with these scores."""

    def __init__(self, sample: Sample, scores: dict[int, float], shift: float = 0.0) -> None:
        order = sorted(scores, key=lambda person: -scores[person])
        self.found = FramePoses(
            keypoints=sample.keypoints[order] + np.float32(shift), keypoint_scores=np.ones((len(order), 17), np.float32),
            bboxes=sample.bboxes[order], scores=np.array([scores[person] for person in order], np.float32),
        )  # fmt: skip

    def estimate(self, frames: Sequence[np.ndarray]) -> list[FramePoses]:
        return [self.found for _ in frames]


def test_who_is_found_counts_in_the_share_of_his_height() -> None:
    sample = _people([40, 80, 150, 250])
    found = agreement(_Sees(sample, {1: 0.9, 2: 0.5, 3: 0.2}), [Labelled(sample)] * 3, score_threshold=0.3)
    assert (found.frames, found.found) == (3, 6)
    assert (found.share().persons, found.share().pose_recall) == (12, 0.5)
    assert found.share(taller_than=60).pose_recall == pytest.approx(2 / 3)
    shares = found.by_height()
    assert {name: share.pose_recall for name, share in shares.items()} == {
        "0-30": None, "30-60": 0.0, "60-100": 1.0, "100-200": 1.0, "over 200": 0.0
    }  # fmt: skip
    assert sum(share.persons for share in shares.values()) == 12


def test_a_right_box_with_a_wrong_pose_is_a_found_box_only() -> None:
    sample = _people([100, 100])
    share = agreement(_Sees(sample, {0: 0.9, 1: 0.9}, shift=60.0), [Labelled(sample)], 0.3).share()
    assert (share.pose_recall, share.box_recall) == (0.0, 1.0)


def test_the_ignored_count_neither_way_and_nobody_is_no_share() -> None:
    sample = _people([100, 100], ignored=[True, False])
    assert agreement(_Sees(sample, {1: 0.9}), [Labelled(sample)], 0.3).share().pose_recall == 1.0
    nobody = agreement(_Sees(sample, {}), [], 0.3)
    assert (nobody.share().persons, nobody.share().pose_recall, nobody.share().box_recall) == (0, None, None)


def test_a_known_outline_decides_how_far_a_joint_may_be() -> None:
    sample = _people([100])
    small, large = (Labelled(sample, np.array([area])) for area in (50.0, 50_000.0))
    shares = [agreement(_Sees(sample, {0: 0.9}, shift=6.0), [one], 0.3).share() for one in (small, large)]
    assert [share.poses for share in shares] == [0, 1]


def _annotated(folder: Path, **changes: object) -> Path:
    cv2.imwrite(str(folder / "a.jpg"), np.full((60, 80, 3), 99, np.uint8))
    person = {
        "image_id": 1, "keypoints": [10, 20, 2, 11, 21, 1, *([0] * 45)], "num_keypoints": 2, "bbox": [5, 6, 20, 30],
        "area": 321.5, "iscrowd": 0,
    }  # fmt: skip
    people = [person, person | {"num_keypoints": 0, "keypoints": [0] * 51}, person | {"iscrowd": 1}]
    content = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": people} | changes
    (folder / "labels.json").write_text(json.dumps(content))
    return folder / "labels.json"


def test_coco_labels_are_read_with_boxes_outlines_and_who_does_not_count(tmp_path: Path) -> None:
    (picture,) = coco.pictures(_annotated(tmp_path))
    sample = picture.sample
    assert sample.image.shape == (60, 80, 3)
    assert sample.bboxes[0].tolist() == [5, 6, 25, 36]
    assert sample.visibility[0].tolist() == [2, 2] + [0] * 15
    assert sample.keypoints[0, :2].tolist() == [[10, 20], [11, 21]]
    assert sample.ignored.tolist() == [False, True, True]
    assert picture.areas is not None
    assert picture.areas.tolist() == [321.5] * 3


def test_a_coco_picture_without_people_is_a_picture(tmp_path: Path) -> None:
    (picture,) = coco.pictures(_annotated(tmp_path, annotations=[]))
    assert picture.sample.keypoints.shape == (0, 17, 2)


def test_annotations_that_are_none_are_refused_in_a_sentence(tmp_path: Path) -> None:
    for name, content in (
        ("no.json", None),
        ("text.json", "hello"),
        ("list.json", "[]"),
        ("other.json", '{"images": []}'),
    ):
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(InputUnusable, match=rf"{name} is no file of COCO keypoint annotations"):
            list(coco.pictures(tmp_path / name))
    labels = _annotated(tmp_path)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(InputUnusable, match=r"names a\.jpg, which is not beside it or is no picture"):
        list(coco.pictures(labels))
