"""Claim folders: what an ingestion run has taken out of the inbox and not yet sorted.

A run holds a lock on its folder. If it dies the system frees the lock, and the next run adopts the folder: nothing is lost
and nothing is sorted twice.

    work/claims/<night>-<random>/lock
                                 plan.json        what is about to be taken, under which number
                                 files/<number>   the files themselves
                                 decision.json    what becomes of each; written once, then carried out to the end
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from typing_extensions import TypedDict

from violence_ops import drop_folder
from violence_ops.catalog import Catalog
from violence_ops.errors import WorkspaceError
from violence_ops.files import atomic_path, read_json, sync_folder, write_json
from violence_ops.records import ClipRecord
from violence_ops.store.inbox import Drop
from violence_ops.workspace import Workspace


class _Plan(TypedDict):
    night: str
    drops: dict[int, Drop]


class _Taken(TypedDict):
    number: int
    clip: ClipRecord


class _Refused(_Taken):
    message: str


class _Notice(TypedDict):
    clip_id: str
    message: str


class _Decision(TypedDict):
    batch_id: str | None
    refused: list[_Refused]
    duplicates: list[ClipRecord]
    notices: list[_Notice]
    clips: list[_Taken]


@dataclass(slots=True)
class Claim:
    """One claim folder, held by this process. `drops` are its files by number."""

    folder: Path
    night: str
    drops: dict[int, Drop]

    @property
    def name(self) -> str:
        return self.folder.name

    def file(self, number: int) -> Path:
        return self.folder / "files" / str(number)

    def take(self, inbox: Path, found: list[tuple[Path, Drop]]) -> list[Path]:
        """Move files from the inbox into the claim; those that another run was faster to take are left out.

        Returns the files that stay where they are because they may not be read, or their folder may not be changed.
        """
        plan = self._there()
        first = max(plan, default=-1) + 1
        new = dict(enumerate(found, start=first))
        plan |= {number: drop for number, (_, drop) in new.items()}
        self.drops = plan
        self._write_plan()
        (self.folder / "files").mkdir(exist_ok=True)
        closed = []
        for number, (path, _) in new.items():
            try:
                taken = _rename(inbox, path, self.file(number))
            except PermissionError:
                taken = False
                closed.append(path)
            if not taken:
                del self.drops[number]
        sync_folder(self.folder / "files")
        return closed

    def _there(self) -> dict[int, Drop]:
        """The planned files that lie in the claim, also those that cannot be looked at: their folder lists them."""
        try:
            names = set(os.listdir(self.folder / "files"))
        except FileNotFoundError:
            names = set()
        return {number: drop for number, drop in self.drops.items() if str(number) in names}

    def make_own(self) -> None:
        """Replace what others have a hold on, by another name or as its owner, by copies: theirs are not ours to link, to make
        read-only or to see changed. A copy has no wider mode than theirs."""
        for path in map(self.file, self.drops):
            if _is_shared(path):
                with atomic_path(path, mode=path.stat().st_mode & 0o644 | 0o600) as temporary:
                    shutil.copyfile(path, temporary)

    def decision(self) -> dict[str, Any] | None:
        """What was decided about the files, if the deciding was finished."""
        path = self.folder / "decision.json"
        return read_json(path, _remedy(self.folder), _Decision) if path.is_file() else None

    def decide(self, decision: dict[str, Any]) -> None:
        """Write the decision down: from here on it is carried out, whoever adopts the claim."""
        write_json(self.folder / "decision.json", decision)

    def release(self, workspace: Workspace) -> None:
        """Remove the claim; its files have found their places. Under the lock, as other runs look for abandoned claims."""
        done = self.folder.with_name(f".done-{self.name}")
        with workspace.lock("claims"):
            self.folder.rename(done)
            shutil.rmtree(done)

    def _write_plan(self) -> None:
        drops = {str(number): drop.to_dict() for number, drop in self.drops.items()}
        write_json(self.folder / "plan.json", {"night": self.night, "drops": drops})


@contextmanager
def held(workspace: Workspace, night: str, catalog: Catalog) -> Iterator[tuple[Claim, list[Claim]]]:
    """This night's claim of this process (an abandoned, undecided one if there is one), and other abandoned claims."""
    with ExitStack() as locks:
        with workspace.lock("claims"):
            workspace.claims.mkdir(parents=True, exist_ok=True)
            adopted = [claim for folder in sorted(workspace.claims.iterdir()) if (claim := _adopt(folder, locks))]
            same_night = [claim for claim in adopted if claim.night == night and claim.decision() is None]
            own = same_night[0] if same_night else _new(workspace, night, locks)
            catalog.forget_claims(folder.name for folder in workspace.claims.iterdir())
        yield own, [claim for claim in adopted if claim is not own]


def _new(workspace: Workspace, night: str, locks: ExitStack) -> Claim:
    folder = workspace.claims / f"{night}-{secrets.token_hex(4)}"
    folder.mkdir()
    if _lock(folder, locks) is None:
        raise WorkspaceError(f"{folder} cannot be locked: the workspace must lie on a file system with file locks.")
    return Claim(folder, night, {})


def seen(workspace: Workspace) -> list[Claim]:
    """The claims of all runs as they lie there now, only to be looked at: their files may go at any time."""
    with workspace.lock("claims"):
        return [_planned(plan) for plan in sorted(workspace.claims.glob("[!.]*/plan.json"))]


def _adopt(folder: Path, locks: ExitStack) -> Claim | None:
    """The claim in `folder` if nobody holds it; an empty one is removed."""
    if folder.name.startswith(".done-"):
        shutil.rmtree(folder, ignore_errors=True)  # what cannot be removed now is tried again by the next run
        return None
    if (lock := _lock(folder, locks)) is None:
        return None
    plan = folder / "plan.json"
    if not plan.is_file():
        shutil.rmtree(folder)
        lock.close()
        return None
    return _planned(plan)


def _planned(plan: Path) -> Claim:
    """The claim of that plan, with the files that lie in it."""
    content = read_json(plan, _remedy(plan.parent), _Plan)
    drops = {int(number): row.to(lambda drop: Drop(**drop)) for number, row in content["drops"].items()}
    claim = Claim(plan.parent, content["night"], drops)
    claim.drops = claim._there()
    return claim


def _remedy(folder: Path) -> str:
    return f"put the files of {folder / 'files'} back into the inbox and remove {folder}"


def _lock(folder: Path, locks: ExitStack) -> IO[str] | None:
    handle = locks.enter_context((folder / "lock").open("w"))
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    return handle


def _rename(inbox: Path, path: Path, target: Path) -> bool:
    try:
        with drop_folder.opened(inbox, path.parent) as folder:
            here = folder / path.name
            if cannot_be_had(here):
                raise PermissionError(errno.EACCES, "no copy can be made of it", str(path))
            here.rename(target)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise WorkspaceError(
                f"{path.parent} lies on another file system than the workspace: mount the whole workspace, not its inbox."
            ) from error
        raise
    return True


def cannot_be_had(path: Path) -> bool:
    """Whether a file stays in the inbox: others have a hold on it, and we cannot make a copy that is ours."""
    return _is_shared(path) and not os.access(path, os.R_OK)


def _is_shared(path: Path) -> bool:
    """Whether a regular file has other names, or belongs to another user: its owner may write to it whatever its mode."""
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and (status.st_nlink > 1 or status.st_uid != os.geteuid())
