"""Who did what is kept, and why: a person's name is asked for, and never guessed from the account that a command runs under."""

from __future__ import annotations

from violence_ops.errors import UsageError


def named(by: str | None) -> str:
    """The name of the person who does it. Raises UsageError if there is none, or it cannot be written down."""
    if by is None or not by.strip():
        raise UsageError("This needs a name: pass --by NAME or set VIOLENCE_OPS_USER.")
    return _text(by, "The name given with --by or VIOLENCE_OPS_USER")


def explained(reason: str | None, otherwise: str) -> str:
    """The reason that the person gives. Raises UsageError if there is none, saying `otherwise`, or it cannot be written down."""
    if reason is None or not reason.strip():
        raise UsageError(otherwise)
    return _text(reason, "The reason given with --reason")


def _text(given: str, what: str) -> str:
    """Python has what a shell passes in bytes that are no UTF-8 as halves of characters, which no file takes."""
    try:
        given.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{what} holds bytes that are no text in UTF-8: type it again.") from None
    return given
