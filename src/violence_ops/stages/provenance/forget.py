"""Forgetting: remove a person's clip from everything that this workspace keeps, and leave a tombstone that refuses it.

The steps run in an order in which a kill leaves nothing that a second run would not finish: first the tombstone, so that the
clip cannot come in again; then the files; then versions and stores; last what tells where the clip was. Each can be repeated.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from violence_ops import drop_folder, git, versioning_erase
from violence_ops.catalog import CatalogClip
from violence_ops.errors import ServiceUnavailable, UsageError, UserError, WorkspaceError
from violence_ops.files import open_table
from violence_ops.folders import Batch, ReportFolder, check_clip_id
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params
from violence_ops.stages.labelling import review
from violence_ops.stages.learning import assemble
from violence_ops.stages.nightly import retry
from violence_ops.stages.provenance import half_taken, holdout_without, lineage, traces
from violence_ops.stages.releasing import reports
from violence_ops.store import batches, clip_names, labels_file, quarantine, rewrite, tombstones
from violence_ops.store.batches import Progress
from violence_ops.store.index import open_catalog
from violence_ops.who import explained, named
from violence_ops.wording import printable
from violence_ops.workspace import Workspace

_REMAINS: Final = (
    "git's history: pointers (hashes) of older versions, lines of data/labels.csv, and reviews and evaluations that name the clip",
    "MLflow: the models, the list of clip ids that each was trained on, and evaluations that name the clip",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetResult(Jsonable):
    """What was (or with `dry_run` would be) removed, which models were trained on the clip, and what could not be removed."""

    clip_id: str
    batch_id: str | None
    models: tuple[str, ...]
    silent_models: tuple[str, ...]
    removed: dict[str, Any]
    notices: tuple[str, ...]
    left: tuple[str, ...]
    dry_run: bool
    remains: tuple[str, ...] = field(default=_REMAINS)

    def lines(self) -> list[str]:
        """For people."""
        done = "would be forgotten" if self.dry_run else "is forgotten"
        models, silent = ", ".join(self.models) or "none", ", ".join(self.silent_models)
        return [
            f"Clip {self.clip_id} of {f'batch {self.batch_id}' if self.batch_id else 'no batch'} {done}.",
            *(f"  {name:<20} {_shown(value)}" for name, value in self.removed.items()),
            f"Models trained on it: {models}" + (" (train again without it)" if self.models else ""),
            *([f"Models that do not say what they were trained on: {silent}"] if silent else []),
            *self.notices,
            *(f"Not removed: {sentence}" for sentence in self.left),
            *(f"Stays: {sentence}." for sentence in self.remains),
        ]


def run(
    workspace: Workspace,
    params: Params,
    clip_id: str,
    *,
    by: str | None = None,
    reason: str | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> ForgetResult:
    """Forget a clip, in the name of `by`, for a `reason` that must not tell who is in it. `dry_run` only says what would go.

    A second run finishes what a killed one began, and keeps its tombstone. Raises UsageError for an unknown clip or if `by`
    or `reason` is missing, WorkspaceError, forgetting nothing, if git is on no branch, ServiceUnavailable if the catalog, MLflow
    or the DVC remote cannot be reached.
    """
    with workspace.lock("forget"):
        stone = tombstones.find(workspace, check_clip_id(clip_id))
        if dry_run:
            stone = stone or _plan(workspace, clip_id)
            return _result(stone, _inventory(workspace, stone), (), (), dry_run=True)
        git.check_branch(workspace)
        if stone is None:
            by = named(by)
            reason = explained(reason, "Say why the clip is forgotten: pass --reason TEXT.")
            said = {"by": printable(by), "reason": printable(reason), "at": _now(), "done": False}
            stone = _plan(workspace, clip_id) | said
        return _Forgetting(workspace, params, stone).run(progress)


@dataclass(slots=True)
class _Forgetting:
    """One run, and what it has removed so far."""

    workspace: Workspace
    params: Params
    stone: dict[str, Any]
    removed: dict[str, Any] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    left: tuple[str, ...] = ()

    def run(self, progress: Progress | None) -> ForgetResult:
        for done, step in enumerate(STEPS, start=1):
            step(self)
            if progress:
                progress(step.__name__.replace("_", " "), done, len(STEPS))
        return _result(self.stone, self.removed, tuple(self.notices), self.left, dry_run=False)

    @property
    def clip_id(self) -> str:
        return str(self.stone["clip_id"])

    @property
    def batch(self) -> Batch | None:
        return self.workspace.batch(self.stone["batch_id"]) if self.stone["batch_id"] else None

    def tombstone(self) -> None:
        self._write_stone(f"Clip {self.clip_id} is to be forgotten")

    def unfinished_ingestion(self) -> None:
        """What a killed run left in its claim. A run under way is waited for; it may have put the clip into a batch."""
        if count := half_taken.forget(self.workspace, self.clip_id):
            self.removed["claimed files"] = count
        known = _known(self.workspace, self.clip_id)
        if known and known.batch_id and not self.stone["batch_id"]:
            sha256 = _sha256(self.workspace, self.clip_id, known.batch_id)
            self.stone |= {"batch_id": known.batch_id, "sha256": sha256}

    def batch_rows(self) -> None:
        """Rows and files of its batch; the lock keeps the batch from being sealed, and stages from writing, meanwhile."""
        if self.batch:
            with batches.locked(self.workspace, self.batch):
                shutil.rmtree(self.workspace.sealing(self.batch.batch_id), ignore_errors=True)
                self.removed |= rewrite.open_without(self.batch, self.clip_id)
                self.removed |= rewrite.sealed_without(self.batch, self.clip_id)

    def batch_version(self) -> None:
        if self.batch and self.batch.is_sealed:
            name = self.batch.batch_id
            message = f"Batch {name} without clip {self.clip_id}"
            versioning_erase.replace(self.workspace, self.batch.sealed, message, f"batch/{name}")

    def holdouts(self) -> None:
        with self.workspace.lock("holdout"):
            replaced = holdout_without.replace(self.workspace, self.clip_id)
        if replaced:
            self.removed["holdouts"] = [f"{old} -> {replaced.version or 'none left'}" for old in replaced.old]
            self.notices += replaced.notices

    def loose_files(self) -> None:
        """Quarantine, overlays, labels, pictures in reports, and what the cache knows of the clip."""
        with self.workspace.lock("shadow"):  # one under way is about to write what it has read
            found = _loose(self.workspace, self.clip_id)
            for path in found:
                _remove(self.workspace, path)
        shutil.rmtree(self.workspace.drift_references, ignore_errors=True)
        for name in sorted({*self.stone["evaluations"], *traces.pages_with(self.workspace, self.clip_id)}):
            self._draw_again(self.workspace.report(name))
        if found:
            self.removed["files"] = [str(path.relative_to(self.workspace.root)) for path in found]
        if count := labels_file.forget(self.workspace, self.clip_id):
            self.removed["labels"] = count
        if self.workspace.labels_file.is_file():
            git.commit(self.workspace, [self.workspace.labels_file], f"Labels without clip {self.clip_id}")

    def reviews(self) -> None:
        """What was asked of people about it."""
        if found := review.forget(self.workspace, self.clip_id):
            self.removed["reviews"] = [path.stem for path in found]
        if self.workspace.reviews.is_dir():
            git.commit(self.workspace, [self.workspace.reviews], f"Reviews without clip {self.clip_id}")

    def _draw_again(self, files: ReportFolder) -> None:
        """Make the page of an evaluation without the clip's picture, and without it among shadow nights; none if that fails."""
        if not files.page.is_file():
            return
        try:
            reports.write_page(self.workspace, files, reports.read(files).evaluation, self.params)
        except WorkspaceError as error:
            files.page.unlink()
            self.notices.append(
                f"reports/{files.name}/{files.page.name} cannot be made without the clip and was removed: {error}"
            )

    def dataset(self) -> None:
        """The next dataset; if none can be made without the clip, there is none."""
        with assemble.locked(self.workspace):  # one under way may have read the clip
            if not traces.in_dataset(self.workspace, [self.clip_id]):
                return
            before = self.workspace.read_progress("assemble").get("revision", "unfinished")
            try:
                now = assemble.make(self.workspace, self.params).revision[:12]
            except ServiceUnavailable:  # says nothing of the dataset
                raise
            except UserError as error:
                shutil.rmtree(self.workspace.dataset)
                now = "none"
                self.notices.append(f"No dataset can be made without the clip: {error}")
            self.removed["dataset"] = f"{str(before)[:12]} -> {now}"

    def stored_versions(self) -> None:
        """What only versions with the clip need, in DVC's cache and the default remote."""
        pointers = {"dvc.lock", *(f"data/holdout/{name}.dvc" for name in self.stone["holdouts"])}
        pointers |= {f"data/batches/{self.stone['batch_id']}.dvc"}
        erased = versioning_erase.erase(self.workspace, pointers, _holds(self.clip_id))
        self.removed["stored versions"] = erased.versions
        self.removed["stored objects"] = erased.objects
        self.left = erased.left
        if self.batch and self.batch.is_sealed and not (erased.versions or erased.left or self.stone["done"]):
            self.notices.append(
                f"No stored version of batch {self.batch.batch_id} held the clip: an earlier run of `forget` erased it, or nobody had "
                "versioned it yet."
            )

    def catalog_row(self) -> None:
        with open_catalog(self.workspace) as catalog:
            catalog.forget(self.clip_id)

    def done(self) -> None:
        self.stone |= {"done": not self.left}
        self._write_stone(f"Clip {self.clip_id} is forgotten")

    def _write_stone(self, message: str) -> None:
        tombstones.write(self.workspace, self.stone)
        git.commit(self.workspace, [self.workspace.tombstone(self.clip_id)], message)


