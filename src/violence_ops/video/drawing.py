"""Marks on a picture: text on a plate, corners of a box, a skeleton, a translucent fill. All change the picture in place."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from violence_ops.records import SKELETON
from violence_ops.video.decode import Frame

Colour = tuple[int, int, int]
"""BGR, 0 … 255."""
Point = tuple[int, int]

BLACK: Final[Colour] = (14, 14, 16)
WHITE: Final[Colour] = (245, 245, 245)
GREY: Final[Colour] = (150, 150, 152)
YELLOW: Final[Colour] = (60, 225, 255)
RED: Final[Colour] = (50, 50, 235)
_REGULAR: Final = 400
_BOLD: Final = 700
_FAR: Final = 1e5


@cache
def _face() -> Any:
    return cv2.FontFace("sans")


def text_size(text: str, size: int, *, bold: bool = False) -> tuple[int, int]:
    """Width of `text`, and height of a capital letter, px, at a font size in px."""
    _, _, width, _ = cv2.getTextSize((1 << 14, 1 << 10), text, (0, 0), _face(), size, _BOLD if bold else _REGULAR)
    return int(width), round(0.74 * size)


def text(picture: Frame, words: str, at: Point, size: int, colour: Colour, *, bold: bool = False) -> None:
    """Write `words` with their left end of the base line at `at`."""
    cv2.putText(picture, words, at, colour, _face(), size, _BOLD if bold else _REGULAR)


def plate(picture: Frame, corner: Point, parts: list[tuple[str, Colour, bool]], size: int) -> None:
    """Words in several colours side by side on a black plate with its top left at `corner`."""
    width, height = plate_size(parts, size)
    left, top = corner
    cv2.rectangle(picture, (left, top), (left + width - 1, top + height - 1), BLACK, cv2.FILLED)
    pad = size // 3
    x = left + pad
    for words, colour, bold in parts:
        text(picture, words, (x, top + height - pad - 1), size, colour, bold=bold)
        x += text_size(words, size, bold=bold)[0] + size // 2


def plate_size(parts: list[tuple[str, Colour, bool]], size: int) -> tuple[int, int]:
    """Width and height of a plate, px."""
    widths = [text_size(words, size, bold=bold)[0] for words, _, bold in parts]
    pad = size // 3
    return sum(widths) + (len(parts) - 1) * (size // 2) + 2 * pad, text_size("I", size)[1] + 2 * pad


def corners(picture: Frame, bbox: NDArray[np.floating], colour: Colour, thickness: int) -> None:
    """The four corners of a box `(4,)` xyxy, px, joined by a hairline."""
    left, top, right, bottom = (int(value) for value in np.clip(np.nan_to_num(bbox), -_FAR, _FAR))
    cv2.rectangle(picture, (left, top), (right, bottom), colour, 1, cv2.LINE_AA)
    arm = max(4, min(right - left, bottom - top) // 5)
    for x, inward in ((left, arm), (right, -arm)):
        for y, down in ((top, arm), (bottom, -arm)):
            cv2.line(picture, (x, y), (x + inward, y), colour, thickness, cv2.LINE_AA)
            cv2.line(picture, (x, y), (x, y + down), colour, thickness, cv2.LINE_AA)


def skeleton(
    picture: Frame,
    keypoints: NDArray[np.floating],
    scores: NDArray[np.floating],
    colour: Colour,
    thickness: int,
    least: float,
) -> None:
    """Bones and joints `(17, 2)` px whose score `(17,)` is above `least`."""
    shown = (scores > least) & (np.abs(np.nan_to_num(keypoints, nan=_FAR)) < _FAR).all(axis=1)
    points = [(int(x), int(y)) if seen else (0, 0) for (x, y), seen in zip(keypoints, shown, strict=True)]
    bones = [(first, second) for first, second in SKELETON if shown[first] and shown[second]]
    for width, ink in ((thickness + 2, BLACK), (thickness, colour)):
        for first, second in bones:
            cv2.line(picture, points[first], points[second], ink, width, cv2.LINE_AA)
    for joint in np.flatnonzero(shown):
        cv2.circle(picture, points[joint], thickness + 1, BLACK, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(picture, points[joint], thickness, WHITE, cv2.FILLED, cv2.LINE_AA)


def dashes(picture: Frame, start: Point, end: Point, colour: Colour, length: int) -> None:
    """A dashed line of thickness 1."""
    span = np.subtract(end, start)
    pieces = max(int(np.linalg.norm(span)) // (2 * length), 1)
    for piece in range(pieces):
        first = np.add(start, span * piece / pieces).astype(int)
        second = np.add(start, span * (piece + 0.5) / pieces).astype(int)
        cv2.line(picture, first.tolist(), second.tolist(), colour, 1, cv2.LINE_AA)
