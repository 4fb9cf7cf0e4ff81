"""What `up` started is ended with everything it started, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from violence_ops import processes
from violence_ops.files import write_json

_TREE = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); print('up', flush=True); time.sleep(600)"
_ODD = f"open('/proc/self/comm', 'w').write('a) S 1 (b'); {_TREE}"
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


@pytest.mark.parametrize("old", [False, True], ids=["", "old record"])
def test_what_a_killed_service_left_behind_is_ended_too(
    start: Callable[[str], processes.Service], tmp_path: Path, old: bool
) -> None:
    service = start(_TREE)
    leader = psutil.Process(service.pid)
    (child,), created = leader.children(), leader.create_time()
    leader.kill()
    leader.wait()
    assert not service.is_alive
    assert child.is_running()
    if old:
        service = _record_as_before(tmp_path / "services", service.pid, created)
    _stop(tmp_path, service)
    assert service.members(tmp_path) == []


def test_a_service_that_ignores_the_request_is_killed(
    start: Callable[[str], processes.Service], tmp_path: Path
) -> None:
    service = start(_STUBBORN)
    assert _stop(tmp_path, service) == 1
    assert not service.is_alive


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is nobody's service."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True) as process:
        yield process
        assert process.poll() is None
        process.kill()


def _record_as_before(folder: Path, pid: int, created: float) -> processes.Service:
    """What the record of a version of before December 2026 is taken for."""
    write_json(folder / "it.json", {"name": "it", "pid": pid, "created": created})
    (service,) = processes.recorded(folder, ["it"])
    return service


@pytest.mark.parametrize("change", [{"ticks": 1}, {"boot": "another"}], ids=["another time", "after a reboot"])
def test_another_process_with_the_same_pid_is_left_alone(
    tmp_path: Path, other: subprocess.Popen[bytes], change: dict[str, Any]
) -> None:
    it = processes.Service.of("it", other.pid)
    assert it.is_alive
    service = replace(it, **change)
    assert not service.is_alive
    assert _stop(tmp_path, service) == 0


def test_another_process_that_an_old_record_names_is_left_alone(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    created = psutil.Process(other.pid).create_time()
    assert _record_as_before(tmp_path, other.pid, created).is_alive
    service = _record_as_before(tmp_path, other.pid, created - 1000)
    assert not service.is_alive
    assert processes.stop(tmp_path, [service], workspace=tmp_path, patience_s=0.5) == 0
    assert processes.recorded(tmp_path, ["it"]) == []


@pytest.mark.parametrize("code", [_TREE, _ODD], ids=["plain", "odd name"])
@pytest.mark.parametrize("old", [False, True], ids=["", "old record"])
@pytest.mark.parametrize("step_s", [-3600.0, 5.0])
def test_a_step_of_the_clock_loses_no_service(
    start: Callable[[str], processes.Service],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    old: bool,
    step_s: float,
) -> None:
    folder, started = tmp_path / "services", start(code)
    if old:
        _record_as_before(folder, started.pid, psutil.Process(started.pid).create_time())
    boot_time = psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot_time + step_s)
    (service,) = processes.recorded(folder, ["it"])
    assert service.is_alive
    assert _stop(tmp_path, service) == 2
    assert not started.is_alive
    assert processes.recorded(folder, ["it"]) == []


def test_the_record_of_what_may_be_the_service_and_cannot_be_ended_stays(
    tmp_path: Path, other: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another user, with a record of before December 2026."""

    def closed(process: psutil.Process) -> None:
        raise psutil.AccessDenied(process.pid)

    for name in ("cwd", "terminate", "kill"):
        monkeypatch.setattr(psutil.Process, name, closed)
    service = _record_as_before(tmp_path, other.pid, 0.0)
    processes.stop(tmp_path, [service], workspace=tmp_path, patience_s=0.5)
    assert processes.recorded(tmp_path, ["it"]) == [service]


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


_LEAVE = """
import os, time
read, write = os.pipe()
if os.fork():
    os.read(read, 1)
else:
    os.setsid()
    print(os.getpid(), flush=True)
    os.write(write, b"1")
    time.sleep(600)
"""
_DAEMON = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {_LEAVE!r}])"


@pytest.mark.parametrize("code", [_LEAVE, _DAEMON], ids=["a session of its own", "a daemon"])
@pytest.mark.parametrize(
    ("wait", "status", "timeout_s"), [("", 0, 60.0), ("time.sleep(600)", None, 5.0)], ids=["ends", "hangs"]
)
def test_what_left_the_session_of_a_program_does_not_outlive_it_either(
    code: str, wait: str, status: int | None, timeout_s: float
) -> None:
    ended = _run(f"{code}\n{wait}", timeout_s=timeout_s)
    assert ended.status == status
    pid = int(ended.output)
    assert not [each for each in psutil.process_iter() if each.pid == pid and processes.is_alive(each)]


def test_the_end_of_a_program_leaves_all_other_processes_alone(other: subprocess.Popen[bytes]) -> None:
    with ThreadPoolExecutor() as threads:
        beside = threads.submit(_run, "import time; time.sleep(3); print('done', end='')")
        assert _run(_LEAVE).status == 0
        assert beside.result() == processes.Ended(0, b"done")
