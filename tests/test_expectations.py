"""Great Expectations: a check changes no tracked file without need, and keeps and judges what people added."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from violence_ops import expectations, git
from violence_ops.errors import ExpectationsFailed, WorkspaceError
from violence_ops.records import COMPONENTS
from violence_ops.workspace import Workspace

pytestmark = pytest.mark.slow  # importing Great Expectations alone takes many seconds

_FAULTS = (
    "schema_differences", "frames_outside", "bad_boxes", "not_finite", "repeated_tracks", "tracks_without_poses", "bad_ranks",
)  # fmt: skip


def summary(clips: int = 1) -> pd.DataFrame:
    """A batch's summary in which nothing is wrong."""
    shares = {f"{name}_{end}": 0.5 for name in ("score", "keypoint_score", *COMPONENTS) for end in ("min", "max")}
    rows = [{"clip_id": f"{number:020x}", **dict.fromkeys(_FAULTS, 0), **shares} for number in range(clips)]
    return pd.DataFrame(rows).assign(without_person=0.0)


def check(workspace: Workspace, frame: pd.DataFrame) -> int:
    return expectations.check_annotations(workspace, "night", frame, workspace.params().expectations).expectations


def changed(workspace: Workspace) -> str:
    command = ["git", "-C", workspace.root, "status", "--short"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def edit(path: Path, *added: dict[str, Any]) -> None:
    """What a data engineer does in an editor."""
    content = json.loads(path.read_text())
    content["expectations"] += added
    path.write_text(json.dumps(content, indent=2))


def between(column: str, low: float, high: float, **more: Any) -> dict[str, Any]:
    kwargs = {"column": column, "min_value": low, "max_value": high}
    return {"type": "expect_column_values_to_be_between", "kwargs": kwargs, **more}


def test_a_second_check_of_the_same_kind_changes_no_file_that_git_tracks(workspace: Workspace) -> None:
    check(workspace, summary())
    git.commit(workspace, [workspace.gx], "First night")
    assert changed(workspace) == ""
    check(workspace, summary())
    assert changed(workspace) == ""
    # with enough clips a share is judged too, and that is all that git sees
    check(workspace, summary(workspace.params().expectations.min_clips))
    assert changed(workspace) == " M gx/expectations/annotations.json\n"
    added = subprocess.run(
        ["git", "-C", workspace.root, "diff", "--numstat"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert int(added[0]) < 20


def test_an_expectation_that_somebody_added_stays_and_is_judged(workspace: Workspace) -> None:
    ours = check(workspace, summary())
    path = workspace.suite("annotations")
    edit(path, between("score_min", 0.4, 1, description="no doubtful person", notes="Ann, after the fog of 3 March"))
    assert check(workspace, summary()) == ours + 1
    assert check(workspace, summary(workspace.params().expectations.min_clips)) == ours + 2
    assert "Ann, after the fog" in path.read_text()
    with pytest.raises(ExpectationsFailed, match="no doubtful person: observed 1 other values such as") as failure:
        check(workspace, summary().assign(score_min=0.1))
    assert str(path) in str(failure.value)
    assert "Ann, after the fog" in path.read_text()


def test_an_added_expectation_that_cannot_be_asked_stops_the_batch_with_a_sentence(workspace: Workspace) -> None:
    check(workspace, summary())
    path = workspace.suite("annotations")
    before = path.read_text()
    edit(path, between("nowhere", 0, 1, description="a column of my own"))
    with pytest.raises(ExpectationsFailed, match=r"a column of my own could not be checked .*nowhere"):
        check(workspace, summary())
    for wrong in (before[:-9], before.replace("expect_column_max_to_be_between", "expect_wonders")):
        path.write_text(wrong)
        with pytest.raises(
            WorkspaceError, match=r"annotations.json (cannot be read|is damaged) .*: correct what was added there"
        ):
            check(workspace, summary())
    path.unlink()
    check(workspace, summary())


def test_the_suite_of_an_earlier_version_is_taken_over_once(workspace: Workspace) -> None:
    ours = check(workspace, summary())
    path = workspace.suite("annotations")
    content = json.loads(path.read_text())
    for one in content["expectations"]:
        one["meta"] = {}
    path.write_text(json.dumps(content))
    assert check(workspace, summary()) == ours
