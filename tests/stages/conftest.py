"""A workspace with a real MLflow registry of three versions, and evaluations to judge them by."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from violence_ops.evaluation import judgement
from violence_ops.evaluation.records import DataChecks, HoldoutFacts, JudgedClip, Latency, Leakage, ModelFacts, Timings
from violence_ops.params import Params
from violence_ops.registry import MODEL, Registry
from violence_ops.workspace import Workspace, write_json

Judge = Callable[..., str]


@pytest.fixture(scope="session")
def registry_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with versions 1, 2 and 3; making one takes seconds, copying one does not."""
    from mlflow.tracking import MlflowClient

    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    Registry(uri, folder).check()
    client = MlflowClient(uri, uri)
    client.create_registered_model(MODEL)
    for _ in range(3):
        client.create_model_version(MODEL, source=folder.as_uri())
    return folder / "mlflow.db"


@pytest.fixture
def released(workspace: Workspace, registry_template: Path) -> Workspace:
    """A workspace whose registry has three versions and no alias."""
    shutil.copy(registry_template, workspace.root / "mlflow.db")
    return workspace


@pytest.fixture
def registry(released: Workspace) -> Registry:
    return Registry(released.mlflow_uri, released.mlflow_artifacts)


@pytest.fixture
def params(workspace: Workspace) -> Params:
    return workspace.params()


@pytest.fixture
def write_evaluation(released: Workspace) -> Judge:
    """`write(candidate, champion=None, wrong=0)`: an evaluation in the workspace, as `evaluate` leaves it; returns its name.

    The candidate has `wrong` of 24 clips wrong, the champion one.
    """

    def write(candidate: str, champion: str | None = None, wrong: int = 0, p95_ms: float = 9.0) -> str:
        name = f"{candidate}-vs-{champion or 'none'}"
        revision = "ab" * 16
        clips = [_clip(i, i < wrong, i == 12 if champion else None) for i in range(24)]
        time = Latency(p50_ms=4.0, p95_ms=p95_ms, peak_memory_mb=500.0)

        def model(version: str) -> ModelFacts:
            return ModelFacts(
                version=version, threshold=0.5, lineage={}, holdout_version="v1", holdout_revision=revision
            )

        made = judgement.evaluate(
            clips, name=name, holdout=HoldoutFacts(version="v1", revision=revision, batches=()), candidate=model(candidate),
            champion=model(champion) if champion else None, timings=Timings(candidate=time, champion=time if champion else None),
            checks=DataChecks(near_duplicate_bits=0, candidate=Leakage(), champion=Leakage() if champion else None),
            confidence=0.9, resamples=500,
        )  # fmt: skip
        write_json(released.report(name).evaluation, made.to_dict())
        released.write_progress("evaluate", {"report": name})
        return name

    return write


def _clip(number: int, own_wrong: bool, other_wrong: bool | None) -> JudgedClip:
    fight = number % 2 == 0

    def made(wrong: bool) -> judgement.Prediction:
        says_fight = fight != wrong
        return judgement.prediction(0.9 if says_fight else 0.1, "Fight" if says_fight else "NonFight")

    return JudgedClip(
        clip_id=f"{number:020x}", label="Fight" if fight else "NonFight", source_group=f"g{number}", batch_id="2026-01-01-00000000",
        source_path=f"inbox/{number}.mp4", slices={"camera": "door"}, candidate=made(own_wrong),
        champion=None if other_wrong is None else made(other_wrong),
    )  # fmt: skip
