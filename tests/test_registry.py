"""The registry against real MLflow: a database, and a real server that is stopped and started."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from violence_ops.errors import ServiceUnavailable, UsageError, UserError, WorkspaceError
from violence_ops.files import folder_sha256
from violence_ops.params import WindowParams, load_params
from violence_ops.recognition import package, vote
from violence_ops.recognition.model import Recogniser, Settings
from violence_ops.recognition.request import to_tracks
from violence_ops.recognition.train import Epoch, Trained
from violence_ops.registry import MODEL, Registry
from violence_ops.registry_request import request


def write_package(folder: Path, frames_per_second: float | None = None) -> Path:
    """An untrained classifier's package."""
    settings = Settings(
        family="stgcnpp",
        base_channels=8,
        dropout=0.0,
        windows=WindowParams(mode="fixed", size=30, stride=10, persons=2, frames_per_second=frames_per_second),
    )
    scores = vote.Scores(0.5, 1.0, 1.0, 1.0, 1.0)
    trained = Trained(
        settings=settings, state=Recogniser(settings).network.state_dict(), threshold=0.45, best_epoch=1,
        history=[Epoch(1, 0.1, 0.5, 0.5, scores)], sweep=[scores], val_clips=["a"], val_probabilities=np.ones(1, np.float32),
        val_labels=np.ones(1, np.int64), class_weights=(1.0, 1.0),
    )  # fmt: skip
    package.save(trained, folder, {"dataset_revision": "abc"})
    return folder


@pytest.fixture(scope="module")
def package_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_package(tmp_path_factory.mktemp("made") / "package")


