"""Backup and restore: the commands of docs/backup.md, run as they are, bring a lost workspace back."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from violence_ops import git, versioning
from violence_ops.files import write_json
from violence_ops.registry import MODEL
from violence_ops.stages.labelling import labels
from violence_ops.stages.nightly import ingest, seal, validate
from violence_ops.stages.upkeep import init, status
from violence_ops.store import releases
from violence_ops.workspace import Workspace

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[2] / "docs" / "backup.md"


def commands(title: str) -> str:
    """The commands below a title of the page."""
    return PAGE.read_text().partition(f"## {title}\n")[2].partition("```bash\n")[2].partition("```")[0]


def shell(script: str, site: Path, backup: Path) -> None:
    """Run commands of the page with other places than the page's."""
    here = script.replace("/srv/cctv", str(site)).replace("/backup", str(backup))
    identity = {f"GIT_{who}_{what}": "ann@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | identity | {"PATH": path}
    done = subprocess.run(
        ["bash", "-euxc", here], cwd=site.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def every_day(day: str) -> str:
    """The daily commands as they run on another day than today."""
    return commands("Every day").replace("$(date +%F)", day)


def night(workspace: Workspace, annotate: Callable[[Workspace, str], None], day: int, *files: Path) -> str:
    for file in files:
        shutil.copy(file, workspace.inbox)
    (batch_id,) = ingest.run(workspace, workspace.params(), night=date(2026, 1, day)).batch_ids
    validate.run(workspace, workspace.params(), batch_id=batch_id)
    annotate(workspace, batch_id)
    seal.run(workspace, workspace.params(), batch_id=batch_id)
    return batch_id


def release(workspace: Workspace) -> None:
    """A first version becomes the champion."""
    registry = releases.open_registry(workspace)
    registry.check()
    client = MlflowClient(workspace.mlflow_uri, workspace.mlflow_uri)
    client.create_registered_model(MODEL)
    client.create_model_version(MODEL, source=workspace.root.as_uri())
    with workspace.lock("release"):
        releases.move(workspace, registry, event="promotion", actor="admin", to="1", expected=None, facts={})


def test_a_workspace_that_was_lost_is_brought_back_by_the_commands_of_the_page(
    tmp_path: Path, clip_folder: Path, broken_folder: Path, write_annotations: Callable[[Workspace, str], None]
) -> None:
    root, backup = tmp_path / "site", tmp_path / "backup"
    backup.mkdir()
    init.run(root, params_overrides={"ingest.settle_s": 0})
    workspace = Workspace.open(root)
    clips = sorted(clip_folder.glob("*.mp4"))
    first = night(workspace, write_annotations, 1, *clips[:3], sorted(broken_folder.iterdir())[0])
    shell(commands("Once"), root, backup)
    second = night(workspace, write_annotations, 2, *clips[3:])
    release(workspace)
    labelled = next(workspace.batch(first).videos.iterdir()).stem
    labels.run(workspace, labelled, "Fight", "ann")
    (workspace.inbox / "waits.mp4").write_bytes(b"tomorrow's")
    write_json(workspace.services / "keys.json", {"fernet": "secret"})
    workspace.airflow_home.mkdir()
    with sqlite3.connect(workspace.airflow_database) as running:  # open, as under Airflow
        running.execute("PRAGMA journal_mode=WAL")
        running.execute("CREATE TABLE runs (name)")
        running.execute("INSERT INTO runs VALUES ('night')")
        running.commit()
        shell(commands("Every day"), root, backup)
    running.close()
    before = status.run(workspace).to_dict()
    head, tags = git.revision(workspace), versioning.versioned_batches(workspace)
    files = {path.relative_to(root): path.read_bytes() for path in workspace.batches.rglob("*") if path.is_file()}
    shutil.rmtree(root)

    elsewhere = tmp_path / "another" / "machine"
    elsewhere.parent.mkdir()
    shell(commands("Restore"), elsewhere, backup)  # the last commands are `ledger verify`, `check` and `status`
    restored = Workspace.open(elsewhere)
    assert {path: (elsewhere / path).read_bytes() for path in files} == files
    assert (git.revision(restored), versioning.versioned_batches(restored)) == (head, tags)
    assert tags == {first, second}
    assert status.run(restored).to_dict() == before | {"workspace": str(elsewhere)}
    assert before["clips"]["quarantined"] == 1
    assert releases.champion(restored) == "1"
    assert "Fight" in restored.labels_file.read_text()
    assert (restored.inbox / "waits.mp4").read_bytes() == b"tomorrow's"
    assert (restored.services / "keys.json").is_file()
    with sqlite3.connect(restored.airflow_database) as runs:
        assert runs.execute("SELECT * FROM runs").fetchall() == [("night",)]
    # it goes on: a clip that the lost one had is known, and data goes where the lost one sent it
    (restored.inbox / "waits.mp4").unlink()
    shutil.copy(clips[0], restored.inbox)
    assert ingest.run(restored, restored.params(), night=date(2026, 1, 3)).batch_ids == []
    settings = (restored.root / ".dvc" / "config").read_bytes()
    assert str(backup / "dvc").encode() in settings
    shutil.rmtree(restored.root / ".dvc" / "tmp")
    init.run(restored.root)
    assert (restored.root / ".dvc" / "config").read_bytes() == settings
    assert (restored.root / ".dvc" / "cache").is_dir()


def test_a_day_stores_only_what_changed_and_leaves_the_days_before_it_as_they_were(tmp_path: Path) -> None:
    root, backup = tmp_path / "site", tmp_path / "backup"
    backup.mkdir()
    init.run(root)
    shell(commands("Once"), root, backup)
    files = {name: root / name for name in ("quarantine/a/original.mp4", "quarantine/a/reason.json", "quarantine/b/original.mp4",
                                            "mlartifacts/1/model.onnx", "mlartifacts/1/growing.txt")}  # fmt: skip
    for name, path in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    long_ago = backup / "2025-11-01"
    long_ago.mkdir()
    os.utime(long_ago, (time.time() - 60 * 86400,) * 2)
    shell(every_day("2026-01-01"), root, backup)
    assert not long_ago.exists()
    first, second = backup / "2026-01-01", backup / "2026-01-02"
    before = {name: (first / name).read_text() for name in files}

    write_json(files["quarantine/a/reason.json"], {"reason": "truncated"})
    with files["mlartifacts/1/growing.txt"].open("a") as growing:
        growing.write("another line")
    shutil.rmtree(files["quarantine/b/original.mp4"].parent)
    shell(every_day("2026-01-02"), root, backup)
    shell(every_day("2026-01-02"), root, backup)  # again, as after a failure

    assert {name: (first / name).read_text() for name in files} == before
    for folder in ("quarantine", "mlartifacts"):
        kept, copied = (
            {path.relative_to(place): path.read_bytes() for path in (place / folder).rglob("*") if path.is_file()}
            for place in (root, second)
        )
        assert copied == kept
    assert not (second / "quarantine" / "b").exists()
    linked = {name for name in files if (second / name).exists() and (second / name).samefile(first / name)}
    assert linked == {"quarantine/a/original.mp4", "mlartifacts/1/model.onnx"}
    assert not any(path.samefile(first / name) for name, path in files.items() if path.exists())
