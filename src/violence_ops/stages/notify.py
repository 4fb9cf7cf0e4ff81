"""Tell the release webhook of every change of champion. The ledger is the list of what is to be told: nothing is forgotten by a
crash or a receiver that is down, and what was told is not told again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from violence_ops import ledger
from violence_ops.errors import ServiceUnavailable
from violence_ops.files import write_json
from violence_ops.registry import MODEL
from violence_ops.stages import releases
from violence_ops.webhook import Webhook
from violence_ops.workspace import Workspace


@dataclass(frozen=True, slots=True)
class NotifyResult:
    """The ledger lines that the receiver has taken now; `problem` is why it did not take the rest."""

    told: tuple[int, ...] = ()
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-able values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """What a person reads."""
        lines = [f"The webhook was told of line {seq} of the ledger." for seq in self.told]
        return lines + ([self.problem] if self.problem else []) or [
            "There is nothing that the webhook was not told yet."
        ]


def webhook(workspace: Workspace) -> Webhook | None:
    """The webhook of this deployment, None if it has none. Raises UsageError if it is set up wrongly."""
    deployment = workspace.deployment
    return Webhook(deployment.webhook_url, deployment.webhook_secret or "") if deployment.webhook_url else None


def run(workspace: Workspace) -> NotifyResult:
    """Deliver what the receiver has not taken yet, oldest first, up to the first that it does not take.

    The first time, only the newest change. Raises nothing for a receiver that is down: a release holds without it.
    """
    receiver = webhook(workspace)
    if receiver is None:
        return NotifyResult()
    told: list[int] = []
    with workspace.lock("webhook"):
        changes = [entry for entry in ledger.read(workspace) if _is_change(entry)]
        for entry in _untold(workspace, changes):
            try:
                receiver.deliver(entry.hash, _content(entry))
            except ServiceUnavailable as error:
                return NotifyResult(tuple(told), str(error))
            told.append(entry.seq)
            write_json(workspace.webhook_progress, {"told": entry.seq})
    return NotifyResult(tuple(told))


def _is_change(entry: ledger.Entry) -> bool:
    return entry.event in releases.MOVEMENTS and entry.payload["phase"] == "done"


def _untold(workspace: Workspace, changes: list[ledger.Entry]) -> list[ledger.Entry]:
    last = workspace.webhook_told
    if last is None and changes:
        # a webhook that is new is not told of the past, but a first delivery that fails is not lost either
        last = changes[-1].seq - 1
        write_json(workspace.webhook_progress, {"told": last})
    return [entry for entry in changes if entry.seq > (last or 0)]


def _content(entry: ledger.Entry) -> dict[str, Any]:
    facts = {key: value for key, value in entry.payload.items() if key != "phase"}
    return {"model": MODEL, "alias": releases.CHAMPION, "event": entry.event, "at": entry.at, "by": entry.actor,
            "seq": entry.seq, **facts}  # fmt: skip
