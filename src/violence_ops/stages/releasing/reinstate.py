"""Putting MLflow's alias `champion` back to the ledger's champion, after somebody has moved it by hand. It releases nothing."""

from __future__ import annotations

from dataclasses import dataclass

from violence_ops.jsonable import Jsonable
from violence_ops.store import releases
from violence_ops.who import named
from violence_ops.workspace import Workspace


@dataclass(frozen=True, slots=True)
class ReinstateResult(Jsonable):
    """`version` is the ledger's champion, `found` what the alias pointed to; None is no version."""

    version: str | None
    found: str | None

    def lines(self) -> list[str]:
        """What a person reads."""
        if self.found == self.version:
            return [f"The ledger and MLflow have the same champion, {_named(self.version)}: nothing to put back."]
        return [f"MLflow's alias champion points to {_named(self.version)} again, no more to {_named(self.found)}."]


def run(workspace: Workspace, *, by: str | None) -> ReinstateResult:
    """Point the alias to the ledger's champion, with a line of the ledger before. A no-op if it does.

    Raises UsageError without a name, ChampionGone, writing nothing, if MLflow has lost that version, LedgerBroken if the ledger does
    not verify, ServiceUnavailable if MLflow cannot be reached.
    """
    by = named(by)
    with workspace.lock("release"):
        registry = releases.open_registry(workspace)
        entries = releases.check_ledger(workspace)
        closed = releases.recover(workspace, registry, entries)
        version = releases.last_champion([*entries, closed] if closed else entries)
        found = registry.alias(releases.CHAMPION)
        if found != version:
            releases.check_there(registry, version)
            releases.record(workspace, actor=by, event="reinstatement", payload={"from": found, "to": version})
            registry.set_alias(releases.CHAMPION, version, found)
    return ReinstateResult(version, found)


def _named(version: str | None) -> str:
    return f"version {version}" if version else "no version"
