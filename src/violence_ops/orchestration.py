"""What the DAG files share. Imported by every parse of a DAG file, so nothing heavy is imported at the top."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk import Asset, RetryDecision, RetryPolicy
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference
from airflow.sdk.exceptions import AirflowFailException, AirflowTaskTimeout

from violence_ops.errors import ServiceUnavailable, UserError, WorkspaceError

if TYPE_CHECKING:
    from violence_ops.params import Params
    from violence_ops.workspace import Workspace

log = logging.getLogger(__name__)

BATCHES: Final = Asset("batches")
"""Sealed batches; the extra of an event is `{"batches": [ids]}`. Of those sealed outside Airflow, `stages.nightly.announce` makes the event."""

CANDIDATE: Final = Asset("candidate")
"""A registered candidate; the extra of an event is `{"model_version": ..., "run_id": ...}`."""

LABELS: Final = Asset("labels")
"""Labels that people gave, enough for a retraining, in a night that brought no batch; an event has no extra."""

SHARD: Final = {
    "map_index_template": "{{ task.op_kwargs.shard.batch_id }} from {{ task.op_kwargs.shard.clip_ids | first | default('no clip') }}"
}
"""For mapped tasks of a shard: what the grid calls them. One without clips is that of a batch that has only to be sealed."""

OF_BATCH: Final = {"map_index_template": "{{ task.op_kwargs.batch_id }}"}
"""The same of a batch."""

DRIFT: Final = Asset("drift")
"""Nights unlike the champion's training clips that ask for a retraining; the extra of an event is `{"batches": [ids]}`."""

GPU: Final = {"queue": "gpu", "pool": "gpu"}
"""For tasks that use a model at length: workers of the queue `gpu`, one at a time on a device."""

VERSIONING: Final = {"pool": "versioning"}
"""For tasks that move data with DVC, one at a time; the short commits of others are serialised by the workspace's lock."""

_PROGRESS_EVERY_S: Final = 5.0
_CHATTY: Final = ("great_expectations", "alembic", "dvc", "httpx")


@cache
def params() -> Params:
    """The workspace's parameters, as of when this DAG file was read."""
    from violence_ops.params import load_params

    root = os.environ.get("VIOLENCE_OPS_WORKSPACE")
    if not root:
        raise WorkspaceError("VIOLENCE_OPS_WORKSPACE is not set: start Airflow with `violence-ops up`, or set it.")
    # not Workspace.params_file: importing workspace.py costs more than reading all DAG files
    return load_params(Path(root) / "params.yaml")


@dataclass(frozen=True)
class OnceMoreAfterTimeout(RetryPolicy):
    """A task that reaches its time limit has the second try at most, whatever `retries` is: it hangs, or its work is too much.

    `retries` are those of the task: a cleared task, whose tries Airflow goes on counting, begins anew.
    """

    retries: int

    def evaluate(self, exception: BaseException, try_number: int, max_tries: int, context: Any = None) -> RetryDecision:
        tries = try_number - (max_tries - self.retries)
        if isinstance(exception, AirflowTaskTimeout) and tries > 1:
            return RetryDecision.fail("It reached its time limit (schedule.task_timeout_h), and not in its first try.")
        return RetryDecision.default()


def usual(doc: str | None, *tags: str) -> dict[str, Any]:
    """What every DAG has in common: no catching up, the tasks' defaults, word of a run that failed, and its description, headed by a line
    `### …`."""
    heading = (doc or "").strip().partition("\n")[0]
    return {
        "catchup": False,
        "default_args": default_args(),
        "on_failure_callback": alert_of_run,
        "description": heading.removeprefix("### "),
        "doc_md": doc,
        "tags": tags,
    }


