from pathlib import Path

import numpy as np

from violence_ops.stages.capacity import peak_memory

MIB = 2**20


def test_a_peak_is_that_of_the_block_and_not_of_what_was_before() -> None:
    before = np.ones(400 * MIB, np.uint8)
    del before
    with peak_memory() as peak:
        small = peak()
        inside = np.ones(100 * MIB, np.uint8)
        del inside
        large = peak()
    with peak_memory() as peak:
        after = peak()
    assert 95 * MIB < large - small < 200 * MIB
    assert after < large - 90 * MIB


def test_where_an_older_peak_cannot_be_forgotten_none_is_told(tmp_path: Path) -> None:
    with peak_memory(tmp_path / "no such process") as peak:
        assert peak() is None
