"""Pictures of a training run: loss and F1 over the epochs, and of the validation clips the confusion matrix, the choice of
threshold, precision over recall, ROC and calibration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_ops.records import LABELS
from violence_ops.wording import counted

if TYPE_CHECKING:
    from violence_ops.recognition.train import Trained


def save_all(trained: Trained, folder: Path) -> None:
    """Write `curves.png`, `confusion_matrix.png`, `threshold.png`, `ranking.png` and `calibration.png` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {
        "curves": _curves, "confusion_matrix": _confusion, "threshold": _threshold, "ranking": _ranking, "calibration": _calibration
    }  # fmt: skip
    for name, draw in drawn.items():
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
    axes.set_title(f"{counted(len(said), 'validation clip')}, threshold {trained.threshold}", fontsize=10)
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


def _ranking(trained: Trained) -> Any:
    """Precision over recall, and ROC, of the clips in the order of their probability."""
    fights = trained.val_labels[np.argsort(-trained.val_probabilities, kind="stable")] == 1
    hits, alarms = np.cumsum(fights), np.arange(1, len(fights) + 1)
    recall = hits / max(1, hits[-1])
    false_alarms = (alarms - hits) / max(1, (~fights).sum())
    figure = _figure(8, 3.8)
    precision_recall, roc = figure.subplots(1, 2)
    precision_recall.step(recall, hits / alarms, where="post")
    precision_recall.set(xlabel="recall", ylabel="precision", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    roc.step([0, *false_alarms], [0, *recall], where="post")
    roc.plot([0, 1], [0, 1], color="grey", ls=":")
    roc.set(xlabel="false alarms", ylabel="recall", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    for axes in (precision_recall, roc):
        axes.grid(alpha=0.3)
    return figure


def _calibration(trained: Trained) -> Any:
    """Share of Fights over the mean probability, in tenths; the size of a dot is that of its tenth."""
    bins = np.minimum((trained.val_probabilities * 10).astype(int), 9)
    parts = [np.flatnonzero(bins == number) for number in np.unique(bins)]
    figure = _figure(4.2, 3.8)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", ls=":")
    axes.scatter(
        [trained.val_probabilities[part].mean() for part in parts], [trained.val_labels[part].mean() for part in parts],
        s=[20 + 200 * len(part) / len(bins) for part in parts],
    )  # fmt: skip
    axes.set(xlabel="probability of Fight", ylabel="share of Fights", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    return figure
