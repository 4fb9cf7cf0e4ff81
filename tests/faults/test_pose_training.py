"""A training of pose weights is one MLflow run, whatever is killed meanwhile, and never dies of MLflow."""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from violence_ops.errors import ServiceUnavailable
from violence_ops.pose import training
from violence_ops.registry import POSE_EXPERIMENT
from violence_ops.stages.poses import training_run, weights
from violence_ops.stages.poses.training_run import TrainingRun

pytestmark = pytest.mark.slow
STEPS = 4


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report every step, a checkpoint with pictures every second one; figures of one scene."""
    torch.set_num_threads(1)
    monkeypatch.setattr(
        training, "TrainingSettings", partial(training.TrainingSettings, report_every=1, save_every=2, warm_up=2)
    )
    monkeypatch.setattr(weights, "_SHOWN_EVERY", 2)
    monkeypatch.setattr(weights, "_JUDGED", 1)


def _at_report(monkeypatch: pytest.MonkeyPatch, number: int, act: Any) -> None:
    """Do something just before report `number` of the next training is sent."""
    send, calls = TrainingRun.report, []

    def report(run: TrainingRun) -> None:
        calls.append(1)
        if len(calls) == number:
            act()
        send(run)

    monkeypatch.setattr(TrainingRun, "report", report)


def test_a_training_that_is_interrupted_and_loses_mlflow_is_one_complete_run_in_the_end(
    server: Any, often: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow.tracking import MlflowClient

    caplog.set_level(logging.WARNING, logger=training_run.__name__)
    out = tmp_path / "own.safetensors"
    train = partial(weights.train, out, steps=STEPS, size=2, tracking=server.url)

    with pytest.raises(ServiceUnavailable, match=rf"MLflow at {server.url} cannot be reached"):
        train()
    assert not out.with_suffix(".run").exists(), "it began although the run could not be"

    def interrupt() -> None:
        server.stop()
        raise KeyboardInterrupt

    server.start()
    with monkeypatch.context() as patch:
        _at_report(patch, 3, interrupt)
        with pytest.raises(KeyboardInterrupt):
            train()
    run_id = json.loads((tmp_path / "own.run" / "mlflow.json").read_text())["run_id"]

    server.start()
    caplog.clear()
    with monkeypatch.context() as patch:
        _at_report(patch, 1, server.stop)
        result = train()
    assert out.is_file()
    assert "run this again when MLflow is back" in result["mlflow"]
    (said,) = [record for record in caplog.records if record.name == training_run.__name__]
    assert "cannot be reached" in said.getMessage()
    lines = [json.loads(line) for line in (tmp_path / "own.run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 3, 4]

    server.start()
    again = train()
    assert again["sha256"] == result["sha256"], "nothing was left to train"
    assert again["mlflow"].endswith(f"/runs/{run_id}")

    client = MlflowClient(server.url)
    experiment = client.get_experiment_by_name(POSE_EXPERIMENT)
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    assert run.data.params["steps"] == str(STEPS)
    assert run.data.params["start"] == "rtmo_small"
    assert run.data.tags["resumed_at"] == "2, 4"
    assert run.data.tags["sha256"] == result["sha256"]
    assert len(run.data.tags["start_sha256"]) == 64
    assert {"held_out/ap", "held_out/recall_50"} <= set(run.data.metrics)
    terms = ("box", "visible", "bins", "joint", "oks", "score")
    for name in ("learning_rate", "s_per_step", "loss", *(f"loss/{term}" for term in terms)):
        points = [point.step for point in client.get_metric_history(run_id, name)]
        assert points == [1, 2, 3, 4], name
    pictures = {Path(file.path).name for file in client.list_artifacts(run_id, "pictures")}
    assert pictures == {"training.png", "held_out_000002.png", "held_out_000004.png"}
