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
BLEND = (2 * _CHANNELS, 8)  # channels of what fine features are drawn from, and px between two of its places


class Look(NamedTuple):
    """A round's answer for N persons: joints (N, 17, 2) px, the round's start (N, 17, 2) px, the logits (N, 17, S) of its
    samples, where those lie around the start (S, 2), in roots of the frame's area, and its hidden state (N, 17, C).
    """

    joints: Tensor
    start: Tensor
    logits: Tensor
    offsets: Tensor
    hidden: Tensor


class Refiner(nn.Module):
    """Fine features of pictures (`fine_features`), and joints moved by them."""

    def __init__(self) -> None:
        super().__init__()
        self.fine_features = FineFeatures()
        self.rounds = nn.ModuleList(_Round(reach, first=number == 0) for number, reach in enumerate(REACH))

    def forward(self, fine: Tensor, picture: Tensor, joints: Tensor, frames: Tensor, poses: Tensor) -> list[Look]:
        """Each round's answer for joints (N, 17, 2) px of persons in pictures (N,), in frames (N, 4) of centre and size px,
        with pose vectors (N, 192). A round's joints are the next one's start, without a gradient; its hidden state goes
        on with one.
        """
        looks: list[Look] = []
        for each in self.rounds:
            start = (looks[-1].joints if looks else joints).detach()
            before = looks[-1].hidden if looks else None
            moved, logits, hidden = each(fine, picture, start, frames, poses, before)
            looks.append(Look(start + moved, start, logits, cast(Tensor, each.offsets), hidden))
        return looks


