"""A package's networks as ONNX give torch's probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from violence_ops.errors import UserError
from violence_ops.params import load_params
from violence_ops.recognition import exported, starts
from violence_ops.recognition.ensemble import network
from violence_ops.recognition.model import Network, Settings

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")


def recogniser(family: str) -> Network:
    settings = Settings.of(PARAMS.train.model_copy(update={"family": family}), PARAMS.windows)
    return network(settings, starts.load(starts.find("synthetic_fights"), settings) if family == "stgcnpp" else None)


@pytest.mark.parametrize(
    "family",
    ["stgcnpp", "agcn", "skeleton_transformer", "fusion_transformer", "mobilenetv2_frames", "resnet18_timeseries"],
)
def test_the_exported_network_gives_torchs_probabilities_for_any_number_of_windows(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = recogniser(family)
    exported.export(made, tmp_path / "model.onnx")
    session = exported.Session(tmp_path / "model.onnx")
    low, high = made.limits
    for count in (1, 5):
        inputs = (low + high) / 2 + (high - low) / 5 * torch.randn(count, *made.shape)
        found = session.probabilities(inputs)
        assert found.shape == (count,)
        np.testing.assert_allclose(found, made.probabilities(inputs), rtol=0, atol=exported.TOLERANCE)


def test_batches_side_by_side_give_what_they_give_one_after_another(tmp_path: Path) -> None:
    made = recogniser("stgcnpp")
    exported.export(made, tmp_path / "model.onnx")
    session = exported.Session(tmp_path / "model.onnx")
    inputs = torch.rand(11, *made.shape, generator=torch.Generator().manual_seed(4))
    found = []
    threads = torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(session.probabilities(inputs))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(*found)
    np.testing.assert_array_equal(found[0][4:8], session.probabilities(inputs[4:8]))


def test_a_network_that_onnx_would_change_is_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exported, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match=r"model.onnx gives probabilities that differ from the network's by"):
        exported.export(recogniser("stgcnpp"), tmp_path / "model.onnx")


def test_what_is_no_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no such thing")
    with pytest.raises(ValueError, match=r"model\.onnx"):
        exported.Session(tmp_path / "model.onnx")
