"""What a training leaves in MLflow: everything to judge the run by, and a model that a server serves."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from violence_ops import registry_request
from violence_ops.records import ClipRecord
from violence_ops.registry import MODEL
from violence_ops.stages.learning import assemble, sweep, train
from violence_ops.store.releases import open_registry
from violence_ops.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_run_shows_all_of_a_training_and_its_model_answers_requests(
    small_workspace: Callable[..., Workspace], seal_tracks: Callable[..., list[ClipRecord]], tmp_path: Path, port: int
) -> None:
    import mlflow
    from mlflow.tracking import MlflowClient

    workspace = small_workspace(**{"train.epochs": 1, "windows.frames_per_second": 10})
    params = workspace.params()
    seal_tracks(workspace)
    revision = assemble.run(workspace, params).revision
    made = train.run(workspace, params)
    assert not list((workspace.cache / "training").iterdir())

    run = MlflowClient(workspace.mlflow_uri).get_run(made.run_id)
    assert run.info.run_name == f"stgcnpp joint+joint_motion {revision[:8]}"
    assert run.data.params["train.learning_rate"] == "0.001"
    assert run.data.params["windows.frames_per_second"] == "10.0"
    assert {"best_f1", "best_auc", "best_ece", "best_brier", "train_loss"} <= run.data.metrics.keys()
    assert run.inputs.dataset_inputs[0].dataset.digest == revision[:32]
    assert "validation F1" in run.data.tags["mlflow.note.content"]
    folder = Path(
        mlflow.artifacts.download_artifacts(
            run_id=made.run_id, dst_path=str(tmp_path), tracking_uri=workspace.mlflow_uri
        )
    )
    assert {path.name for path in (folder / "plots").iterdir()} >= {
        "ranking.png",
        "calibration.png",
        "confusion_matrix.png",
    }
    tables = {path.stem: list(csv.DictReader(path.open())) for path in (folder / "tables").iterdir()}
    assert len(tables["threshold_sweep"]) == 9
    assert sum(int(row["clips"]) for row in tables["slices"] if row["slice"] == "camera_id") == len(
        tables["validation"]
    )
    assert len(tables["failures"]) == sum(row["kind"] != "correct" for row in tables["validation"])
    assert all(row["overlay"] == f"violence-ops overlay {row['clip_id']}" for row in tables["failures"])
    assert "\ntorch==" in (folder / "environment" / "requirements.txt").read_text()
    package = open_registry(workspace).download(made.model_version, tmp_path / "package")
    assert {"model.safetensors", "model.onnx", "config.json", "thresholds.json", "MODEL_CARD.md"} <= {
        p.name for p in package.iterdir()
    }

    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{MODEL}/{made.model_version}",
               "--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]  # fmt: skip
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # where uvicorn is
    settings = {
        "MLFLOW_TRACKING_URI": workspace.mlflow_uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PATH": path,
    }
    environment = os.environ | settings
    with (tmp_path / "serve.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            address = f"http://127.0.0.1:{port}/invocations"
            answer = _answer(server, address, tmp_path / "serve.log")
            unpaced = registry_request.request().drop(columns="fps").to_dict(orient="split")
            refusal = httpx.post(address, json={"dataframe_split": unpaced}, timeout=60)
            beyond = registry_request.request().assign(frame=[1000, 1000, 1001, 1001]).to_dict(orient="split")
            impossible = httpx.post(address, json={"dataframe_split": beyond}, timeout=60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            server.wait(60)
    assert refusal.status_code == 400
    assert "has no frame rate" in refusal.json()["message"]
    assert impossible.status_code == 400
    assert "`frame` is 1000 in a clip of 2 frames" in impossible.json()["message"]
    (row,) = answer["predictions"]
    assert set(row) == {"clip_id", "probability", "threshold", "verdict"}
    assert row["verdict"] == ("Fight" if row["probability"] > row["threshold"] else "NonFight")


def _answer(server: subprocess.Popen[bytes], address: str, log: Path) -> dict[str, list[dict[str, object]]]:
    body = {"dataframe_split": registry_request.request().to_dict(orient="split")}
    until = time.monotonic() + 300
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text()
        try:
            response = httpx.post(address, json=body, timeout=60)
        except httpx.TransportError:
            time.sleep(0.5)
            continue
        assert response.status_code == 200, response.text
        return dict(response.json())
    raise AssertionError(log.read_text())


def test_every_trial_of_a_sweep_is_a_nested_run_and_nothing_is_registered(
    small_workspace: Callable[..., Workspace], seal_tracks: Callable[..., list[ClipRecord]]
) -> None:
    from mlflow.tracking import MlflowClient

    present = {"train.weight_decay": 0.0, "train.mixup": 2.5}  # both beyond what is searched
    workspace = small_workspace(**{"train.epochs": 1, **present})
    params = workspace.params()
    seal_tracks(workspace)
    revision = assemble.run(workspace, params).revision
    found = sweep.run(workspace, params, trials=2)
    assert (found.trials, found.failed) == (2, 0)
    assert found.lines()[1].startswith("Train it: violence-ops train -S train.learning_rate=")
    client = MlflowClient(workspace.mlflow_uri)
    parent = client.get_run(found.run_id)
    nested = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{found.run_id}'")
    assert sorted(run.info.run_name for run in nested) == ["trial 0", "trial 1"]
    assert len({run.data.params["train.learning_rate"] for run in nested}) == 2
    assert all(run.inputs.dataset_inputs[0].dataset.digest == revision[:32] for run in nested)
    first = next(run for run in nested if run.info.run_name == "trial 0").data
    assert {name: float(first.params[name]) for name in present} == present
    assert first.params["train.learning_rate"] == str(params.train.learning_rate)
    assert found.present_f1 == pytest.approx(first.metrics["best_f1"], abs=1e-4)
    assert found.val_f1 >= found.present_f1
    assert "the present settings" in found.lines()[0]
    assert parent.data.metrics["best_f1"] == max(run.data.metrics["best_f1"] for run in nested)
    assert open_registry(workspace).versions() == []
