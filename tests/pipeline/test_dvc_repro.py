"""The pipeline by hand: after a night DVC has nothing to redo, and `dvc repro` goes through to the gate's verdict."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from mlflow.tracking import MlflowClient

from violence_ops.records import ClipRecord
from violence_ops.stages import synth
from violence_ops.stages.releases import open_registry
from violence_ops.workspace import Workspace

pytestmark = pytest.mark.slow
NIGHT = {"ingest", "validate", "extract-poses", "annotate", "score", "seal"}
LEARNING = ["assemble", "train", "evaluate", "gate"]


def run(workspace: Workspace, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "violence_ops.cli", *arguments],
        cwd=workspace.root,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_after_a_night_dvc_has_nothing_to_redo_until_a_file_is_dropped(
    new_workspace: Callable[..., Workspace],
) -> None:
    workspace = new_workspace(**{"expectations.max_share_without_person": 1.0, "annotation.workers": 1})
    assert json.loads(run(workspace, "dvc", "status", "--json")).keys() >= NIGHT
    synth.run(workspace.inbox, clips=2, seed=3, groups=2, with_truth=False, duration_s=1.0)
    run(workspace, "night", "--night", "2026-01-31")
    assert len(workspace.sealed_batches()) == 1
    assert not NIGHT & json.loads(run(workspace, "dvc", "status", "--json")).keys()
    changes = subprocess.run(["git", "status", "--short"], cwd=workspace.root, capture_output=True, check=True)
    assert changes.stdout == b""

    synth.run(workspace.inbox, clips=1, seed=4, groups=1, with_truth=False, duration_s=1.0)
    assert NIGHT & json.loads(run(workspace, "dvc", "status", "--json")).keys() == {"ingest"}


def test_a_refused_candidate_is_a_result_and_no_failed_pipeline(
    new_workspace: Callable[..., Workspace], seal_tracks: Callable[..., list[ClipRecord]]
) -> None:
    workspace = new_workspace(
        **{"train.base_channels": 8, "train.epochs": 1, "gate.min_f1": 1.0, "gate.resamples": 100}
    )
    seal_tracks(workspace)
    workspace.write_progress("seal", {"batches": 1})
    run(workspace, "dvc", "repro", "--single-item", *LEARNING)
    assert workspace.read_progress("gate")["verdict"] != "pass"
    assert not set(LEARNING) & json.loads(run(workspace, "dvc", "status", "--json")).keys()
    assert run(workspace, "dvc", "repro", "--single-item", *LEARNING).count("didn't change, skipping") == len(LEARNING)


def test_an_experiment_trains_with_other_settings(
    new_workspace: Callable[..., Workspace], seal_tracks: Callable[..., list[ClipRecord]]
) -> None:
    workspace = new_workspace(**{"train.base_channels": 8, "train.epochs": 1})
    seal_tracks(workspace)
    workspace.write_progress("seal", {"batches": 1})
    run(workspace, "dvc", "repro", "--single-item", "assemble")
    subprocess.run(["git", "commit", "-q", "-a", "-m", "Assembled"], cwd=workspace.root, check=False)
    run(workspace, "dvc", "exp", "run", "--single-item", "-S", "train.epochs=2", "train")
    version = workspace.read_progress("train")["model_version"]
    logged = MlflowClient(workspace.mlflow_uri).get_run(open_registry(workspace).version(version).run_id)
    assert logged.data.params["train.epochs"] == "2"
