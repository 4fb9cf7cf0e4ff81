"""A transformer over frames whose tokens are several streams of features side by side (`fusion_transformer`, SPEC 9)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import violence_ops.openmmlab  # noqa: F401
from violence_ops.recognition.transformer import PER_TOKEN, OverTokens, streams
from violence_ops.records import JOINTS

# isort: split
from mmaction.registry import MODELS

_BENT = [(5, 7, 9), (6, 8, 10), (11, 5, 7), (12, 6, 8), (5, 11, 13), (6, 12, 14), (11, 13, 15), (12, 14, 16)]
"""Elbows, shoulders, hips and knees, each between its neighbours."""
_OTHERS_DISTANCES = 16  # of the stream `others`, without its flag that both are there
_PER_PERSON = PER_TOKEN + 1 + JOINTS + 2 * len(_BENT) + _OTHERS_DISTANCES
_SHORTEST = 1e-3  # of a limb, in sizes of the person


def most_heads(width: int, limit: int) -> int:
    """The largest divisor of a transformer's width that is not above a limit, both at least 1 (SPEC 9)."""
    return max(count for count in range(1, min(width, limit) + 1) if width % count == 0)


@MODELS.register_module()
class FusionTransformer(OverTokens):
    """Each frame is a token: all that is known of all persons in it, at full width.

    To the streams of `skeleton_transformer` come who is there, how fast each joint is, how far elbows, shoulders, hips and knees
    are bent, and how fast one person comes nearer to the other. Persons stand in the order of their ranks.
    """

    def __init__(
        self, base_channels: int = 16, persons: int = 2, layers: int = 2, max_heads: int = 16, max_frames: int = 512,
        dropout: float = 0.1, in_channels: int = 3, init_cfg: Any = None,
    ) -> None:  # fmt: skip
        """It gives 4 x `base_channels` features; windows have at most `max_frames` frames."""
        if in_channels != 3:
            raise ValueError("fusion_transformer makes its own streams: it takes the stream `joint` alone")
        width = persons * _PER_PERSON
        super().__init__(width, layers, most_heads(width, max_heads), dropout, init_cfg)
        self.normalise = nn.BatchNorm1d(width)
        self.time = nn.Parameter(torch.randn(max_frames, width) * 0.02)
        self.fuse = nn.Linear(width, 4 * base_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Features `(N, 1, C, 1, 1)`, as MMAction2's GCNHead takes them, of windows `(N, M, T, 17, 3)` (x, y, score)."""
        parts, present = streams(x)
        people = torch.cat([*parts.values(), present.float()[..., None], *_further(parts, x[..., 2] > 0)], dim=-1)
        tokens = people.transpose(1, 2).flatten(2)
        tokens = self.normalise(tokens.flatten(0, 1)).reshape(tokens.shape) + self.time[: tokens.shape[1]]
        return self.fuse(self.mean(tokens, present.any(1).float()))[:, None, :, None, None]


def _further(parts: dict[str, Tensor], seen: Tensor) -> list[Tensor]:
    """Speeds of the joints, cosines and sines of the bends, and the change of the distances to the other since the last frame."""
    places, motions = (parts[name].unflatten(-1, (JOINTS, 2)) for name in ("places", "motions"))
    return [motions.norm(dim=-1), _bends(places, seen), _approach(parts["others"])]


def _bends(places: Tensor, seen: Tensor) -> Tensor:
    """`(N, M, T, 16)`; zeros where a joint of the three is not seen."""
    before, at, after = (list(column) for column in zip(*_BENT, strict=True))
    one, other = places[..., before, :] - places[..., at, :], places[..., after, :] - places[..., at, :]
    scale = (one.norm(dim=-1) * other.norm(dim=-1)).clamp(min=_SHORTEST**2)
    cosine = (one * other).sum(-1) / scale
    sine = (one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]) / scale
    known = seen[..., before] & seen[..., at] & seen[..., after]
    return torch.cat([torch.where(known, value, 0.0) for value in (cosine, sine)], dim=-1)


def _approach(others: Tensor) -> Tensor:
    """`(N, M, T, 16)`; zeros in the first frame and where one of both frames lacks one of the persons."""
    distances, both = others[..., :-1], others[..., -1:]
    change = (distances[:, :, 1:] - distances[:, :, :-1]) * both[:, :, 1:] * both[:, :, :-1]
    return torch.cat([torch.zeros_like(distances[:, :, :1]), change], dim=2)
