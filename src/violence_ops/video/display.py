"""How the pictures of a video are meant to be seen: turned as a phone was held, and with the pixels of a recorder made square."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

_MAX_RATIO: Final = 4.0
"""A pixel that is longer than this many of its widths, or wider, is a mistake in the file."""
_SQUARE: Final = 0.02
"""A pixel whose sides differ by less than this share is taken for square: nobody sees it, and stretching costs time."""


@dataclass(frozen=True, slots=True)
class Display:
    """`width` and `height`, px, which all frames get before they are turned; then sides may be swapped and axes flipped."""

    width: int
    height: int
    swapped: bool = False
    flipped: tuple[int, ...] = ()

    @classmethod
    def of(cls, stream: Any, frame: Any, known: tuple[int, int] | None = None) -> Self:
        """How the `av` stream that begins with this frame is shown. The shorter side of oblong pixels is stretched, as browsers do.

        `known` is the clip's width and height, if it has been examined: clips that were when frames were still taken as they are
        stored, and so are their tracks, stay as they are stored.
        """
        ratio = float(stream.sample_aspect_ratio or 1)
        width, height = frame.width, frame.height
        if 1 + _SQUARE < ratio <= _MAX_RATIO:
            width = _even(width * ratio)
        elif 1 + _SQUARE < 1 / ratio <= _MAX_RATIO:
            height = _even(height / ratio)
        shown, stored = cls(width, height, *_turns(frame)), cls(frame.width, frame.height)
        return stored if known == stored.size != shown.size else shown

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures as they are seen, px."""
        return (self.height, self.width) if self.swapped else (self.width, self.height)

    def shows_as_stored(self, frame: Any) -> bool:
        """Whether the frame's samples already lie as they are seen."""
        return not (self.swapped or self.flipped) and (frame.width, frame.height) == (self.width, self.height)

    def picture(self, frame: Any) -> NDArray[np.uint8]:
        """A frame as it is seen, `(height, width, 3)` uint8 BGR of `size`."""
        return self.turned(frame.to_ndarray(width=self.width, height=self.height, format="bgr24"))

    def turned(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture `(H, W, …)` the right way up."""
        if self.swapped:
            picture = picture.swapaxes(0, 1)
        return np.ascontiguousarray(np.flip(picture, self.flipped))


def _even(side: float) -> int:
    return round(side / 2) * 2


def _turns(frame: Any) -> tuple[bool, tuple[int, ...]]:
    """Whether the display matrix swaps the sides, and which axes of `(H, W)` it flips after that. Only right angles count."""
    try:
        matrix = np.frombuffer(frame.side_data["DISPLAYMATRIX"], np.int32, 9).reshape(3, 3)
    except (KeyError, ValueError):  # there is none, or there is data beside it of a kind that PyAV does not know
        return False, ()
    # where a point (x, y) is seen: x * (across, down) + y * (across, down)
    x_to, y_to = matrix[:2, :2].tolist()
    swapped = not (x_to[0] or y_to[1])
    if not swapped and (x_to[1] or y_to[0]):
        return False, ()
    across, down = (y_to[0], x_to[1]) if swapped else (x_to[0], y_to[1])
    return swapped, tuple(axis for axis, direction in enumerate((down, across)) if direction < 0)
