"""How good one model is on labelled clips: confusion, AUC, calibration, and the F1 of every threshold.

Arrays run over clips: `labels` `(N,)` bool, True = Fight; `probabilities` `(N,)` of Fight in [0, 1]; `verdicts` `(N,)` bool.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from violence_ops.evaluation.records import Confusion, Metrics

BoolArray = NDArray[np.bool_]
Floats = NDArray[np.float64]

CALIBRATION_BINS: Final = 10


def confusion(labels: BoolArray, verdicts: BoolArray) -> Confusion:
    """Count the four cases, Fight being positive."""
    return Confusion(
        tp=int(np.sum(labels & verdicts)),
        fp=int(np.sum(~labels & verdicts)),
        fn=int(np.sum(labels & ~verdicts)),
        tn=int(np.sum(~labels & ~verdicts)),
    )


def metrics(labels: BoolArray, probabilities: Floats, verdicts: BoolArray) -> Metrics:
    """Every figure of one model. The order of the clips does not matter."""
    counts = confusion(labels, verdicts)
    return Metrics(
        accuracy=counts.accuracy,
        precision=counts.precision,
        recall=counts.recall,
        specificity=counts.specificity,
        f1=counts.f1,
        auc=auc(labels, probabilities),
        ece=calibration_error(labels, probabilities),
        brier=_mean((probabilities - labels) ** 2),
        confusion=counts,
    )


def auc(labels: BoolArray, probabilities: Floats) -> float | None:
    """Area under the ROC curve: the chance that a Fight scores above a NonFight, ties counting half (Mann–Whitney).

    None if one of the labels is absent.
    """
    from scipy.stats import rankdata

    fights = int(labels.sum())
    others = len(labels) - fights
    if not fights or not others:
        return None
    rank_sum = float(rankdata(probabilities)[labels].sum())
    return (rank_sum - fights * (fights + 1) / 2) / (fights * others)


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Clips of similar probability: how many, their mean probability, and the share that are Fights."""

    clips: int
    probability: float
    fights: float


def calibration(labels: BoolArray, probabilities: Floats, bins: int = CALIBRATION_BINS) -> list[CalibrationBin]:
    """The occupied ones of `bins` equal-width bins of probability, in order."""
    index = np.minimum((probabilities * bins).astype(int), bins - 1)
    chosen = (index == number for number in range(bins))
    return [
        CalibrationBin(int(own.sum()), _mean(probabilities[own]), _mean(labels[own])) for own in chosen if own.any()
    ]


def calibration_error(labels: BoolArray, probabilities: Floats, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error: Σ (clips of the bin / clips) · |mean probability − share of Fights|; 0 without clips."""
    parts = calibration(labels, probabilities, bins)
    return sum(part.clips * abs(part.probability - part.fights) for part in parts) / max(1, len(labels))


@dataclass(frozen=True, slots=True)
class ThresholdPoint:
    """What a clip threshold gives: a clip is a Fight when its probability is above it."""

    threshold: float
    precision: float
    recall: float
    f1: float


def threshold_curve(labels: BoolArray, probabilities: Floats, points: int = 101) -> list[ThresholdPoint]:
    """Precision, recall and F1 at `points` thresholds spread evenly over [0, 1]."""
    curve = []
    for threshold in np.linspace(0, 1, points):
        counts = confusion(labels, probabilities > threshold)
        curve.append(ThresholdPoint(float(threshold), counts.precision, counts.recall, counts.f1))
    return curve


def _mean(values: NDArray[Any]) -> float:
    """An exact sum, so that the order of the clips changes no digit."""
    return math.fsum(values.tolist()) / len(values) if len(values) else 0.0