STEPS: Final = (
    _Forgetting.tombstone,
    _Forgetting.unfinished_ingestion,
    _Forgetting.batch_rows,
    _Forgetting.batch_version,
    _Forgetting.holdouts,
    _Forgetting.loose_files,
    _Forgetting.reviews,
    _Forgetting.dataset,
    _Forgetting.stored_versions,
    _Forgetting.catalog_row,
    _Forgetting.done,
)
"""In this order."""


def _plan(workspace: Workspace, clip_id: str) -> dict[str, Any]:
    """The tombstone without who and why. Raises UsageError if the workspace does not know the clip."""
    known = _known(workspace, clip_id)
    if known is None:
        raise UsageError(f"No clip {clip_id} in this workspace: {clip_names.WAYS}.")
    found = traces.find(workspace, [clip_id])
    return {
        "clip_id": clip_id, "sha256": _sha256(workspace, clip_id, known.batch_id), "batch_id": known.batch_id,
        "models": [model.version for model in found.models], "silent_models": list(found.silent_models),
        "dataset_revisions": list(found.dataset_revisions), "holdouts": list(found.holdouts),
        "evaluations": list(found.evaluations),
    }  # fmt: skip


def _known(workspace: Workspace, clip_id: str) -> CatalogClip | None:
    with open_catalog(workspace) as catalog:
        return catalog.find([clip_id]).get(clip_id)


