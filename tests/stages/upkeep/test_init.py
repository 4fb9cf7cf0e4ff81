"""`init` on a workspace that is there already: it completes what an older version left out, and changes nothing else."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from violence_ops import versioning, versioning_remote
from violence_ops.errors import ParamsError, ServiceUnavailable
from violence_ops.files import write_text
from violence_ops.params import load_params
from violence_ops.stages.upkeep import init, pipeline_file
from violence_ops.workspace import Workspace


@pytest.fixture
def params_file(tmp_path: Path) -> Path:
    """Of a new workspace."""
    init.run(tmp_path / "workspace")
    return Workspace(tmp_path / "workspace").params_file


def _without(path: Path, *starts: str) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.lstrip().startswith(starts)))


def test_parameters_that_came_later_are_added_with_their_comments_and_own_values_stay(params_file: Path) -> None:
    shipped = params_file.read_text()
    _without(params_file, "duplicate_distance:", "keypoint_weight:")
    params_file.write_text(params_file.read_text().replace("score_threshold: 0.2 ", "score_threshold: 0.25"))
    with pytest.raises(ParamsError, match=r"pose\.duplicate_distance, tracking\.keypoint_weight are missing"):
        load_params(params_file)
    result = init.run(params_file.parent)
    assert (result.created, result.added) == (False, ("pose.duplicate_distance", "tracking.keypoint_weight"))
    assert params_file.read_text() == shipped.replace("score_threshold: 0.2 ", "score_threshold: 0.25")


def test_a_section_that_came_later_is_added(params_file: Path) -> None:
    text = params_file.read_text()
    before = load_params(params_file)
    params_file.write_text(text[: text.index("\ndrift:")] + text[text.index("\nschedule:") :])
    assert "drift.psi" in init.run(params_file.parent).added
    assert load_params(params_file) == before


def test_a_complete_file_stays_byte_for_byte(params_file: Path) -> None:
    before = params_file.read_bytes()
    assert init.run(params_file.parent).added == ()
    assert params_file.read_bytes() == before


def test_a_lost_file_is_written_anew(params_file: Path) -> None:
    before = params_file.read_bytes()
    params_file.unlink()
    init.run(params_file.parent)
    assert params_file.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "told"),
    [("", "holds no sections"), ("pose: [", "not readable as YAML at line 1"), ("pose: 3", "pose is 3"),
     ("a: &a [x]\nb: [*a]", "aliases are not taken"), ("a: " + "[" * 20_000, "too many levels"), ("poses:\n  weights: a\n", "poses is not a known key")],
)  # fmt: skip
def test_a_file_that_cannot_be_completed_is_told_in_a_sentence(params_file: Path, text: str, told: str) -> None:
    params_file.write_text(text)
    with pytest.raises(ParamsError, match=told):
        init.run(params_file.parent)


def _git(workspace: Workspace, *arguments: str) -> str:
    command = ["git", "-C", workspace.root, "-c", "user.name=ann", "-c", "user.email=ann@localhost", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_parameters_that_came_later_are_committed(params_file: Path) -> None:
    workspace = Workspace(params_file.parent)
    _without(params_file, "keypoint_weight:")
    _git(workspace, "commit", "--quiet", "--all", "-m", "An older version's")
    result = init.run(workspace.root)
    assert _git(workspace, "status", "--porcelain") == ""
    assert result.revision == _git(workspace, "rev-parse", "HEAD")
    assert _git(workspace, "log", "-1", "--format=%s") == "Parameters that came later: tracking.keypoint_weight"
    assert "added      tracking.keypoint_weight (to params.yaml)" in list(result.lines())


CHECKOUT = Path(__file__).parents[3]


def _shipped_before() -> list[str]:
    """Every dvc.yaml that the project's history has, the first one first."""
    log = ["git", "-C", CHECKOUT, "log", "--reverse", "--format=%H", "--", "dvc.yaml"]
    found = subprocess.run(log, capture_output=True, text=True, check=False)
    if found.returncode or not found.stdout:
        pytest.skip("not run from a checkout with its history")
    show = [["git", "-C", CHECKOUT, "show", f"{commit}:dvc.yaml"] for commit in found.stdout.split()]
    return [subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in show]


def test_an_earlier_versions_pipeline_becomes_this_ones_and_is_committed(params_file: Path) -> None:
    workspace = Workspace(params_file.parent)
    shipped = workspace.dvc_file.read_text()
    workspace.dvc_file.write_text(_shipped_before()[0])
    _git(workspace, "commit", "--quiet", "--all", "-m", "An older version's")
    assert init.run(workspace.root).other_stages == ()
    assert workspace.dvc_file.read_text() == shipped
    assert _git(workspace, "log", "-1", "--format=%s") == "The stages of this version"
    assert _git(workspace, "status", "--porcelain") == ""


