"""Undoing a release: the previous champion comes back, attributed and with a reason; and reading the ledger."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from violence_ops import ledger
from violence_ops.errors import ServiceUnavailable, WorkspaceError
from violence_ops.params import Params
from violence_ops.stages import notify, releases
from violence_ops.stages.inbox import printable
from violence_ops.stages.who import explained, named
from violence_ops.workspace import Workspace


@dataclass(frozen=True, slots=True)
class RollbackResult:
    """`version` is the champion now (with dry_run: would be), `rolled_back` the one before; `untold` is why a receiver was
    not told, if there is one and it was not."""

    version: str
    rolled_back: str
    by: str
    reason: str
    moved: bool
    dry_run: bool
    untold: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-able values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """What a person reads."""
        if not self.moved and not self.dry_run:
            return [f"Version {self.rolled_back} was rolled back to {self.version} already: nothing moved."]
        would = "would be" if self.dry_run else "is"
        told = [self.untold] if self.untold else []
        return [
            f"Version {self.version} {would} the champion again; version {self.rolled_back} {would} rolled back.",
            *told,
        ]


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
class VerifyResult:
    """How many lines hold, and the champion; `unasked` is why MLflow could not be asked for its own, if it could not."""

    entries: int
    champion: str | None
    unasked: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-able values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """What a person reads."""
        held = f"The ledger holds: {self.entries} lines, each bound to the one before and in git."
        return [held, self.unasked or f"MLflow has the same champion: {self.champion or 'none'}."]


def run(
    workspace: Workspace,
    params: Params,
    *,
    by: str | None,
    reason: str,
    expected_champion: str | None = None,
    run_id: str | None = None,
    dry_run: bool = False,
) -> RollbackResult:
    """Put back the champion that was live before the present one was promoted, as the ledger tells it.

    With `expected_champion` a repeated call is a no-op once that version has been rolled back; without it, each call goes one
    release further back. `run_id` goes into the ledger, and a run that has rolled back once never does so again, whatever the champion
    is by then. A call after a crash in the middle finishes what was begun. Raises WorkspaceError if there is no
    earlier champion, or the registry's champion is not the ledger's; LedgerBroken if the ledger does not verify.
    """
    by = named(by)
    reason = explained(reason, "A rollback needs a reason: it is written to the ledger.")
    notify.receivers(workspace)  # refuses one that is set up wrongly before anything moves
    with workspace.lock("release"):
        registry = releases.open_registry(workspace)
        releases.check_ledger(workspace)
        closed = None if dry_run else releases.recover(workspace, registry)
        entries, current = ledger.read(workspace), releases.agreed_champion(workspace, registry)
        done = _of_run(entries, run_id) or _already(entries, closed, expected_champion)
        if done is None:
            version, present = _step(entries, current, expected_champion)
            registry.version(version)
            if not dry_run:
                facts = {"reason": reason} | ({"run_id": run_id} if run_id else {})
                releases.move(
                    workspace, registry, event="rollback", actor=by, to=version, expected=present, facts=facts
                )
        else:
            version, present = done.payload["to"], done.payload["from"]
    return RollbackResult(
        version=version, rolled_back=present, by=by, reason=reason, moved=done is None and not dry_run, dry_run=dry_run,
        untold=None if dry_run else notify.run(workspace).problem,
    )  # fmt: skip


def live(workspace: Workspace, params: Params) -> str:
    """The ledger's champion, read without waiting for a rollback that is under way. Raises WorkspaceError if there is none.

    The ledger's end is not looked at: `run` does it.
    """
    version = releases.last_champion(ledger.read(workspace))
    if version is None:
        raise WorkspaceError("Nothing was released yet, so there is nothing to roll back.")
    return version


def history(workspace: Workspace) -> LedgerResult:
    """Every line of the ledger. Raises LedgerBroken if it does not verify."""
    return LedgerResult(releases.entries(workspace))


def verify_ledger(workspace: Workspace) -> VerifyResult:
    """Check the hash chain, its end against git, and its champion against MLflow's alias.

    Raises LedgerBroken with every problem found, WorkspaceError if the alias points elsewhere.
    """
    if problems := ledger.verify(workspace):
        raise ledger.LedgerBroken(" ".join(problems))
    entries = releases.entries(workspace)
    try:
        return VerifyResult(len(entries), releases.champion(workspace))
    except ServiceUnavailable as error:
        return VerifyResult(len(entries), releases.last_champion(entries), f"Its champion was not compared: {error}")


def _of_run(entries: list[ledger.Entry], run_id: str | None) -> ledger.Entry | None:
    """The rollback that a run has done."""
    done = (entry for entry in entries if entry.event == "rollback" and entry.payload["phase"] == "done")
    return next((entry for entry in done if run_id and entry.payload.get("run_id") == run_id), None)


def _already(entries: list[ledger.Entry], closed: ledger.Entry | None, expected: str | None) -> ledger.Entry | None:
    """The rollback that this call would repeat: one just recovered, or the one of `expected` if nothing came after it."""
    last = releases.last_movement(entries)
    if last is None or last.event != "rollback" or last.payload["phase"] != "done":
        return None
    return last if closed == last or last.payload["from"] == expected else None


def _step(entries: list[ledger.Entry], current: str | None, expected: str | None) -> tuple[str, str]:
    """The version to go back to, and the one to leave."""
    stack = releases.champions(entries)
    if not stack:
        raise WorkspaceError("Nothing was released yet, so there is nothing to roll back.")
    if expected is not None and expected != current:
        raise WorkspaceError(f"The champion is version {current}, not {expected}: nothing was rolled back.")
    if len(stack) < 2:
        raise WorkspaceError(f"Version {current} is the first champion, so there is none to go back to.")
    return stack[-2], stack[-1]


def _line(entry: ledger.Entry) -> str:
    return f"{entry.seq:>4}  {entry.at}  {printable(entry.actor)}  {entry.event}  {releases.described(entry)}"
