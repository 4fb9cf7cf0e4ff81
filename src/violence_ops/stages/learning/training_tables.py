"""What a training's MLflow run shows beside its curves: tables of the validation clips, and the environment."""

from __future__ import annotations

import csv
import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from violence_ops.files import spreadsheet_row
from violence_ops.records import LABELS

if TYPE_CHECKING:
    from violence_ops.recognition.train import Trained

_SLICES: Final = ("camera_id", "batch_id", "resolution", "label")


def write(folder: Path, trained: Trained, val: pa.Table) -> dict[str, float]:
    """Write `tables/` and `environment/` of a run; returns the figures of the kept epoch that no epoch has: AUC, ECE, Brier.

    `val` is the dataset's table of the validation clips. All is about them: they chose epoch and threshold, so it flatters.
    """
    from violence_ops.evaluation.metrics import calibration, metrics, threshold_curve

    tables = folder / "tables"
    tables.mkdir()
    fights = trained.val_labels == 1
    probabilities = trained.val_probabilities.astype(np.float64)
    said = probabilities > trained.threshold
    known = {row["clip_id"]: row for row in val.to_pylist()}
    clips = [
        _clip(known[name], bool(label), float(probability), bool(verdict))
        for name, label, probability, verdict in zip(trained.val_clips, fights, probabilities, said, strict=True)
    ]
    _write(tables / "threshold_sweep.csv", [asdict(scores) for scores in trained.sweep])
    _write(tables / "threshold_curve.csv", [asdict(point) for point in threshold_curve(fights, probabilities)])
    _write(tables / "calibration.csv", [asdict(part) for part in calibration(fights, probabilities)])
    _write(tables / "validation.csv", clips)
    _write(tables / "slices.csv", _slices(clips))
    wrong = [
        clip | {"overlay": f"violence-ops overlay {clip['clip_id']}"} for clip in clips if clip["kind"] != "correct"
    ]
    _write(tables / "failures.csv", sorted(wrong, key=lambda clip: -clip["confidence"]))
    (folder / "environment").mkdir()
    (folder / "environment" / "requirements.txt").write_text(_environment(), "utf-8")
    found = metrics(fights, probabilities, said)
    return {"val_ece": found.ece, "val_brier": found.brier} | ({} if found.auc is None else {"val_auc": found.auc})


def _clip(row: Mapping[str, Any], fight: bool, probability: float, said: bool) -> dict[str, Any]:
    from violence_ops.evaluation.failures import kind_of
    from violence_ops.evaluation.judgement import prediction

    found = prediction(probability, LABELS[said])
    return {
        "clip_id": row["clip_id"], "label": row["label"], "verdict": found.verdict, "kind": kind_of(LABELS[fight], found),
        "probability": round(probability, 6), "confidence": round(found.confidence, 6),
        "source_group": row["source_group"], "batch_id": row["batch_id"], "camera_id": row["camera_id"] or "unknown",
        "resolution": f"{row['width']}x{row['height']}",
    }  # fmt: skip


def _slices(clips: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How many clips of every slice are judged rightly."""
    parts: dict[tuple[str, str], list[str]] = defaultdict(list)
    for clip in clips:
        for name in _SLICES:
            parts[name, str(clip[name])].append(clip["kind"])
    return [
        {"slice": name, "value": value, "clips": len(kinds), "accuracy": round(kinds.count("correct") / len(kinds), 4)}
        | {f"{kind.replace(' ', '_')}s": kinds.count(kind) for kind in ("false negative", "false positive")}
        for (name, value), kinds in sorted(parts.items())
    ]


def _environment() -> str:
    """Every installed package, pinned, for `pip install -r`."""
    names = {f"{one.metadata['Name'].lower()}=={one.version}" for one in distributions() if one.metadata["Name"]}
    return "\n".join([f"# Python {platform.python_version()}, {platform.platform()}", *sorted(names)]) + "\n"


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]) if rows else ["clip_id"], lineterminator="\n")
        table.writeheader()
        table.writerows(map(spreadsheet_row, rows))
