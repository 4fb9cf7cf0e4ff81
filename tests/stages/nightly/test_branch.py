"""Git on no branch, or on another than the ledger was written on: nothing is written there, and people are told the truth."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from violence_ops import versioning
from violence_ops.errors import WorkspaceError
from violence_ops.ledger import LedgerBroken
from violence_ops.params import Params
from violence_ops.records import ClipRecord
from violence_ops.registry import Registry
from violence_ops.stages.labelling import labels, review
from violence_ops.stages.provenance import forget
from violence_ops.stages.releasing import approval, gate, holdout, ledger_log, promote, reinstate, rollback
from violence_ops.store import releases
from violence_ops.workspace import Workspace

Judge = Callable[..., str]


@pytest.fixture
def passed(released: Workspace, params: Params, registry: Registry, write_evaluation: Judge) -> Workspace:
    """Version 2 is champion, version 1 was before it, and version 3 has passed the gate."""
    for candidate, champion in (("1", None), ("2", "1"), ("3", "2")):
        gate.run(released, params, report=write_evaluation(candidate, champion))
        if candidate != "3":
            promote.run(released, params, approved_by="admin")
    git(released, "add", "--all")
    git(released, "commit", "--quiet", "--allow-empty", "-m", "all of it")
    return released


def git(workspace: Workspace, *arguments: str) -> str:
    identity = ("-c", "user.name=ada", "-c", "user.email=ada@localhost")
    command = ["git", *identity, "-C", str(workspace.root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def said_by_status(workspace: Workspace) -> tuple[int, str]:
    command = [sys.executable, "-m", "violence_ops.cli", "status", "--workspace", str(workspace.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


def decisions(workspace: Workspace) -> dict[str, Callable[[], object]]:
    """Everything that writes to the ledger."""
    params = workspace.params()
    return {
        "gate": lambda: gate.run(workspace, params),
        "refuse": lambda: approval.refuse(workspace, params, by="admin", reason="worse at night"),
        "promote": lambda: promote.run(workspace, params, approved_by="admin"),
        "rollback": lambda: rollback.run(workspace, by="ada", reason="false alarms"),
        "reinstate": lambda: reinstate.run(workspace, by="ada"),
    }


@pytest.mark.slow
def test_on_no_branch_nobody_decides_or_releases_and_nothing_is_changed(passed: Workspace, registry: Registry) -> None:
    git(passed, "checkout", "--quiet", "--detach")
    head, ledger = git(passed, "rev-parse", "HEAD"), passed.ledger.read_bytes()
    for name, decide in decisions(passed).items():
        with pytest.raises(WorkspaceError, match=r"is on no branch \(HEAD is detached at .*`git switch main`"):
            decide()
        assert git(passed, "status", "--short") == "", name
    assert (git(passed, "rev-parse", "HEAD"), passed.ledger.read_bytes()) == (head, ledger)
    assert registry.alias("champion") == "2"
    code, said = said_by_status(passed)
    assert (code, "champion 2," in said, "is on no branch" in said) == (1, True, True), said

    git(passed, "switch", "--quiet", "main")
    assert said_by_status(passed)[0] == 0
    decisions(passed)["refuse"]()
    assert ledger_log.verify(passed).champion == "2"
    assert "Ledger: refusal by admin" in git(passed, "log", "-1", "--format=%s", "main")


@pytest.mark.parametrize(
    "how", [["checkout", "--quiet"], ["switch", "--quiet", "--create", "then"]], ids=["detached", "branch"]
)
def test_an_earlier_commit_is_told_as_such_and_not_as_an_alias_moved_by_hand(
    passed: Workspace, registry: Registry, how: list[str]
) -> None:
    first_release = git(passed, "log", "--reverse", "--format=%H", "--", "releases").split()[3]
    git(passed, *how, first_release)
    true = "branch main holds lines of releases/ledger.jsonl that are not here, because .*`git switch main && violence-ops dvc checkout`"
    for name, decide in decisions(passed).items():
        if name != "gate":  # it has no report of then
            with pytest.raises(LedgerBroken, match=true):
                decide()
    code, said = said_by_status(passed)
    assert code == 1
    assert re.search(true, said)
    assert "by hand" not in said
    assert registry.alias("champion") == "2"
    git(passed, "switch", "--quiet", "main")
    assert releases.champion(passed) == "2"


def test_lines_that_were_written_on_another_branch_are_missed(passed: Workspace) -> None:
    git(passed, "switch", "--quiet", "--create", "side")
    decisions(passed)["refuse"]()
    git(passed, "switch", "--quiet", "main")
    with pytest.raises(LedgerBroken, match=r"branch side holds lines of releases/ledger\.jsonl that are not here"):
        releases.champion(passed)
    git(passed, "merge", "--quiet", "side")
    assert releases.champion(passed) == "2"


def test_on_no_branch_no_batch_is_versioned_or_tagged(workspace: Workspace) -> None:
    batch = workspace.batch("2026-01-01-00000001")
    batch.sealed.mkdir(parents=True)
    (batch.sealed / "clips.parquet").write_bytes(b"table")
    git(workspace, "checkout", "--quiet", "--detach")
    for write in (
        lambda: versioning.add_batch(workspace, batch),
        lambda: versioning.commit_stage(workspace, ["ingest"], "Night"),
    ):
        with pytest.raises(WorkspaceError, match=r"is on no branch \(HEAD is detached"):
            write()
    assert versioning.versioned_batches(workspace) == set()
    assert git(workspace, "status", "--short") == ""
    git(workspace, "switch", "--quiet", "main")
    versioning.add_batch(workspace, batch)
    assert versioning.versioned_batches(workspace) == {batch.batch_id}


def files(workspace: Workspace) -> dict[Path, bytes]:
    """What is in the workspace, but for what git and locks keep for themselves and what is only kept to save time."""
    found = (path for path in workspace.root.rglob("*") if not {".git", ".cache", "locks"}.intersection(path.parts))
    return {path: path.read_bytes() for path in found if path.is_file()}


def test_on_no_branch_nothing_is_labelled_forgotten_frozen_or_asked_and_no_file_is_changed(
    workspace: Workspace, seal_whole: Callable[..., list[ClipRecord]], tmp_path: Path
) -> None:
    params = workspace.params()
    clip_id = seal_whole(workspace, judged_by="1")[0].clip_id
    versioning.add_batch(workspace, workspace.sealed_batches()[0])
    labels.run(workspace, clip_id, "Fight", "ada")
    refused: dict[str, Callable[[], object]] = {
        "label": lambda: labels.run(workspace, clip_id, "NonFight", "ada"),
        "freeze": lambda: holdout.freeze(workspace, params),
        "export": lambda: review.run(
            workspace, params, tmp_path / "out", format="cvat", confidence=0.9, limit=5, overlays=False
        ),
        "forget": lambda: forget.run(workspace, params, clip_id, by="ada", reason="the person asked"),
    }
    git(workspace, "checkout", "--quiet", "--detach")
    before, status = files(workspace), git(workspace, "status", "--short")
    for name, write in refused.items():
        with pytest.raises(WorkspaceError, match=r"is on no branch \(HEAD is detached at .*`git switch main`"):
            write()
        assert files(workspace) == before, name
    assert git(workspace, "status", "--short") == status
    assert list(tmp_path.iterdir()) == [workspace.root]
    assert forget.run(workspace, params, clip_id, dry_run=True).clip_id == clip_id

    git(workspace, "switch", "--quiet", "main")
    for write in refused.values():
        write()


def test_a_line_that_a_merge_left_out_is_told(workspace: Workspace, tmp_path: Path) -> None:
    """Of two clones that each wrote a line, one is merged into the other, whose ledger is kept as it was."""
    other = Workspace(tmp_path / "other")
    _approve(workspace, "1-vs-none")
    git(workspace, "clone", "--quiet", str(workspace.root), str(other.root))
    other.work.mkdir()
    _approve(workspace, "2-vs-1")
    _approve(other, "3-vs-1")
    theirs = git(other, "rev-parse", "--short", "HEAD").strip()
    before = git(workspace, "rev-parse", "HEAD").strip()
    git(workspace, "pull", "--quiet", "--no-rebase", "-X", "ours", str(other.root))
    _told_to_be_lost(workspace, theirs)
    git(workspace, "commit", "--quiet", "--allow-empty", "-m", "something else")
    _told_to_be_lost(workspace, theirs)
    git(workspace, "switch", "--quiet", "--create", "before", before)
    with pytest.raises(LedgerBroken, match="branch main holds lines"):
        releases.entries(workspace)
    git(workspace, "branch", "--quiet", "-D", "main")
    assert [entry.payload["report"] for entry in releases.entries(workspace)] == ["1-vs-none", "2-vs-1"]


def _approve(workspace: Workspace, report: str) -> None:
    with workspace.lock("release"):
        releases.record(workspace, actor="ada", event="approval", payload={"report": report})


def _told_to_be_lost(workspace: Workspace, commit: str) -> None:
    with pytest.raises(LedgerBroken, match=rf"git checkout {commit} -- .*If a merge left them out") as broken:
        ledger_log.verify(workspace)
    assert str(broken.value).count("releases/ledger.jsonl") == 2


def test_a_merge_that_left_nothing_out_is_sound(workspace: Workspace, tmp_path: Path) -> None:
    other = Workspace(tmp_path / "other")
    _approve(workspace, "1-vs-none")
    git(workspace, "clone", "--quiet", str(workspace.root), str(other.root))
    other.work.mkdir()
    _approve(other, "2-vs-1")
    git(workspace, "commit", "--quiet", "--allow-empty", "-m", "something else")
    git(workspace, "pull", "--quiet", "--no-rebase", str(other.root))
    assert len(git(workspace, "rev-list", "--parents", "-1", "HEAD").split()) == 3
    assert len(releases.entries(workspace)) == 2