def grown(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A model's weights with those of a refiner from before it had residual blocks and a hidden state, in today's shape.

    What is new begins as nothing, so that joints are refined as before; other weights are returned as they are.
    """
    fine = "refiner.fine_features.fine."
    if f"{fine}near.weight" not in state:
        return state
    new = {
        f"refiner.{name}.{part}": value
        for name, module in Refiner().named_modules()
        if isinstance(module, _Residual) or name.endswith("earlier")
        for part, value in module.state_dict().items()
    }
    return new | {name.replace(fine, f"{fine}0."): value for name, value in state.items()}


def size_of(frames: Tensor) -> Tensor:
    """(N, 1, 1) px roots of the areas of frames (N, 4)."""
    return (frames[:, 2] * frames[:, 3]).clamp(min=1.0).sqrt()[:, None, None]


class FineFeatures(nn.Module):
    """What joints are looked for in: features of 4 px that know what the coarser ones know."""

    def __init__(self) -> None:
        super().__init__()
        wide, _ = BLEND
        self.early = _projection(_EARLY, _CHANNELS)
        self.middle, self.late = _projection(_MIDDLE, wide), _projection(_LATE, wide)
        self.deep = nn.Sequential(*(_Residual(_LATE) for _ in range(3)))
        self.coarse = nn.Sequential(*(_Blend(wide) for _ in range(3)), *(_Residual(wide) for _ in range(3)))
        self.narrow = _projection(wide, _CHANNELS)
        self.fine = nn.Sequential(_Blend(_CHANNELS), _Residual(_CHANNELS))

    def forward(self, early: Tensor, middle: Tensor, late: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H / 4, W / 4, F), and the blend (B, 64, H / 8, W / 8) that they are drawn from, from the backbone's features at
        4 and 8 px and the pose features at 16 px, each (B, ., h, w).
        """
        blend = self.coarse(self.middle(middle) + _doubled(self.late(self.deep(late))))
        return self.fine(self.early(early) + _doubled(self.narrow(blend))).permute(0, 2, 3, 1), blend


class _Round(nn.Module):
    offsets: Tensor

    def __init__(self, reach: float, *, first: bool) -> None:
        super().__init__()
        ticks = (torch.arange(_GRID) - (_GRID - 1) / 2) * reach
        self.register_buffer("offsets", torch.cartesian_prod(ticks, ticks), persistent=False)
        self.joint = nn.Parameter(torch.randn(_JOINTS, _HIDDEN) * 0.5)
        self.pose = nn.LayerNorm(_POSE)
        self.context = nn.Linear(_POSE + 2 * _JOINTS, _HIDDEN)
        self.earlier = None if first else _zeroed(nn.Linear(_HIDDEN, _HIDDEN, bias=False))
        self.query = nn.Linear(_HIDDEN, _CHANNELS)
        self.prior = nn.Parameter((-(self.offsets**2).sum(-1) / (2 * reach**2)).repeat(_JOINTS, 1))
        self.seen = nn.Linear(_CHANNELS, _HIDDEN)
        self.between = nn.Linear(_HIDDEN, _HIDDEN)
        self.among = nn.Linear(_JOINTS, _JOINTS)
        self.normal = nn.LayerNorm(_HIDDEN)
        self.inner = nn.Linear(_HIDDEN, _HIDDEN)
        self.moved = _zeroed(nn.Linear(_HIDDEN, 2))

    def forward(
        self, fine: Tensor, picture: Tensor, joints: Tensor, frames: Tensor, poses: Tensor, before: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """How far each joint moves (N, 17, 2) px, the logits (N, 17, S) of the samples, and the hidden state (N, 17, C);
        `before` is that of the round before, if there was one.
        """
        size = size_of(frames)
        across, down = (
            start[..., None] + offset * size
            for start, offset in zip(joints.unbind(-1), self.offsets.unbind(-1), strict=True)
        )
        near, weights = neighbours(fine, picture, across, down)
        relative = ((joints - frames[:, None, :2]) / size).flatten(1)
        context = self.context(torch.cat([self.pose(poses), relative], dim=1))
        hidden = self.joint + context[:, None]
        if self.earlier is not None:
            hidden = hidden + self.earlier(before)
        hidden = functional.silu(hidden)
        # a sample is a mean of four neighbours: asked and summed one by one, none needs to be made
        answers = (near @ self.query(hidden)[..., None]).reshape(weights.shape)
        logits = (answers * weights).sum(dim=2) * _CHANNELS**-0.5 + self.prior
        likely = logits.softmax(dim=-1)[:, :, None]
        hidden = hidden + self.seen(((likely * weights).flatten(2)[:, :, None] @ near).squeeze(2))
        hidden = hidden + self.among(functional.silu(self.between(hidden)).transpose(1, 2)).transpose(1, 2)
        hidden = hidden + functional.silu(self.inner(self.normal(hidden)))
        return ((likely @ self.offsets).squeeze(2) + 0.1 * self.moved(hidden)) * size, logits, hidden


class _Blend(nn.Module):
    """What neighbouring places tell each other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(channels, channels, 5, padding=2, groups=channels, bias=False)
        self.mixed = _projection(channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        return functional.silu(features + self.mixed(self.near(features)))


class _Residual(nn.Module):
    """A 3 x 3 convolution that begins as nothing (Goyal et al. 2017) and learns what to add."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.normal = nn.BatchNorm2d(channels, momentum=0.03)
        nn.init.zeros_(self.normal.weight)

    def forward(self, features: Tensor) -> Tensor:
        return features + functional.silu(self.normal(self.convolution(features)))


def neighbours(fine: Tensor, picture: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The four fine features around each of S samples, (N, J, 4 S, F), and their weights, (N, J, 4, S): bilinear, and
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
    weights = torch.stack(
        [1 - right - below + lower_right, right - lower_right, below - lower_right, lower_right], dim=2
    )
    return near.reshape(*x.shape[:2], -1, channels), weights


def _projection(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after, momentum=0.03))


def _zeroed(layer: nn.Linear) -> nn.Linear:
    """The layer with all its parameters zero: what it adds begins as nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _doubled(features: Tensor) -> Tensor:
    return functional.interpolate(features, scale_factor=2.0, mode="nearest")
