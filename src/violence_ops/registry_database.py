"""The SQLite file that a workspace's MLflow keeps its records in: of the installed MLflow, and naming the artifacts where they lie."""

from __future__ import annotations

import re
import sqlite3
import subprocess
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from violence_ops.deployment import python_module
from violence_ops.errors import ServiceUnavailable

_ADDRESSES: Final = (
    ("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"),
    ("model_versions", "source"), ("model_versions", "storage_location"),
)  # fmt: skip
"""Where MLflow writes down, as absolute addresses, where artifacts lie."""
_REVISION: Final = re.compile(r"^(down_)?revision\b[^=\n]*=(.*)$", re.MULTILINE)
_QUOTED: Final = re.compile(r"[\"'](\w+)[\"']")


def follow(database: Path, artifacts: Path) -> None:
    """Let the records name the folder `artifacts` if it was moved here together with the database, or both were copied.

    That is so if experiments keep theirs in another folder of that name. Does nothing without a database; raises sqlite3.Error if
    it cannot be read or, where it must be, written.
    """
    if not database.is_file() or not artifacts.is_dir():
        return
    present = artifacts.resolve().as_uri()
    with closing(sqlite3.connect(database, timeout=30)) as opened:
        for former in _former(opened, present):
            with opened:
                for table, column in _ADDRESSES:
                    if _has(opened, table, column):
                        _replace(opened, table, column, former, present)


def _former(database: sqlite3.Connection, present: str) -> list[str]:
    """The addresses of other folders, named like the present one, that experiments keep their artifacts in."""
    if not _has(database, "experiments", "artifact_location"):
        return []
    pattern = f"file:///*/{present.rpartition('/')[2]}"
    query = (
        "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location GLOB ? AND artifact_location != ?"
    )
    return [found for (found,) in database.execute(query, (pattern, present))]


def _replace(database: sqlite3.Connection, table: str, column: str, former: str, present: str) -> None:
    start = len(former) + 1
    database.execute(
        f"UPDATE {table} SET {column} = ? || substr({column}, {start}) WHERE substr({column} || '/', 1, {start}) = ?",
        (present, f"{former}/"),
    )


def _has(database: sqlite3.Connection, table: str, column: str) -> bool:
    query = "SELECT 1 FROM pragma_table_info(?) WHERE name = ?"
    return database.execute(query, (table, column)).fetchone() is not None


def upgrade(database: Path) -> Path | None:
    """Bring the tables of an earlier MLflow up to date; returns the copy that was made before, None if nothing was to do.

    Raises ServiceUnavailable, naming the copy, if MLflow cannot do that.
    """
    found = _revision(database) if database.is_file() else None
    if found is None or found in _newest():
        return None
    copy = database.with_name(f"{database.name}.{found}")
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    command = python_module("mlflow", "db", "upgrade", f"sqlite:///{database}")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ServiceUnavailable(
            f"MLflow's database {database} is of another version of MLflow and could not be upgraded ({reason}): put back its copy, "
            f"{copy.name}, and install the version of MLflow that wrote it."
        )
    return copy


def _revision(database: Path) -> str | None:
    """The revision of the tables; None of a file that MLflow has not made any in yet, or that is no database: MLflow says so itself."""
    try:
        with closing(sqlite3.connect(database)) as opened:
            row = opened.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError:
        return None
    return str(row[0]) if row else None


def _newest() -> set[str]:
    """The revision that no other one of the installed MLflow follows, read from its files: to import MLflow takes seconds."""
    spec = find_spec("mlflow")
    assert spec
    assert spec.origin
    known: set[str] = set()
    followed: set[str] = set()
    for file in (Path(spec.origin).parent / "store" / "db_migrations" / "versions").glob("*.py"):
        for is_down, names in _REVISION.findall(file.read_text("utf-8")):
            (followed if is_down else known).update(_QUOTED.findall(names))
    return known - followed
