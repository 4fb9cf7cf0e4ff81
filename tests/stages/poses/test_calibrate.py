"""`weights calibrate`: INT8 networks from a folder, an inbox or a batch, with their figures; poses are made anew after it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from violence_ops import synthetic
from violence_ops.errors import UsageError
from violence_ops.pose.weights import WeightsError
from violence_ops.records import ClipRecord
from violence_ops.stages.nightly import extract_poses
from violence_ops.stages.poses import calibrate
from violence_ops.stages.poses.calibrate import CalibrateResult
from violence_ops.workspace import Workspace

INT8 = {"pose.precision": "int8"}


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two wide synthetic clips, and a file that is no video."""
    folder = tmp_path_factory.mktemp("night")
    made = (synthetic.clip(seed, duration_s=0.8) for seed in range(50))
    for clip in islice((clip for clip in made if clip.width / clip.height > 1.7), 2):
        synthetic.write_clip(clip, folder / f"{clip.camera_id}.{clip.scene.container}")
    (folder / "broken.mp4").write_text("no video")
    return folder


def test_int8_without_a_calibration_stops_with_one_sentence(
    workspace: Workspace, open_batch: Callable[..., list[ClipRecord]]
) -> None:
    open_batch(workspace, 1)
    with pytest.raises(WeightsError, match=r"run `violence-ops weights calibrate`, or set pose\.precision to fp32\.$"):
        extract_poses.run(workspace, workspace.params(INT8))


def test_nothing_to_calibrate_with_is_refused_in_a_sentence(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match=r"No frame could be taken from the inbox and the batches: pass --clips"):
        calibrate.run(workspace, workspace.params(), frames=6, scenes=2)


@pytest.mark.slow
def test_calibration_makes_int8_poses_possible_and_a_second_one_makes_them_anew(
    workspace: Workspace, night: Path, open_batch: Callable[..., list[ClipRecord]]
) -> None:
    """First from the videos of a folder, then from those of the open batch, which have another shape."""
    open_batch(workspace, 1)
    params = workspace.params(INT8)
    first = calibrate.run(workspace, params, clips=night, frames=6, scenes=2)
    _check(first, clips=2, refused={"unreadable": 1})
    with pytest.raises(
        WeightsError, match=r"none for 416x320: run `violence-ops weights calibrate` with clips of that"
    ):
        extract_poses.run(workspace, params)
    marked = extract_poses.source_sha256(params.pose)
    second = calibrate.run(workspace, params, frames=6, scenes=2)
    _check(second, clips=1, refused={})
    assert list(second.sizes) == ["416x320"]
    assert marked != extract_poses.source_sha256(params.pose) != extract_poses.source_sha256(workspace.params().pose)
    assert extract_poses.run(workspace, params).extracted == 1
    assert extract_poses.run(workspace, params).skipped == 1


def _check(result: CalibrateResult, clips: int, refused: dict[str, int]) -> None:
    assert (result.clips, result.refused) == (clips, refused)
    for figures in result.sizes.values():
        assert figures.frames == figures.compared == 6
        assert figures.loss_points == round(figures.ap_fp32 - figures.ap_int8, 2)
        assert figures.agreement is None or figures.agreement > 0.5
        assert figures.ms_fp32 > 0 < figures.ms_int8
    assert len(list(result.lines())) == 2 + len(result.sizes)


@pytest.mark.slow
def test_the_command_prints_nothing_but_its_json(workspace: Workspace, night: Path) -> None:
    words = ["weights", "calibrate", "--clips", str(night), "--frames", "4", "--scenes", "1", "--json"]
    facts = _command([*words, "--workspace", str(workspace.root)])
    assert facts["weights"] == "rtmo_small"
    judged = _command(["weights", "evaluate", "--clips", "2", "--precision", "bf16", "--json"])
    assert (judged["backend"], judged["precision"]) == ("openvino", "bf16")


def _command(words: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "violence_ops.cli", *words], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)
