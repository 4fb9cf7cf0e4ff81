"""MLflow's database after an upgrade of MLflow, and after the workspace was moved."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command

from violence_ops import registry_database
from violence_ops.errors import ServiceUnavailable
from violence_ops.registry import Registry

ROOT = Path(__file__).parents[1]


def _registry(home: Path) -> Registry:
    return Registry(f"sqlite:///{home / 'mlflow.db'}", home / "mlartifacts")


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database, a run with a file, and a version of a model."""
    home = tmp_path_factory.mktemp("used") / "a workspace"
    package = home.parent / "package"
    package.mkdir()
    (package / "network.txt").write_text("version 1")
    home.mkdir()
    registry = _registry(home)
    with registry.start_run("try", {}) as run:
        run.log_file(package / "network.txt", "plots")
        registry.register(run.run_id, package, {}, example=False)
    return home


@pytest.fixture
def home(used: Path, tmp_path: Path) -> Path:
    """A copy of it elsewhere."""
    return shutil.copytree(used, tmp_path / "moved")


@pytest.fixture
def gone(used: Path) -> Iterator[Path]:
    """Where the folder was when it was written, with nothing there while the test runs."""
    hidden = used.rename(used.with_name("hidden"))
    yield used
    hidden.rename(used)


def _addresses(home: Path) -> set[str]:
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        return {
            address
            for table, column in registry_database._ADDRESSES
            for (address,) in database.execute(f"SELECT {column} FROM {table}")
            if address and "/mlartifacts" in address
        }


def test_models_and_runs_of_a_folder_that_was_moved_are_where_it_is_now(used: Path, home: Path, gone: Path) -> None:
    registry = _registry(home)
    fetched = registry.download("1", home / "cache" / "1")
    assert (fetched / "network.txt").read_text() == "version 1"
    with registry.run(registry.version("1").run_id) as run:
        assert [one.path for one in run.client.list_artifacts(run.run_id, "plots")] == ["plots/network.txt"]
    with registry.start_run("another", {}) as run:
        run.log_file(fetched / "network.txt", "plots")
    assert not gone.exists(), "nothing is written to where it was"
    assert all(address.startswith((home / "mlartifacts").as_uri()) for address in _addresses(home))


def test_a_copy_leaves_the_original_alone(used: Path, home: Path) -> None:
    _registry(home).check()
    _registry(used).check()
    for folder in (home, used):
        assert len(_addresses(folder)) >= 3
        assert all(address.startswith((folder / "mlartifacts").as_uri()) for address in _addresses(folder))


@pytest.fixture
def outdated(home: Path) -> Path:
    """The database as the version before would have it."""
    from mlflow.store.db.utils import _get_alembic_config

    database = home / "mlflow.db"
    command.downgrade(_get_alembic_config(f"sqlite:///{database}"), "-1")
    return database


def _revision(database: Path, new: str | None = None) -> str:
    """The revision that the tables say they are of, `new` from now on."""
    with closing(sqlite3.connect(database)) as opened, opened:
        (found,) = opened.execute("SELECT version_num FROM alembic_version").fetchone()
        if new:
            opened.execute("UPDATE alembic_version SET version_num = ?", (new,))
    return str(found)


def test_tables_of_an_earlier_mlflow_are_upgraded_with_a_copy_beside_them(outdated: Path) -> None:
    before = _revision(outdated)
    copy = registry_database.upgrade(outdated)
    assert copy == outdated.with_name(f"mlflow.db.{before}")
    assert (_revision(copy), _revision(outdated) == before) == (before, False)
    assert _registry(outdated.parent).version("1").version == "1"
    assert registry_database.upgrade(outdated) is None


def test_tables_of_another_mlflow_are_said_with_the_command_that_upgrades_them(home: Path, outdated: Path) -> None:
    earlier = _revision(outdated)
    registry_database.upgrade(outdated)
    _revision(home / "mlflow.db", earlier)
    with pytest.raises(
        ServiceUnavailable, match="are of another version of MLflow than this one: run `violence-ops up`"
    ):
        _registry(home).version("1")


def test_tables_of_a_later_mlflow_stop_the_start_in_one_sentence(home: Path) -> None:
    database = home / "mlflow.db"
    _revision(database, "ffffffffffff")
    with pytest.raises(
        ServiceUnavailable, match=r"could not be upgraded \(.*\): put back its copy, mlflow.db.ffffffffffff"
    ):
        registry_database.upgrade(database)


def test_without_a_database_there_is_nothing_to_upgrade_or_to_follow(tmp_path: Path) -> None:
    assert registry_database.upgrade(tmp_path / "mlflow.db") is None
    registry_database.follow(tmp_path / "mlflow.db", tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_container_upgrades_before_it_serves(outdated: Path) -> None:
    environment = os.environ | {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{outdated}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    script = [ROOT / "docker" / "mlflow.sh", "echo", "served"]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "served\n", done.stderr
    assert _registry(outdated.parent).version("1").version == "1"
