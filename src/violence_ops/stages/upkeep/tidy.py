"""`tidy`: what months of nights leave behind and nobody reads any more. No clip of a batch, table, model, report or ledger line is
touched."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

from violence_ops import git, services
from violence_ops.jsonable import Jsonable
from violence_ops.records import TRANSIENT
from violence_ops.stages.learning import old_datasets
from violence_ops.store import batches, quarantine, releases
from violence_ops.wording import counted
from violence_ops.workspace import Workspace

_LONG_LOG: Final = 8 << 20  # bytes of a service's log, of which
_KEPT: Final = 1 << 20  # so many are kept
_GONE: Final = ".gone-"
_ALIASES: Final = (releases.CHAMPION, releases.CANDIDATE, releases.SHADOW)


@dataclass(frozen=True, slots=True)
class Gone:
    """How many things of a kind were removed, and the megabytes that they took."""

    count: int
    megabytes: float


@dataclass(frozen=True, slots=True)
class TidyResult(Jsonable):
    """How many runs of Airflow that began before `before`, files of its tasks' logs, and files of Great Expectations' checks
    were removed, how many logs of services were cut to their end, and the megabytes of all these files. In a dry run: would be.

    `git_objects` were packed, which take `git_megabytes` less; the latter is not known in a dry run (None). `locks` are lock files of
    sealed batches, `packages` copies of model packages, `shadows` what versions said in shadow, `originals` refused clips and `datasets`
    dataset versions (None: not asked for); `left` are sentences about what could not be erased of the last.
    """

    before: str
    dry_run: bool
    airflow_runs: int
    task_logs: int
    checks: int
    service_logs: int
    megabytes: float
    git_objects: int
    git_megabytes: float | None
    locks: int
    packages: Gone
    shadows: Gone
    originals: Gone | None
    datasets: Gone | None
    left: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """For people."""
        removed, cut, packed = (
            ("To be removed", "to be cut", "To be packed") if self.dry_run else ("Removed", "cut", "Packed")
        )
        yield (
            f"{removed} from before {self.before}: {counted(self.airflow_runs, 'Airflow run')}, {counted(self.task_logs, 'task log')}, "
            f"{counted(self.checks, 'check file')}; "
            f"{counted(self.service_logs, 'long service log')} {cut} to the end: {self.megabytes:.1f} MB."
        )
        less = "" if self.git_megabytes is None else f", {self.git_megabytes:.1f} MB less"
        yield f"{packed} in git: {counted(self.git_objects, 'object')}{less}."
        yield f"{removed}: {counted(self.locks, 'lock file')} of sealed batches."
        kinds = (
            (self.packages, "cached model package", "MLflow has them"),
            (self.shadows, "shadow record", "of versions no longer in shadow; put there again, they judge again"),
            (self.originals, "refused clip", "`explain` still says why they were refused"),
            (self.datasets, "dataset version", "in DVC's cache and the remote"),
        )
        for gone, kind, note in kinds:
            if gone:
                yield f"{removed}: {counted(gone.count, kind)}, {gone.megabytes:.1f} MB ({note})."
        yield from self.left


def run(
    workspace: Workspace,
    *,
    days: int,
    refused_days: int | None = None,
    newest_datasets: int | None = None,
    dry_run: bool = False,
) -> TidyResult:
    """Remove what is older than `days`, and pack what git has not packed yet; Airflow may be running. Can be repeated.

    With `refused_days` remove also the originals of clips that were refused so long ago for a reason in their bytes, with
    `newest_datasets` the dataset versions that `old_datasets.erase` names. Of each DAG Airflow keeps the last run that nobody started
    by hand.

    Raises ServiceUnavailable if its database cannot be cleaned or MLflow cannot be reached, WorkspaceError if a person's `git gc` or,
    for datasets, an experiment runs.
    """
    before = datetime.now(UTC) - timedelta(days=days)
    oldest = time.time() - days * 86400
    logs = list(_older(workspace.airflow_logs, oldest))
    checks = [path for folder in workspace.check_results for path in _older(folder, oldest)]
    long = [path for path in sorted(workspace.services.glob("*.log")) if path.stat().st_size > _LONG_LOG]
    size = _size([*logs, *checks]) + sum(path.stat().st_size - _KEPT for path in long)
    runs = services.old_runs(workspace, before)
    loose, packed = git.loose_objects(workspace), None
    if not dry_run:
        if runs:
            services.clean_database(workspace, before)
            runs -= services.old_runs(workspace, before)
        for path in [*logs, *checks]:
            path.unlink(missing_ok=True)
        for folder in (workspace.airflow_logs, *workspace.check_results):
            _remove_empty(folder)
        for path in long:
            _cut(path)
        packed = _megabytes(git.pack(workspace) if loose else 0)
    locks = _locks(workspace, oldest, dry_run)
    packages, shadows = _packages(workspace, oldest, dry_run), _shadows(workspace, oldest, dry_run)
    originals = None if refused_days is None else _originals(workspace, refused_days, dry_run)
    erased = None if newest_datasets is None else old_datasets.erase(workspace, newest_datasets, dry_run=dry_run)
    return TidyResult(
        before.date().isoformat(), dry_run, runs, len(logs), len(checks), len(long), _megabytes(size), loose, packed, locks, packages, shadows, originals,
        Gone(erased.versions, _megabytes(erased.size)) if erased else None, erased.left if erased else (),
    )  # fmt: skip


def _locks(workspace: Workspace, oldest: float, dry_run: bool) -> int:
    """Lock files, made so long ago, of batches that are sealed for good; one that somebody holds stays."""
    names = [batches.lock_of(batch) for batch in workspace.sealed_batches() if not batch.open.exists()]
    files = {name: workspace.lock_file(name) for name in names}
    old = [name for name, file in files.items() if file.exists() and file.stat().st_mtime < oldest]
    return len(old) if dry_run else sum(workspace.drop_lock(name) for name in old)


def _packages(workspace: Workspace, oldest: float, dry_run: bool) -> Gone:
    """Copies of old models' packages that no alias names; who needs one fetches it again."""
    return _removed(_unnamed(workspace, workspace.model_packages, workspace.model_package, oldest), dry_run)


