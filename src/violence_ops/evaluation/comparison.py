"""Is the difference between two models on the same clips more than chance?"""

from __future__ import annotations

from math import comb

import numpy as np
from numpy.typing import NDArray

from violence_ops.evaluation.metrics import BoolArray, Floats
from violence_ops.evaluation.records import Interval

_DRAWS_AT_ONCE = 200_000
"""Keeps what is drawn at once in the processor's cache, and bounds memory however many clips and resamples are asked for."""


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
    """Expanded percentile interval of F1(candidate) − F1(champion) by a paired bootstrap.

    `units` names what is drawn with replacement, clip by clip `(N,)`: source groups (a cluster bootstrap, because clips of
    one group are not independent), or clip ids. Every draw takes both models' verdicts on the same clips. The draws depend
    on the sorted names and the seed alone, so neither the order of the clips nor a verdict changes them.
    """
    differences = f1_differences(labels, candidate, champion, units, resamples=resamples, seed=seed)
    tail = _tail((1 - confidence) / 2, len(set(units)))
    lower, upper = np.quantile(differences, [tail, 1 - tail])
    return Interval(lower=float(lower), upper=float(upper), units=len(set(units)))


def _tail(tail: float, units: int) -> float:
    """The share of resamples beyond each end of an interval that leaves out `tail` of the truth there.

    Resamples of few units spread too little, as a sample's own deviation does, and a normal quantile forgets that it is
    estimated: Φ(−√(n / (n − 1)) · t), t of n − 1 degrees of freedom (Hesterberg 2015, "What Teachers Should Know About the
    Bootstrap", 5.3).
    """
    from scipy.stats import norm, t

    return float(norm.cdf(-np.sqrt(units / (units - 1)) * t.ppf(1 - tail, units - 1))) if units > 1 else 0.0


def f1_differences(
    labels: BoolArray, candidate: BoolArray, champion: BoolArray, units: list[str], *, resamples: int, seed: int = 0
) -> Floats:
    """The F1 difference of every resample, `(resamples,)`.

    F1 = 2·TP / (predicted + actual Fights), so a resample needs two sums per model over the units it draws. Both are packed
    into one integer per unit, which halves the gathering that takes most of the time.
    """
    names, unit = np.unique(np.asarray(units, dtype=str), return_inverse=True)
    packed = [_packed(labels, verdicts, unit, len(names)) for verdicts in (candidate, champion)]
    generator = np.random.default_rng(seed)
    size = max(1, _DRAWS_AT_ONCE // len(names))
    parts = []
    for start in range(0, resamples, size):
        drawn = generator.integers(0, len(names), (min(size, resamples - start), len(names)), dtype=np.int32)
        own, other = (_f1(sums[drawn].sum(axis=1)) for sums in packed)
        parts.append(own - other)
    return np.concatenate(parts)


def _packed(labels: BoolArray, verdicts: BoolArray, unit: NDArray[np.intp], units: int) -> NDArray[np.int64]:
    """TP (low 32 bits) and predicted + actual Fights (high 32 bits) of each unit, `(units,)`."""
    hits = np.bincount(unit[labels & verdicts], minlength=units)
    claims = np.bincount(unit[labels], minlength=units) + np.bincount(unit[verdicts], minlength=units)
    return hits + (claims << 32)


def _f1(packed: NDArray[np.int64]) -> Floats:
    """2·TP / (predicted + actual); 0 where there is neither."""
    hits, claims = packed & 0xFFFFFFFF, packed >> 32
    return np.divide(2 * hits, claims, out=np.zeros(len(packed)), where=claims > 0)
