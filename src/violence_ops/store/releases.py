"""Moving the alias `champion`: the ledger first, then the alias, then the outcome; and what a crash between them needs.

A movement is a ledger line of event `promotion` or `rollback` whose payload has `phase`: `intent`, then `done` or `abandoned`.
The caller of everything here but the readers holds the workspace's lock `release`. Who holds it asks `check_ledger` once and passes
the entries on, since nobody else writes to the ledger then.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from violence_ops import git, git_history, ledger
from violence_ops.errors import WorkspaceError
from violence_ops.registry import Registry
from violence_ops.wording import printable
from violence_ops.workspace import Workspace

CHAMPION: Final = "champion"
CANDIDATE: Final = "candidate"
SHADOW: Final = "shadow"
REPORT_TAG: Final = "report"
"""Tag of a version: its newest evaluation."""
MOVEMENTS: Final = ("promotion", "rollback")
DECISIONS: Final = ("approval", "refusal")


class ChampionGone(WorkspaceError):
    """MLflow has lost the version that the ledger says is champion: somebody deleted it, or it is not in a backup."""

    def __init__(self, version: str) -> None:
        super().__init__(
            f"Version {version}, the ledger's champion, is no more in MLflow, where somebody deleted it: bring MLflow's database back from "
            "a backup, or let `violence-ops rollback --by NAME --reason …` go to the latest earlier champion that is still there."
        )
        self.version = version

    def __reduce__(self) -> tuple[type[ChampionGone], tuple[str]]:
        return type(self), (self.version,)


def open_registry(workspace: Workspace) -> Registry:
    """The registry of this workspace."""
    return Registry(workspace.mlflow_uri, workspace.mlflow_artifacts)


def check_ledger(workspace: Workspace) -> list[ledger.Entry]:
    """The ledger's entries; the caller holds the workspace's lock `release`.

    Raises LedgerBroken if the chain does not hold, lines at the end that git has are gone or are on another branch, or lines are there
    that git has not. Only the line that was written last may be missing from git, if a crash came between: it is committed with the
    next one.
    """
    entries = ledger.read(workspace)
    name = workspace.ledger.relative_to(workspace.root)
    if commit := git_history.lost_content(workspace, workspace.ledger):
        raise ledger.LedgerBroken(
            f"{name} ends before lines that were committed, so some were cut off: put them back with `git checkout {commit} -- {name}`. If "
            "a merge left them out, go back to before it instead (`git reset --keep COMMIT`), because two ledgers cannot be joined."
        )
    if elsewhere := git_history.goes_on_elsewhere(workspace, workspace.ledger):
        raise ledger.LedgerBroken(f"The ledger is not whole: {elsewhere}")
    known = len(git.committed(workspace, workspace.ledger).splitlines())
    for entry in entries[known:]:
        if not ledger.was_last_written(workspace, entry):
            raise ledger.LedgerBroken(
                f"{name} line {entry.seq} ({entry.event} by {printable(entry.actor)}) is not committed, and it is not known who wrote it: take it "
                f"out with `git checkout -- {name}`, or commit the file in your name if the line is true."
            )
    return entries


def entries(workspace: Workspace) -> list[ledger.Entry]:
    """The same for who does not hold the lock: a release that is under way is waited for."""
    with workspace.lock("release"):
        return check_ledger(workspace)


def record(workspace: Workspace, *, actor: str, event: ledger.Event, payload: dict[str, Any]) -> ledger.Entry:
    """Write a line to the ledger and commit it, before anything follows from it. The caller has asked `check_ledger`.

    Raises WorkspaceError, writing nothing, if git is on no branch.
    """
    with git.writing(workspace) as commit:
        entry = ledger.append(workspace, actor=actor, event=event, payload=payload)
        commit([workspace.ledger], f"Ledger: {event} by {printable(actor)}, {described(entry)}")
    return entry


def described(entry: ledger.Entry) -> str:
    """What a line says, in words; a reason that holds line ends or a terminal's commands cannot look like further lines."""
    return printable(_in_words(entry))


def _in_words(entry: ledger.Entry) -> str:
    facts = entry.payload
    match entry.event:
        case "verdict":
            return f"{facts['verdict']} ({facts['mode']}) on {facts['report']}"
        case "approval" | "refusal":
            return f"{facts['report']} {facts.get('reason', '')}".rstrip()
        case "reinstatement":
            return f"alias put back from {facts['from'] or 'none'} to {facts['to'] or 'none'}"
        case _:
            reason = f": {facts['reason']}" if "reason" in facts else ""
            return f"champion {facts['from'] or 'none'} to {facts['to'] or 'none'}, {facts['phase']}{reason}"


def last_champion(entries: list[ledger.Entry]) -> str | None:
    """The ledger's champion; None if nothing was released."""
    released = ledger.champions(entries)
    return released[-1] if released else None


