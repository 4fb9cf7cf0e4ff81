"""What the DAG files share."""

from __future__ import annotations

import logging
import os
import tempfile
from types import SimpleNamespace

import pytest

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-home-"))

from violence_ops.errors import ServiceUnavailable, UserError, WorkspaceError
from violence_ops.stages.nightly import ingest
from violence_ops.workspace import Workspace


@pytest.fixture
def inside(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace that is the one of this process's environment, as in a task."""
    monkeypatch.setenv("VIOLENCE_OPS_WORKSPACE", str(workspace.root))
    return workspace


def test_a_stage_returns_plain_values(inside: Workspace) -> None:
    from datetime import date

    from violence_ops.orchestration import stage

    assert stage("nightly.ingest", night=date(2026, 1, 31))["batch_ids"] == []


def test_what_only_a_user_can_mend_is_not_tried_again(inside: Workspace) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from violence_ops.orchestration import stage

    with pytest.raises(AirflowFailException, match="labelled"):
        stage("learning.assemble")


def test_an_unavailable_service_is_tried_again(inside: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from violence_ops.orchestration import stage

    monkeypatch.setenv("VIOLENCE_OPS_CATALOG_URL", "postgresql+psycopg2://nobody@127.0.0.1:1/none")
    from datetime import date

    with pytest.raises(ServiceUnavailable):
        stage("nightly.ingest", night=date(2026, 1, 31))


def test_a_night_has_the_date_of_the_sites_own_clock(inside: Workspace) -> None:
    from datetime import UTC, datetime

    from violence_ops import orchestration

    late = SimpleNamespace(logical_date=datetime(2026, 1, 31, 17, 0, tzinfo=UTC), run_after=None)
    nights = []
    for zone in ("UTC", "Asia/Tokyo"):
        text = inside.params_file.read_text("utf-8").replace("timezone: UTC", f"timezone: {zone}")
        inside.params_file.write_text(text, "utf-8")
        orchestration.params.cache_clear()
        nights.append(orchestration.night_of(late))
    orchestration.params.cache_clear()
    assert nights == ["2026-01-31", "2026-02-01"]


def test_a_night_goes_on_with_every_batch_that_is_open_as_the_command_line_does(inside: Workspace, clip_folder) -> None:
    import shutil
    from datetime import date

    from violence_ops.orchestration import open_shards

    shutil.copytree(clip_folder, inside.inbox / "Fight")
    (batch_id,) = ingest.run(inside, inside.params(), night=date(2026, 1, 31)).batch_ids
    (shard,) = open_shards()
    assert shard["batch_id"] == batch_id
    assert len(shard["clip_ids"]) == len(list(clip_folder.iterdir()))
    (inside.inbox / "b.mp4").write_bytes(b"b")
    (next_id,) = ingest.run(inside, inside.params(), night=date(2026, 2, 1)).batch_ids
    assert [shard["batch_id"] for shard in open_shards()] == [batch_id, next_id]


def test_a_batch_that_cannot_be_read_fails_in_its_own_tasks_and_no_others(inside: Workspace, clip_folder) -> None:
    import shutil
    from datetime import date

    from airflow.sdk.exceptions import AirflowFailException

    from violence_ops.orchestration import night_stage, open_shards

    ids = []
    for day, name in enumerate(("clip0.mp4", "clip1.mp4"), start=1):
        shutil.copy(clip_folder / name, inside.inbox)
        ids += ingest.run(inside, inside.params(), night=date(2026, 1, day)).batch_ids
    damaged, sound = ids
    inside.batch(damaged).manifest.write_text("{")
    shards = {shard["batch_id"]: shard for shard in open_shards()}
    assert list(shards) == ids
    with pytest.raises(AirflowFailException, match=rf"{damaged}/batch.json is damaged"):
        night_stage("nightly.validate", **shards[damaged])
    assert night_stage("nightly.validate", **shards[sound])["accepted"] == 1
    assert night_stage("learning.worth_training")["yes"] is False


def test_a_night_finishes_what_a_killed_one_had_claimed(inside: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import date

    from violence_ops.orchestration import open_shards

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    (inside.inbox / "a.mp4").write_bytes(b"a")
    with monkeypatch.context() as patch:
        patch.setattr(ingest, "_carry_out", killed)
        with pytest.raises(KeyboardInterrupt):
            ingest.run(inside, inside.params(), night=date(2026, 1, 1))
    (inside.inbox / "b.mp4").write_bytes(b"b")
    adopted, own = ingest.run(inside, inside.params(), night=date(2026, 1, 2)).batch_ids
    assert (adopted[:10], own[:10]) == ("2026-01-01", "2026-01-02")
    for _ in range(2):  # also when the run is cleared as a whole
        assert [shard["batch_id"] for shard in open_shards()] == [adopted, own]
        ingest.run(inside, inside.params(), night=date(2026, 1, 2))


def test_a_later_night_finishes_the_sealing_of_any_other(inside: Workspace) -> None:
    import subprocess
    from datetime import date

    from violence_ops.orchestration import open_shards, stage
    from violence_ops.stages.nightly import seal

    (inside.inbox / "junk.mp4").write_bytes(b"no video")
    (batch_id,) = ingest.run(inside, inside.params(), night=date(2026, 1, 31)).batch_ids
    stage("nightly.validate", batch_id=batch_id)
    seal.run(inside, inside.params())
    subprocess.run(["git", "-C", inside.root, "tag", "--delete", f"batch/{batch_id}"], check=True)

    assert open_shards() == [{"batch_id": batch_id, "clip_ids": []}]
    assert stage("nightly.seal", batch_id=batch_id)["batch_ids"] == [batch_id]
    assert open_shards() == []


def test_a_batch_whose_end_could_not_be_recorded_is_finished_and_announced_by_a_later_night(inside: Workspace) -> None:
    from datetime import date

    from airflow.sdk.exceptions import AirflowFailException

    from violence_ops import versioning
    from violence_ops.orchestration import open_shards, stage

    pipeline = inside.dvc_file.read_text()
    (inside.inbox / "junk.mp4").write_bytes(b"no video")
    (batch_id,) = ingest.run(inside, inside.params(), night=date(2026, 1, 31)).batch_ids
    stage("nightly.validate", batch_id=batch_id)
    inside.dvc_file.write_text(pipeline.partition("  score:")[0])
    with pytest.raises(AirflowFailException, match="DVC refused"):
        stage("nightly.seal", batch_id=batch_id)
    assert versioning.versioned_batches(inside) == {batch_id}

    inside.dvc_file.write_text(pipeline)
    assert open_shards() == [{"batch_id": batch_id, "clip_ids": []}]
    assert stage("nightly.seal", batch_id=batch_id)["batch_ids"] == [batch_id]
    assert open_shards() == []


@pytest.mark.slow
def test_a_night_killed_between_sealing_and_announcing_is_finished_by_running_it_again(
    inside: Workspace, clip_folder, write_annotations
) -> None:
    import shutil
    import subprocess
    from datetime import date

    from violence_ops import versioning
    from violence_ops.orchestration import open_shards, stage
    from violence_ops.stages.nightly import seal

    shutil.copytree(clip_folder, inside.inbox / "Fight")
    (batch_id,) = ingest.run(inside, inside.params(), night=date(2026, 1, 31)).batch_ids
    stage("nightly.validate", batch_id=batch_id)
    write_annotations(inside, batch_id)
    seal.run(inside, inside.params())
    subprocess.run(["git", "-C", inside.root, "tag", "--delete", f"batch/{batch_id}"], check=True)

    (shard,) = open_shards()
    assert shard == {"batch_id": batch_id, "clip_ids": []}
    for task in ("validate", "extract_poses", "annotate", "score"):
        stage(f"nightly.{task}", **shard)
    stage("nightly.validate.checkpoint", batch_id=batch_id)
    assert stage("nightly.seal", batch_id=batch_id)["batch_ids"] == [batch_id]
    assert versioning.versioned_batches(inside) == {batch_id}
    assert open_shards() == []


def test_a_backlog_of_more_shards_than_airflow_can_map_leaves_the_latest_batches_to_the_next_run(
    inside: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import date

    from violence_ops.orchestration import open_shards

    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "2")
    for day in (1, 2, 3):
        (inside.inbox / f"{day}.mp4").write_bytes(bytes([day]))
        ingest.run(inside, inside.params(), night=date(2026, 1, day))
    assert [shard["batch_id"][:10] for shard in open_shards()] == ["2026-01-01", "2026-01-02"]
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "0")  # a batch alone is never left out: that would be for ever
    assert [shard["batch_id"][:10] for shard in open_shards()] == ["2026-01-01"]


def test_a_task_that_reaches_its_time_limit_is_tried_once_more_and_an_outage_as_often_as_ever() -> None:
    from airflow.sdk import RetryAction
    from airflow.sdk.exceptions import AirflowTaskTimeout

    from violence_ops.orchestration import OnceMoreAfterTimeout

    policy, timeout, outage = (
        OnceMoreAfterTimeout(7),
        AirflowTaskTimeout("Timeout"),
        ServiceUnavailable("MLflow is away."),
    )
    assert policy.evaluate(timeout, 1, 7).action == RetryAction.DEFAULT
    assert policy.evaluate(timeout, 2, 7).action == RetryAction.FAIL
    assert {policy.evaluate(outage, number, 7).action for number in range(1, 9)} == {RetryAction.DEFAULT}
    # cleared after two tries: Airflow goes on counting and allows seven retries from there
    assert policy.evaluate(timeout, 3, 9).action == RetryAction.DEFAULT
    assert policy.evaluate(timeout, 4, 9).action == RetryAction.FAIL


def test_a_task_of_the_night_waits_for_a_night_on_the_command_line(inside: Workspace) -> None:
    import subprocess
    import sys

    task = [sys.executable, "-c", "from violence_ops.orchestration import night_stage; night_stage('nightly.validate')"]
    with inside.lock("night"):
        waiting = subprocess.Popen(task, stdout=subprocess.PIPE, text=True)
        assert waiting.stdout
        said = next(line for line in waiting.stdout if "waiting" in line)
        assert "`violence-ops night` is at work" in said
        assert waiting.poll() is None
    waiting.communicate(timeout=120)
    assert waiting.returncode == 0


def test_a_failure_names_dag_task_shard_and_clips_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    from violence_ops.orchestration import say_what_failed

    shard = {"batch_id": "2026-01-31-0a1b2c3d", "clip_ids": ["a" * 20, "b" * 20]}
    context = {
        "ti": SimpleNamespace(dag_id="nightly_ingestion", task_id="shard.annotate", map_index=3, try_number=2),
        "task": SimpleNamespace(op_kwargs={"shard": shard}),
        "exception": UserError("The disk is full."),
    }
    with caplog.at_level(logging.ERROR):
        say_what_failed(context)
    (line,) = caplog.messages
    for part in (
        "nightly_ingestion",
        "shard.annotate",
        "shard 3",
        shard["batch_id"],
        *shard["clip_ids"],
        "try 2",
        "The disk is full.",
    ):
        assert part in line


def test_dag_files_say_what_is_missing_when_there_is_no_workspace() -> None:
    from violence_ops.orchestration import params

    params.cache_clear()
    with pytest.raises(WorkspaceError, match="VIOLENCE_OPS_WORKSPACE"):
        params()
