"""kill -9 of the pose task in the middle of a night: Airflow tries again, and the sealed batch is what it would have been."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import pytest

from violence_ops.airflow_api import AirflowApi
from violence_ops.folders import Batch
from violence_ops.processes import recorded
from violence_ops.stages.nightly import annotate, extract_poses, ingest, score, seal, validate
from violence_ops.stages.upkeep import init, services, synth
from violence_ops.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

_NIGHT = date(2026, 1, 31)
_LIMIT_S = 900.0
_SMALL = {"ingest.settle_s": 0, "schedule.retry_delay_s": 1.0, "train.min_new_clips": 10_000}


@pytest.fixture(scope="module")
def drop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drop")
    synth.run(folder, 8, seed=3, groups=4, with_truth=False, duration_s=1.5)
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, drop: Path) -> Batch:
    """The batch of the same clips and night, made without Airflow and in peace."""
    workspace = _workspace(tmp_path_factory.mktemp("undisturbed") / "workspace", drop)
    params = workspace.params()
    (batch_id,) = ingest.run(workspace, params, night=_NIGHT).batch_ids
    for step in (validate, extract_poses, annotate, score, seal):
        step.run(workspace, params, batch_id=batch_id)
    return workspace.batch(batch_id)


@pytest.fixture
def running(tmp_path: Path, drop: Path) -> Iterator[tuple[Workspace, AirflowApi]]:
    workspace = _workspace(tmp_path / "workspace", drop)
    services.up(workspace, airflow_port=0, mlflow_port=0)
    try:
        with services.api(workspace) as api:
            yield workspace, api
    finally:
        services.down(workspace)


def _workspace(root: Path, drop: Path) -> Workspace:
    init.run(root, params_overrides=_SMALL)
    workspace = Workspace.open(root)
    shutil.copytree(drop, workspace.inbox, dirs_exist_ok=True)
    return workspace


def test_the_batch_of_a_killed_night_equals_that_of_an_undisturbed_one(
    running: tuple[Workspace, AirflowApi], undisturbed: Batch
) -> None:
    workspace, api = running
    run_id = api.trigger("nightly_ingestion", {"night": _NIGHT.isoformat()})
    batch = workspace.batch(undisturbed.batch_id)
    _kill_pose_task(workspace, api, run_id, batch)
    assert api.wait("nightly_ingestion", run_id, timeout_s=_LIMIT_S) == "success"
    killed = _pose_task(api, run_id)
    assert killed is not None
    assert killed["try_number"] > 1
    assert _content(batch) == _content(undisturbed)


def _kill_pose_task(workspace: Workspace, api: AirflowApi, run_id: str, batch: Batch) -> None:
    """SIGKILL, as soon as the first clip's poses are written and before the last one's are."""
    limit, pid = time.monotonic() + _LIMIT_S, None
    while pid is None or not list((batch.open / "poses").glob("*.parquet")):
        assert time.monotonic() < limit, "no poses appear"
        if pid is None and (task := _pose_task(api, run_id)) and task["state"] == "running" and task["pid"]:
            pid = task["pid"]
            assert pid in _tasks_of_our_scheduler(workspace)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    assert len(list((batch.open / "poses").glob("*.parquet"))) < len(list(batch.videos.iterdir()))


def _pose_task(api: AirflowApi, run_id: str) -> dict[str, Any] | None:
    """The one, once it is there."""
    every = [task for task in api.tasks("nightly_ingestion", run_id) if task["task_id"] == "shard.extract_poses"]
    return every[0] if every else None


def _tasks_of_our_scheduler(workspace: Workspace) -> set[int]:
    (scheduler,) = recorded(workspace.services, ["scheduler"])
    return {process.pid for process in psutil.Process(scheduler.pid).children(recursive=True)}


def _content(batch: Batch) -> dict[str, bytes | dict[str, Any]]:
    """Every file of a sealed batch; `batch.json` without what tells one run, or one commit of this checkout, from another."""
    files: dict[str, bytes | dict[str, Any]] = {
        str(path.relative_to(batch.sealed)): path.read_bytes() for path in batch.sealed.rglob("*") if path.is_file()
    }
    manifest = json.loads(batch.manifest.read_text("utf-8"))
    del manifest["run"], manifest["code_revision"]
    return files | {"batch.json": manifest}