def _shadows(workspace: Workspace, oldest: float, dry_run: bool) -> Gone:
    """What old models that no alias names said in shadow; one that is put there again judges again."""
    with nullcontext() if dry_run else workspace.lock("shadow"):  # nobody writes there
        return _removed(_unnamed(workspace, workspace.shadows, workspace.shadows_of, oldest), dry_run)


def _unnamed(workspace: Workspace, folder: Path, of: Callable[[str], Path], oldest: float) -> list[Path]:
    """The folders of versions in a folder, changed last before that time, but those `of` versions that an alias names."""
    folders = [path for path in sorted(folder.glob("*")) if path.is_dir()]
    old = [path for path in folders if path.name.startswith(_GONE) or path.stat().st_mtime < oldest]
    if not old:
        return []
    registry = releases.open_registry(workspace)
    used = {of(version) for name in _ALIASES if (version := registry.alias(name))}
    return [path for path in old if path not in used]


def _removed(folders: list[Path], dry_run: bool) -> Gone:
    gone = Gone(len(folders), _megabytes(_size(file for path in folders for file in path.rglob("*"))))
    for path in () if dry_run else folders:
        # under another name, so that what a kill leaves is not taken for a whole one
        shutil.rmtree(path.rename(path.with_name(_GONE + path.name.removeprefix(_GONE))))
    return gone


def _originals(workspace: Workspace, days: int, dry_run: bool) -> Gone:
    """The originals of clips that were refused for good more than so many days ago; those of an open batch stay."""
    today = datetime.now(UTC).date()
    found = [
        entry
        for entry in quarantine.entries(workspace)
        if entry.get("original") and entry["reason"] not in TRANSIENT
        if today - date.fromisoformat(entry["night"]) > timedelta(days=days)
        if not entry.get("batch_id") or workspace.batch(entry["batch_id"]).is_sealed
    ]
    files = [workspace.quarantined(entry["clip_id"]) / entry["original"] for entry in found]
    gone = Gone(len(found), _megabytes(_size(path for path in files if path.exists())))
    for entry in () if dry_run else found:
        quarantine.drop_original(workspace, entry["clip_id"], today.isoformat())
    return gone


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def _megabytes(size: int) -> float:
    return round(size / 2**20, 1)


def _older(folder: Path, oldest: float) -> Iterator[Path]:
    """The files below a folder that were changed last before that time; links are not followed."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".") and path.stat().st_mtime < oldest:
            yield path


def _remove_empty(folder: Path) -> None:
    """The folders below it in which nothing is left, the deepest first."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            path.rmdir()


def _cut(log: Path) -> None:
    """Keep a log's end. Its service goes on appending to the same file; a line that it writes in this moment may be lost."""
    with log.open("rb") as handle:
        handle.seek(-_KEPT, 2)
        end = handle.read()
    with log.open("ab") as handle:
        handle.truncate(0)
        handle.write(end)
