"""What is free on this machine for further processes, within a container's limits: processors and memory; and what this one took."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")
_CACHES: Final = frozenset({"active_file", "inactive_file", "slab_reclaimable"})
"""Of `memory.stat`: what the kernel counts as available for a whole machine too (proc(5), `MemAvailable`)."""
_LOOK_S: Final = 0.25
"""How long the processors are watched."""


def free_processors(cgroup: Path = _CGROUP) -> int:
    """Processors that this process may use and that others leave idle at this moment; at least 1.

    A container's quota (cgroup v2, `cpu.max`) counts as that many processors.
    """
    import psutil

    allowed = len(os.sched_getaffinity(0))
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        allowed = min(allowed, math.ceil(int(quota) / int(period)))
    if allowed < 2:
        return 1
    idle = (1 - psutil.cpu_percent(interval=_LOOK_S) / 100) * (os.cpu_count() or 1)
    return max(1, min(allowed, round(idle)))


def free_memory(cgroup: Path = _CGROUP) -> int:
    """Bytes that can be had without swapping, within a container's limit (cgroup v2, `memory.max`)."""
    import psutil

    free = int(psutil.virtual_memory().available)
    limit, used = _read(cgroup / "memory.max"), _read(cgroup / "memory.current")
    if not (limit.isdigit() and used.isdigit()):
        return free
    return max(0, min(free, int(limit) - int(used) + _reclaimable(cgroup)))


@contextmanager
def peak_memory(process: Path = Path("/proc/self")) -> Iterator[Callable[[], int | None]]:
    """Gives what says, when called, the most bytes that this process held at once since the block began.

    None where the system cannot forget an older peak (proc(5), `clear_refs`).
    """
    try:
        (process / "clear_refs").write_text("5", "ascii")
    except OSError:
        yield lambda: None
        return

    def peak() -> int:
        lines = (process / "status").read_text("ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

    yield peak


def _reclaimable(cgroup: Path) -> int:
    """Bytes of the container's use that the kernel gives up on demand: caches, mostly of files that were read."""
    fields = (line.partition(" ") for line in _read(cgroup / "memory.stat").splitlines())
    return sum(int(size) for name, _, size in fields if name in _CACHES)


def _read(path: Path) -> str:
    """A cgroup's file; empty where there is none."""
    return path.read_text("ascii").strip() if path.is_file() else ""
