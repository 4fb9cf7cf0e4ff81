"""Real frames without labels, so that learning from drawn pictures does not unlearn what real rooms look like.

The weights that training starts from say who is there: what they are sure of stays a person (box only, no joints),
what they are unsure of is left alone, and everything else must stay empty.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from violence_ops.pose.rtmo import PoseEstimator
from violence_ops.pose.samples import Sample
from violence_ops.pose.weights import Weights

SURE, UNSURE = 0.5, 0.12
LONG_SIDE = 480


def rehearse(weights: Weights, frames: Iterable[np.ndarray]) -> list[Sample]:
    """Samples of real frames (H, W, 3) uint8 BGR with the boxes that `weights` find in them; kept at 480 px."""
    teacher = PoseEstimator(weights, score_threshold=UNSURE)
    samples = []
    for frame in frames:
        scale = LONG_SIDE / max(frame.shape[:2])
        size = round(frame.shape[1] * scale), round(frame.shape[0] * scale)
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        found = teacher.estimate([small])[0]
        joints = np.zeros((len(found), 17, 2), np.float32), np.zeros((len(found), 17), np.uint8)
        samples.append(Sample(small, *joints, found.bboxes, found.scores < SURE))
    return samples
