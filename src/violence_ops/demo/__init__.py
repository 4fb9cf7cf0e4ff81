"""The main job, end to end, for somebody who has just checked the project out: two nights under a real Airflow.

Clips (synthetic ones, or a folder of real ones) and broken files are dropped into the inbox of a fresh workspace, a night is started and
watched, and the release is approved over REST as a release manager would. A second night brings new clips, old ones
again and more broken ones. At the end it checks that every promised thing is there. It does nothing that a user could not do.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from violence_ops.demo import account, drops, watch
from violence_ops.deployment import AIRFLOW_PORT, MLFLOW_PORT
from violence_ops.errors import UsageError
from violence_ops.files import write_text
from violence_ops.jsonable import Jsonable
from violence_ops.stages.upkeep import init, services
from violence_ops.workspace import Workspace

QUICK: Final = {
    "ingest.settle_s": 0.0,
    "schedule.retries": 2,
    "train.family": "stgcnpp_two_streams",
    "gate.min_recall": 0.5,
}
"""Files count as complete at once, a failure is soon said, the family is the best on few clips, and ten Fight clips make recall a
coarse figure."""


@dataclass(frozen=True, slots=True)
class DemoResult(Jsonable):
    """What happened. `promises` maps each promised thing to whether it is there; `seconds` each part to its duration."""

    workspace: str
    nights: list[dict[str, Any]]
    promises: dict[str, bool]
    seconds: dict[str, float]
    pages: dict[str, str]

    @property
    def broken(self) -> list[str]:
        """The promises that were not kept."""
        return [promise for promise, kept in self.promises.items() if not kept]

    def lines(self) -> Iterator[str]:
        for number, night in enumerate(self.nights, 1):
            yield from ("", f"Night {number}")
            for key, value in night.items():
                first, *others = _texts(value)
                yield f"  {key.replace('_', ' '):<22}{first}"
                yield from (f"  {'':<22}{other}" for other in others)
        yield from ("", "Time")
        yield from (f"  {part:<40}{seconds:7.1f} s" for part, seconds in self.seconds.items())
        yield from ("", "Promises")
        yield from (f"  {'kept   ' if kept else 'BROKEN '}{promise}" for promise, kept in self.promises.items())
        yield from ("", "Look at it")
        yield from (f"  {name:<22}{address}" for name, address in self.pages.items())


def run(directory: Path, *, clips: Path | None = None, stop: bool = False) -> DemoResult:
    """Run the demo in a fresh workspace at `directory`; an earlier demo's workspace there is stopped and replaced.

    `clips` is a folder of real clips (labels.csv or `<Label>/` folders) to use instead of synthetic ones. `stop` ends Airflow and
    MLflow afterwards. A promise that is not kept is in the result, not an error; a failing DAG run is a UserError. Raises UsageError,
    before anything is started or replaced, if the demo cannot run on `clips` or in `directory`.
    """
    if clips is not None:
        drops.check(clips.resolve())
    clock = watch.Clock(Console(stderr=True, highlight=False))
    workspace = _fresh_workspace(directory.resolve(), clock)
    dropped = workspace.work / "demo-drops"
    with ThreadPoolExecutor(1) as background:
        preparing = background.submit(drops.prepare, dropped, clips)
        clock.say("starting Airflow and MLflow, and preparing the clips meanwhile")
        running = services.up(workspace, airflow_port=AIRFLOW_PORT, mlflow_port=MLFLOW_PORT)
        clock.add("start Airflow and MLflow", running.seconds)
        try:
            result = _two_nights(workspace, preparing, clock, must_release=clips is None)
        finally:
            shutil.rmtree(dropped, ignore_errors=True)
            if stop:
                services.down(workspace)
    return result


def _fresh_workspace(root: Path, clock: watch.Clock) -> Workspace:
    """An empty workspace with the demo's parameters; nothing but an earlier demo's workspace is ever deleted."""
    workspace = Workspace(root)
    if root.exists() and any(root.iterdir()):
        if not workspace.demo_marker.is_file():
            raise UsageError(f"{root} was not made by a demo: name another folder; nothing was deleted.")
        clock.say("stopping and removing the last demo's workspace")
        services.down(workspace)
        shutil.rmtree(root)
    clock.say(f"making a workspace in {root}")
    init.run(root, params_overrides=dict(QUICK))
    write_text(workspace.demo_marker, "This workspace was made by `violence-ops demo`, which may replace it.\n")
    return workspace


def _two_nights(
    workspace: Workspace,
    preparing: Future[tuple[drops.Drop, drops.Drop]],
    clock: watch.Clock,
    *,
    must_release: bool,
) -> DemoResult:
    started = time.monotonic()
    dropped = preparing.result()
    clock.add("wait for the clips", time.monotonic() - started)
    today = datetime.now(UTC).date()
    nights = []
    with services.api(workspace) as admin:
        for number, drop in enumerate(dropped, 1):
            shutil.copytree(drop.folder, workspace.inbox, symlinks=True, dirs_exist_ok=True)
            clock.say(f"[bold]night {number}[/bold]: {account.dropped(drop)}")
            date = (today - timedelta(days=2 - number)).isoformat()
            done = watch.night(
                admin, lambda: services.api(workspace, "release-manager"), {"night": date}, number, clock
            )
            nights.append(account.night(workspace, date, drop, done.approver))
    clock.add("everything", time.monotonic() - clock.started)
    facts = [night.to_dict() for night in nights]
    return DemoResult(
        str(workspace.root),
        facts,
        account.promises(workspace, dropped, nights, must_release=must_release),
        clock.seconds,
        account.pages(workspace),
    )


def _texts(value: Any) -> list[str]:
    """A value as the lines that a person reads."""
    if isinstance(value, list):
        return [str(item) for item in value] or ["none"]
    if isinstance(value, dict):
        return [", ".join(f"{count} {name}" for name, count in value.items()) or "none"]
    return [f"{value:.3f}" if isinstance(value, float) else "none" if value is None else str(value)]
