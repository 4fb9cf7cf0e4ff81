"""Going back to a champion that was chosen, or from one that MLflow has lost."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from violence_ops import ledger
from violence_ops.errors import RefusedByGate, UsageError, WorkspaceError
from violence_ops.params import Params
from violence_ops.registry import MODEL, Registry
from violence_ops.stages.nightly import score
from violence_ops.stages.releasing import gate, ledger_log, promote, reinstate, rollback
from violence_ops.stages.upkeep import doctor, status
from violence_ops.store import releases
from violence_ops.workspace import Workspace

Judge = Callable[..., str]


@pytest.fixture
def champions(
    released: Workspace, params: Params, registry: Registry, write_evaluation: Judge, tmp_path: Path
) -> Workspace:
    """Versions 1, 2 and 3 were released one after the other; the packages are this workspace's own."""
    for version in "123":
        folder = tmp_path / "store" / version
        shutil.copytree(_store(registry, version), folder)
        _point(released, version, folder)
    for version, before in (("1", None), ("2", "1"), ("3", "2")):
        gate.run(released, params, report=write_evaluation(version, before))
        promote.run(released, params, approved_by="admin")
    return released


def _store(registry: Registry, version: str) -> Path:
    return Path(
        MlflowClient(registry.uri, registry.uri).get_model_version(MODEL, version).source.removeprefix("file://")
    )


def _point(workspace: Workspace, version: str, folder: Path) -> None:
    with sqlite3.connect(workspace.root / "mlflow.db") as database:
        place = folder.as_uri()
        database.execute(
            "UPDATE model_versions SET source = ?, storage_location = ? WHERE version = ?", (place, place, version)
        )


def _delete(registry: Registry, *versions: str) -> None:
    for version in versions:
        MlflowClient(registry.uri, registry.uri).delete_model_version(MODEL, version)


def _cli(workspace: Workspace, *command: str) -> subprocess.CompletedProcess[str]:
    whole = [sys.executable, "-m", "violence_ops.cli", *command, "--workspace", str(workspace.root)]
    return subprocess.run(whole, capture_output=True, text=True, check=False)


def test_where_the_champion_was_deleted_in_mlflow_everything_names_the_command_that_goes_on(
    champions: Workspace, params: Params, registry: Registry
) -> None:
    _delete(registry, "3")
    before = champions.ledger.read_bytes()
    for act in (
        lambda: score.run(champions, params),
        lambda: ledger_log.verify(champions),
        lambda: promote.run(champions, params, approved_by="admin"),
        lambda: reinstate.run(champions, by="ada"),
    ):
        with pytest.raises(WorkspaceError, match=r"Version 3, .* no more in MLflow.* `violence-ops rollback "):
            act()
    assert champions.ledger.read_bytes() == before, "what puts nothing back writes nothing"
    assert "violence-ops rollback" in status.run(champions).problems[0]
    assert any("violence-ops rollback" in one.remedy for one in doctor.run(champions.root).findings if not one.ok)

    done = _cli(champions, "rollback", "--by", "ada", "--reason", "deleted by mistake")
    assert done.stdout == "Version 2 is the champion again; version 3 is rolled back.\n", done.stderr
    assert registry.alias("champion") == ledger_log.verify(champions).champion == "2"
    last = ledger.read(champions)[-1].payload
    assert (last["from"], last["to"], last["phase"]) == ("3", "2", "done")
    again = rollback.run(champions, by="ada", reason="r", expected_champion="3")
    assert (again.version, again.moved) == ("2", False)


def test_the_way_back_is_open_also_where_params_yaml_is_wrong(champions: Workspace, registry: Registry) -> None:
    champions.params_file.write_text("gate: {min_f1: 7}", "utf-8")
    done = _cli(champions, "rollback", "--by", "ada", "--reason", "false alarms")
    assert done.stdout == "Version 2 is the champion again; version 3 is rolled back.\n", done.stderr
    assert registry.alias("champion") == "2"


def test_a_lost_champion_whose_alias_was_put_on_another_version_can_be_left_too(
    champions: Workspace, params: Params, registry: Registry
) -> None:
    _delete(registry, "3")
    registry.set_alias("champion", "1", None)
    assert rollback.run(champions, by="ada", reason="r").version == "2"
    assert registry.alias("champion") == "2"


def test_earlier_champions_that_cannot_judge_any_more_are_passed_over_and_the_ledger_says_so(
    champions: Workspace, params: Params, registry: Registry
) -> None:
    _delete(registry, "2")
    planned = rollback.run(champions, by="ada", reason="r", dry_run=True)
    assert (planned.version, registry.alias("champion")) == ("1", "3")
    result = rollback.run(champions, by="ada", reason="r")
    assert (result.version, list(result.passed_over)) == ("1", ["2"])
    assert "Version 2 is passed over: violence-detector has no version 2" in result.lines()[1]
    assert ledger.read(champions)[-1].payload["passed_over"] == result.passed_over
    assert ledger.champions(ledger.read(champions)) == ["1"]


