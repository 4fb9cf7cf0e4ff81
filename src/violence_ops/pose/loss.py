"""What the small RTMO is trained for: find everybody, box them, place their joints, tell the visible ones.

The network is MMPose's; targets and losses are ours, because a small network needs three changes to the published
recipe: boxes are detached before the coordinate classifier, OKS is softened and joined by an L1 distance (a joint far
off has next to no OKS gradient), and persons too small or hidden are neither wanted nor punished.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from violence_ops.pose.maps import map_loss
from violence_ops.pose.quality import SIGMAS

WEIGHTS = {"score": 1.0, "box": 5.0, "visible": 1.0, "bins": 1.0, "joint": 6.0, "oks": 6.0, "maps": 0.5}
_CANDIDATES = 10  # cells considered for a person
_SOFTENING = 2.5  # of the OKS deviations
_UNKNOWN_POSE = 0.7  # assumed similarity where the pose is not compared
_POSED_CELLS = 48  # of a mini-batch whose joints are compared
WEIGHT_OF_VISIBILITY = torch.tensor([0.0, 0.5, 1.0])  # outside, occluded, visible


@dataclass(frozen=True)
class Targets:
    """One image's persons: keypoints (P, 17, 2), bboxes (P, 4) px, visibility (P, 17) 0/1/2, ignored (P,) bool."""

    keypoints: Tensor
    visibility: Tensor
    bboxes: Tensor
    ignored: Tensor


@dataclass(frozen=True)
class Predictions:
    """The head's outputs over all cells A of B images, float32: logits (B, A), boxes (B, A, 4) px, visible (B, A, 17)
    logits, pose vectors (B, A, C), the cells' centres (A, 2) and strides (A,), px,
    and each level's features (B, F, H / stride, W / stride) that boxes and joints are read from.
    """

    scores: Tensor
    boxes: Tensor
    visible: Tensor
    poses: Tensor
    centres: Tensor
    strides: Tensor
    features: list[Tensor]


def predictions_of(model: Any, features: Sequence[Tensor]) -> Predictions:
    """What the head says of the neck's features."""
    head = model.head
    scores, boxes, _, visible, poses = head.head_module(tuple(features))
    priors = torch.cat(
        head.prior_generator.grid_priors(
            [level.shape[2:] for level in scores], device=scores[0].device, with_stride=True
        )
    )
    flat = [head._flatten_predictions(levels).float() for levels in (scores, boxes, visible, poses)]
    decoded = head.decode_bbox(flat[1], priors[:, :2], priors[:, -1])
    read = [level.chunk(2, dim=1)[1] for level in features]  # the other half is for the scores
    return Predictions(flat[0].squeeze(-1), decoded, flat[2], flat[3], priors[:, :2], priors[:, -1], read)


def losses(
    model: Any, predictions: Predictions, targets: list[Targets], maps: Sequence[Tensor] = ()
) -> dict[str, Tensor]:
    """Weighted loss terms of a mini-batch; their sum is what is minimised. With each level's joint `maps` (`pose.maps`) its
    features learn joints too.
    """
    wanted = torch.zeros_like(predictions.scores)
    counted = torch.ones_like(predictions.scores)
    cells, persons = [], []
    for number, target in enumerate(targets):
        chosen, who = assign(predictions, number, target, counted)
        cells.append(torch.stack([torch.full_like(chosen, number), chosen], dim=1))
        persons.append(take(target, who))
    cell = torch.cat(cells)
    person = Targets(*(torch.cat([getattr(p, name) for p in persons]) for name in Targets.__dataclass_fields__))
    total = max(len(cell), 1)
    found: dict[str, Tensor] = {}
    if len(cell):
        image, place = cell.unbind(1)
        found, quality = _person_losses(model, predictions, image, place, person)
        wanted[image, place] = quality
    found["score"] = _score_loss(predictions.scores, wanted, counted) / total
    if maps:
        found["maps"] = map_loss([level.float() for level in maps], targets)
    return {name: WEIGHTS[name] * value for name, value in found.items()}


def take(target: Targets, who: Tensor) -> Targets:
    """The persons (N,) of a target."""
    return Targets(target.keypoints[who], target.visibility[who], target.bboxes[who], target.ignored[who])


