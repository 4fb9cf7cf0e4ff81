"""What git's history says of a file that only ever grows: whether a line was lost, here or to another branch."""

from __future__ import annotations

import hashlib
from itertools import accumulate
from pathlib import Path

from violence_ops import git
from violence_ops.workspace import Workspace


def lost_content(workspace: Workspace, path: Path) -> str | None:
    """The commit that holds content of an append-only text file which the file has lost since, None if there is none; of
    several the newest.

    Looks at all that led to the last commit, on both sides of a merge.
    """
    return _lost(workspace, path, "HEAD") if git.has_commits(workspace) else None


def goes_on_elsewhere(workspace: Workspace, path: Path) -> str | None:
    """Where an append-only text file has content that it lacks here, and what brings it back, in words; None if nowhere.

    Looks at every other branch: an earlier commit that was checked out lacks what came after it, and so may a branch.
    """
    name = path.relative_to(workspace.root)
    here = git.run(workspace, "branch", "--show-current")
    for branch in git.branches(workspace):
        if branch != here and _lost(workspace, path, f"refs/heads/{branch}", "^HEAD"):
            return (
                f"branch {branch} holds lines of {name} that are not here, because {workspace.root} is {git.standing(workspace)}: "
                f"`git switch {branch} && violence-ops dvc checkout` goes back to it."
            )
    return None


def _lost(workspace: Workspace, path: Path, *revisions: str) -> str | None:
    """The newest commit of these revisions with content that `path` does not begin with, in short."""
    name, present = str(path.relative_to(workspace.root)), path.read_bytes() if path.is_file() else b""
    log = ("log", "--full-history", "-m", "--format=%x00%H", "--raw", "--no-abbrev")
    known: set[str] = set()
    for found in git.run(workspace, *log, *revisions, "--", name).split("\0")[1:]:
        commit, *changes = found.split("\n")
        for blob in (change.split()[3] for change in changes if change.startswith(":")):
            if not known:
                known = _beginnings(present, len(blob))
            if blob not in known and not present.startswith(git.content_at(workspace, commit, name)):
                return git.run(workspace, "rev-parse", "--short", commit)
    return None


def _beginnings(content: bytes, digits: int) -> set[str]:
    """What git, whose names of objects have so many digits, calls the first lines of a text, however many they are, and no text
    at all: reading every version instead takes ten times as long."""
    sha = hashlib.sha1 if digits == 40 else hashlib.sha256
    ends = [0, *accumulate(map(len, content.splitlines(keepends=True)))]
    return {sha(b"blob %d\0" % end + content[:end]).hexdigest() for end in ends} | {"0" * digits}
