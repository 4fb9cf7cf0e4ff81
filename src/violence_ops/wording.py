"""Numbers and names in sentences and tables."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Sequence
from typing import Final

_ODD: Final = re.compile(r"[^ -~]")
_STEERING: Final = {"Cc", "Cf", "Zl", "Zp"}


def counted(number: int, one: str, more: str | None = None) -> str:
    """A number with what it counts: `1 clip`, `2 clips`, `0 clips`. `more` is for what is not `one` and an s (`entry`, `file waits`)."""
    return f"{number} {one if number == 1 else more or one + 's'}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names, `most` of them, and how many more there are: `a, b and 3 more`."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def clock(seconds: float) -> str:
    """A time in a video: `0:07`, `12:30`, `1:02:05`."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def is_unsafe(character: str) -> bool:
    """Whether it could steer a terminal, put words elsewhere than they stand, or is a byte that is no text."""
    return unicodedata.category(character) in _STEERING | {"Cs"}


def printable(name: str) -> str:
    """A name with everything that could confuse a terminal, a log or a table written as an escape."""
    return name if name.isprintable() else "".join(map(_escaped, name))


def _escaped(character: str) -> str:
    if not is_unsafe(character):
        return character
    raw = os.fsencode(character)
    return "".join(f"\\x{byte:02x}" for byte in raw) if len(raw) == 1 else character.encode("unicode_escape").decode()


def harmless(text: str, kept: str = "\n\t") -> str:
    """Text in which every character that could steer a terminal, or put words elsewhere than they stand, is written as JSON escapes it,
    but for those `kept`. Of JSON it makes JSON with the same content."""

    def escaped(found: re.Match[str]) -> str:
        steers = found[0] not in kept and unicodedata.category(found[0]) in _STEERING
        return json.dumps(found[0])[1:-1] if steers else found[0]

    return _ODD.sub(escaped, text)
