"""STGCN++ as MMAction2 computes it, weights and figures included, faster on a processor.

MMAction2 keeps activations as `(B, C, T, V)` and runs some twenty convolutions of few channels in every block. Here they lie
as `(C, V, T, B)`: a convolution of one frame is one matrix product, so is the graph, an earlier or later frame is a shift of
contiguous memory, and a batch norm is a group norm of one row a group. Weights fit both ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import violence_ops.openmmlab  # noqa: F401

# isort: split
from mmaction.models.backbones import STGCN
from mmaction.registry import MODELS

_ONEDNN = torch.backends.mkldnn.is_available()


@MODELS.register_module()
class ChannelsFirstSTGCN(STGCN):
    """MMAction2's `STGCN` with `gcn_adaptive="init"`, `gcn_with_res=True`, `tcn_type="mstcn"`: that is STGCN++."""

    def forward(self, x: Tensor) -> Tensor:
        """Features `(N, M, C, T', V)` of inputs `(N, M, T, V, C)`. On a GPU it is MMAction2's own way, for ONNX there is `folded`."""
        if x.is_cuda:
            found: Tensor = super().forward(x)
            return found
        count, persons, frames, joints, channels = x.shape
        x = x.permute(3, 4, 2, 0, 1).reshape(joints * channels, -1).contiguous()
        seen: list[_Seen] = []
        x = _normalised([self.data_bn], x, seen).view(joints, channels, frames, -1).transpose(0, 1).contiguous()
        for block in self.gcn:
            x = _block(block, x, seen)
        _follow(seen)
        return x.permute(3, 0, 2, 1).reshape(count, persons, x.shape[0], x.shape[2], joints)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What batch norms side by side saw: mean and one over the deviation `(C,)` of `count` values each."""

    norms: Sequence[Any]
    mean: Tensor
    scale: Tensor
    count: int


def _block(block: Any, x: Tensor, seen: list[_Seen]) -> Tensor:
    short: Any = block.residual
    rest: Tensor | None
    if hasattr(short, "conv"):
        rest = _normalised([short.bn], _linear(short.conv, x[:, :, :: short.stride]), seen, [short.conv])
    else:
        found = short(x)
        rest = found if isinstance(found, Tensor) else None  # the first block has no way around it: MMAction2 adds a 0
    return _temporal(block.tcn, _spatial(block.gcn, x, seen), rest, seen)


def _spatial(unit: Any, x: Tensor, seen: list[_Seen]) -> Tensor:
    """The graph convolution: `(C, V, T, B)` to `(O, V, T, B)`."""
    same = unit.in_channels == unit.out_channels
    rest = x if same else _normalised([unit.down[1]], _linear(unit.down[0], x), seen, [unit.down[0]])
    subsets = len(unit.A)
    weight = unit.conv.weight.view(subsets, unit.out_channels, -1)
    found = _GraphProduct.apply(x, weight, unit.conv.bias.view(subsets, -1), unit.A)
    return _normalised([unit.bn], found, seen, rest=rest, rectified=True)


def _temporal(unit: Any, x: Tensor, rest: Tensor | None, seen: list[_Seen]) -> Tensor:
    """The six temporal branches, what joins them, and the block's `rest`: `(C, V, T, B)` to `(C, V, T', B)`."""
    *scaled, plain = unit.branches
    stride = plain.stride[0]
    first = [branch[0] for branch in scaled]
    hidden = _product(x, torch.cat([conv.weight for conv in first]).flatten(1))
    hidden = _normalised([branch[1] for branch in scaled], hidden, seen, first, rectified=True)
    convolutions = [branch[3].conv for branch in scaled[:-1]]
    reaches = [conv.dilation[0] for conv in convolutions]
    weights = [conv.weight.squeeze(-1).transpose(1, 2).flatten(1) for conv in convolutions]
    found = _Branches.apply(hidden, reaches, stride, *weights)
    joined = torch.cat([found, _linear(plain, x[:, :, ::stride])])
    # the branch of the highest frame has no bias
    biases = [*convolutions, len(hidden) - sum(map(len, weights)), plain]
    joined = _normalised([unit.transform[0]], joined, seen, biases, rectified=True)
    last = unit.transform[2]
    return _normalised([unit.bn], _linear(last, joined), seen, [last], rest=rest, rectified=True)


def _linear(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution of one frame without its bias, which the batch norm behind it would take away: see `_normalised`."""
    return _product(x, conv.weight.flatten(1))


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """`(C, ...)` to `(O, ...)` by a weight `(O, C)`."""
    found: Tensor = _Product.apply(x.flatten(1), weight)
    return found.view(-1, *x.shape[1:])


def _times(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right.T` of `(M, K)` and `(N, K)`. oneDNN's is twice as fast as torch's own choice where that is not an Intel's."""
    if _ONEDNN and left.dtype == torch.float32:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
        return found
    return left @ right.T


