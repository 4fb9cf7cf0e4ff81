"""Processes in sessions of their own, ended with all they started: services of a workspace, which are remembered, and programs
that are run to their end."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Thread
from typing import IO, Any, Final, Self
from uuid import uuid4

import psutil

from violence_ops.files import read_json, write_json

_CLOCK_TOLERANCE_S: Final = 2.0
_PIECE: Final = 65536
_STARTED: Final = 19
"""The place of its start in /proc/PID/stat, counted from the process's state."""
_NEVER: Final = -1
_MARK: Final = "VIOLENCE_OPS_PROGRAM"
"""The variable by which what a program started is known for its own."""


@dataclass(frozen=True, slots=True)
class Service:
    """One process that was started here.

    Its pid counts only together with its start, as pids are reused: in which run of the system (`boot`), after how many `ticks`
    of it. A time of day would not do, as a step of the clock moves what the system says of every process.
    """

    name: str
    pid: int
    boot: str
    ticks: int

    @classmethod
    def of(cls, name: str, pid: int) -> Self:
        """The process that has this pid now. Raises psutil.NoSuchProcess."""
        return cls(name, pid, _boot(), _ticks(pid))

    @property
    def is_alive(self) -> bool:
        try:
            return self._is_me() and is_alive(psutil.Process(self.pid))
        except psutil.NoSuchProcess:
            return False

    def _is_me(self) -> bool:
        """Whether what has its pid now is it. Raises psutil.NoSuchProcess."""
        return (self.boot, self.ticks) == (_boot(), _ticks(self.pid))

    def members(self, folder: Path) -> list[psutil.Process]:
        """Everything that is alive of its session, and their children: also what its death left behind.

        If the leader is dead, a member counts only if it works inside `folder`.
        """
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == self.pid and self._belongs(process, folder):
                    found |= {each.pid: each for each in (process, *process.children(recursive=True))}
            except (psutil.Error, ProcessLookupError, PermissionError):
                continue  # it has just ended, or it is somebody else's
        return list(found.values())

    def listens(self, port: int, folder: Path) -> bool:
        """Whether one of its `members` listens on a TCP port; yes if that cannot be seen."""
        for member in self.members(folder):
            try:
                connections = member.net_connections("tcp")
            except psutil.AccessDenied:
                return True
            except psutil.NoSuchProcess:
                continue
            if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections):
                return True
        return False

    def _belongs(self, process: psutil.Process, folder: Path) -> bool:
        is_older = self.boot != _boot() or _ticks(process.pid) < self.ticks
        if is_older or process.status() == psutil.STATUS_ZOMBIE:
            return False
        with suppress(psutil.NoSuchProcess):
            return self._is_me()
        return Path(process.cwd()).is_relative_to(folder)


