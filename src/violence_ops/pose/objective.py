"""What learns, and from which losses: a network together with the refiner that it has, or the refiner alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from violence_ops.pose.loss import Targets, losses, predictions_of
from violence_ops.pose.maps import JointMaps
from violence_ops.pose.network import features, fine_features, refiner_of
from violence_ops.pose.refiner import BLEND
from violence_ops.pose.refiner_loss import refiner_losses


@dataclass(frozen=True)
class Objective:
    """What learns, its weighted loss terms for pictures (B, 3, H, W) 0 … 255 and targets, what of the model must stay the same,
    and the part of the learner that takes larger steps.
    """

    learner: nn.Module
    terms: Callable[[Tensor, list[Targets]], dict[str, Tensor]]
    fixed: dict[str, Tensor] = field(default_factory=dict)
    quick: nn.Module | None = None


def whole(model: Any, device: str) -> Objective:
    """The network and the refiner that it has, if it has one, from the same looks."""
    model.train()
    refiner = refiner_of(model)
    read = [(model.head.head_module.in_channels, stride) for stride in model.head.featmap_strides]
    maps = JointMaps(read if refiner is None else [*read, BLEND]).to(device)

    def terms(pictures: Tensor, targets: list[Targets]) -> dict[str, Tensor]:
        with torch.autocast(pictures.device.type, dtype=torch.bfloat16):
            early, levels = features(model, pictures)
            predictions = predictions_of(model, levels)
            fine, blend = fine_features(refiner, early, levels) if refiner is not None else (None, None)
            drawn = maps(predictions.features if blend is None else [*predictions.features, blend])
        found = losses(model, predictions, targets, drawn)
        return found if fine is None else found | refiner_losses(model, predictions, fine, targets)

    return Objective(nn.ModuleList([model, maps]), terms, quick=refiner)


def refiner_alone(model: Any) -> Objective:
    """The refiner; the network stays as it is, so a step costs half."""
    model.requires_grad_(requires_grad=False).eval()
    model.refiner.requires_grad_(requires_grad=True).train()

    def terms(pictures: Tensor, targets: list[Targets]) -> dict[str, Tensor]:
        with torch.autocast(pictures.device.type, dtype=torch.bfloat16):
            with torch.no_grad():
                early, levels = features(model, pictures)
                predictions = predictions_of(model, levels)
            fine, _ = fine_features(model.refiner, early, levels)
        return refiner_losses(model, predictions, fine, targets)

    fixed = {name: value for name, value in model.state_dict().items() if not name.startswith("refiner.")}
    return Objective(model.refiner, terms, fixed)
