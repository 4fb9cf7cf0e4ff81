"""A second look at every joint: where do the fine features around it say that it lies?

RTMO places all joints of a person by one vector, read from a cell of 16 or 32 px: coarse for small figures and for
wrists. The refiner looks at features of 4 px on a grid around each joint, as wide as the person is large. Each joint asks
the places of its grid which of them shows it (attention over samples, as Deformable DETR, Zhu et al. 2021), moves there,
and asks again from closer (cascaded pose regression, Dollár et al. 2010). Weights without a refiner are plain RTMO.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDE = 4  # px between two places of the fine features
REACH = (0.08, 0.04, 0.02)  # between two samples of each round, in roots of the area of the person's frame
_GRID = 7  # samples across
_JOINTS = 17
_POSE = 192  # channels of RTMO's pose vectors,
_EARLY, _MIDDLE, _LATE = 32, 64, 128  # and of its features at 4, 8 and 16 px
_CHANNELS, _HIDDEN = 32, 128


class Look(NamedTuple):
    """A round's answer for N persons: joints (N, 17, 2) px, the round's start (N, 17, 2) px, the logits (N, 17, S) of its
    samples, and where those lie around the start (S, 2), in roots of the frame's area.
    """

    joints: Tensor
    start: Tensor
    logits: Tensor
    steps: Tensor


class Refiner(nn.Module):
    """Fine features of pictures (`fine_features`), and joints moved by them."""

    def __init__(self) -> None:
        super().__init__()
        self.fine_features = FineFeatures()
        self.rounds = nn.ModuleList(_Round(reach) for reach in REACH)

    def forward(self, fine: Tensor, picture: Tensor, joints: Tensor, frames: Tensor, poses: Tensor) -> list[Look]:
        """Each round's answer for joints (N, 17, 2) px of persons in pictures (N,), in frames (N, 4) of centre and size px,
        with pose vectors (N, 192). A round's answer is the next one's start; no gradient goes from one to the other.
        """
        looks: list[Look] = []
        for each in self.rounds:
            start = (looks[-1].joints if looks else joints).detach()
            moved, logits = each(fine, picture, start, frames, poses)
            looks.append(Look(start + moved, start, logits, cast(Tensor, each.steps)))
        return looks


def size_of(frames: Tensor) -> Tensor:
    """(N, 1, 1) px roots of the areas of frames (N, 4)."""
    return (frames[:, 2] * frames[:, 3]).clamp(min=1.0).sqrt()[:, None, None]


class FineFeatures(nn.Module):
    """What joints are looked for in: features of 4 px that know what the coarser ones know."""

    def __init__(self) -> None:
        super().__init__()
        wide = 2 * _CHANNELS
        self.early = _projection(_EARLY, _CHANNELS)
        self.middle, self.late = _projection(_MIDDLE, wide), _projection(_LATE, wide)
        self.coarse = nn.Sequential(_Blend(wide), _Blend(wide), _Blend(wide))
        self.narrow = _projection(wide, _CHANNELS)
        self.fine = _Blend(_CHANNELS)

    def forward(self, early: Tensor, middle: Tensor, late: Tensor) -> Tensor:
        """(B, H / 4, W / 4, F) from the backbone's features at 4 and 8 px and the pose features at 16 px, each (B, ., h, w)."""
        coarse = self.coarse(self.middle(middle) + _doubled(self.late(late)))
        return cast(Tensor, self.fine(self.early(early) + _doubled(self.narrow(coarse))).permute(0, 2, 3, 1))


