"""Where clips have left traces: in models, evaluations, holdouts and the dataset. Read by lineage and by forgetting."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_ops.files import load_table
from violence_ops.stages.learning.assemble import TABLES
from violence_ops.store import trained_on
from violence_ops.store.releases import CANDIDATE, CHAMPION, open_registry
from violence_ops.workspace import Workspace, version_order

if TYPE_CHECKING:
    from violence_ops.evaluation.records import Evaluation, JudgedClip

_Use = tuple[str, tuple[dict[str, Any], ...]]
"""The revision of a dataset, and its rows of the clips that are asked for."""


@dataclass(frozen=True, slots=True)
class ModelUse:
    """A version, and those of the clips that it was trained or tuned on; rows as `training.json` has them."""

    version: str
    dataset_revision: str
    aliases: tuple[str, ...]
    clips: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Traces:
    """What knows the clips: models, models that do not say what they were trained on, evaluations that judged on them,
    holdout versions, and the revision of the present dataset."""

    models: tuple[ModelUse, ...]
    silent_models: tuple[str, ...]
    evaluations: tuple[str, ...]
    holdouts: tuple[str, ...]
    dataset: str | None

    @property
    def dataset_revisions(self) -> tuple[str, ...]:
        """Every known dataset with a clip in it: what models were trained on, and the present one."""
        found = {model.dataset_revision for model in self.models} | ({self.dataset} if self.dataset else set())
        return tuple(sorted(found))

    @property
    def judged(self) -> tuple[str, ...]:
        """The models that were judged on a clip, as candidate or as champion."""
        sides = {version for name in self.evaluations for version in name.split("-vs-")}
        return tuple(sorted(sides - {"none"}, key=int))


def find(workspace: Workspace, clip_ids: Collection[str]) -> Traces:
    """The traces of these clips. Models of one dataset are looked up once. Raises ServiceUnavailable if MLflow cannot be reached."""
    wanted = set(clip_ids)
    models, silent = _models(workspace, wanted)
    return Traces(
        models, silent, _evaluations(workspace, wanted), holdouts_with(workspace, wanted), _dataset(workspace, wanted)
    )


def aliases(workspace: Workspace) -> dict[str, tuple[str, ...]]:
    """The aliases of each version that has one."""
    registry = open_registry(workspace)
    found: dict[str, tuple[str, ...]] = {}
    for name in (CHAMPION, CANDIDATE):
        if version := registry.alias(name):
            found[version] = (*found.get(version, ()), name)
    return found


def holdouts_with(workspace: Workspace, clip_ids: Collection[str]) -> tuple[str, ...]:
    """The holdout versions that hold one of the clips, oldest first."""
    names = workspace.holdout_versions()
    return tuple(name for name in names if _found(workspace.holdout(name) / "clips.parquet", clip_ids))


def _models(workspace: Workspace, wanted: set[str]) -> tuple[tuple[ModelUse, ...], tuple[str, ...]]:
    by_dataset: dict[str, _Use] = {}
    named = aliases(workspace)
    models, silent = [], []
    for one in open_registry(workspace).versions():
        # a version that was not trained here has no such tag
        key = one.tags.get("dataset_revision") or f"version {one.version}"
        use = by_dataset.get(key) or _use(workspace, one.version, wanted)
        if use is None:
            silent.append(one.version)
            continue
        by_dataset[key] = use
        revision, rows = use
        if rows:
            models.append(ModelUse(one.version, revision, named.get(one.version, ()), rows))
    return tuple(models), tuple(silent)


def _use(workspace: Workspace, version: str, wanted: set[str]) -> _Use | None:
    """What a version was trained on of these clips: of thousands, only they stay in memory. None if it does not say."""
    record = trained_on.find_kept(workspace, version)
    if record is None:
        return None
    return record["dataset_revision"], tuple(row for row in record["clips"] if row["clip_id"] in wanted)


def _evaluations(workspace: Workspace, wanted: set[str]) -> tuple[str, ...]:
    return tuple(one.name for one in workspace.report_folders() if names_one_of(one.evaluation, wanted))


def newest_evaluation(workspace: Workspace, clip_id: str) -> tuple[Evaluation, JudgedClip] | None:
    """The evaluation of the newest candidate that was judged on a clip, with what was made of it; None if no candidate was.

    Raises WorkspaceError if an evaluation that names the clip is not readable.
    """
    from violence_ops.stages.releasing import reports

    names = _evaluations(workspace, {clip_id})
    for name in sorted(names, key=lambda name: version_order(name.replace("none", "0")), reverse=True):
        evaluation = reports.read(workspace.report(name)).evaluation
        # its data checks may name a clip that it was not judged on
        for judged in evaluation.clips:
            if judged.clip_id == clip_id:
                return evaluation, judged
    return None


def pages_with(workspace: Workspace, clip_id: str) -> tuple[str, ...]:
    """The evaluations whose page names a clip: one that was judged on it, or lists it among its shadow nights."""
    return tuple(one.name for one in workspace.report_folders() if names_one_of(one.page, [clip_id]))


def names_one_of(path: Path, clip_ids: Collection[str]) -> bool:
    """Whether a file is there and an id of the clips is in its bytes: to read thousands of figures for it would be slow."""
    content = path.read_bytes() if path.is_file() else b""
    return any(clip_id.encode() in content for clip_id in clip_ids)


def in_dataset(workspace: Workspace, clip_ids: Collection[str]) -> set[str]:
    """Those of the clips that the present dataset has rows of. Raises WorkspaceError if a table of it is damaged."""
    tables = (workspace.dataset / name for name in TABLES)
    return {clip_id for table in tables if table.is_file() for clip_id in _found(table, clip_ids)}


def _dataset(workspace: Workspace, wanted: set[str]) -> str | None:
    if not in_dataset(workspace, wanted):
        return None
    return str(workspace.read_progress("assemble").get("revision", "unfinished"))


def _found(table: Path, clip_ids: Collection[str]) -> set[str]:
    if not clip_ids:  # pyarrow takes an empty list for one of another type than the column
        return set()
    rows = load_table(table, columns=["clip_id"], filters=[("clip_id", "in", list(clip_ids))])
    return set(rows.column("clip_id").to_pylist())
