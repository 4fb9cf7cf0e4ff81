"""The record of a training: drawn in any case, and sent to MLflow only where somebody says so."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from violence_ops.errors import ServiceUnavailable, UsageError
from violence_ops.pose.samples import sample
from violence_ops.stages.poses.training_run import NOT_TRACKED, TrainingRun, held_out_drawn, targets_drawn
from violence_ops.stages.poses.weights import as_shipped
from violence_ops.synthetic.stills import stills

LINE = {"lr": 0.1, "s_per_step": 0.5, "box": 2.0, "score": 0.5}


def _log(folder: Path, *steps: int) -> None:
    with (folder / "log.jsonl").open("a") as file:
        file.writelines(json.dumps({"step": step} | LINE) + "\n" for step in steps)


def test_without_an_address_pictures_are_kept_and_nothing_is_sent(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path / "own.run", None)
    with run.running("own", {"steps": 4}, {}, 0):
        run.show("training", np.zeros((8, 8, 3), np.uint8))
        run.report()
    assert run.outcome() == NOT_TRACKED
    assert [path.name for path in (tmp_path / "own.run").rglob("*") if path.is_file()] == ["training.png"]


def test_an_address_that_is_none_is_refused_in_a_sentence(tmp_path: Path) -> None:
    for address in ("mlruns", "ftp://somewhere", "sqlite://", "http://"):
        with pytest.raises(UsageError, match=r"is no address of MLflow: give http\(s\)://HOST:PORT or sqlite:///FILE"):
            TrainingRun(tmp_path, address)


def test_a_server_that_is_not_there_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match=r"MLflow at http://127\.0\.0\.1:9 cannot be reached"):
        TrainingRun(tmp_path / "own.run", "http://127.0.0.1:9")
    assert not (tmp_path / "own.run").exists()


def test_a_training_that_goes_on_is_one_run_whatever_happened_between(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    uri, folder = f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "own.run"

    def interrupted() -> None:
        run = TrainingRun(folder, uri)
        with run.running("own", {"size": 4, "steps": 100}, {"device": "cpu"}, 0):
            _log(folder, 50, 100)
            run.report()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    client = MlflowClient(uri)
    run_id = json.loads((folder / "mlflow.json").read_text())["run_id"]
    assert client.get_run(run_id).info.status == "FAILED"

    _log(folder, 150)
    again = TrainingRun(folder, uri)
    with again.running("own", {"size": 4, "steps": 200}, {"device": "cpu"}, 100):
        assert client.get_run(run_id).info.status == "RUNNING"
        _log(folder, 150, 200)
        again.report()
        again.finish("ab" * 32, {"held_out/ap": 0.5})
    found = client.get_run(run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"size": "4", "steps": "100"}
    assert (
        found.data.tags.items() >= {"device": "cpu", "resumed_at": "100", "steps": "200", "sha256": "ab" * 32}.items()
    )
    assert found.data.metrics["held_out/ap"] == 0.5
    assert found.data.metrics["loss"] == 2.5
    assert [point.step for point in client.get_metric_history(run_id, "loss/box")] == [50, 100, 150, 200]


def test_the_pictures_show_targets_and_what_is_found(tmp_path: Path) -> None:
    def drawn(rng: np.random.Generator) -> list:
        return [sample(*picture) for picture in stills(rng, 2)]

    for picture in (targets_drawn(drawn, seed=0, size=2), held_out_drawn(as_shipped("rtmo_small"))):
        assert picture.dtype == np.uint8
        yellow = cv2.inRange(picture, (40, 200, 230), (80, 240, 255))
        assert yellow.sum() / 255 > 100
