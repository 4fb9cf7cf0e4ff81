"""Pictures of people side by side, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from violence_ops.video import drawing
from violence_ops.video.decode import Frame

_WIDTH, _HEIGHT = 480, 300  # of one picture on a sheet, px
_COLUMNS = 4


def with_people(
    picture: Frame,
    keypoints: NDArray[np.floating],
    scores: NDArray[np.floating],
    bboxes: NDArray[np.floating],
    faint: NDArray[np.bool_],
    least: float,
) -> Frame:
    """A copy of the picture with a skeleton and a box for everybody: keypoints (P, 17, 2), scores (P, 17), bboxes (P, 4).

    Joints that score `least` or less are left out; of those in `faint` (P,) the box alone is drawn, in grey.
    """
    drawn = np.array(picture, order="C")
    for joints, seen, box, left_out in zip(keypoints, scores, bboxes, faint, strict=True):
        drawing.corners(drawn, box, drawing.GREY if left_out else drawing.YELLOW, 1)
        if not left_out:
            drawing.skeleton(drawn, joints, seen, drawing.YELLOW, 1, least)
    return drawn


def sheet(pictures: Sequence[Frame]) -> Frame:
    """All pictures on one, each as large as its place allows, row by row."""
    rows = -(-len(pictures) // _COLUMNS)
    whole = np.full((rows * _HEIGHT, _COLUMNS * _WIDTH, 3), drawing.BLACK, np.uint8)
    for number, picture in enumerate(pictures):
        scale = min(_WIDTH / picture.shape[1], _HEIGHT / picture.shape[0])
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:_HEIGHT, :_WIDTH]
        top, left = number // _COLUMNS * _HEIGHT, number % _COLUMNS * _WIDTH
        whole[top : top + small.shape[0], left : left + small.shape[1]] = small
    return whole
