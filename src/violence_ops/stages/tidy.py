"""`tidy`: what months of nights leave behind and nobody reads any more. No clip, table, model, report or ledger line is touched."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from violence_ops import git, services
from violence_ops.wording import counted
from violence_ops.workspace import Workspace

_LONG_LOG: Final = 8 << 20  # bytes of a service's log, of which
_KEPT: Final = 1 << 20  # so many are kept


@dataclass(frozen=True, slots=True)
class TidyResult:
    """How many runs of Airflow that began before `before`, files of its tasks' logs, and files of Great Expectations' checks
    were removed, how many logs of services were cut to their end, and the megabytes of all these files. In a dry run: would be.

    `git_objects` were packed, which take `git_megabytes` less; the latter is not known in a dry run (None).
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

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        removed, cut = ("To be removed", "to be cut") if self.dry_run else ("Removed", "cut")
        return [
            f"{removed} from before {self.before}: {counted(self.airflow_runs, 'Airflow run')}, {counted(self.task_logs, 'task log')}, "
            f"{counted(self.checks, 'check file')}; "
            f"{counted(self.service_logs, 'long service log')} {cut} to the end: {self.megabytes:.1f} MB.",
            f"{'To be packed' if self.dry_run else 'Packed'} in git: {counted(self.git_objects, 'object')}"
            + ("." if self.git_megabytes is None else f", {self.git_megabytes:.1f} MB less."),
        ]


def run(workspace: Workspace, *, days: int, dry_run: bool = False) -> TidyResult:
    """Remove what is older than `days`, and pack what git has not packed yet; Airflow may be running. Can be repeated.

    Of each DAG Airflow keeps the last run that nobody started by hand. Raises ServiceUnavailable if its database cannot be cleaned,
    WorkspaceError if a person's `git gc` runs.
    """
    before = datetime.now(UTC) - timedelta(days=days)
    oldest = time.time() - days * 86400
    logs = list(_older(workspace.airflow_logs, oldest))
    checks = [path for folder in workspace.check_results for path in _older(folder, oldest)]
    long = [path for path in sorted(workspace.services.glob("*.log")) if path.stat().st_size > _LONG_LOG]
    size = sum(path.stat().st_size for path in [*logs, *checks]) + sum(path.stat().st_size - _KEPT for path in long)
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
    return TidyResult(
        before.date().isoformat(), dry_run, runs, len(logs), len(checks), len(long), _megabytes(size), loose, packed
    )


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
