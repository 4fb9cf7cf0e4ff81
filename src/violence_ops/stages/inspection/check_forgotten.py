"""What `check` asks of forgotten clips: that each forgetting came to its end, and that nothing of a clip is there after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from violence_ops.errors import WorkspaceError
from violence_ops.folders import Batch
from violence_ops.stages.inspection.findings import Finding, command, unreadable
from violence_ops.stages.provenance import traces
from violence_ops.store import quarantine, tombstones
from violence_ops.store.index import open_catalog
from violence_ops.workspace import Workspace


def in_batch(workspace: Workspace, batch: Batch, clip_ids: Iterable[str]) -> Iterator[Finding]:
    """Of the clips that a batch has something of, those that are forgotten."""
    left = set(tombstones.all_of(workspace)).intersection(clip_ids)
    yield from _left(sorted(left), "in its tables or files", batch.batch_id)


def elsewhere(workspace: Workspace) -> Iterator[Finding]:
    """Forgettings that did not come to their end, and what catalog, quarantine and dataset know of forgotten clips.

    Raises ServiceUnavailable if the catalog cannot be reached.
    """
    gone = tombstones.all_of(workspace)
    for clip_id in gone:
        yield from _unfinished(workspace, clip_id)
    if gone:
        yield from _in_catalog(workspace, gone)
        yield from _left([one for one in gone if _is_in_quarantine(workspace, one)], "in the quarantine")
        yield from _in_dataset(workspace, gone)


def _unfinished(workspace: Workspace, clip_id: str) -> Iterator[Finding]:
    path = str(workspace.tombstone(clip_id).relative_to(workspace.root))
    try:
        finished = tombstones.is_finished(workspace, clip_id)
    except WorkspaceError as error:
        yield Finding("damaged", "tombstone", None, (path,), unreadable(error), command("git", "checkout", "--", path))
        return
    if not finished:
        why = "Its forgetting was not finished: some of it may still be there."
        yield Finding("orphaned", "forgotten clip", None, (clip_id,), why, command("violence-ops", "forget", clip_id))


def _in_catalog(workspace: Workspace, gone: list[str]) -> Iterator[Finding]:
    try:
        with open_catalog(workspace) as catalog:
            known = catalog.find(gone)
    except WorkspaceError:
        return  # which `check` says of the catalog itself
    yield from _left(sorted(one for one, clip in known.items() if clip.reason != tombstones.REASON), "in the catalog")


def _is_in_quarantine(workspace: Workspace, clip_id: str) -> bool:
    """Whether it is there for another reason than that it came again."""
    folder = workspace.quarantined(clip_id)
    try:
        return folder.exists() and (quarantine.read(folder) or {}).get("reason") != tombstones.REASON
    except WorkspaceError:
        return True


def _in_dataset(workspace: Workspace, gone: list[str]) -> Iterator[Finding]:
    try:
        found = traces.in_dataset(workspace, gone)
    except WorkspaceError as error:
        path = str(workspace.dataset.relative_to(workspace.root))
        yield Finding("damaged", "dataset", None, (path,), unreadable(error), command("violence-ops", "assemble"))
        return
    yield from _left(sorted(found), "in the dataset")


def _left(clip_ids: list[str], where: str, batch_id: str | None = None) -> Iterator[Finding]:
    if clip_ids:
        remedy = " && ".join(command("violence-ops", "forget", clip_id) for clip_id in clip_ids)
        why = f"They are forgotten, and something of them is still {where}."
        yield Finding("orphaned", "traces of forgotten clips", batch_id, tuple(clip_ids), why, remedy)
