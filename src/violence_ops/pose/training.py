"""Training of the small RTMO with its refiner, or of the refiner alone: a plain loop over mini-batches that a background process draws.

It keeps a moving average of the weights (which is what is evaluated and shipped), survives a kill by atomic
checkpoints, and writes one JSON line per report. It does not decide how good is good enough: see `pose.quality`.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from violence_ops.errors import UsageError
from violence_ops.files import atomic_path
from violence_ops.malloc import memory_kept
from violence_ops.pose.loss import Targets
from violence_ops.pose.objective import Objective, refiner_alone, whole
from violence_ops.pose.samples import Draw, Sample, mini_batches

_QUICK = 4.0  # learning rate of an objective's quick part, in units of the others'


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """`steps` optimiser steps of `size` images each at peak `learning_rate`; `average` is the EMA's decay a step.

    With `refiner` the network stays as it is and its refiner learns.
    """

    steps: int
    size: int = 16
    learning_rate: float = 1e-3
    warm_up: int = 200
    weight_decay: float = 1e-4
    average: float = 0.998
    refiner: bool = False
    report_every: int = 50
    save_every: int = 100
    seed: int = 0


class _Batches(IterableDataset[Any]):
    """Mini-batches drawn in a worker process, so that drawing and learning overlap."""

    def __init__(self, draw: Draw, settings: TrainingSettings, start: int) -> None:
        self.draw, self.settings, self.start = draw, settings, start

    def __iter__(self) -> Iterator[tuple[Tensor, list[Targets]]]:
        for batch in mini_batches(self.draw, self.settings.seed, self.settings.size, self.start):
            yield collate(batch)


def collate(batch: list[Sample]) -> tuple[Tensor, list[Targets]]:
    """Images (B, 3, H, W) uint8 and their targets as tensors."""
    images = torch.from_numpy(np.stack([sample.image for sample in batch])).permute(0, 3, 1, 2).contiguous()
    targets = [
        Targets(*(torch.from_numpy(part) for part in (s.keypoints, s.visibility, s.bboxes, s.ignored))) for s in batch
    ]
    return images, targets


def soften_start(model: Any) -> None:
    """Make the coordinate classifier's first answers uncertain, in place.

    The stock initialisation of its attention unit gives large outputs: the softmax over the bins starts saturated and
    hardly learns.
    """
    dcc = model.head.dcc
    with torch.no_grad():
        dcc.gau.o.weight.mul_(0.05)
        dcc.pos_enc.mul_(0.1)
        dcc.gau.gamma.mul_(0.3)
        dcc.gau.beta.mul_(0.3)
        for layer in (dcc.x_fc, dcc.y_fc):
            layer.weight.mul_(0.2)
            layer.bias.zero_()


@memory_kept()
def train(
    model: Any,
    draw: Draw,
    settings: TrainingSettings,
    folder: Path,
    *,
    device: str = "cpu",
    on_report: Callable[[int], None] = lambda step: None,
    on_save: Callable[[int, nn.Module], None] = lambda step, average: None,
) -> nn.Module:
    """Train `model` in place, from the checkpoint in `folder` when there is one; return the averaged model.

    Writes `folder/state.pt` (own tensors only, read with weights_only) and appends to `folder/log.jsonl`. `on_report` is
    called with the steps done after every new line of the log, `on_save` after every checkpoint with its step and the averaged model.

    Raises:
        UsageError: the checkpoint is of a training of something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(model).eval()
    objective = refiner_alone(model) if settings.refiner else whole(model, device)
    learner = objective.learner
    groups = _groups(objective, settings.weight_decay)
    optimizer = torch.optim.AdamW([group for _, group in groups], lr=settings.learning_rate)
    start = _resume(folder / "state.pt", objective, average, optimizer)
    batches = DataLoader(
        _Batches(draw, settings, start), batch_size=None, num_workers=1, prefetch_factor=6, persistent_workers=True
    )
    began, sums, summed = time.monotonic(), dict[str, float](), 0
    for step, (images, targets) in zip(range(start, settings.steps), batches, strict=False):
        for (factor, _), group in zip(groups, optimizer.param_groups, strict=True):
            group["lr"] = factor * rate(step, settings)
        pictures = images.to(device, memory_format=torch.channels_last).float()
        terms = objective.terms(pictures, [Targets(*(v.to(device) for v in vars(t).values())) for t in targets])
        if terms:
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(terms.values())).sum().backward()
            nn.utils.clip_grad_norm_(learner.parameters(), 10.0)
            optimizer.step()
        follow(average, model, min(settings.average, (1 + step) / (10 + step)))
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        done, summed = step + 1, summed + 1
        if done % settings.report_every == 0 or done == settings.steps:
            means = {name: value / summed for name, value in sums.items()}
            _report(folder / "log.jsonl", done, means, settings, (time.monotonic() - began) / (done - start))
            sums, summed = {}, 0
            on_report(done)
        if done % settings.save_every == 0 or done == settings.steps:
            _save(folder / "state.pt", learner, average, optimizer, done)
            on_save(done, average)
    return average


def rate(step: int, settings: TrainingSettings) -> float:
    """Learning rate of a step: linear warm-up, then half a cosine down to 2 % of the peak."""
    if step < settings.warm_up:
        return settings.learning_rate * (step + 1) / settings.warm_up
    share = (step - settings.warm_up) / max(1, settings.steps - settings.warm_up)
    return settings.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the averaged weights a little towards the model's; counters and statistics are averaged too."""
    for kept, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if kept.dtype.is_floating_point:
            kept.lerp_(new.detach(), 1 - decay)
        else:
            kept.copy_(new)


def _groups(objective: Objective, decay: float) -> list[tuple[float, dict[str, Any]]]:
    """The learner's parameters for the optimiser, each group with the factor of its learning rate; vectors do not decay."""
    quick = set(objective.quick.parameters()) if objective.quick else set()
    learning = [parameter for parameter in objective.learner.parameters() if parameter.requires_grad]
    found = []
    for factor, members in ((1.0, set(learning) - quick), (_QUICK, quick)):
        for matrices in (True, False):
            some = [p for p in learning if p in members and (p.ndim > 1) == matrices]
            found.append((factor, {"params": some, "weight_decay": decay if matrices else 0.0}))
    return [(factor, group) for factor, group in found if group["params"]]


def steps_done(folder: Path) -> int:
    """How far the training in `folder` has come."""
    path = folder / "state.pt"
    return int(torch.load(path, map_location="cpu", weights_only=True)["step"]) if path.exists() else 0


def _resume(path: Path, objective: Objective, average: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    other = UsageError(
        f"{path.parent} holds a training of something else: name another file to write, or the start it had."
    )
    try:
        objective.learner.load_state_dict(state["learner"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise other from error
    if any(not torch.equal(state["average"][name], value.cpu()) for name, value in objective.fixed.items()):
        raise other
    return int(state["step"])


def _save(path: Path, learner: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    state = {
        "learner": learner.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict(), "step": step
    }  # fmt: skip
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def _report(path: Path, step: int, means: dict[str, float], settings: TrainingSettings, seconds: float) -> None:
    line = {"step": step, "lr": rate(step - 1, settings), "s_per_step": round(seconds, 3)}
    line |= {name: round(value, 4) for name, value in means.items()}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
