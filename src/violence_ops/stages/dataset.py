"""The assembled dataset, as those read it who train on it or pass it on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired

import pyarrow as pa
import yaml
from typing_extensions import TypedDict

from violence_ops.errors import WorkspaceError
from violence_ops.files import fingerprint, load_table, read_json, sha256_file
from violence_ops.params import WindowParams
from violence_ops.stages.assemble import TABLES, baked_in
from violence_ops.workspace import Workspace


class _Split(TypedDict):
    """What is read of split.json."""

    revision: str
    clips: dict[str, dict[str, int]]
    sha256: dict[str, str]
    labels_version: NotRequired[int]
    persons: NotRequired[int]
    frames_per_second: NotRequired[float | None]


@dataclass(frozen=True, slots=True)
class Dataset:
    """The assembled dataset's tables."""

    workspace: Workspace
    revision: str
    train: pa.Table
    val: pa.Table
    split: dict[str, Any]

    @property
    def folder(self) -> Path:
        return self.workspace.dataset

    @classmethod
    def read(cls, workspace: Workspace, windows: WindowParams | None = None) -> Dataset:
        """The dataset, to be cut into these windows.

        Raises WorkspaceError if there is none, it is damaged, or its skeletons were made with other settings of `windows`.
        """
        path = workspace.dataset / "split.json"
        if not path.is_file():
            raise WorkspaceError(f"{workspace.dataset} holds no dataset: run `violence-ops assemble` first.")
        remedy = "run `violence-ops assemble` again"
        split = read_json(path, remedy, _Split)
        hashes = {name: split["sha256"][name] for name in TABLES}
        if split["revision"] != fingerprint(hashes):
            raise WorkspaceError(f"{path} is damaged (its revision is not that of its tables): {remedy}.")
        for name, expected in hashes.items():
            if not (workspace.dataset / name).is_file() or sha256_file(workspace.dataset / name) != expected:
                raise WorkspaceError(f"{workspace.dataset / name} is not what split.json describes: {remedy}.")
        train, val = (load_table(workspace.dataset / name) for name in ("train.parquet", "val.parquet"))
        dataset = cls(workspace, split["revision"], train, val, split)
        if windows:
            dataset._refuse_other(windows)
        return dataset

    def _refuse_other(self, windows: WindowParams) -> None:
        wanted = baked_in(windows)
        made = {name: self.split.get(name, wanted[name]) for name in wanted}
        if "frames_per_second" not in self.split:
            made["frames_per_second"] = self._rate_of_before(windows.frames_per_second)
        if made != wanted:
            was, asked = (yaml.safe_dump(found, default_flow_style=True).strip() for found in (made, wanted))
            raise WorkspaceError(
                f"{self.folder} was assembled with windows {was}, not {asked}: run `violence-ops assemble` with the same settings."
            )

    def _rate_of_before(self, rate: float | None) -> float | None:
        """What rate the skeletons have, of a dataset whose split.json does not say it: `rate` itself if their steps allow it."""
        fps = dict(zip(*(self.both.column(name).to_pylist() for name in ("clip_id", "fps")), strict=True))
        table = load_table(self.folder / "skeletons.parquet", columns=["clip_id", "step"]).to_pylist()
        clips = [(one["step"], fps[one["clip_id"]]) for one in table]
        if all(step == (fps / rate if rate else int(step)) for step, fps in clips):
            return rate
        rates = {round(fps / step, 3) for step, fps in clips}
        return rates.pop() if len(rates) == 1 else None

    @property
    def both(self) -> pa.Table:
        return pa.concat_tables([self.train, self.val])

    @property
    def labels(self) -> dict[str, str]:
        both = self.both
        return dict(zip(both.column("clip_id").to_pylist(), both.column("label").to_pylist(), strict=True))

    def members(self) -> list[dict[str, Any]]:
        """The clips that were looked at, for the leakage check and for the model's lineage."""
        columns = ["clip_id", "source_group", "perceptual_hash", "batch_id", "label", "label_source"]
        sides = (("train", self.train), ("val", self.val))
        rows = (row | {"side": side} for side, table in sides for row in table.select(columns).to_pylist())
        return sorted(rows, key=lambda row: row["clip_id"])