@pytest.fixture(scope="module")
def paced_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that brings every clip to 10 frames a second."""
    return write_package(tmp_path_factory.mktemp("paced") / "package", 10.0)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="module")
def registry(home: Path) -> Registry:
    return Registry(f"sqlite:///{home / 'mlflow.db'}", home / "artifacts")


@pytest.fixture(scope="module")
def version(registry: Registry, package_folder: Path) -> str:
    with registry.start_run("try", {"purpose": "test"}) as run:
        run.log_params({"train": {"learning_rate": 0.1}})
        run.log_metrics([{"val_f1": 0.5}, {"val_f1": 0.7}])
        run.log_dataset("dataset", "ab" * 16, "data/dataset", {"train": 3})
        return registry.register(run.run_id, package_folder, {"dataset_revision": "ab" * 16})


def test_a_registry_that_was_never_used_has_no_champion_and_costs_no_database(tmp_path: Path) -> None:
    unused = Registry(f"sqlite:///{tmp_path / 'none.db'}", tmp_path / "artifacts")
    assert unused.alias("champion") is None
    assert unused.versions() == []
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    "written",
    [
        "http://u:secret@h:abc",
        "http://secret:99999",
        "http://[::secret",
        "http://",
        "sqlite://",
        "sqlite:///",
        "secret",
    ],
)
def test_an_address_that_is_none_of_mlflow_is_refused_by_its_variable_without_being_shown(written: str) -> None:
    with pytest.raises(UsageError, match="VIOLENCE_OPS_MLFLOW_URI is no address of MLflow") as refusal:
        Registry(written, None)
    assert "secret" not in str(refusal.value)
    with pytest.raises(UsageError, match="is no address of MLflow"):
        Registry.at(written)


def test_a_registered_version_carries_its_tags_and_its_run_its_metrics(
    registry: Registry, version: str, package_folder: Path
) -> None:
    from mlflow.tracking import MlflowClient

    assert registry.tags(version) == {"dataset_revision": "ab" * 16, "package_sha256": folder_sha256(package_folder)}
    run = MlflowClient(registry.uri).get_run(registry.version(version).run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.source.name"].startswith("violence-ops ")
    assert run.data.params == {"train.learning_rate": "0.1"}
    assert run.data.metrics["val_f1"] == 0.7
    assert run.inputs.dataset_inputs[0].dataset.digest == "ab" * 16


def test_no_file_of_a_registered_model_is_a_pickle(registry: Registry, version: str, home: Path) -> None:
    names = {path.name for path in (home / "artifacts").rglob("*") if path.is_file()}
    assert {"model.safetensors", "config.json", "thresholds.json", "MODEL_CARD.md", "registry_model.py"} <= names
    assert not [name for name in names if Path(name).suffix in (".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib")]


def test_a_registered_model_asks_no_package_index_for_this_project(
    registry: Registry, version: str, home: Path
) -> None:
    (requirements,) = {path.read_text() for path in (home / "artifacts").rglob("requirements.txt")}
    assert [line.partition("==")[0] for line in requirements.splitlines()] == ["mlflow"]
    for name in ("conda.yaml", "python_env.yaml"):
        for path in (home / "artifacts").rglob(name):
            assert "violence" not in path.read_text()


def test_the_download_is_the_package_that_was_registered(
    registry: Registry, version: str, package_folder: Path, tmp_path: Path
) -> None:
    fetched = registry.download(version, tmp_path / "fetched")
    assert {p.name: p.read_bytes() for p in fetched.iterdir()} == {
        p.name: p.read_bytes() for p in package_folder.iterdir()
    }
    assert package.load(fetched).threshold == 0.45


def table(**facts: float) -> pd.DataFrame:
    """A request: two clips with two persons in 40 frames."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "clip_id": clip, "width": 640, "height": 360, "frame_count": 40, "frame": frame, "rank": rank, "movement": 0.5,
            "keypoints": (100 + 100 * rng.random(34)).tolist(), "keypoint_scores": [0.9] * 17, **facts,
        }
        for clip in ("a" * 20, "b" * 20)
        for frame in range(40)
        for rank in (1, 2)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_mlflow_loads_the_model_with_unpickling_forbidden(
    registry: Registry, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.set_tracking_uri(registry.uri)
    model = mlflow.pyfunc.load_model(f"models:/{MODEL}/{version}")
    found = model.predict(table())  # this model needs no frame rate
    assert list(found["clip_id"]) == ["a" * 20, "b" * 20]
    assert found["probability"].between(0, 1).all()
    assert set(found["verdict"]) <= {"Fight", "NonFight"}


def test_a_joint_that_is_no_number_was_not_seen(registry: Registry, version: str) -> None:
    import mlflow

    mlflow.set_tracking_uri(registry.uri)
    model = mlflow.pyfunc.load_model(f"models:/{MODEL}/{version}")
    hidden, missing = table(), table()
    for joint in range(34):
        hidden.at[3, "keypoints"][joint] = 0.0
        missing.at[3, "keypoints"][joint] = float("nan")
    hidden.at[3, "keypoint_scores"] = [0.0] * 17
    expected, found = (model.predict(one)["probability"].tolist() for one in (hidden, missing))
    assert found == expected
    assert min(found) > 0


def test_a_clip_for_which_the_model_gives_no_number_is_refused(registry: Registry, version: str) -> None:
    import mlflow

    mlflow.set_tracking_uri(registry.uri)
    model = mlflow.pyfunc.load_model(f"models:/{MODEL}/{version}")
    with pytest.raises(mlflow.MlflowException, match="gives no number for clip"):
        model.predict(table().assign(keypoints=[[3e38, -3e38] * 17] * len(table())))


@pytest.mark.parametrize(
    ("column", "change", "said"),
    [
        ("frame", lambda rows: rows["frame"] + 1000, "is 1000 in a clip of 40 frames"),
        ("frame", lambda rows: rows["frame"] - 1, "is -1 in a clip"),
        ("frame", lambda rows: rows["frame"] + 3_000_000_000, "is 3000000000 in a clip"),
        ("rank", lambda rows: rows["rank"] - 1, "takes 2 values from 0 to 1"),
        ("rank", lambda rows: rows["rank"] + 50, "takes 2 values from 51 to 52"),
        ("rank", lambda rows: rows["rank"].replace(2, 7), "takes 2 values from 1 to 7"),
        ("rank", lambda rows: 1, "comes twice in one frame"),
        ("width", lambda rows: 0, "is 0"),
        ("height", lambda rows: rows["frame"] + 360, "differs from row to row"),
        ("frame_count", lambda rows: -5, "is -5"),
        ("frame_count", lambda rows: 50_000_000, "is 50,000,000"),
        ("fps", lambda rows: -25.0, "is -25"),
        ("movement", lambda rows: float("nan"), "is nan"),
        ("keypoints", lambda rows: [one[:33] for one in rows["keypoints"]], "holds 33 numbers"),
        ("keypoint_scores", lambda rows: [one[:16] for one in rows["keypoint_scores"]], "holds 16 numbers"),
    ],
)
def test_a_request_that_no_clip_can_be_is_refused_by_clip_and_column(
    registry: Registry, version: str, column: str, change: Callable[[pd.DataFrame], object], said: str
) -> None:
    import mlflow

    mlflow.set_tracking_uri(registry.uri)
    model = mlflow.pyfunc.load_model(f"models:/{MODEL}/{version}")
    rows = table(fps=15.0)
    with pytest.raises(mlflow.MlflowException, match=rf"^Clip a{{20}} cannot be judged, `{column}` {said}") as refusal:
        model.predict(rows.assign(**{column: change(rows)}))
    assert refusal.value.error_code == "INVALID_PARAMETER_VALUE"


def test_a_clip_that_would_last_for_days_is_refused(registry: Registry, version: str) -> None:
    import mlflow

    mlflow.set_tracking_uri(registry.uri)
    model = mlflow.pyfunc.load_model(f"models:/{MODEL}/{version}")
    with pytest.raises(mlflow.MlflowException, match=r"`frame_count` is 40 at 1e-06 frames/s: cut it"):
        model.predict(table(fps=1e-6))


def test_a_clip_may_be_as_long_as_a_new_workspace_takes_it() -> None:
    validation = load_params(Path(__file__).parents[1] / "params.yaml").validation
    frames, seconds = validation.max_frames, validation.max_duration_s
    (row,) = table()[:1].to_dict(orient="records")
    longest = row | {"frame_count": frames, "fps": frames / seconds}
    columns = {name: pd.Series([value]).to_numpy() for name, value in longest.items()}
    assert to_tracks("a", columns).frame_count == frames
    for beyond in ({"frame_count": np.array([frames + 1])}, {"fps": np.array([0.99 * frames / seconds])}):
        with pytest.raises(UserError, match=f"at most {frames:,} frames and {seconds:g} s"):
            to_tracks("a", columns | beyond)


def test_a_row_without_a_clip_is_refused_and_not_left_out(registry: Registry, version: str) -> None:
    import mlflow

    mlflow.set_tracking_uri(registry.uri)
    model = mlflow.pyfunc.load_model(f"models:/{MODEL}/{version}")
    rows = table()
    for lacking in (rows.index[:1], rows.index):
        rows.loc[lacking, "clip_id"] = None
        with pytest.raises(mlflow.MlflowException, match="has no `clip_id`"):
            model.predict(rows)


def test_a_model_that_brings_clips_to_one_rate_is_served_with_theirs_and_says_so_without(
    registry: Registry, paced_folder: Path
) -> None:
    import mlflow
    from mlflow.exceptions import MlflowException

    with registry.start_run("paced", {}) as run:
        version = registry.register(run.run_id, paced_folder, {})
    model = mlflow.pyfunc.load_model(f"models:/{MODEL}/{version}")
    fast, slow = (model.predict(table(fps=fps))["probability"].tolist() for fps in (30.0, 15.0))
    assert fast != slow
    with pytest.raises(MlflowException, match=r"Clip a{20} has no frame rate, .*: give it as `fps`"):
        model.predict(table())


def test_a_model_that_cannot_answer_its_own_example_is_not_registered(
    registry: Registry, version: str, paced_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = registry.versions()
    example = request().drop(columns="fps")
    monkeypatch.setattr("violence_ops.registry_request.request", lambda: example)
    with (
        pytest.raises(UserError, match=r"cannot answer its own example of a request, .*: Clip 0{20} has no frame rate"),
        registry.start_run("unfit", {}) as run,
    ):
        registry.register(run.run_id, paced_folder, {})
    assert registry.versions() == before


def test_all_versions_are_found_oldest_first_also_where_they_fill_many_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    many = Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")
    many.check()
    client = MlflowClient(many.uri, many.uri)
    client.create_registered_model(MODEL)
    for number in range(1, 12):
        client.create_model_version(MODEL, source=(tmp_path / str(number)).as_uri())
    monkeypatch.setattr("violence_ops.registry._PAGE", 3)
    assert [one.version for one in many.versions()] == [str(number) for number in range(1, 12)]


def test_an_alias_moves_only_from_where_it_is_expected_to_be(registry: Registry, version: str) -> None:
    registry.set_alias("champion", version, expected=None)
    assert registry.alias("champion") == version
    with pytest.raises(WorkspaceError, match=f"champion is version {version} by now, not none"):
        registry.set_alias("champion", version, expected=None)
    registry.set_alias("champion", None, expected=version)
    assert registry.alias("champion") is None


def test_an_unknown_version_is_said_in_one_sentence(registry: Registry, version: str) -> None:
    with pytest.raises(UserError, match="has no version 99"):
        registry.version("99")


@pytest.fixture
def nobody_there() -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_an_mlflow_that_is_down_is_said_at_once_and_in_one_sentence(nobody_there: str, tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match=r"MLflow at .* cannot be reached .*: start it with `violence-ops up`"):
        Registry(nobody_there, tmp_path).check()


def test_the_password_in_an_address_is_never_said(nobody_there: str, tmp_path: Path) -> None:
    registry = Registry(nobody_there.replace("//", "//ops:hunter2@"), tmp_path)
    with pytest.raises(ServiceUnavailable, match=rf"MLflow at {nobody_there} cannot be reached"):
        registry.check()
    with pytest.raises(UsageError) as refusal:
        Registry.at("http://ops:hunter2@h:abc")
    assert "hunter2" not in str(refusal.value)


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """What answers as MLflow would be asked for a run `abc`, to whoever gives the password; else it says the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            secret = base64.b64encode(b"ops:hunter2").decode()
            known = "runs/get" in self.path and self.headers["Authorization"] == f"Basic {secret}"
            info = {"run_id": "abc", "experiment_id": "7", "status": "FINISHED", "lifecycle_stage": "active"}
            self.send_response(200 if known else 403)
            self.end_headers()
            self.wfile.write(
                json.dumps({"run": {"info": info}}).encode() if known else b"http://ops:hunter2@h is closed"
            )

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    yield listening
    listening.shutdown()
    listening.server_close()


def test_a_password_lets_in_and_is_not_in_the_address_of_a_run_nor_in_what_mlflow_says(
    server: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    address = f"127.0.0.1:{server.server_port}"
    registry = Registry(f"http://ops:hunter2@{address}", tmp_path)
    assert registry.run_url("abc") == f"http://{address}/#/experiments/7/runs/abc"
    with registry.run("abc") as run:
        assert "hunter2" not in run.url
    with pytest.raises(UserError, match=f"MLflow at http://{address} ") as refusal:
        registry.check()
    assert "http://h is closed" in str(refusal.value)
    assert "hunter2" not in "".join(traceback.format_exception(refusal.value))


def test_nor_is_it_said_of_a_server_that_hangs_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang_up() -> None:
            for _ in range(2):  # the knock, then the question
                listening.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        registry = Registry(f"http://ops:hunter2@{address}", tmp_path)
        with pytest.raises(ServiceUnavailable, match=f"MLflow at http://{address} cannot be reached") as refusal:
            registry.check()
        thread.join()
    assert "hunter2" not in "".join(traceback.format_exception(refusal.value))


def test_a_package_that_was_changed_here_is_fetched_again_and_one_exchanged_in_the_store_is_refused(
    tmp_path: Path, package_folder: Path
) -> None:
    registry = Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")
    with registry.start_run("try", {}) as run:
        version = registry.register(run.run_id, package_folder, {})
    fetched = registry.download(version, tmp_path / "cache" / version)
    for name in ("thresholds.json", "training.json"):
        (fetched / name).write_text('{"threshold": 0.001}')
        registry.download(version, fetched)
        assert package.load(fetched).threshold == 0.45
        assert folder_sha256(fetched) == folder_sha256(package_folder)
    assert [path.name for path in fetched.parent.iterdir()] == [version]

    for path in (*(tmp_path / "artifacts").rglob("thresholds.json"), fetched / "thresholds.json"):
        path.write_text('{"threshold": 0.001}')
    with pytest.raises(
        WorkspaceError, match=r"package of model version 1 .* was exchanged or is damaged .*: restore the store"
    ):
        registry.download(version, fetched)


def test_code_that_was_exchanged_in_the_store_while_a_model_is_registered_does_not_run(
    tmp_path: Path, package_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    real, marker = mlflow.pyfunc.log_model, tmp_path / "ran"

    def exchanged(**model: Any) -> Any:
        logged = real(**model)
        for path in (tmp_path / "artifacts").rglob("registry_model.py"):
            path.write_text(f"{path.read_text()}\nopen({str(marker)!r}, 'w')\n")
        return logged

    monkeypatch.setattr(mlflow.pyfunc, "log_model", exchanged)
    registry = Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")
    with registry.start_run("try", {}) as run:
        assert registry.register(run.run_id, package_folder, {}) == "1"
    assert not marker.exists()


def test_one_file_of_a_package_comes_without_the_others_and_from_what_was_fetched_if_that_is_whole(
    registry: Registry, version: str, package_folder: Path, tmp_path: Path
) -> None:
    fetched, card = tmp_path / "cache" / version, package_folder / "MODEL_CARD.md"
    with registry.package_file(version, card.name, fetched) as found:
        assert found is not None
        assert found.read_bytes() == card.read_bytes()
    assert not found.exists()
    assert not fetched.parent.exists()
    with registry.package_file(version, "none.json", fetched) as missing:
        assert missing is None
    registry.download(version, fetched)
    with registry.package_file(version, card.name, fetched) as found:
        assert found == fetched / card.name
    (fetched / card.name).write_text("of another model")
    with registry.package_file(version, card.name, fetched) as found:
        assert found is not None
        assert found.read_bytes() == card.read_bytes()


def test_a_version_whose_package_is_lost_is_refused_in_one_sentence(tmp_path: Path, package_folder: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")
    with registry.start_run("try", {}) as run:
        version = registry.register(run.run_id, package_folder, {})
    for folder in list((tmp_path / "artifacts").rglob("package")):
        shutil.rmtree(folder)
    with pytest.raises(WorkspaceError, match="has no package in MLflow's artifact store"):
        registry.download(version, tmp_path / "cache" / version)
    assert not (tmp_path / "cache" / version).exists()
    with (
        pytest.raises(WorkspaceError, match="has no package in MLflow's artifact store"),
        registry.package_file(version, "training.json", tmp_path / "cache" / version),
    ):
        pass
