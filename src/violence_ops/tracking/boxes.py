"""Boxes: what is one, how much two overlap, and the two forms that tracking uses."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

_CORNERS: Final = np.array([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0], [-0.5, 0.0, 0.5, 0.0], [0.0, -0.5, 0.0, 0.5]])
"""From (cx, cy, width, height) to xyxy."""
_NOTHING: Final = np.zeros(())
_NO_AREA: Final = np.array(np.finfo(np.float64).tiny)


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
    sized = cxcyah.copy(order="K")
    np.maximum(sized[:, 2:], _NOTHING, out=sized[:, 2:])
    sized[:, 2] *= sized[:, 3]
    corners: Float = sized @ _CORNERS
    return corners


def area(bboxes: Float) -> Float:
    """`(N,)` areas of boxes `(N, 4)` xyxy, px²; 0 inside out."""
    size = np.subtract(bboxes[:, 2:], bboxes[:, :2])
    np.maximum(size, _NOTHING, out=size)
    product: Float = size[:, 0] * size[:, 1]
    return product


def iou(first: Float, second: Float, second_area: Float | None = None) -> Float:
    """Intersection over union `(N, M)` in [0, 1] of boxes `(N, 4)` and `(M, 4)`, xyxy; 0 where the union has no area.

    `second_area` `(M,)`, where it is known, saves working it out again."""
    rows, columns = _every_pair(len(first), len(second))
    one, other = first.T.take(rows, axis=1), second.T.take(columns, axis=1)
    size = np.minimum(one[2:], other[2:])
    size -= np.maximum(one[:2], other[:2])
    np.maximum(size, _NOTHING, out=size)
    shared = size[0] * size[1]
    union = area(first).take(rows)
    union += (area(second) if second_area is None else second_area).take(columns)
    union -= shared
    shared /= np.maximum(union, _NO_AREA, out=union)
    overlap: Float = shared.reshape(len(first), len(second))
    return overlap


@lru_cache(maxsize=64)
def _every_pair(rows: int, columns: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The row and the column `(rows x columns,)` of every cell of a matrix: for a few boxes, copies laid out side by side are
    several times faster than broadcasting."""
    return np.repeat(np.arange(rows), columns), np.tile(np.arange(columns), rows)
