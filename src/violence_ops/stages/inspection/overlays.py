"""`overlay` of several clips at once: a list, a batch, or those that `annotation.overlay` asks for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from violence_ops import workers
from violence_ops.errors import UsageError, UserError
from violence_ops.folders import Batch
from violence_ops.params import AnnotationParams, Params
from violence_ops.records import PREDICTIONS_SCHEMA, ClipRecord, Label
from violence_ops.stages.inspection import overlay
from violence_ops.store import batches, clip_names
from violence_ops.store.batches import Progress
from violence_ops.store.index import open_catalog
from violence_ops.store.labels_file import later_labels
from violence_ops.store.parts import unless_forgotten
from violence_ops.wording import counted
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from violence_ops.video.overlay import Judgement

_USUAL_FPS: Final = 30.0
_USUAL_PIXELS: Final = 1920 * 1080
"""What `annotation.seconds_per_video_second` is meant for, at most."""
_PROCESS_MEMORY: Final = 512 << 20
_MEMORY_PER_ROW: Final = 1280
"""Bytes that a process and its decoder need, and for each row of a clip's tracks on top. The tracks of clips of 180,000 and 540,000
rows took 410 and 820 MiB."""


@dataclass(frozen=True, slots=True)
class OverlaysResult:
    """The overlays that were written, and for every clip without one the sentence that says why."""

    made: list[overlay.OverlayResult]
    failed: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        return {"made": [asdict(one) for one in self.made], "failed": self.failed}

    def lines(self) -> Iterator[str]:
        """For people."""
        yield from (f"{one.path}  {counted(one.frames, 'frame')}, {one.codec}" for one in self.made)
        yield from (f"no overlay of {clip_id}: {sentence}" for clip_id, sentence in self.failed.items())
        if not self.made and not self.failed:
            yield "There is no clip to draw."


def run(
    workspace: Workspace,
    params: Params,
    clip_ids: Iterable[str],
    *,
    regions: bool = False,
    said: tuple[str, dict[str, pa.Table]] | None = None,
    progress: Progress | None = None,
) -> OverlaysResult:
    """Write the overlays of these clips, several at once (`annotation.workers`); one that fails stops no other.

    `said` is a report and, by clip, the predictions of its candidate, to be shown instead of the batch's.
    """
    wanted = list(dict.fromkeys(clip_ids))
    accepted = _accepted(workspace, wanted)
    seconds = dict.fromkeys(wanted, 0.0)
    seconds |= {clip.clip_id: _usual_seconds(clip) for clips in accepted.values() for clip in clips}
    limits = {clip_id: params.annotation.allowance_s(each) for clip_id, each in seconds.items()}
    report, rows = said or (None, {})
    common = {
        "root": str(workspace.root), "params": params.model_dump(mode="json"), "regions": regions, "report": report,
        "said": {clip_id: table.to_pylist() for clip_id, table in rows.items()},
    }  # fmt: skip
    found: dict[str, workers.Outcome] = {}
    count = workers.worker_count(
        params.annotation.workers, len(limits), _memory(accepted), seconds=sum(seconds.values())
    )
    for outcome in workers.outcomes(f"{__name__}:draw", common, limits, workers=count):
        found[outcome.item] = outcome
        if progress:
            progress("overlays", len(found), len(limits))
    made, failed = [], {}
    for clip_id, limit in limits.items():
        sentence = _failure(found[clip_id], limit)
        if sentence is None:
            made.append(overlay.OverlayResult(**(found[clip_id].value or {})["overlay"]))
        else:
            failed[clip_id] = sentence
    return OverlaysResult(made, failed)


def _accepted(workspace: Workspace, clip_ids: list[str]) -> dict[Batch, list[ClipRecord]]:
    """Those of the clips that a batch has accepted."""
    by_batch: dict[str, list[str]] = {}
    with open_catalog(workspace) as catalog:
        for clip_id, found in catalog.find(clip_ids).items():
            by_batch.setdefault(found.batch_id or "", []).append(clip_id)
    by_batch.pop("", None)
    found_in = {workspace.batch(batch_id): members for batch_id, members in by_batch.items()}
    return {batch: batches.accepted_clips(batch, members) for batch, members in found_in.items()}


def _memory(accepted: dict[Batch, list[ClipRecord]]) -> int:
    """Bytes that a process may need for any of these clips: they grow with the rows of its tracks."""
    rows = max((batches.most_rows(batch, "tracks", clips) for batch, clips in accepted.items()), default=0)
    return max(workers.MEMORY_PER_WORKER, _PROCESS_MEMORY + _MEMORY_PER_ROW * rows)


def _usual_seconds(clip: ClipRecord) -> float:
    """How many seconds of the largest usual video take as long to draw as this clip: every frame of it is decoded."""
    rate, pixels = (clip.fps or 0.0) / _USUAL_FPS, (clip.width or 0) * (clip.height or 0) / _USUAL_PIXELS
    return (clip.duration_s or 0.0) * max(1.0, rate) * max(1.0, pixels)


def _failure(outcome: workers.Outcome, limit_s: float) -> str | None:
    """Why there is no overlay; None if there is."""
    if outcome.failure == "timeout":
        return (
            f"Drawing clip {outcome.item} took longer than annotation.timeout_s and annotation.seconds_per_video_second allow it "
            f"({limit_s:g} s): raise the latter for a long clip, the former for a short one."
        )
    if outcome.failure:
        return f"The process that drew clip {outcome.item} was killed twice, most likely for lack of memory: free some."
    return (outcome.value or {}).get("error")


def of_batch(workspace: Workspace, params: Params, batch_id: str, **options: Any) -> OverlaysResult:
    """The overlays of all accepted clips of a batch. Raises UnknownBatch."""
    batch = workspace.batch(batch_id)
    batches.read_manifest(batch)
    return run(workspace, params, [clip.clip_id for clip in batches.accepted_clips(batch)], **options)


def of_names(workspace: Workspace, params: Params, names: Iterable[str], **options: Any) -> OverlaysResult:
    """The overlays of the clips that are called so (see `clip_names`); a name that is no clip's stops no other."""
    wanted: list[str] = []
    unknown: dict[str, str] = {}
    for name in names:
        try:
            wanted.append(clip_names.clip_id(workspace, name))
        except UsageError as error:
            unknown[name] = str(error)
    drawn = run(workspace, params, wanted, **options)
    return OverlaysResult(drawn.made, unknown | drawn.failed)


