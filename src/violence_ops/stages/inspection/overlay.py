"""`overlay`: a clip's video with people, ranks and verdicts drawn over it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from violence_ops.errors import Forgotten
from violence_ops.files import fingerprint
from violence_ops.folders import Batch
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params
from violence_ops.records import ClipRecord, ClipTracks
from violence_ops.store import batches, tombstones
from violence_ops.store.batches import Progress
from violence_ops.store.parts import accepted_clip
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    from violence_ops.video.overlay import Judgement, Regions


@dataclass(frozen=True, slots=True)
class OverlayResult(Jsonable):
    """Where the video is, the codec it was written with, and whether it shows verdicts."""

    clip_id: str
    path: str
    codec: str
    frames: int
    judged: bool


def run(
    workspace: Workspace,
    params: Params,
    clip_id: str,
    *,
    regions: bool = False,
    said: tuple[str, Judgement] | None = None,
    progress: Progress | None = None,
) -> OverlayResult:
    """Write the overlay video of one annotated clip, in the container of the original where that can be written.

    `said` is a report and what its candidate made of the clip, to be shown instead of the verdict that the batch holds.
    Raises UsageError for an unknown clip, WorkspaceError for one without tracks, Rejected if it does not decode any more.
    """
    from violence_ops.video import overlay
    from violence_ops.video.sandbox import Sandbox
    from violence_ops.video.write import container_suffix

    batch, clip = accepted_clip(workspace, clip_id)
    report, judged = said or (None, judgement(batch, clip))
    tracks = batches.read_tracks(batch, clip)
    drawn = overlay.Overlay(tracks, judged, five_regions() if regions else None)
    original = batches.video_of(batch, clip)
    path = workspace.overlay(clip_id, container_suffix(original), report)
    total = clip.frame_count or 0

    def frames() -> Any:
        with Sandbox(params.validation) as sandbox:
            for index, frame in sandbox.frames(original, known=clip.size):
                yield frame
                if progress:
                    progress("overlay", index + 1, total)

    codec, count = overlay.write(frames(), path, drawn, shown(tracks, judged))
    if tombstones.stands(workspace, clip_id):  # whoever forgets it may have looked for overlays already
        path.unlink(missing_ok=True)
        raise Forgotten(clip_id)
    return OverlayResult(clip_id, str(path), codec, count, drawn.judgement is not None)


def shown(tracks: ClipTracks, judged: Judgement | None) -> str:
    """The fingerprint of what an overlay shows; the video carries it as its comment, so that a later look can tell whether
    the clip has been annotated or judged anew since."""
    rows = (tracks.frame, tracks.bboxes, tracks.keypoints, tracks.keypoint_scores, tracks.track_id, tracks.rank,
            tracks.involvement, tracks.interpolated)  # fmt: skip
    verdict = () if judged is None else (judged.start, judged.end, judged.probability)
    digest = hashlib.sha256(b"".join(values.tobytes() for values in (*rows, *verdict))).hexdigest()
    return fingerprint("overlay", digest, judged and [judged.threshold, judged.clip_probability])


def judgement(batch: Batch, clip: ClipRecord) -> Judgement | None:
    """What the champion said of a clip, or None if nobody has judged it."""
    if not batch.is_sealed and not batch.part("predictions", clip.clip_id).is_file():
        return None
    return judgement_of(batches.read_rows(batch, "predictions", clip.clip_id))


def judgement_of(table: pa.Table) -> Judgement | None:
    """The same, from the clip's rows of `predictions`."""
    import numpy as np

    from violence_ops.video.overlay import Judgement

    if not len(table):
        return None
    first = table.slice(0, 1).to_pylist()[0]
    return Judgement(
        start=table.column("start_frame").to_numpy(),
        end=table.column("end_frame").to_numpy(),
        probability=np.asarray(table.column("probability").to_numpy(), np.float32),
        threshold=first["threshold"],
        clip_probability=first["clip_probability"],
        is_fight=first["verdict"] == "Fight",
    )


def five_regions() -> Regions:
    """The regions of SPEC 4, to be drawn."""
    from violence_ops.involvement.regions import REGION_NAMES, REGIONS
    from violence_ops.video.overlay import Regions

    return Regions(boxes=REGIONS, names=REGION_NAMES)
