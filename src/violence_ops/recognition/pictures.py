"""Pictures of a clip's most involved persons, for the families that look at pictures (`recognition.by_pictures`).

They are cut from a square around all joints of these persons over the whole clip, so that people are large enough in a picture
of few pixels, and stand still in it when they stand still in the scene.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from violence_ops.errors import Rejected
from violence_ops.records import FloatArray

if TYPE_CHECKING:
    from violence_ops.recognition.skeleton import Skeleton

Frames = NDArray[np.uint8]
Look = Callable[[Sequence[int]], Iterable[Frames]]
"""Gives the frames of a clip with these ascending indices, each `(H, W, 3)` uint8 BGR, in order."""
_MARGIN = 1.3
_SPREAD = (1, 99)  # percentiles: a joint astray must not make the people small
_SMALLEST = 32.0  # px of the frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """frames `(P, S, S, 3)` uint8 RGB, and where each is `at` `(P,)`, ascending, on the skeleton's frames."""

    frames: Frames
    at: FloatArray

    def spans(self, cuts: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
        """Of each window the pictures `[first, end)` in it, `(W, 2)`; of one shorter than the time between two, the one before it."""
        starts, ends = np.array(cuts).T
        first = np.minimum(np.searchsorted(self.at, starts), len(self.at) - 1)
        end = np.maximum(np.searchsorted(self.at, ends), 1)
        return np.stack([np.minimum(first, end - 1), end], axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The pictures that a family wants: `per_second` of `size` x `size` px, around so many `persons`."""

    size: int
    per_second: float
    persons: int

    def of(self, skeleton: Skeleton, fps: float, look: Look) -> Skeleton:
        """The clip with its pictures; one that shows nobody needs none. Raises Rejected if not one frame can be decoded."""
        if skeleton.is_empty:
            return skeleton
        length = skeleton.frames * skeleton.step
        indices = np.rint(np.arange(0, length, max(1.0, fps / self.per_second))).astype(int)
        square = _square(skeleton.first(self.persons))
        found = [_cut(frame, *square, self.size) for frame in look(indices.tolist())]
        if not found:
            raise Rejected(
                "decode_error", f"Clip {skeleton.clip_id} has no frame that decodes: quarantine it or leave it out."
            )
        at = (indices[: len(found)] / skeleton.step).astype(np.float32)
        return replace(skeleton, pictures=Pictures(frames=np.stack(found), at=at))


def _square(skeleton: Skeleton) -> tuple[float, float, float]:
    """Left, top and side, in px of the frame: around the joints, and inside the frame as far as it fits."""
    joints = skeleton.keypoints[skeleton.keypoint_scores > 0]
    if not len(joints):
        joints = np.array([(0, 0), (skeleton.width, skeleton.height)], np.float32)
    low, high = np.percentile(joints, _SPREAD, axis=0)
    side = min(max(float((high - low).max()) * _MARGIN, _SMALLEST), float(max(skeleton.width, skeleton.height)))
    corner = (low + high - side) / 2
    room = np.array([skeleton.width, skeleton.height]) - side
    left, top = np.where(room > 0, np.clip(corner, 0, np.maximum(room, 0)), room / 2)
    return float(left), float(top), side


def _cut(frame: Frames, left: float, top: float, side: float, size: int) -> Frames:
    """The square as a picture `(size, size, 3)` RGB, black where it is outside the frame."""
    import cv2

    height, width = frame.shape[:2]
    (rows, down), (columns, across) = _along(top, side, height, size), _along(left, side, width, size)
    shape = (across.stop - across.start, down.stop - down.start)
    picture = np.zeros((size, size, 3), np.uint8)
    way = cv2.INTER_AREA if size < side else cv2.INTER_LINEAR
    picture[down, across] = cv2.resize(frame[rows, columns], shape, interpolation=way)[..., ::-1]
    return picture


def _along(edge: float, side: float, length: int, size: int) -> tuple[slice, slice]:
    """Along one axis: what is taken of a frame so long, and where in the picture it comes."""
    first, end = max(0, round(edge)), min(length, round(edge + side))
    start = min(size - 1, max(0, round((first - edge) * size / side)))
    stop = min(size, max(start + 1, round((end - edge) * size / side)))
    return slice(first, end), slice(start, stop)
