"""Real frames with the labels of two larger models, for the small one to learn from.

The teachers (`pose.topdown`) are good at upright, separate people and blind to grappling, falls and crowds. So only
what they are sure of, and say again a moment later, becomes a person with joints; whatever else they, or the weights
that training starts from, take for somebody is left alone: neither wanted nor wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from violence_ops.pose.agreement import Source
from violence_ops.pose.quality import overlaps
from violence_ops.pose.rtmo import PoseEstimator
from violence_ops.pose.samples import Sample
from violence_ops.pose.topdown import TopDown
from violence_ops.pose.weights import Weights
from violence_ops.records import FramePoses

LATER = 2  # frames until the teacher must agree with itself
LONG_SIDE = 512  # px that a frame is kept at
SURE_JOINT, FAINT_JOINT = 0.3, 0.15  # a joint's score: seen; perhaps hidden
SURE_PERSON, SURE_POSE, SURE_JOINTS = 0.45, 0.3, 6  # detection's score, mean joint score, joints seen
BELIEVED = 0.4  # score of the student from which an unlabelled place may hold somebody
_SAME = 0.5  # overlap of boxes that are one person
_MOVED = 0.12  # of the square root of the box: how far a joint may go between two frames


def guide(detector: Path, keypoints: Path) -> TopDown:
    """The two models as a teacher: they look thoroughly, and give everybody whom their boxes tell apart."""
    return TopDown(detector, keypoints, score_threshold=0.1, nms_threshold=0.5, duplicate_distance=0.0, thorough=True)


def student(weights: Weights) -> PoseEstimator:
    """The weights that training starts from, as they say where somebody may be whom the teacher does not see."""
    return PoseEstimator(weights, score_threshold=BELIEVED, nms_threshold=0.35, duplicate_distance=0.0)


def labelled(teacher: Source, student: Source | None, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[Sample]:
    """Samples of the first frame of each pair; the second, a moment later, is where the teacher must agree with itself."""
    samples = []
    for first, second in pairs:
        sample = agreed(teacher, _kept(first), _kept(second))
        samples.append(_with_doubts(sample, student.estimate([sample.image])[0]) if student else sample)
    return samples


def pairs(
    frames: Iterable[np.ndarray], every: int, at_most: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every `every`-th frame of a clip, each with one a moment later; `at_most` so many pairs."""
    earlier, given = None, 0
    for number, frame in enumerate(frames):
        if given == at_most:
            return
        if number % every == 0:
            earlier = frame
        elif number % every == LATER and earlier is not None:
            given += 1
            yield earlier, frame


def agreed(teacher: Source, frame: np.ndarray, later: np.ndarray) -> Sample:
    """What the teacher finds in a frame; whoever it is not sure of, box and pose, or does not find again `later`, is ignored."""
    found, again = teacher.estimate([frame, later])
    visibility = np.where(found.keypoint_scores >= SURE_JOINT, 2, np.where(found.keypoint_scores >= FAINT_JOINT, 1, 0))
    partners = overlaps(found.bboxes, again.bboxes)
    sizes = np.sqrt(np.maximum((found.bboxes[:, 2:] - found.bboxes[:, :2]).prod(axis=1), 1.0))
    steady = np.zeros(len(found), bool)
    for number in range(len(found)):
        if not partners.shape[1] or partners[number].max() < _SAME:
            continue
        other = int(partners[number].argmax())
        moved = np.linalg.norm(found.keypoints[number] - again.keypoints[other], axis=-1) / sizes[number]
        visibility[number, moved > _MOVED] = 0
        steady[number] = True
    sure = steady & (found.scores >= SURE_PERSON) & (found.keypoint_scores.mean(axis=1) >= SURE_POSE)
    sure &= (visibility == 2).sum(axis=1) >= SURE_JOINTS
    return Sample(frame, found.keypoints, visibility.astype(np.uint8), found.bboxes, ~sure)


def _kept(frame: np.ndarray) -> np.ndarray:
    scale = LONG_SIDE / max(frame.shape[:2])
    if scale >= 1:
        return frame
    return cv2.resize(
        frame, (round(frame.shape[1] * scale), round(frame.shape[0] * scale)), interpolation=cv2.INTER_AREA
    )


def _with_doubts(sample: Sample, believed: FramePoses) -> Sample:
    """The sample with the places added, as ignored, where the student sees somebody and no label is."""
    new = believed.scores >= BELIEVED
    if len(sample.bboxes):
        new &= overlaps(believed.bboxes, sample.bboxes).max(axis=1) < _SAME
    count = int(new.sum())
    return Sample(
        sample.image,
        np.concatenate([sample.keypoints, np.zeros((count, 17, 2), np.float32)]),
        np.concatenate([sample.visibility, np.zeros((count, 17), np.uint8)]),
        np.concatenate([sample.bboxes, believed.bboxes[new]]),
        np.concatenate([sample.ignored, np.ones(count, bool)]),
    )
