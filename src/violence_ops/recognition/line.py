"""`feature_line`: logistic regression on the ranks of hand-made features (`recognition.features`).

Each feature is replaced by its rank among the training windows, as a normal deviate, so that no outlier of a coarse pose weighs
more than its order. Kept as plain arrays; no pickle is read.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, ndtri
from torch import Tensor

from violence_ops.recognition.by_features import ByFeatures
from violence_ops.recognition.model import Settings, load_config
from violence_ops.records import FloatArray

_ARRAYS = ("quantiles", "weights", "bias")


def grow(
    values: FloatArray, labels: Sequence[int], settings: Settings, weights: tuple[float, float], seed: int
) -> dict[str, Tensor]:
    """Fit the line on windows `(N, F)` with labels `(N,)` (1 is Fight); `weights` are those of NonFight and Fight.

    Gives `quantiles` `(Q, F)` of the features, `weights` `(F,)` and `bias` `(1,)`. Nothing is left to chance, so `seed` is not used.
    """
    from sklearn.linear_model import LogisticRegression

    asked = load_config(settings).line
    quantiles = np.quantile(values, np.linspace(0, 1, asked.quantiles), axis=0).astype(np.float32)
    if len(set(labels)) < 2:  # nothing to tell apart: the class that is there
        found, bias = np.zeros(values.shape[1]), np.array([5.0 if labels[0] else -5.0])
    else:
        line = LogisticRegression(C=asked.strength, class_weight={0: weights[0], 1: weights[1]}, max_iter=2000)
        line.fit(_deviates(values, quantiles), np.asarray(labels))
        found, bias = line.coef_[0], line.intercept_
    arrays = (quantiles, found.astype(np.float32), bias.astype(np.float32))
    return {name: torch.from_numpy(array) for name, array in zip(_ARRAYS, arrays, strict=True)}


def _deviates(values: FloatArray, quantiles: FloatArray) -> NDArray[np.float64]:
    """`(N, F)` the normal deviates of the values' ranks among the quantiles `(Q, F)`."""
    below = (values[:, None] > quantiles).mean(axis=1)
    up_to = (values[:, None] >= quantiles).mean(axis=1)
    least = 0.5 / len(quantiles)
    return np.asarray(ndtri(np.clip((below + up_to) / 2, least, 1 - least)))


class Line(ByFeatures):
    """A fitted line that gives the probability of Fight for windows."""

    def __init__(self, settings: Settings, state: dict[str, Tensor]) -> None:
        """Raises ValueError if `state` is not what `grow` gives."""
        if set(state) != set(_ARRAYS) or state["quantiles"].shape[1:] != state["weights"].shape:
            raise ValueError("these are not the arrays of a line")
        self.settings = settings
        self._quantiles, self._weights, self._bias = (state[name].numpy() for name in _ARRAYS)

    def probabilities(self, inputs: Tensor) -> FloatArray:
        """Probability of Fight `(W,)` for features `(W, F)`."""
        deviates = _deviates(inputs.numpy(), self._quantiles)
        return np.asarray(expit(deviates @ self._weights + self._bias[0]), np.float32)
