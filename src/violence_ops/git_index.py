"""Git's lock file of the index: a person's command that holds it is waited for, what a killed one left is removed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import psutil

from violence_ops.errors import ServiceUnavailable
from violence_ops.workspace import Workspace

# Git holds it for moments, or while somebody writes a message in an editor. Releases wait for us meanwhile, so not for long.
_PATIENCE_S: Final = 60.0
# The git of another container or machine cannot be seen: time to write a message there, and the last retry of a night heals itself.
_DEAD_AFTER_S: Final = 300.0


def wait_for(workspace: Workspace) -> None:
    """Wait until the index is free, a minute at most; the caller holds the writer's lock, so that none of our own has it.

    A lock file older than five minutes without a git process in the workspace is removed: its owner was killed. Raises
    ServiceUnavailable, naming the file, if the index is not free.
    """
    lock = workspace.root / ".git" / "index.lock"
    deadline = time.monotonic() + _PATIENCE_S
    while (age := _age_s(lock)) is not None:
        owner = _git_in(workspace)
        if owner is None and age > _DEAD_AFTER_S:
            lock.unlink(missing_ok=True)
            return
        if time.monotonic() > deadline:
            if owner:
                todo = f"end the git command that holds it (process {owner}; perhaps an open editor of `git commit`)"
            else:
                todo = (
                    "end the git command that holds it; if none runs, here or in a container, remove the file "
                    f"(after {_DEAD_AFTER_S / 60:.0f} minutes that is done by itself)"
                )
            raise ServiceUnavailable(f"{lock} has been there for {_PATIENCE_S:.0f} s: {todo}, then run this again.")
        time.sleep(0.2)


def _age_s(path: Path) -> float | None:
    """How long a file has been there, in seconds; None if it is not."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None


def _git_in(workspace: Workspace) -> int | None:
    """A git process, as far as this machine or container shows them, that runs in the workspace."""
    for process in psutil.process_iter(["name", "cwd"]):
        name, folder = process.info["name"], process.info["cwd"]
        if name == "git" and folder and Path(folder).is_relative_to(workspace.root):
            return int(process.pid)
    return None
