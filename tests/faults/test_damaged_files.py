"""Small files of a workspace that a crash, a full disk or an editor has damaged: one sentence with a remedy, which helps."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from violence_ops.errors import UserError, WorkspaceError
from violence_ops.files import read_json
from violence_ops.stages.inspection import explain
from violence_ops.stages.nightly import ingest, night
from violence_ops.stages.provenance import lineage
from violence_ops.stages.releasing import holdout, reports
from violence_ops.stages.upkeep import status
from violence_ops.store import index, labels_file, quarantine, trained_on
from violence_ops.workspace import Workspace

NIGHT = date(2026, 1, 1)


@pytest.mark.parametrize(
    "content", [b"", b'{"a": 1', b"\xff\xfe", b"[1]", b"[" * 100_000], ids=lambda found: found[:6].hex()
)
def test_json_that_cannot_be_read_is_one_sentence_with_path_and_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.json"
    with pytest.raises(WorkspaceError, match=r"file.json is missing: call a friend\.$"):
        read_json(path, "call a friend")
    path.write_bytes(content)
    with pytest.raises(WorkspaceError, match=r"file.json is damaged \(.+\): call a friend\.$"):
        read_json(path, "call a friend")


def take_in(workspace: Workspace, names: str = "ab") -> list[str]:
    for name in names:
        (workspace.inbox / f"{name}.mp4").write_bytes(name.encode())
    (workspace.inbox / "..c.mp4").write_bytes(b"c")
    return ingest.run(workspace, workspace.params(), night=NIGHT).batch_ids


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("VIOLENCE_OPS_")}
    command = [sys.executable, "-m", "violence_ops.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("damage", ["whole", "page"])
def test_a_damaged_catalog_is_named_and_made_again_by_its_remedy(workspace: Workspace, damage: str) -> None:
    take_in(workspace)
    before = status.run(workspace).to_dict()
    catalog = workspace.root / "catalog.db"
    if damage == "whole":
        for journal in workspace.root.glob("catalog.db-*"):
            journal.unlink()
        catalog.write_bytes(b"garbage")
    else:
        with catalog.open("r+b") as handle:
            handle.seek(4096)
            handle.write(b"garbage" * 1000)
    done = run("status", cwd=workspace.root)
    assert done.returncode == 1
    assert "is damaged" in done.stderr
    assert "`violence-ops catalog rebuild`" in done.stderr
    assert "Traceback" not in done.stderr
    done = run("catalog", "rebuild", cwd=workspace.root)
    assert done.returncode == 0, done.stderr
    assert f"{catalog}.damaged" in done.stderr
    assert status.run(workspace).to_dict() == before
    assert index.rebuild(workspace).set_aside is None


@pytest.mark.slow
def test_an_unreadable_batch_stops_no_other(workspace: Workspace, clip_folder: Path) -> None:
    (cut_off,) = take_in(workspace)
    manifest = workspace.batch(cut_off).manifest
    manifest.write_bytes(manifest.read_bytes()[:50])
    (workspace.inbox / "clip.mp4").write_bytes((clip_folder / "clip0.mp4").read_bytes())
    params = workspace.params()
    result = night.run(workspace, params, night=NIGHT)
    assert list(result.stopped) == [cut_off]
    assert "batch.json is damaged" in result.stopped[cut_off]
    assert "`violence-ops check`" in result.stopped[cut_off]
    (other,) = set(result.batches) - {cut_off}
    assert workspace.batch(other).is_sealed


def test_the_verb_names_an_unreadable_batch_and_fails(workspace: Workspace) -> None:
    (cut_off,) = take_in(workspace)
    workspace.batch(cut_off).manifest.write_text("{")
    done = run("night", cwd=workspace.root)
    assert done.returncode == 1
    assert f"{cut_off}/batch.json is damaged" in done.stderr
    assert "Traceback" not in done.stderr


def damage_reason(workspace: Workspace) -> None:
    take_in(workspace)
    (entry,) = quarantine.entries(workspace)
    (workspace.quarantined(entry["clip_id"]) / "reason.json").write_text("{")


def damage_progress(workspace: Workspace) -> None:
    (workspace.progress / "evaluate.json").parent.mkdir(parents=True, exist_ok=True)
    (workspace.progress / "evaluate.json").write_text("{")


def damage_addresses(workspace: Workspace) -> None:
    workspace.service_addresses.parent.mkdir(parents=True, exist_ok=True)
    workspace.service_addresses.write_text("garbage")


def damage_labels(workspace: Workspace) -> None:
    workspace.labels_file.write_bytes(labels_file.HEADER.encode() + b"0" * 20 + b",Fight,J\xfcrgen,,review,1\n")


def damage_holdout(workspace: Workspace) -> None:
    workspace.holdout("v1").mkdir(parents=True)
    (workspace.holdout("v1") / "holdout.json").write_text("{")


def damage_package(workspace: Workspace) -> None:
    workspace.model_package("1").mkdir(parents=True)
    (workspace.model_package("1") / "training.json").write_text("{")


def damage_mlflow(workspace: Workspace) -> None:
    (workspace.root / "mlflow.db").write_text("garbage" * 1000)


@pytest.mark.parametrize(
    ("damage", "look", "said"),
    [
        (damage_reason, lambda w: explain.run(w, w.params(), hashlib.sha256(b"c").hexdigest()[:20]), r"reason\.json is damaged .* back into the inbox"),
        (damage_reason, index.rebuild, r"reason\.json is damaged .* back into the inbox"),
        (damage_progress, lambda w: reports.find(w, None), r"evaluate\.json is damaged .* `violence-ops evaluate`"),
        (damage_addresses, lambda w: w.mlflow_uri, r"addresses\.json is damaged .* `violence-ops up`"),
        (damage_addresses, status.run, r"addresses\.json is damaged .* `violence-ops up`"),
        (damage_labels, labels_file.read, r"labels\.csv is no CSV in UTF-8 .* save it as such"),
        (damage_holdout, lambda w: holdout.read(w, "v1"), r"holdout\.json is damaged .* `violence-ops dvc checkout"),
        (damage_package, lambda w: trained_on.of_package(w.model_package("1")), r"training\.json is damaged .* fetched again"),
        (damage_mlflow, lambda w: lineage.run(w, "1"), r"mlflow\.db cannot be used .* backup"),
    ],
    ids=["explain", "rebuild", "gate", "mlflow", "status", "labels", "holdout", "package", "lineage"],
)  # fmt: skip
def test_what_reads_a_damaged_file_says_so(
    workspace: Workspace, damage: Callable[[Workspace], None], look: Callable[[Workspace], object], said: str
) -> None:
    damage(workspace)
    with pytest.raises(UserError, match=said):
        look(workspace)
