"""A night without Airflow: every open batch to its end, and one that cannot go on stops no other."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from violence_ops import versioning
from violence_ops.cli.program import app
from violence_ops.errors import ServiceUnavailable, WorkspaceError
from violence_ops.folders import Batch
from violence_ops.stages.nightly import night
from violence_ops.store.batches import read_clips
from violence_ops.workspace import Workspace

DAY = date(2026, 1, 31)


@pytest.fixture
def workspace(new_workspace: Callable[..., Workspace]) -> Workspace:
    return new_workspace(**{"annotation.workers": 1})


@pytest.mark.slow
def test_a_batch_of_junk_stays_open_is_named_and_stops_no_other(workspace: Workspace, clip_folder: Path) -> None:
    for number in range(workspace.params().expectations.min_clips):
        (workspace.inbox / f"junk{number}.mp4").write_text(f"no video {number}")
    first = night.run(workspace, workspace.params(), night=DAY)
    (junk,) = first.stopped
    shutil.copy(clip_folder / "clip0.mp4", workspace.inbox)
    second = night.run(workspace, workspace.params(), night=DAY)
    (good,) = set(second.batches) - {junk}
    assert [batch.batch_id for batch in workspace.sealed_batches()] == [good]
    assert set(second.stopped) == {junk}
    assert "share of clips in quarantine" in second.stopped[junk]
    assert "expectations.KEY=VALUE" in second.stopped[junk]
    taken = night.run(workspace, workspace.params({"expectations.max_share_quarantined": 1.0}), night=DAY)
    assert not taken.stopped
    assert {batch.batch_id for batch in workspace.sealed_batches()} == {good, junk}


def test_each_notice_of_the_ingestion_is_a_line_of_its_own(workspace: Workspace) -> None:
    (workspace.inbox / "labels.csv").write_text("path,label\nlater.mp4,Fight\n")
    (workspace.inbox / "upload.part").write_text("half of a video")
    found = night.run(workspace, workspace.params(), night=DAY)
    assert list(found.lines())[:-1] == ["ingest         claimed 0, duplicates 0, left 1"] + [
        f"notice         {sentence}" for sentence in found.ingest["notices"]
    ]
    assert len(found.ingest["notices"]) == 2


def test_a_night_beside_a_task_of_airflows_or_another_night_takes_nothing_and_says_so(
    workspace: Workspace, clip_folder: Path
) -> None:
    shutil.copy(clip_folder / "clip0.mp4", workspace.inbox)
    command = ["night", "--night", "2026-01-31", "--workspace", str(workspace.root)]
    for shared in (True, False):
        with workspace.lock("night", shared=shared):
            done = CliRunner().invoke(app, command)
        assert done.exit_code == 1
        assert "Another night is at work" in done.stderr
        assert (workspace.inbox / "clip0.mp4").is_file()
    assert CliRunner().invoke(app, command).exit_code == 0


@pytest.mark.parametrize("least", [1, 10])
def test_the_verb_prints_one_json_document_and_ends_with_4_if_nothing_was_usable(
    workspace: Workspace, least: int
) -> None:
    (workspace.inbox / "junk.mp4").write_text("no video")
    command = ["night", "--json", "--night", "2026-01-31", "--workspace", str(workspace.root)]
    done = CliRunner().invoke(app, [*command, "-S", f"expectations.min_clips={least}"])
    assert done.exit_code == 4
    content = json.loads(done.stdout)
    (junk,) = content["batches"]
    assert content["batches"][junk]["validate"] == {"accepted": 0, "quarantined": {"unreadable": 1}}
    assert (junk in content["stopped"]) == (least == 1)
    assert ("share of clips in quarantine" if least == 1 else "No clip was usable, 1 in quarantine") in done.stderr


@pytest.mark.slow
def test_a_few_clips_of_which_none_is_usable_or_shows_anybody_stop_no_night(
    workspace: Workspace, clip_folder: Path
) -> None:
    (workspace.inbox / "junk.mp4").write_text("no video")
    night.run(workspace, workspace.params(), night=DAY)
    shutil.copy(clip_folder / "clip0.mp4", workspace.inbox)
    assert not night.run(workspace, workspace.params(), night=DAY).stopped
    assert [len(read_clips(batch)) for batch in workspace.sealed_batches()] == [1, 1]
    assert night.run(workspace, workspace.params(), night=DAY).batches == {}


def test_a_batch_of_junk_stops_no_dvc_repro(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace.inbox / "junk.mp4").write_text("no video")
    night_of = ["--workspace", str(workspace.root)]
    assert CliRunner().invoke(app, ["ingest", *night_of]).exit_code == 0
    assert CliRunner().invoke(app, ["validate", *night_of]).exit_code == 4
    monkeypatch.setenv("DVC_STAGE", "validate")
    monkeypatch.setenv("DVC_ROOT", str(workspace.root))
    assert CliRunner().invoke(app, ["validate", *night_of]).exit_code == 0


@pytest.mark.slow
def test_missed_days_are_filled_in_one_after_another_each_with_its_own_files(
    workspace: Workspace, clip_folder: Path
) -> None:
    """As README.md says it: files have no date of their own, so a night takes all that is there."""
    for day in (29, 30):
        shutil.copy(clip_folder / f"clip{day % 5}.mp4", workspace.inbox)
        night.run(workspace, workspace.params(), night=date(2026, 1, day))
    assert [batch.batch_id[:10] for batch in workspace.sealed_batches()] == ["2026-01-29", "2026-01-30"]


def test_batches_whose_sealing_was_not_finished_are_finished_by_the_night_after(workspace: Workspace) -> None:
    params = workspace.params()
    shutil.rmtree(workspace.remote)
    workspace.remote.write_text("a file where the remote was")
    for day in (1, 2):  # what could not be sent keeps the second night from nothing but sending
        (workspace.inbox / "junk.mp4").write_text(f"no video {day}")
        with pytest.raises(ServiceUnavailable, match="run this again"):
            night.run(workspace, params, night=date(2026, 1, day))
    names = [batch.batch_id for batch in workspace.sealed_batches()]
    assert [name[:10] for name in names] == ["2026-01-01", "2026-01-02"]
    assert versioning.versioned_batches(workspace) == set()
    workspace.remote.unlink()
    workspace.remote.mkdir()
    found = night.run(workspace, params, night=date(2026, 1, 3))
    assert {name: list(verbs) for name, verbs in found.batches.items()} == {name: ["seal"] for name in names}
    assert versioning.versioned_batches(workspace) == set(names)
    assert night.run(workspace, params, night=date(2026, 1, 4)).batches == {}


def test_one_whose_sealing_cannot_be_finished_stops_no_other(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = workspace.params()
    (workspace.inbox / "junk.mp4").write_text("no video")
    (half_sealed,) = night.run(workspace, params, night=DAY).batches
    subprocess.run(["git", "-C", workspace.root, "tag", "--delete", f"batch/{half_sealed}"], check=True)
    (workspace.inbox / "junk.mp4").write_text("no video either")
    add_batch = versioning.add_batch

    def refuse_the_first(one: Workspace, batch: Batch) -> str:
        if batch.batch_id == half_sealed:
            raise WorkspaceError("DVC refused.")
        return add_batch(one, batch)

    monkeypatch.setattr(versioning, "add_batch", refuse_the_first)
    found = night.run(workspace, params, night=date(2026, 2, 1))
    assert found.stopped == {half_sealed: "DVC refused."}
    assert f"batch {half_sealed} was stopped" in list(found.lines())
    (other,) = set(found.batches) - {half_sealed}
    assert versioning.versioned_batches(workspace) == {other}
    (workspace.inbox / "junk.mp4").write_text("nor is this")
    done = CliRunner().invoke(app, ["night", "--night", "2026-02-02", "--workspace", str(workspace.root)])
    assert done.exit_code == 1, "that sealing fails has nothing to do with the clips"


def test_what_was_sealed_before_an_outage_is_announced_all_the_same(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, told, sealed = workspace.params(), [], []
    for number in (1, 2):
        (workspace.inbox / "junk.mp4").write_text(f"no video {number}")
        night.ingest.run(workspace, params, night=DAY)
    seal_one = night.seal.run

    def only_one(*given: Any, batch_id: str, **more: Any) -> Any:
        if sealed:
            raise ServiceUnavailable("The remote is away.")
        sealed.append(batch_id)
        return seal_one(*given, batch_id=batch_id, **more)

    monkeypatch.setattr(night.seal, "run", only_one)
    monkeypatch.setattr(night.announce, "run", lambda _, batch_ids: told.extend(batch_ids))
    with pytest.raises(ServiceUnavailable, match="remote is away"):
        night.run(workspace, params, night=DAY)
    assert len(told) == 1
    assert told == sealed


def test_a_night_says_if_the_airflow_that_is_up_could_not_be_told_what_it_sealed(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(junk: str) -> str:
        (workspace.inbox / junk).write_text(junk)
        command = ["night", "--night", "2026-01-31", "--workspace", str(workspace.root)]
        return CliRunner().invoke(app, command).stderr

    assert "Airflow" not in said("one.mp4")
    monkeypatch.setenv("VIOLENCE_OPS_AIRFLOW_URL", "http://127.0.0.1:9")
    assert "Airflow was not told of the sealed batches, trigger `retraining`, `drift` and `shadow` there: " in said(
        "two.mp4"
    )
    assert "Airflow" not in CliRunner().invoke(app, ["night", "--workspace", str(workspace.root)]).stderr