def _sha256(workspace: Workspace, clip_id: str, batch_id: str | None) -> str | None:
    if batch_id and (batch := workspace.batch(batch_id)).manifest.is_file():  # else a killed run was about to make it
        clips = batches.read_clips(batch) if batch.is_sealed else batches.read_manifest(batch).clips
        return next((clip.sha256 for clip in clips if clip.clip_id == clip_id), None)
    refused = quarantine.read(workspace.quarantined(clip_id))
    return refused["sha256"] if refused else None


def _inventory(workspace: Workspace, stone: dict[str, Any]) -> dict[str, Any]:
    """What a run would remove."""
    batch = workspace.batch(stone["batch_id"]) if stone["batch_id"] else None
    rows = lineage.rows_of(batch, [stone["clip_id"]]) if batch else {}
    loose = _loose(workspace, stone["clip_id"])
    found = {
        "claimed files": half_taken.count(workspace, stone["clip_id"]),
        "rows": rows,
        "holdouts": list(traces.holdouts_with(workspace, [stone["clip_id"]])),
        "datasets": stone["dataset_revisions"],
        "files": [str(path.relative_to(workspace.root)) for path in loose],
        "reviews": [path.stem for path in review.that_asked_about(workspace, stone["clip_id"])],
    }
    return {name: value for name, value in found.items() if value}


