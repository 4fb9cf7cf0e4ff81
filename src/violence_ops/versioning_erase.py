"""The other half of versioning: a new version that lacks something, and the erasing of what only versions that have it need.

Versions are the folders that any commit's pointers (`*.dvc`, `dvc.lock`) name, and those that only the cache lists: of `dvc repro`
run twice without a commit in between, no commit names what the first run stored. What only the remote lists may be another
workspace's. Erasing deletes objects from DVC's cache and from
the default remote; the pointers themselves, which are hashes, stay in git's history.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from violence_ops import git, git_index
from violence_ops.errors import WorkspaceError
from violence_ops.versioning import add_and_push, repository, translated
from violence_ops.workspace import Workspace

_FOLDER: Final = re.compile(rb"\bmd5: ([0-9a-f]{32}\.dir)")

Holds = Callable[[str, Callable[[], IO[bytes]] | None], bool | None]
"""Whether a file of a version has what is to be erased, None if it cannot be read: its name, and what opens it if it is still
there."""


@dataclass(frozen=True, slots=True)
class Erased:
    """How many versions lost files, how many objects were deleted, the bytes that these took in all stores, and sentences about
    what could not be. In a dry run: would."""

    versions: int
    objects: int
    size: int
    left: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Tree:
    """A version of a folder: its object, the pointer that names it (None if no commit does), and its files' objects by name."""

    oid: str
    pointer: str | None
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an object lies."""

    files: Any
    path: str

    def open(self) -> IO[bytes]:
        opened: IO[bytes] = self.files.open(self.path, "rb")
        return opened


def replace(workspace: Workspace, folder: Path, message: str, tag: str) -> str:
    """Put the changed content of a versioned folder under version control, push it, and move its tag. Returns the commit.

    Can be repeated after a crash. Raises ServiceUnavailable if the remote cannot be reached, WorkspaceError if git is on no
    branch.
    """
    return add_and_push(workspace, folder, message, tag, moved=True)


def remove(workspace: Workspace, folder: Path, message: str) -> None:
    """Take a versioned folder out of the workspace, with its pointer. Can be repeated after a crash.

    Raises WorkspaceError if git is on no branch.
    """
    pointer = folder.with_name(f"{folder.name}.dvc")
    name = str(pointer.relative_to(workspace.root))
    with workspace.lock("versioning"):
        git.check_branch(workspace)
        git_index.wait_for(workspace)
        git.run(workspace, "rm", "--quiet", "--force", "--ignore-unmatch", "--", name)
        if git.run(workspace, "diff", "--cached", "--name-only", "--", name):
            git.run(workspace, "commit", "--quiet", "-m", message, "--", name)
        # last: what is still there when it is killed is found by whoever removes it again
        shutil.rmtree(folder, ignore_errors=True)


def erase(workspace: Workspace, pointers: Collection[str], holds: Holds, *, dry_run: bool = False) -> Erased:
    """Delete the objects of all versions of these `pointers` (paths in the workspace), and of those that no commit names, that
    have a file which `holds` it.

    What another version needs too stays. Killed half-way, it can be repeated: the files by which versions are known go last.
    Waits for the uploads under way, which may be sending what is to be erased. Raises ServiceUnavailable if a store stops answering
    in the middle.
    """
    with workspace.lock("push"), repository(workspace) as repo:
        return translated(workspace, lambda: _erase(workspace, repo, pointers, holds, dry_run))


def _erase(workspace: Workspace, repo: Any, pointers: Collection[str], holds: Holds, dry_run: bool) -> Erased:
    stores = {"cache": repo.cache.local, "remote": repo.cloud.get_remote_odb()}
    left: list[str] = []
    reached = [store for name, store in stores.items() if _is_reached(name, store, left)]
    listed = stores["cache"].all() if stores["cache"] in reached else ()
    trees = list(_trees(workspace, reached, listed))
    known = {
        tree.oid: found
        for tree in trees
        if tree.pointer in (None, *pointers) and (found := _witness(tree, reached, holds, left))
    }
    needed = {oid for tree in trees if tree.oid not in known for oid in tree.files.values()}
    witnesses = set(known.values())
    rest = {oid for tree in trees if tree.oid in known for oid in tree.files.values()} - witnesses
    objects: set[str] = set()
    size = 0
    for oids in (rest, witnesses, set(known)):  # in this order, as versions share files
        for store in reached:
            there = {oid: store.fs.size(store.oid_to_path(oid)) for oid in sorted(oids - needed) if store.exists(oid)}
            for oid in () if dry_run else there:
                store.delete(oid)
            objects |= there.keys()
            size += sum(there.values())
    return Erased(len(known), len(objects), size, tuple(dict.fromkeys(left)))


def _is_reached(name: str, store: Any, left: list[str]) -> bool:
    """Whether a store answers; if not, a sentence about it is added."""
    from botocore.exceptions import BotoCoreError
    from dvc.exceptions import DvcException

    try:
        store.fs.exists(store.path)
    except (OSError, BotoCoreError, DvcException) as error:
        left.append(f"The {name} {store.path} cannot be reached ({error}): run this again when it can.")
        return False
    return True


def _trees(workspace: Workspace, stores: list[Any], listed: Iterable[str]) -> Iterator[_Tree]:
    """Every version that a commit names or whose object is `listed`, and of which a store knows the files."""
    found: dict[str, str | None] = {}
    for pointer, content in _pointers(workspace):
        for oid in _FOLDER.findall(content):
            found.setdefault(oid.decode(), pointer)
    found = dict.fromkeys(sorted(oid for oid in listed if oid.endswith(".dir"))) | found
    for oid, named_by in found.items():
        if place := _place(stores, oid):
            yield _Tree(oid, named_by, _files_in(place))


def _pointers(workspace: Workspace) -> Iterator[tuple[str, bytes]]:
    """Every content that a pointer ever had in a commit, after its name, the last commit's first.

    Asked of git's objects: how `git log` shows a change is for the settings of a person and the attributes of files to say.
    """
    commits = git.run_bytes(workspace, "rev-list", "--all")
    options = ("-r", "-m", "--root", "--raw", "-z", "--no-renames", "--no-commit-id")
    changes = git.run_bytes(workspace, "diff-tree", "--stdin", *options, "--", "*.dvc", "dvc.lock", given=commits)
    facts, names = changes.split(b"\0")[:-1:2], changes.split(b"\0")[1::2]
    blobs = [fact.split()[3] for fact in facts]
    said = io.BytesIO(git.run_bytes(workspace, "cat-file", "--batch", given=b"".join(blob + b"\n" for blob in blobs)))
    for name in names:
        head = said.readline()
        if not head.endswith(b" missing\n"):  # as of one that a commit took away
            yield os.fsdecode(name), said.read(int(head.split()[2]))
            said.readline()


def _files_in(place: _Place) -> dict[str, str]:
    """The objects of a version's files by name. Raises WorkspaceError if the list is damaged: it may name what others need."""
    try:
        with place.open() as file:
            return {entry["relpath"]: entry["md5"] for entry in json.load(file)}
    except (ValueError, KeyError, TypeError):
        raise WorkspaceError(
            f"{place.path}, which lists the files of a stored version, is damaged: bring it back from a backup or delete it, then "
            "run this again."
        ) from None


def _witness(tree: _Tree, stores: Collection[Any], holds: Holds, left: list[str]) -> str | None:
    """The object of a file by which a version is known to have what is to be erased.

    If there is none, a sentence is added about each file that could not be asked.
    """
    unread = []
    for name, oid in tree.files.items():
        place = _place(stores, oid)
        found = holds(name, place.open if place else None)
        if found:
            return oid
        if place and found is None:
            unread.append(
                f"{place.path}, the {name} of a version that {tree.pointer or 'no commit'} named, cannot be read: delete that "
                "file if it is damaged, then run this again."
            )
    left += unread
    return None


def _place(stores: Collection[Any], oid: str) -> _Place | None:
    """Where the first store that has an object keeps it."""
    return next((_Place(store.fs, store.oid_to_path(oid)) for store in stores if store.exists(oid)), None)
