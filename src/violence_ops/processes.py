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
from typing import IO, Final

import psutil

from violence_ops.files import read_json, write_json

_CLOCK_TOLERANCE_S: Final = 2.0
_PIECE: Final = 65536


@dataclass(frozen=True, slots=True)
class Service:
    """One process that was started here. Its pid counts only together with the time of its creation: pids are reused."""

    name: str
    pid: int
    created: float

    @property
    def is_alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            return self._is_me(process) and is_alive(process)
        except psutil.NoSuchProcess:
            return False

    def _is_me(self, process: psutil.Process) -> bool:
        return abs(process.create_time() - self.created) < _CLOCK_TOLERANCE_S

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

    def _belongs(self, process: psutil.Process, folder: Path) -> bool:
        if process.create_time() < self.created - _CLOCK_TOLERANCE_S or process.status() == psutil.STATUS_ZOMBIE:
            return False
        with suppress(psutil.NoSuchProcess):
            return self._is_me(psutil.Process(self.pid))
        return Path(process.cwd()).is_relative_to(folder)


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
    service = Service(name, process.pid, psutil.Process(process.pid).create_time())
    write_json(folder / f"{name}.json", asdict(service))
    return service


def recorded(folder: Path, names: Iterable[str]) -> list[Service]:
    """What was started and not stopped, alive or not."""
    files = (folder / f"{name}.json" for name in names)
    remedy = "end what it names by hand, if that runs still, and remove it"
    return [read_json(file, remedy).to(lambda content: Service(**content)) for file in files if file.is_file()]


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
        with suppress(psutil.NoSuchProcess):
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

    Of stdout and stderr together the last `keep` bytes are returned, the rest is read and dropped. Raises OSError if it cannot
    be started.
    """
    kept = bytearray()
    with tempfile.TemporaryFile() as file:  # no pipe: a program that does not read must not block
        file.write(given)
        file.seek(0)
        program = subprocess.Popen(
            command, cwd="/", env=dict(environment), stdin=file, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, bufsize=0,
        )  # fmt: skip
    service = Service(Path(command[0]).name, program.pid, psutil.Process(program.pid).create_time())
    assert program.stdout
    reader = Thread(target=_keep_end, args=(program.stdout, keep, kept), daemon=True)
    reader.start()
    try:
        status: int | None = program.wait(timeout_s)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        end([service], within=Path("/"), patience_s=patience_s)
        program.wait()
        reader.join(patience_s)
    return Ended(status, bytes(kept))


def _keep_end(pipe: IO[bytes], keep: int, kept: bytearray) -> None:
    with pipe:
        while piece := pipe.read(_PIECE):
            kept += piece
            del kept[:-keep]


def last_lines(folder: Path, name: str, count: int = 5) -> str:
    """The end of a service's log."""
    log = folder / f"{name}.log"
    return "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-count:]) if log.is_file() else ""
