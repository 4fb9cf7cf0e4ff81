"""What killed runs of `ingest` left half taken, where a clip is forgotten."""

from __future__ import annotations

import fcntl
import shutil
from contextlib import suppress

from violence_ops.stages.nightly import intake
from violence_ops.store import claims
from violence_ops.store.claims import Claim
from violence_ops.store.index import open_catalog
from violence_ops.workspace import Workspace


def forget(workspace: Workspace, clip_id: str) -> int:
    """Take a clip that has a tombstone out of what killed runs left half done; returns how many of their files went.

    Runs under way are waited for: they may have looked for the tombstone before it was there.
    """
    _wait_for_runs(workspace)
    with open_catalog(workspace) as catalog, claims.held(workspace, "forget", catalog) as (own, abandoned):
        removed = sum(_take_out(workspace, claim, clip_id) for claim in abandoned)
        own.release(workspace)
    return removed


def count(workspace: Workspace, clip_id: str) -> int:
    """How many files in the claims of killed runs, and of runs under way, are that clip."""
    return sum(len(_numbers_of(workspace, claim, clip_id)) for claim in claims.seen(workspace))


def _wait_for_runs(workspace: Workspace) -> None:
    with workspace.lock("claims"):
        locks = sorted(workspace.claims.glob("*/lock"))
    for lock in locks:
        with suppress(FileNotFoundError), lock.open() as handle:  # its run has ended
            fcntl.flock(handle, fcntl.LOCK_SH)


def _take_out(workspace: Workspace, claim: Claim, clip_id: str) -> int:
    """Can be repeated after a crash at any point."""
    found = _numbers_of(workspace, claim, clip_id)
    for number in found:
        claim.file(number).unlink()
    shutil.rmtree(claim.folder / "batch", ignore_errors=True)
    claim.take(workspace.inbox, [])
    if decision := claim.decision():
        claim.decide(intake.without(decision, [clip_id]))
    return len(found)


def _numbers_of(workspace: Workspace, claim: Claim, clip_id: str) -> list[int]:
    """Which of a claim's files are that clip."""
    found = []
    max_size_mb = workspace.params().validation.max_size_mb
    for number in claim.drops:
        with suppress(FileNotFoundError):  # a run under way has put it elsewhere
            if intake.look_at(claim, number, max_size_mb)[0].clip_id == clip_id:
                found.append(number)
    return found
