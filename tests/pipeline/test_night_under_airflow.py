"""A night under a real Airflow with a real MLflow: from clips in the inbox to an approved champion, and nothing left running."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from violence_ops import ledger, services, versioning
from violence_ops.airflow_api import AirflowApi
from violence_ops.errors import ServiceUnavailable, UserError
from violence_ops.processes import is_alive
from violence_ops.stages.labelling import labels
from violence_ops.stages.nightly import ingest
from violence_ops.stages.nightly import night as by_hand
from violence_ops.stages.releasing import evaluate, gate
from violence_ops.stages.upkeep import init, status, synth
from violence_ops.stages.upkeep import services as stage
from violence_ops.store import batches
from violence_ops.video import decode
from violence_ops.video.write import VideoWriter
from violence_ops.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

_LIMIT_S = 900.0
_CLIPS = 22
_PER_BATCH = ("validate", "checkpoint", "seal", "all_passed")
_SMALL = {
    "ingest.settle_s": 0,
    "ingest.shard_size": 8,
    "expectations.min_clips": 1,  # a batch of nothing but a broken file is to be stopped
    "train.epochs": 2,
    "train.min_epochs": 1,
    "train.base_channels": 16,
    "gate.min_f1": 0.0,
    "gate.min_recall": 0.0,
    "gate.min_specificity": 0.0,
    "gate.min_auc": 0.0,
    "gate.min_clips": 1,
    "gate.max_ece": 1.0,
    "gate.max_latency_ms": 60_000.0,
    "gate.approvers": ["release-manager"],
    "holdout.share": 0.45,  # five source groups of two clips, which the gate asks for
    "schedule.retries": 2,
    "schedule.retry_delay_s": 1.0,
    "schedule.late_after_h": 0.002,  # 7 s: every night is late
    # the first training needs no new clips; of so few clips only loose limits say that they drifted
    "train.min_new_clips": 100,
    "drift.trigger": True,
    "drift.significance": 0.45,
    "drift.min_clips": 5,
    "drift.bins": 2,
}


@dataclass
class Night:
    """What one night left behind."""

    workspace: Workspace
    api: AirflowApi
    states: dict[str, str]
    tasks: dict[str, dict[str, Any]]
    refusals: list[str]
    forged: dict[str, str]
    asked_again: list[str]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    root = tmp_path_factory.mktemp("night") / "workspace"
    init.run(root, params_overrides=_SMALL)
    workspace = Workspace.open(root)
    synth.run(workspace.inbox, _CLIPS, seed=11, groups=_CLIPS, with_truth=False, duration_s=1.5)
    (workspace.inbox / "broken.mp4").write_text("no video")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIOLENCE_OPS_ALERT_HOOK_COMMAND", json.dumps([str(_pager(root.parent))]))
        stage.up(workspace, airflow_port=0, mlflow_port=0)
    try:
        with stage.api(workspace) as api:
            yield _run(workspace, api)
    finally:
        stage.down(workspace)


def _pager(folder: Path) -> Path:
    """A program that appends what it is told to `alerts.jsonl` beside it."""
    program = folder / "page"
    program.write_text(f"#!/bin/sh\nexec cat >> {folder / 'alerts.jsonl'}\n")
    program.chmod(0o755)
    return program


def _alerts(workspace: Workspace, run_id: str | None = None) -> list[dict[str, Any]]:
    told = (workspace.root.parent / "alerts.jsonl").read_text("utf-8").splitlines()
    return [alert for alert in map(json.loads, told) if run_id in (None, alert["run"])]


def _run(workspace: Workspace, api: AirflowApi) -> Night:
    run_ids = {"nightly_ingestion": api.trigger("nightly_ingestion", {"night": "2026-01-31"})}
    states = {"nightly_ingestion": api.wait("nightly_ingestion", run_ids["nightly_ingestion"], timeout_s=_LIMIT_S)}
    refusals: list[str] = []
    run_ids["retraining"] = _first_run(api, "retraining")
    states["retraining"] = api.wait("retraining", run_ids["retraining"], timeout_s=_LIMIT_S)
    first = _first_run(api, "gated_evaluation")
    assert (
        api.wait("gated_evaluation", first, timeout_s=_LIMIT_S, on_poll=lambda _: _reject(workspace, api, first))
        == "success"
    )
    asked_again = _asks_again_about_another_evaluation(workspace, api, first)
    forged = _forge_an_approval(api)
    run_ids["gated_evaluation"] = api.trigger("gated_evaluation")
    states["gated_evaluation"] = api.wait(
        "gated_evaluation",
        run_ids["gated_evaluation"],
        timeout_s=_LIMIT_S,
        on_poll=lambda _: _approve(workspace, refusals),
    )
    tasks = {
        f"{dag_id}.{task['task_id']}[{task['map_index']}]": task
        for dag_id, run_id in run_ids.items()
        for task in api.tasks(dag_id, run_id)
    }
    return Night(workspace, api, states, tasks, refusals, forged, asked_again)


def _first_run(api: AirflowApi, dag_id: str) -> str:
    limit = time.monotonic() + _LIMIT_S
    while not (runs := api.runs(dag_id)):
        assert time.monotonic() < limit, f"no asset has started {dag_id}"
        time.sleep(0.5)
    return str(runs[0]["dag_run_id"])


def _settled(api: AirflowApi) -> list[dict[str, Any]]:
    """The questions that Airflow, however busy, has seen asked: it would drop an answer that is earlier, and ask again."""
    before = datetime.now(UTC) - timedelta(seconds=20)
    return [one for one in api.approvals() if datetime.fromisoformat(one["created_at"]) < before]


def _reject(workspace: Workspace, api: AirflowApi, run_id: str) -> None:
    """Answer no as the release manager, after somebody who may edit the run has put another report into it."""
    evaluated = f"dags/gated_evaluation/dagRuns/{run_id}/taskInstances/evaluate/xcomEntries/return_value"
    with stage.api(workspace, "release-manager") as manager:
        for approval in _settled(manager):
            api._send("PATCH", evaluated, {"value": {"report": "9-vs-8"}})
            manager.respond(approval, "Reject")


def _asks_again_about_another_evaluation(workspace: Workspace, api: AirflowApi, run_id: str) -> list[str]:
    """Clear the question of a run after its evaluation was made again; what operators are told of it."""
    report = evaluate.run(workspace, workspace.params(), candidate="1", force=True).report
    gate.run(workspace, workspace.params(), report=report)
    run = f"dags/gated_evaluation/dagRuns/{run_id}"
    api._send("PATCH", f"{run}/taskInstances/evaluate/xcomEntries/return_value", {"value": {"report": report}})
    cleared = {"dry_run": False, "dag_run_id": run_id, "task_ids": ["approve"], "only_failed": False}
    api._send("POST", "dags/gated_evaluation/clearTaskInstances", cleared | {"include_downstream": True})
    assert api.wait("gated_evaluation", run_id, timeout_s=_LIMIT_S) == "failed"
    return [alert["error"] for alert in _alerts(workspace, run_id) if alert["task"] == "approve"]


def _forge_an_approval(api: AirflowApi) -> dict[str, str]:
    """Say in a run, as somebody who may edit it, that the release manager has approved; the state of each of its tasks."""
    run_id = api.trigger("gated_evaluation")
    task = f"dags/gated_evaluation/dagRuns/{run_id}/taskInstances/approve"
    claimed = {
        "chosen_options": ["Approve"], "responded_by_user": {"id": "release-manager", "name": "release-manager"},
        "decision": "approval", "by": "release-manager",
    }  # fmt: skip

    def forge(tasks: list[dict[str, Any]]) -> None:
        if any(one["task_id"] == "approve" and one["state"] == "awaiting_input" for one in tasks):
            api._send("POST", f"{task}/xcomEntries", {"key": "return_value", "value": claimed})
            api._send("PATCH", task, {"new_state": "success"})

    api.wait("gated_evaluation", run_id, timeout_s=_LIMIT_S, on_poll=forge)
    return {one["task_id"]: one["state"] for one in api.tasks("gated_evaluation", run_id)}


def _approve(workspace: Workspace, refusals: list[str]) -> None:
    """Answer as the release manager, after the administrator, who is no approver, has tried to."""
    with stage.api(workspace) as admin, stage.api(workspace, "release-manager") as manager:
        for approval in _settled(manager):
            with pytest.raises(UserError, match=r"refused PATCH") as refused:
                admin.respond(approval, "Approve")
            refusals.append(str(refused.value))
            manager.respond(approval, "Approve")


def test_one_trigger_runs_all_three_dags_to_the_end(night: Night) -> None:
    assert night.states == {"nightly_ingestion": "success", "retraining": "success", "gated_evaluation": "success"}
    unfinished = {name: task["state"] for name, task in night.tasks.items() if task["state"] != "success"}
    assert unfinished == {"nightly_ingestion.enough_labels[-1]": "skipped"}  # there is a batch


def test_every_shard_had_its_own_tasks(night: Night) -> None:
    shards = {name for name in night.tasks if "shard.extract_poses" in name}
    assert len(shards) == -(-(_CLIPS + 1) // _SMALL["ingest.shard_size"])


def test_the_grid_names_a_shard_by_its_batch_and_first_clip(night: Night) -> None:
    (batch_id,) = status.run(night.workspace).sealed
    clips = {clip.clip_id for clip in batches.read_clips(night.workspace.batch(batch_id))}
    for name, task in night.tasks.items():
        if ".shard." in name or ".validate[" in name:
            assert task["rendered_map_index"] in {f"{batch_id} from {clip_id}" for clip_id in clips}
        if ".checkpoint[" in name or ".seal[" in name:
            assert task["rendered_map_index"] == batch_id


def test_a_night_that_takes_too_long_is_told_of_once_and_goes_on(night: Night) -> None:
    late = [alert for alert in _alerts(night.workspace) if alert["event"] == "run_late"]
    assert late
    assert len({alert["run"] for alert in late}) == len(late)
    assert {(alert["dag"], alert["task"]) for alert in late} == {("nightly_ingestion", None)}
    assert night.states["nightly_ingestion"] == "success"
    assert "not done after 0.002 h" in late[0]["error"]


def test_a_no_moves_nothing_and_the_approved_candidate_is_champion_in_the_name_of_who_approved(night: Night) -> None:
    seen = status.run(night.workspace)
    assert seen.champion == seen.candidate == "1"
    decisions = [entry for entry in ledger.read(night.workspace) if entry.event in ("approval", "refusal")]
    assert [(entry.event, entry.actor) for entry in decisions] == [
        ("refusal", "release-manager"), ("approval", "release-manager"),
    ]  # fmt: skip
    # and not the one that was put into the run
    assert {entry.payload["report"] for entry in decisions} == {"1-vs-none"}
    assert decisions[0].seq < min(entry.seq for entry in ledger.read(night.workspace) if entry.event == "promotion")


def test_a_question_that_shows_an_earlier_evaluation_is_not_put_again(night: Night) -> None:
    assert len(night.asked_again) == 1
    assert "asked another question before" in night.asked_again[0]


def test_an_approval_that_is_written_into_a_run_releases_nothing(night: Night) -> None:
    assert (night.forged["approve"], night.forged["promote"]) == ("success", "failed")


def test_who_is_no_approver_cannot_answer_over_rest(night: Night) -> None:
    assert night.refusals  # one, or another where a busy Airflow still asked what had been answered
    assert all("is not a respondent for the task" in refused for refused in night.refusals)


def test_the_batch_is_sealed_and_the_broken_file_is_in_quarantine(night: Night) -> None:
    seen = status.run(night.workspace)
    assert len(seen.sealed) == 1
    assert seen.open == []
    assert seen.clips["accepted"] == _CLIPS
    assert seen.quarantine == {"unreadable": 1}


def test_dvc_has_nothing_to_redo(night: Night) -> None:
    assert versioning.status(night.workspace) == {}


def test_a_night_without_new_clips_is_green_and_starts_no_retraining(night: Night) -> None:
    run_id = night.api.trigger("nightly_ingestion", {"night": "2026-02-01"})
    assert night.api.wait("nightly_ingestion", run_id, timeout_s=_LIMIT_S) == "success"
    states = {task["task_id"]: task["state"] for task in night.api.tasks("nightly_ingestion", run_id)}
    assert states.pop("ingest") == "success"
    assert set(states.values()) == {"skipped"}
    assert len(night.api.runs("retraining")) == 1


def test_labels_that_people_gave_start_a_retraining_in_a_night_without_new_clips(night: Night) -> None:
    workspace = night.workspace
    given = workspace.params_file.read_text("utf-8")
    clip, *_ = pq.read_table(workspace.dataset / "train.parquet").to_pylist()
    other = "NonFight" if clip["label"] == "Fight" else "Fight"
    workspace.params_file.write_text(given.replace("min_new_clips: 100", "min_new_clips: 1"), "utf-8")
    labels.run(workspace, clip["clip_id"], other, by="ann")
    run_id = night.api.trigger("nightly_ingestion", {"night": "2026-02-01"})
    assert night.api.wait("nightly_ingestion", run_id, timeout_s=_LIMIT_S) == "success"
    assert _retraining_started_by(night.api, "labels")["tasks"] == dict.fromkeys(
        ("enough_new", "assemble", "train"), "success"
    )
    workspace.params_file.write_text(given, "utf-8")


def test_a_night_that_drifted_starts_a_retraining_that_its_clips_alone_would_not(night: Night, tmp_path: Path) -> None:
    _drop_far_away_people(tmp_path, night.workspace.inbox)
    run_id = night.api.trigger("nightly_ingestion", {"night": "2026-02-02"})
    assert night.api.wait("nightly_ingestion", run_id, timeout_s=_LIMIT_S) == "success"
    batch_id = status.run(night.workspace).sealed[-1]
    by_night, by_drift = (_retraining_started_by(night.api, asset) for asset in ("batches", "drift"))
    assert by_night["extra"] == by_drift["extra"] == {"batches": [batch_id]}
    assert by_night["tasks"] == {"enough_new": "success", "assemble": "skipped", "train": "skipped"}
    assert by_drift["tasks"] == {"enough_new": "success", "assemble": "success", "train": "success"}
    assert status.run(night.workspace).candidate == "3"


def test_a_batch_that_was_sealed_without_airflow_starts_what_one_of_its_own_nights_would(
    night: Night, tmp_path: Path
) -> None:
    synth.run(tmp_path, 2, seed=76, groups=2, with_truth=False, duration_s=1.5)
    for path in tmp_path.iterdir():
        shutil.move(path, night.workspace.inbox)
    done = by_hand.run(night.workspace, night.workspace.params(), night=date(2026, 2, 2))
    assert done.airflow_problem is None
    (batch_id,) = (name for name, verbs in done.batches.items() if "seal" in verbs)
    assert _retraining_started_by(night.api, "batches", {"batches": [batch_id], "from_rest_api": True})


def test_batches_that_are_stopped_fail_the_night_and_stop_no_other(night: Night) -> None:
    workspace, before = night.workspace, status.run(night.workspace).sealed
    (workspace.inbox / "broken_again.mp4").write_text("no video either")
    ingest.run(workspace, workspace.params(), night=date(2026, 2, 3))
    _drop_a_covered_camera(workspace.inbox)
    ingest.run(workspace, workspace.params(), night=date(2026, 2, 3))
    _drop_what_no_shard_can_judge(workspace)
    synth.run(workspace.inbox, 2, seed=78, groups=2, with_truth=False, duration_s=1.5)
    run_id = night.api.trigger("nightly_ingestion", {"night": "2026-02-03"})
    assert night.api.wait("nightly_ingestion", run_id, timeout_s=_LIMIT_S) == "failed"
    tasks = night.api.tasks("nightly_ingestion", run_id)
    states = {name: sorted(task["state"] for task in tasks if task["task_id"] == name) for name in _PER_BATCH}
    assert states == {
        "validate": ["failed", "success", "success", "success"],
        "checkpoint": ["failed", "failed", "success", "success"],  # of that shard, and of the broken file
        "seal": ["failed", "success"],  # of the covered camera
        "all_passed": ["upstream_failed"],
    }
    limit = time.monotonic() + _LIMIT_S
    while not any(alert["event"] == "run_failed" for alert in _alerts(workspace, run_id)):
        assert time.monotonic() < limit, "nobody was told that the run failed"
        time.sleep(0.5)
    alerts = _alerts(workspace, run_id)
    by_task = sorted(alert["task"] for alert in alerts if alert["event"] == "task_failed")
    assert by_task == ["checkpoint", "checkpoint", "seal", "validate"]  # the last tried three times, and told of once
    assert all(alert["batch_id"] and alert["error"] for alert in alerts if alert["task"])
    (stopped,) = [alert for alert in alerts if alert["task"] == "seal"]
    assert "expectations" in stopped["error"]
    seen = status.run(workspace)
    assert len(seen.sealed) == len(before) + 1
    assert len(seen.open) == 3


def test_the_next_night_goes_on_with_a_batch_that_an_earlier_one_left_open(night: Night) -> None:
    workspace, before = night.workspace, set(status.run(night.workspace).sealed)
    mended = _put_it_back(workspace)
    run_id = night.api.trigger("nightly_ingestion", {"night": "2026-02-04"})
    assert night.api.wait("nightly_ingestion", run_id, timeout_s=_LIMIT_S) == "failed"  # two others are stopped again
    assert set(status.run(workspace).sealed) - before == {mended}


def _lost(workspace: Workspace) -> Path:
    folder = workspace.root.parent / "lost"
    folder.mkdir(exist_ok=True)
    return folder


def _put_it_back(workspace: Workspace) -> str:
    """Mend what `_drop_what_no_shard_can_judge` broke; the batch."""
    (video,) = _lost(workspace).iterdir()
    batch = workspace.batch(video.stem)
    (clip,) = batches.read_manifest(batch).clips
    video.rename(batches.video_of(batch, clip))
    return batch.batch_id


def _drop_what_no_shard_can_judge(workspace: Workspace) -> None:
    """A clip of a batch of its own, whose file is gone."""
    synth.run(workspace.inbox, 1, seed=79, groups=1, with_truth=False, duration_s=1.5)
    (batch_id,) = ingest.run(workspace, workspace.params(), night=date(2026, 2, 3)).batch_ids
    batch = workspace.batch(batch_id)
    (clip,) = batches.read_manifest(batch).clips
    batches.video_of(batch, clip).rename(_lost(workspace) / f"{batch_id}.mp4")


def _drop_a_covered_camera(inbox: Path) -> None:
    with VideoWriter(inbox / "covered.mp4", width=640, height=360, fps=15) as writer:
        for _ in range(20):
            writer.write(np.full((360, 640, 3), 30, np.uint8))


def _drop_far_away_people(folder: Path, inbox: Path) -> None:
    """Labelled clips of people who are a third as tall in the picture as those of the first night."""
    synth.run(folder, 12, seed=77, groups=12, with_truth=False, duration_s=1.5)
    for path in folder.glob("syn_*"):
        with VideoWriter(inbox / path.name, width=640, height=360, fps=15) as writer:
            for frame in decode.frames(path):
                wide = np.full((360, 640, 3), 60, np.uint8)
                wide[120:246, 200:424] = cv2.resize(frame, (224, 126))
                writer.write(wide)
    shutil.copy(folder / "labels.csv", inbox)


def _retraining_started_by(api: AirflowApi, asset: str, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    """A finished retraining that an asset, and no other, started, with this extra if any is asked for; after the first, which was
    the first night's."""
    limit = time.monotonic() + _LIMIT_S
    while time.monotonic() < limit:
        for run in api.runs("retraining")[1:]:
            # Airflow cannot say what started a run while another one that the same event started is queued
            with contextlib.suppress(ServiceUnavailable):
                events = api.started_by("retraining", run["dag_run_id"])
                asked_for = list(events) == [asset] and extra in (None, events[asset])
                if asked_for and run["state"] in ("success", "failed"):
                    tasks = {task["task_id"]: task["state"] for task in api.tasks("retraining", run["dag_run_id"])}
                    return {"extra": events[asset], "tasks": tasks}
        time.sleep(0.5)
    raise AssertionError(f"the asset {asset} has started no retraining")


