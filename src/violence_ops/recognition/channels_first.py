"""STGCN++ as MMAction2 computes it, weights and figures included, faster on a processor.

MMAction2 keeps activations as `(B, C, T, V)` and runs some twenty convolutions of few channels in every block. Here they lie
as `(C, V, T, B)`: a convolution of one frame is one matrix product, so is the graph, an earlier or later frame is a shift of
contiguous memory, and a batch norm is a group norm of one row a group. Weights fit both ways. Under `torch.autocast` the blocks
compute in its precision, as MMAction2's do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

import violence_ops.openmmlab  # noqa: F401

# isort: split
from mmaction.models.backbones import STGCN
from mmaction.registry import MODELS

_ONEDNN = torch.backends.mkldnn.is_available()
_ONEDNN_BF16 = _ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported()
_FLAG = Lock()


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
        given = x.dtype
        x = x.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else x
        for block in self.gcn:
            x = _block(block, x, seen)
        _follow(seen)
        return x.to(given).permute(3, 0, 2, 1).reshape(count, persons, x.shape[0], x.shape[2], joints)


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
    joined = _Branches.apply(hidden, x[:, :, ::stride], plain.weight.flatten(1), reaches, stride, *weights)
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
    if (_ONEDNN and left.dtype == torch.float32) or (_ONEDNN_BF16 and left.dtype == torch.bfloat16):
        found: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
        return found
    return left @ right.T


def _each_times(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right` for each of the C matrices of `right` `(C, K, N)`, with one `(M, K)` for all or `(C, M, K)`."""
    if right.dtype != torch.float32 or not _keeps_single_precision():
        return left @ right
    with _lower_precision_allowed():
        return left @ right


@cache
def _keeps_single_precision() -> bool:
    """Whether products are those of single precision even if a lower one is allowed: on processors without AMX.

    Only if it is allowed does torch leave batches of products to oneDNN, which there takes half the time of torch's own choice.
    """
    if not _ONEDNN:
        return False
    with _lower_precision_allowed(), torch.autocast("cpu", enabled=False):
        fine = torch.full((2, 32, 32), 1 + 2**-20)
        return bool((fine @ torch.eye(32).expand(2, 32, 32) == fine).all())


@contextmanager
def _lower_precision_allowed() -> Iterator[None]:
    """For this thread alone: the permission is the process's, and others who use it wait."""
    backend: Any = torch.backends.mkldnn
    products = backend.matmul
    with _FLAG:
        before = products.fp32_precision
        products.fp32_precision = "bf16"
        try:
            yield
        finally:
            products.fp32_precision = before


class _Product(torch.autograd.Function):
    """`weight @ x` of `(O, C)` and `(C, N)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        weight = weight.to(x.dtype)
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
    # nobody learns in this mode: the bias gets no gradient here
    centre = (mean if bias is None else mean - bias).detach()
    found = torch.batch_norm(flat[None], weight, shift, centre, variance, False, 0.0, first.eps, False).view(x.shape)
    found = found if rest is None else found.add_(rest)
    return found.relu_() if rectified else found


def _side_by_side(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@torch.no_grad()
def _follow(seen: Sequence[_Seen]) -> None:
    """Move running means and variances towards a mini-batch's."""
    if not seen:
        return
    norms = [norm for one in seen for norm in one.norms]
    sizes = [norm.num_features for norm in norms]
    means, scales = (torch.cat([getattr(one, name) for one in seen]) for name in ("mean", "scale"))
    unbiased = scales.new_tensor([one.count / max(one.count - 1, 1) for one in seen for _ in range(len(one.mean))])
    variances = (scales**-2 - norms[0].eps) * unbiased
    torch._foreach_add_([norm.num_batches_tracked for norm in norms], 1)
    momentum = norms[0].momentum
    momentum = 1.0 / float(norms[0].num_batches_tracked) if momentum is None else momentum
    torch._foreach_lerp_([norm.running_mean for norm in norms], means.split(sizes), momentum)
    torch._foreach_lerp_([norm.running_var for norm in norms], variances.split(sizes), momentum)


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
        grad = grads[0].contiguous()
        if found is not None:
            grad = torch.ops.aten.threshold_backward(grad, found, 0)
        of_x, of_weight, of_shift = torch.ops.aten.native_batch_norm_backward(
            grad[None], x[None], weight, None, None, mean, scale, True, 0.0, [True] * 3
        )
        of_bias = None if bias is None else torch.zeros_like(bias)
        return of_x[0], of_weight, of_shift, of_bias, ctx.rest and grad.view(ctx.rest), None, None


