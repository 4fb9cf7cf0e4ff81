"""DVC's experiments: they learn beside the workspace, which goes on meanwhile and loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from mlflow.tracking import MlflowClient

from violence_ops import versioning
from violence_ops.records import ClipRecord
from violence_ops.stages import assemble, gate, promote, releases, rollback
from violence_ops.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture
def assembled(
    released: Workspace, seal_tracks: Callable[..., list[ClipRecord]], write_evaluation: Callable[..., str]
) -> Workspace:
    """A sealed batch, its dataset, and version 1 judged by the gate; `train.base_channels: 8` is not committed."""
    gate.run(released, released.params(), report=write_evaluation("1"))
    (released.root / "mlflow.db").unlink()  # its versions have no files
    seal_tracks(released)
    versioning.add_batch(released, released.sealed_batches()[0])
    released.write_progress("seal", {"batches": 1})
    assemble.run(released, released.params())
    text = released.params_file.read_text("utf-8")
    released.params_file.write_text(text.replace("base_channels: 16", "base_channels: 8"))
    return released


def dvc(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "violence_ops.cli", "dvc", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True).stdout


def test_an_experiment_learns_while_others_decide_and_a_night_arrives(assembled: Workspace, clip_folder: Path) -> None:
    before = git(assembled.root, "status", "--short")
    running = dvc(assembled.root, "exp", "run", "-n", "seven", "-S", "train.seed=7", "-S", "train.epochs=2", "train")
    while running.poll() is None and not (assembled.experiment / ".cache" / "training").exists():
        time.sleep(0.1)
    assert running.poll() is None, running.communicate()
    assert git(assembled.root, "branch", "--show-current") == "main\n"
    (assembled.inbox / "late.mp4").write_bytes((clip_folder / "clip0.mp4").read_bytes())
    for reason in ("worse at night", "worse in rain"):
        promote.refuse(assembled, assembled.params(), by="admin", reason=reason)
    said, errors = running.communicate(timeout=600)
    assert running.returncode == 0, said + errors
    assert "Ran experiment(s): seven" in said
    assert "applied to your workspace" not in said

    assert git(assembled.root, "log", "--format=%s", "main").splitlines()[:2] == [
        "Ledger: refusal by admin, 1-vs-none worse in rain",
        "Ledger: refusal by admin, 1-vs-none worse at night",
    ]
    assert rollback.verify_ledger(assembled).champion is None
    assert (assembled.inbox / "late.mp4").is_file(), "an experiment takes no clips in"
    assert git(assembled.root, "status", "--short") == before, (
        "what was not committed stays so, and nothing comes to it"
    )
    assert not assembled.experiment.exists()

    registry = releases.open_registry(assembled)
    version = registry.alias("candidate")
    assert version == "1"
    found = MlflowClient(assembled.mlflow_uri).get_run(registry.version(version).run_id)
    asked = {"train.seed": "7", "train.epochs": "2", "train.base_channels": "8"}
    assert found.data.params | asked == found.data.params
    assert found.data.tags["holdout"] == "v1"
    assert found.data.tags["workspace_revision"] == git(assembled.root, "rev-parse", "main~2").strip()
    assert (registry.download(version, assembled.model_package(version)) / "model.safetensors").is_file()

    said, _ = dvc(assembled.root, "exp", "show", "-A", "--csv").communicate(timeout=60)
    assert "seven" in said
    applied = dvc(assembled.root, "exp", "apply", "seven")
    said, errors = applied.communicate(timeout=60)
    assert applied.returncode == 2
    assert "would take back what came after" in errors
    assert rollback.verify_ledger(assembled).champion is None


@pytest.mark.parametrize(
    "more", [["ingest"], ["train", "gate"], ["--queue"], ["--downstream", "assemble"], ["--all-pipelines"]]
)
def test_an_experiment_takes_no_clips_in_and_judges_and_releases_nothing(workspace: Workspace, more: list[str]) -> None:
    refused = dvc(workspace.root, "exp", "run", "-S", "train.seed=7", *more)
    _, errors = refused.communicate(timeout=60)
    assert refused.returncode == 2
    assert "An experiment runs assemble and train, at once and nothing else" in errors
    assert not workspace.experiment.exists()


def test_an_experiment_that_began_here_can_be_applied(workspace: Workspace) -> None:
    for stage in yaml.safe_load(workspace.dvc_file.read_text("utf-8"))["stages"]:
        workspace.write_progress(stage, {})
    workspace.dataset.mkdir()
    text = workspace.params_file.read_text("utf-8")
    changed = text.replace("epochs: 50", "epochs: 5", 1)
    workspace.params_file.write_text(changed)
    assert dvc(workspace.root, "exp", "save", "-n", "five").wait(60) == 0
    workspace.params_file.write_text(text)
    assert dvc(workspace.root, "exp", "apply", "five").wait(60) == 0
    assert workspace.params_file.read_text("utf-8") == changed
    assert git(workspace.root, "branch", "--show-current") == "main\n"


def test_a_dataset_of_then_is_had_in_a_folder_of_its_own(assembled: Workspace) -> None:
    """As README.md says it."""
    then = git(assembled.root, "rev-parse", "HEAD").strip()
    revision = assembled.read_progress("assemble")["revision"]
    (assembled.dataset / "split.json").unlink()
    assembled.write_progress("seal", {"batches": 2})
    assemble.run(assembled, assembled.params({"dataset.validation_share": 0.5}))
    git(assembled.root, "worktree", "add", "--quiet", "../then", then)
    folder = assembled.root.parent / "then"
    cache = os.path.relpath(assembled.root / ".dvc" / "cache", folder)
    assert dvc(folder, "cache", "dir", "--local", cache).wait(60) == 0
    checked_out = dvc(folder, "checkout")
    assert checked_out.wait(60) == 0, checked_out.communicate()
    assert revision in (folder / "data" / "dataset" / "split.json").read_text("utf-8")
    assert revision not in (assembled.dataset / "split.json").read_text("utf-8")
    assert git(assembled.root, "branch", "--show-current") == "main\n"
    assert rollback.verify_ledger(assembled).champion is None
