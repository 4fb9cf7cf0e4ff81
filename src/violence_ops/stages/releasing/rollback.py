"""Undoing a release: the previous champion comes back, attributed and with a reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from violence_ops import ledger
from violence_ops.errors import ServiceUnavailable, UsageError, UserError, WorkspaceError
from violence_ops.jsonable import Jsonable
from violence_ops.registry import Registry
from violence_ops.stages.releasing import notify
from violence_ops.store import releases
from violence_ops.who import explained, named
from violence_ops.workspace import Workspace

NONE: Final = "none"
"""Named as the version to go back to, it leaves no champion."""
_NO_CHAMPION: Final = "There is no champion, so there is nothing to roll back."
_WITHOUT: Final = "Without a champion, nights are sealed without verdicts until a candidate is released."


@dataclass(frozen=True, slots=True)
class RollbackResult(Jsonable):
    """`version` is the champion now (with dry_run: would be; None: there is none any more), `rolled_back` the one before;
    `passed_over` are later champions that cannot judge any more, each with the reason; `untold` is why a receiver was not told,
    if there is one and it was not."""

    version: str | None
    rolled_back: str
    by: str
    reason: str
    moved: bool
    dry_run: bool
    passed_over: dict[str, str] = field(default_factory=dict)
    untold: str | None = None

    def lines(self) -> list[str]:
        """What a person reads."""
        if not self.moved and not self.dry_run:
            return [f"Version {self.rolled_back} was rolled back to {self.version or 'none'} already: nothing moved."]
        would = "would be" if self.dry_run else "is"
        champion = (
            f"Version {self.version} {would} the champion again" if self.version else f"There {would} no champion"
        )
        return [
            f"{champion}; version {self.rolled_back} {would} rolled back.",
            *(f"Version {version} {would} passed over: {why}" for version, why in self.passed_over.items()),
            *([] if self.version else [_WITHOUT]),
            *([self.untold] if self.untold else []),
        ]


def run(
    workspace: Workspace,
    *,
    by: str | None,
    reason: str,
    expected_champion: str | None = None,
    to: str | None = None,
    run_id: str | None = None,
    dry_run: bool = False,
) -> RollbackResult:
    """Put back an earlier champion: `to`, or else the latest whose version is still in MLflow with the package that was released.
    With `to` "none" there is no champion afterwards.

    If MLflow has lost the present champion and all earlier ones, there is none afterwards. Only champions that were not rolled back
    count as earlier ones. With `expected_champion` a repeated call is a no-op once that version has been rolled back; without it, each
    call goes one release further back. `run_id` goes into the ledger, and a run that has rolled back once never does so again, whatever
    the champion is by then. A call after a crash in the middle finishes what was begun. Raises UsageError if `to` is no earlier
    champion; WorkspaceError if there is no champion to go back to, or the alias was moved by hand; ServiceUnavailable if MLflow cannot
    be reached; LedgerBroken if the ledger does not verify.
    """
    by = named(by)
    reason = explained(reason, "A rollback needs a reason: it is written to the ledger.")
    notify.receivers(workspace)  # refuses one that is set up wrongly before anything moves
    with workspace.lock("release"):
        registry = releases.open_registry(workspace)
        entries = releases.check_ledger(workspace)
        closed = None if dry_run else releases.recover(workspace, registry, entries)
        entries = [*entries, closed] if closed else entries
        present = _present(registry, entries)
        done = _of_run(entries, run_id) or _already(entries, closed, expected_champion, to)
        if done is None:
            version, passed_over = _step(workspace, registry, entries, present, expected_champion, to)
            leaving = present.version
            if not dry_run:
                facts: dict[str, Any] = {"reason": reason, "from": leaving}
                facts |= {"passed_over": passed_over} if passed_over else {}
                facts |= {"run_id": run_id} if run_id else {}
                releases.move(
                    workspace, registry, event="rollback", actor=by, to=version, expected=present.alias, facts=facts
                )
        else:
            version, leaving, passed_over = done.payload["to"], done.payload["from"], {}
    assert leaving
    return RollbackResult(
        version=version, rolled_back=leaving, by=by, reason=reason, moved=done is None and not dry_run, dry_run=dry_run,
        passed_over=passed_over, untold=None if dry_run else notify.run(workspace).problem,
    )  # fmt: skip


def live(workspace: Workspace) -> str:
    """The ledger's champion, read without waiting for a rollback that is under way. Raises WorkspaceError if there is none.

    The ledger's end is not looked at: `run` does it.
    """
    version = releases.last_champion(ledger.read(workspace))
    if version is None:
        raise WorkspaceError(_NO_CHAMPION)
    return version


def _of_run(entries: list[ledger.Entry], run_id: str | None) -> ledger.Entry | None:
    """The rollback that a run has done."""
    done = (entry for entry in entries if entry.event == "rollback" and entry.payload["phase"] == "done")
    return next((entry for entry in done if run_id and entry.payload.get("run_id") == run_id), None)


@dataclass(frozen=True, slots=True)
class _Present:
    """The champion, whether MLflow still has it, and where the alias points."""

    version: str | None
    is_there: bool
    alias: str | None


def _present(registry: Registry, entries: list[ledger.Entry]) -> _Present:
    try:
        version = releases.agreed_champion(registry, entries)
    except releases.ChampionGone as gone:
        return _Present(gone.version, False, registry.alias(releases.CHAMPION))
    return _Present(version, True, version)


def _already(
    entries: list[ledger.Entry], closed: ledger.Entry | None, expected: str | None, to: str | None
) -> ledger.Entry | None:
    """The rollback that this call would repeat: one just recovered, or the one of `expected` if nothing came after it."""
    last = releases.last_movement(entries)
    if last is None or last.event != "rollback" or last.payload["phase"] != "done":
        return None
    is_same = to in (None, last.payload["to"] or NONE) and (closed == last or last.payload["from"] == expected)
    return last if is_same else None


def _step(
    workspace: Workspace,
    registry: Registry,
    entries: list[ledger.Entry],
    present: _Present,
    expected: str | None,
    to: str | None,
) -> tuple[str | None, dict[str, str]]:
    """The version to go back to (None: none is wanted or left), and the later ones that cannot judge any more, each with the reason."""
    released = ledger.champions(entries)
    if not released:
        raise WorkspaceError(_NO_CHAMPION)
    if expected is not None and expected != present.version:
        raise WorkspaceError(f"The champion is version {present.version}, not {expected}: nothing was rolled back.")
    if to == NONE:
        return None, {}
    earlier = [version for version in dict.fromkeys(reversed(released)) if version != present.version]
    if to is not None:
        earlier = [_chosen(to, earlier)]
    elif not earlier and present.is_there:
        raise WorkspaceError(
            f"Version {present.version} is the first champion, so there is none to go back to: roll back to {NONE!r} "
            f"(`violence-ops rollback --to {NONE} --by NAME --reason …`) to have no champion until another candidate is released."
        )
    faults: dict[str, str] = {}
    for version in earlier:
        fault = _fault(workspace, registry, entries, version)
        if fault is None:
            return version, faults
        faults[version] = fault
    if present.is_there or to is not None:
        raise WorkspaceError(f"Nothing was rolled back: {' '.join(faults.values())}")
    return None, faults


def _chosen(to: str, earlier: list[str]) -> str:
    if to not in earlier:
        raise UsageError(
            f"Version {to} is none of the earlier champions that a rollback can go to ({', '.join(earlier) or 'none'}): one that was "
            "rolled back, or never was champion, is released by `violence-ops evaluate --force`, `gate` and `promote`."
        )
    return to


def _fault(workspace: Workspace, registry: Registry, entries: list[ledger.Entry], version: str) -> str | None:
    """Why a version cannot judge; None if MLflow has it with the package that was released."""
    try:
        registry.version(version)
        registry.download(version, workspace.model_package(version), releases.released_package(entries, version))
    except ServiceUnavailable:
        raise
    except UserError as error:
        return str(error)
    return None
