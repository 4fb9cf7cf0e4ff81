"""From window probabilities to a clip's verdict, and the threshold that decides it (SPEC 8)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = tuple(round(0.30 + 0.05 * i, 2) for i in range(9))

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scores:
    """Of a set of clips at one threshold, Fight being the positive class; each in [0, 1]."""

    threshold: float
    f1: float
    precision: float
    recall: float
    accuracy: float


def clip_probability(probabilities: Floats, weights: Floats) -> float:
    """Confidence-weighted vote over windows `(W,)`: sum(p c) / sum(c); 0 if no window has any weight."""
    total = float(np.sum(weights))
    return float(np.sum(probabilities * weights) / total) if total > 0 else 0.0


def confidences(probabilities: Floats, presence: Floats) -> Floats:
    """Weight of each window: how sure it is, max(p, 1 - p), times the share of its frames with somebody in them."""
    return np.maximum(probabilities, 1 - probabilities) * presence


def scores_at(threshold: float, probabilities: Floats, is_fight: Bools) -> Scores:
    """F1, precision, recall and accuracy of the verdict `probability > threshold` over clips `(N,)`; 0 where undefined."""
    said = probabilities > threshold
    hits, alarms, fights = int(np.sum(said & is_fight)), int(np.sum(said)), int(np.sum(is_fight))
    return Scores(
        threshold=threshold,
        f1=2 * hits / (alarms + fights) if alarms + fights else 0.0,
        precision=hits / alarms if alarms else 0.0,
        recall=hits / fights if fights else 0.0,
        accuracy=float(np.mean(said == is_fight)) if len(is_fight) else 0.0,
    )


def sweep(probabilities: Floats, is_fight: Bools) -> list[Scores]:
    """The scores at every threshold of the grid."""
    return [scores_at(threshold, probabilities, is_fight) for threshold in THRESHOLDS]


def best(scores: list[Scores]) -> Scores:
    """The highest F1; of equals, the one in the middle, which leaves room on both sides."""
    top = max(one.f1 for one in scores)
    equal = [one for one in scores if one.f1 >= top - 1e-9]
    return min(equal, key=lambda one: (abs(one.threshold - np.mean([e.threshold for e in equal])), one.threshold))
