"""SIGKILL before any change that ingest, validate or seal make to the disk, then run again: the sealed batch is the same."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from violence_ops import versioning
from violence_ops.stages.nightly import ingest, seal, validate
from violence_ops.store import quarantine
from violence_ops.workspace import Workspace

pytestmark = pytest.mark.slow
NIGHT = date(2026, 1, 1)
POINTS = 14


def night(root: Path, annotate: Callable[[Workspace, str], None], kill_at: int | None, changes: Any) -> None:
    """One whole night in this process, which kills itself before the `kill_at`-th change of a file's name."""
    for name in ("rename", "replace", "link", "unlink", "rmdir"):
        original = getattr(os, name)

        def counted(*arguments: Any, original: Any = original, **options: Any) -> Any:
            changes.value += 1
            if changes.value == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        setattr(os, name, counted)
    workspace = Workspace.open(root)
    params = workspace.params()
    ingest.run(workspace, params, night=NIGHT)
    validate.run(workspace, params)
    for folder in workspace.work.glob("*/batch.json"):
        annotate(workspace, folder.parent.name)
    seal.run(workspace, params)


def in_a_process(
    root: Path, annotate: Callable[[Workspace, str], None], kill_at: int | None = None
) -> tuple[int | None, int]:
    """Exit code, and how many changes were made."""
    context = multiprocessing.get_context("fork")
    changes = context.Value("i", 0)
    process = context.Process(target=night, args=(root, annotate, kill_at, changes))
    process.start()
    process.join()
    return process.exitcode, changes.value


def content(workspace: Workspace) -> dict[str, Any]:
    files = {
        str(path.relative_to(workspace.root)): path.read_bytes()
        for folder in (workspace.batches, workspace.quarantine, workspace.progress)
        for path in folder.rglob("*")
        # killed while it records progress, a stage may leave its hidden temporary file there, which nothing reads
        if path.is_file()
        and path.name != "batch.json"
        and path.suffix != ".dvc"
        and not (folder == workspace.progress and path.suffix == ".tmp")
    }
    (batch,) = workspace.sealed_batches()
    manifest = json.loads(batch.manifest.read_text())
    return {
        "files": files,
        "manifest": {key: value for key, value in manifest.items() if key not in ("run", "code_revision")},
    }


def test_a_night_killed_anywhere_and_run_again_seals_the_same_batch(
    workspace: Workspace,
    tmp_path: Path,
    clip_folder: Path,
    broken_folder: Path,
    write_annotations: Callable[[Workspace, str], None],
) -> None:
    import great_expectations  # noqa: F401  once, before the forks

    for folder in (clip_folder, broken_folder):
        shutil.copytree(folder, workspace.inbox / folder.name)
    (workspace.inbox / "copy.mp4").write_bytes((clip_folder / "clip0.mp4").read_bytes())
    (workspace.inbox / "link.mp4").symlink_to("/etc/passwd")
    pristine = shutil.copytree(workspace.root, tmp_path / "pristine", symlinks=True)
    code, changes = in_a_process(workspace.root, write_annotations)
    assert code == 0
    expected = content(workspace)
    for kill_at in range(1, changes, max(1, changes // POINTS)):
        disturbed = Workspace(shutil.copytree(pristine, tmp_path / f"killed-{kill_at}", symlinks=True))
        code, _ = in_a_process(disturbed.root, write_annotations, kill_at)
        assert code == -signal.SIGKILL, kill_at
        code, _ = in_a_process(disturbed.root, write_annotations)
        assert code == 0, kill_at
        assert content(disturbed) == expected, kill_at
        assert versioning.versioned_batches(disturbed) == {disturbed.sealed_batches()[0].batch_id}
        assert len(list(quarantine.entries(disturbed))) == len(list(quarantine.entries(workspace)))
        leftovers = [path for path in disturbed.work.iterdir() if path.name not in ("locks", "claims", "sealing")]
        assert not leftovers
        assert not list(disturbed.claims.iterdir()), kill_at
        shutil.rmtree(disturbed.root)