def test_every_pipeline_that_was_ever_shipped_is_known_as_such() -> None:
    present = (CHECKOUT / "dvc.yaml").read_text()
    earlier = {hashlib.sha256(text.encode()).hexdigest() for text in _shipped_before() if text != present}
    assert earlier <= pipeline_file.EARLIER
    assert hashlib.sha256(present.encode()).hexdigest() not in pipeline_file.EARLIER


def test_a_pipeline_that_a_person_changed_stays_and_its_stages_that_differ_are_named(params_file: Path) -> None:
    workspace = Workspace(params_file.parent)
    own = workspace.dvc_file.read_text().replace("gate --verdict-only", "gate") + "  mine:\n    cmd: 'true'\n"
    workspace.dvc_file.write_text(own)
    result = init.run(workspace.root)
    assert workspace.dvc_file.read_text() == own
    assert result.other_stages == ("gate",)
    assert "dvc.yaml was changed by a person, so it was left as it is: gate is not as in" in "\n".join(result.lines())
    assert _git(workspace, "status", "--porcelain") == "M dvc.yaml"


def test_another_remote_is_said_and_committed_and_how_to_send_there_what_was_sealed_before(
    params_file: Path, tmp_path: Path
) -> None:
    workspace, other = Workspace(params_file.parent), str(tmp_path / "nas")
    batch = workspace.batch("2026-01-01-00000001")
    write_text(batch.sealed / "clips.parquet", "a table")
    versioning.add_batch(workspace, batch)
    assert init.run(workspace.root).old_remote is None
    result = init.run(workspace.root, remote_url=other)
    assert (result.remote, result.old_remote, result.unsent) == (other, str(workspace.remote), 1)
    said = "\n".join(result.lines())
    assert f"The data goes to {other} from now on" in said
    assert "1 batch that was sealed before is not there: in the workspace, `violence-ops dvc push` sends" in said
    assert _git(workspace, "status", "--porcelain") == ""
    assert "nas" in _git(workspace, "show", "HEAD:.dvc/config")
    assert init.run(workspace.root, remote_url=other).old_remote is None  # as at every start of the containers

    for folder in (None, tmp_path / "nas"):  # not there, as a share that is not mounted; there, and empty
        if folder:
            folder.mkdir()
        with pytest.raises(
            ServiceUnavailable, match=f"does not hold batch {batch.batch_id}: .*`violence-ops dvc push`"
        ):
            versioning_remote.reached(workspace)
    push = [sys.executable, "-m", "violence_ops.cli", "dvc", "push", "--quiet"]
    subprocess.run(push, cwd=workspace.root, check=True)
    assert versioning_remote.reached(workspace) == other


def test_of_many_batches_that_a_remote_lacks_the_two_that_were_asked_for_are_named_as_such(
    params_file: Path, tmp_path: Path
) -> None:
    workspace = Workspace(params_file.parent)
    ids = [f"2026-01-0{day}-00000001" for day in (1, 2, 3)]
    for batch in map(workspace.batch, ids[:2]):
        write_text(batch.sealed / "clips.parquet", batch.batch_id)
        versioning.add_batch(workspace, batch)
    init.run(workspace.root, remote_url=str(tmp_path / "nas"))
    every = f"does not hold all of the 2 sealed batches: .* it lacks {ids[0]} .the oldest. and {ids[1]} .the newest."
    with pytest.raises(ServiceUnavailable, match=every):
        versioning_remote.reached(workspace)
    newest = workspace.batch(ids[2])
    write_text(newest.sealed / "clips.parquet", newest.batch_id)
    versioning.add_batch(workspace, newest)
    with pytest.raises(
        ServiceUnavailable, match=rf"all of the 3 sealed batches: .* it lacks {ids[0]} \(the oldest\): if"
    ):
        versioning_remote.reached(workspace)
    assert versioning_remote.lacking(workspace) == ids[:2]


def test_the_way_back_to_the_first_remote_is_written_as_at_first_and_asks_for_nothing_that_is_there(
    params_file: Path, tmp_path: Path
) -> None:
    workspace = Workspace(params_file.parent)
    settings = workspace.root / ".dvc" / "config"
    first = settings.read_text()
    batch = workspace.batch("2026-01-01-00000001")
    write_text(batch.sealed / "clips.parquet", "a table")
    versioning.add_batch(workspace, batch)
    init.run(workspace.root, remote_url=str(tmp_path / "nas"))
    back = init.run(workspace.root, remote_url=str(workspace.remote))
    assert (back.remote, back.old_remote, back.unsent) == (str(workspace.remote), str(tmp_path / "nas"), 0)
    assert not any("dvc push" in line for line in back.lines())
    assert settings.read_text() == first
    assert _git(workspace, "status", "--porcelain") == ""


def test_a_key_that_comes_twice_is_told(params_file: Path) -> None:
    text = params_file.read_text()
    params_file.write_text(text.replace("pose:", "pose:\n  weights: other", 1))
    with pytest.raises(ParamsError, match=r"holds something twice .*weights"):
        init.run(params_file.parent)