class _Round(nn.Module):
    steps: Tensor

    def __init__(self, reach: float) -> None:
        super().__init__()
        ticks = (torch.arange(_GRID) - (_GRID - 1) / 2) * reach
        self.register_buffer("steps", torch.cartesian_prod(ticks, ticks), persistent=False)
        self.joint = nn.Parameter(torch.randn(_JOINTS, _HIDDEN) * 0.5)
        self.pose = nn.LayerNorm(_POSE)
        self.context = nn.Linear(_POSE + 2 * _JOINTS, _HIDDEN)
        self.query = nn.Linear(_HIDDEN, _CHANNELS)
        self.prior = nn.Parameter((-(self.steps**2).sum(-1) / (2 * reach**2)).repeat(_JOINTS, 1))
        self.seen = nn.Linear(_CHANNELS, _HIDDEN)
        self.between = nn.Linear(_HIDDEN, _HIDDEN)
        self.among = nn.Linear(_JOINTS, _JOINTS)
        self.normal = nn.LayerNorm(_HIDDEN)
        self.inner = nn.Linear(_HIDDEN, _HIDDEN)
        self.moved = nn.Linear(_HIDDEN, 2)
        nn.init.zeros_(self.moved.weight)
        nn.init.zeros_(self.moved.bias)

    def forward(
        self, fine: Tensor, picture: Tensor, joints: Tensor, frames: Tensor, poses: Tensor
    ) -> tuple[Tensor, Tensor]:
        """How far each joint moves (N, 17, 2) px, and the logits (N, 17, S) of the samples."""
        size = size_of(frames)
        across, down = (
            start[..., None] + step * size for start, step in zip(joints.unbind(-1), self.steps.unbind(-1), strict=True)
        )
        near, shares = neighbours(fine, picture, across, down)
        relative = ((joints - frames[:, None, :2]) / size).flatten(1)
        context = self.context(torch.cat([self.pose(poses), relative], dim=1))
        hidden = functional.silu(self.joint + context[:, None])
        # a sample is a mean of four neighbours: asked and summed one by one, none needs to be made
        answers = (near @ self.query(hidden)[..., None]).reshape(shares.shape)
        logits = (answers * shares).sum(dim=2) * _CHANNELS**-0.5 + self.prior
        likely = logits.softmax(dim=-1)[:, :, None]
        hidden = hidden + self.seen(((likely * shares).flatten(2)[:, :, None] @ near).squeeze(2))
        hidden = hidden + self.among(functional.silu(self.between(hidden)).transpose(1, 2)).transpose(1, 2)
        hidden = hidden + functional.silu(self.inner(self.normal(hidden)))
        return ((likely @ self.steps).squeeze(2) + 0.1 * self.moved(hidden)) * size, logits


class _Blend(nn.Module):
    """What neighbouring places tell each other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(channels, channels, 5, padding=2, groups=channels, bias=False)
        self.mixed = _projection(channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        return functional.silu(features + self.mixed(self.near(features)))


def neighbours(fine: Tensor, picture: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The four fine features around each of S samples, (N, J, 4 S, F), and their shares of it, (N, J, 4, S): bilinear, and
    outside a picture its edge goes on. Of features (B, h, w, F), places (N, J, S) px, pictures (N,).
    """
    count, height, width, channels = fine.shape
    x, y = (x / STRIDE - 0.5).clamp(0, width - 1), (y / STRIDE - 0.5).clamp(0, height - 1)
    left, top = x.floor().clamp(max=width - 2), y.floor().clamp(max=height - 2)
    right, below = x - left, y - top
    corner = (picture[:, None, None] * height + top.long()) * width + left.long()
    corner = corner.clamp(0, count * height * width - width - 2)  # a place that is no number is looked up somewhere
    corners = torch.stack([corner, corner + 1, corner + width, corner + width + 1], dim=2)
    # index_select: its gradient costs half of that of features[corners]
    near = fine.reshape(-1, channels).index_select(0, corners.flatten())
    lower_right = right * below
    shares = torch.stack(
        [1 - right - below + lower_right, right - lower_right, below - lower_right, lower_right], dim=2
    )
    return near.reshape(*x.shape[:2], -1, channels), shares


def _projection(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after, momentum=0.03))


def _doubled(features: Tensor) -> Tensor:
    return functional.interpolate(features, scale_factor=2.0, mode="nearest")
