"""git of a workspace, which is a repository of its own; with `git_history` and `git_index` all that speaks to it.

Whoever commits holds the workspace's lock `versioning`.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from violence_ops import git_index
from violence_ops.errors import ServiceUnavailable, WorkspaceError
from violence_ops.workspace import Workspace

_LOCK_PATIENCE_S: Final = 10.0
AUTHOR: Final = {"name": "violence-ops", "email": "violence-ops@localhost"}
"""Who commits to a workspace's git."""
_SETTINGS: Final = (
    "-c", f"user.name={AUTHOR['name']}", "-c", f"user.email={AUTHOR['email']}", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false",
    "-c", "core.hooksPath=/dev/null", "-c", "init.defaultBranch=main", "-c", "core.quotePath=false", "-c", "gc.auto=0",
    "-c", "core.autocrlf=false", "-c", "core.fsmonitor=false", "-c", "core.excludesFile=/dev/null", "-c", "core.attributesFile=/dev/null",
    "-c", "log.showSignature=false",
    "-c", "gc.reflogExpire=never", "-c", "gc.reflogExpireUnreachable=never", "-c", "pack.threads=1", "-c", "pack.windowMemory=256m",
)  # fmt: skip
"""What git is told in every call, also against the settings that the workspace has of its own. Of the programs that those can name,
filters of files' contents may run, and what fetches objects that a partial clone lacks: who opens a workspace trusts it
(`Workspace.around`). Editors, pagers, diffs, text conversions and signatures are asked for by no command used here."""
_ENVIRONMENT: Final = {
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1", "GIT_EDITOR": "false",
    "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C",
}  # fmt: skip
"""The settings of a user or a machine, which are for their own work, change nothing here: one may sign tags, or show changes in
another form. Nobody is asked for anything, and errors are in English."""


def has_commits(workspace: Workspace) -> bool:
    """Whether the workspace's first commit has been made."""
    return bool(run(workspace, "rev-list", "--all", "--max-count=1"))


def revision(workspace: Workspace) -> str:
    """The commit that the workspace stands on."""
    return run(workspace, "rev-parse", "HEAD")


def check_branch(workspace: Workspace) -> None:
    """Raise WorkspaceError if git is on no branch, where a commit is lost as soon as somebody goes back to one."""
    if not run(workspace, "branch", "--show-current"):
        newest = [*branches(workspace), "BRANCH"][0]
        raise WorkspaceError(
            f"{workspace.root} is {standing(workspace)}, where what is written is lost: if `dvc exp run` runs there let it end, else "
            f"`git switch {newest}`, then run this again."
        )


@contextmanager
def writing(workspace: Workspace) -> Iterator[Callable[[Iterable[Path], str], None]]:
    """Hold the writer's lock to change files and commit them; yields what commits files or folders, and nothing else.

    Raises, before anything is changed, WorkspaceError if git is on no branch, ServiceUnavailable if another git command keeps it.
    """
    with workspace.lock("versioning"):
        check_branch(workspace)
        git_index.wait_for(workspace)
        yield partial(commit_paths, workspace)


def commit(workspace: Workspace, paths: Iterable[Path], message: str, *, ignored: bool = False) -> str:
    """Commit these files or folders, and nothing else, to the workspace's git; a no-op if nothing changed. Of what git ignores
    nothing is added, unless with `ignored`.

    Raises WorkspaceError if git is on no branch.
    """
    with workspace.lock("versioning"):
        check_branch(workspace)
        commit_paths(workspace, paths, message, ignored=ignored)
    return revision(workspace)


def committed(workspace: Workspace, path: Path) -> bytes:
    """A text file's content in the last commit, without the space around it; nothing if the file is not in it."""
    return content_at(workspace, "HEAD", str(path.relative_to(workspace.root))) if has_commits(workspace) else b""


def branches(workspace: Workspace) -> list[str]:
    """The branches, the one that was committed to last before the others."""
    return run(
        workspace, "for-each-ref", "--sort=-committerdate", "--format=%(refname:lstrip=2)", "refs/heads"
    ).splitlines()


def standing(workspace: Workspace) -> str:
    """Where git is, in words."""
    branch = run(workspace, "branch", "--show-current")
    return (
        f"on branch {branch}"
        if branch
        else f"on no branch (HEAD is detached at {run(workspace, 'rev-parse', '--short', 'HEAD')})"
    )


def content_at(workspace: Workspace, commit: str, name: str) -> bytes:
    """A tracked file as a commit has it, without white space around it; empty if the commit has none."""
    held = run(workspace, "ls-tree", "--name-only", commit, "--", name)
    return run_bytes(workspace, "show", f"{commit}:{name}").strip() if held else b""


def loose_objects(workspace: Workspace) -> int:
    """How many of git's objects lie in a file each, not yet packed."""
    return _counts(workspace)["count"]


def pack(workspace: Workspace) -> int:
    """Put all of git's objects into one compressed file; nothing is dropped, whatever no branch leads to any more included.

    Returns how many bytes less they take. Commits wait meanwhile. Raises WorkspaceError if a person's `git gc` runs.
    """
    with workspace.lock("versioning"):
        before = _size(workspace)
        run(workspace, "gc", "--quiet", "--no-prune")
        return before - _size(workspace)


def _size(workspace: Workspace) -> int:
    """What git's objects take on the disk, in bytes."""
    counts = _counts(workspace)
    return (counts["size"] + counts["size-pack"]) * 1024


def _counts(workspace: Workspace) -> dict[str, int]:
    lines = (line.partition(": ") for line in run(workspace, "count-objects", "-v").splitlines())
    return {name: int(value) for name, _, value in lines if value.isdecimal()}


def run(workspace: Workspace, *arguments: str) -> str:
    """What a git command prints, without the space around it. Raises WorkspaceError, with git's reason, if it fails,
    ServiceUnavailable if that is a lock file which another git command has kept for 10 s."""
    return os.fsdecode(run_bytes(workspace, *arguments)).strip()


def run_bytes(workspace: Workspace, *arguments: str, given: bytes = b"") -> bytes:
    """The same as bytes: a file's name or content need be no UTF-8. `given` is what the command reads."""
    command = ["git", *_SETTINGS, "-c", f"safe.directory={workspace.root}", "-C", str(workspace.root), *arguments]
    # nor do those of the shell count: of one in which GIT_DIR is set, as in a hook, all would go into another repository
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | _ENVIRONMENT
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while (done := subprocess.run(command, input=given, env=environment, capture_output=True, check=False)).returncode:
        said = f"git {arguments[0]} failed in {workspace.root}: {' '.join(os.fsdecode(done.stderr).split())}"
        # that of a file of git's: another command, as of an editor that shows what has changed, took it a moment ago
        if b".lock': File exists" not in done.stderr:
            raise WorkspaceError(said)
        if time.monotonic() > deadline:
            raise ServiceUnavailable(said)
        time.sleep(0.2)
    return done.stdout


def commit_paths(workspace: Workspace, paths: Iterable[Path], message: str, *, ignored: bool = False) -> None:
    """Add and commit, with `ignored` also what git ignores; the caller holds the lock."""
    git_index.wait_for(workspace)
    names = [str(path.relative_to(workspace.root)) for path in paths if path.exists()]
    if not names:
        return
    run(workspace, "add", *(["--force"] if ignored else []), "--", *names)
    if changed := run(workspace, "diff", "--cached", "--name-only", "-z", "--", *names):
        run(workspace, "commit", "--quiet", "-m", message, "--", *changed.strip("\0").split("\0"))
