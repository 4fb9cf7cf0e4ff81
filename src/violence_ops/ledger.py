"""The ledger of releases: append-only JSON lines, each bound to the one before by its hash.

A line is `{"seq", "at", "actor", "event", "payload", "prev_hash", "hash"}`; `hash` is the SHA-256 of the line's canonical JSON
without it. A changed, moved or missing line breaks the chain. What the chain alone cannot show, a cut-off tail or a line that
somebody wrote with a right hash, git shows: every line is committed as soon as it is written (`releases.record`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from violence_ops.errors import UserError
from violence_ops.files import sync_folder, write_text
from violence_ops.jsonable import Jsonable
from violence_ops.workspace import Workspace

Event = Literal["verdict", "approval", "refusal", "promotion", "rollback", "reinstatement"]

GENESIS: Final = "0" * 64
_MOVED: Final = frozenset({"from", "to", "phase"})
_NEEDED: Final[dict[Event, frozenset[str]]] = {
    "verdict": frozenset({"report", "digest", "candidate", "verdict", "mode", "reasons"}),
    "approval": frozenset({"report"}),
    "refusal": frozenset({"report", "reason"}),
    "promotion": _MOVED,
    "rollback": _MOVED,
    "reinstatement": frozenset({"from", "to"}),
}
"""What the payload of each event says at least."""


class LedgerBroken(UserError):
    """A line of the ledger is not what was written; nothing may be released until it is mended."""


@dataclass(frozen=True, slots=True)
class Entry(Jsonable):
    """One line. seq counts from 1; at is UTC, ISO 8601; actor is who caused it."""

    seq: int
    at: str
    actor: str
    event: Event
    payload: dict[str, Any]
    prev_hash: str
    hash: str


def read(workspace: Workspace) -> list[Entry]:
    """All entries, oldest first. Raises LedgerBroken, naming the line and the remedy, if the chain does not hold."""
    entries, problems = _parse(workspace)
    if problems:
        raise LedgerBroken(problems[0])
    return entries


def verify(workspace: Workspace) -> list[str]:
    """What is wrong with the ledger, a sentence each; empty if the chain holds."""
    return _parse(workspace)[1]


def champions(entries: Iterable[Entry]) -> list[str]:
    """The champions that are not rolled back, oldest first; the last one is live."""
    released: list[str] = []
    for entry in entries:
        released = after(released, entry)
    return released


def after(released: list[str], entry: Entry) -> list[str]:
    """The champions that are not rolled back after one more line. A rollback takes back all that came after the version it led to."""
    if entry.payload.get("phase") != "done":
        return released
    if entry.event == "promotion":
        return [*released, entry.payload["to"]]
    left = released[:-1] if entry.event == "rollback" else released
    while entry.event == "rollback" and left and left[-1] != entry.payload["to"]:
        left.pop()
    return left


def append(workspace: Workspace, *, actor: str, event: Event, payload: dict[str, Any]) -> Entry:
    """Write one line and sync it to the disk before returning.

    Raises LedgerBroken, writing nothing, if the lines before it do not hold.
    """
    with workspace.lock("ledger"):
        entries = read(workspace)
        body: dict[str, Any] = {
            "seq": len(entries) + 1,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "actor": actor,
            "event": event,
            "payload": payload,
            "prev_hash": entries[-1].hash if entries else GENESIS,
        }
        line = body | {"hash": _hash(body)}
        path = workspace.ledger
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(workspace.ledger_pending, line["hash"])
        _write_line(path, canonical(line) + b"\n")
        sync_folder(path.parent)
    return Entry(**line)


def was_last_written(workspace: Workspace, entry: Entry) -> bool:
    """Whether `append` wrote this line, and none after it: what a crash keeps from git may be such a line and no other."""
    pending = workspace.ledger_pending
    return pending.is_file() and pending.read_text("utf-8") == entry.hash


def _write_line(path: Path, line: bytes) -> None:
    """Append a line and sync it, or leave the file as it was: half a line would stop every release."""
    with path.open("ab", buffering=0) as handle:
        end = handle.tell()
        try:
            if handle.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(handle.fileno())
        except OSError:
            handle.truncate(end)
            os.fsync(handle.fileno())
            raise


def _parse(workspace: Workspace) -> tuple[list[Entry], list[str]]:
    path = workspace.ledger
    content = path.read_bytes() if path.is_file() else b""
    name = path.relative_to(workspace.root)
    *lines, rest = content.split(b"\n")
    entries: list[Entry] = []
    problems: list[str] = []
    for number, line in enumerate(lines, start=1):
        entry = _entry(line)
        problem = "is no ledger entry" if entry is None else _mismatch(entry, number, entries)
        if problem:
            problems.append(
                f"{name} line {number} {problem}: restore the file from git (`git log -p {name}` shows who changed it)."
            )
        if entry:
            entries.append(entry)
    if rest:
        number = len(lines) + 1
        problems.append(
            f"{name} line {number} is cut off, as a crash while writing leaves it: delete that last line, it was never "
            "acted upon, then run the command again."
        )
    return entries, problems


def _entry(line: bytes) -> Entry | None:
    """The entry of a line; None if it is none, says too little of its event, or holds what cannot be written."""
    try:
        entry = Entry(**json.loads(line))
        canonical(entry.to_dict())
        return entry if entry.payload.keys() >= _NEEDED[entry.event] else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _mismatch(entry: Entry, number: int, before: list[Entry]) -> str | None:
    """What keeps an entry from being line `number` after those `before` it, as a predicate; None if nothing does."""
    body = entry.to_dict()
    if body.pop("hash") != _hash(body):
        return "was changed after it was written (its hash does not match)"
    if entry.seq != number:
        return f"has the number {entry.seq}, so a line was removed or added before it"
    if entry.prev_hash != (before[-1].hash if before else GENESIS):
        return "does not continue the line before it (prev_hash differs)"
    if entry.event == "rollback" and not _can_go_back(champions(before), entry.payload["to"]):
        return "rolls back although no earlier champion was there to go back to"
    return None


def _can_go_back(released: list[str], to: str | None) -> bool:
    """Whether a rollback can have led to a version: to an earlier champion, or to none, if not one is left in MLflow."""
    return bool(released) and (to is None or to in released[:-1])


def _hash(body: dict[str, Any]) -> str:
    return hashlib.sha256(canonical(body)).hexdigest()


def canonical(content: dict[str, Any]) -> bytes:
    """The one way to write a mapping as a line of JSON, without the line's end."""
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
