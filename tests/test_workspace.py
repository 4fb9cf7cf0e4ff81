"""Making a workspace, its paths, and writing so that nothing is ever half there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from violence_ops import services
from violence_ops.errors import ParamsError, UsageError, WorkspaceError
from violence_ops.files import atomic_path, read_fingerprint, write_json, write_table
from violence_ops.stages.upkeep import init
from violence_ops.workspace import Workspace


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def test_init_makes_a_git_and_dvc_repository_with_a_clean_first_commit(workspace: Workspace) -> None:
    assert git(workspace.root, "status", "--short") == ""
    assert git(workspace.root, "log", "--format=%s by %an") == "New workspace by violence-ops"
    assert {"params.yaml", "dvc.yaml", "data/labels.csv", "inbox/.gitkeep"} <= set(
        git(workspace.root, "ls-files").split()
    )


def test_init_again_changes_nothing(workspace: Workspace) -> None:
    workspace.params_file.write_text(workspace.params_file.read_text().replace("epochs: 4", "epochs: 7"))
    before = git(workspace.root, "rev-parse", "HEAD")
    assert not init.run(workspace.root).created
    assert workspace.params().train.epochs == 7
    assert git(workspace.root, "rev-parse", "HEAD") == before


def test_init_refuses_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        init.run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_init_refuses_a_folder_that_another_repository_tracks(tmp_path: Path) -> None:
    inner = tmp_path / "tracked"
    inner.mkdir()
    (inner / "file").write_text("x")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    (inner / "file").unlink()
    with pytest.raises(UsageError, match="another git repository"):
        init.run(inner)


def test_init_in_an_ignored_folder_of_a_checkout_does_not_touch_the_checkout(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("/demo/\n")
    init.run(tmp_path / "demo")
    assert git(tmp_path, "status", "--short") == "?? .gitignore"
    assert (tmp_path / "demo" / ".git").is_dir()


def test_init_needs_no_git_identity(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "nobody")}
    code = f"from pathlib import Path; from violence_ops.stages.upkeep import init; init.run(Path({str(tmp_path / 'w')!r}))"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert git(tmp_path / "w", "log", "--format=%s") == "New workspace"


def test_init_takes_an_s3_compatible_remote(tmp_path: Path) -> None:
    init.run(tmp_path / "w", remote_url="s3://bucket/path", remote_endpoint="http://127.0.0.1:9000")
    config = (tmp_path / "w" / ".dvc" / "config").read_text()
    assert "url = s3://bucket/path" in config
    assert "endpointurl = http://127.0.0.1:9000" in config


@pytest.mark.parametrize(
    ("remote", "endpoint"), [("https://bob:hunter2@host/dvc", None), ("s3://bucket", "http://bob:hunter2@minio:9000")]
)
def test_init_writes_no_password_of_a_remote_where_git_keeps_it(
    tmp_path: Path, remote: str, endpoint: str | None
) -> None:
    with pytest.raises(UsageError, match=r"--local default password") as refused:
        init.run(tmp_path / "w", remote_url=remote, remote_endpoint=endpoint)
    assert "hunter2" not in str(refused.value)
    assert not any(b"hunter2" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_init_refuses_bad_overrides_and_keeps_the_comments_of_good_ones(
    new_workspace: Callable[..., Workspace],
) -> None:
    text = new_workspace(**{"train.epochs": 3}).params_file.read_text()
    assert yaml.safe_load(text)["train"]["epochs"] == 3
    assert "# ByteTrack, docs/annotation.md" in text
    with pytest.raises(ParamsError, match=r"train\.epochs"):
        new_workspace("other", **{"train.epochs": -3})


def test_a_refused_init_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    with pytest.raises(ParamsError):
        init.run(tmp_path / "w", params_overrides={"train.epochs": -3})
    assert not (tmp_path / "w").exists()
    assert init.run(tmp_path / "w").created


def test_an_init_killed_before_its_first_commit_is_completed(workspace: Workspace) -> None:
    shutil.rmtree(workspace.root / ".git")
    shutil.rmtree(workspace.root / ".dvc")
    assert init.run(workspace.root).created
    assert git(workspace.root, "status", "--short") == ""


def test_open_finds_the_workspace_above_and_says_what_to_do_if_there_is_none(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace.batches)
    assert Workspace.open() == workspace
    with pytest.raises(UsageError, match="violence-ops init"):
        Workspace.open(tmp_path)
    monkeypatch.setenv("VIOLENCE_OPS_WORKSPACE", str(workspace.root))
    monkeypatch.chdir(tmp_path)
    assert Workspace.open() == workspace


@pytest.mark.parametrize("name", ["../../etc", "2026-01-01", "", "2026-01-01-0a1b2c3g", "x/2026-01-01-0a1b2c3d"])
def test_a_batch_id_never_names_another_folder(workspace: Workspace, name: str) -> None:
    with pytest.raises(UsageError):
        workspace.batch(name)


@pytest.mark.parametrize("name", ["..", "", "0" * 19, "0" * 19 + "/"])
def test_a_clip_id_never_names_another_folder(workspace: Workspace, name: str) -> None:
    with pytest.raises(UsageError):
        workspace.quarantined(name)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def write_half() -> None:
        with atomic_path(tmp_path / "a.json") as temporary:
            temporary.write_text("half")
            raise RuntimeError

    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(RuntimeError):
        write_half()
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == '{\n  "old": 1\n}\n'


def test_a_table_carries_its_fingerprint(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", pa.table({"a": [1]}), "mark")
    assert read_fingerprint(tmp_path / "t.parquet") == "mark"
    assert read_fingerprint(tmp_path / "none.parquet") is None


def test_a_damaged_table_has_no_fingerprint_so_that_its_stage_makes_it_again(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", pa.table({"a": [1]}), "mark")
    whole = (tmp_path / "t.parquet").read_bytes()
    for damaged in (b"", whole[:-9], b"something else"):
        (tmp_path / "t.parquet").write_bytes(damaged)
        assert read_fingerprint(tmp_path / "t.parquet") is None


def test_a_lock_is_freed_when_its_holder_is_killed(workspace: Workspace) -> None:
    code = (
        "import sys, time; from pathlib import Path; from violence_ops.workspace import Workspace\n"
        "with Workspace(Path(sys.argv[1])).lock('x'): print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, workspace.root], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    with workspace.lock("x"):
        pass


def test_who_waits_for_a_lock_whose_file_is_removed_holds_the_one_that_others_find(workspace: Workspace) -> None:
    code = (
        "import sys; from pathlib import Path; from violence_ops.workspace import Workspace\n"
        "with Workspace(Path(sys.argv[1])).lock('x', waiting='waits'): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, workspace.root]
    with workspace.lock("x"):
        other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert other.stdout.readline() == "waits\n"
        assert not workspace.drop_lock("x")
        workspace.lock_file("x").unlink()
    assert other.stdout.readline() == "held\n"
    with pytest.raises(WorkspaceError, match=r"^Busy\.$"), workspace.lock("x", busy="Busy."):
        pass
    assert not workspace.drop_lock("x")
    other.communicate()
    assert workspace.drop_lock("x")
    assert not workspace.lock_file("x").exists()


def test_mlflow_is_the_deployments_else_the_running_server_else_the_database(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert workspace.mlflow_uri == workspace.mlflow_database
    write_json(workspace.service_addresses, {"airflow": "http://127.0.0.1:1", "mlflow": "http://127.0.0.1:2"})
    assert workspace.mlflow_uri == "http://127.0.0.1:2"
    monkeypatch.setenv("VIOLENCE_OPS_MLFLOW_URI", "http://mlflow.example:5000")
    assert Workspace(workspace.root).mlflow_uri == "http://mlflow.example:5000"
    services.down(workspace)
    assert workspace.mlflow_uri == workspace.mlflow_database
