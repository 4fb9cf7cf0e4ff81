"""`annotate`: who is who in every clip, and who is most involved: poses to ranked tracks."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_ops.errors import Rejected, ServiceUnavailable
from violence_ops.files import fingerprint, load_table, read_fingerprint, write_table
from violence_ops.folders import Batch
from violence_ops.params import AnnotationParams, Params
from violence_ops.records import ClipRecord
from violence_ops.stages import batches, overlays, workers
from violence_ops.stages.annotation_summary import scene_of
from violence_ops.stages.batches import Progress
from violence_ops.stages.overlay import judgement
from violence_ops.stages.parts import record_progress, unless_forgotten, withdraw, writing
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    from violence_ops.video.overlay import Judgement

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AnnotateResult:
    """What was done: clips annotated now, clips that had it already, and what the clips of this call hold.

    `not_ranked` counts clips with people none of whom is seen long, surely and steadily enough to be ranked; `one_person`
    and `crowds` those that never show two at once, and those that show `annotation.crowd` or more.
    """

    annotated: int = 0
    skipped: int = 0
    tracks: int = 0
    without_person: int = 0
    one_person: int = 0
    crowds: int = 0
    not_ranked: int = 0
    overlays: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def run(
    workspace: Workspace,
    params: Params,
    *,
    batch_id: str | None = None,
    clip_ids: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> AnnotateResult:
    """Annotate the accepted clips of one batch, or of every open one; done clips are left as they are.

    The tables do not depend on the number of processes. A clip beyond the time limit goes to quarantine.
    Raises UserError if the poses of a clip are missing, ServiceUnavailable if the system kills what works on one twice.
    """
    chosen = None if clip_ids is None else list(clip_ids)
    found: list[_Counts] = []
    annotated, overlays, refused = 0, 0, Counter[str]()
    for batch in batches.chosen_batches(workspace, batch_id):
        if batch.is_sealed:
            continue
        clips = batches.accepted_clips(batch, chosen)
        due = [
            clip
            for clip in clips
            if read_fingerprint(batch.part("tracks", clip.clip_id)) != expected(batch, clip, params)
        ]
        lost = _annotate(workspace, batch, due, params, progress)
        refused.update(lost.values())
        by_clip: dict[str, _Counts] = {}
        for clip in clips:
            if clip.clip_id not in lost:
                with unless_forgotten(workspace, clip.clip_id):
                    by_clip[clip.clip_id] = _counts(batch, clip, params.annotation.crowd)
        found += by_clip.values()
        fresh = [clip for clip in due if clip.clip_id in by_clip]
        annotated += len(fresh)
        overlays += _overlays(workspace, batch, fresh, params, progress)
    if clip_ids is None:
        record_progress(workspace, "annotate")
    scenes = Counter(counts.scene for counts in found)
    return AnnotateResult(
        annotated=annotated,
        skipped=len(found) - annotated,
        tracks=sum(counts.tracks for counts in found),
        without_person=scenes["nobody"],
        one_person=scenes["one person"],
        crowds=scenes["crowd"],
        not_ranked=sum(counts.tracks > 0 and not counts.ranked for counts in found),
        overlays=overlays,
        quarantined=dict(sorted(refused.items())),
    )


def _annotate(
    workspace: Workspace, batch: Batch, clips: list[ClipRecord], params: Params, progress: Progress | None
) -> dict[str, str]:
    """Write the tracks of `clips`; returns the clips that had to be given up, with the reason."""
    by_id = {clip.clip_id: clip for clip in clips}
    common = {"root": str(workspace.root), "batch_id": batch.batch_id, "params": params.model_dump(mode="json")}
    limits = {clip.clip_id: params.annotation.allowance_s(clip.duration_s) for clip in clips}
    lost = {}
    count = workers.worker_count(params.annotation.workers, len(clips))
    with closing(workers.outcomes(f"{__name__}:annotate_clip", common, limits, workers=count)) as answers:
        for done, outcome in enumerate(answers, start=1):
            if outcome.failure:
                clip = by_id[outcome.item]
                with unless_forgotten(workspace, clip.clip_id):
                    refusal = _refusal(clip, outcome.failure, limits[clip.clip_id])
                    withdraw(workspace, batch, clip, refusal)
                    lost[clip.clip_id] = refusal.reason
            if progress:
                progress("annotate", done, len(clips))
    return lost


def _refusal(clip: ClipRecord, failure: str, limit_s: float) -> Rejected:
    """What a failure says of the clip. Raises ServiceUnavailable for one that says nothing of it: the system killed its process."""
    if failure == "killed":
        raise ServiceUnavailable(
            f"The process that followed the people of {clip.source_path} was killed twice, most likely because the machine lacks "
            "memory: free some or lower annotation.workers, then run the step again."
        )
    what = f"Following the people of {clip.source_path}"
    if failure == "crashed":
        return Rejected("decode_error", f"{what} crashed its process twice: copy it again from its source.")
    return Rejected("timeout", f"{what} took longer than annotation.timeout_s allows it ({limit_s:g} s).")


def annotate_clip(common: dict[str, Any], clip_id: str) -> dict[str, Any]:
    """The work on one clip, in a child process: read its poses, write its tracks."""
    from violence_ops.records import sampled_frames
    from violence_ops.stages.following import follow

    params = Params.model_validate(common["params"])
    workspace = Workspace(Path(common["root"]))
    batch = workspace.batch(common["batch_id"])
    with unless_forgotten(workspace, clip_id):
        for clip in batches.accepted_clips(batch, [clip_id]):
            poses = batches.read_poses(batch, clip)
            frames = sampled_frames(clip, params.pose.max_frames_per_second)
            tracks, mark = follow(poses, params, frames).to_table(), expected(batch, clip, params)
            with writing(workspace, batch, clip_id):
                write_table(batch.part("tracks", clip_id), tracks, mark)
    return {}


def expected(batch: Batch, clip: ClipRecord, params: Params) -> str:
    """The fingerprint of the tracks that these poses and parameters give."""
    poses = read_fingerprint(batch.part("poses", clip.clip_id))
    return fingerprint("tracks", poses, params.tracking.model_dump(), params.involvement.model_dump())


@dataclass(frozen=True, slots=True)
class _Counts:
    """Of one clip: its tracks, how many of them are ranked, and how many people it shows."""

    tracks: int
    ranked: int
    scene: str


def _counts(batch: Batch, clip: ClipRecord, crowd: int) -> _Counts:

    table = load_table(batch.part("tracks", clip.clip_id), columns=["frame", "track_id", "rank"])
    ranks = table.column("rank").unique().to_pylist()
    scene = scene_of(table.column("frame").to_numpy(), crowd)
    return _Counts(len(table.column("track_id").unique()), sum(rank > 0 for rank in ranks), scene)


def _overlays(
    workspace: Workspace, batch: Batch, clips: list[ClipRecord], params: Params, progress: Progress | None
) -> int:
    """Write the overlay videos that `annotation.overlay` asks for; returns how many. One that fails is left out."""
    wanted = [clip.clip_id for clip in clips if wants_overlay(clip, judgement(batch, clip), params.annotation)]
    result = overlays.run(workspace, params, wanted, progress=progress)
    for sentence in result.failed.values():
        _log.warning("no overlay: %s", sentence)
    return len(result.made)


def wants_overlay(clip: ClipRecord, judged: Judgement | None, params: AnnotationParams) -> bool:
    """Whether a clip gets a video: all of them, or those that a label or the champion calls a Fight."""
    if params.overlay != "fights":
        return params.overlay == "all"
    return clip.label == "Fight" or (judged is not None and judged.is_fight)
