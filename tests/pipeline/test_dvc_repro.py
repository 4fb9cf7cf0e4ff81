"""The pipeline by hand: after a night DVC has nothing to redo, and `dvc repro` goes through to the gate's verdict."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from violence_ops.records import ClipRecord
from violence_ops.stages.releasing import holdout
from violence_ops.stages.upkeep import synth
from violence_ops.store import labels_file
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
    workspace = new_workspace(**{"annotation.workers": 1})
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
    small_workspace: Callable[..., Workspace], seal_tracks: Callable[..., list[ClipRecord]]
) -> None:
    workspace = small_workspace(**{"train.epochs": 1, "gate.min_f1": 1.0, "gate.resamples": 100})
    seal_tracks(workspace)
    workspace.write_progress("seal", {"batches": 1})
    run(workspace, "dvc", "repro", "--single-item", *LEARNING)
    assert workspace.read_progress("gate")["verdict"] != "pass"
    shown = json.loads(run(workspace, "dvc", "metrics", "show", "--json"))[""]["data"]
    trained, judged = (shown[f"data/progress/{name}-metrics.json"]["data"] for name in ("train", "evaluate"))
    assert {"val_f1", "val_loss", "threshold", "best_epoch"} <= trained.keys()
    assert judged["candidate"] == "1"
    assert judged["holdout_f1"] == workspace.read_progress("evaluate")["f1"]
    assert not set(LEARNING) & json.loads(run(workspace, "dvc", "status", "--json")).keys()
    assert run(workspace, "dvc", "repro", "--single-item", *LEARNING).count("didn't change, skipping") == len(LEARNING)


def test_a_corrected_label_of_the_holdout_is_judged_anew_and_nothing_is_trained_for_it(
    small_workspace: Callable[..., Workspace], seal_tracks: Callable[..., list[ClipRecord]]
) -> None:
    workspace = small_workspace(**{"train.epochs": 1, "gate.resamples": 100})
    seal_tracks(workspace)
    workspace.write_progress("seal", {"batches": 1})
    run(workspace, "dvc", "repro", "--single-item", *LEARNING)
    held, *_ = holdout.held_out(workspace)
    other = "NonFight" if held.label == "Fight" else "Fight"

    labels_file.record(workspace, {held.clip_id: held.label or "Fight"}, "ada")
    assert _ran(run(workspace, "dvc", "repro", "--single-item", *LEARNING)) == ["assemble"]
    labels_file.record(workspace, {held.clip_id: other}, "ada")
    assert _ran(run(workspace, "dvc", "repro", "--single-item", *LEARNING)) == ["assemble", "evaluate", "gate"]
    found = json.loads(workspace.report("1-vs-none").evaluation.read_text())
    assert found["checks"]["relabelled"] == [held.clip_id]
    assert "1 of its clips has another label" in workspace.report("1-vs-none").gate.read_text()
    assert _ran(run(workspace, "dvc", "repro", "--single-item", *LEARNING)) == []
    assert not set(LEARNING) & json.loads(run(workspace, "dvc", "status", "--json")).keys()


def _ran(said: str) -> list[str]:
    return [name for name in LEARNING if f"Running stage '{name}'" in said]
