"""What uploaders put into the inbox is data: nothing of it runs, also for somebody who works in that folder."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from violence_ops.files import write_json
from violence_ops.stages import ingest
from violence_ops.workspace import Workspace

PROGRAM = [sys.executable, "-P", "-m", "violence_ops.cli"]
SOURCES = Path(__file__).parents[2] / "src" / "violence_ops"


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300)


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
