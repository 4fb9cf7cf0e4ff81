"""Long-running processes of a workspace: started in sessions of their own, remembered, and ended with all they started."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

from violence_ops.files import write_json

_CLOCK_TOLERANCE_S: Final = 2.0


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
            return self._is_me(process) and process.status() != psutil.STATUS_ZOMBIE
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
        if psutil.pid_exists(self.pid):
            return self._is_me(psutil.Process(self.pid))
        return Path(process.cwd()).is_relative_to(folder)


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
    return [Service(**json.loads(file.read_text("utf-8"))) for file in files if file.is_file()]


def stop(folder: Path, services: Sequence[Service], *, workspace: Path, patience_s: float) -> int:
    """End services and all they started; ask first, after `patience_s` insist. Returns how many processes there were."""
    everything = {member.pid: member for service in services for member in service.members(workspace)}
    for service in services:
        if service.is_alive:
            everything[service.pid].terminate()
    psutil.wait_procs(list(everything.values()), timeout=patience_s)
    limit = time.monotonic() + patience_s
    while remaining := [member for service in services for member in service.members(workspace)]:
        everything |= {member.pid: member for member in remaining}
        for member in remaining:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(remaining, timeout=1.0)
        if time.monotonic() > limit:
            break
    for service in services:
        if not service.members(workspace):
            (folder / f"{service.name}.json").unlink(missing_ok=True)
    return len(everything)


def last_lines(folder: Path, name: str, count: int = 5) -> str:
    """The end of a service's log."""
    log = folder / f"{name}.log"
    return "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-count:]) if log.is_file() else ""
