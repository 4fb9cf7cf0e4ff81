"""Training a classifier on labelled skeletons (SPEC 9): MMAction2's model, dataset and pipeline in a short loop of our own.

It keeps the best epoch by validation F1, stops early, and chooses the threshold on validation. It knows no files, and
writes no checkpoint. Results are the same for the same data and params on one machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from violence_ops.errors import UserError
from violence_ops.params import TrainParams, WindowParams
from violence_ops.recognition import starts, vote
from violence_ops.recognition.dataset import WindowDataset
from violence_ops.recognition.model import Recogniser, Settings, Windows, bounded_threads, device, load_config
from violence_ops.recognition.skeleton import Skeleton
from violence_ops.records import LABELS, FloatArray

# isort: split
from mmengine.dataset import pseudo_collate

_BATCH_NORM_BATCHES = 16
_FIXED_CLASS_WEIGHTS = (1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch gave; the scores are those of validation clips at the epoch's best threshold."""

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


def fit(
    train: Sequence[Skeleton],
    val: Sequence[Skeleton],
    labels: Mapping[str, str],
    params: TrainParams,
    windows: WindowParams,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Trained:
    """Train on `train`, choose epoch and threshold on `val`; `labels` maps clip_id to Fight or NonFight.

    The network begins with the weights `params.start`, or with random ones when that is None. Raises ParamsError if the start
    does not fit, UserError if the loss stops being a number or if no clip of the training side shows a person.
    """
    settings = Settings.of(params, windows)
    config = load_config(settings)
    start = starts.load(starts.find(params.start), settings) if params.start else None
    with _reproducible(params.seed):
        recogniser = Recogniser(settings, start)
        data = WindowDataset(
            skeletons=train, labels=labels, params=windows, max_windows_per_clip=config.max_windows_per_clip,
            pipeline=config.train_pipeline,
        )  # fmt: skip
        if len(data) == 0:
            raise UserError(
                "No training clip shows a tracked person: check the pose weights and pose.score_threshold, then annotate again."
            )
        class_weights = _class_weights([data.get_data_info(i)["label"] for i in range(len(data))], params)
        recogniser.network.cls_head.loss_cls.class_weight = torch.tensor(class_weights)
        validation = _Validation(recogniser, val, labels)
        return _loop(recogniser, data, validation, params, class_weights, on_epoch)


class _Validation:
    """The validation clips, their inputs made once."""

    def __init__(self, recogniser: Recogniser, clips: Sequence[Skeleton], labels: Mapping[str, str]) -> None:
        self.recogniser = recogniser
        self.clips = [clip.clip_id for clip in clips]
        self.labels = np.array([LABELS.index(labels[name]) for name in self.clips])
        self.windows: list[Windows] = [recogniser.windows(clip) for clip in clips]
        self.inputs = torch.cat([one.inputs for one in self.windows])

    def probabilities(self) -> FloatArray:
        """Clip probabilities `(N,)` of the network as it is now."""
        self.recogniser.network.eval()
        found = self.recogniser.probabilities(self.inputs)
        parts = np.split(found, np.cumsum([len(one.cuts) for one in self.windows])[:-1])
        pairs = zip(parts, self.windows, strict=True)
        return np.array([vote.clip_probability(p, vote.confidences(p, one.presence)) for p, one in pairs], np.float32)

    def loss(self, probabilities: FloatArray) -> float:
        """Mean cross-entropy of the clip probabilities."""
        right = np.where(self.labels == 1, probabilities, 1 - probabilities)
        return float(-np.log(np.clip(right, 1e-6, 1)).mean())


def _loop(
    recogniser: Recogniser,
    data: WindowDataset,
    validation: _Validation,
    params: TrainParams,
    class_weights: tuple[float, float],
    on_epoch: Callable[[Epoch], None] | None,
) -> Trained:
    network = recogniser.network
    optimiser = torch.optim.SGD(
        network.parameters(), params.learning_rate, momentum=params.momentum, weight_decay=params.weight_decay, nesterov=True
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, list(params.lr_steps), gamma=0.1)
    history: list[Epoch] = []
    last_gain = 0
    best: tuple[Epoch, dict[str, Tensor], FloatArray] | None = None
    for number in range(1, params.epochs + 1):
        rate = optimiser.param_groups[0]["lr"]
        loss = _train_epoch(network, data, optimiser, params, number)
        schedule.step()
        probabilities = validation.probabilities()
        scores = vote.best(vote.sweep(probabilities, validation.labels == 1))
        epoch = Epoch(number, rate, loss, validation.loss(probabilities), scores)
        history.append(epoch)
        if on_epoch:
            on_epoch(epoch)
        if best is None or epoch.val.f1 > best[0].val.f1 + 1e-9:
            last_gain = number
        if best is None or _rank(epoch) > _rank(best[0]):
            state = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
            best = (epoch, state, probabilities)
        if number >= params.min_epochs and number - last_gain >= params.patience:
            break
    assert best is not None
    return Trained(
        settings=recogniser.settings, state=best[1], threshold=best[0].val.threshold, best_epoch=best[0].epoch,
        history=history, sweep=vote.sweep(best[2], validation.labels == 1), val_clips=validation.clips,
        val_probabilities=best[2], val_labels=validation.labels, class_weights=class_weights,
    )  # fmt: skip


def _rank(epoch: Epoch) -> tuple[float, float]:
    """Better epochs are larger: by validation F1, then by validation loss."""
    return (round(epoch.val.f1, 6), -epoch.val_loss)


def _train_epoch(
    network: Any, data: WindowDataset, optimiser: torch.optim.Optimizer, params: TrainParams, number: int
) -> float:
    """One pass over the windows in random order; returns the mean loss.

    Raises UserError if the loss is not a finite number.
    """
    network.train()
    seen: list[Tensor] = []
    np.random.seed(params.seed * 10_007 + number)
    order = np.random.permutation(len(data))
    total = 0.0
    for mini_batch in _mini_batches(order, params.mini_batch):
        items: Any = pseudo_collate([data[int(i)] for i in mini_batch])
        items = network.data_preprocessor(items, True)
        seen.append(items["inputs"])
        loss, _ = network.parse_losses(network(**items, mode="loss"))
        if not math.isfinite(loss.item()):
            raise UserError(
                f"Training diverged in epoch {number} (the loss is not a number): lower train.learning_rate, "
                f"now {params.learning_rate:g}, in params.yaml."
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), params.gradient_clip)
        optimiser.step()
        total += loss.item() * len(mini_batch)
    _settle_batch_norm(network, seen[-_BATCH_NORM_BATCHES:])
    return total / len(data)


