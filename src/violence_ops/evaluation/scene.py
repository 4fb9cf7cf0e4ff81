"""How many people a clip shows at once: counted in one way for `annotate`, `explain`, `analyze` and the report's slices.

The slices put the count into finer bins of their own; the others say it in these words.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Scene = Literal["nobody", "one person", "few", "crowd"]


def persons_at_once(frame: NDArray[np.integer]) -> int:
    """The most persons in one frame, from the frame `(R,)` of every row of a clip's tracks, ranked or not."""
    return int(np.unique(frame, return_counts=True)[1].max(initial=0))


def scene_of(persons: int, crowd: int) -> Scene:
    """So many persons at once in words; a crowd from `crowd` persons on."""
    if persons == 0:
        return "nobody"
    if persons == 1:
        return "one person"
    return "crowd" if persons >= crowd else "few"
