"""What the refiner is trained for: move joints from where RTMO places them to where they are.

Every joint of every person teaches: each round's distance and OKS, and which sample of its grid lies nearest.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from violence_ops.pose.loss import WEIGHT_OF_VISIBILITY, Predictions, Targets, assign, similarity, take
from violence_ops.pose.network import Joints
from violence_ops.pose.quality import AREA_SHARE
from violence_ops.pose.refiner import Look, size_of
from violence_ops.pose.rtmo import FRAME_PADDING

WEIGHTS = {"joint": 3.0, "oks": 2.0, "sample": 1.0}
_ANSWERS = 2  # of the network's to each person, the strongest
_LOOKS = 64  # persons of a mini-batch; each costs as much as a tenth of a picture
_SOFTENING = 1.2  # of the OKS deviations
_BLUR = 0.6  # of the distance between two samples: how sharply the right one is asked for


def refiner_losses(model: Any, predictions: Predictions, fine: Tensor, targets: list[Targets]) -> dict[str, Tensor]:
    """Weighted loss terms, summed over rounds, from what the network and its fine features (B, H / 4, W / 4, F) say of a
    mini-batch; none if nobody's joints are known.
    """
    image, place, person = _asked(predictions, targets)
    if not len(image):
        return {}
    poses = predictions.poses[image, place]
    with torch.no_grad():
        boxes = predictions.boxes[image, place]
        middle, size = (boxes[:, 2:] + boxes[:, :2]) / 2, (boxes[:, 2:] - boxes[:, :2]) * FRAME_PADDING
        frames = torch.cat([middle, size], dim=1)
        start = Joints(model)(poses, frames, predictions.centres[place])
    terms: dict[str, Tensor] = {}
    for look in model.refiner(fine.float(), image, start, frames, poses):
        for name, value in _terms(look, person, frames).items():
            terms[f"refined_{name}"] = terms.get(f"refined_{name}", torch.zeros(())) + WEIGHTS[name] * value
    return terms


@torch.no_grad()
def _asked(predictions: Predictions, targets: list[Targets]) -> tuple[Tensor, Tensor, Targets]:
    """Images (N,), cells (N,) and the persons they answer for: some of the strongest answers to everybody whose joints are known."""
    counted = torch.ones_like(predictions.scores)
    images, places, persons = [], [], []
    for number, target in enumerate(targets):
        chosen, who = assign(predictions, number, target, counted)
        order = predictions.scores[number, chosen].argsort(descending=True)
        chosen, who = chosen[order], who[order]
        earlier = (who[:, None] == who[None]).tril(-1).sum(dim=1)
        kept = (earlier < _ANSWERS) & (target.visibility[who] > 0).any(dim=1)
        images.append(torch.full_like(chosen[kept], number))
        places.append(chosen[kept])
        persons.append(take(target, who[kept]))
    image, place = torch.cat(images), torch.cat(places)
    person = Targets(*(torch.cat([getattr(each, field.name) for each in persons]) for field in fields(Targets)))
    some = torch.randperm(len(image), device=image.device)[:_LOOKS]
    return image[some], place[some], take(person, some)


def _terms(look: Look, person: Targets, frames: Tensor) -> dict[str, Tensor]:
    weight = WEIGHT_OF_VISIBILITY.to(frames.device)[person.visibility.long()]
    share = weight / weight.sum().clamp(min=1.0)
    area = AREA_SHARE * (person.bboxes[:, 2:] - person.bboxes[:, :2]).prod(dim=1).clamp(min=64.0)
    distance = (look.joints - person.keypoints).norm(dim=-1) / area.sqrt()[:, None]
    right, there = _right_samples(look, person, frames)
    there = there * weight
    wrong = -(right * look.logits.log_softmax(dim=-1)).sum(dim=-1)
    return {
        "joint": (distance.clamp(max=1.5) * share).sum(),
        "oks": ((1 - similarity(distance, _SOFTENING)) * share).sum(),
        "sample": (wrong * there).sum() / there.sum().clamp(min=1.0),
    }


def _right_samples(look: Look, person: Targets, frames: Tensor) -> tuple[Tensor, Tensor]:
    """What the samples' softmax should be (N, 17, S), and whether the joint lies on the grid at all (N, 17)."""
    wanted = (person.keypoints - look.start) / size_of(frames)
    spacing = look.offsets[1, 1] - look.offsets[0, 1]
    squared = ((look.offsets - wanted[:, :, None]) ** 2).sum(dim=-1)
    on_grid = wanted.abs().amax(dim=-1) < look.offsets.max() + spacing / 2
    return (-squared / (2 * (_BLUR * spacing) ** 2)).softmax(dim=-1), on_grid.float()
