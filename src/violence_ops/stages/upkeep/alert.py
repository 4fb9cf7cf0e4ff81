"""Tell operators, by a webhook or a command hook of its own, that a task of Airflow failed for good, or a whole run, or that a night is
late: once, and at no risk to Airflow."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from violence_ops.deployment import FAILURE, without_password
from violence_ops.errors import ServiceUnavailable
from violence_ops.hook import Hook
from violence_ops.stages.releasing.notify import Receiver
from violence_ops.webhook import Webhook
from violence_ops.workspace import Workspace

HOOK_TIMEOUT_S: Final = 15.0
"""What the program may take: with a webhook before it, less than Airflow leaves a callback (services.py, docker/compose.yaml)."""
_LONGEST_ERROR: Final = 2000


@dataclass(frozen=True, slots=True)
class Failure:
    """A task that failed for good, or, without `task`, a run; or a run that is `late`. `map_index` tells apart the tasks of one name in
    a run (-1: there is one); `batch_id` and `clips`, how many of them, are what it worked on, where that is known; `tries` is how often
    it was tried."""

    dag: str
    run: str
    error: str
    task: str | None = None
    map_index: int | None = None
    batch_id: str | None = None
    clips: int | None = None
    tries: int | None = None
    late: bool = False


@dataclass(frozen=True, slots=True)
class AlertResult:
    """Who was told, and why the others were not."""

    told: list[str]
    problems: list[str]


def receivers(workspace: Workspace) -> list[Receiver]:
    """Who is told of failures in this deployment. Raises UsageError if one is set up wrongly."""
    deployment = workspace.deployment
    found: list[Receiver] = []
    if deployment.alert_webhook_url:
        found.append(Webhook(deployment.alert_webhook_url, deployment.alert_webhook_secret or "", FAILURE))
    if deployment.alert_hook_command:
        log = workspace.services / "alert.log"
        found.append(Hook.parse(deployment.alert_hook_command, log, FAILURE, HOOK_TIMEOUT_S))
    return found


def run(workspace: Workspace, failure: Failure) -> AlertResult:
    """Tell each receiver, whatever becomes of the others; nobody is told later of what one did not take.

    Raises UsageError, and tells nobody, if one is set up wrongly.
    """
    result = AlertResult([], [])
    # ASCII: an error may quote a name that is no UTF-8
    body = json.dumps(_facts(workspace, failure), sort_keys=True).encode()
    delivery = uuid4().hex  # a run that is cleared and fails once more is told of once more
    for receiver in receivers(workspace):
        try:
            receiver.deliver(delivery, body)
            result.told.append(receiver.name)
        except ServiceUnavailable as error:
            result.problems.append(str(error))
    return result


def _facts(workspace: Workspace, failure: Failure) -> dict[str, Any]:
    error = without_password(failure.error)[:_LONGEST_ERROR]
    at = datetime.now(UTC).isoformat(timespec="seconds")
    event = "run_late" if failure.late else "task_failed" if failure.task else "run_failed"
    facts = {name: value for name, value in asdict(failure).items() if name != "late"}
    return {"event": event, "at": at, "workspace": str(workspace.root)} | facts | {"error": error}
