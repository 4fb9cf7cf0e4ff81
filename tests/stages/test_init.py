"""`init` on a workspace that is there already: it completes what an older version left out, and changes nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from violence_ops.errors import ParamsError
from violence_ops.params import load_params
from violence_ops.stages import init
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
     ("poses:\n  weights: a\n", "poses is not a known key")],
)  # fmt: skip
def test_a_file_that_cannot_be_completed_is_told_in_a_sentence(params_file: Path, text: str, told: str) -> None:
    params_file.write_text(text)
    with pytest.raises(ParamsError, match=told):
        init.run(params_file.parent)


def test_a_key_that_comes_twice_is_told(params_file: Path) -> None:
    text = params_file.read_text()
    params_file.write_text(text.replace("pose:", "pose:\n  weights: other", 1))
    with pytest.raises(ParamsError, match=r"holds something twice .*weights"):
        init.run(params_file.parent)
