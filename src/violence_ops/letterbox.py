"""How a frame is fitted into the input of a network and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

PADDING = 114
"""Grey that fills what the frame leaves free, as in MMPose."""
_PADDING_LUMA, _NO_COLOUR = 114, 128  # the same grey in YUV
Plane = NDArray[np.uint8]
_LIMITED = np.array([-16.0, -128.0, -128.0])  # what is added to Y, U and V of a limited range
_BT709 = np.array([[1.164384, 2.112402, 0.0], [1.164384, -0.213249, -0.532909], [1.164384, 0.0, 1.792741]])
"""B, G and R of Y, U and V."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What a network wants: its input's long side and what its sides are multiples of, px."""

    long_side: int
    multiple: int


@dataclass(frozen=True, slots=True)
class Letterbox:
    """A frame of `width` × `height` centred in an input of `input_width` × `input_height`, px, without distortion."""

    width: int
    height: int
    input_width: int
    input_height: int

    @classmethod
    def of(cls, width: int, height: int, fit: Fit) -> Self:
        """The long side becomes the network's; the other one the next multiple."""
        scale = fit.long_side / max(width, height)
        sides = (max(fit.multiple, -(-round(side * scale) // fit.multiple) * fit.multiple) for side in (width, height))
        return cls(width, height, *sides)

    @property
    def scale(self) -> float:
        """Input pixels per frame pixel."""
        return min(self.input_width / self.width, self.input_height / self.height)

    @property
    def offset(self) -> NDArray[np.float64]:
        """Where the frame's corner lies in the input, (x, y) px."""
        sizes = np.array([[self.input_width, self.input_height], [self.width, self.height]])
        return np.asarray((sizes[0] - self.scale * sizes[1]) / 2)

    def apply(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The input (input_height, input_width, 3) of a frame (height, width, 3), both uint8; as MMPose's BottomupResize."""
        import cv2

        matrix = np.column_stack([np.eye(2) * self.scale, self.offset])
        size = (self.input_width, self.input_height)
        fitted = cv2.warpAffine(frame, matrix, size, flags=cv2.INTER_LINEAR, borderValue=(PADDING,) * 3)
        return np.asarray(fitted, np.uint8)

    def apply_planes(self, luma: Plane, blue: Plane, red: Plane, *, bt709: bool = False) -> Plane:
        """As `apply`, of a frame in YUV 4:2:0 (limited range): luma (height, width), chroma at half of both.

        Its colours are those of ITU-R BT.601, or of BT.709.

        Fitting three small planes before their colours are converted costs a quarter of converting the frame first.
        """
        import cv2

        size = (self.input_width, self.input_height)
        half = (self.input_width // 2, self.input_height // 2)
        planes = np.empty((self.input_height * 3 // 2, self.input_width), np.uint8)
        chroma = planes[self.input_height :].reshape(2, half[1], half[0])
        whole = np.column_stack([np.eye(2) * self.scale, self.offset])
        # a chroma sample lies in the middle of four of luma, in the frame as in the input
        halved = np.column_stack([np.eye(2) * self.scale, (self.offset + 0.5 * self.scale - 0.5) / 2])
        cv2.warpAffine(luma, whole, size, planes[: self.input_height], cv2.INTER_LINEAR, borderValue=_PADDING_LUMA)
        for place, plane in zip(chroma, (blue, red), strict=True):
            cv2.warpAffine(plane, halved, half, place, cv2.INTER_LINEAR, borderValue=_NO_COLOUR)
        if not bt709:
            return np.asarray(cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420), np.uint8)
        wide = [cv2.resize(plane, size, interpolation=cv2.INTER_NEAREST) for plane in chroma]
        matrix = np.column_stack([_BT709, _BT709 @ _LIMITED])
        return np.asarray(cv2.transform(cv2.merge([planes[: self.input_height], *wide]), matrix), np.uint8)

    def to_frame(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points (..., 2) of the input in pixels of the frame."""
        return np.asarray((points - self.offset) / self.scale, np.float32)
