"""Mini-batches that find their own size on a GPU (SPEC 2): grow by 1 while they fit, shrink by 2 when they do not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

_log = logging.getLogger(__name__)
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Grower:
    """Runs a function over items in mini-batches of `size`, up to `limit`; remembers the size that fitted."""

    def __init__(self, size: int, limit: int) -> None:
        if not 1 <= size <= limit:
            raise ValueError(f"mini-batch size must be between 1 and its limit {limit}, not {size}")
        self.size, self.limit = size, limit
        self._ceiling = limit

    def run(self, fit: Callable[[Sequence[_Item]], list[_Result]], items: Sequence[_Item]) -> list[_Result]:
        """Results of all items, in order. After an out-of-memory the same items are tried again in a smaller mini-batch.

        Raises:
            torch.cuda.OutOfMemoryError: not even one item fits.
        """
        results: list[_Result] = []
        while len(results) < len(items):
            some = items[len(results) : len(results) + self.size]
            try:
                results += fit(some)
            except torch.cuda.OutOfMemoryError:
                if len(some) == 1:
                    raise
                self._ceiling = max(1, len(some) - 1)
                self.size = max(1, len(some) - 2)
                _log.warning("out of GPU memory with %d frames at once: going on with %d", len(some), self.size)
                torch.cuda.empty_cache()
                continue
            if len(some) == self.size:
                self.size = min(self.size + 1, self._ceiling)
        return results
