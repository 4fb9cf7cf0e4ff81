"""A program on this machine learns of every change of champion, as the webhook does, and cannot stop a release."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from violence_ops import hook, ledger, processes
from violence_ops.errors import UsageError
from violence_ops.params import Params
from violence_ops.registry import Registry
from violence_ops.stages.releasing import gate, notify, promote, rollback
from violence_ops.stages.upkeep import doctor, status
from violence_ops.workspace import Workspace

Judge = Callable[..., str]
Install = Callable[[str], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make a Python text the hook, called with the argument `t0ken-of-the-room`; returns the file that it may write to."""

    def write(text: str) -> Path:
        program, taken = tmp_path / "tell", tmp_path / "taken.jsonl"
        program.write_text(
            f"#!{sys.executable}\nimport os, signal, subprocess, sys, time\nTAKEN = {str(taken)!r}\n{textwrap.dedent(text)}"
        )
        program.chmod(0o755)
        monkeypatch.setenv("VIOLENCE_OPS_HOOK_COMMAND", json.dumps([str(program), "t0ken-of-the-room"]))
        return taken

    return write


KEEP = "with open(TAKEN, 'a') as file: file.write(sys.stdin.read())\n"


def _release(workspace: Workspace, params: Params, report: str) -> promote.PromoteResult:
    gate.run(workspace, params, report=report)
    return promote.run(workspace, params, report=report, approved_by="admin")


def _lines(taken: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in taken.read_text().splitlines()]


def test_releases_and_rollbacks_are_lines_on_its_input_in_order_and_each_once(
    released: Workspace, params: Params, write_evaluation: Judge, install: Install
) -> None:
    taken, workspace = install(KEEP), Workspace(released.root)
    _release(workspace, params, write_evaluation("1"))
    _release(workspace, params, write_evaluation("2", "1"))
    promote.run(workspace, params, approved_by="admin")  # a second time: nothing moves, nothing is told
    rollback.run(workspace, by="ada", reason="false alarms at the door")
    assert [(one["event"], one["from"], one["to"], one["by"]) for one in _lines(taken)] == [
        ("promotion", None, "1", "admin"),
        ("promotion", "1", "2", "admin"),
        ("rollback", "2", "1", "ada"),
    ]
    assert status.run(workspace).told == {"hook": "told of everything"}


