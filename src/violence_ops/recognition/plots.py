"""Pictures of a training run: loss and F1 over the epochs, the confusion matrix, and the choice of threshold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_ops.records import LABELS

if TYPE_CHECKING:
    from violence_ops.recognition.train import Trained


def save_all(trained: Trained, folder: Path) -> None:
    """Write `curves.png`, `confusion_matrix.png` and `threshold.png` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in (("curves", _curves), ("confusion_matrix", _confusion), ("threshold", _threshold)):
        figure = draw(trained)
        figure.savefig(folder / f"{name}.png", dpi=110, metadata={"Software": None})


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _curves(trained: Trained) -> Any:
    figure = _figure(9, 3.6)
    losses, scores = figure.subplots(1, 2)
    epochs = [epoch.epoch for epoch in trained.history]
    losses.plot(epochs, [epoch.train_loss for epoch in trained.history], label="training windows", marker=".")
    losses.plot(epochs, [epoch.val_loss for epoch in trained.history], label="validation clips", marker=".")
    losses.set(xlabel="epoch", ylabel="cross-entropy")
    for name in ("f1", "precision", "recall"):
        values = [getattr(epoch.val, name) for epoch in trained.history]
        scores.plot(epochs, values, label=f"validation {name}", marker=".", lw=2 if name == "f1" else 1)
    scores.set(xlabel="epoch", ylim=(-0.02, 1.02))
    for axes in (losses, scores):
        axes.axvline(trained.best_epoch, color="grey", ls=":", label="kept")
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    return figure


def _confusion(trained: Trained) -> Any:
    said = (trained.val_probabilities > trained.threshold).astype(int)
    counts = np.zeros((2, 2), int)
    np.add.at(counts, (trained.val_labels, said), 1)
    figure = _figure(4.2, 3.8)
    axes = figure.subplots()
    axes.imshow(counts, cmap="Blues", vmin=0)
    for (row, column), count in np.ndenumerate(counts):
        axes.text(
            column, row, str(count), ha="center", va="center", color="white" if count > counts.max() / 2 else "black"
        )
    axes.set(xticks=(0, 1), yticks=(0, 1), xticklabels=LABELS, yticklabels=LABELS, xlabel="verdict", ylabel="label")
    axes.set_title(f"{len(said)} validation clips, threshold {trained.threshold}", fontsize=10)
    return figure


def _threshold(trained: Trained) -> Any:
    figure = _figure(5.2, 3.6)
    axes = figure.subplots()
    for name in ("f1", "precision", "recall"):
        values = [getattr(scores, name) for scores in trained.sweep]
        axes.plot(
            [scores.threshold for scores in trained.sweep], values, marker=".", label=name, lw=2 if name == "f1" else 1
        )
    axes.axvline(trained.threshold, color="grey", ls=":", label="chosen")
    axes.set(xlabel="threshold", ylim=(-0.02, 1.02))
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return figure
