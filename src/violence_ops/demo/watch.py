"""Watching a night in Airflow: say what begins and ends, answer the question that waits for a release manager, measure times."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console

from violence_ops.airflow_api import AirflowApi
from violence_ops.errors import ServiceUnavailable, UserError

NIGHTLY: Final = "nightly_ingestion"
CHAIN: Final = (NIGHTLY, "retraining", "gated_evaluation")
"""Each of these DAGs is started by the asset that the one before it emits."""

APPROVER: Final = "release-manager"
_NIGHT_LIMIT_S: Final = 3 * 3600.0
_START_LIMIT_S: Final = 180.0
_MARKS: Final = {"success": "[green]done[/green]", "failed": "[red]failed[/red]", "skipped": "[dim]skipped[/dim]",
                 "running": "running", "up_for_retry": "[yellow]will be tried again[/yellow]",
                 "awaiting_input": "[yellow]waits for a release manager[/yellow]"}  # fmt: skip


@dataclass
class Clock:
    """Says things with the seconds since the demo began, and keeps how long each part took."""

    console: Console
    started: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)

    def say(self, text: str) -> None:
        self.console.print(f"[dim]{time.monotonic() - self.started:5.0f} s[/dim]  {text}")

    def add(self, part: str, seconds: float) -> None:
        self.seconds[part] = round(self.seconds.get(part, 0.0) + seconds, 1)


@dataclass(frozen=True, slots=True)
class NightRun:
    """The runs of one night, DAG id to run id, and who answered the approval (None: nobody was asked)."""

    runs: dict[str, str]
    approver: str | None


def night(
    admin: AirflowApi, manager: Callable[[], AirflowApi], conf: dict[str, Any], number: int, clock: Clock
) -> NightRun:
    """Start the night by hand and follow it through retraining and evaluation.

    `manager` signs in as the release manager, who approves when asked. Raises UserError if a DAG run fails.
    """
    before = {dag_id: {run["dag_run_id"] for run in admin.runs(dag_id)} for dag_id in CHAIN}
    runs = {NIGHTLY: admin.trigger(NIGHTLY, conf)}
    approver: list[str] = []
    for dag_id in CHAIN:
        started = time.monotonic()
        run_id = runs.setdefault(dag_id, "") or _next_run(admin, dag_id, before[dag_id])
        runs[dag_id] = run_id
        watcher = _Watcher(dag_id, clock, lambda: approver.extend(_approve(manager(), clock)))
        state = admin.wait(dag_id, run_id, timeout_s=_NIGHT_LIMIT_S, on_poll=watcher)
        clock.add(f"night {number}: {dag_id}", time.monotonic() - started)
        for task in admin.tasks(dag_id, run_id):
            clock.add(f"night {number}:   {task['task_id'].rpartition('.')[2]}", task["duration"] or 0.0)
        if state != "success":
            failed = [task["task_id"] for task in admin.tasks(dag_id, run_id) if task["state"] == "failed"]
            raise UserError(
                f"{dag_id} failed in {', '.join(failed)}: its log is on {admin.address}/dags/{dag_id}/runs/{run_id}."
            )
    return NightRun(runs, approver[0] if approver else None)


def _next_run(api: AirflowApi, dag_id: str, before: set[str]) -> str:
    limit = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < limit:
        new = [run["dag_run_id"] for run in api.runs(dag_id) if run["dag_run_id"] not in before]
        if new:
            return new[-1]
        time.sleep(0.5)
    raise ServiceUnavailable(f"{dag_id} did not start: see the scheduler's log and {api.address}/assets.")


def _approve(manager: AirflowApi, clock: Clock) -> list[str]:
    answered = []
    with manager:
        for question in manager.approvals():
            clock.say(f"[bold]{question['subject']}[/bold] {question['body']}")
            manager.respond(question, "Approve")
            answered.append(APPROVER)
            clock.say(f"approved over REST by {APPROVER}")
    return answered


class _Watcher:
    """Called with a run's task instances at every poll; says each change of state once."""

    def __init__(self, dag_id: str, clock: Clock, when_asked: Callable[[], None]) -> None:
        self._dag_id = dag_id
        self._clock = clock
        self._when_asked = when_asked
        self._states: dict[tuple[str, int], str | None] = {}

    def __call__(self, tasks: list[dict[str, Any]]) -> None:
        for task in sorted(tasks, key=lambda task: task["start_date"] or "~"):
            key, state = (task["task_id"], task["map_index"]), task["state"]
            if state == self._states.get(key):
                continue
            self._states[key] = state
            if state in _MARKS:
                shard = f" shard {task['map_index']}" if task["map_index"] >= 0 else ""
                took = f" [dim]({task['duration']:.0f} s)[/dim]" if state == "success" else ""
                self._clock.say(
                    f"{self._dag_id:<18} {task['task_id'].rpartition('.')[2]}{shard}: {_MARKS[state]}{took}"
                )
            if state == "awaiting_input":
                self._when_asked()
