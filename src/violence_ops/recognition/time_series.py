"""A head that reads the embeddings of a window's pictures as a time series (`resnet18_timeseries`, SPEC 9)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import violence_ops.openmmlab  # noqa: F401
from violence_ops.recognition.transformer import OverTokens

# isort: split
from mmaction.models.heads import BaseHead
from mmaction.registry import MODELS


@MODELS.register_module()
class TimeSeriesHead(BaseHead):
    """Each picture's embedding is a token; a small transformer looks at all of a window, in their order."""

    def __init__(
        self, num_classes: int, in_channels: int, base_channels: int = 16, layers: int = 2, heads: int = 4, max_pictures: int = 64,
        dropout: float = 0.5, **options: Any,
    ) -> None:  # fmt: skip
        """The tokens have 4 x `base_channels` numbers; `options` are BaseHead's."""
        super().__init__(num_classes, in_channels, **options)
        width = 4 * base_channels
        self.embed = nn.Linear(in_channels, width)
        self.time = nn.Parameter(torch.randn(max_pictures, width) * 0.02)
        self.encoder = OverTokens(width, layers, heads, dropout=0.1)
        self.dropout = nn.Dropout(dropout)
        self.fc_cls = nn.Linear(width, num_classes)

    def forward(self, x: Tensor, num_segs: int, **_: Any) -> Tensor:
        """Scores `(N, num_classes)` of the feature maps `(N * num_segs, C, H, W)` of all pictures."""
        embeddings = self.embed(x.mean((-2, -1))).unflatten(0, (-1, num_segs))
        found: Tensor = self.encoder.mean(embeddings + self.time[:num_segs])
        return self.fc_cls(self.dropout(found))
