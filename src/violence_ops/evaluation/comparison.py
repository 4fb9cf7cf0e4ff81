"""Is the difference between two models on the same clips more than chance?"""

from __future__ import annotations

from math import comb

import numpy as np
from numpy.typing import NDArray

from violence_ops.evaluation.metrics import BoolArray, Floats
from violence_ops.evaluation.records import Interval

_DRAWS_AT_ONCE = 2_000_000
"""Bounds the memory of a bootstrap (16 MB of indices), however many clips and resamples are asked for."""


def mcnemar(labels: BoolArray, candidate: BoolArray, champion: BoolArray) -> tuple[int, int, float]:
    """McNemar's exact test on verdicts `(N,)`.

    Returns the clips that only the candidate has right, those that only the champion has right, and the two-sided
    binomial p-value of so uneven a split (1.0 when the models never differ).
    """
    only_candidate = int(np.sum((candidate == labels) & (champion != labels)))
    only_champion = int(np.sum((candidate != labels) & (champion == labels)))
    discordant = only_candidate + only_champion
    tail = sum(comb(discordant, k) for k in range(min(only_candidate, only_champion) + 1))
    return only_candidate, only_champion, min(1.0, 2 * tail / 2**discordant)


def f1_difference_interval(
    labels: BoolArray,
    candidate: BoolArray,
    champion: BoolArray,
    units: list[str],
    *,
    confidence: float,
    resamples: int,
    seed: int = 0,
) -> Interval:
    """Percentile interval of F1(candidate) − F1(champion) by a paired bootstrap.

    `units` names what is drawn with replacement, clip by clip `(N,)`: source groups (a cluster bootstrap, because clips of
    one group are not independent), or clip ids. Every draw takes both models' verdicts on the same clips. The draws depend
    on the sorted names and the seed alone, so neither the order of the clips nor a verdict changes them.
    """
    differences = f1_differences(labels, candidate, champion, units, resamples=resamples, seed=seed)
    tail = (1 - confidence) / 2
    lower, upper = np.quantile(differences, [tail, 1 - tail])
    return Interval(lower=float(lower), upper=float(upper), units=len(set(units)))


def f1_differences(
    labels: BoolArray, candidate: BoolArray, champion: BoolArray, units: list[str], *, resamples: int, seed: int = 0
) -> Floats:
    """The F1 difference of every resample, `(resamples,)`.

    F1 = 2·TP / (2·TP + FP + FN) needs only TP and (predicted + actual Fights): these are summed per unit once, and a
    resample is then one row of the product `counts of each unit (resamples, U) @ sums (U, 4)`.
    """
    names, unit = np.unique(np.asarray(units, dtype=str), return_inverse=True)
    columns = [labels & candidate, labels.astype(int) + candidate, labels & champion, labels.astype(int) + champion]
    sums = np.stack([np.bincount(unit, weights=column, minlength=len(names)) for column in columns], axis=1)
    generator = np.random.default_rng(seed)
    size = max(1, _DRAWS_AT_ONCE // len(names))
    parts = []
    for start in range(0, resamples, size):
        totals = _draw_counts(generator, min(size, resamples - start), len(names)) @ sums
        parts.append(_f1(totals[:, 0], totals[:, 1]) - _f1(totals[:, 2], totals[:, 3]))
    return np.concatenate(parts)


def _draw_counts(generator: np.random.Generator, rows: int, units: int) -> Floats:
    """How often each unit is drawn in each of `rows` resamples with replacement, `(rows, units)`."""
    drawn = generator.integers(0, units, (rows, units), dtype=np.int64)
    drawn += np.arange(rows, dtype=np.int64)[:, None] * units
    return np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float64)


def _f1(hits: NDArray[np.float64], claims: NDArray[np.float64]) -> Floats:
    """2·TP / (predicted + actual); 0 where there is neither."""
    return np.divide(2 * hits, claims, out=np.zeros_like(hits), where=claims > 0)
