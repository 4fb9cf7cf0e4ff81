"""Clips with pictures, for the families that look at them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pytest

from violence_ops.recognition.ensemble import pictures
from violence_ops.recognition.model import Settings
from violence_ops.recognition.skeleton import Skeleton

Shown = Callable[[Sequence[Skeleton], Settings], list[Skeleton]]


def drawn(skeleton: Skeleton, indices: Sequence[int]) -> Iterable[np.ndarray]:
    """Frames on which the joints are white squares, on grey."""
    for index in indices:
        frame = np.full((skeleton.height, skeleton.width, 3), 90, np.uint8)
        for x, y in skeleton.keypoints[:, int(index / skeleton.step)].reshape(-1, 2).astype(int):
            frame[max(0, y - 6) : max(0, y + 6), max(0, x - 6) : max(0, x + 6)] = 255
        yield frame


@pytest.fixture(scope="session")
def shown() -> Shown:
    """`shown(clips, settings)`: the clips as a family wants them, with pictures at 30 frames a second if it looks at pictures."""

    def show(clips: Sequence[Skeleton], settings: Settings) -> list[Skeleton]:
        asked = pictures(settings)
        if asked is None:
            return list(clips)
        return [asked.of(one, 30.0, lambda indices, one=one: drawn(one, indices)) for one in clips]

    return show
