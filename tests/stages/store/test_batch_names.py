"""How a batch may be named, by every command in the same way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from violence_ops.cli.program import app
from violence_ops.errors import UsageError
from violence_ops.records import ClipRecord
from violence_ops.store import batch_names
from violence_ops.workspace import Workspace


@pytest.fixture
def sealed(workspace: Workspace, seal_tracks: Callable[..., list[ClipRecord]]) -> list[str]:
    """Two batches of one night and one of another."""
    places = (("2026-01-30", 0x11), ("2026-01-30", 0x12), ("2026-01-31", 0x11))
    return [seal_tracks(workspace, clips=1, night=night, seed=seed)[0].batch_id for night, seed in places]


def test_the_beginning_of_an_id_names_a_batch_sealed_or_open_or_known_to_git_alone(
    workspace: Workspace, sealed: list[str], open_batch: Callable[..., list[ClipRecord]]
) -> None:
    for name in (sealed[2], "2026-01-31", "2026-01-31-0"):
        assert batch_names.find(workspace, name) == sealed[2]
    away = workspace.batch("2026-02-01-0000beef")
    away.pointer.write_text("outs: []\n")
    assert batch_names.find(workspace, "2026-02") == away.batch_id
    assert open_batch(workspace, clips=1)[0].batch_id == batch_names.find(workspace, "2026-01-31-0000b")


def test_of_several_each_is_named_and_of_none_it_is_said_what_lists_them(
    workspace: Workspace, sealed: list[str]
) -> None:
    with pytest.raises(UsageError, match=f"may be batch {sealed[0]}; batch {sealed[1]}: write more of it"):
        batch_names.find(workspace, "2026-01-30")
    for name in ("", "-", "../../etc", "2026-01-3*", "2027-01-31-00000001-"):
        with pytest.raises(UsageError, match=r"is not a batch id: .*; `violence-ops status --json` lists them"):
            batch_names.find(workspace, name)


def test_a_year_is_a_beginning_and_of_one_that_begins_no_id_just_that_is_said(
    workspace: Workspace, sealed: list[str]
) -> None:
    with pytest.raises(UsageError, match=f"'2026' may be batch {sealed[0]}; batch {sealed[1]}; batch {sealed[2]}: "):
        batch_names.find(workspace, "2026")
    for name in ("2027", "2026-11-24", "2026-01-31-ffff"):
        with pytest.raises(UsageError, match=f"No batch's id begins with '{name}': `violence-ops status --json` lists"):
            batch_names.find(workspace, name)
    whole = "2027-01-31-00000001"
    assert batch_names.find(workspace, whole) == whole  # of which the stage says that there is none such


@pytest.mark.parametrize(
    "verb",
    [
        "check", "analyze", "drift", "overlay", "lineage", "validate", "extract-poses", "annotate", "score", "seal",
    ],
)  # fmt: skip
def test_every_command_that_takes_a_batch_takes_the_beginning_of_its_id(
    workspace: Workspace, sealed: list[str], verb: str
) -> None:
    given = [verb] if verb == "lineage" else [verb, "--batch"]
    refused = CliRunner().invoke(app, [*given, "2026-01-30", "--workspace", str(workspace.root)])
    assert refused.exit_code == 2
    assert f"may be batch {sealed[0]}; batch {sealed[1]}: write more of it." in " ".join(refused.output.split())
