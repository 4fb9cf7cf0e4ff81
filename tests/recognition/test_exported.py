"""A package's networks as ONNX give torch's probabilities."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from violence_ops.errors import UserError
from violence_ops.params import load_params
from violence_ops.recognition import exported, starts
from violence_ops.recognition.ensemble import network
from violence_ops.recognition.folded import Folded
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


@pytest.mark.parametrize(("channels", "size", "streams"), [(8, 15, ["joint"]), (24, 45, ["bone", "bone_motion"])])
def test_stgcnpp_of_any_size_is_exported_as_it_is(channels: int, size: int, streams: list[str], tmp_path: Path) -> None:
    train = PARAMS.train.model_copy(update={"base_channels": channels, "streams": tuple(streams)})
    made = network(Settings.of(train, PARAMS.windows.model_copy(update={"size": size})))
    generator = torch.Generator().manual_seed(1)
    for name, value in made.network.state_dict().items():
        if value.is_floating_point():  # no batch norm of training is as plain as a new one
            noise = torch.rand(value.shape, generator=generator)
            value.copy_(value + noise if name.endswith("running_var") else value + 0.2 * (noise - 0.5))
    torch.nn.init.normal_(made.network.cls_head.fc.weight, std=0.3, generator=generator)
    exported.export(made, tmp_path / "model.onnx")
    inputs = torch.randn(5, *made.shape, generator=generator) * torch.linspace(0, 3, 5).view(-1, *[1] * len(made.shape))
    found = exported.Session(tmp_path / "model.onnx").probabilities(inputs)
    assert np.ptp(found) > 10 * exported.TOLERANCE
    np.testing.assert_allclose(found, made.probabilities(inputs), rtol=0, atol=exported.TOLERANCE)


def test_a_network_that_the_export_would_change_is_not_exported_even_if_it_is_sure_of_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bent(*arguments: Any) -> Folded:
        made = Folded(*arguments)
        made.classes = copy.deepcopy(made.classes)
        with torch.no_grad():
            made.classes.bias[1] -= 1
        return made

    made = recogniser("stgcnpp")
    with torch.no_grad():
        made.network.cls_head.fc.bias[1] += 30
    monkeypatch.setattr(exported, "Folded", bent)
    with pytest.raises(UserError, match=r"model.onnx gives log odds that differ from the network's by 1:"):
        exported.export(made, tmp_path / "model.onnx")
    noise = torch.rand(2, *made.shape)
    np.testing.assert_array_equal(made.probabilities(noise), 1)
    np.testing.assert_array_equal(exported.Session(tmp_path / "model.onnx").probabilities(noise), 1)


def test_what_is_no_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no such thing")
    with pytest.raises(ValueError, match=r"model\.onnx"):
        exported.Session(tmp_path / "model.onnx")
