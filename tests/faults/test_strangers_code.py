"""What uploaders put into the inbox is data: nothing of it runs, also for somebody who works in that folder."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from violence_ops import versioning_experiment
from violence_ops.errors import UsageError
from violence_ops.files import write_json, write_text
from violence_ops.git import commit
from violence_ops.git_history import lost_content
from violence_ops.stages.nightly import ingest
from violence_ops.workspace import Workspace

PROGRAM = [sys.executable, "-P", "-m", "violence_ops.cli"]
SOURCES = Path(__file__).parents[2] / "src" / "violence_ops"


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300)


def git(folder: Path, *arguments: str, given: bytes = b"") -> bytes:
    return subprocess.run(
        ["git", "-C", folder, *arguments], input=given, capture_output=True, check=True
    ).stdout.strip()


@pytest.fixture
def evil(tmp_path: Path) -> tuple[Path, Path]:
    """A program, and the file that it leaves if it runs."""
    program, marker = tmp_path / "evil.sh", tmp_path / "ran"
    program.write_text(f"#!/bin/sh\necho $0 $@ >> {marker}\n")
    program.chmod(0o755)
    return program, marker


@pytest.fixture
def modules(workspace: Workspace, tmp_path: Path, clip_folder: Path) -> Path:
    """What modules in the inbox leave if one is imported, by names that our programs import."""
    shutil.copy(clip_folder / "clip0.mp4", workspace.inbox)
    ingest.run(workspace, workspace.params(), night=date(2026, 1, 1))
    write_json(workspace.service_addresses, {"airflow": "http://127.0.0.1:1", "mlflow": workspace.mlflow_database})
    marker = tmp_path / "ran"
    for name in ("airflow", "av", "dvc", "json", "mlflow", "numpy", "sqlalchemy"):
        (workspace.inbox / f"{name}.py").write_text(f"open({str(marker)!r}, 'a').write({name!r})\n")
    return marker


@pytest.mark.parametrize("command", [("validate",), ("dvc", "status"), ("airflow", "version")], ids=lambda it: it[0])
def test_a_module_in_the_inbox_is_not_imported_by_who_works_there(
    workspace: Workspace, modules: Path, command: tuple[str, ...]
) -> None:
    done = run(*command, cwd=workspace.inbox)
    assert not modules.exists(), modules.read_text()
    assert done.returncode == 0, done.stderr


def test_our_python_is_started_in_one_way_alone() -> None:
    """By `deployment.python_module`, which keeps it from looking for modules in the current folder."""

    def starts(node: ast.AST) -> bool:
        return (
            isinstance(node, ast.List | ast.Tuple) and bool(node.elts) and ast.unparse(node.elts[0]) == "sys.executable"
        )

    files = {path.name for path in SOURCES.rglob("*.py") if any(map(starts, ast.walk(ast.parse(path.read_text()))))}
    assert files == {"deployment.py"}


def test_dvc_runs_no_pipeline_of_a_repository_in_the_inbox(workspace: Workspace, evil: tuple[Path, Path]) -> None:
    program, marker = evil
    planted = workspace.inbox / "tonight"
    (planted / ".dvc" / "tmp").mkdir(parents=True)
    (planted / ".dvc" / "config").touch()
    (planted / "dvc.yaml").write_text(f"stages: {{ingest: {{cmd: {program}}}}}\n")
    git(planted, "init", "-q")
    run("dvc", "repro", "ingest", cwd=planted)
    assert not marker.exists()
    assert (workspace.progress / "ingest.json").is_file()


def test_a_workspace_in_the_inbox_is_refused_unless_it_is_named(
    workspace: Workspace, new_workspace: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = workspace.inbox / "tonight"
    shutil.move(new_workspace("another").root, planted)
    for command in (("status",), ("dvc", "status"), ("airflow", "version")):
        done = run(*command, cwd=planted)
        assert done.returncode == 2
        assert done.stderr.startswith(f"The workspace {planted} was put into the inbox of {workspace.root}")
    assert Workspace.open(planted).root == planted
    monkeypatch.chdir(planted)
    monkeypatch.setenv("VIOLENCE_OPS_WORKSPACE", str(planted))
    assert Workspace.open().root == planted


@pytest.mark.parametrize("name", ["", "params.yaml", ".dvc", ".git"], ids=["folder", "parameters", "dvc", "git"])
def test_a_workspace_of_another_user_is_refused_unless_it_is_named(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(workspace.inbox)
    assert Workspace.open() == workspace
    if os.geteuid() == 0:
        os.chown(workspace.root / name, 65534, 65534)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        name = ""
    with pytest.raises(UsageError, match=rf"^{workspace.root / name} belongs to another user"):
        Workspace.open()
    assert Workspace.open(workspace.root) == workspace
    monkeypatch.setenv("VIOLENCE_OPS_WORKSPACE", str(workspace.root))
    assert Workspace.open() == workspace


def test_the_settings_of_a_workspaces_git_start_no_program(workspace: Workspace, evil: tuple[Path, Path]) -> None:
    program, marker = evil
    for name in (
        "gpg.program", "gpg.ssh.program", "gpg.x509.program", "core.pager", "pager.log", "pager.show", "pager.diff",
        "diff.external", "diff.all.command", "diff.all.textconv", "core.editor", "sequence.editor", "core.sshCommand",
        "core.askPass", "credential.helper", "core.fsmonitor", "core.alternateRefsCommand", "uploadpack.packObjectsHook",
    ):  # fmt: skip
        git(workspace.root, "config", name, str(program))
    for name in ("log.showSignature", "commit.gpgSign", "tag.gpgSign"):
        git(workspace.root, "config", name, "true")
    git(workspace.root, "config", "core.hooksPath", str(program.parent))
    (program.parent / "post-commit").symlink_to(program)
    (workspace.root / ".git" / "info" / "attributes").write_text("* diff=all\n")
    write_text(workspace.ledger, "one\n")
    commit(workspace, [workspace.ledger], "one")
    whole = git(workspace.root, "cat-file", "commit", "HEAD").replace(
        b"\n\n", b"\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n -----END PGP SIGNATURE-----\n\n", 1
    )
    signed = git(workspace.root, "hash-object", "-t", "commit", "-w", "--stdin", given=whole + b"\n").decode()
    git(workspace.root, "update-ref", "refs/heads/main", signed)
    write_text(workspace.ledger, "another\n")
    assert lost_content(workspace, workspace.ledger) == signed[: len(lost_content(workspace, workspace.ledger) or "")]
    commit(workspace, [workspace.ledger], "another")
    with versioning_experiment.copied(workspace) as copy:
        copy.hand_over()
    assert not marker.exists(), marker.read_text()
