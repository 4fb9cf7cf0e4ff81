"""Where a version stands: the last that the gate or a person has said of it in the ledger, and what can be done next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from violence_ops.jsonable import Jsonable
from violence_ops.ledger import Entry
from violence_ops.stages.releasing import approval
from violence_ops.store import releases

_ANEW: Final = "run `violence-ops evaluate --force` and `violence-ops gate`"


@dataclass(frozen=True, slots=True)
class Standing(Jsonable):
    """What line `seq` of the ledger, written at `at` (UTC, ISO 8601) by the gate or a person, has made of a version; `why`, and what
    to do next, where there is something to say."""

    said: str
    by: str
    at: str
    seq: int
    why: str | None = None
    todo: str | None = None


def of(entries: list[Entry], version: str | None) -> Standing | None:
    """The standing of a version; None if the ledger says nothing of it."""
    named = [entry for entry in entries if version and _names(entry, version)]
    if not named or version is None:
        return None
    last = releases.taken_back(entries, version, since=named[-1].seq) or named[-1]
    said, why, todo = _in_words(last)
    return Standing(said, last.actor, last.at, last.seq, why, todo)


def _names(entry: Entry, version: str) -> bool:
    """Whether a line is a verdict or a decision on a version, or its release."""
    released = entry.event == "promotion" and entry.payload["phase"] == "done" and entry.payload["to"] == version
    return released or entry.payload.get("candidate") == version


def _in_words(entry: Entry) -> tuple[str, str | None, str | None]:
    """What a line says, why, and what to do next."""
    facts = entry.payload
    release = f"`violence-ops promote --report {facts.get('report')} --approve --by NAME`"
    match entry.event:
        case "verdict":
            return _verdict(entry)
        case "refusal" if entry.actor == approval.NOBODY:
            return "unanswered", facts["reason"], f"an approver may still release it: {release}"
        case "refusal":
            return f"refused by {entry.actor}", facts["reason"], f"to ask again: {_ANEW}"
        case "approval":
            return f"approved by {entry.actor}", None, f"to release it: {release}"
        case "rollback":
            return f"rolled back by {entry.actor}", facts.get("reason"), f"to release it again: {_ANEW}"
        case _:
            return f"released by {entry.actor}", None, None


def _verdict(entry: Entry) -> tuple[str, str | None, str | None]:
    facts, reasons = entry.payload, " ".join(entry.payload["reasons"])
    dry = " in a dry run" if facts["mode"] == "dry_run" else ""
    match facts["verdict"]:
        case "pass":
            return f"passed the gate{dry}", None, None
        case "refuse":
            return f"refused by the gate{dry}", reasons, None
        case _:
            more = "label clips of new source groups and run `violence-ops holdout freeze`, `evaluate` and `gate`"
            return f"undecided{dry}", reasons, None if "`" in reasons else f"more clips may decide: {more}"
