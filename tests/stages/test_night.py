"""A night without Airflow: every open batch to its end, and one that cannot go on stops no other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from violence_ops.cli.program import app
from violence_ops.stages import night
from violence_ops.workspace import Workspace

DAY = date(2026, 1, 31)


@pytest.fixture
def workspace(new_workspace: Callable[..., Workspace]) -> Workspace:
    return new_workspace(**{"expectations.max_share_without_person": 1.0, "annotation.workers": 1})


def test_a_batch_of_junk_stays_open_is_named_and_stops_no_other(workspace: Workspace, clip_folder: Path) -> None:
    (workspace.inbox / "junk.mp4").write_text("no video")
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


def test_the_verb_prints_one_json_document_and_ends_with_4_if_nothing_was_usable(workspace: Workspace) -> None:
    (workspace.inbox / "junk.mp4").write_text("no video")
    done = CliRunner().invoke(app, ["night", "--json", "--night", "2026-01-31", "--workspace", str(workspace.root)])
    assert done.exit_code == 4
    content = json.loads(done.stdout)
    (junk,) = content["stopped"]
    assert content["batches"][junk]["validate"] == {"accepted": 0, "quarantined": {"unreadable": 1}}


def test_missed_days_are_filled_in_one_after_another_each_with_its_own_files(
    workspace: Workspace, clip_folder: Path
) -> None:
    """As README.md says it: files in the inbox carry no night, so a night takes all that is there."""
    for day in (29, 30):
        shutil.copy(clip_folder / f"clip{day % 5}.mp4", workspace.inbox)
        night.run(workspace, workspace.params(), night=date(2026, 1, day))
    assert [batch.batch_id[:10] for batch in workspace.sealed_batches()] == ["2026-01-29", "2026-01-30"]