def _boot() -> str:
    """The id of this run of the system."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def _ticks(pid: int) -> int:
    """How many ticks after the system a process was started. Raises psutil.NoSuchProcess."""
    try:
        facts = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        raise psutil.NoSuchProcess(pid) from None
    return int(facts.rpartition(b")")[2].split()[_STARTED])  # before it its name, in which anything may stand


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs still. One that has ended stays in the system's table until its parent has asked for its code."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def start(folder: Path, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Service:
    """Start a process in a session of its own, its output in `<folder>/<name>.log`, and remember it in `<folder>/<name>.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    service = Service.of(name, process.pid)
    write_json(folder / f"{name}.json", asdict(service))
    return service


def recorded(folder: Path, names: Iterable[str]) -> list[Service]:
    """What was started and not stopped, alive or not."""
    files = (folder / f"{name}.json" for name in names)
    remedy = "end what it names by hand, if that runs still, and remove it"
    return [read_json(file, remedy).to(lambda content: _service(folder, content)) for file in files if file.is_file()]


def _service(folder: Path, content: dict[str, Any]) -> Service:
    return _dated(folder, **content) if "created" in content else Service(**content)


def _dated(folder: Path, name: str, pid: int, created: float) -> Service:
    """A service whose record holds a time of day, as all did until November 2026.

    The clock may have been stepped since: a process with its pid and another time counts if it may be the service all the same.
    """
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        process = psutil.Process(pid)
        if abs(process.create_time() - created) < _CLOCK_TOLERANCE_S or _may_be_of(folder, process):
            return Service.of(name, pid)
    return Service(name, pid, _boot(), _NEVER)


def _may_be_of(folder: Path, process: psutil.Process) -> bool:
    """Whether a process leads a session and works in `folder`, as services do; yes if that cannot be seen."""
    with suppress(psutil.AccessDenied):
        return os.getsid(process.pid) == process.pid and Path(process.cwd()) == folder.resolve()
    return True


def stop(folder: Path, services: Sequence[Service], *, workspace: Path, patience_s: float) -> int:
    """End services and all they started, and forget those that ended; returns how many processes there were."""
    count = end(services, within=workspace, patience_s=patience_s)
    for service in services:
        if not service.members(workspace):
            (folder / f"{service.name}.json").unlink(missing_ok=True)
    return count


def end(services: Sequence[Service], *, within: Path, patience_s: float) -> int:
    """End services and all they started; ask first, after `patience_s` insist. Returns how many processes there were.

    What a dead service left behind counts only if it works inside the folder `within`.
    """
    everything = {member.pid: member for service in services for member in service.members(within)}
    for service in services:
        with suppress(psutil.Error):  # it has just ended, or it is somebody else's
            if service.is_alive:
                psutil.Process(service.pid).terminate()
    psutil.wait_procs(list(everything.values()), timeout=patience_s)
    limit = time.monotonic() + patience_s
    while remaining := [member for service in services for member in service.members(within)]:
        everything |= {member.pid: member for member in remaining}
        for member in remaining:
            with suppress(psutil.Error):  # it has just ended, or it is somebody else's by now
                member.kill()
        psutil.wait_procs(remaining, timeout=1.0)
        if time.monotonic() > limit:
            break
    return len(everything)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: its exit status (negative: the signal), None if its time was up; and the end of its output."""

    status: int | None
    output: bytes


def run(
    command: Sequence[str],
    given: bytes,
    *,
    environment: Mapping[str, str],
    timeout_s: float,
    keep: int,
    patience_s: float,
) -> Ended:
    """Run a program with `given` on its standard input, at most `timeout_s` long; nothing that it started outlives it.

    That takes in what left its session, as daemons do: it is known by a mark in the environment that all it starts inherits,
    unless it is given another. What another program starts for it, like cron, is not its own.
    Of stdout and stderr together the last `keep` bytes are returned, the rest is read and dropped. Raises OSError if it cannot
    be started.
    """
    kept, mark = bytearray(), uuid4().hex
    with tempfile.TemporaryFile() as file:  # no pipe: a program that does not read must not block
        file.write(given)
        file.seek(0)
        program = subprocess.Popen(
            command, cwd="/", env={**environment, _MARK: mark}, stdin=file, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True, bufsize=0,
        )  # fmt: skip
    service = Service.of(Path(command[0]).name, program.pid)
    assert program.stdout
    reader = Thread(target=_keep_end, args=(program.stdout, keep, kept), daemon=True)
    reader.start()
    try:
        status: int | None = program.wait(timeout_s)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        end([service], within=Path("/"), patience_s=patience_s)
        _kill_marked(mark, patience_s)
        program.wait()
        reader.join(patience_s)
    return Ended(status, bytes(kept))


def _kill_marked(mark: str, patience_s: float) -> None:
    limit = time.monotonic() + patience_s
    while (left := [each for each in psutil.process_iter() if _is_marked(each, mark)]) and time.monotonic() < limit:
        for process in left:
            with suppress(psutil.Error):  # it has just ended, or it is somebody else's by now
                process.kill()
        psutil.wait_procs(left, timeout=1.0)


def _is_marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(_MARK) == mark
    except (psutil.Error, OSError):  # it has just ended, or it is somebody else's
        return False


def _keep_end(pipe: IO[bytes], keep: int, kept: bytearray) -> None:
    with pipe:
        while piece := pipe.read(_PIECE):
            kept += piece
            del kept[:-keep]


def last_lines(folder: Path, name: str, count: int = 5) -> str:
    """The end of a service's log."""
    log = folder / f"{name}.log"
    return "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-count:]) if log.is_file() else ""
