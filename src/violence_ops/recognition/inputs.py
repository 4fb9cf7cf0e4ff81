"""The windows that a network is trained on, a mini-batch at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from violence_ops.recognition import vectorised
from violence_ops.recognition.dataset import WindowDataset
from violence_ops.recognition.skeleton import Stretch
from violence_ops.records import LABELS


class TrainingWindows(Protocol):
    """N windows with their labels `(N,)`, 1 being Fight."""

    labels: NDArray[np.int64]

    def mini_batch(self, rows: NDArray[np.int64], chance: np.random.Generator) -> Tensor:
        """The network's input for some windows, augmented by `chance`."""


def training_windows(
    stretches: Sequence[Stretch], labels: Mapping[str, str], pipeline: Sequence[Any]
) -> TrainingWindows | None:
    """The stretches through a training pipeline; None if there are none.

    A pipeline that `vectorised` knows runs there, another one in MMAction2, window by window.
    """
    if not stretches:
        return None
    known = vectorised.read(pipeline)
    if known is None:
        return _PerWindow(WindowDataset(stretches=stretches, labels=labels, pipeline=list(pipeline)))
    found = np.array([LABELS.index(labels[skeleton.clip_id]) for skeleton, *_ in stretches])
    return _Together(known, vectorised.gathered([vectorised.piece(*one) for one in stretches]), found)


class _Together:
    """All windows in one array, a mini-batch augmented at once."""

    def __init__(self, pipeline: vectorised.Vectorised, found: vectorised.Sight, labels: NDArray[np.int64]) -> None:
        self._pipeline, self.labels = pipeline, labels
        self._windows = pipeline.prepare(found)

    def mini_batch(self, rows: NDArray[np.int64], chance: np.random.Generator) -> Tensor:
        return torch.from_numpy(self._pipeline.inputs(self._windows[rows], chance))


class _PerWindow:
    """MMAction2's own dataset; its transforms draw from NumPy's global generator, which is seeded from `chance`."""

    def __init__(self, data: WindowDataset) -> None:
        self._data = data
        self.labels = np.array([data.get_data_info(i)["label"] for i in range(len(data))])

    def mini_batch(self, rows: NDArray[np.int64], chance: np.random.Generator) -> Tensor:
        np.random.seed(chance.integers(2**31))
        return torch.stack([self._data[int(row)]["inputs"] for row in rows])
