"""MLflow is lost at every moment of a training: a clear refusal, nothing half registered, and a retry that goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from violence_ops.errors import ServiceUnavailable
from violence_ops.records import ClipRecord
from violence_ops.registry import MODEL
from violence_ops.stages.learning import assemble, sweep, train
from violence_ops.store import trained_on
from violence_ops.store.releases import open_registry
from violence_ops.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture
def with_dataset(seal_tracks: Callable[..., list[ClipRecord]]) -> Callable[[Workspace], Workspace]:
    """Fills a workspace up to its dataset, before any server is named."""

    def fill(workspace: Workspace) -> Workspace:
        seal_tracks(workspace)
        assemble.run(workspace, workspace.params())
        return workspace

    return fill


def test_a_training_survives_the_loss_of_mlflow_before_during_and_after_it(
    server: Any,
    small_workspace: Callable[..., Workspace],
    with_dataset: Callable[[Workspace], Workspace],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace = with_dataset(small_workspace(**{"train.epochs": 3}))
    monkeypatch.setenv("VIOLENCE_OPS_MLFLOW_URI", server.url)
    workspace, params = Workspace.open(workspace.root), workspace.params()

    with pytest.raises(ServiceUnavailable, match=rf"MLflow at {server.url} cannot be reached"):
        train.run(workspace, params)
    assert not (workspace.cache / "training").exists(), "it trained although the result could not be registered"

    server.start()

    def lose_mlflow(what: str, done: int, total: int) -> None:
        if done == 2:
            server.stop()

    with pytest.raises(ServiceUnavailable, match=rf"MLflow at {server.url} cannot be reached"):
        train.run(workspace, params, progress=lose_mlflow)
    assert workspace.read_progress("train") == {}

    server.start()
    registry = open_registry(workspace)
    assert registry.versions() == []
    assert registry.alias("candidate") is None

    epochs: list[int] = []
    result = train.run(workspace, params, progress=lambda what, done, total: epochs.append(done))
    assert epochs == [], "the retry trained again what it had already"
    with registry.run(result.run_id) as run:
        assert run.steps("val_f1") == {1, 2, 3}, "what MLflow missed is there too"
        runs = run.client.search_runs([run.client.get_run(run.run_id).info.experiment_id])
    assert [one.info.status for one in runs] == ["FINISHED"], "it is one run"
    assert result.model_version == registry.alias("candidate") == "1"
    assert result.run_url.startswith(f"{server.url}/#/experiments/")
    assert workspace.read_progress("train")["model_version"] == "1"
    record = trained_on.read(workspace, "1")
    assert record["dataset_revision"] == workspace.read_progress("assemble")["revision"]
    assert not workspace.model_package("1").exists()
    package = registry.download("1", workspace.model_package("1"))
    assert (package / "model.safetensors").is_file()
    assert (package / "training.json").is_file()


def test_a_sweep_that_loses_mlflow_ends_with_the_best_settings_that_it_has_found(
    server: Any,
    small_workspace: Callable[..., Workspace],
    with_dataset: Callable[[Workspace], Workspace],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace = with_dataset(small_workspace(**{"train.epochs": 1}))
    monkeypatch.setenv("VIOLENCE_OPS_MLFLOW_URI", server.url)
    workspace = Workspace.open(workspace.root)
    params = workspace.params({"train.momentum": 0.8, "train.lr_steps": [3, 5]})
    server.start()
    fit, tried = train.fit, []

    def lose_mlflow_after_the_second(changed: Any, *arguments: Any) -> Any:
        trained = fit(changed, *arguments)
        best = trained.history[trained.best_epoch - 1]
        tried.append((best.val.f1 - 1e-3 * best.val_loss, changed.train.learning_rate))
        if len(tried) == 2:
            server.stop()
        return trained

    monkeypatch.setattr(train, "fit", lose_mlflow_after_the_second)
    with pytest.raises(ServiceUnavailable, match=rf"MLflow at {server.url} cannot be reached") as lost:
        sweep.run(workspace, params, trials=4)
    assert len(tried) == 2, "it went on without MLflow"
    best = tried.index(max(tried))
    assert f"of 2 trials trained until then trial {best} is the best (validation F1 " in str(lost.value)
    command = "violence-ops train -S train.momentum=0.8 -S 'train.lr_steps=[3, 5]' -S train.learning_rate="
    assert f"`{command}{tried[best][1]} -S train.weight_decay=" in str(lost.value)


def test_a_server_that_dies_while_it_takes_the_model_leaves_no_version_without_files(
    server: Any,
    small_workspace: Callable[..., Workspace],
    with_dataset: Callable[[Workspace], Workspace],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlflow.tracking import MlflowClient

    workspace = with_dataset(small_workspace(**{"train.epochs": 1}))
    monkeypatch.setenv("VIOLENCE_OPS_MLFLOW_URI", server.url)
    workspace, params = Workspace.open(workspace.root), workspace.params()
    server.start()

    create = MlflowClient.create_model_version

    def die_first(*arguments: object, **keywords: object) -> object:
        server.stop()
        return create(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", die_first)
        with pytest.raises(ServiceUnavailable):
            train.run(workspace, params)
    server.start()
    registry = open_registry(workspace)
    assert registry.versions() == []
    assert registry.alias("candidate") is None
    assert train.run(workspace, params).model_version == "1"
    assert [version.version for version in registry.versions()] == ["1"]
    assert MODEL == "violence-detector"
