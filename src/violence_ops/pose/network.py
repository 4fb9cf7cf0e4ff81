"""RTMO as two plain functions, the form in which every backend runs it.

`Dense` looks at whole pictures and answers for every cell of the feature maps; `Joints` places the joints of the few
persons that suppression leaves. Cut there, because placing joints costs as much for each of 500 cells as for a person.
Both compute what MMPose's head computes (RTMO paper, section 3; `RTMOHead.predict`), without its bookkeeping. Where the
weights have a refiner (`pose.refiner`), `Dense` also gives its fine features, by which `Refined` moves joints.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from violence_ops.pose.refiner import Refiner

STRIDES = (16, 32)  # px, of the two feature maps of every RTMO
_RUN = 32  # bins whose encodings are derived from one
DENSE_OUTPUTS = ("scores", "boxes", "visible", "poses")
FINE = "fine"  # one output more of a network with a refiner
JOINTS_INPUTS = ("poses", "frames", "centres")
REFINED_INPUTS = ("poses", "frames", "joints", "picture", FINE)


def refiner_of(model: Any) -> Refiner | None:
    """The refiner that came with a model's weights."""
    return getattr(model, "refiner", None)


def features(model: Any, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The backbone's features of images (B, 3, H, W) at 2, 4, 8, 16 and 32 px, and the neck's at 16 and 32 px."""
    early = []
    for name in model.backbone.layers:
        images = getattr(model.backbone, name)(images)
        early.append(images)
    return early, list(model.neck(tuple(early[place] for place in model.backbone.out_indices)))


def fine_features(refiner: Refiner, early: list[Tensor], levels: list[Tensor]) -> tuple[Tensor, Tensor]:
    """What the refiner looks at, (B, H / 4, W / 4, C), and the blend it is drawn from, (B, 64, H / 8, W / 8), from what
    `features` gave.
    """
    pose_features = levels[0].chunk(2, dim=1)[1]  # the other half is for the scores
    return cast(tuple[Tensor, Tensor], refiner.fine_features(early[1], early[2], pose_features))


class Dense(nn.Module):
    """Pictures (B, H, W, 3) uint8 BGR to scores (B, A), boxes (B, A, 4) xyxy px, visible (B, A, 17), poses (B, A, C).

    Scores and visibilities are in [0, 1]; A is the number of cells of `cells` for this H and W. With a refiner also its
    fine features (B, H / 4, W / 4, F).
    """

    centres: Tensor
    strides: Tensor

    def __init__(self, model: Any, width: int, height: int) -> None:
        super().__init__()
        self.model = model
        for name, values in zip(("centres", "strides"), cells(width, height), strict=True):
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        early, levels = features(self.model, pictures.permute(0, 3, 1, 2).to(self.centres.dtype))
        scores, boxes, _, visible, poses = self.model.head.head_module(tuple(levels))
        flat = [torch.cat([level.flatten(2) for level in levels], dim=2) for levels in (scores, boxes, visible, poses)]
        offsets, sizes = flat[1].transpose(1, 2).split(2, dim=-1)
        centres = offsets * self.strides[:, None] + self.centres
        half = sizes.exp() * self.strides[:, None] / 2
        corners = torch.cat([centres - half, centres + half], dim=-1)
        found = flat[0].squeeze(1).sigmoid(), corners, flat[2].transpose(1, 2).sigmoid(), flat[3].transpose(1, 2)
        refiner = refiner_of(self.model)
        return found if refiner is None else (*found, fine_features(refiner, early, levels)[0])


class Joints(nn.Module):
    """Pose vectors (N, C), frames (N, 4) of centre and size px, cell centres (N, 2) px to joints (N, 17, 2) px.

    The dynamic coordinate classifier, with the same products in another order. Its bins' encodings go through a linear
    layer before they meet the joints' features; the layer's transpose is applied to the 17 joints instead of to 448
    bins (its bias is the same for every bin, which the softmax does not see). And because the bins are evenly spaced,
    the sines and cosines of n bins follow from those of n / 32 and of 32 by the addition theorems.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.dcc = model.head.dcc

    def forward(self, poses: Tensor, frames: Tensor, centres: Tensor) -> Tensor:
        features = self.dcc.pose_to_kpts(poses)
        features = features.reshape(-1, self.dcc.num_keypoints, self.dcc.feat_channels)
        if hasattr(self.dcc, "gau"):
            features = self.dcc.gau(features, pos_enc=getattr(self.dcc, "pos_enc", None))
        found = []
        for axis, (bins, layer) in enumerate(((self.dcc.x_bins, self.dcc.x_fc), (self.dcc.y_bins, self.dcc.y_fc))):
            middle, size = frames[:, axis, None], frames[:, 2 + axis, None]
            likelihood = self._likelihood(features @ layer.weight, middle - centres[:, axis, None], size, len(bins))
            found.append((likelihood.softmax(dim=-1) * (bins * size + middle)[:, None]).sum(dim=-1))
        return torch.stack(found, dim=-1)

    def _likelihood(self, queries: Tensor, middle: Tensor, size: Tensor, bins: int) -> Tensor:
        """(N, 17, bins) logits of queries (N, 17, E) at evenly spaced places around `middle` (N, 1), `size` (N, 1) px wide."""
        pace, count = size / (bins - 1), bins // _RUN
        coarse = middle - size / 2 + pace * torch.arange(count, device=size.device) * _RUN
        fine = pace * torch.arange(_RUN, device=size.device)
        start, step = coarse[:, None, :, None] / self.dcc.spe.dim_t, fine[:, :, None] / self.dcc.spe.dim_t
        even, odd = queries[:, :, None].chunk(2, dim=-1)
        turned = torch.cat([even * start.cos() + odd * start.sin(), odd * start.cos() - even * start.sin()], dim=-1)
        return (turned.flatten(1, 2) @ torch.cat([step.cos(), step.sin()], dim=-1).transpose(1, 2)).reshape(
            -1, queries.shape[1], bins
        )


class Refined(nn.Module):
    """Joints (N, 17, 2) px where the refiner moves them, of persons with these pose vectors (N, C) and frames (N, 4) of centre
    and size px, who are in pictures (N,) of these fine features (B, H / 4, W / 4, F).
    """

    def __init__(self, refiner: Refiner) -> None:
        super().__init__()
        self.refiner = refiner

    def forward(self, poses: Tensor, frames: Tensor, joints: Tensor, picture: Tensor, fine: Tensor) -> Tensor:
        return self.refiner(fine, picture, joints, frames, poses)[-1].joints


def cells(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres (A, 2) px and strides (A,) px of the cells of a picture of this size, in the order of `Dense`'s outputs."""
    centres, strides = [], []
    for stride in STRIDES:
        columns, rows = width // stride, height // stride
        y, x = np.divmod(np.arange(rows * columns), columns)
        centres.append(np.stack([x, y], axis=1) * stride + (stride - 1) / 2)
        strides.append(np.full(rows * columns, stride))
    return np.concatenate(centres).astype(np.float32), np.concatenate(strides).astype(np.float32)
