"""A small transformer over persons and frames, which is told how people stand to one another (`skeleton_transformer`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import violence_ops.openmmlab  # noqa: F401
from violence_ops.records import HEAD, JOINTS, LIMBS, TRUNK

# isort: split
from mmaction.registry import MODELS
from mmengine.model import BaseModule

PER_TOKEN = 2 * JOINTS + JOINTS + 2 * JOINTS + 5 + 3 * len(LIMBS)
_SMALLEST = 1e-2  # of the scene: a person's size is not taken for smaller
_FAR = 3.0  # sizes
_NEVER = 1e4


class OverTokens(BaseModule):
    """Transformer layers over tokens, and the mean of what they make of them."""

    def __init__(self, width: int, layers: int, heads: int, dropout: float, init_cfg: Any = None) -> None:
        """`width` is that of a token, a multiple of `heads`."""
        super().__init__(init_cfg=init_cfg)
        self.layers = nn.ModuleList(_Layer(width, heads, dropout) for _ in range(layers))
        self.last = nn.LayerNorm(width)

    def mean(self, tokens: Tensor, there: Tensor | None = None) -> Tensor:
        """`(N, C)` of tokens `(N, L, C)`; those that are not `there` `(N, L)`, 0 or 1, count for nothing."""
        for layer in self.layers:
            tokens = layer(tokens, there)
        found: Tensor = self.last(tokens)
        if there is None:
            return found.mean(1)
        weight = there[..., None]
        return (found * weight).sum(1) / weight.sum(1).clamp(min=1.0)


@MODELS.register_module()
class SkeletonTransformer(OverTokens):
    """Each person of each frame is a token; every token attends to all others.

    A token holds the joints relative to the person's own centre and in units of his own size, their scores, their motion, where
    the nearest in rank of the others stands, and how far the person's hands and feet are from that other's head and trunk.
    The order of persons makes no difference beyond who is whose other.
    """

    def __init__(
        self, base_channels: int = 16, layers: int = 2, heads: int = 4, max_frames: int = 512, dropout: float = 0.1,
        in_channels: int = 3, init_cfg: Any = None,
    ) -> None:  # fmt: skip
        """The tokens have 4 x `base_channels` numbers; windows have at most `max_frames` frames."""
        if in_channels != 3:
            raise ValueError("skeleton_transformer makes its own motions: it takes the stream `joint` alone")
        width = 4 * base_channels
        super().__init__(width, layers, heads, dropout, init_cfg)
        self.normalise = nn.BatchNorm1d(PER_TOKEN)
        self.embed = nn.Linear(PER_TOKEN, width)
        self.time = nn.Parameter(torch.randn(max_frames, width) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Features `(N, 1, C, 1, 1)`, as MMAction2's GCNHead takes them, of windows `(N, M, T, 17, 3)` (x, y, score)."""
        parts, present = streams(x)
        tokens = torch.cat(list(parts.values()), dim=-1)
        tokens = self.normalise(tokens.flatten(0, 2)).reshape(tokens.shape)
        tokens = (self.embed(tokens) + self.time[: tokens.shape[2]]).flatten(1, 2)
        return self.mean(tokens, present.flatten(1).float())[:, None, :, None, None]


