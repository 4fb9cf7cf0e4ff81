"""Training a classifier on labelled skeletons (SPEC 9): MMAction2's networks and pipelines in a short loop of our own.

It keeps the best epoch by validation F1, stops early, and chooses the threshold on validation. All chance of an epoch comes
from the seed and the epoch's number, so that a training that was killed and resumed at an epoch gives the same bits as one
that was not, on one machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from violence_ops.errors import ParamsError, UserError
from violence_ops.files import atomic_path
from violence_ops.malloc import memory_kept
from violence_ops.params import TrainParams, WindowParams
from violence_ops.recognition import channels_first, ensemble, starts, vote
from violence_ops.recognition.inputs import TrainingWindows
from violence_ops.recognition.model import (
    Classifier,
    Network,
    Settings,
    Windows,
    bounded_threads,
    device,
    exact,
    load_config,
)
from violence_ops.recognition.skeleton import Skeleton
from violence_ops.records import LABELS, FloatArray

_BATCH_NORM_BATCHES = 4
_FIXED_CLASS_WEIGHTS = (1.0, 2.0)
NOBODY = (
    "No training clip shows a tracked person: check the pose weights and pose.score_threshold, then annotate again."
)
_PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")  # as torch calls them


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch gave; the scores are those of validation clips at the epoch's threshold."""

    epoch: int
    learning_rate: float
    train_loss: float
    val_loss: float
    val: vote.Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The best epoch's model: its settings, weights (on the CPU), threshold, and how it came about.

    val_probabilities `(N,)` and val_labels `(N,)` (1 is Fight) belong to `val_clips` in order.
    """

    settings: Settings
    state: dict[str, Tensor]
    threshold: float
    best_epoch: int
    history: list[Epoch]
    sweep: list[vote.Scores]
    val_clips: list[str]
    val_probabilities: FloatArray
    val_labels: NDArray[np.int64]
    class_weights: tuple[float, float]
    members: dict[str, vote.Scores] = field(default_factory=dict)
    """Of an ensemble: each member's own scores on validation."""


def fit(
    train: Sequence[Skeleton],
    val: Sequence[Skeleton],
    labels: Mapping[str, str],
    params: TrainParams,
    windows: WindowParams,
    on_epoch: Callable[[Epoch], None] | None = None,
    checkpoint: Path | None = None,
) -> Trained:
    """Train on `train`, choose epoch and threshold on `val`; `labels` maps clip_id to Fight or NonFight.

    The network begins with the weights `params.start`, or with random ones when that is None; of a start, what is returned holds
    the share `params.start_share`. With a `checkpoint` file each epoch is kept there, and a training that was killed goes on from
    it; the caller sees to it that data and params are the same.
    Raises ParamsError if the start does not fit or the machine lacks `params.precision`, UserError if the loss stops being a number or
    if no clip of the training side shows a person.
    """
    check_precision(params)
    settings = Settings.of(params, windows)
    start = starts.load(starts.find(params.start), settings) if params.start else None
    with _reproducible(params.seed):
        recogniser = ensemble.network(settings, start)
        data = recogniser.training_windows(train, labels)
        if data is None:
            raise UserError(NOBODY)
        return _Training(recogniser, data, _Validation(recogniser, val, labels), params, checkpoint).run(on_epoch)


def check_precision(params: TrainParams) -> None:
    """Raise ParamsError for a precision that this machine does not compute with."""
    lacking = {"fp16": not _has_gpu(), "bf16": not (_has_gpu() or _computes_bf16())}
    if lacking.get(params.precision):
        processors = " or a processor with AVX512-BF16 or AMX" if params.precision == "bf16" else ""
        raise ParamsError(
            f"train.precision is {params.precision}, which needs a GPU{processors}: set it to auto or fp32."
        )


