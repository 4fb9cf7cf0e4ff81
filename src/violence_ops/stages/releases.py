"""Moving the alias `champion`: the ledger first, then the alias, then the outcome; and what a crash between them needs.

A movement is a ledger line of event `promotion` or `rollback` whose payload has `phase`: `intent`, then `done` or `abandoned`.
The caller of everything here but the readers holds the workspace's lock `release`.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from violence_ops import ledger, versioning
from violence_ops.registry import Registry
from violence_ops.workspace import Workspace

CHAMPION: Final = "champion"
REPORT_TAG: Final = "report"
"""Tag of a version: its newest evaluation."""
MOVEMENTS: Final = ("promotion", "rollback")


def open_registry(workspace: Workspace) -> Registry:
    """The registry of this workspace."""
    return Registry(workspace.mlflow_uri, workspace.mlflow_artifacts)


def check_ledger(workspace: Workspace) -> list[ledger.Entry]:
    """The ledger's entries. Raises LedgerBroken if the chain does not hold, or lines at the end that git has are gone."""
    entries = ledger.read(workspace)
    if commit := versioning.lost_content(workspace, workspace.ledger):
        name = workspace.ledger.relative_to(workspace.root)
        raise ledger.LedgerBroken(
            f"{name} ends before lines that were committed, so some were cut off: put them back with `git checkout {commit} -- {name}`."
        )
    return entries


def champions(entries: list[ledger.Entry]) -> list[str]:
    """The champions that are not rolled back, oldest first; the last one is live."""
    stack: list[str] = []
    for entry in entries:
        if entry.payload.get("phase") != "done":
            continue
        if entry.event == "promotion":
            stack.append(entry.payload["to"])
        elif entry.event == "rollback":
            stack.pop()
    return stack


def was_rolled_back(entries: list[ledger.Entry], version: str, since: int) -> bool:
    """Whether a version was taken back after line `since`."""
    return any(
        entry.seq > since and entry.event == "rollback" and entry.payload["phase"] == "done" and entry.payload["from"] == version
        for entry in entries
    )  # fmt: skip


def last_movement(entries: list[ledger.Entry]) -> ledger.Entry | None:
    """The last promotion or rollback line, whatever its phase."""
    return next((entry for entry in reversed(entries) if entry.event in MOVEMENTS), None)


def recover(workspace: Workspace, registry: Registry) -> ledger.Entry | None:
    """Close a movement that a crash left as an intent: `done` if the alias had been moved, else `abandoned`.

    Returns the line it wrote, or None if nothing was open.
    """
    found = last_movement(ledger.read(workspace))
    if found is None or found.payload["phase"] != "intent":
        return None
    moved = registry.alias(CHAMPION) == found.payload["to"]
    payload = found.payload | {"phase": "done" if moved else "abandoned"}
    return ledger.append(workspace, actor=found.actor, event=found.event, payload=payload)


def move(
    workspace: Workspace,
    registry: Registry,
    *,
    event: Literal["promotion", "rollback"],
    actor: str,
    to: str,
    expected: str | None,
    facts: dict[str, Any],
) -> ledger.Entry:
    """Point `champion` from `expected` to `to`, with a ledger line before and one after. Returns the last line.

    Raises WorkspaceError, leaving the alias and an abandoned intent, if `champion` is not `expected` any more.
    """
    payload = facts | {"from": expected, "to": to}
    ledger.append(workspace, actor=actor, event=event, payload=payload | {"phase": "intent"})
    try:
        registry.set_alias(CHAMPION, to, expected)
    finally:
        closed = recover(workspace, registry)
    assert closed
    return closed


def commit(workspace: Workspace, message: str) -> None:
    """Commit the ledger to the workspace's git; a no-op if it is there already."""
    versioning.git_commit(workspace, [workspace.ledger], message)
