"""The mini-batch grows by one while it fits, shrinks by two when memory runs out, and loses nothing."""

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from violence_ops.pose.minibatch import Grower


def _memory_for(most: int, seen: list[int]) -> Callable[[Sequence[int]], list[int]]:
    """A function over items that runs out of memory above `most` of them."""

    def fit(items: Sequence[int]) -> list[int]:
        seen.append(len(items))
        if len(items) > most:
            raise torch.cuda.OutOfMemoryError
        return [item * 10 for item in items]

    return fit


@given(most=st.integers(1, 20), items=st.integers(0, 120), size=st.integers(1, 8), limit=st.integers(8, 16))
def test_every_item_is_answered_once_in_order_whatever_the_memory(most: int, items: int, size: int, limit: int) -> None:
    seen: list[int] = []
    results = Grower(size, limit).run(_memory_for(most, seen), list(range(items)))
    assert results == [item * 10 for item in range(items)]
    assert max(seen, default=0) <= limit


def test_it_grows_by_one_up_to_the_limit() -> None:
    seen: list[int] = []
    Grower(8, 11).run(_memory_for(99, seen), list(range(60)))
    assert seen[:5] == [8, 9, 10, 11, 11]


def test_out_of_memory_shrinks_by_two_and_tries_the_same_items_again() -> None:
    seen: list[int] = []
    grower = Grower(8, 16)
    grower.run(_memory_for(9, seen), list(range(60)))
    assert seen[:5] == [8, 9, 10, 8, 9]
    assert max(seen[4:]) == 9, "a size that did not fit is not tried again"
    assert grower.size == 9


def test_when_not_even_one_fits_it_says_so() -> None:
    with pytest.raises(torch.cuda.OutOfMemoryError):
        Grower(4, 8).run(_memory_for(0, []), [1, 2])


def test_a_size_above_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="between 1 and its limit 4"):
        Grower(5, 4)