def _loose(workspace: Workspace, clip_id: str) -> list[Path]:
    """Files and folders outside batches that are called after the clip, and what in the cache holds its rows or its name."""
    folders = (workspace.overlay(clip_id, "").parent, workspace.cache)
    called = (path for folder in folders for path in sorted(folder.rglob(f"*{clip_id}*")))
    # also what a kill has left half written: .NAME.parquet.….tmp
    tables = (path for path in sorted(workspace.cache.rglob("*.parquet*")) if _may_have_rows(path, clip_id))
    half_written = workspace.reports.glob("*/.*.html.*.tmp")
    pages = (path for path in sorted([*workspace.cache.glob("*.html*"), *half_written]) if _names(path, clip_id))
    # what a training has left that was not registered yet: its tables and its model
    trainings = (path for path in sorted(workspace.trainings.glob("*")) if _names(path, clip_id))
    catalogs = workspace.root.glob("catalog.db*.damaged")  # may hold its row, and cannot be asked
    waiting = (*retry.in_inbox(workspace, clip_id), *retry.half_done(workspace, clip_id))
    found = (workspace.quarantined(clip_id), *called, *waiting, *tables, *pages, *catalogs, *trainings)
    return [path for path in found if path.exists()]


def _names(path: Path, clip_id: str) -> bool:
    """Whether a file, or one in a folder, names a clip."""
    return any(traces.names_one_of(file, [clip_id]) for file in (path, *path.rglob("*")))


def _remove(workspace: Workspace, path: Path) -> None:
    """Remove a file or a folder, unless it has gone with the folder that it lay in. In the inbox that may be a link by now."""
    with suppress(FileNotFoundError), ExitStack() as opened:
        if path.is_relative_to(workspace.inbox):
            path = opened.enter_context(drop_folder.opened(workspace.inbox, path.parent)) / path.name
        if not path.is_dir():
            path.unlink()
        while path.is_dir():  # a training that runs may take a file of it away meanwhile
            with suppress(FileNotFoundError):
                shutil.rmtree(path)


def _may_have_rows(path: Path, clip_id: str) -> bool:
    """Whether a table has rows of a clip, or cannot be asked."""
    try:
        with open_table(path) as file:
            return rewrite.has_rows(file, clip_id)
    except WorkspaceError:
        return True


def _holds(clip_id: str) -> versioning_erase.Holds:
    """Whether a file of a stored version is called after the clip, or is a table with its rows."""

    def holds(name: str, opened: Callable[[], IO[bytes]] | None) -> bool | None:
        if clip_id in name:
            return True
        if opened is None or not name.endswith(".parquet"):
            return False
        with opened() as file:
            try:
                return rewrite.has_rows(pq.ParquetFile(file), clip_id)
            except (pa.ArrowInvalid, OSError):
                return None

    return holds


def _result(
    stone: dict[str, Any], removed: dict[str, Any], notices: tuple[str, ...], left: tuple[str, ...], *, dry_run: bool
) -> ForgetResult:
    return ForgetResult(
        clip_id=stone["clip_id"], batch_id=stone["batch_id"], models=tuple(stone["models"]),
        silent_models=tuple(stone["silent_models"]), removed=removed, notices=notices, left=left, dry_run=dry_run,
    )  # fmt: skip


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} of {name}" for name, count in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
