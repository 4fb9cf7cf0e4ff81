"""Non-maximum suppression: one answer per person, by where the boxes lie and then by where the trunks lie."""

from __future__ import annotations

import numpy as np

from violence_ops.pose.quality import AREA_SHARE, overlaps
from violence_ops.records import TRUNK


def suppress(boxes: np.ndarray, threshold: float) -> np.ndarray:
    """(K,) indices of boxes (N, 4), given strongest first, that overlap no stronger kept one by more than `threshold`."""
    return _strongest(overlaps(boxes, boxes) > threshold)


def distinct(keypoints: np.ndarray, boxes: np.ndarray, distance: float) -> np.ndarray:
    """(K,) indices of those whose trunk lies at least `distance` from that of every stronger kept one.

    Of keypoints (N, 17, 2) and boxes (N, 4) xyxy of a picture's persons, both px, strongest first.
    Two people who hold each other share a box but not a trunk; two answers for one person share both, even where they differ
    in the limbs. Distances are the mean over the four shoulders and hips, in roots of the two persons' mean area. 0 keeps everybody.
    """
    if not distance or len(boxes) < 2:
        return np.arange(len(boxes))
    trunks = keypoints[:, TRUNK]
    apart = np.linalg.norm(trunks[:, None] - trunks[None], axis=-1).mean(axis=-1)
    areas = AREA_SHARE * (boxes[:, 2:] - boxes[:, :2]).prod(axis=-1)
    return _strongest(apart < distance * np.sqrt((areas[:, None] + areas[None]) / 2))


def _strongest(same: np.ndarray) -> np.ndarray:
    """(K,) indices of those, given strongest first, who are the `same` (N, N) as no stronger kept one."""
    left, kept = np.ones(len(same), bool), []
    for index in range(len(same)):
        if left[index]:
            kept.append(index)
            left &= ~same[index]
    return np.array(kept, dtype=np.intp)
