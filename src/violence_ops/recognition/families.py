"""Training a classifier of any family: a network, one on hand-made features, or an ensemble of members trained in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from violence_ops.errors import ParamsError, UserError
from violence_ops.params import TrainParams, WindowParams
from violence_ops.recognition import by_features, ensemble, forest, line, starts, train, vote
from violence_ops.recognition.model import Settings, load_config
from violence_ops.recognition.package import Package
from violence_ops.recognition.predict import predict_skeleton
from violence_ops.recognition.skeleton import Skeleton, to_train_on
from violence_ops.recognition.starts import Start
from violence_ops.recognition.train import Epoch, Trained
from violence_ops.records import LABELS, FloatArray

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

    The epochs of an ensemble's members are counted one member after another, as in its history.

    Members of an ensemble have seeds of their own; those that are networks begin with `params.start`. Raises ParamsError if it
    does not fit one of them.
    """
    check(params, cut)
    settings = Settings.of(params, cut)
    own = ensemble.members(settings)
    if list(own) == [settings.family]:
        return _fit_one(settings, side, val, labels, params, on_epoch, checkpoint)
    found: dict[str, Trained] = {}
    for number, (name, one) in enumerate(own.items()):
        kept = checkpoint.with_name(f"{checkpoint.stem}-{name}{checkpoint.suffix}") if checkpoint else None
        chosen = _of_member(params, one, number)
        before = sum(len(trained.history) for trained in found.values())
        found[name] = _fit_one(one, side, val, labels, chosen, _counted(on_epoch, before), kept)
    return _together(settings, found, val, labels)


def _counted(on_epoch: OnEpoch, before: int) -> OnEpoch:
    """What is told of epochs that follow so many others."""
    if on_epoch is None:
        return None
    return lambda epoch: on_epoch(replace(epoch, epoch=before + epoch.epoch))


def most_epochs(params: TrainParams, cut: WindowParams) -> int:
    """How many epochs a training of the family takes at most: `params.epochs` of each network, and one of each other member."""
    settings = Settings.of(params, cut)
    networks = len(_networks(settings))
    return networks * params.epochs + len(ensemble.members(settings)) - networks


def check(params: TrainParams, cut: WindowParams) -> None:
    """Raise ParamsError if the machine lacks `params.precision`, or where `begins_with` does: before anything is looked at."""
    train.check_precision(params)
    begins_with(params, cut)


def begins_with(params: TrainParams, cut: WindowParams) -> Start | None:
    """The start that all networks of the family go on from; None if there is to be none, or the family has no network.

    Raises ParamsError if `params.start` does not fit each of them: one that begins with nothing would need other epochs and rates.
    """
    settings = Settings.of(params, cut)
    networks = _networks(settings)
    if not params.start or not networks:
        return None
    start = starts.find(params.start)
    for one in networks:
        if start.part(one) is None:
            raise ParamsError(start.misfit(one, params.family))
    return start


def precision(params: TrainParams, cut: WindowParams) -> str:
    """What `params.precision` is on this machine for the family's networks: bf16, for example, or both of `bf16, fp32`."""
    return ", ".join(sorted({train.precision(params, one) for one in _networks(Settings.of(params, cut))}))


def check_sweep(params: TrainParams, cut: WindowParams) -> None:
    """Raise ParamsError where a sweep over rates and regularisation would try nothing: no member of the family is a network; or
    where `check` does."""
    if not _networks(Settings.of(params, cut)):
        raise ParamsError(
            f"train.family {params.family} has no network, so there is nothing to sweep: train it as it is, or choose another family."
        )
    check(params, cut)


def _networks(settings: Settings) -> list[Settings]:
    """The members of a family that are networks."""
    return [one for one in ensemble.members(settings).values() if "model" in load_config(one)]


def _of_member(params: TrainParams, settings: Settings, number: int) -> TrainParams:
    fits = params.start is not None and starts.find(params.start).part(settings) is not None
    changes = {"family": settings.family, "streams": settings.streams, "seed": params.seed + number}
    return params.model_copy(update=changes | ({} if fits else {"start": None}))


def _fit_one(
    settings: Settings, side: Sequence[Skeleton], val: Sequence[Skeleton], labels: Mapping[str, str],
    params: TrainParams, on_epoch: OnEpoch, checkpoint: Path | None,
) -> Trained:  # fmt: skip
    config = load_config(settings)
    if "model" not in config:
        return _fit_by_features(settings, side, val, labels, params, on_epoch)
    return train.fit(side, val, labels, params, settings.windows, on_epoch, checkpoint)


