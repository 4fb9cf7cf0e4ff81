"""From window probabilities to a clip's verdict, and the threshold that decides it (SPEC 8)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = tuple(round(0.30 + 0.05 * i, 2) for i in range(9))

_RESAMPLES = 1000

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
Ints = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Scores:
    """Of a set of clips at one threshold, Fight being the positive class; each in [0, 1]."""

    threshold: float
    f1: float
    precision: float
    recall: float
    accuracy: float


def clip_probability(probabilities: Floats, weights: Floats) -> float:
    """Confidence-weighted vote over windows `(W,)`: sum(p c) / sum(c); 0 if no window has any weight, NaN if one is NaN."""
    total = float(np.sum(weights))
    return float(np.sum(probabilities * weights) / total) if total != 0 else 0.0


def confidence(probability: float, threshold: float) -> float:
    """How sure the verdict `probability > threshold` is, in [0.5, 1]: 0.5 at the threshold, 1 where the probability is 0 or 1, and
    linear between; at a threshold of 0.5 the probability of what the verdict says."""
    room = 1 - threshold if probability > threshold else threshold
    return 0.5 + 0.5 * abs(probability - threshold) / room if room else 0.5


@dataclass(frozen=True, slots=True)
class Piece:
    """The vote of the windows of one piece of a long clip, whose frames are `[start_frame, end_frame)` of the video."""

    start_frame: int
    end_frame: int
    probability: float


def pieces(starts: Ints, windows: Ints, probabilities: Floats, weights: Floats) -> list[Piece]:
    """The vote of each piece of a long clip by itself, in order; none of a clip that is one piece.

    `starts` `(P,)` are the pieces' first frames (`records.piece_starts`). Windows `(W, 2)`, frames with the end exclusive, do not
    reach from one piece into the next; probabilities and weights `(W,)` as in `clip_probability`.
    """
    piece = np.searchsorted(starts, windows[:, 0], side="right")
    found = []
    for one in np.unique(piece):
        rows = np.flatnonzero(piece == one)
        probability = clip_probability(probabilities[rows], weights[rows])
        found.append(Piece(int(windows[rows[0], 0]), int(windows[rows, 1].max()), probability))
    return found if len(found) > 1 else []


def confidences(probabilities: Floats, presence: Floats) -> Floats:
    """Weight of each window: how sure it is, max(p, 1 - p), times the share of its frames with somebody in them."""
    return np.maximum(probabilities, 1 - probabilities) * presence


def cross_entropy(probabilities: Floats, is_fight: Bools) -> float:
    """Mean over clips `(N,)` of -log of the probability of what is right, which counts as at least 1e-6."""
    right = np.where(is_fight, probabilities, 1 - probabilities)
    return float(-np.log(np.clip(right, 1e-6, 1)).mean())


def scores_at(threshold: float, probabilities: Floats, is_fight: Bools) -> Scores:
    """F1, precision, recall and accuracy of the verdict `probability > threshold` over clips `(N,)`; 0 where undefined."""
    said = np.asarray(probabilities, float) > threshold
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


def chosen(probabilities: Floats, is_fight: Bools) -> Scores:
    """The scores at the threshold to use: of those whose F1 is not surely lower than the best, the nearest to 0.5.

    Not surely is within one standard error of the difference (the one-standard-error rule of Breiman et al. 1984), by a
    bootstrap over the clips: with few of them the threshold of the best F1 is mostly chance.
    """
    scores = sweep(probabilities, is_fight)
    f1 = np.array([one.f1 for one in scores])
    error = (_resampled_f1(probabilities, is_fight) - f1).T
    error = (error - error[f1.argmax()]).std(axis=1)
    good = np.flatnonzero(f1 >= f1.max() - error - 1e-9)
    return scores[min(good, key=lambda index: (abs(THRESHOLDS[index] - 0.5), index))]


def _resampled_f1(probabilities: Floats, is_fight: Bools) -> Floats:
    """F1 `(R, G)` of R resamples of the clips `(N,)` at the thresholds of the grid."""
    count = len(is_fight)
    if not count:
        return np.zeros((1, len(THRESHOLDS)))
    times = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), _RESAMPLES)
    said = np.asarray(probabilities, float)[:, None] > np.array(THRESHOLDS)
    alarms, fights = times @ said, times @ is_fight
    return np.asarray(2 * (times @ (said & is_fight[:, None])) / np.maximum(alarms + fights[:, None], 1))
