"""STGCN++ as it is exported: the same network for looking alone, with a third less to do.

Batch norms lie in the weights before them. Activations lie as `(V, C, T, B)`, joints first: mixing joints by the graph is then one
matrix product for all windows, and a joint is a picture of frames and persons to a convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Folded(nn.Module):
    """Scores `(N, 2)` of windows `(N, 1, M, T, V, C)`, those of MMAction2's recogniser `network` in evaluation; T must be `frames`."""

    @torch.no_grad()
    def __init__(self, network: Any, persons: int, frames: int) -> None:
        super().__init__()
        graph = network.backbone
        joints = graph.gcn[0].gcn.A.shape[1]
        factor, shift = _affine(graph.data_bn)
        self._factor, self._shift = factor.view(joints, -1, 1, 1), shift.view(joints, -1, 1, 1)
        self._shape, self._persons = (joints, self._factor.shape[1], frames), persons
        self.blocks = nn.ModuleList()
        for block in graph.gcn:
            made = _Block(block, frames)
            self.blocks.append(made)
            frames = -(-frames // made.temporal.stride)
        self.classes = network.cls_head.fc

    def forward(self, windows: Tensor) -> Tensor:
        x = windows.permute(4, 5, 3, 0, 1, 2).reshape(*self._shape, -1) * self._factor + self._shift
        for block in self.blocks:
            x = block(x)
        pooled = x.mean(dim=(0, 2)).reshape(self.classes.in_features, -1, self._persons).mean(dim=2)
        scores: Tensor = self.classes(pooled.T)
        return scores


class _Block(nn.Module):
    def __init__(self, block: Any, frames: int) -> None:
        super().__init__()
        self.spatial, self.temporal = _Spatial(block.gcn, frames), _Temporal(block.tcn)
        short: Any = block.residual
        # the way around: none in the first block, where MMAction2 adds a 0, the input itself, or a convolution of it
        self.short: Callable[[Tensor], Any] = (
            _convolution(*_folded(short.conv, short.bn), short.stride) if hasattr(short, "conv") else short
        )

    def forward(self, x: Tensor) -> Tensor:
        return (self.temporal(self.spatial(x)) + self.short(x)).relu()


class _Spatial(nn.Module):
    """The graph convolution: neighbours are gathered by each subset of the graph, then mixed over channels."""

    def __init__(self, unit: Any, frames: int) -> None:
        super().__init__()
        subsets, self.joints, _ = unit.A.shape
        self.frames, self.has_short = frames, unit.in_channels == unit.out_channels
        factor, shift = _affine(unit.bn)
        weight = (unit.conv.weight.view(subsets, unit.out_channels, -1) * factor[:, None]).transpose(0, 1)
        graph = unit.A.permute(2, 0, 1)
        shift = torch.einsum("wkv,ko->wo", graph, unit.conv.bias.view(subsets, -1) * factor) + shift
        if not self.has_short:  # the convolution around it is one more subset, which gathers each joint itself
            around, bias = _folded(unit.down[0], unit.down[1])
            graph = torch.cat([graph, torch.eye(self.joints)[:, None]], dim=1)
            weight, shift = torch.cat([weight, around[:, None]], dim=1), shift + bias
        self.graph, self.weight = graph.flatten(0, 1), weight.flatten(1)[..., None, None]
        self.shift = shift[..., None, None]

    def forward(self, x: Tensor) -> Tensor:
        gathered = self.graph @ x.reshape(self.joints, -1)
        gathered = gathered.reshape(self.joints, self.weight.shape[1], self.frames, -1)
        found = functional.conv2d(gathered, self.weight) + self.shift
        return (found + x if self.has_short else found).relu()


class _Temporal(nn.Module):
    """Four convolutions of growing reach, the highest of three frames, and a plain convolution, joined by another."""

    def __init__(self, unit: Any) -> None:
        super().__init__()
        *scaled, plain = unit.branches
        *reaching, _ = scaled
        self.stride = plain.stride[0]
        first = [_folded(branch[0], branch[1]) for branch in scaled]
        self.first = _convolution(torch.cat([weight for weight, _ in first]), torch.cat([bias for _, bias in first]))
        self.sizes = [len(bias) for _, bias in first]
        after = list(
            zip(*(part.split([*self.sizes, len(plain.bias)]) for part in _affine(unit.transform[0])), strict=True)
        )
        self.reaching = nn.ModuleList(
            _scaled(branch[3].conv, *own) for branch, own in zip(reaching, after, strict=False)
        )
        self.factor, self.shift = (part[:, None, None] for part in after[-2])
        self.plain = _scaled(plain, *after[-1])
        self.last = _convolution(*_folded(unit.transform[2], unit.bn))

    def forward(self, x: Tensor) -> Tensor:
        *parts, rest = self.first(x).relu().split(self.sizes, dim=1)
        high = functional.max_pool2d(rest, (3, 1), (self.stride, 1), (1, 0)) * self.factor + self.shift
        reached = [branch(part) for branch, part in zip(self.reaching, parts, strict=True)]
        # each is rectified by itself, so that ONNX Runtime does it within the convolution
        found: Tensor = self.last(torch.cat([part.relu() for part in (*reached, high, self.plain(x))], dim=1))
        return found


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    """A batch norm in evaluation as a factor and a shift `(C,)`."""
    factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return factor, norm.bias - factor * norm.running_mean


def _folded(conv: nn.Conv2d, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight `(O, C)` and bias `(O,)` of a convolution of one frame with the batch norm behind it."""
    assert conv.bias is not None
    factor, shift = _affine(norm)
    return conv.weight.flatten(1) * factor[:, None], conv.bias * factor + shift


def _convolution(weight: Tensor, bias: Tensor, stride: int = 1) -> nn.Conv2d:
    """A convolution of one frame, of every `stride`-th."""
    made = nn.Conv2d(weight.shape[1], len(weight), 1, (stride, 1))
    return _with(made, weight[..., None, None], bias)


def _scaled(conv: nn.Conv2d, factor: Tensor, shift: Tensor) -> nn.Conv2d:
    """The convolution, times a factor and plus a shift `(O,)`."""
    assert conv.bias is not None
    sizes: Sequence[Any] = (conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    made = nn.Conv2d(conv.in_channels, conv.out_channels, *sizes)
    return _with(made, conv.weight * factor[:, None, None, None], conv.bias * factor + shift)


def _with(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    conv.weight, conv.bias = nn.Parameter(weight.contiguous()), nn.Parameter(bias)
    return conv