def champion(workspace: Workspace) -> str | None:
    """The version that judges; None if nothing was released. A release that is under way is waited for.

    Raises WorkspaceError if MLflow's alias is not where the ledger's last movement left it (ChampionGone if the version is not there
    any more), LedgerBroken if the ledger does not verify, ServiceUnavailable if MLflow cannot be reached.
    """
    with workspace.lock("release"):
        return agreed_champion(open_registry(workspace), check_ledger(workspace))


def agreed_champion(registry: Registry, entries: list[ledger.Entry]) -> str | None:
    """The same for who holds the lock and has the ledger's `entries`. Where a crash left a movement open, the alias may be before or
    after it."""
    found, released, last = registry.alias(CHAMPION), last_champion(entries), last_movement(entries)
    half_done = last is not None and last.payload["phase"] == "intent" and found == last.payload["to"]
    if found != released and not half_done:
        check_there(registry, released)
        raise WorkspaceError(
            f"MLflow's alias champion points to version {found or 'none'} but the ledger's champion is {released or 'none'}: somebody "
            "moved the alias by hand; `violence-ops ledger reinstate --by NAME` puts it back."
        )
    return found


def check_there(registry: Registry, champion: str | None) -> None:
    """Raise ChampionGone if MLflow has not the ledger's champion any more."""
    if champion is not None and registry.find(champion) is None:
        raise ChampionGone(champion)


def awaiting(entries: list[ledger.Entry]) -> list[ledger.Entry]:
    """The verdicts that wait for a person's answer, oldest first: of each report the last, if it passed against the present
    champion, and not in a dry run, and nobody has decided on that evaluation."""
    decided = {entry.payload.get("digest") for entry in entries if entry.event in DECISIONS}
    last = {entry.payload["report"]: entry for entry in entries if entry.event == "verdict"}
    champion = last_champion(entries)

    def waits(facts: dict[str, Any]) -> bool:
        passed = facts["verdict"] == "pass" and facts["mode"] != "dry_run"
        return passed and facts["digest"] not in decided and facts.get("champion") == champion

    return sorted((one for one in last.values() if waits(one.payload)), key=lambda entry: entry.seq)


def released_package(entries: list[ledger.Entry], version: str) -> str | None:
    """The SHA-256 of a version's package when it was released last; None if it never was, or before November 2026."""
    done = [e.payload for e in entries if e.event == "promotion" and e.payload["phase"] == "done"]
    return next((facts.get("package") for facts in reversed(done) if facts["to"] == version), None)


def taken_back(entries: list[ledger.Entry], version: str, since: int) -> ledger.Entry | None:
    """The first rollback after line `since` that took a version back, perhaps together with a later one; None if none did."""
    released: list[str] = []
    for entry in entries:
        left = ledger.after(released, entry)
        if entry.seq > since and entry.event == "rollback" and version in released[len(left) :]:
            return entry
        released = left
    return None


def last_movement(entries: list[ledger.Entry]) -> ledger.Entry | None:
    """The last promotion or rollback line, whatever its phase."""
    return next((entry for entry in reversed(entries) if entry.event in MOVEMENTS), None)


def recover(workspace: Workspace, registry: Registry, entries: list[ledger.Entry]) -> ledger.Entry | None:
    """Close a movement that a crash left as an intent, the last of the ledger's `entries`: `done` if the alias had been moved, else
    `abandoned`.

    Returns the line it wrote, or None if nothing was open. A line that a crash kept from git is committed.
    """
    git.commit(workspace, [workspace.ledger], "Ledger: a line that was not committed")
    found = last_movement(entries)
    if found is None or found.payload["phase"] != "intent":
        return None
    moved = registry.alias(CHAMPION) == found.payload["to"]
    payload = found.payload | {"phase": "done" if moved else "abandoned"}
    return record(workspace, actor=found.actor, event=found.event, payload=payload)


def move(
    workspace: Workspace,
    registry: Registry,
    *,
    event: Literal["promotion", "rollback"],
    actor: str,
    to: str | None,
    expected: str | None,
    facts: dict[str, Any],
) -> ledger.Entry:
    """Point `champion` from `expected` to `to`, with a ledger line before and one after. Returns the last line.

    The line says `from` that champion, unless `facts` name another that MLflow has lost.
    Raises WorkspaceError, leaving the alias and an abandoned intent, if `champion` is not `expected` any more.
    """
    payload = {"from": expected, "to": to} | facts
    intent = record(workspace, actor=actor, event=event, payload=payload | {"phase": "intent"})
    try:
        registry.set_alias(CHAMPION, to, expected)
    finally:
        closed = recover(workspace, registry, [intent])
    assert closed
    return closed
