"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, one: str, more: str | None = None) -> str:
    """A number with what it counts: `1 clip`, `2 clips`, `0 clips`. `more` is for what is not `one` and an s (`entry`, `file waits`)."""
    return f"{number} {one if number == 1 else more or one + 's'}"