def precision(params: TrainParams, settings: Settings) -> str:
    """What `params.precision` is for a network of these settings on this machine: fp32, bf16 or fp16.

    `auto` is bf16 for STGCN++ on a processor that computes with it, and fp32 otherwise. That is mixed precision: weights, what they
    become and the statistics of batch norms stay fp32, and so does all that judges.
    """
    if params.precision != "auto":
        return params.precision
    backbone = load_config(settings).get("model", {}).get("backbone", {})
    return "bf16" if not _has_gpu() and _computes_bf16() and channels_first.fits(backbone) else "fp32"


def _has_gpu() -> bool:
    return device().type == "cuda"


def _computes_bf16() -> bool:
    return any(torch.cpu.get_capabilities().get(name) for name in _BF16_INSTRUCTIONS)


class _Validation:
    """The validation clips, their inputs made once."""

    def __init__(self, classifier: Classifier, clips: Sequence[Skeleton], labels: Mapping[str, str]) -> None:
        self.classifier = classifier
        self.clips = [clip.clip_id for clip in clips]
        self.labels = np.array([LABELS.index(labels[name]) for name in self.clips])
        self.windows: list[Windows] = [classifier.windows(clip) for clip in clips]
        self.inputs = torch.cat([one.inputs for one in self.windows])

    def probabilities(self) -> FloatArray:
        """Clip probabilities `(N,)` of the classifier as it is now."""
        found = self.classifier.probabilities(self.inputs)
        parts = np.split(found, np.cumsum([len(one.cuts) for one in self.windows])[:-1])
        pairs = zip(parts, self.windows, strict=True)
        return np.array([vote.clip_probability(p, vote.confidences(p, one.presence)) for p, one in pairs], np.float32)

    def loss(self, probabilities: FloatArray) -> float:
        """Mean cross-entropy of the clip probabilities."""
        return vote.cross_entropy(probabilities, self.labels == 1)


@dataclass
class _Progress:
    """Where a training stands after an epoch: what a checkpoint holds beside network and optimiser."""

    history: list[Epoch] = field(default_factory=list)
    last_gain: int = 0
    best: Epoch | None = None
    state: dict[str, Tensor] = field(default_factory=dict)
    probabilities: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))

    def add(self, epoch: Epoch, network: nn.Module, probabilities: FloatArray) -> None:
        self.history.append(epoch)
        if self.best is None or epoch.val.f1 > self.best.val.f1 + 1e-9:
            self.last_gain = epoch.epoch
        if self.best is None or _rank(epoch) > _rank(self.best):
            self.best, self.probabilities = epoch, probabilities
            self.state = {name: value.cpu() for name, value in _copied(network).items()}

    def is_over(self, params: TrainParams) -> bool:
        done = len(self.history)
        return done >= params.epochs or (done >= params.min_epochs and done - self.last_gain >= params.patience)


