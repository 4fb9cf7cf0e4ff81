"""Numbers in sentences and tables."""

from __future__ import annotations


def counted(number: int, one: str, more: str | None = None) -> str:
    """A number with what it counts: `1 clip`, `2 clips`, `0 clips`. `more` is for what is not `one` and an s (`entry`, `file waits`)."""
    return f"{number} {one if number == 1 else more or one + 's'}"


def clock(seconds: float) -> str:
    """A time in a video: `0:07`, `12:30`, `1:02:05`."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