def default_args() -> dict[str, Any]:
    """Retries with exponential back-off, an end to a task that hangs, and a line in the log that says what failed and on which clips."""
    schedule = params().schedule
    return {
        "owner": "violence-ops",
        "retries": schedule.retries,
        "retry_delay": timedelta(seconds=schedule.retry_delay_s),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(seconds=schedule.max_retry_delay_s),
        "execution_timeout": timedelta(hours=schedule.task_timeout_h),
        "retry_policy": OnceMoreAfterTimeout(schedule.retries),
        "on_retry_callback": say_what_failed,
        "on_failure_callback": [say_what_failed, alert_operators],
    }


def stage(name: str, **arguments: Any) -> Any:
    """Run a stage (`nightly.validate`, or another function of its module: `nightly.validate.checkpoint`) in the workspace.

    Returns the stage's result, as a dict if it is a record. An outside system that is unavailable fails the task so that it is
    tried again; any other error that only a user can mend fails it for good.
    """
    from violence_ops.workspace import Workspace

    for library in _CHATTY:
        logging.getLogger(library).setLevel(logging.WARNING)
    subject, module_name, *function_name = name.split(".")
    module = import_module(f"violence_ops.stages.{subject}.{module_name}")
    function = getattr(module, *(function_name or ["run"]))
    takes = signature(function).parameters
    if "progress" in takes:
        arguments["progress"] = LogProgress()
    try:
        workspace = Workspace.open()
        if "params" in takes:
            arguments["params"] = workspace.params()
        result = function(workspace, **arguments)
    except ServiceUnavailable:
        raise
    except UserError as error:
        raise AirflowFailException(str(error)) from None
    content = result.to_dict() if hasattr(result, "to_dict") else result
    log.info("%s: %s", name, content)
    return content


def night_of(dag_run: Any) -> str:
    """The date of a run by the clock of `schedule.timezone`, ISO 8601."""
    return (dag_run.logical_date or dag_run.run_after).astimezone(params().schedule.zone).date().isoformat()


def open_shards() -> list[dict[str, Any]]:
    """All unfinished batches in pieces, `batch_id` and `clip_ids` of each: the night's own, and what earlier ones left open.

    A batch of which only the end of the sealing is missing, or whose batch.json cannot be read, is one piece without clips. Where
    Airflow could not map so many pieces (core.max_map_length), the latest batches are left out. The caller sees to it that no other run
    works on any of them.
    """
    from airflow.configuration import conf

    from violence_ops.stages.nightly import seal
    from violence_ops.store import batches

    with _beside_airflows_own() as workspace:
        half_sealed = [batch.batch_id for batch in seal.half_sealed(workspace)]
        shards: list[dict[str, Any]] = []
        for batch_id in sorted([*batches.open_batch_ids(workspace), *half_sealed]):
            pieces = stage("nightly.ingest.shards", batch_id=batch_id) or [[]]
            if shards and len(shards) + len(pieces) > conf.getint("core", "max_map_length"):
                log.warning(
                    "Batch %s and those after it wait for the next run: this one has no room for more shards.", batch_id
                )
                break
            shards += [{"batch_id": batch_id, "clip_ids": clip_ids} for clip_ids in pieces]
        return shards


def night_stage(name: str, **arguments: Any) -> Any:
    """A `stage` of nightly_ingestion. One that finds `violence-ops night` at work waits for its end, and has less to do then."""
    with _beside_airflows_own():
        return stage(name, **arguments)


@contextmanager
def _beside_airflows_own() -> Iterator[Workspace]:
    """Hold the open batches together with Airflow's other tasks, and not beside `violence-ops night`, which holds them alone."""
    from violence_ops.workspace import Workspace

    workspace = Workspace.open()
    with workspace.lock("night", shared=True, waiting="`violence-ops night` is at work: waiting for its end."):
        yield workspace


