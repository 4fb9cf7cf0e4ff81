"""The assembled dataset, as those read it who train on it or pass it on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NotRequired

import pyarrow as pa
from typing_extensions import TypedDict

from violence_ops.errors import WorkspaceError
from violence_ops.files import fingerprint, load_table, read_json, sha256_file
from violence_ops.params import Params
from violence_ops.stages.learning.assemble import TABLES, baked_in
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    from violence_ops.recognition.skeleton import Skeleton

_REMEDY: Final = "run `violence-ops assemble` again"


class _Split(TypedDict):
    """What is read of split.json."""

    revision: str
    clips: dict[str, dict[str, int]]
    sha256: dict[str, str]
    labels_version: NotRequired[int]
    persons: NotRequired[int]
    frames_per_second: NotRequired[float | None]
    validation_share: NotRequired[float]
    near_duplicate_bits: NotRequired[int]
    seed: NotRequired[int]


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
    def read(cls, workspace: Workspace, params: Params | None = None) -> Dataset:
        """The dataset, for a training with these settings.

        Raises WorkspaceError if there is none, it is damaged, or it was assembled with other settings.
        """
        path = workspace.dataset / "split.json"
        if not path.is_file():
            raise WorkspaceError(f"{workspace.dataset} holds no dataset: run `violence-ops assemble` first.")
        split = read_json(path, _REMEDY, _Split)
        hashes = {name: split["sha256"][name] for name in TABLES}
        if split["revision"] != fingerprint(hashes):
            raise WorkspaceError(f"{path} is damaged (its revision is not that of its tables): {_REMEDY}.")
        for name, expected in hashes.items():
            if not (workspace.dataset / name).is_file() or sha256_file(workspace.dataset / name) != expected:
                raise WorkspaceError(f"{workspace.dataset / name} is not what split.json describes: {_REMEDY}.")
        train, val = (load_table(workspace.dataset / name) for name in ("train.parquet", "val.parquet"))
        dataset = cls(workspace, split["revision"], train, val, split)
        if params:
            dataset._refuse_other(params)
        return dataset

    def is_there_still(self) -> bool:
        """Whether no other dataset was assembled since this one was read."""
        path = self.folder / "split.json"
        return path.is_file() and bool(read_json(path, _REMEDY, _Split)["revision"] == self.revision)

    def skeletons(self) -> dict[str, Skeleton]:
        """The skeletons of its clips. Raises WorkspaceError if they are not those that split.json named when it was read."""
        from violence_ops.recognition.skeleton import read_table

        path = self.folder / "skeletons.parquet"
        found = read_table(load_table(path))
        if sha256_file(path) != self.split["sha256"][path.name]:
            raise WorkspaceError(f"{self.folder} was assembled anew meanwhile: run this again.")
        return found

    def _refuse_other(self, params: Params) -> None:
        """Raise WorkspaceError if it was made with other settings; an old split.json does not name them all."""
        wanted = baked_in(params)
        made = {name: self.split.get(name.rpartition(".")[2], value) for name, value in wanted.items()}
        if "frames_per_second" not in self.split:
            made["windows.frames_per_second"] = self._rate_of_before(params.windows.frames_per_second)
        if others := [name for name, value in wanted.items() if made[name] != value]:
            was, asked = (", ".join(f"{name}={found[name]}" for name in others) for found in (made, wanted))
            raise WorkspaceError(
                f"{self.folder} was assembled with {was}, not {asked}: run `violence-ops assemble` with the same settings."
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
