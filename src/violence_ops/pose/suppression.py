"""Non-maximum suppression: one answer per person."""

from __future__ import annotations

import numpy as np

from violence_ops.pose.quality import overlaps


def suppress(boxes: np.ndarray, threshold: float) -> np.ndarray:
    """(K,) indices of boxes (N, 4), given strongest first, that overlap no stronger kept one by more than `threshold`."""
    too_close = overlaps(boxes, boxes) > threshold
    kept: list[int] = []
    for index in range(len(boxes)):
        if not too_close[index, kept].any():
            kept.append(index)
    return np.array(kept, dtype=np.intp)