class LogProgress:
    """A stage's progress as lines in the task's log, one every few seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        if done == total or time.monotonic() - self._last > _PROGRESS_EVERY_S:
            self._last = time.monotonic()
            log.info("%s: %d of %d", what, done, total)


def say_what_failed(context: Mapping[str, Any]) -> None:
    """Callback: one line with the DAG, the task, the shard and its clips or the batch, and the error's sentence."""
    task = context["ti"]
    batch_id, clip_ids = _worked_on(context)
    where = f"{task.dag_id} / {task.task_id}"
    if clip_ids is not None:
        where += f" / shard {task.map_index} of batch {batch_id} (clips {', '.join(clip_ids)})"
    elif batch_id:
        where += f" / batch {batch_id}"
    # a name that is no UTF-8 must not keep the line out of the log
    said = _sentence(context).encode("utf-8", "backslashreplace").decode()
    log.error("%s failed in try %d: %s", where, task.try_number, said)


def alert_operators(context: Mapping[str, Any]) -> None:
    """Callback: whom `VIOLENCE_OPS_ALERT_*` names is told that a task failed for good; if that fails, the log says so."""
    task, (batch_id, clip_ids) = context["ti"], _worked_on(context)
    _alert(
        dag=task.dag_id, task=task.task_id, run=task.run_id, map_index=task.map_index, batch_id=batch_id,
        clips=None if clip_ids is None else len(clip_ids), tries=task.try_number, error=_sentence(context),
    )  # fmt: skip


def alert_of_run(context: Mapping[str, Any]) -> None:
    """Callback of a DAG: the same of a run. Of a task that was killed with its process, as for want of memory, nothing else tells."""
    said = (
        "see its tasks in Airflow; one that was killed with its process, as for want of memory, was not told of before."
    )
    _alert(dag=context["dag"].dag_id, run=context["run_id"], error=f"The run failed ({context['reason']}): {said}")


def late_alert() -> DeadlineAlert | None:
    """Has operators told of a run that is not done `schedule.late_after_h` after it was queued; None where nobody is to be told."""
    hours = params().schedule.late_after_h
    if hours is None:
        return None
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(hours=hours),
        callback=AsyncCallback(tell_that_late, {"hours": hours}),
    )


async def tell_that_late(hours: float, context: Mapping[str, Any]) -> None:
    """Callback of a deadline, in Airflow's triggerer: the same of a run that takes longer than `hours`."""
    run = context["dag_run"]
    said = f"The run is not done after {hours:g} h and goes on: see in Airflow which task it is at, and whether a worker serves its queue."
    await asyncio.to_thread(_alert, dag=run["dag_id"], run=run["dag_run_id"], error=said, late=True)


def _alert(**facts: Any) -> None:
    from violence_ops.stages.upkeep import alert
    from violence_ops.workspace import Workspace

    try:
        result = alert.run(Workspace.open(), alert.Failure(**facts))
    except UserError as error:
        log.error("Nobody was told of this failure: %s", error)
        return
    except Exception:  # Airflow has the task's end to write down, whatever is wrong here
        log.exception("Nobody was told of this failure.")
        return
    if result.told:
        log.info("Told of this failure: %s.", ", ".join(result.told))
    for problem in result.problems:
        log.error(problem)


def _worked_on(context: Mapping[str, Any]) -> tuple[str | None, list[str] | None]:
    """The batch and, of a shard, the clips of a task; None where they are not known, as to the DAG processor of a task that died."""
    arguments = getattr(context.get("task"), "op_kwargs", None) or {}
    shard, batch_id = arguments.get("shard"), arguments.get("batch_id")
    if isinstance(shard, dict):
        return shard["batch_id"], shard["clip_ids"]
    return batch_id if isinstance(batch_id, str) else None, None


def _sentence(context: Mapping[str, Any]) -> str:
    """What went wrong: a user's sentence as it is, any other error with its kind."""
    error = context.get("exception")
    if error is None:
        return "Its process ended without an error of its own, killed or lost: see the task's log and the memory of its machine."
    if isinstance(error, UserError | AirflowFailException | str):
        return str(error)
    return f"{type(error).__name__}: {error}"
