"""DVC's experiments: they learn beside the workspace, which goes on meanwhile and loses nothing."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import yaml
from mlflow.tracking import MlflowClient

from violence_ops import git, versioning, versioning_experiment
from violence_ops.records import ClipRecord
from violence_ops.stages.learning import assemble, experiment
from violence_ops.stages.provenance import forget
from violence_ops.stages.releasing import approval, gate, ledger_log
from violence_ops.stages.upkeep import status
from violence_ops.store import releases, tombstones
from violence_ops.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture
def assembled(
    released: Workspace, seal_whole: Callable[..., list[ClipRecord]], write_evaluation: Callable[..., str]
) -> Workspace:
    """A sealed batch, its dataset, and version 1 judged by the gate; `train.dropout: 0.4` is not committed."""
    gate.run(released, released.params(), report=write_evaluation("1"))
    (released.root / "mlflow.db").unlink()  # its versions have no files
    seal_whole(released, judged_by="1")
    versioning.add_batch(released, released.sealed_batches()[0])
    released.write_progress("seal", {"batches": 1})
    assemble.run(released, released.params())
    text = released.params_file.read_text("utf-8")
    released.params_file.write_text(text.replace("dropout: 0.5", "dropout: 0.4"))
    return released


def dvc(folder: Path, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "violence_ops.cli", "dvc", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environ
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def until(process: subprocess.Popen[str], said: str) -> None:
    """Wait until a process has said it."""
    assert process.stdout
    assert process.stderr
    assert any(said in line for line in process.stdout), process.stderr.read()


def plain_git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True).stdout


def test_an_experiment_learns_while_others_decide_and_a_night_arrives(assembled: Workspace, clip_folder: Path) -> None:
    before = plain_git(assembled.root, "status", "--short")
    running = dvc(assembled.root, "exp", "run", "-n", "seven", "-S", "train.seed=7", "-S", "train.epochs=2", "train")
    while running.poll() is None and not (assembled.experiment / ".cache" / "training").exists():
        time.sleep(0.1)
    with assembled.lock("train"):
        assert running.poll() is None, "a training beside it need not wait: " + "".join(running.communicate())
    assert plain_git(assembled.root, "branch", "--show-current") == "main\n"
    (assembled.inbox / "late.mp4").write_bytes((clip_folder / "clip0.mp4").read_bytes())
    for reason in ("worse at night", "worse in rain"):
        approval.refuse(assembled, assembled.params(), by="admin", reason=reason)
    said, errors = running.communicate(timeout=600)
    assert running.returncode == 0, said + errors
    assert "Ran experiment(s): seven" in said
    assert "applied to your workspace" not in said

    assert plain_git(assembled.root, "log", "--format=%s", "main").splitlines()[:2] == [
        "Ledger: refusal by admin, 1-vs-none worse in rain",
        "Ledger: refusal by admin, 1-vs-none worse at night",
    ]
    assert ledger_log.verify(assembled).champion is None
    assert (assembled.inbox / "late.mp4").is_file(), "an experiment takes no clips in"
    assert plain_git(assembled.root, "status", "--short") == before, (
        "what was not committed stays so, and nothing comes to it"
    )
    assert not assembled.experiment.exists()

    registry = releases.open_registry(assembled)
    assert registry.alias("candidate") is None
    (version,) = [one.version for one in registry.versions()]
    assert f"`violence-ops evaluate --candidate {version}`" in said
    found = MlflowClient(assembled.mlflow_uri).get_run(registry.version(version).run_id)
    asked = {"train.seed": "7", "train.epochs": "2", "train.dropout": "0.4"}
    assert found.data.params | asked == found.data.params
    assert found.data.tags["holdout"] == "v1"
    assert found.data.tags["workspace_revision"] == plain_git(assembled.root, "rev-parse", "main~2").strip()
    assert (registry.download(version, assembled.model_package(version)) / "model.safetensors").is_file()

    said, _ = dvc(assembled.root, "exp", "show", "-A", "--csv").communicate(timeout=60)
    (seven,) = [row for row in csv.DictReader(said.splitlines()) if row["Experiment"] == "seven"]
    figures = {name.rpartition(":")[2]: value for name, value in seven.items()}
    assert float(figures["val_f1"]) == pytest.approx(found.data.metrics["best_f1"], abs=1e-3)
    assert not figures.get("holdout_f1"), "it was not judged"
    applied = dvc(assembled.root, "exp", "apply", "seven")
    said, errors = applied.communicate(timeout=60)
    assert applied.returncode == 2
    assert "would undo what came after" in errors
    assert ledger_log.verify(assembled).champion is None


@pytest.mark.parametrize(
    "more", [["ingest"], ["train", "gate"], ["--queue"], ["--downstream", "assemble"], ["--all-pipelines"]]
)
def test_an_experiment_takes_no_clips_in_and_judges_and_releases_nothing(workspace: Workspace, more: list[str]) -> None:
    refused = dvc(workspace.root, "exp", "run", "-S", "train.seed=7", *more)
    _, errors = refused.communicate(timeout=60)
    assert refused.returncode == 2
    assert "An experiment runs assemble and train, at once and nothing else" in errors
    assert not workspace.experiment.exists()


def test_killed_it_keeps_its_folder_from_the_next_and_told_to_end_it_leaves_nothing(assembled: Workspace) -> None:
    learn = ("exp", "run", "-S", "train.seed=7", "train")
    first = dvc(assembled.root, *learn)
    until(first, "Running stage 'train'")
    (orphan,) = psutil.Process(first.pid).children()
    first.kill()
    first.wait()
    second = dvc(assembled.root, *learn)
    until(second, "Another experiment runs in this workspace")
    assert orphan.is_running()
    os.killpg(orphan.pid, signal.SIGKILL)
    until(second, "Running stage 'train'")
    second.terminate()
    assert second.wait(60) == 128 + signal.SIGTERM
    assert not assembled.experiment.exists()
    found = [process.info["cwd"] for process in psutil.process_iter(["cwd"])]
    assert not [cwd for cwd in found if cwd and Path(cwd).is_relative_to(assembled.root)]


@pytest.mark.parametrize("name", ["Ada", None])
def test_an_experiment_is_committed_in_the_name_that_the_workspace_has(
    assembled: Workspace, tmp_path: Path, name: str | None
) -> None:
    """Whatever files lie beside it."""
    if name:
        plain_git(assembled.root, "config", "user.name", name)
        plain_git(assembled.root, "config", "user.email", "ada@example.org")
    (assembled.root / os.fsdecode(b"caf\xe9.txt")).write_text("a name that is no UTF-8")
    (assembled.root / "nights").symlink_to("data/batches")
    nobody = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(tmp_path)}
    ran = dvc(assembled.root, "exp", "run", "-n", "half", "-S", "dataset.validation_share=0.5", "assemble", **nobody)
    said, errors = ran.communicate(timeout=300)
    assert ran.returncode == 0, said + errors
    assert "--candidate" not in said
    kept = plain_git(assembled.root, "for-each-ref", "--format=%(authorname), %(committername)", "refs/exps/*/*/half")
    assert kept == "{0}, {0}\n".format(name or "violence-ops")


def test_a_clip_forgotten_while_an_experiment_ran_is_to_be_forgotten_again(
    assembled: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def is_stored() -> bool:
        files = [path for path in (assembled.root / ".dvc" / "cache").rglob("*") if path.is_file()]
        tables = [pq.ParquetFile(path) for path in files if path.read_bytes()[:4] == b"PAR1"]
        named = [table for table in tables if "clip_id" in table.schema_arrow.names]
        return any(clip_id in table.read(["clip_id"])["clip_id"].to_pylist() for table in named)

    clip_id = min(pq.read_table(assembled.dataset / "train.parquet").column("clip_id").to_pylist())
    run = versioning_experiment.Copy.run

    def run_and_forget(
        copy: versioning_experiment.Copy, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> int:
        code, made = run(copy, arguments, environment), copy.workspace.dataset
        shutil.copytree(made, tmp_path / "made")
        forget.run(assembled, assembled.params(), clip_id, by="ann", reason="the person asked")
        assert tombstones.is_finished(assembled, clip_id)
        assert not is_stored()
        # as if the experiment had read the clip before and stored its dataset after
        shutil.rmtree(made)
        shutil.copytree(tmp_path / "made", made)
        with versioning.repository(copy.workspace) as repo:
            repo.commit(target=f"{copy.workspace.dvc_file}:assemble", force=True)
        return code

    monkeypatch.setattr(versioning_experiment.Copy, "run", run_and_forget)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert experiment.run(assembled, ["exp", "run", "-S", "dataset.validation_share=0.5", "assemble"]) == 0
    assert f"`violence-ops forget {clip_id}`" in capsys.readouterr().out
    assert is_stored()
    assert any(clip_id in sentence for sentence in status.run(assembled).half_forgotten)
    forget.run(assembled, assembled.params(), clip_id)
    assert not is_stored()
    assert tombstones.is_finished(assembled, clip_id)


def test_the_first_holdout_is_frozen_before_an_experiment(workspace: Workspace) -> None:
    refused = dvc(workspace.root, "exp", "run", "-S", "train.seed=7")
    _, errors = refused.communicate(timeout=60)
    assert refused.returncode == 2
    assert "run `violence-ops holdout freeze` first" in errors
    assert not workspace.experiment.exists()


def test_large_files_that_git_neither_has_nor_ignores_are_not_copied(workspace: Workspace) -> None:
    (workspace.root / "films").mkdir()
    for name in ("one.mp4", "two.mp4"):
        with (workspace.root / "films" / name).open("wb") as film:
            film.truncate(60 << 20)
    refused = dvc(workspace.root, "exp", "run", "train")
    _, errors = refused.communicate(timeout=60)
    assert refused.returncode == 2
    assert "films alone is 120 MiB" in " ".join(errors.split())
    assert not workspace.experiment.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_workspace_of_another_user_is_copied_and_given_the_experiment(workspace: Workspace) -> None:
    for path in (workspace.root, *workspace.root.rglob("*")):
        os.lchown(path, 1000, 1000)
    with versioning_experiment.copied(workspace) as copy:
        kept = f"{versioning_experiment._kept(git.revision(copy.workspace))}/mine"
        git.run(copy.workspace, "update-ref", kept, "HEAD")
        copy.hand_over()
    assert git.run(workspace, "rev-parse", kept) == git.revision(workspace)


def test_a_command_line_that_dvc_does_not_understand_is_refused_once(workspace: Workspace) -> None:
    refused = dvc(workspace.root, "exp", "run", "--no-such-option")
    said, errors = refused.communicate(timeout=60)
    assert refused.returncode == 254
    assert (said + errors).count("--no-such-option") == 1


def test_an_experiment_that_began_here_can_be_applied(released: Workspace) -> None:
    workspace = released
    for stage in yaml.safe_load(workspace.dvc_file.read_text("utf-8"))["stages"]:
        workspace.write_progress(stage, {})
    for stage in ("train", "evaluate"):
        workspace.write_metrics(stage, {})
    workspace.dataset.mkdir()
    workspace.write_progress("train", {"model_version": "1"})
    git.commit(workspace, [workspace.progress], "Candidate 1")
    workspace.write_progress("train", {"model_version": "2"})
    text = workspace.params_file.read_text("utf-8")
    changed = text.replace("epochs: 4", "epochs: 5", 1)
    assert changed != text
    workspace.params_file.write_text(changed)
    assert dvc(workspace.root, "exp", "save", "-n", "five").wait(60) == 0
    workspace.params_file.write_text(text)
    workspace.write_progress("train", {"model_version": "1"})
    assert dvc(workspace.root, "exp", "apply", "five").wait(60) == 0
    assert workspace.params_file.read_text("utf-8") == changed
    assert releases.open_registry(workspace).alias("candidate") == "2"
    assert plain_git(workspace.root, "branch", "--show-current") == "main\n"


def test_a_dataset_of_then_is_had_in_a_folder_of_its_own(assembled: Workspace) -> None:
    """As README.md says it."""
    then = plain_git(assembled.root, "rev-parse", "HEAD").strip()
    revision = assembled.read_progress("assemble")["revision"]
    (assembled.dataset / "split.json").unlink()
    assembled.write_progress("seal", {"batches": 2})
    assemble.run(assembled, assembled.params({"dataset.validation_share": 0.5}))
    plain_git(assembled.root, "worktree", "add", "--quiet", "../then", then)
    folder = assembled.root.parent / "then"
    cache = os.path.relpath(assembled.root / ".dvc" / "cache", folder)
    assert dvc(folder, "cache", "dir", "--local", cache).wait(60) == 0
    checked_out = dvc(folder, "checkout")
    assert checked_out.wait(60) == 0, checked_out.communicate()
    assert revision in (folder / "data" / "dataset" / "split.json").read_text("utf-8")
    assert revision not in (assembled.dataset / "split.json").read_text("utf-8")
    assert plain_git(assembled.root, "branch", "--show-current") == "main\n"
    assert ledger_log.verify(assembled).champion is None
