"""`analyze`: what is in the annotations of all batches, as a page with plots and as JSON (SPEC 7)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from violence_ops.errors import UnknownBatch, WorkspaceError
from violence_ops.files import write_text
from violence_ops.folders import Batch
from violence_ops.params import Params
from violence_ops.records import JOINTS, ClipRecord, sampled_frames
from violence_ops.stages.inspection.findings import DAMAGED
from violence_ops.store import batches
from violence_ops.store.batches import Progress
from violence_ops.store.labels_file import later_labels
from violence_ops.store.rows import clip_tables
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    from violence_ops.evaluation.survey import ClipSurvey, Survey

_POSES: Final = ("score", "keypoint_scores")
_TRACKS: Final = ("frame", "bbox", "track_id", "rank", "involvement")
_NOTES: Final = {
    "nobody": "Empty scenes, or people whom the pose model does not see long enough: too small, too dark, seen from above.",
    "one person": "A fight takes two: where the label says Fight, somebody was not found.",
    "crowd": "Ranks are least sure where many people stand close.",
    "nobody ranked": "People are found, but no track is long and sure enough (involvement.min_track_s, min_mean_score).",
}


@dataclass(frozen=True, slots=True)
class AnalyzeResult:
    """Where the page is, its figures as plain values, and the batches that were left out, with the reason."""

    page: str
    batches: list[dict[str, Any]]
    left_out: dict[str, str]
    survey: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return {"page": self.page, "batches": self.batches, "left_out": self.left_out} | self.survey

    def lines(self) -> Iterator[str]:
        """For people."""
        found = self.survey
        labels = ", ".join(f"{count} {label}" for label, count in found["labels"].items()) or "none"
        yield f"page      {self.page}"
        yield f"batches   {len(self.batches)}"
        yield f"clips     {found['clips']} ({labels}), {found['hours']:.2f} h"
        if found["clips"]:
            yield f"persons   {found['median_persons']:g} at once in the median clip; {_percent(found)} of frames with a person"
        yield "to see    " + ", ".join(f"{len(clips)} {kind}" for kind, clips in found["clips_with"].items())
        yield from (f"left out  {batch_id}: {why}" for batch_id, why in self.left_out.items())


def run(
    workspace: Workspace,
    params: Params,
    *,
    batch_ids: Iterable[str] = (),
    out: Path | None = None,
    progress: Progress | None = None,
) -> AnalyzeResult:
    """Look at the annotated clips of these batches, or of all, sealed and open, and write the page.

    One clip's rows are in memory at a time, and of those only the columns that are counted. Raises UnknownBatch, and WorkspaceError if
    a table cannot be read.
    """
    from violence_ops.evaluation import survey_page
    from violence_ops.evaluation.survey import Survey
    from violence_ops.involvement.regions import REGION_NAMES, REGIONS

    chosen, left_out = _chosen(workspace, list(batch_ids))
    labels = later_labels(workspace)
    survey = Survey(crowd=params.annotation.crowd, regions=REGIONS, region_names=REGION_NAMES)
    rows = []
    for done, batch in enumerate(chosen, start=1):
        before = survey.everything.clips
        facts = _add(survey, batch, params, labels)
        rows.append(facts | {"clips": survey.everything.clips - before})
        if progress:
            progress(f"analyze {batch.batch_id}", done, len(chosen))
    path = (out or workspace.annotations_page).absolute()
    write_text(path, survey_page.render(survey, rows, _NOTES))
    return AnalyzeResult(str(path), rows, left_out, survey.to_dict())


def _chosen(workspace: Workspace, batch_ids: list[str]) -> tuple[list[Batch], dict[str, str]]:
    """The batches whose data is here, oldest first, and why others are left out."""
    away = {batch.batch_id: "its data is not pulled: `violence-ops check`" for batch in workspace.sealed_elsewhere()}
    names = {batch.batch_id for batch in workspace.sealed_batches()} | set(batches.open_batch_ids(workspace))
    unknown = set(batch_ids) - names - away.keys()
    if unknown:
        raise UnknownBatch(min(unknown))
    wanted = set(batch_ids) or names | away.keys()
    left_out = {batch_id: why for batch_id, why in away.items() if batch_id in wanted}
    return [workspace.batch(name) for name in sorted(wanted & names)], left_out


def _add(survey: Survey, batch: Batch, params: Params, labels: dict[str, Any]) -> dict[str, Any]:
    """Count the annotated clips of one batch; gives what is to say of the batch itself."""
    manifest = batches.read_manifest(batch)
    rate = (
        manifest.facts.get("params", {}).get("pose", {}).get("max_frames_per_second", params.pose.max_frames_per_second)
    )
    try:
        clips = [clip for clip in batches.accepted_clips(batch) if batch.is_sealed or _is_annotated(batch, clip)]
        poses, tracks = _Ordered(clip_tables(batch, "poses", _POSES)), _Ordered(clip_tables(batch, "tracks", _TRACKS))
        for clip in sorted(clips, key=lambda clip: clip.clip_id):
            found = _surveyed(clip, rate, poses.of(clip.clip_id), tracks.of(clip.clip_id))
            survey.add(
                clip.clip_id, found, label=labels.get(clip.clip_id, clip.label), camera=clip.camera_id,
                source=clip.source_group, seconds=clip.duration_s or 0.0,
            )  # fmt: skip
    except WorkspaceError:
        raise
    except DAMAGED as error:
        raise WorkspaceError(
            f"A table of batch {batch.batch_id} cannot be read ({error}): `violence-ops check --batch {batch.batch_id}` says which."
        ) from None
    weights = manifest.facts.get("pose_weights", {})
    return {
        "batch_id": batch.batch_id, "night": manifest.night, "state": "sealed" if batch.is_sealed else "open",
        "weights": f"{weights['name']} {weights['sha256'][:12]}" if weights else "–",
    }  # fmt: skip


def _is_annotated(batch: Batch, clip: ClipRecord) -> bool:
    return batch.part("tracks", clip.clip_id).is_file() and batch.part("poses", clip.clip_id).is_file()


class _Ordered:
    """Rows clip by clip, asked for in clip_id order; a clip without rows gives None."""

    def __init__(self, tables: Iterator[tuple[str, pa.Table]]) -> None:
        self._tables = tables
        self._next = next(tables, None)

    def of(self, clip_id: str) -> pa.Table | None:
        while self._next and self._next[0] < clip_id:
            self._next = next(self._tables, None)
        return self._next[1] if self._next and self._next[0] == clip_id else None


def _surveyed(clip: ClipRecord, rate: float, poses: pa.Table | None, tracks: pa.Table | None) -> ClipSurvey:
    from violence_ops.evaluation.survey import of_clip

    return of_clip(
        frames=len(sampled_frames(clip, rate)), fps=clip.fps or 1.0, size=(clip.width or 1, clip.height or 1),
        scores=_column(poses, "score"),
        keypoint_scores=_column(poses, "keypoint_scores", JOINTS), frame=_column(tracks, "frame"),
        bboxes=_column(tracks, "bbox", 4), track_id=_column(tracks, "track_id"), rank=_column(tracks, "rank"),
        involvement=_column(tracks, "involvement"),
    )  # fmt: skip


def _column(table: pa.Table | None, name: str, *shape: int) -> Any:
    """A column `(R, *shape)`: counts as they are, figures as float32."""
    import numpy as np

    if table is None:
        return np.zeros((0, *shape), np.int32 if name in ("frame", "track_id", "rank") else np.float32)
    column = table.column(name).combine_chunks()
    values = (column.flatten() if shape else column).to_numpy(zero_copy_only=False)
    return (values.astype(np.float32) if values.dtype.kind == "f" else values).reshape(-1, *shape)


def _percent(found: dict[str, Any]) -> str:
    share = found["share_of_frames_with_person"]
    return "no" if share is None else f"{share:.1%}"
