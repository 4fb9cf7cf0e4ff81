"""Reading the ledger, and checking that it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from violence_ops import ledger
from violence_ops.errors import ServiceUnavailable
from violence_ops.jsonable import Jsonable
from violence_ops.store import releases
from violence_ops.wording import counted, printable
from violence_ops.workspace import Workspace


@dataclass(frozen=True, slots=True)
class LedgerResult:
    """The lines of the ledger, oldest first."""

    entries: list[ledger.Entry]

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-able values."""
        return {"entries": [entry.to_dict() for entry in self.entries]}

    def lines(self) -> list[str]:
        """What a person reads: a line per entry."""
        return [_line(entry) for entry in self.entries] or ["The ledger is empty: nothing was judged or released yet."]


@dataclass(frozen=True, slots=True)
class VerifyResult(Jsonable):
    """How many lines hold, and the champion; `unasked` is why MLflow could not be asked for its own, if it could not."""

    entries: int
    champion: str | None
    unasked: str | None = None

    def lines(self) -> list[str]:
        """What a person reads."""
        held = f"The ledger holds: {counted(self.entries, 'line')}, each bound to the one before and in git."
        return [held, self.unasked or f"MLflow has the same champion: {self.champion or 'none'}."]


def show(workspace: Workspace) -> LedgerResult:
    """Every line of the ledger. Raises LedgerBroken if it does not verify."""
    return LedgerResult(releases.entries(workspace))


def verify(workspace: Workspace) -> VerifyResult:
    """Check the hash chain, its end against git, and its champion against MLflow's alias.

    Raises LedgerBroken with every problem found, WorkspaceError if the alias points elsewhere.
    """
    if problems := ledger.verify(workspace):
        raise ledger.LedgerBroken(" ".join(problems))
    with workspace.lock("release"):
        entries = releases.check_ledger(workspace)
        try:
            return VerifyResult(len(entries), releases.agreed_champion(releases.open_registry(workspace), entries))
        except ServiceUnavailable as error:
            return VerifyResult(
                len(entries), releases.last_champion(entries), f"Its champion was not compared: {error}"
            )


def _line(entry: ledger.Entry) -> str:
    return f"{entry.seq:>4}  {entry.at}  {printable(entry.actor)}  {entry.event}  {releases.described(entry)}"
