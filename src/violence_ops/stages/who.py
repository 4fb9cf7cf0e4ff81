"""Who did what is kept: a person's name is asked for, and never guessed from the account that a command runs under."""

from __future__ import annotations

from violence_ops.errors import UsageError


def named(by: str | None) -> str:
    """The name of the person who does it. Raises UsageError if there is none."""
    if by is None or not by.strip():
        raise UsageError("This needs a name: pass --by NAME or set VIOLENCE_OPS_USER.")
    return by
