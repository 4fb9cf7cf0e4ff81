"""STGCN++ as MMAction2 computes it, weights and figures included, faster on a processor.

MMAction2 keeps activations as `(B, C, T, V)` and runs some twenty convolutions of few channels in every block. Here they lie
with the joints first and the channels last, `(V, B, T, C)`: the graph is one matrix product, so is every 1 x 1 convolution,
and the branches of a block's temporal part share theirs. Weights fit both ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import violence_ops.openmmlab  # noqa: F401

# isort: split
from mmaction.models.backbones import STGCN
from mmaction.registry import MODELS


@MODELS.register_module()
class JointsFirstSTGCN(STGCN):
    """MMAction2's `STGCN` with `gcn_adaptive="init"`, `gcn_with_res=True`, `tcn_type="mstcn"`: that is STGCN++."""

    def forward(self, x: Tensor) -> Tensor:
        """Features `(N, M, C, T', V)` of inputs `(N, M, T, V, C)`. For ONNX and on a GPU it is MMAction2's own way."""
        if torch.onnx.is_in_onnx_export() or x.is_cuda:
            found: Tensor = super().forward(x)
            return found
        count, persons, frames, joints, channels = x.shape
        x = _normalised([self.data_bn], x.reshape(-1, joints * channels))
        x = x.view(count * persons, frames, joints, channels).permute(2, 0, 1, 3).contiguous()
        for block in self.gcn:
            x = _block(block, x)
        return x.permute(1, 3, 2, 0).reshape(count, persons, x.shape[3], x.shape[2], joints)


def _block(block: Any, x: Tensor) -> Tensor:
    found = _temporal(block.tcn, _spatial(block.gcn, x))
    short: Any = block.residual
    if hasattr(short, "conv"):
        found = found + _normalised([short.bn], _linear(short.conv, x[:, :, :: short.stride]))
    else:
        found = found + short(x)
    return found.relu_()


def _spatial(unit: Any, x: Tensor) -> Tensor:
    """The graph convolution: `(V, B, T, C)` to `(V, B, T, O)`."""
    rest = x if unit.in_channels == unit.out_channels else _normalised([unit.down[1]], _linear(unit.down[0], x))
    subsets = len(unit.A)
    weight = unit.conv.weight.view(subsets, unit.out_channels, -1)
    found = _GraphProduct.apply(x, weight, unit.conv.bias.view(subsets, -1), unit.A)
    return (_normalised([unit.bn], found) + rest).relu_()


def _temporal(unit: Any, x: Tensor) -> Tensor:
    """The six temporal branches and what joins them: `(V, B, T, C)` to `(V, B, T', O)`."""
    *scaled, plain = unit.branches
    stride = plain.stride[0]
    weight = torch.cat([branch[0].weight for branch in scaled]).flatten(1)
    hidden = F.linear(x, weight, torch.cat([branch[0].bias for branch in scaled]))
    hidden = _normalised([branch[1] for branch in scaled], hidden).relu_()
    convolutions = [branch[3].conv for branch in scaled[:-1]]
    reaches = [conv.dilation[0] for conv in convolutions]
    weights = [conv.weight.squeeze(-1).transpose(1, 2).flatten(1) for conv in convolutions]
    found = _Branches.apply(hidden, reaches, stride, *weights, *(conv.bias for conv in convolutions))
    joined = torch.cat([found, _linear(plain, x[:, :, ::stride])], dim=-1)
    joined = _normalised([unit.transform[0]], joined).relu_()
    return _normalised([unit.bn], _linear(unit.transform[2], joined))