def test_it_sees_no_password_of_the_environment(
    released: Workspace, params: Params, write_evaluation: Judge, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "s3cret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    taken = install("with open(TAKEN, 'w') as file: file.write(repr(dict(os.environ)))")
    assert _release(Workspace(released.root), params, write_evaluation("1")).untold is None
    assert "s3cret" not in taken.read_text()
    assert "VIOLENCE_OPS_DELIVERY" in taken.read_text()


def test_one_that_fails_undoes_no_release_is_seen_in_status_and_catches_up_in_order(
    released: Workspace, params: Params, registry: Registry, write_evaluation: Judge, install: Install
) -> None:
    install("print('the room is shut, key 0pen-sesame'); sys.exit(3)")
    first = _release(Workspace(released.root), params, write_evaluation("1"))
    _release(Workspace(released.root), params, write_evaluation("2", "1"))
    workspace = Workspace(released.root)
    assert (registry.alias("champion"), first.moved) == ("2", True)
    said = "\n".join(first.lines())
    assert "exit status 3" in said
    assert "ledger notify" in said
    shown = "\n".join(status.run(workspace).lines())
    assert "hook: 2 not told: The command hook tell did not take" in shown
    log = subprocess.run(["git", "log", "-p"], cwd=workspace.root, capture_output=True, text=True, check=True).stdout
    everywhere = said + shown + log + workspace.ledger.read_text() + repr(workspace.deployment)
    assert not {one for one in ("0pen-sesame", "t0ken-of-the-room") if one in everywhere}
    output = workspace.services / "hook.log"
    assert "0pen-sesame" in output.read_text()
    assert output.stat().st_mode & 0o777 == 0o600

    taken = install(KEEP)
    assert notify.run(Workspace(released.root)).told == {"hook": [4, 8]}
    assert [one["to"] for one in _lines(taken)] == ["1", "2"]
    assert notify.run(Workspace(released.root)).told == {"hook": []}


def test_a_release_that_is_killed_while_the_hook_runs_is_told_again(
    released: Workspace, params: Params, registry: Registry, write_evaluation: Judge, install: Install
) -> None:
    gate.run(released, params, report=write_evaluation("1"))
    taken = install(
        KEEP
        + "if not os.path.exists(TAKEN + '.once'): open(TAKEN + '.once', 'x'); os.kill(os.getppid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-m", "violence_ops.cli"]
    killed = subprocess.run([*command, "promote", "--approve", "--by", "admin"], cwd=released.root, capture_output=True)
    assert killed.returncode == -9
    assert registry.alias("champion") == "1"
    again = subprocess.run([*command, "ledger", "notify"], cwd=released.root, capture_output=True, text=True)
    assert (again.returncode, again.stdout) == (0, "The hook was told of line 4 of the ledger.\n")
    first, second = _lines(taken)
    assert first == second


def test_one_that_hangs_is_ended_with_all_it_started_and_what_it_prints_is_bounded(
    released: Workspace, params: Params, registry: Registry, write_evaluation: Judge, install: Install,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(hook, "TIMEOUT_S", 1.0)
    taken = install(
        """
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open(TAKEN, "w") as file: file.write(str(child.pid))
        while True: print("x" * 65536)
        """
    )
    workspace = Workspace(released.root)
    result = _release(workspace, params, write_evaluation("1"))
    assert registry.alias("champion") == "1"
    assert "no end after 1 s" in (result.untold or "")
    assert (workspace.services / "hook.log").stat().st_size == hook.KEPT
    pid = int(taken.read_text())
    assert not [each for each in psutil.process_iter() if each.pid == pid and processes.is_alive(each)]


def test_webhook_and_hook_do_not_wait_for_one_another(
    released: Workspace, params: Params, write_evaluation: Judge, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("violence_ops.webhook.PAUSES_S", ())
    monkeypatch.setenv("VIOLENCE_OPS_WEBHOOK_URL", "http://127.0.0.1:9/nobody-listens")
    monkeypatch.setenv("VIOLENCE_OPS_WEBHOOK_SECRET", "s3cret")
    taken, workspace = install(KEEP), Workspace(released.root)
    result = _release(workspace, params, write_evaluation("1"))
    assert "webhook at 127.0.0.1" in (result.untold or "")
    assert len(_lines(taken)) == 1
    told = status.run(workspace).told
    assert told["hook"] == "told of everything"
    assert told["webhook"].startswith("1 not told: The webhook at 127.0.0.1")


def test_doctor_tells_a_program_that_is_not_there_from_one_that_may_not_be_executed(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "tell operators"

    def remedy(path: str) -> str:
        monkeypatch.setenv("VIOLENCE_OPS_HOOK_COMMAND", json.dumps([path]))
        (fault,) = [one for one in doctor.run(workspace.root).findings if one.what == "told of releases" and not one.ok]
        return fault.remedy

    assert f"{str(program)!r}, which is not there" in remedy(str(program))
    program.write_text("#!/bin/sh\n")
    assert remedy(str(program)).endswith(f"which may not be executed: `chmod +x '{program}'`.")
    assert "which is no whole path" in remedy("tell operators")
    assert "which is no file" in remedy(str(tmp_path))


@pytest.mark.parametrize(
    "command", ["rm -rf x", '"/bin/true"', "[]", '["true"]', '["/no/such/program"]', '["/bin/true", 3]', '["/tmp"]'],
    ids=["shell", "string", "empty", "relative", "missing", "number", "folder"],
)  # fmt: skip
def test_one_that_is_set_up_wrongly_is_said_before_anything_moves(
    released: Workspace, params: Params, registry: Registry, write_evaluation: Judge, monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("VIOLENCE_OPS_HOOK_COMMAND", command)
    with pytest.raises(UsageError, match="VIOLENCE_OPS_HOOK_COMMAND"):
        _release(Workspace(released.root), params, write_evaluation("1"))
    assert registry.alias("champion") is None
    assert [entry.event for entry in ledger.read(released)] == ["verdict"]
    assert "VIOLENCE_OPS_HOOK_COMMAND" in status.run(Workspace(released.root)).told["nobody"]
    faults = [finding for finding in doctor.run(released.root).findings if finding.what == "told of releases"]
    assert [fault.ok for fault in faults] == [False]


def test_output_that_cannot_be_kept_undoes_no_release_and_is_seen_in_status(
    released: Workspace, params: Params, registry: Registry, write_evaluation: Judge, install: Install
) -> None:
    taken, workspace = install(KEEP), Workspace(released.root)
    (workspace.services / "hook.log").mkdir(parents=True)  # as unwritable as on a full disk
    result = _release(workspace, params, write_evaluation("1"))
    assert (registry.alias("champion"), result.moved) == ("1", True)
    assert "(exit status 0) cannot be kept in" in (result.untold or "")
    assert "hook: 1 not told: The output of the command hook tell" in "\n".join(status.run(workspace).lines())
    (workspace.services / "hook.log").rmdir()
    assert notify.run(workspace).told == {"hook": [4]}
    assert len(_lines(taken)) == 2  # at least once: it is known by its `seq`
