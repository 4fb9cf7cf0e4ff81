"""A small picture of a clip for a report: the people the classifier looks at, with their skeletons."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from violence_ops.records import ClipTracks
from violence_ops.video import drawing
from violence_ops.video.decode import Frame

SIZE: Final = (320, 240)
"""Width and height, px."""
_COLOURS: Final = ((40, 140, 255), (255, 190, 60))
"""Of rank 1 and 2, as in the overlay: orange, light blue."""
_SHOWN_SCORE: Final = 0.3
_MARGIN: Final = 0.4
"""Of the people's height, on every side."""


def thumbnail(frame: Frame, index: int, tracks: ClipTracks) -> bytes:
    """JPEG of frame `index`, `(H, W, 3)` uint8 BGR, cut to the two top-ranked people in it; of the whole frame if there are none."""
    here = (tracks.frame == index) & (tracks.rank >= 1) & (tracks.rank <= len(_COLOURS))
    left, top, width = _view(tracks.bboxes[here], frame.shape[1], frame.shape[0])
    scale = SIZE[0] / width
    matrix = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    picture: Frame = cv2.warpAffine(
        frame, matrix, SIZE, flags=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC, borderValue=drawing.BLACK
    ).astype(np.uint8)
    for row in np.flatnonzero(here)[::-1]:
        points = (tracks.keypoints[row] - (left, top)) * scale
        colour = _COLOURS[tracks.rank[row] - 1]
        drawing.skeleton(picture, points, tracks.keypoint_scores[row], colour, 2, _SHOWN_SCORE)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 78])[1].tobytes()


def _view(boxes: NDArray[np.floating], width: int, height: int) -> tuple[float, float, float]:
    """Left, top and width of the picture's part of the frame, px; its height follows from the picture's shape."""
    shape = SIZE[0] / SIZE[1]
    whole = max(width, height * shape)
    if not len(boxes):
        return (width - whole) / 2, (height - whole / shape) / 2, whole
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    across, down = (high - low) + 2 * _MARGIN * (boxes[:, 3] - boxes[:, 1]).max()
    side = float(np.clip(max(across, down * shape), 0.25 * whole, whole))
    x, y = (low + high) / 2 - (side / 2, side / shape / 2)
    inside = [
        float(np.clip(place, min(0, free), max(0, free)))
        for place, free in ((x, width - side), (y, height - side / shape))
    ]
    return inside[0], inside[1], side
