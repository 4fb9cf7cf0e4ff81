"""What `check` asks of the overlay videos: each of one accepted clip, showing its present tracks and verdict."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from violence_ops.folders import Batch
from violence_ops.params import Params
from violence_ops.records import PREDICTIONS_SCHEMA, ClipRecord
from violence_ops.stages.inspection import overlay, overlays
from violence_ops.stages.inspection.findings import DAMAGED, Finding, Kind, command
from violence_ops.store import batches
from violence_ops.store.labels_file import later_labels
from violence_ops.store.rows import clip_tables
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    from violence_ops.video.overlay import Judgement


class Overlays:
    """The overlay videos of a workspace; each batch takes its own away, and what is left belongs to nobody.

    Those in a report's folder show what its candidate said, so that only their clips are asked for. So are those of the reports'
    small pictures, which lie beside the overlays and are none: `count` leaves them out.
    """

    def __init__(self, workspace: Workspace, params: Params) -> None:
        self.workspace, self.params = workspace, params
        self.labels = later_labels(workspace) if params.annotation.overlay == "fights" else {}
        self.left: dict[str, list[Path]] = defaultdict(list)
        self.of_reports: dict[str, list[Path]] = defaultdict(list)
        self.count = 0
        for path in sorted(workspace.overlays.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                mine = self.left if path.parent == workspace.overlays else self.of_reports
                mine[path.stem].append(path)
                self.count += path.parent != workspace.thumbnails

    def of_batch(self, batch: Batch, accepted: dict[str, ClipRecord]) -> Iterator[Finding]:
        """The overlays of one batch's clips. A table that cannot be read leaves its clips' overlays unjudged."""
        for clip_id in accepted.keys() & self.of_reports.keys():
            del self.of_reports[clip_id]
        taken = {clip_id: self.left.pop(clip_id) for clip_id in accepted.keys() & self.left.keys()}
        named = {clip_id: overlays.path_of(self.workspace, batch, accepted[clip_id]) for clip_id in taken}
        strays = [path for clip_id, paths in taken.items() for path in paths if path != named[clip_id]]
        yield from self._orphans(strays, batch.batch_id, "There is another, proper overlay name for these clips.")
        there = {clip_id: accepted[clip_id] for clip_id, path in named.items() if path in taken[clip_id]}
        try:
            judged = _judged(batch) if there or self.params.annotation.overlay != "none" else {}
            wanted = {
                clip_id for clip_id, clip in accepted.items()
                if overlays.is_wanted(self.labels.get(clip_id, clip.label), judged.get(clip_id), self.params.annotation)
            }  # fmt: skip
            shown = {
                clip.clip_id: overlay.shown(tracks, judged.get(clip.clip_id))
                for clip, tracks in batches.tracks_by_clip(batch, there.values())
            }
        except DAMAGED:
            return  # said of the tables already
        yield from self._again("missing", batch, wanted - there.keys(), "annotation.overlay asks for them.")
        stale, damaged = set(), set()
        for clip_id, mark in shown.items():
            try:
                if _comment(named[clip_id]) != mark:
                    stale.add(clip_id)
            except ValueError:
                damaged.add(clip_id)
        yield from self._again(
            "stale", batch, stale, "They show other tracks or another verdict than the clip has now."
        )
        yield from self._again("damaged", batch, damaged, "These files are no videos that can be opened.")

    def of_nobody(self) -> Iterator[Finding]:
        """Overlays of clips that no batch has; ask when all batches have taken theirs."""
        paths = [path for mine in (self.left, self.of_reports) for found in mine.values() for path in found]
        yield from self._orphans(paths, None, "They belong to no accepted clip.")

    def _orphans(self, paths: list[Path], batch_id: str | None, why: str) -> Iterator[Finding]:
        if paths:
            shown = tuple(str(path.relative_to(self.workspace.root)) for path in sorted(paths))
            yield Finding("orphaned", "overlays", batch_id, shown, why, command("rm", "-rf", *shown))

    def _again(self, kind: Kind, batch: Batch, clip_ids: set[str], why: str) -> Iterator[Finding]:
        if clip_ids:
            ids = tuple(sorted(clip_ids))
            yield Finding(kind, "overlays", batch.batch_id, ids, why, command("violence-ops", "overlay", *ids))


def _judged(batch: Batch) -> dict[str, Judgement | None]:
    """What the champion said of each clip of a batch that has been judged."""
    tables = clip_tables(batch, "predictions", PREDICTIONS_SCHEMA.names[1:])
    return {clip_id: overlay.judgement_of(table) for clip_id, table in tables}


def _comment(path: Path) -> str | None:
    from violence_ops.video.write import read_comment

    return read_comment(path)
