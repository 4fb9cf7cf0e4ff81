"""STGCN++ with the channels first is MMAction2's STGCN++: results, gradients, running figures and weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from violence_ops.recognition import channels_first

# isort: split
from mmaction.models.backbones import STGCN
from mmengine.logging import MMLogger

SETTINGS: dict[str, Any] = {
    "in_channels": 6, "base_channels": 16, "gcn_adaptive": "init", "gcn_with_res": True, "tcn_type": "mstcn",
    "graph_cfg": {"layout": "coco", "mode": "spatial"},
}  # fmt: skip


def pair() -> tuple[Any, Any]:
    """Both networks in double precision, with the same random weights."""
    MMLogger.get_current_instance().setLevel("WARNING")
    torch.manual_seed(0)
    theirs = STGCN(**copy.deepcopy(SETTINGS))
    for value in theirs.parameters():
        torch.nn.init.normal_(value, 0.0 if value.dim() > 1 else 1.0, 0.2)
    ours = channels_first.ChannelsFirstSTGCN(**copy.deepcopy(SETTINGS))
    ours.load_state_dict(theirs.state_dict())
    return theirs.double(), ours.double()


def everybody(clips: int, persons: int, frames: int) -> torch.Tensor:
    return torch.randn(clips, persons, frames, 17, 6, dtype=torch.float64)


def alone() -> torch.Tensor:
    """Nobody beside the first person in one clip, and for half of the other."""
    inputs = everybody(2, 2, 30)
    inputs[0, 1], inputs[1, 1, 15:] = 0, 0
    return inputs


@pytest.mark.parametrize(
    ("clips", "tied"),
    [
        (lambda: everybody(2, 2, 30), False), (lambda: everybody(2, 2, 13), False), (lambda: everybody(2, 2, 4), False),
        (lambda: everybody(1, 1, 30), False), (alone, True), (lambda: everybody(2, 2, 15).repeat_interleave(2, dim=2), True),
    ],
    ids=["30 frames", "13 frames", "4 frames", "one person", "nobody beside", "each frame twice"],
)  # fmt: skip
def test_results_gradients_and_running_figures_are_mmaction2s(clips: Callable[[], torch.Tensor], tied: bool) -> None:
    """Which of frames that are `tied` is the highest is up to rounding: what the weights learn from them is the same."""
    theirs, ours = pair()
    inputs = clips()
    weight: torch.Tensor | None = None
    found = []
    for network in (theirs, ours):
        network.train()
        own = inputs.clone().requires_grad_()
        result = network(own)
        weight = torch.randn_like(result) if weight is None else weight
        (result * weight).sum().backward()
        found.append((result, own.grad, [value.grad for value in network.parameters()], list(network.buffers())))
    (their_result, their_grad, their_grads, their_buffers), (result, grad, grads, buffers) = found
    torch.testing.assert_close(result, their_result)
    if not tied:
        torch.testing.assert_close(grad, their_grad, rtol=1e-6, atol=1e-8)
    for one, other in zip(grads, their_grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    for one, other in zip(buffers, their_buffers, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(ours.eval()(inputs), theirs.eval()(inputs))


def test_single_precision_is_as_near_to_double_as_mmaction2s() -> None:
    """Together, as rounding alone decides which side of 0 a few values are on, and with them a whole gradient."""
    inputs = torch.randn(4, 2, 30, 17, 6)
    off = []
    for network in pair():
        found = []
        for precision in (torch.float64, torch.float32):
            network.to(precision).zero_grad()
            result = network.train()(inputs.to(precision))
            result.square().mean().backward()
            grads = torch.cat([value.grad.flatten().double() for value in network.parameters()])
            buffers = torch.cat([value.flatten().double() for value in network.buffers()])
            found.append((result.double(), grads, buffers))
        off.append([float((one - exact).norm() / exact.norm()) for exact, one in zip(*found, strict=True)])
    for ours, theirs in zip(*reversed(off), strict=True):
        assert ours <= 2 * theirs + 2e-3


@pytest.mark.skipif(not channels_first._ONEDNN_BF16, reason="oneDNN has no bf16 on this processor")
def test_mixed_precision_is_near_single_and_keeps_weights_and_figures_single() -> None:
    _, network = pair()
    network.float().train()
    inputs = torch.randn(4, 2, 30, 17, 6)
    exact = network(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network(inputs)
    assert 0 < float((mixed - exact).norm() / exact.norm()) < 0.05
    mixed.square().mean().backward()
    assert all(value.grad.dtype == torch.float32 for value in network.parameters())
    assert all(value.dtype != torch.bfloat16 for value in network.buffers())


def test_only_stgcn_plus_plus_is_taken_over() -> None:
    plain = {"type": "STGCN", "graph_cfg": SETTINGS["graph_cfg"]}
    assert channels_first.fits(plain | {"gcn_adaptive": "init", "gcn_with_res": True, "tcn_type": "mstcn"})
    assert not channels_first.fits(plain)
    assert not channels_first.fits({"type": "AAGCN"})
