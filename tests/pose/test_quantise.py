"""INT8 networks: they find whom full precision finds, belong to a calibration, and are refused without one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from violence_ops import synthetic
from violence_ops.errors import WorkspaceError
from violence_ops.letterbox import Letterbox
from violence_ops.pose import quantise, weights
from violence_ops.pose.agreement import Labelled, agreement
from violence_ops.pose.config import fit
from violence_ops.pose.openvino import core
from violence_ops.pose.quantise import Calibration
from violence_ops.pose.rtmo import PoseEstimator
from violence_ops.pose.samples import Sample
from violence_ops.pose.weights import WeightsError

SIZE = (416, 256)
SHOWN = 0.3


@pytest.fixture(scope="module")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def pictures(seed: int, count: int) -> list[np.ndarray]:
    """Letterboxed frames of wide synthetic clips."""
    found: list[np.ndarray] = []
    while len(found) < count:
        seed += 1
        clip = synthetic.clip(seed, duration_s=0.8)
        box = Letterbox.of(clip.width, clip.height, fit())
        if (box.input_width, box.input_height) == SIZE:
            found += [box.apply(clip.frame(index)) for index in range(0, clip.frame_count, 3)]
    return found[:count]


@pytest.fixture(scope="module")
def calibrated(_own_cache: None) -> Calibration:
    return quantise.calibrate(weights.find("rtmo_small"), {SIZE: pictures(100, 12)})


def estimator(precision: str) -> PoseEstimator:
    return PoseEstimator(
        "rtmo_small",
        backend="openvino",
        precision=precision,
        score_threshold=0.05,
        nms_threshold=0.35,
        duplicate_distance=0.0,
    )


@pytest.mark.parametrize(("precision", "least"), [("int8", 0.9), ("bf16", 0.9)], ids=["int8", "bf16"])
def test_a_lower_precision_finds_whom_full_precision_finds(
    calibrated: Calibration, precision: str, least: float
) -> None:
    full, lower = estimator("fp32"), estimator(precision)
    seen = []
    for picture in pictures(500, 30):
        found = full.estimate([picture])[0]
        sure = found.scores >= SHOWN
        visible = np.full((sure.sum(), 17), 2, np.uint8)
        truth = Sample(picture, found.keypoints[sure], visible, found.bboxes[sure], np.zeros(sure.sum(), bool))
        seen.append(Labelled(truth))
    share = agreement(lower, seen, SHOWN - 0.1).share()
    assert share.persons > 50
    assert (share.pose_recall or 0) >= least


def test_backbone_and_what_refines_joints_keep_full_precision(calibrated: Calibration) -> None:
    operations = core().read_model(calibrated.network(*SIZE)).get_ops()
    weights_of = [op.get_friendly_name() for op in operations if "fq_weights" in op.get_friendly_name()]
    assert len(weights_of) > 10
    assert not [name for name in weights_of if re.search(r"/(stem|stage\d|fine_features)/", name)]


def test_poses_of_a_calibration_carry_its_hash(calibrated: Calibration) -> None:
    assert estimator("int8").sha256 == calibrated.poses_sha256 != estimator("fp32").sha256
    assert quantise.calibration(calibrated.weights) == calibrated


def test_a_size_without_a_network_is_refused_in_a_sentence(calibrated: Calibration) -> None:
    tall = np.zeros((400, 300, 3), np.uint8)
    with pytest.raises(
        WeightsError, match=r"INT8 networks for 416x256 and none for 320x416: run `violence-ops weights"
    ):
        estimator("int8").estimate([tall])


def test_a_damaged_network_is_refused_in_a_sentence(calibrated: Calibration) -> None:
    network = calibrated.network(*SIZE).with_suffix(".bin")
    content = network.read_bytes()
    network.write_bytes(content[:-1])
    try:
        with pytest.raises(WeightsError, match="is missing or damaged: run `violence-ops weights calibrate`"):
            estimator("int8")
    finally:
        network.write_bytes(content)


@pytest.mark.parametrize("content", ["{", "{}"], ids=["no JSON", "lacks what it should say"])
def test_a_damaged_description_is_refused_in_a_sentence(content: str, calibrated: Calibration) -> None:
    card = calibrated.network(*SIZE).with_name("calibration.json")
    before = card.read_text("utf-8")
    card.write_text(content, "utf-8")
    try:
        with pytest.raises(
            WorkspaceError, match=r"calibration.json is damaged .*: run `violence-ops weights calibrate`"
        ):
            estimator("int8")
    finally:
        card.write_text(before, "utf-8")


def test_without_a_calibration_int8_is_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(
        WeightsError, match="no INT8 networks on this machine yet: run `violence-ops weights calibrate`"
    ):
        estimator("int8")


def test_int8_networks_lie_with_the_weights_that_machines_share(
    calibrated: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = calibrated.network(*SIZE).parents[2]
    monkeypatch.setenv("VIOLENCE_OPS_WEIGHTS", str(shared))
    monkeypatch.setenv("XDG_CACHE_HOME", "/nobody/is/here")
    assert quantise.calibration(calibrated.weights) == calibrated


def test_a_place_for_int8_networks_that_cannot_be_written_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIOLENCE_OPS_WEIGHTS", str(tmp_path / "file"))
    with pytest.raises(
        WeightsError, match=r"cannot be kept in .*/file/.* \(Not a directory\): .* VIOLENCE_OPS_WEIGHTS"
    ):
        quantise.calibrate(weights.find("rtmo_small"), {SIZE: pictures(100, 1)})


@pytest.mark.slow
def test_a_second_calibration_replaces_the_first_and_leaves_nothing_behind(calibrated: Calibration) -> None:
    """The same pictures give the same networks, others give others."""
    same = quantise.calibrate(calibrated.weights, {SIZE: pictures(100, 12)})
    assert same.sha256 == calibrated.sha256
    assert same.networks[SIZE].is_file()
    other = quantise.calibrate(calibrated.weights, {SIZE: pictures(900, 6)})
    assert other.sha256 != calibrated.sha256
    folder = other.network(*SIZE).parent
    assert sorted(path.suffix for path in folder.glob("*int8*")) == [".bin", ".xml"]
    with pytest.raises(WeightsError, match="a newer calibration has replaced it"):
        same.network(*SIZE)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