@torch.no_grad()
def _settle_batch_norm(network: Any, batches: Sequence[Tensor]) -> None:
    """Take the batch norms' means and variances from `batches` with the weights as they are now.

    With few mini-batches an epoch their running averages lag so far behind that validation sees another network.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    for inputs in batches:
        network.extract_feat(inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _mini_batches(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """Pieces of about equal length, none larger than `size`: a last piece of one window would upset batch norm."""
    return iter(np.array_split(order, math.ceil(len(order) / size)))


def _class_weights(window_labels: Sequence[int], params: TrainParams) -> tuple[float, float]:
    """Loss weights of NonFight and Fight: fixed 1 and 2, or inverse to their share of the windows."""
    if params.class_weights == "fixed":
        return _FIXED_CLASS_WEIGHTS
    counts = np.maximum(np.bincount(window_labels, minlength=2), 1)
    first, second = counts.sum() / (2 * counts)
    return (float(first), float(second))


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Seed NumPy and torch and bound torch's threads; all is as before afterwards."""
    state = np.random.get_state()
    try:
        with bounded_threads(), torch.random.fork_rng(devices=[0] if device().type == "cuda" else []):
            torch.manual_seed(seed)
            np.random.seed(seed)
            yield
    finally:
        np.random.set_state(state)