def test_where_not_one_champion_is_left_there_is_none_and_a_new_one_can_be_released(
    champions: Workspace, params: Params, registry: Registry, write_evaluation: Judge
) -> None:
    _delete(registry, "1", "3")
    (package,) = (_store(registry, "2") / "artifacts").iterdir()
    shutil.rmtree(package)
    result = rollback.run(champions, by="ada", reason="all deleted")
    assert (result.version, list(result.passed_over)) == (None, ["2", "1"])
    assert result.lines()[0] == "There is no champion; version 3 is rolled back."
    assert ledger_log.verify(champions).champion is None
    assert "champion 3 to none, done: all deleted" in ledger_log.show(champions).lines()[-1]
    assert score.run(champions, params).champion is None
    with pytest.raises(WorkspaceError, match="There is no champion"):
        rollback.run(champions, by="ada", reason="r")

    package.mkdir()
    (package / "network.txt").write_text("version 2")
    gate.run(champions, params, report=write_evaluation("2", None))
    assert promote.run(champions, params, approved_by="admin").moved
    assert releases.champion(champions) == "2"


def test_a_first_champion_can_be_withdrawn_and_another_one_released(
    released: Workspace, params: Params, registry: Registry, write_evaluation: Judge
) -> None:
    gate.run(released, params, report=write_evaluation("1"))
    promote.run(released, params, approved_by="admin")
    with pytest.raises(WorkspaceError, match=r"is the first champion.*`violence-ops rollback --to none "):
        rollback.run(released, by="ada", reason="r")
    planned = _cli(released, "rollback", "--to", "none", "--by", "ada", "--reason", "misses fights", "--dry-run")
    assert planned.stdout.startswith("There would be no champion; version 1 would be rolled back.\n"), planned.stderr
    assert registry.alias("champion") == "1"

    done = _cli(released, "rollback", "--to", "none", "--by", "ada", "--reason", "misses fights")
    assert done.stdout == (
        "There is no champion; version 1 is rolled back.\nWithout a champion, nights are sealed without verdicts until a candidate is released.\n"
    ), done.stderr
    assert registry.alias("champion") is ledger_log.verify(released).champion is None
    assert "champion 1 to none, done: misses fights" in ledger_log.show(released).lines()[-1]
    assert not rollback.run(released, by="ada", reason="r", expected_champion="1", to="none").moved
    assert score.run(released, params).champion is None
    with pytest.raises(RefusedByGate, match="was rolled back"):
        promote.run(released, params, report="1-vs-none", approved_by="admin")

    gate.run(released, params, report=write_evaluation("2"))
    assert promote.run(released, params, approved_by="admin").moved
    assert registry.alias("champion") == ledger_log.verify(released).champion == "2"


def test_withdrawing_the_champion_takes_the_earlier_ones_back_too(champions: Workspace, params: Params) -> None:
    assert rollback.run(champions, by="ada", reason="r", to="none").version is None
    assert ledger.champions(ledger.read(champions)) == []
    with pytest.raises(RefusedByGate, match="was rolled back"):
        promote.run(champions, params, report="1-vs-none", approved_by="admin")


def test_a_rollback_goes_to_the_earlier_champion_that_is_named_and_takes_back_those_between(
    champions: Workspace, params: Params, registry: Registry
) -> None:
    done = _cli(champions, "rollback", "--to", "1", "--by", "ada", "--reason", "both miss fights")
    assert done.stdout == "Version 1 is the champion again; version 3 is rolled back.\n", done.stderr
    assert registry.alias("champion") == ledger_log.verify(champions).champion == "1"
    again = rollback.run(champions, by="ada", reason="r", expected_champion="3", to="1")
    assert (again.version, again.moved) == ("1", False)
    with pytest.raises(WorkspaceError, match="The champion is version 1, not 3"):
        rollback.run(champions, by="ada", reason="r", expected_champion="3", to="2")
    for report in ("2-vs-1", "3-vs-2"):
        with pytest.raises(RefusedByGate, match="was rolled back"):
            promote.run(champions, params, report=report, approved_by="admin")


def test_a_rollback_goes_to_no_version_that_is_not_an_earlier_champion_with_its_own_package(
    champions: Workspace, params: Params, registry: Registry
) -> None:
    (package,) = (_store(registry, "1") / "artifacts").iterdir()
    (package / "network.txt").write_text("another")
    with pytest.raises(WorkspaceError, match=r"Nothing was rolled back: The package of model version 1 .* exchanged"):
        rollback.run(champions, by="ada", reason="r", to="1")
    assert rollback.run(champions, by="ada", reason="r").version == "2"
    before = champions.ledger.read_bytes()
    for never in ("2", "3", "9"):
        refused = f"Version {never} is none of the earlier champions that a rollback can go to \\(1\\)"
        with pytest.raises(UsageError, match=refused):
            rollback.run(champions, by="ada", reason="r", to=never)
    assert (champions.ledger.read_bytes(), registry.alias("champion")) == (before, "2")


@pytest.mark.parametrize(
    "command",
    [
        ["lineage", "9"],
        ["evaluate", "--candidate", "9"],
        ["evaluate", "--candidate", "1", "--holdout", "v9"],
        ["shadow", "start", "9"],
        ["rollback", "--to", "9", "--by", "ada", "--reason", "r"],
    ],
    ids=" ".join,
)
def test_a_version_or_holdout_that_is_not_there_is_wrong_usage(champions: Workspace, command: list[str]) -> None:
    done = _cli(champions, *command)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
