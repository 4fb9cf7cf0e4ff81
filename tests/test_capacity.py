from mmap import mmap
from pathlib import Path

from violence_ops.capacity import peak_memory

MIB = 2**20


def hold(size: int) -> mmap:
    """Memory that goes back to the system when closed, which an allocator with holes from other tests does not do."""
    held = mmap(-1, size)
    for _ in range(size // MIB):
        held.write(b"\1" * MIB)
    return held


def test_a_peak_is_that_of_the_block_and_not_of_what_was_before() -> None:
    hold(400 * MIB).close()
    with peak_memory() as peak:
        small = peak()
        hold(100 * MIB).close()
        large = peak()
    with peak_memory() as peak:
        after = peak()
    assert 95 * MIB < large - small < 110 * MIB
    assert after < large - 90 * MIB


def test_where_an_older_peak_cannot_be_forgotten_none_is_told(tmp_path: Path) -> None:
    with peak_memory(tmp_path / "no such process") as peak:
        assert peak() is None
