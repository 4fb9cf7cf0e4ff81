"""What is free on this machine for further processes: processors and memory, within a container's limits."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")
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
    return max(0, min(free, int(limit) - int(used))) if limit.isdigit() and used.isdigit() else free


def _read(path: Path) -> str:
    """A cgroup's file; empty where there is none."""
    return path.read_text("ascii").strip() if path.is_file() else ""
