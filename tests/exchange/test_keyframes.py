"""Keyframes: linear interpolation between those that are kept gives all boxes, within the tolerance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from violence_ops.exchange.keyframes import needed


@given(st.integers(1, 3000), st.integers(1, 5), st.floats(0.01, 50), st.floats(0, 20), st.integers(0, 2**31))
def test_no_box_is_missed_by_more_than_the_tolerance(
    count: int, step: int, tolerance: float, speed: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    frames = np.cumsum(rng.integers(1, step + 1, count)).astype(np.int32)
    boxes = np.cumsum(rng.normal(0, speed, (count, 4)), axis=0)
    kept = needed(frames, boxes, tolerance)
    assert (kept[0], kept[-1]) == (0, count - 1)
    assert (np.diff(kept) > 0).all()
    for side in boxes.T:
        assert np.abs(np.interp(frames, frames[kept], side[kept]) - side).max() <= tolerance + 1e-9


@pytest.mark.parametrize("count", [1, 2, 100, 1000])
def test_of_a_straight_walk_only_the_ends_are_kept(count: int) -> None:
    frames = np.arange(count, dtype=np.int32)
    boxes = np.outer(frames, [1.0, 0.0, 1.0, 0.5])
    assert needed(frames, boxes, 0.1).tolist() == sorted({0, count - 1})