class _Layer(nn.Module):
    """Attention and two linear layers, each after a normalisation and beside a way around (Xiong et al. 2020, pre-LN)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.asked, self.answer = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.think = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, there: Tensor | None) -> Tensor:
        """Tokens `(N, L, C)`; nobody looks at those that are not `there` `(N, L)`, 0 or 1."""
        count, length, width = x.shape
        shape = (count, length, 3, self.heads, width // self.heads)
        query, key, value = self.asked(self.before(x)).reshape(shape).permute(2, 0, 3, 1, 4).unbind(0)
        likeness = query @ key.transpose(-1, -2) / (width // self.heads) ** 0.5
        if there is not None:
            likeness = likeness + (there[:, None, None] - 1) * _NEVER
        seen = (self.dropout(likeness.softmax(-1)) @ value).transpose(1, 2).reshape(count, length, width)
        x = x + self.dropout(self.answer(seen))
        return x + self.dropout(self.think(self.between(x)))


def streams(x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """What is known of each person in each frame, `(N, M, T, F)` of F numbers each, and who is present `(N, M, T)`.

    `places` of the joints and their `motions` are in units of the person's size; together they are `PER_TOKEN` numbers.
    """
    points, scores = x[..., :2], x[..., 2]
    seen = scores > 0
    present = seen.any(-1)
    centre, size = _centre(points, seen), _size(points, seen)
    own = torch.where(seen[..., None], (points - centre[..., None, :]) / size[..., None, None], 0.0)
    both = seen[:, :, 1:] & seen[:, :, :-1]
    moved = (points[:, :, 1:] - points[:, :, :-1]) / size[..., 1:, None, None]
    motion = torch.cat([torch.zeros_like(points[:, :, :1]), torch.where(both[..., None], moved, 0.0)], dim=2)
    others = _others(points, seen, present, centre, size)
    found = {"places": own.flatten(-2), "scores": scores, "motions": motion.flatten(-2), "others": others}
    return {name: values.clamp(-_FAR, _FAR) for name, values in found.items()}, present


def _others(points: Tensor, seen: Tensor, present: Tensor, centre: Tensor, size: Tensor) -> Tensor:
    """How each person stands to the next in rank (the last to the first), `(N, M, T, 5 + 12)`; zeros where one is missing."""
    head = _mean(points[..., HEAD, :], seen[..., HEAD])
    other = {"centre": _next(centre), "head": _next(head), "size": _next(size)}
    both = present & _next(present) & (points.shape[1] > 1)
    scale = ((size + other["size"]) / 2)[..., None]
    offset = (other["centre"] - centre) / scale
    ratio = (other["size"] / size).log()[..., None]
    alone = torch.stack([offset[..., 0].abs(), offset[..., 1], offset.norm(dim=-1)], -1)
    limbs, known = points[..., LIMBS, :], seen[..., LIMBS]
    gaps = [
        torch.where(known, (limbs - other[target][..., None, :]).norm(dim=-1) / scale, _FAR)
        for target in ("head", "centre")
    ]
    reach = torch.where(known, (limbs - centre[..., None, :]).norm(dim=-1) / scale, 0.0)
    found = torch.cat([alone, ratio, *gaps, reach], -1)
    return torch.cat([torch.where(both[..., None], found, 0.0), both[..., None].float()], -1)


def _next(values: Tensor) -> Tensor:
    """Of each person the value of the next one."""
    return torch.cat([values[:, 1:], values[:, :1]], dim=1)


def _mean(points: Tensor, seen: Tensor) -> Tensor:
    """Mean of the points that are seen, `(..., 2)`; of none it is zero."""
    weight = seen.float()[..., None]
    return (points * weight).sum(-2) / weight.sum(-2).clamp(min=1.0)


def _centre(points: Tensor, seen: Tensor) -> Tensor:
    """Of the trunk, or of all joints where no joint of the trunk is seen."""
    trunk = seen[..., TRUNK]
    return torch.where(trunk.any(-1)[..., None], _mean(points[..., TRUNK, :], trunk), _mean(points, seen))


def _size(points: Tensor, seen: Tensor) -> Tensor:
    """The person's longer side, `(N, M, T)`: the mean over the frames in which he is present."""
    big = torch.tensor(1e6, device=points.device)
    high = torch.where(seen[..., None], points, -big).amax(-2)
    low = torch.where(seen[..., None], points, big).amin(-2)
    present = seen.any(-1)
    side = torch.where(present, (high - low).amax(-1), 0.0)
    mean = side.sum(-1, keepdim=True) / present.sum(-1, keepdim=True).clamp(min=1)
    return mean.clamp(min=_SMALLEST).expand_as(side)