class _Product(torch.autograd.Function):
    """`weight @ x` of `(O, C)` and `(C, N)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _times(weight, x.T)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        return _times(weight.T, grad.T), _times(grad, x)


def _normalised(
    norms: Sequence[Any],
    x: Tensor,
    seen: list[_Seen],
    convs: Sequence[Any] = (),
    rest: Tensor | None = None,
    rectified: bool = False,
) -> Tensor:
    """Batch norms of `(C, ...)` over C, side by side and alike but for their figures, in one go; plus `rest`; ReLU if asked.

    `convs` gave `x` without their biases (a number stands for so many channels that have none): a batch norm takes away what
    a bias adds to all, so that only the running mean sees it. In training, what the norms saw is added to `seen`.
    """
    first = norms[0]
    weight, shift = (_side_by_side([getattr(norm, name) for norm in norms]) for name in ("weight", "bias"))
    biases = [weight.new_zeros(conv) if isinstance(conv, int) else conv.bias for conv in convs]
    bias = _side_by_side(biases) if biases else None
    flat = x.flatten(1)
    if first.training:
        found, mean, scale = _Normalised.apply(flat, weight, shift, bias, rest, rectified, first.eps)
        seen.append(_Seen(norms, mean if bias is None else mean + bias.detach(), scale, flat.shape[1]))
        return found.view(x.shape)
    mean, variance = (
        _side_by_side([getattr(norm, name) for norm in norms]) for name in ("running_mean", "running_var")
    )
    factor = weight * (variance + first.eps).rsqrt()
    found = torch.addcmul((shift + factor * (-mean if bias is None else bias - mean))[:, None], flat, factor[:, None])
    found = found.view(x.shape) if rest is None else found.view(x.shape) + rest
    return found.relu() if rectified else found


def _side_by_side(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@torch.no_grad()
def _follow(seen: Sequence[_Seen]) -> None:
    """Move running means and variances towards a mini-batch's."""
    if not seen:
        return
    norms: list[Any] = []
    means: list[Tensor] = []
    variances: list[Tensor] = []
    for one in seen:
        sizes = [norm.num_features for norm in one.norms]
        norms += one.norms
        means += one.mean.split(sizes)
        variance = (one.scale**-2 - one.norms[0].eps) * (one.count / max(one.count - 1, 1))
        variances += variance.split(sizes)
    torch._foreach_add_([norm.num_batches_tracked for norm in norms], 1)
    momentum = norms[0].momentum
    momentum = 1.0 / float(norms[0].num_batches_tracked) if momentum is None else momentum
    torch._foreach_lerp_([norm.running_mean for norm in norms], means, momentum)
    torch._foreach_lerp_([norm.running_var for norm in norms], variances, momentum)


