"""The catalog as an index of this workspace: opened, and made again from what lies there."""

from __future__ import annotations

from violence_ops.catalog import BatchState, Catalog
from violence_ops.records import ClipRecord
from violence_ops.stages import batches, labels_file, quarantine
from violence_ops.workspace import Workspace


def open_catalog(workspace: Workspace) -> Catalog:
    """The workspace's catalog; one that knows of no batch although there are some is rebuilt first."""
    catalog = Catalog(workspace.catalog_url)
    if (workspace.sealed_batches() or batches.open_batch_ids(workspace)) and not catalog.batches():
        rebuild(workspace, catalog)
    return catalog


def rebuild(workspace: Workspace, catalog: Catalog) -> None:
    """Fill the catalog from the batches, the quarantine and data/labels.csv."""
    contents: list[tuple[str, str, BatchState, list[ClipRecord]]] = []
    for batch in workspace.sealed_batches():
        night = batches.read_manifest(batch).night
        contents.append((batch.batch_id, night, "sealed", batches.read_clips(batch)))
    for batch_id in batches.open_batch_ids(workspace):
        batch = workspace.batch(batch_id)
        if not batch.is_sealed:
            manifest = batches.read_manifest(batch)
            judged = {clip.clip_id: clip for clip in batches.read_clips(batch)}
            clips = [judged.get(clip.clip_id, clip) for clip in manifest.clips]
            contents.append((batch_id, manifest.night, "open", clips))
    in_quarantine = (quarantine.as_clip(entry) for entry in quarantine.entries(workspace))
    catalog.rebuild(contents, (clip for clip in in_quarantine if clip.reason != "duplicate"))
    catalog.set_labels(labels_file.later_labels(workspace))
