"""Joint maps: what makes a small RTMO's features learn joints sooner.

RTMO's joints come out of one vector a person, so each picture says little about its features. While it learns, 1 x 1
convolutions also ask the head's features, and the refiner's, for a map of every joint, which every visible joint of every
person answers (DirectPose, Tian et al. 2019, trains its features so). The shipped weights know nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from violence_ops.pose.loss import Targets

STRIDE = 8  # px between two places of a map
_SPREAD = 0.05  # of the square root of a person's box: the Gaussian's deviation,
_LEAST = 0.7  # and in places, at least
_LIKELY = 0.01  # a map's value before anything is learnt


class JointMaps(nn.Module):
    """Logits (B, 17, H / 8, W / 8) of where each joint is, a level, from features (B, channels, H / stride, W / stride).

    `levels` are the channels and the stride (px, 8 or more) of each.
    """

    def __init__(self, levels: Sequence[tuple[int, int]], joints: int = 17) -> None:
        super().__init__()
        self.finer = [stride // STRIDE for _, stride in levels]
        self.convolutions = nn.ModuleList(
            _unsure(nn.Conv2d(channels, joints * finer**2, 1))
            for (channels, _), finer in zip(levels, self.finer, strict=True)
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The maps of the levels' features."""
        return [
            functional.pixel_shuffle(convolution(level), finer)
            for convolution, level, finer in zip(self.convolutions, features, self.finer, strict=True)
        ]


def _unsure(convolution: nn.Conv2d) -> nn.Conv2d:
    """The convolution with a start that finds next to nothing anywhere."""
    nn.init.normal_(convolution.weight, std=0.01)
    assert convolution.bias is not None
    nn.init.constant_(convolution.bias, math.log(_LIKELY / (1 - _LIKELY)))
    return convolution


def map_loss(maps: list[Tensor], targets: list[Targets]) -> Tensor:
    """Penalty-reduced focal loss a joint (CornerNet, Law and Deng 2018): peaks are wanted, their surroundings forgiven.

    Where persons are ignored, or known by the box alone, nothing counts.
    """
    wanted = torch.zeros_like(maps[0])
    counted = torch.ones_like(maps[0][:, :1])
    total = 0.0
    for number, target in enumerate(targets):
        total += _draw(wanted[number], counted[number, 0], target)
    return torch.stack([_focal(logits, wanted, counted) for logits in maps]).mean() / max(total, 1.0)


def _focal(logits: Tensor, wanted: Tensor, counted: Tensor) -> Tensor:
    chance = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    hit = wanted > 0.99
    gain = torch.where(hit, (1 - chance) ** 2 * chance.log(), (1 - wanted) ** 4 * chance**2 * (1 - chance).log())
    return -(gain * counted).sum()


@torch.no_grad()
def _draw(wanted: Tensor, counted: Tensor, target: Targets) -> float:
    """Draw an image's joints into its maps (17, H, W), strike from `counted` (H, W) what is unknown; how many joints."""
    height, width = wanted.shape[1:]
    seen = (target.visibility == 2) & ~target.ignored[:, None]
    for box in target.bboxes[target.ignored | ~seen.any(dim=1)]:
        left, top, right, bottom = (box / STRIDE).round().int().tolist()
        counted[max(top, 0) : bottom + 1, max(left, 0) : right + 1] = 0
    person, joint = torch.nonzero(seen, as_tuple=True)
    if len(person) == 0:
        return 0.0
    size = (target.bboxes[:, 2:] - target.bboxes[:, :2]).prod(dim=1).clamp(min=1).sqrt()
    deviation = (_SPREAD * size / STRIDE).clamp(min=_LEAST)[person, None, None]
    place = (target.keypoints[person, joint] / STRIDE - 0.5).round()  # a peak lies on a place
    across = torch.arange(width, device=wanted.device)[None, None] - place[:, 0, None, None]
    down = torch.arange(height, device=wanted.device)[None, :, None] - place[:, 1, None, None]
    bumps = torch.exp(-(across**2 + down**2) / (2 * deviation**2))
    wanted.scatter_reduce_(0, joint[:, None, None].expand_as(bumps), bumps, "amax")
    return float(len(person))