def _fit_by_features(
    settings: Settings, side: Sequence[Skeleton], val: Sequence[Skeleton], labels: Mapping[str, str],
    params: TrainParams, on_epoch: OnEpoch,
) -> Trained:  # fmt: skip
    """Fit on the training side, which gives the figures and the threshold; then, nothing being left to choose, on all clips."""
    config = load_config(settings)
    grow = forest.grow if "forest" in config else line.grow

    def fitted(clips: Sequence[Skeleton]) -> tuple[dict[str, Tensor], tuple[float, float]]:
        values, targets = _windows(clips, labels, settings, config.max_windows_per_clip)
        weights = train.class_weights(np.array(targets), params)
        return grow(values, targets, settings, weights, params.seed), weights

    state, weights = fitted(side)
    trained = _judged(settings, state, val, labels, weights)
    if on_epoch:
        on_epoch(trained.history[0])
    state, weights = fitted([*side, *val])
    return replace(trained, state=state, class_weights=weights)


def _windows(
    clips: Sequence[Skeleton], labels: Mapping[str, str], settings: Settings, most: int
) -> tuple[FloatArray, list[int]]:
    """The features `(N, F)` of all windows that show somebody, at most so many of a clip, and their labels."""
    rows, targets = [], []
    for skeleton in clips:
        cuts = to_train_on(skeleton, settings.windows, most)
        if cuts:
            rows.append(by_features.inputs(skeleton, cuts))
            targets += [LABELS.index(labels[skeleton.clip_id])] * len(cuts)
    if not rows:
        raise UserError(train.NOBODY)
    return np.concatenate(rows), targets


def _together(
    settings: Settings, found: Mapping[str, Trained], val: Sequence[Skeleton], labels: Mapping[str, str]
) -> Trained:
    """The members as one classifier; its history is theirs one after another, and its own figures last.

    Those are its own verdicts on the validation clips; if a member knows these by now, as those on features do, the means of what
    the members said of them before, which is nearly the same.
    """
    state = ensemble.joined({name: one.state for name, one in found.items()})
    weights = next(iter(found.values())).class_weights
    if len(_networks(settings)) == len(found):
        one = _judged(settings, state, val, labels, weights)
    else:
        probabilities = np.mean([one.val_probabilities for one in found.values()], axis=0)
        one = _figures(settings, state, val, labels, probabilities, weights)
    epochs = [epoch for trained in found.values() for epoch in trained.history] + one.history
    history = [replace(epoch, epoch=number) for number, epoch in enumerate(epochs, start=1)]
    scores = {name: trained.history[trained.best_epoch - 1].val for name, trained in found.items()}
    return replace(one, history=history, best_epoch=len(history), members=scores)


def _judged(
    settings: Settings, state: dict[str, Tensor], val: Sequence[Skeleton], labels: Mapping[str, str],
    class_weights: tuple[float, float],
) -> Trained:  # fmt: skip
    """A classifier that was not trained in epochs, with its figures on validation."""
    judge = Package(settings, 0.5, ensemble.build(settings, state))
    probabilities = np.array([predict_skeleton(judge, clip).probability for clip in val], np.float32)
    return _figures(settings, state, val, labels, probabilities, class_weights)


def _figures(
    settings: Settings, state: dict[str, Tensor], val: Sequence[Skeleton], labels: Mapping[str, str],
    probabilities: FloatArray, class_weights: tuple[float, float],
) -> Trained:  # fmt: skip
    """What these probabilities of Fight of the validation clips say; their loss stands for the training loss too."""
    fights = np.array([labels[clip.clip_id] == "Fight" for clip in val])
    loss = vote.cross_entropy(probabilities, fights)
    epoch = Epoch(1, 0.0, loss, loss, vote.chosen(probabilities, fights))
    return Trained(
        settings=settings, state=state, threshold=epoch.val.threshold, best_epoch=1, history=[epoch],
        sweep=vote.sweep(probabilities, fights), val_clips=[clip.clip_id for clip in val], val_probabilities=probabilities, val_labels=fights.astype(np.int64),
        class_weights=class_weights,
    )  # fmt: skip
