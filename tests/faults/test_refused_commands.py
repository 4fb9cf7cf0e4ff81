"""What must not be learned from or released is refused by the command itself: one sentence, and nothing half done.

The rest of this list: two promotions at once, an approval by somebody who may not, and what else can be wrong with a ledger, in
tests/stages/releasing/test_promote.py; such an approval over REST in tests/pipeline/test_night_under_airflow.py.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from violence_ops.files import sha256_file, write_table
from violence_ops.records import CLIPS_SCHEMA, ClipRecord
from violence_ops.registry import EXPERIMENT, MODEL
from violence_ops.stages.labelling import labels
from violence_ops.stages.learning import assemble, train
from violence_ops.stages.releasing import evaluate, gate, holdout, promote
from violence_ops.stages.upkeep import init
from violence_ops.store.releases import open_registry
from violence_ops.workspace import Workspace

Seal = Callable[..., list[ClipRecord]]
SMALL = {
    "train.epochs": 1, "train.min_epochs": 1, "train.start": None, "train.base_channels": 8,
    "gate.min_f1": 0.0, "gate.min_recall": 0.0,
    "gate.min_specificity": 0.0, "gate.min_auc": 0.0, "gate.min_clips": 1, "gate.max_ece": 1.0, "gate.max_latency_ms": 60_000.0,
    "gate.resamples": 100, "gate.min_f1_difference": -1.0, "gate.max_slice_loss": 1.0,
}  # fmt: skip


def refused(workspace: Workspace, *arguments: str, code: int = 1) -> str:
    """The sentence with which a command refuses, having changed nothing that a later command looks at."""
    before = _state(workspace)
    command = [sys.executable, "-m", "violence_ops.cli", *arguments, "--workspace", str(workspace.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert _state(workspace) == before
    return done.stderr


def _state(workspace: Workspace) -> dict[str, Any]:
    folders = (workspace.data, workspace.reports, workspace.ledger.parent)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    state: dict[str, Any] = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    head = ["git", "-C", str(workspace.root), "rev-parse", "HEAD"]
    state["commit"] = subprocess.run(head, capture_output=True, check=True).stdout
    registry = open_registry(workspace)
    state["aliases"] = [registry.alias("champion"), registry.alias("candidate")]
    state["versions"] = [one.version for one in registry.versions()]
    return state


@contextmanager
def replaced(path: Path, content: bytes) -> Iterator[None]:
    """A file with other bytes for a while; what it was linked to stays as it is."""
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    yield
    path.unlink()
    path.write_bytes(whole)


@pytest.mark.parametrize(
    ("label", "sentence"),
    [(None, "No sealed batch holds a labelled clip"), ("Fight", "All clips to train on (24) are Fight: label clips of the other class")],
    ids=["no label", "one class"],
)  # fmt: skip
def test_a_dataset_without_two_classes(
    workspace: Workspace, seal_tracks: Seal, label: str | None, sentence: str
) -> None:
    seal_tracks(workspace, labels=lambda _: label)
    assert sentence in refused(workspace, "assemble")
    assert not workspace.dataset.exists()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, seal_tracks: Seal) -> Workspace:
    """Champion 1 was released; candidate 2, trained while the holdout was out of the way, has seen its clips. No test changes it."""
    root = tmp_path_factory.mktemp("refusals") / "site"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("VIOLENCE_OPS_WORKSPACE", raising=False)
        init.run(root, params_overrides=SMALL)
        workspace = Workspace.open(root)
        params = workspace.params()
        seal_tracks(workspace, clips=48)  # of which five source groups are held out
        holdout.freeze(workspace, params)
        assemble.run(workspace, params)
        train.run(workspace, params)
        evaluate.run(workspace, params)
        assert gate.run(workspace, params).verdict == "pass"
        promote.run(workspace, params, approved_by="admin")
        shutil.move(workspace.holdouts, root / "elsewhere")
        careless = workspace.params({"holdout.auto_freeze": False})
        assemble.run(workspace, careless)
        train.run(workspace, careless)
        shutil.move(root / "elsewhere", workspace.holdouts)
    return workspace


@pytest.mark.slow
def test_a_group_on_both_sides_of_training_and_judging(site: Workspace) -> None:
    name = evaluate.run(site, site.params()).report
    assert "source groups with the holdout" in " ".join(gate.run(site, site.params()).reasons)
    assert "The gate says refuse" in refused(site, "gate", code=3)
    assert f"verdict on {name} is refuse" in refused(site, "promote", "--approve", "--by", "admin", code=3)


@pytest.mark.slow
def test_an_empty_holdout(site: Workspace) -> None:
    table, facts = site.holdout("v1") / "clips.parquet", site.holdout("v1") / "holdout.json"
    empty = site.root / "empty.parquet"
    write_table(empty, CLIPS_SCHEMA.empty_table())
    content = json.loads(facts.read_text("utf-8"))
    content["sha256"]["clips.parquet"] = sha256_file(empty)
    content["revision"] = sha256_file(empty)[:16] + content["revision"][16:]
    with replaced(table, empty.read_bytes()), replaced(facts, json.dumps(content).encode()):
        assert "Holdout v1 holds no clip: freeze another" in refused(site, "evaluate")


@pytest.mark.slow
def test_a_stale_holdout(site: Workspace) -> None:
    clip = holdout.held_out(site)[0]
    labels.run(site, clip.clip_id, "NonFight" if clip.label == "Fight" else "Fight", by="ada")
    evaluate.run(site, site.params(), candidate="1", force=True)
    assert "1 of its clips has another label by now" in " ".join(gate.run(site, site.params()).reasons)
    assert "The gate says undecided" in refused(site, "gate", code=3)
    labels.run(site, clip.clip_id, clip.label or "", by="ada")


@pytest.mark.slow
def test_a_loss_that_becomes_nan(site: Workspace) -> None:
    said = refused(site, "train", "-S", "train.learning_rate=1e30", "-S", "train.gradient_clip=1e30")
    assert "diverged in epoch 1" in said
    assert "lower train.learning_rate" in said
    client = MlflowClient(site.mlflow_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment
    newest, *before = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])
    assert newest.info.status == "FAILED"
    assert {run.info.status for run in before} == {"FINISHED"}


@pytest.mark.slow
def test_a_champion_whose_package_is_damaged(site: Workspace) -> None:
    shutil.rmtree(site.cache / "models")
    model_id = MlflowClient(site.mlflow_uri).get_model_version(MODEL, "1").source.rpartition("/")[2]
    (weights,) = [path for path in site.mlflow_artifacts.rglob("*.safetensors") if model_id in path.parts]
    with replaced(weights, weights.read_bytes()[:1000]):
        said = refused(site, "evaluate", "--candidate", "2", "--force")
        assert "model version 1 in MLflow's artifact store was exchanged or is damaged" in said
    shutil.rmtree(site.cache / "models")


@pytest.mark.slow
def test_a_ledger_whose_chain_is_broken(site: Workspace) -> None:
    with replaced(site.ledger, site.ledger.read_bytes().replace(b'"actor":"admin"', b'"actor":"eve"', 1)):
        for command in (
            ["ledger", "verify"],
            ["gate"],
            ["promote", "--approve", "--by", "admin"],
            ["rollback", "--by", "admin", "--reason", "false alarms"],
        ):
            assert "was changed after it was written" in refused(site, *command), command