def test_passwords_are_private_and_in_no_log(night: Night) -> None:
    file = services.password_file(night.workspace)
    assert file.stat().st_mode & 0o777 == 0o600
    secrets = json.loads(file.read_text("utf-8")).values()
    logs = [*night.workspace.services.glob("*.log"), *(night.workspace.airflow_home / "logs").rglob("*.log")]
    assert logs
    for log in logs:
        text = log.read_text("utf-8", errors="replace")
        assert not any(secret in text for secret in secrets), log


def test_up_again_changes_nothing(night: Night) -> None:
    before = services.inspect(night.workspace)
    again = stage.up(night.workspace, airflow_port=0, mlflow_port=0)
    assert before.addresses
    assert (again.airflow_url, again.mlflow_url) == (before.addresses.airflow, before.addresses.mlflow)
    assert services.inspect(night.workspace) == before


def test_pages_listen_on_loopback_only(night: Night) -> None:
    listening = set()
    for process in _processes(night.workspace):
        with contextlib.suppress(psutil.NoSuchProcess):  # a task has just ended
            connections = process.net_connections(kind="inet")
            listening |= {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


def test_down_leaves_no_process_also_after_a_crash(night: Night) -> None:
    processes = _processes(night.workspace)
    assert len(processes) >= len(services.NAMES)
    next(each for each in processes if "scheduler" in " ".join(each.cmdline())).kill()
    stage.down(night.workspace)
    assert [each for each in processes if is_alive(each)] == []
    assert _processes(night.workspace) == []
    assert stage.down(night.workspace).stopped == 0
    assert not services.inspect(night.workspace).is_up


def _processes(workspace: Workspace) -> list[psutil.Process]:
    """Everything that works in a folder of the workspace, whoever started it."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(workspace.root) and is_alive(process):
                found.append(process)
        except psutil.Error:
            continue
    return found
