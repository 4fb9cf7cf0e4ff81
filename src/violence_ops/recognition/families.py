"""Training a classifier of any family: one network, a forest, or an ensemble whose members are trained one after another."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from violence_ops.errors import UserError
from violence_ops.params import TrainParams, WindowParams
from violence_ops.recognition import ensemble, forest, starts, train, vote
from violence_ops.recognition.model import Settings, load_config
from violence_ops.recognition.package import Package
from violence_ops.recognition.predict import predict_skeleton
from violence_ops.recognition.skeleton import Skeleton, windows
from violence_ops.recognition.train import Epoch, Trained
from violence_ops.records import LABELS

OnEpoch = Callable[[Epoch], None] | None


def fit(
    side: Sequence[Skeleton],
    val: Sequence[Skeleton],
    labels: Mapping[str, str],
    params: TrainParams,
    cut: WindowParams,
    on_epoch: OnEpoch = None,
    checkpoint: Path | None = None,
) -> Trained:
    """Train `params.family` on the clips of `side`; `val` chooses epochs and thresholds. Otherwise as `train.fit`.

    Members of an ensemble have seeds of their own; those that `params.start` fits begin with it.
    """
    settings = Settings.of(params, cut)
    own = ensemble.members(settings)
    if list(own) == [settings.family]:
        return _fit_one(settings, side, val, labels, params, on_epoch, checkpoint)
    found = {}
    for number, (name, one) in enumerate(own.items()):
        kept = checkpoint.with_name(f"{checkpoint.stem}-{name}{checkpoint.suffix}") if checkpoint else None
        chosen = _of_member(params, one, number)
        found[name] = _fit_one(one, side, val, labels, chosen, on_epoch, kept)
    return _together(settings, found, val, labels)


def _of_member(params: TrainParams, settings: Settings, number: int) -> TrainParams:
    fits = params.start is not None and starts.find(params.start).misfit(settings) is None
    changes = {"family": settings.family, "streams": settings.streams, "seed": params.seed + number}
    return params.model_copy(update=changes | ({} if fits else {"start": None}))


def _fit_one(
    settings: Settings, side: Sequence[Skeleton], val: Sequence[Skeleton], labels: Mapping[str, str],
    params: TrainParams, on_epoch: OnEpoch, checkpoint: Path | None,
) -> Trained:  # fmt: skip
    if "forest" in load_config(settings):
        return _fit_forest(settings, side, val, labels, params, on_epoch)
    return train.fit(side, val, labels, params, settings.windows, on_epoch, checkpoint)


def _fit_forest(
    settings: Settings, side: Sequence[Skeleton], val: Sequence[Skeleton], labels: Mapping[str, str],
    params: TrainParams, on_epoch: OnEpoch,
) -> Trained:  # fmt: skip
    """Grow a forest on the windows of the training side; it is its own first and only epoch."""
    most = load_config(settings).max_windows_per_clip
    rows, targets = [], []
    for skeleton in side:
        cuts = windows(skeleton.frames, skeleton.intensity, settings.windows)
        cuts = cuts[:: math.ceil(len(cuts) / most)]
        cuts = [(start, end) for start, end in cuts if skeleton.keypoint_scores[:, start:end].any()]
        if cuts:
            rows.append(forest.inputs(skeleton, cuts))
            targets += [LABELS.index(labels[skeleton.clip_id])] * len(cuts)
    if not rows:
        raise UserError(train.NOBODY)
    weights = train.class_weights(np.array(targets), params)
    state = forest.grow(np.concatenate(rows), targets, settings, weights, params.seed)
    trained = _judged(settings, state, val, labels, weights)
    if on_epoch:
        on_epoch(trained.history[0])
    return trained


def _together(
    settings: Settings, found: Mapping[str, Trained], val: Sequence[Skeleton], labels: Mapping[str, str]
) -> Trained:
    """The members as one classifier; its history is theirs one after another, and its own figures last."""
    state = ensemble.joined({name: one.state for name, one in found.items()})
    one = _judged(settings, state, val, labels, next(iter(found.values())).class_weights)
    epochs = [epoch for trained in found.values() for epoch in trained.history] + one.history
    history = [replace(epoch, epoch=number) for number, epoch in enumerate(epochs, start=1)]
    scores = {name: trained.history[trained.best_epoch - 1].val for name, trained in found.items()}
    return replace(one, history=history, best_epoch=len(history), members=scores)


def _judged(
    settings: Settings, state: dict[str, Tensor], val: Sequence[Skeleton], labels: Mapping[str, str],
    class_weights: tuple[float, float],
) -> Trained:  # fmt: skip
    """A classifier that was not trained in epochs, with its figures on validation; they stand for its training loss too."""
    judge = Package(settings, 0.5, ensemble.build(settings, state))
    probabilities = np.array([predict_skeleton(judge, clip).probability for clip in val], np.float32)
    fights = np.array([labels[clip.clip_id] == "Fight" for clip in val])
    sweep = vote.sweep(probabilities, fights)
    right = np.clip(np.where(fights, probabilities, 1 - probabilities), 1e-6, 1)
    loss = float(-np.log(right).mean())
    epoch = Epoch(1, 0.0, loss, loss, vote.best(sweep))
    return Trained(
        settings=settings, state=state, threshold=epoch.val.threshold, best_epoch=1, history=[epoch], sweep=sweep,
        val_clips=[clip.clip_id for clip in val], val_probabilities=probabilities, val_labels=fights.astype(np.int64),
        class_weights=class_weights,
    )  # fmt: skip
