"""Which of a track's boxes must be written down so that linear interpolation gives the others."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np

from violence_ops.records import FloatArray, IntArray

_AT_MOST: Final = 1024
"""So many boxes lie between two that are kept: it bounds the work, which is quadratic in the worst case."""


def needed(frames: IntArray, boxes: FloatArray, tolerance: float) -> IntArray:
    """The places `(K,)`, rising, of boxes between which linear interpolation over `frames` misses no other by more than `tolerance`.

    `frames` `(N,)` rise, `boxes` are `(N, 4)` in the unit of `tolerance`; the first and the last are kept. It is the line
    simplification of Ramer, Douglas and Peucker, over time: where a stretch is missed, its worst box is kept and both halves are tried.
    """
    kept = np.zeros(len(frames), bool)
    ends = [*range(0, len(frames) - 1, _AT_MOST), len(frames) - 1]
    kept[ends] = True
    stretches = list(pairwise(ends))
    while stretches:
        first, last = stretches.pop()
        if last - first < 2:
            continue
        share = (frames[first + 1 : last] - frames[first]) / (frames[last] - frames[first])
        drawn = boxes[first] + share[:, None] * (boxes[last] - boxes[first])
        missed = np.abs(boxes[first + 1 : last] - drawn).max(axis=1)
        worst = int(missed.argmax())
        if missed[worst] > tolerance:
            middle = first + 1 + worst
            kept[middle] = True
            stretches += [(first, middle), (middle, last)]
    return np.flatnonzero(kept).astype(np.int32)
