"""`feature_forest`: a random forest on hand-made features (`recognition.features`), kept as plain arrays.

It is grown by scikit-learn and judged by NumPy, so that a package of it is safetensors like any other and no pickle is read.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from violence_ops.recognition.by_features import ByFeatures
from violence_ops.recognition.model import Settings, load_config
from violence_ops.records import FloatArray

_ARRAYS = ("roots", "feature", "threshold", "left", "right", "share")


def grow(
    values: FloatArray, labels: Sequence[int], settings: Settings, weights: tuple[float, float], seed: int
) -> dict[str, Tensor]:
    """Grow a forest on windows `(N, F)` with labels `(N,)` (1 is Fight); `weights` are those of NonFight and Fight.

    Its nodes are numbered through: `roots` `(trees,)`; of every node `feature` (-1: a leaf), `threshold`, `left` and `right`
    child, and the `share` of Fight.
    """
    from sklearn.ensemble import RandomForestClassifier

    asked = load_config(settings).forest
    forest = RandomForestClassifier(
        n_estimators=asked.trees, min_samples_leaf=asked.min_samples_leaf, max_features=asked.max_features,
        class_weight={0: weights[0], 1: weights[1]}, random_state=seed,
    )  # fmt: skip
    forest.fit(values, np.asarray(labels))
    trees = [tree.tree_ for tree in forest.estimators_]
    roots = np.cumsum([0, *(tree.node_count for tree in trees)])[:-1]
    fights = list(forest.classes_).index(1) if 1 in forest.classes_ else None
    parts: dict[str, list[NDArray]] = {name: [] for name in _ARRAYS[1:]}
    for root, tree in zip(roots, trees, strict=True):
        leaf = tree.children_left < 0
        parts["feature"].append(np.where(leaf, -1, tree.feature).astype(np.int32))
        parts["threshold"].append(tree.threshold)
        parts["left"].append(np.where(leaf, 0, tree.children_left + root).astype(np.int32))
        parts["right"].append(np.where(leaf, 0, tree.children_right + root).astype(np.int32))
        counts = tree.value[:, 0]
        share = np.zeros(len(counts)) if fights is None else counts[:, fights] / counts.sum(axis=1)
        parts["share"].append(share.astype(np.float32))
    arrays = {"roots": roots.astype(np.int32)} | {name: np.concatenate(some) for name, some in parts.items()}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


class Forest(ByFeatures):
    """A grown forest that gives the probability of Fight for windows."""

    def __init__(self, settings: Settings, state: dict[str, Tensor]) -> None:
        """Raises ValueError if `state` is not what `grow` gives."""
        if set(state) != set(_ARRAYS):
            raise ValueError("these are not the arrays of a forest")
        self.settings = settings
        self._of = {name: value.numpy() for name, value in state.items()}
        self._depth = self._deepest()

    def probabilities(self, inputs: Tensor) -> FloatArray:
        """Probability of Fight `(W,)`: the mean over the trees of the share of Fight in the leaf that a window falls into."""
        values, of = inputs.numpy(), self._of
        node = np.repeat(of["roots"][None], len(values), axis=0)
        rows = np.arange(len(values))[:, None]
        for _ in range(self._depth):
            feature = of["feature"][node]
            goes_left = values[rows, feature] <= of["threshold"][node]
            node = np.where(feature < 0, node, np.where(goes_left, of["left"][node], of["right"][node]))
        return np.asarray(of["share"][node].mean(axis=1), np.float32)

    def _deepest(self) -> int:
        """How many questions the deepest leaf is away from its root. Raises ValueError if a child is not after its parent."""
        of = self._of
        inner = np.flatnonzero(of["feature"] >= 0)
        children = np.stack([of["left"][inner], of["right"][inner]])
        if (children <= inner).any() or (children >= len(of["feature"])).any():
            raise ValueError("the arrays of the forest are damaged")
        depth = np.zeros(len(of["feature"]), int)
        for at, (left, right) in zip(inner, children.T, strict=True):
            depth[left] = depth[right] = depth[at] + 1
        return int(depth.max(initial=0))