def _linear(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return F.linear(x, conv.weight.flatten(1), conv.bias)


def _normalised(norms: Sequence[Any], x: Tensor) -> Tensor:
    """Batch norms over the last dimension, side by side, in one go; their running figures follow."""
    first = norms[0]
    mean, variance, weight, bias = (_side_by_side([getattr(norm, name) for norm in norms]) for name in _FIGURES)
    momentum = first.momentum
    if first.training:
        for norm in norms:
            norm.num_batches_tracked += 1
        momentum = 1.0 / float(first.num_batches_tracked) if momentum is None else momentum
    image = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
    found = F.batch_norm(image, mean, variance, weight, bias, first.training, momentum or 0.0, first.eps)
    if first.training and len(norms) > 1:
        sizes = [norm.num_features for norm in norms]
        for norm, own_mean, own_variance in zip(norms, mean.split(sizes), variance.split(sizes), strict=True):
            norm.running_mean.copy_(own_mean)
            norm.running_var.copy_(own_variance)
    return found.permute(0, 2, 3, 1).view(x.shape)


_FIGURES = ("running_mean", "running_var", "weight", "bias")


def _side_by_side(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class _GraphProduct(torch.autograd.Function):
    """`y[w] = sum over k, v of A[k, v, w] (x[v] W[k] + b[k])`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, graph: Tensor) -> Tensor:
        joints, clips, frames, channels = x.shape
        subsets, out, _ = weight.shape
        flat = x.reshape(-1, channels)
        hidden = torch.baddbmm(bias[:, None], flat.expand(subsets, -1, -1), weight.transpose(1, 2))
        mixed = graph.permute(2, 0, 1).reshape(joints, -1)
        ctx.save_for_backward(flat, weight, hidden, mixed)
        return (mixed @ hidden.view(subsets * joints, -1)).view(joints, clips, frames, out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        flat, weight, hidden, mixed = ctx.saved_tensors
        subsets, joints = len(weight), len(mixed)
        shape = grads[0].shape[:-1]
        grad = grads[0].reshape(joints, -1)
        of_graph = (grad @ hidden.view(subsets * joints, -1).T).view(joints, subsets, joints).permute(1, 2, 0)
        of_hidden = (mixed.T @ grad).view(subsets, -1, weight.shape[1])
        of_x = of_hidden[0] @ weight[0]
        for number in range(1, subsets):
            of_x.addmm_(of_hidden[number], weight[number])
        of_weight = torch.bmm(of_hidden.transpose(1, 2), flat.expand(subsets, -1, -1))
        return of_x.view(*shape, -1), of_weight, of_hidden.sum(1), of_graph


class _Branches(torch.autograd.Function):
    """Convolutions over time of three taps, each of its own reach and channels, and the highest of three frames in the rest."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, reaches: Sequence[int], stride: int, *parameters: Tensor) -> Tensor:
        weights, biases = parameters[: len(reaches)], parameters[len(reaches) :]
        frames = x.shape[2]
        found = x.new_empty(*x.shape[:2], -(-frames // stride), x.shape[3])
        taps, start = [], 0
        for reach, weight, bias in zip(reaches, weights, biases, strict=True):
            width = len(weight)
            own = x.new_zeros(*found.shape[:3], 3, width)
            for tap, out, into in _shifts(reach, frames, stride):
                own[:, :, into, tap] = x[:, :, out, start : start + width]
            own = own.flatten(3)
            found[..., start : start + width] = F.linear(own, weight, bias)
            taps.append(own)
            start += width
        high = found[..., start:]
        high[:] = x[:, :, ::stride, start:]
        for _, out, into in _shifts(1, frames, stride):
            part = high[:, :, into]
            torch.maximum(part, x[:, :, out, start:], out=part)
        ctx.save_for_backward(x, found, *weights, *taps)
        ctx.reaches, ctx.stride, ctx.shape = reaches, stride, x.shape
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        x, found, *others = ctx.saved_tensors
        (grad,), count, frames = grads, len(ctx.reaches), ctx.shape[2]
        of_x, start = grad.new_zeros(ctx.shape), 0
        of_weights, of_biases = [], []
        for reach, weight, own in zip(ctx.reaches, others[:count], others[count:], strict=True):
            width = len(weight)
            flat = grad[..., start : start + width].reshape(-1, width)
            of_weights.append(flat.T @ own.view(-1, 3 * width))
            of_biases.append(flat.sum(0))
            of_taps = (flat @ weight).view(*grad.shape[:3], 3, width)
            for tap, out, into in _shifts(reach, frames, ctx.stride):
                of_x[:, :, out, start : start + width] += of_taps[:, :, into, tap]
            start += width
        # where two frames are equally high, both are 0 after ReLU and their gradient goes no further
        for _, out, into in _shifts(1, frames, ctx.stride):
            of_x[:, :, out, start:] += grad[:, :, into, start:] * (x[:, :, out, start:] == found[:, :, into, start:])
        return of_x, None, None, *of_weights, *of_biases


def _shifts(reach: int, frames: int, stride: int) -> Iterator[tuple[int, slice, slice]]:
    """Of the taps 0, 1 and 2 (before, at and after every `stride`-th frame): which frames they read, and for which results."""
    for tap, offset in enumerate((-reach, 0, reach)):
        centres = [frame for frame in range(0, frames, stride) if 0 <= frame + offset < frames]
        if centres:
            into = slice(centres[0] // stride, centres[-1] // stride + 1)
            yield tap, slice(centres[0] + offset, centres[-1] + offset + 1, stride), into


def fits(backbone: Mapping[str, Any]) -> bool:
    """Whether a backbone's configuration is that of STGCN++."""
    return dict(backbone) | _STGCN_PP == dict(backbone) and "data_bn_type" not in backbone


_STGCN_PP = {"type": "STGCN", "gcn_adaptive": "init", "gcn_with_res": True, "tcn_type": "mstcn"}
