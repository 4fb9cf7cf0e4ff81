"""What `up` started is ended with everything it started, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from violence_ops import processes

_TREE = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); print('up', flush=True); time.sleep(600)"
_STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)


@pytest.fixture
def start(tmp_path: Path) -> Callable[[str], processes.Service]:
    def run(code: str) -> processes.Service:
        service = processes.start(tmp_path / "services", "it", [sys.executable, "-c", code], os.environ)
        limit = time.monotonic() + 60
        while "up" not in processes.last_lines(tmp_path / "services", "it"):
            assert time.monotonic() < limit
            time.sleep(0.05)
        return service

    return run


def _stop(tmp_path: Path, service: processes.Service) -> int:
    return processes.stop(tmp_path / "services", [service], workspace=tmp_path, patience_s=0.5)


def test_children_end_with_their_service(start: Callable[[str], processes.Service], tmp_path: Path) -> None:
    service = start(_TREE)
    members = service.members(tmp_path)
    assert len(members) == 2
    assert _stop(tmp_path, service) == 2
    assert not any(processes.is_alive(member) for member in members)
    assert processes.recorded(tmp_path / "services", ["it"]) == []


def test_what_a_killed_service_left_behind_is_ended_too(
    start: Callable[[str], processes.Service], tmp_path: Path
) -> None:
    service = start(_TREE)
    (child,) = psutil.Process(service.pid).children()
    leader = psutil.Process(service.pid)
    leader.kill()
    leader.wait()
    assert not service.is_alive
    assert child.is_running()
    _stop(tmp_path, service)
    assert service.members(tmp_path) == []


def test_a_service_that_ignores_the_request_is_killed(
    start: Callable[[str], processes.Service], tmp_path: Path
) -> None:
    service = start(_STUBBORN)
    assert _stop(tmp_path, service) == 1
    assert not service.is_alive


def test_another_process_with_the_same_pid_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True) as other:
        earlier = psutil.Process(other.pid).create_time() - 1000
        service = processes.Service("it", other.pid, earlier)
        assert not service.is_alive
        assert _stop(tmp_path, service) == 0
        assert other.poll() is None
        assert replace(service, created=earlier + 1000).is_alive
        other.kill()


def test_stopping_twice_does_nothing(start: Callable[[str], processes.Service], tmp_path: Path) -> None:
    service = start(_TREE)
    _stop(tmp_path, service)
    assert _stop(tmp_path, service) == 0


def _run(code: str, given: bytes = b"", timeout_s: float = 60.0) -> processes.Ended:
    command = [sys.executable, "-c", code]
    return processes.run(command, given, environment=os.environ, timeout_s=timeout_s, keep=10, patience_s=0.5)


def test_a_program_gets_its_input_and_the_end_of_both_its_outputs_is_kept() -> None:
    code = "import sys; print(sys.stdin.read(), flush=True); print('to stderr', end='', file=sys.stderr); sys.exit(7)"
    assert _run(code, b"given") == processes.Ended(7, b"\nto stderr")


def test_a_program_that_does_not_read_does_not_block() -> None:
    assert _run("", b"x" * 10_000_000) == processes.Ended(0, b"")


@pytest.mark.parametrize(
    ("wait", "status", "timeout_s"), [("", 0, 60.0), ("time.sleep(600)", None, 5.0)], ids=["ends", "hangs"]
)
def test_nothing_that_a_program_started_outlives_it(wait: str, status: int | None, timeout_s: float) -> None:
    code = f"import subprocess, sys, time; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, flush=True); {wait}"
    ended = _run(code, timeout_s=timeout_s)
    assert ended.status == status
    pid = int(ended.output)
    assert not [each for each in psutil.process_iter() if each.pid == pid and processes.is_alive(each)]
