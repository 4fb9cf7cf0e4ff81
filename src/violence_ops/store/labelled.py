"""The labelled clips of the sealed batches: what holdouts are frozen from and datasets are assembled from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from violence_ops.folders import Batch
from violence_ops.params import Params
from violence_ops.recognition.split import Member, bundles
from violence_ops.records import ClipRecord, ClipTracks
from violence_ops.store import batches, tombstones
from violence_ops.store.labels import effective_labels
from violence_ops.store.labels_file import in_force
from violence_ops.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Labelled:
    """A clip with its effective label, where that came from, the version of data/labels.csv that gave it (0: none, it arrived
    with the clip), and the sealed batch that holds it."""

    clip: ClipRecord
    source: str
    version: int
    batch: Batch

    @property
    def label(self) -> str:
        assert self.clip.label is not None
        return self.clip.label


def labelled_clips(workspace: Workspace) -> list[Labelled]:
    """The accepted clips of sealed batches that have a label, without forgotten ones, in clip_id order; labels that arrived later
    win."""
    forgotten = set(tombstones.all_of(workspace))
    labels = effective_labels(workspace)
    versions = {clip_id: row.version for clip_id, row in in_force(workspace).items()}
    found = [
        Labelled(
            clip.with_(label=labels[clip.clip_id][0]), labels[clip.clip_id][1], versions.get(clip.clip_id, 0), batch
        )
        for batch in workspace.sealed_batches()
        for clip in batches.accepted_clips(batch)
        if clip.clip_id in labels and clip.clip_id not in forgotten
    ]
    return sorted(found, key=lambda one: one.clip.clip_id)


def members(clips: Iterable[ClipRecord]) -> list[Member]:
    """What splitting needs to know of labelled clips."""
    return [Member(clip.clip_id, str(clip.label), clip.source_group, clip.perceptual_hash) for clip in clips]


def in_bundles(clips: Iterable[ClipRecord], params: Params) -> list[list[Member]]:
    """Labelled clips by which must stay on one side: same source group or near-duplicates."""
    return bundles(members(clips), params.dataset.near_duplicate_bits)


def track_rows(chosen: Iterable[Labelled]) -> Iterator[tuple[Labelled, pa.Table]]:
    """Each clip with its rows of tracks.parquet, batch by batch, in clip_id order within a batch."""
    by_batch: dict[Batch, list[Labelled]] = {}
    for one in chosen:
        by_batch.setdefault(one.batch, []).append(one)
    for batch, wanted in by_batch.items():
        yield from zip(wanted, batches.rows_of(batch, "tracks", (one.clip.clip_id for one in wanted)), strict=True)


def tracks_of(chosen: Iterable[Labelled]) -> Iterator[ClipTracks]:
    """The tracks of the clips, in the order of `track_rows`."""
    for one, rows in track_rows(chosen):
        yield ClipTracks.from_table(rows, one.clip)
