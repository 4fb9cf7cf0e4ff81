"""Long arrays some rows at a time, so that what is held beside the result does not grow with the clip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

AT_ONCE: Final = 8192
"""Rows looked at together. More are hardly faster; each needs a few hundred bytes for as long as it is looked at."""


def in_blocks(function: Callable[..., NDArray[Any]], *arrays: NDArray[Any]) -> NDArray[Any]:
    """`function` of `arrays`, all `(R, …)`, where each row of its result depends on the same row of them alone."""
    first = function(*(each[:AT_ONCE] for each in arrays))
    rows = len(arrays[0])
    if rows <= AT_ONCE:
        return first
    result = np.empty((rows, *first.shape[1:]), first.dtype)
    result[:AT_ONCE] = first
    for start in range(AT_ONCE, rows, AT_ONCE):
        some = slice(start, start + AT_ONCE)
        result[some] = function(*(each[some] for each in arrays))
    return result