class _Training:
    """A network on its way, epoch by epoch."""

    def __init__(
        self,
        recogniser: Network,
        data: TrainingWindows,
        validation: _Validation,
        params: TrainParams,
        checkpoint: Path | None,
    ) -> None:
        self.recogniser, self.network, self.data, self.validation = recogniser, recogniser.network, data, validation
        self.params, self.checkpoint, self.progress = params, checkpoint, _Progress()
        self.class_weights = class_weights(data.labels, params)
        self.weights = torch.tensor(self.class_weights, device=device())
        self.parameters = list(self.network.parameters())
        self.optimiser = torch.optim.SGD(
            self.parameters, params.learning_rate, momentum=params.momentum, weight_decay=params.weight_decay, nesterov=True,
            fused=device().type == "cpu",  # elsewhere GradScaler has to skip whole steps
        )  # fmt: skip
        self.precision = _PRECISIONS[precision(params, recogniser.settings)]
        self.scaler = torch.amp.GradScaler(device().type, enabled=self.precision is torch.float16)
        self.start_share = params.start_share if params.start else 0.0
        self.begun = _copied(self.network) if self.start_share else {}
        if checkpoint and checkpoint.is_file():
            self._resume(checkpoint)

    def run(self, on_epoch: Callable[[Epoch], None] | None) -> Trained:
        """Train until the last epoch or until it no longer gets better."""
        while not self.progress.is_over(self.params):
            epoch = self._epoch(len(self.progress.history) + 1)
            if self.checkpoint:
                self._save(self.checkpoint)
            if on_epoch:
                on_epoch(epoch)
        found, validation = self.progress, self.validation
        assert found.best is not None
        return Trained(
            settings=self.recogniser.settings, state=found.state, threshold=found.best.val.threshold, best_epoch=found.best.epoch,
            history=found.history, sweep=vote.sweep(found.probabilities, validation.labels == 1), val_clips=validation.clips,
            val_probabilities=found.probabilities, val_labels=validation.labels, class_weights=self.class_weights,
        )  # fmt: skip

    def _epoch(self, number: int) -> Epoch:
        rate = learning_rate(self.params, number)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss, last = self._pass(number)
        with self._start_kept():
            _settle_batch_norm(self.recogniser, last)
            probabilities = self.validation.probabilities()
            scores = vote.chosen(probabilities, self.validation.labels == 1)
            epoch = Epoch(number, rate, loss, self.validation.loss(probabilities), scores)
            self.progress.add(epoch, self.network, probabilities)
        return epoch

    @contextmanager
    def _start_kept(self) -> Iterator[None]:
        """The network as it is judged: `start_share` of what it began with, the rest of what it has learnt since.

        Fine-tuning on few clips forgets some of what the start knows; averaged weights have both (Wortsman et al. 2022).
        Their batch norms must be settled: they have seen nothing yet (Izmailov et al. 2018, section 3.2).
        """
        if not self.start_share:
            yield
            return
        learnt = _copied(self.network)
        mixed = {
            name: torch.lerp(value, self.begun[name], self.start_share) if value.is_floating_point() else value
            for name, value in learnt.items()
        }
        self.network.load_state_dict(mixed)
        try:
            yield
        finally:
            self.network.load_state_dict(learnt)

    def _pass(self, number: int) -> tuple[float, list[Tensor]]:
        """One pass over the windows in random order; returns the mean loss and the inputs of the last steps.

        Raises UserError if the loss is not a finite number.
        """
        self.network.train()
        torch.manual_seed(self.params.seed * 10_007 + number)
        chance = np.random.default_rng([abs(self.params.seed), number])
        seen: list[Tensor] = []
        total = 0.0
        for rows in _mini_batches(chance.permutation(len(self.data.labels)), self.params.mini_batch):
            inputs = self.data.mini_batch(rows, chance).to(device(), torch.float32)
            inputs, targets = self._targets(inputs, self.data.labels[rows], chance)
            seen = [*seen[1 - _BATCH_NORM_BATCHES :], inputs]
            loss = self._step(inputs, targets)
            if not math.isfinite(loss):
                raise UserError(
                    f"Training diverged in epoch {number} (the loss is not a number): lower train.learning_rate, "
                    f"which is {self.params.learning_rate:g}."
                )
            total += loss * len(rows)
        return total / len(self.data.labels), seen

    def _targets(self, inputs: Tensor, labels: NDArray[np.int64], chance: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Inputs and their share of each class `(B, 2)`, smoothed, and mixed two by two if `mixup` is on."""
        share = self.params.label_smoothing / len(LABELS)
        targets = torch.from_numpy(np.eye(len(LABELS), dtype=np.float32)[labels]).to(inputs.device)
        targets = targets * (1 - self.params.label_smoothing) + share
        if self.params.mixup > 0:
            part = float(chance.beta(self.params.mixup, self.params.mixup))
            other = torch.from_numpy(chance.permutation(len(labels))).to(inputs.device)
            inputs = part * inputs + (1 - part) * inputs[other]
            targets = part * targets + (1 - part) * targets[other]
        return inputs, targets

    def _step(self, inputs: Tensor, targets: Tensor) -> float:
        """One step of the optimiser, unless the loss is not a finite number; returns the loss."""
        with torch.autocast(inputs.device.type, self.precision, enabled=self.precision is not None):
            loss = weighted_cross_entropy(self.recogniser.scores(inputs).float(), targets, self.weights)
        value = loss.item()
        if math.isfinite(value):
            self.optimiser.zero_grad(set_to_none=True)
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimiser)
            _clip(self.parameters, self.params.gradient_clip)
            self.scaler.step(self.optimiser)
            self.scaler.update()
        return value

    def _save(self, path: Path) -> None:
        found = self.progress
        content = {
            "network": self.network.state_dict(), "optimiser": self.optimiser.state_dict(), "scaler": self.scaler.state_dict(),
            "history": [asdict(epoch) for epoch in found.history], "last_gain": found.last_gain,
            "best": found.best.epoch if found.best else 0, "state": found.state, "probabilities": found.probabilities.tolist(),
        }  # fmt: skip
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            torch.save(content, file)

    def _resume(self, path: Path) -> None:
        content = torch.load(path, map_location=device(), weights_only=True)
        self.network.load_state_dict(content["network"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.scaler.load_state_dict(content["scaler"])
        history = [Epoch(**epoch | {"val": vote.Scores(**epoch["val"])}) for epoch in content["history"]]
        state = {name: value.cpu() for name, value in content["state"].items()}
        probabilities = np.array(content["probabilities"], np.float32)
        self.progress = _Progress(history, content["last_gain"], history[content["best"] - 1], state, probabilities)


def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def learning_rate(params: TrainParams, epoch: int) -> float:
    """The rate of an epoch, from 1: constant between `lr_steps`, or falling along half a cosine to 0 after the last one."""
    if params.schedule == "cosine":
        return params.learning_rate * (1 + math.cos(math.pi * (epoch - 1) / params.epochs)) / 2
    return float(params.learning_rate * 0.1 ** sum(epoch > step for step in params.lr_steps))


def weighted_cross_entropy(scores: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of scores `(B, C)` against shares `(B, C)` with a weight for each class `(C,)`, as MMAction2 averages it."""
    weighted = weights * targets
    return -(weighted * scores.log_softmax(dim=1)).sum() / weighted.sum()


def _clip(parameters: Sequence[nn.Parameter], most: float) -> None:
    """Scale all gradients so that their norm together is at most `most`. torch's own takes a norm of each of some 400 tensors."""
    grads = [one.grad for one in parameters if one.grad is not None]
    norm = torch.cat([grad.flatten() for grad in grads]).norm()
    torch._foreach_mul_(grads, (most / (norm + 1e-6)).clamp(max=1.0))


def _rank(epoch: Epoch) -> tuple[float, float]:
    """Better epochs are larger: by validation F1, then by validation loss."""
    return (round(epoch.val.f1, 6), -epoch.val_loss)


@torch.no_grad()
def _settle_batch_norm(recogniser: Network, batches: Sequence[Tensor]) -> None:
    """Take the batch norms' means and variances from `batches` with the weights as they are now, and leave training.

    With few mini-batches an epoch their running averages lag so far behind that validation sees another network.
    """
    recogniser.network.train()
    norms = [module for module in recogniser.network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    for inputs in batches:
        recogniser.scores(inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    recogniser.network.eval()


def _mini_batches(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """Pieces of about equal length, none larger than `size`: a last piece of one window would upset batch norm."""
    return iter(np.array_split(order, math.ceil(len(order) / size)))


def class_weights(window_labels: NDArray[np.int64], params: TrainParams) -> tuple[float, float]:
    """Loss weights of NonFight and Fight: fixed 1 and 2, or inverse to their share of the windows."""
    if params.class_weights == "fixed":
        return _FIXED_CLASS_WEIGHTS
    counts = np.maximum(np.bincount(window_labels, minlength=2), 1)
    first, second = counts.sum() / (2 * counts)
    return (float(first), float(second))


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Seed NumPy and torch, bound torch's threads and its freedom on a GPU; all is as before afterwards."""
    state = np.random.get_state()
    try:
        with (
            exact(),
            bounded_threads(),
            memory_kept(),
            torch.random.fork_rng(devices=[0] if device().type == "cuda" else []),
        ):
            torch.manual_seed(seed)
            np.random.seed(seed)
            yield
    finally:
        np.random.set_state(state)