class _GraphProduct(torch.autograd.Function):
    """`y[w] = sum over k, v of A[k, v, w] (W[k] x[v] + b[k])` of `(C, V, T, B)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, graph: Tensor) -> Tensor:
        channels, joints, *rest = x.shape
        subsets, out, _ = weight.shape
        graphs = graph.transpose(1, 2).reshape(-1, joints).to(x.dtype)
        x = x.reshape(channels, joints, -1)
        mixed = _each_times(graphs, x).view(channels * subsets, -1)
        weights = weight.permute(1, 2, 0).reshape(out, -1).to(x.dtype)
        found = _times(weights, mixed.T).view(out, joints, *rest)
        found += (bias.T @ graph.sum(1))[..., None, None]
        ctx.save_for_backward(x, mixed, weights, graphs, bias, graph)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, mixed, weights, graphs, bias, graph = ctx.saved_tensors
        out, joints, *rest = grads[0].shape
        subsets, grad = len(bias), grads[0].reshape(out, -1)
        of_weight = _times(grad, mixed).view(out, -1, subsets).permute(2, 0, 1)
        of_mixed = _times(weights.T, grad.T).view(len(x), subsets * joints, -1)
        of_x = _each_times(graphs.T, of_mixed).view(-1, joints, *rest)
        sums = grad.view(out, joints, -1).sum(-1, dtype=graph.dtype)
        of_graphs = _each_times(of_mixed, x.transpose(1, 2)).sum(0).view(subsets, joints, joints)
        return of_x, of_weight, graph.sum(1) @ sums.T, of_graphs.transpose(1, 2) + (bias @ sums)[:, None]


class _Branches(torch.autograd.Function):
    """What a block's temporal branches give, side by side: `(C, V, T, B)` and `beside` `(D, V, T', B)` to `(O, V, T', B)`.

    Convolutions over time of three taps, each of its own reach and channels of `x`; the highest of three frames in the rest of `x`;
    and a convolution of one frame of `beside`. Those over time are one product, with a weight that is zero between them: few rows
    cost it as much as many.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, beside: Tensor, plain: Tensor, reaches: Sequence[int], stride: int, *weights: Tensor
    ) -> Tensor:
        frames, own, beside, plain = x.shape[2], _ranges(weights), beside.flatten(1), plain.to(x.dtype)
        count = own[-1].stop
        found = x.new_empty(len(x) + len(plain), x.shape[1], -(-frames // stride), x.shape[3])
        taps = x.new_empty(3, count, *found.shape[1:])
        taps[1] = x[:count, :, ::stride]
        joined = x.new_zeros(count, 3, count)
        for rows, reach, weight in zip(own, reaches, weights, strict=True):
            joined[rows, :, rows] = weight.view(len(weight), 3, -1)
            for tap, out, into in _shifts(reach, frames, stride):
                taps[tap, rows, :, : into.start], taps[tap, rows, :, into.stop :] = 0, 0
                taps[tap, rows, :, into] = x[rows, :, out]
        joined, taps = joined.flatten(1), taps.view(3 * count, -1)
        found[:count] = _times(joined, taps.T).view(-1, *found.shape[1:])
        _highest(x[count:], found[count : len(x)], stride)
        found[len(x) :] = _times(plain, beside.T).view(-1, *found.shape[1:])
        ctx.save_for_backward(x, beside, plain, found, joined, taps)
        ctx.own, ctx.reaches, ctx.stride = own, reaches, stride
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        x, beside, plain, found, joined, taps = ctx.saved_tensors
        grad, count, stride = grads[0].contiguous(), len(joined), ctx.stride
        of_x = grad.new_zeros(x.shape) if stride > 1 else grad.new_empty(x.shape)
        flat = grad[:count].flatten(1)
        of_joined = _times(flat, taps).view(count, 3, count)
        of_weights = [of_joined[rows, :, rows].flatten(1) for rows in ctx.own]
        of_taps = _times(joined.T, flat.T).view(3, count, *grad.shape[1:])
        of_x[:count, :, ::stride] = of_taps[1]
        for rows, reach in zip(ctx.own, ctx.reaches, strict=True):
            for tap, out, into in _shifts(reach, x.shape[2], stride):
                of_x[rows, :, out].add_(of_taps[tap, rows, :, into])
        rows = slice(count, len(x))
        _of_highest(grad[rows], x[rows], found[rows], of_x[rows].zero_(), stride)
        flat = grad[len(x) :].flatten(1)
        return of_x, _times(plain.T, flat.T).view(-1, *grad.shape[1:]), _times(flat, beside), None, None, *of_weights


def _highest(x: Tensor, found: Tensor, stride: int) -> None:
    """Into `found`, the highest of every `stride`-th frame of `x` and the ones before and after it."""
    found[:] = x[:, :, ::stride]
    for _, out, into in _shifts(1, x.shape[2], stride):
        part = found[:, :, into]
        torch.maximum(part, x[:, :, out], out=part)


def _of_highest(grad: Tensor, x: Tensor, found: Tensor, of_x: Tensor, stride: int) -> None:
    """Add to `of_x` what `_highest` leads back: of frames that are equally high the first one gets it, as in torch."""
    left = grad.clone()
    (_, *before), (_, *after) = _shifts(1, x.shape[2], stride)
    for out, into in (before, (slice(0, None, stride), slice(None)), after):
        own = left[:, :, into] * (x[:, :, out] == found[:, :, into])
        of_x[:, :, out].add_(own)
        left[:, :, into].sub_(own)


def _ranges(weights: Sequence[Tensor]) -> list[slice]:
    """The channels of each branch, one after the other."""
    ends = list(accumulate(map(len, weights)))
    return [slice(end - len(weight), end) for end, weight in zip(ends, weights, strict=True)]


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
