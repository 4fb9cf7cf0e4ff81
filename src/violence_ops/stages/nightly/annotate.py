"""`annotate`: who is who in every clip, and who is most involved: poses to ranked tracks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from violence_ops import workers
from violence_ops.capacity import free_memory
from violence_ops.errors import Rejected, ServiceUnavailable
from violence_ops.files import fingerprint, load_table, read_fingerprint, write_table
from violence_ops.folders import Batch
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params
from violence_ops.records import ClipPoses, ClipRecord
from violence_ops.stages.nightly.annotation_summary import scene_of
from violence_ops.store import batches
from violence_ops.store.batches import Progress
from violence_ops.store.parts import record_progress, unless_forgotten, withdraw, writing
from violence_ops.workspace import Workspace

_PROCESS_MEMORY: Final = 256 << 20
_MEMORY_PER_ROW: Final = 1280
"""Bytes that a process needs, and for each row of a clip's poses on top. With clips of 36,000 to 2,160,000 rows a process took
less: 274 to 1,962 MiB."""


@dataclass(frozen=True, slots=True)
class AnnotateResult(Jsonable):
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
    quarantined: dict[str, int] = field(default_factory=dict)


def run(
    workspace: Workspace,
    params: Params,
    *,
    batch_id: str | None = None,
    clip_ids: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> AnnotateResult:
    """Annotate the accepted clips of one batch, or of every open one; done clips are left as they are.

    The tables do not depend on the number of processes. A clip beyond the time limit, or too large for the free memory, goes to
    quarantine. Raises UserError if the poses of a clip are missing, ServiceUnavailable if the machine lacks memory for any clip.
    """
    chosen = None if clip_ids is None else list(clip_ids)
    found: list[_Counts] = []
    annotated, refused = 0, Counter[str]()
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
        annotated += sum(clip.clip_id in by_clip for clip in due)
    if clip_ids is None:
        record_progress(workspace, "annotate", batch_id=batch_id)
    scenes = Counter(counts.scene for counts in found)
    return AnnotateResult(
        annotated=annotated,
        skipped=len(found) - annotated,
        tracks=sum(counts.tracks for counts in found),
        without_person=scenes["nobody"],
        one_person=scenes["one person"],
        crowds=scenes["crowd"],
        not_ranked=sum(counts.tracks > 0 and not counts.ranked for counts in found),
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
    seconds = sum(clip.duration_s or 0.0 for clip in clips)
    count = workers.worker_count(params.annotation.workers, len(clips), _memory(batch, clips), seconds=seconds)
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


def _memory(batch: Batch, clips: list[ClipRecord]) -> int:
    """Bytes that a process may need for any of these clips: they grow with the rows of its poses."""
    rows = batches.most_rows(batch, "poses", clips)
    return max(workers.MEMORY_PER_WORKER, _PROCESS_MEMORY + _MEMORY_PER_ROW * rows)


def _refusal(clip: ClipRecord, failure: str, limit_s: float) -> Rejected:
    """What a failure says of the clip. Raises ServiceUnavailable for one that says nothing of it: the system killed its process,
    and another clip's would fare no better, as there is no memory for any."""
    what = f"Following the people of {clip.source_path}"
    if failure == "killed":
        free = free_memory()
        if free < workers.MEMORY_PER_WORKER:
            raise ServiceUnavailable(
                f"{what} was killed twice, most likely because the machine lacks memory ({free / 2**30:.1f} GiB are free): free some, "
                "then run the step again."
            )
        return Rejected(
            "timeout",
            f"{what} was killed twice, with no other clip beside it, most likely because it needs more memory than is free "
            f"({free / 2**30:.1f} GiB): cut it into shorter clips, or run `violence-ops retry` once there is more.",
        )
    if failure == "crashed":
        return Rejected("decode_error", f"{what} crashed its process twice: copy it again from its source.")
    return Rejected("timeout", f"{what} took longer than annotation.timeout_s allows it ({limit_s:g} s).")


def annotate_clip(common: dict[str, Any], clip_id: str) -> dict[str, Any]:
    """The work on one clip, in a child process: read its poses, write its tracks."""
    from violence_ops.records import sampled_frames
    from violence_ops.stages.nightly.following import follow

    params = Params.model_validate(common["params"])
    workspace = Workspace(Path(common["root"]))
    batch = workspace.batch(common["batch_id"])
    with unless_forgotten(workspace, clip_id):
        for clip in batches.accepted_clips(batch, [clip_id]):
            frames = sampled_frames(clip, params.pose.max_frames_per_second)
            # the poses have no name here, so that `follow` can let go of them
            tracks = follow(_poses(batch, clip), params, frames).to_table()
            mark = expected(batch, clip, params)
            with writing(workspace, batch, clip_id):
                write_table(batch.part("tracks", clip_id), tracks, mark)
    return {}


def _poses(batch: Batch, clip: ClipRecord) -> ClipPoses:
    """A clip's poses, without the four times as much memory that reading their table took."""
    poses = batches.read_poses(batch, clip)
    pa.default_memory_pool().release_unused()
    return poses


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
    scene = scene_of(table.column("frame").to_numpy(), crowd)
    ids = table.column("track_id")
    ranked = ids.filter(pc.greater(table.column("rank"), 0))
    return _Counts(len(ids.unique()), len(ranked.unique()), scene)
