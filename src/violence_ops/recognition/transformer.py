"""A small transformer over persons and frames, which is told how people stand to one another (`skeleton_transformer`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import violence_ops.openmmlab  # noqa: F401
from violence_ops.records import JOINTS

# isort: split
from mmaction.registry import MODELS
from mmengine.model import BaseModule

_HEAD, _TRUNK, _LIMBS = [0, 1, 2, 3, 4], [5, 6, 11, 12], [9, 10, 15, 16]
_PER_TOKEN = 2 * JOINTS + JOINTS + 2 * JOINTS + 5 + 3 * len(_LIMBS)
_SMALLEST = 1e-2  # of the scene: a person's size is not taken for smaller
_FAR = 3.0  # sizes


@MODELS.register_module()
class SkeletonTransformer(BaseModule):
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
        super().__init__(init_cfg=init_cfg)
        if in_channels != 3:
            raise ValueError("skeleton_transformer makes its own motions: it takes the stream `joint` alone")
        width = 4 * base_channels
        self.normalise = nn.BatchNorm1d(_PER_TOKEN)
        self.embed = nn.Linear(_PER_TOKEN, width)
        self.time = nn.Parameter(torch.randn(max_frames, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features `(N, 1, C, 1, 1)`, as MMAction2's GCNHead takes them, of windows `(N, M, T, 17, 3)` (x, y, score)."""
        tokens, present = _tokens(x)
        tokens = self.normalise(tokens.flatten(0, 2)).reshape(tokens.shape)
        tokens = (self.embed(tokens) + self.time[: tokens.shape[2]]).flatten(1, 2)
        absent = ~present.flatten(1)
        absent &= ~absent.all(dim=1, keepdim=True)  # attention to nobody at all would be no number
        found = self.encoder(tokens, src_key_padding_mask=absent)
        weight = (~absent).float()[..., None]
        return ((found * weight).sum(1) / weight.sum(1))[:, None, :, None, None]


def _tokens(x: Tensor) -> tuple[Tensor, Tensor]:
    """`(N, M, T, _PER_TOKEN)` and who is present `(N, M, T)`."""
    points, scores = x[..., :2], x[..., 2]
    seen = scores > 0
    present = seen.any(-1)
    centre, size = _centre(points, seen), _size(points, seen)
    own = torch.where(seen[..., None], (points - centre[..., None, :]) / size[..., None, None], 0.0)
    motion = torch.zeros_like(points)
    both = seen[:, :, 1:] & seen[:, :, :-1]
    motion[:, :, 1:] = torch.where(both[..., None], points.diff(dim=2) / size[..., 1:, None, None], 0.0)
    others = _others(points, seen, present, centre, size)
    parts = (own.flatten(-2), scores, motion.flatten(-2), others)
    return torch.cat(parts, dim=-1).clamp(-_FAR, _FAR), present


def _others(points: Tensor, seen: Tensor, present: Tensor, centre: Tensor, size: Tensor) -> Tensor:
    """How each person stands to the next in rank (the last to the first), `(N, M, T, 5 + 12)`; zeros where one is missing."""
    head = _mean(points[..., _HEAD, :], seen[..., _HEAD])
    other = {"centre": centre.roll(-1, 1), "head": head.roll(-1, 1), "size": size.roll(-1, 1)}
    both = present & present.roll(-1, 1) & (points.shape[1] > 1)
    scale = ((size + other["size"]) / 2)[..., None]
    offset = (other["centre"] - centre) / scale
    ratio = (other["size"] / size).log()[..., None]
    alone = torch.stack([offset[..., 0].abs(), offset[..., 1], offset.norm(dim=-1)], -1)
    limbs, known = points[..., _LIMBS, :], seen[..., _LIMBS]
    gaps = [
        torch.where(known, (limbs - other[target][..., None, :]).norm(dim=-1) / scale, _FAR)
        for target in ("head", "centre")
    ]
    reach = torch.where(known, (limbs - centre[..., None, :]).norm(dim=-1) / scale, 0.0)
    found = torch.cat([alone, ratio, *gaps, reach], -1)
    return torch.cat([torch.where(both[..., None], found, 0.0), both[..., None].float()], -1)


def _mean(points: Tensor, seen: Tensor) -> Tensor:
    """Mean of the points that are seen, `(..., 2)`; of none it is zero."""
    weight = seen.float()[..., None]
    return (points * weight).sum(-2) / weight.sum(-2).clamp(min=1.0)


def _centre(points: Tensor, seen: Tensor) -> Tensor:
    """Of the trunk, or of all joints where no joint of the trunk is seen."""
    trunk = seen[..., _TRUNK]
    return torch.where(trunk.any(-1)[..., None], _mean(points[..., _TRUNK, :], trunk), _mean(points, seen))


def _size(points: Tensor, seen: Tensor) -> Tensor:
    """The person's longer side, `(N, M, T)`: the mean over the frames in which he is present."""
    big = torch.tensor(1e6, device=points.device)
    high = torch.where(seen[..., None], points, -big).amax(-2)
    low = torch.where(seen[..., None], points, big).amin(-2)
    present = seen.any(-1)
    side = torch.where(present, (high - low).amax(-1), 0.0)
    mean = side.sum(-1, keepdim=True) / present.sum(-1, keepdim=True).clamp(min=1)
    return mean.clamp(min=_SMALLEST).expand_as(side)
