"""The catalog as an index of this workspace: opened, and made again from what lies there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from violence_ops.catalog import BatchState, Catalog, move_damaged
from violence_ops.jsonable import Jsonable
from violence_ops.records import ClipRecord, Label
from violence_ops.store import batches, labels_file, quarantine
from violence_ops.workspace import Workspace


@dataclass(frozen=True, slots=True)
class RebuildResult(Jsonable):
    """What the new catalog holds; `set_aside` is where a damaged one lies now."""

    batches: dict[str, int]
    clips: dict[str, int]
    set_aside: str | None = None

    def lines(self) -> Iterator[str]:
        """For people."""
        for name, counts in (("batches", self.batches), ("clips", self.clips)):
            yield f"{name:<7}  {', '.join(f'{count} {what}' for what, count in counts.items()) or 'none'}"


def open_catalog(workspace: Workspace) -> Catalog:
    """The workspace's catalog; one that knows of no batch although there are some is rebuilt first.

    Not to be called by a holder of the lock `claims`.
    """
    catalog = Catalog(workspace.catalog_url)
    if _is_lost(workspace, catalog):
        with workspace.lock("claims"):
            if _is_lost(workspace, catalog):  # nobody else has rebuilt it meanwhile
                _fill(workspace, catalog)
    return catalog


def rebuild(workspace: Workspace) -> RebuildResult:
    """Fill the catalog from the batches, the quarantine and data/labels.csv, after moving a damaged one out of the way.

    The claims of runs that are not finished stay.
    """
    with workspace.lock("claims"):
        aside = move_damaged(workspace.catalog_url)
    with open_catalog(workspace) as catalog:
        with workspace.lock("claims"):
            _fill(workspace, catalog)
        counts = catalog.counts()
    return RebuildResult(counts["batches"], counts["status"], None if aside is None else str(aside))


def _is_lost(workspace: Workspace, catalog: Catalog) -> bool:
    return bool(workspace.sealed_batches() or batches.open_batch_ids(workspace)) and not catalog.batches()


def _fill(workspace: Workspace, catalog: Catalog) -> None:
    """Under the lock `claims`: no run that has claimed clips begins or ends meanwhile."""
    alive = [folder.name for folder in workspace.claims.glob("*")]
    catalog.rebuild(_batches(workspace), _refused(workspace), alive)


def _batches(workspace: Workspace) -> Iterator[tuple[str, str, BatchState, list[ClipRecord]]]:
    labels = labels_file.later_labels(workspace)
    # the open ones are looked up first, so that one that is sealed meanwhile is among the sealed ones
    for batch_id in sorted({*batches.open_batch_ids(workspace), *(b.batch_id for b in workspace.sealed_batches())}):
        batch = workspace.batch(batch_id)
        manifest = batches.read_manifest(batch)
        judged = {clip.clip_id: clip for clip in batches.read_clips(batch)}
        clips = judged.values() if batch.is_sealed else [judged.get(clip.clip_id, clip) for clip in manifest.clips]
        yield batch_id, manifest.night, "sealed" if batch.is_sealed else "open", [_now(clip, labels) for clip in clips]


def _refused(workspace: Workspace) -> Iterator[ClipRecord]:
    labels = labels_file.later_labels(workspace)
    in_quarantine = (quarantine.as_clip(entry) for entry in quarantine.entries(workspace))
    yield from (_now(clip, labels) for clip in in_quarantine if clip.reason != "duplicate")


def _now(clip: ClipRecord, labels: Mapping[str, Label]) -> ClipRecord:
    return clip.with_(label=labels.get(clip.clip_id, clip.label))