@torch.no_grad()
def assign(predictions: Predictions, number: int, target: Targets, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Which cells (N,) of image `number` answer for which persons (N,): the cheapest few of each, by overlap and score.

    A simplified SimOTA: a person gets as many cells as the sum of the best overlaps says, among the cells inside the
    box and near its middle; a cell that two want goes to the cheaper. Cells inside ignored persons are struck from `counted`.
    """
    centres, strides = predictions.centres, predictions.strides
    low, high = target.bboxes[:, None, :2], target.bboxes[:, None, 2:]
    inside = ((centres > low) & (centres < high)).all(dim=-1)
    if target.ignored.any():
        counted[number, inside[target.ignored].any(dim=0)] = 0.0
    keep = torch.nonzero(~target.ignored).squeeze(1)
    if len(keep) == 0:
        return keep, keep
    boxes = target.bboxes[keep]
    overlap = box_iou(boxes, predictions.boxes[number])
    middle = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    near = ((centres - middle).abs() < 2.5 * strides[:, None]).all(dim=-1)
    score = functional.logsigmoid(predictions.scores[number])[None]
    allowed = near | inside[keep]
    cost = -3.0 * torch.log(overlap + 1e-6) - score + 1e3 * ~(near & inside[keep]) + 1e6 * ~allowed
    best = overlap.topk(min(_CANDIDATES, overlap.shape[1]), dim=1).values.sum(dim=1)
    counts = best.int().clamp(min=1)
    ranks = cost.argsort(dim=1).argsort(dim=1)
    taken = (ranks < counts[:, None]) & allowed
    owner = torch.where(taken, cost, torch.inf).min(dim=0)
    chosen = torch.nonzero(taken.any(dim=0)).squeeze(1)
    counted[number, chosen] = 1.0
    return chosen, keep[owner.indices[chosen]]


def _person_losses(
    model: Any, predictions: Predictions, image: Tensor, place: Tensor, person: Targets
) -> tuple[dict[str, Tensor], Tensor]:
    """Loss terms of the cells that answer for somebody, and how good each answer is, in [0, 1]."""
    overlap = paired_iou(predictions.boxes[image, place], person.bboxes)
    known = (person.visibility > 0).any(dim=1).float()
    shown = WEIGHT_OF_VISIBILITY.to(known.device)[person.visibility.long()]
    terms = {
        "box": (1 - overlap**2).mean(),
        "visible": (_uncertainty(predictions.visible[image, place], shown) * known).sum() / known.sum().clamp(min=1.0),
    }
    # the coordinate classifier costs more than all the rest: a random part of the cells stands for all of them
    some = torch.randperm(len(image), device=image.device)[:_POSED_CELLS]
    joints, alike = _joint_losses(model, predictions, image[some], place[some], take(person, some))
    posed = torch.full_like(known, _UNKNOWN_POSE)
    posed[some] = torch.where(known[some] > 0, alike, _UNKNOWN_POSE)
    return terms | joints, (overlap * (0.5 + 0.5 * posed)).detach().clamp(0, 1).sqrt()


def _joint_losses(
    model: Any, predictions: Predictions, image: Tensor, place: Tensor, person: Targets
) -> tuple[dict[str, Tensor], Tensor]:
    """Loss terms of the joints, and each cell's softened OKS (N,)."""
    fixed = predictions.boxes[image, place].detach()
    frame = torch.cat([(fixed[:, 2:] + fixed[:, :2]) / 2, (fixed[:, 2:] - fixed[:, :2]) * model.head.bbox_padding], 1)
    joints, bins, sigmas = model.head.dcc.forward_train(
        predictions.poses[image, place], frame, predictions.centres[place]
    )
    area = (person.bboxes[:, 2:] - person.bboxes[:, :2]).prod(dim=1).clamp(min=64.0)
    weight = WEIGHT_OF_VISIBILITY.to(joints.device)[person.visibility.long()]
    share = weight / weight.sum().clamp(min=1.0)
    wanted_bins = model.head.dcc.generate_target_heatmap(person.keypoints, frame, sigmas, area)
    likelihood = [(found * wanted).sum(dim=-1).clamp(min=1e-4) for found, wanted in zip(bins, wanted_bins, strict=True)]
    distance = (joints - person.keypoints).norm(dim=-1) / area.sqrt()[:, None]
    alike = similarity(distance, _SOFTENING)
    terms = {
        "bins": -(torch.log(likelihood[0] * likelihood[1]) * share).sum(),
        "joint": (distance.clamp(max=1.5) * share).sum(),
        "oks": ((1 - alike) * share).sum(),
    }
    return terms, (alike * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=0.5)


def similarity(distance: Tensor, softening: float) -> Tensor:
    """(N, 17) OKS of single joints at distances (N, 17), in roots of the person's area, with all deviations enlarged."""
    deviation = 2 * softening * torch.as_tensor(SIGMAS, dtype=distance.dtype, device=distance.device)
    return torch.exp(-(distance**2) / (2 * deviation**2))


def _uncertainty(logits: Tensor, shown: Tensor) -> Tensor:
    """(N,) cross-entropy of the joints' visibility, averaged over joints."""
    return functional.binary_cross_entropy_with_logits(logits, shown, reduction="none").mean(dim=1)


def _score_loss(logits: Tensor, wanted: Tensor, counted: Tensor) -> Tensor:
    """Varifocal loss: hits weigh as much as they are good, the many empty cells by how wrong they are."""
    chance = logits.sigmoid().detach()
    weight = torch.where(wanted > 0, wanted, 0.75 * chance**2) * counted
    return (functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * weight).sum()


def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """(N, M) overlap of boxes (N, 4) and (M, 4), xyxy."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    common = (high - low).clamp(min=0).prod(dim=-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=-1) for boxes in (first, second)]
    return common / (areas[0][:, None] + areas[1][None] - common).clamp(min=1e-6)


def paired_iou(first: Tensor, second: Tensor) -> Tensor:
    """(N,) overlap of boxes (N, 4) with their partners (N, 4), xyxy."""
    size = (torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])).clamp(min=0)
    common = size.prod(dim=-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=-1) for boxes in (first, second)]
    return common / (areas[0] + areas[1] - common).clamp(min=1e-6)