class _Normalised(torch.autograd.Function):
    """A batch norm of `(C, N)`, plus what has its shape, then ReLU; also the mean and one over the deviation `(C,)`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, shift: Tensor, bias: Tensor | None, rest: Tensor | None, rectified: bool, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        channels, count = x.shape
        found, mean, scale = torch.native_group_norm(x[None], weight, shift, 1, channels, count, channels, eps)
        found, mean, scale = found[0], mean[0], scale[0]
        if rest is not None:
            found += rest.view(found.shape)
        if rectified:
            found.relu_()
        ctx.save_for_backward(x, weight, bias, mean, scale, found if rectified else None)
        ctx.rest = None if rest is None else rest.shape
        ctx.mark_non_differentiable(mean, scale)
        return found, mean, scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        x, weight, bias, mean, scale, found = ctx.saved_tensors
        channels, count = x.shape
        grad = grads[0].contiguous()
        if found is not None:
            grad = torch.ops.aten.threshold_backward(grad, found, 0)
        of_x, of_weight, of_shift = torch.ops.aten.native_group_norm_backward(
            grad[None], x[None], mean[None], scale[None], weight, 1, channels, count, channels, [True] * 3
        )
        of_bias = None if bias is None else torch.zeros_like(bias)
        return of_x[0], of_weight, of_shift, of_bias, ctx.rest and grad.view(ctx.rest), None, None


class _GraphProduct(torch.autograd.Function):
    """`y[w] = sum over k, v of A[k, v, w] (W[k] x[v] + b[k])` of `(C, V, T, B)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, graph: Tensor) -> Tensor:
        channels, joints, *rest = x.shape
        subsets, out, _ = weight.shape
        by_joint = x.transpose(0, 1).reshape(joints, -1)
        graphs = graph.transpose(1, 2).reshape(-1, joints)
        mixed = (
            _times(graphs, by_joint.T)
            .view(subsets, joints, channels, -1)
            .transpose(1, 2)
            .reshape(subsets * channels, -1)
        )
        weights = weight.transpose(0, 1).reshape(out, -1)
        found = _times(weights, mixed.T).view(out, joints, *rest)
        found += (bias.T @ graph.sum(1))[..., None, None]
        ctx.save_for_backward(by_joint, mixed, weights, graphs, bias, graph)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        by_joint, mixed, weights, graphs, bias, graph = ctx.saved_tensors
        out, joints, *rest = grads[0].shape
        subsets, grad = len(bias), grads[0].reshape(out, -1)
        of_weight = _times(grad, mixed).view(out, subsets, -1).transpose(0, 1)
        of_mixed = _times(weights.T, grad.T).view(subsets, -1, joints, grad.shape[1] // joints)
        of_mixed = of_mixed.transpose(1, 2).reshape(subsets * joints, -1)
        of_x = _times(graphs.T, of_mixed.T).view(joints, -1, *rest).transpose(0, 1)
        sums = grad.view(out, joints, -1).sum(-1)
        of_graph = _times(of_mixed, by_joint).view(subsets, joints, joints).transpose(1, 2) + (bias @ sums)[:, None]
        return of_x, of_weight, graph.sum(1) @ sums.T, of_graph


class _Branches(torch.autograd.Function):
    """Convolutions over time of three taps, each of its own reach and channels, and the highest of three frames in the rest."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, reaches: Sequence[int], stride: int, *weights: Tensor) -> Tensor:
        frames = x.shape[2]
        found = x.new_empty(*x.shape[:2], -(-frames // stride), x.shape[3])
        taps, start = [], 0
        for reach, weight in zip(reaches, weights, strict=True):
            end = start + len(weight)
            own = x.new_empty(3, len(weight), *found.shape[1:])
            own[1] = x[start:end, :, ::stride]
            for tap, out, into in _shifts(reach, frames, stride):
                own[tap, :, :, : into.start], own[tap, :, :, into.stop :] = 0, 0
                own[tap, :, :, into] = x[start:end, :, out]
            own = own.view(3 * len(weight), -1)
            found[start:end] = _times(weight, own.T).view(-1, *found.shape[1:])
            taps.append(own)
            start = end
        high = found[start:]
        high[:] = x[start:, :, ::stride]
        for _, out, into in _shifts(1, frames, stride):
            part = high[:, :, into]
            torch.maximum(part, x[start:, :, out], out=part)
        ctx.save_for_backward(x, found, *weights, *taps)
        ctx.reaches, ctx.stride = reaches, stride
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        x, found, *others = ctx.saved_tensors
        grad, count, stride = grads[0].contiguous(), len(ctx.reaches), ctx.stride
        of_x, start = grad.new_empty(x.shape), 0
        if stride > 1:
            of_x.zero_()
        of_weights = []
        for reach, weight, own in zip(ctx.reaches, others[:count], others[count:], strict=True):
            flat = grad[start : start + len(weight)].flatten(1)
            of_weights.append(_times(flat, own))
            before, at, after = _times(weight.T, flat.T).view(3, -1, *grad.shape[1:])
            part = of_x[start : start + len(weight)]
            part[:, :, ::stride] = at
            for taps, (_, out, into) in zip((before, after), _shifts(reach, x.shape[2], stride), strict=True):
                part[:, :, out] += taps[:, :, into]
            start += len(weight)
        # of frames that are equally high the first one gets the gradient, as in torch
        left, x, found, part = grad[start:].clone(), x[start:], found[start:], of_x[start:].zero_()
        (_, *before), (_, *after) = _shifts(1, x.shape[2], stride)
        for out, into in (before, (slice(0, None, stride), slice(None)), after):
            own = left[:, :, into] * (x[:, :, out] == found[:, :, into])
            part[:, :, out] += own
            left[:, :, into] -= own
        return of_x, None, None, *of_weights


def _shifts(reach: int, frames: int, stride: int) -> Iterator[tuple[int, slice, slice]]:
    """Of the taps 0 and 2 (before and after every `stride`-th frame): which frames they read, and for which results."""
    for tap, offset in ((0, -reach), (2, reach)):
        first = -(-max(0, -offset) // stride)
        last = max(first, -(-min(frames, frames - offset) // stride))
        yield tap, slice(first * stride + offset, last * stride + offset, stride), slice(first, last)


def fits(backbone: Mapping[str, Any]) -> bool:
    """Whether a backbone's configuration is that of STGCN++."""
    return dict(backbone) | _STGCN_PP == dict(backbone) and "data_bn_type" not in backbone


_STGCN_PP = {"type": "STGCN", "gcn_adaptive": "init", "gcn_with_res": True, "tcn_type": "mstcn"}
