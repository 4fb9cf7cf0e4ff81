"""Boxes: what is one, how much two overlap, and the two forms that tracking uses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


def is_box(bboxes: NDArray[np.floating]) -> NDArray[np.bool_]:
    """`(N,)` whether each of `bboxes` `(N, 4)` xyxy is finite and has an area."""
    finite = np.isfinite(bboxes).all(axis=1)
    return finite & (bboxes[:, 2] > bboxes[:, 0]) & (bboxes[:, 3] > bboxes[:, 1])


def to_cxcyah(bboxes: Float) -> Float:
    """`(N, 4)` xyxy, px, to centre x, centre y, aspect (width / height), height."""
    size = bboxes[:, 2:] - bboxes[:, :2]
    centre = bboxes[:, :2] + size / 2
    return np.column_stack([centre, size[:, 0] / size[:, 1], size[:, 1]])


def to_xyxy(cxcyah: Float) -> Float:
    """`(N, 4)` centre x, centre y, aspect, height to xyxy, px; a predicted negative size counts as none."""
    height = np.maximum(cxcyah[:, 3], 0.0)
    half = np.column_stack([np.maximum(cxcyah[:, 2], 0.0) * height, height]) / 2
    return np.concatenate([cxcyah[:, :2] - half, cxcyah[:, :2] + half], axis=1)


def iou(first: Float, second: Float) -> Float:
    """Intersection over union `(N, M)` in [0, 1] of boxes `(N, 4)` and `(M, 4)`, xyxy; 0 where the union has no area."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=2)
    areas = [np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