def asked_for(
    workspace: Workspace, params: Params, batch: Batch, clips: Iterable[ClipRecord], progress: Progress | None = None
) -> OverlaysResult:
    """The overlays of those clips of a batch for which `annotation.overlay` asks; one that shows the present tracks and verdict
    is left as it is."""
    if params.annotation.overlay == "none":
        return OverlaysResult([], {})
    labels = later_labels(workspace) if params.annotation.overlay == "fights" else {}
    due = []
    for clip in clips:
        with unless_forgotten(workspace, clip.clip_id):
            judged = overlay.judgement(batch, clip)
            label = labels.get(clip.clip_id, clip.label)
            if is_wanted(label, judged, params.annotation) and not _is_drawn(workspace, batch, clip, judged):
                due.append(clip.clip_id)
    return run(workspace, params, due, progress=progress) if due else OverlaysResult([], {})


def is_wanted(label: Label | None, judged: Judgement | None, params: AnnotationParams) -> bool:
    """Whether a clip gets a video: all of them, or those that the present label or the champion calls a Fight."""
    if params.overlay != "fights":
        return params.overlay == "all"
    return label == "Fight" or (judged is not None and judged.is_fight)


def path_of(workspace: Workspace, batch: Batch, clip: ClipRecord) -> Path:
    """Where a clip's overlay lies, or would."""
    from violence_ops.video.write import container_suffix

    return workspace.overlay(clip.clip_id, container_suffix(batches.video_of(batch, clip)))


def _is_drawn(workspace: Workspace, batch: Batch, clip: ClipRecord, judged: Judgement | None) -> bool:
    from violence_ops.video.write import read_comment

    path = path_of(workspace, batch, clip)
    with suppress(ValueError):  # it is damaged
        return path.is_file() and read_comment(path) == overlay.shown(batches.read_tracks(batch, clip), judged)
    return False


def draw(common: dict[str, Any], clip_id: str) -> dict[str, Any]:
    """The work on one clip, in a child process: its result, or the sentence that says why there is none."""
    import pyarrow as pa

    said = overlay.judgement_of(pa.Table.from_pylist(common["said"].get(clip_id, []), PREDICTIONS_SCHEMA))
    try:
        result = overlay.run(
            Workspace(Path(common["root"])),
            Params.model_validate(common["params"]),
            clip_id,
            regions=common["regions"],
            said=(common["report"], said) if said else None,
        )
    except UserError as error:
        return {"error": str(error)}
    except Exception as error:  # a full disk, a codec that is missing: neither stops the others
        return {"error": f"Drawing clip {clip_id} failed ({type(error).__name__}: {error})."}
    return {"overlay": result.to_dict()}
