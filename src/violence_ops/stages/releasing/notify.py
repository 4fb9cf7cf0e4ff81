"""Tell other systems, by the release webhook or a command hook, of every change of champion. The ledger is the list of what is to be
told: nothing is forgotten by a crash or a receiver that is down, and what was told is not told again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from typing_extensions import TypedDict

from violence_ops import ledger
from violence_ops.errors import ServiceUnavailable
from violence_ops.files import read_json, write_json
from violence_ops.hook import Hook
from violence_ops.registry import MODEL
from violence_ops.store import releases
from violence_ops.webhook import Webhook
from violence_ops.workspace import Workspace


class _Told(TypedDict):
    told: int
    problem: str | None


class Receiver(Protocol):
    """Who is told. `name` is unique among the receivers of a workspace."""

    @property
    def name(self) -> str: ...

    def deliver(self, delivery: str, body: bytes) -> None:
        """Hand over one change, a line of JSON; `delivery` names it, the same in every try.

        Raises ServiceUnavailable, a sentence without secrets, if the receiver did not take it.
        """


@dataclass(frozen=True, slots=True)
class NotifyResult:
    """The ledger lines that each receiver has taken now; `problem` is why one did not take the rest."""

    told: dict[str, list[int]] = field(default_factory=dict)
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-able values."""
        return {"told": self.told, "problem": self.problem}

    def lines(self) -> list[str]:
        """What a person reads."""
        if not self.told:
            return ["Nobody is notified: neither VIOLENCE_OPS_WEBHOOK_URL nor VIOLENCE_OPS_HOOK_COMMAND is set."]
        return [
            f"The {name} was told of {'nothing' if not seqs else 'line ' + ', '.join(map(str, seqs)) + ' of the ledger'}."
            for name, seqs in self.told.items()
        ]


def receivers(workspace: Workspace) -> list[Receiver]:
    """The receivers of this deployment. Raises UsageError if one is set up wrongly."""
    deployment = workspace.deployment
    found: list[Receiver] = []
    if deployment.webhook_url:
        found.append(Webhook(deployment.webhook_url, deployment.webhook_secret or ""))
    if deployment.hook_command:
        found.append(Hook.parse(deployment.hook_command, workspace.services / "hook.log"))
    return found


def run(workspace: Workspace) -> NotifyResult:
    """Deliver to each receiver what it has not taken yet, oldest first, up to the first that it does not take.

    The first time, only the newest change. Raises nothing for a receiver that is down, or if it cannot be written down what one
    has taken: a release holds without it.
    """
    told: dict[str, list[int]] = {}
    problems: list[str] = []
    for receiver in receivers(workspace):
        told[receiver.name] = []
        try:
            with workspace.lock(f"told-{receiver.name}"):
                _tell(workspace, receiver, told[receiver.name])
        except ServiceUnavailable as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(
                f"What the {receiver.name} was told cannot be written down ({error.strerror}): make room or get the right to write to "
                f"{workspace.told(receiver.name)}, then run `violence-ops ledger notify`."
            )
    return NotifyResult(told, " ".join(problems) or None)


def _tell(workspace: Workspace, receiver: Receiver, told: list[int]) -> None:
    """Deliver what a receiver has not taken; `told` gets the ledger lines that it takes. The caller holds its lock."""
    changes, last = _untold(workspace, receiver)
    if changes:
        _remember(workspace, receiver, last)
    try:
        for entry in changes:
            receiver.deliver(entry.hash, _body(entry))
            last = entry.seq
            told.append(last)
            _remember(workspace, receiver, last)
    except ServiceUnavailable as error:
        _remember(workspace, receiver, last, str(error))
        raise


def state(workspace: Workspace) -> dict[str, str]:
    """Of each receiver, whether it was told of everything, and if not, why. Raises UsageError if one is set up wrongly."""
    found = {}
    for receiver in receivers(workspace):
        changes, _ = _untold(workspace, receiver)
        problem = _remembered(workspace, receiver).get("problem") or "run `violence-ops ledger notify`."
        found[receiver.name] = f"{len(changes)} not told: {problem}" if changes else "told of everything"
    return found


def _untold(workspace: Workspace, receiver: Receiver) -> tuple[list[ledger.Entry], int]:
    """The changes that a receiver has not taken, and the last line before them."""
    changes = [entry for entry in releases.entries(workspace) if _is_change(entry)]
    last = _remembered(workspace, receiver).get("told")
    if last is None:
        # one that is new is not told of the past, but a first delivery that fails is not lost either
        last = changes[-1].seq - 1 if changes else 0
    return [entry for entry in changes if entry.seq > last], last


def _is_change(entry: ledger.Entry) -> bool:
    return entry.event in releases.MOVEMENTS and entry.payload["phase"] == "done"


def _remembered(workspace: Workspace, receiver: Receiver) -> dict[str, Any]:
    path = workspace.told(receiver.name)
    return read_json(path, "remove it; the newest change is told again then", _Told) if path.is_file() else {}


def _remember(workspace: Workspace, receiver: Receiver, last: int, problem: str | None = None) -> None:
    write_json(workspace.told(receiver.name), {"told": last, "problem": problem})


def _body(entry: ledger.Entry) -> bytes:
    facts = {key: value for key, value in entry.payload.items() if key != "phase"}
    about = {"model": MODEL, "alias": releases.CHAMPION, "event": entry.event, "at": entry.at, "by": entry.actor,
             "seq": entry.seq}  # fmt: skip
    return ledger.canonical(about | facts)
