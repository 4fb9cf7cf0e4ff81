"""`extract-poses`: everybody's keypoints in every sampled frame of every accepted clip."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from violence_ops.deployment import compute_device
from violence_ops.errors import ParamsError, Rejected, UsageError
from violence_ops.files import fingerprint, read_fingerprint, table_writer, write_json
from violence_ops.folders import Batch
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params, PoseParams
from violence_ops.records import POSES_SCHEMA, ClipPoses, ClipRecord, FramePoses, IntArray, sampled_frames
from violence_ops.store import batches
from violence_ops.store.batches import Progress
from violence_ops.store.parts import record_progress, unless_forgotten, withdraw, writing
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    from violence_ops.pose.rtmo import PoseEstimator
    from violence_ops.pose.stream import Decoder, Picture, Poses, PoseStream
    from violence_ops.pose.topdown import TopDown
    from violence_ops.video.sandbox import Sandbox

    Source = PoseEstimator | TopDown

_Item = TypeVar("_Item")


class Video(NamedTuple):
    """A video file, the frames of it that are looked at, and the clip's size, if it is one."""

    file: Path
    indices: IntArray
    known: tuple[int, int] | None = None


NO_MATTER: Final = {"weights", "detector", "keypoints", "mini_batch", "max_mini_batch", "device", "backend"}
"""Parameters that do not change what is found (the weights and models count by their hash)."""
_FRAMES_AT_ONCE: Final = 1024  # of a clip whose rows are written together


@dataclass(frozen=True, slots=True)
class ExtractResult(Jsonable):
    """What was done: clips worked on now, clips that had their poses already, frames looked at, persons found in them."""

    extracted: int = 0
    skipped: int = 0
    frames: int = 0
    persons: int = 0
    without_person: int = 0
    frames_per_second: float | None = None
    engine_s: float = 0.0
    quarantined: dict[str, int] = field(default_factory=dict)


def run(
    workspace: Workspace,
    params: Params,
    *,
    batch_id: str | None = None,
    clip_ids: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> ExtractResult:
    """Find the people in the accepted clips of one batch, or of every open one; clips done before are left as they are.

    The model is loaded once, and only if there is something to do. A clip whose decoder crashes or hangs goes to quarantine.
    Raises WeightsError if the weights are not there or damaged.
    """
    chosen = None if clip_ids is None else list(clip_ids)
    sha256 = source_sha256(params.pose)
    due: list[tuple[Batch, ClipRecord]] = []
    total = 0
    for batch in batches.chosen_batches(workspace, batch_id):
        clips = [] if batch.is_sealed else batches.accepted_clips(batch, chosen)
        total += len(clips)
        due += [
            (batch, clip)
            for clip in clips
            if read_fingerprint(batch.part("poses", clip.clip_id)) != expected(clip, sha256, params.pose)
        ]
    work = _Work(workspace, params, sha256, sum(len(_frames(clip, params)) for _, clip in due), progress)
    if due:
        work.run(due)
    if clip_ids is None:
        record_progress(workspace, "extract-poses", batch_id=batch_id)
    return work.result(skipped=total - len(due))


class _Work:
    """The clips of one call: decoded some at a time, looked at together, written in their order."""

    def __init__(
        self, workspace: Workspace, params: Params, weights_sha256: str, total: int, progress: Progress | None
    ) -> None:
        self.workspace, self.params, self.weights_sha256 = workspace, params, weights_sha256
        self.total, self.progress = total, progress
        self.clips = self.frames = self.persons = self.without_person = 0
        self.seconds = self.engine_s = 0.0
        self.refused: Counter[str] = Counter()

    def run(self, due: list[tuple[Batch, ClipRecord]]) -> None:
        """Write the poses of every clip, or withdraw it."""
        source = open_source(self.params.pose)
        start = time.perf_counter()
        with pose_stream(source, self.params) as stream:
            videos = [
                Video(batches.video_of(batch, clip), _frames(clip, self.params), clip.size) for batch, clip in due
            ]
            for (batch, clip), poses in zip(due, stream.over(videos), strict=True):
                with unless_forgotten(self.workspace, clip.clip_id):
                    self._clip(batch, clip, poses, start, source)
        self.seconds = time.perf_counter() - start

    def _clip(self, batch: Batch, clip: ClipRecord, poses: Poses[Video], start: float, source: Source) -> None:
        """Write the poses of one clip, or withdraw it. Raises Forgotten if it is forgotten meanwhile."""
        try:
            found = self._write(batch, clip, poses, start, source)
        except Rejected as refusal:
            withdraw(self.workspace, batch, clip, refusal)
            self.refused[refusal.reason] += 1
            return
        self.clips += 1
        self.persons += found
        self.without_person += not found
        self.engine_s += poses.engine_s

    def _write(self, batch: Batch, clip: ClipRecord, poses: Poses[Video], start: float, source: Source) -> int:
        """Write one clip's poses as they come, some frames at a time, and what they cost; give the number of rows."""
        mark, found = expected(clip, self.weights_sha256, self.params.pose), 0
        with ExitStack() as held:
            with table_writer(batch.part("poses", clip.clip_id), POSES_SCHEMA, mark) as append:
                for indices, some in _chunks(poses.video.indices, poses):
                    rows = ClipPoses.from_frames(clip, indices, some)
                    if len(rows):
                        append(rows.to_table())
                    found += len(rows)
                    self._tell(clip, len(some), start)
                # the batch is held for the moment only in which the finished table gets its name
                held.enter_context(writing(self.workspace, batch, clip.clip_id))
            cost = {"engine_s": round(poses.engine_s, 4), "device": source.device, "engine": source.engine}
            write_json(batch.cost(clip.clip_id), cost)
        return found

    def _tell(self, clip: ClipRecord, count: int, start: float) -> None:
        self.frames += count
        if self.progress:
            rate = self.frames / (time.perf_counter() - start)
            self.progress(f"extract-poses {clip.clip_id[:8]}, {rate:.0f} frames/s", self.frames, self.total)

    def result(self, skipped: int) -> ExtractResult:
        """What was done so far."""
        rate = round(self.frames / self.seconds, 1) if self.seconds else None
        refused = dict(sorted(self.refused.items()))
        return ExtractResult(
            self.clips, skipped, self.frames, self.persons, self.without_person, rate, round(self.engine_s, 3), refused
        )


def open_source(params: PoseParams) -> Source:
    """What finds people with these parameters: RTMO on a backend, or two models given as files.

    `auto` takes the GPU if there is one. Raises WeightsError for files that are missing or damaged, UsageError for settings
    that do not go together, ParamsError for a path that is not whole.
    """
    _check_paths(params)
    if params.source == "topdown":
        from violence_ops.pose.topdown import TopDown

        if not (params.detector and params.keypoints):
            raise UsageError("pose.source topdown needs two model files: set pose.detector and pose.keypoints.")
        return TopDown(
            params.detector, params.keypoints, score_threshold=params.score_threshold,
            nms_threshold=params.nms_threshold, duplicate_distance=params.duplicate_distance,
        )  # fmt: skip
    from violence_ops.pose.backends import settled
    from violence_ops.pose.rtmo import PoseEstimator

    device = _device(params)
    backend, precision = settled(params.backend, params.precision, device)
    return PoseEstimator(
        params.weights, backend=backend, precision=precision, device=device,
        score_threshold=params.score_threshold, nms_threshold=params.nms_threshold,
        duplicate_distance=params.duplicate_distance,
        mini_batch=params.mini_batch, max_mini_batch=params.max_mini_batch,
    )  # fmt: skip


def _check_paths(params: PoseParams) -> None:
    """Raise ParamsError for a path that depends on the folder one is in: Airflow's tasks are in another than the prompt."""
    if params.source == "topdown":
        paths = {"detector": params.detector, "keypoints": params.keypoints}
    else:
        paths = {"weights": params.weights if params.weights.endswith(".safetensors") else None}
    for name, path in paths.items():
        if path and not Path(path).is_absolute():
            raise ParamsError(
                f"pose.{name} is {path!r}, which a task of Airflow's would look for in another folder: write {Path(path).absolute()}, if "
                "you mean that."
            )


def _device(params: PoseParams) -> str:
    if params.device == "auto" and params.backend == "openvino":
        return "cpu"
    return compute_device(params.device)


def pose_stream(source: Source, params: Params) -> PoseStream[Video]:
    """A stream of the poses of videos, decoded in killable children; a context manager."""

    def pictures(sandbox: Sandbox, video: Video) -> Iterator[Picture]:
        return sandbox.pictures(video.file, video.indices.tolist(), source.fit, known=video.known)

    return stream_of(pictures, source, params)


def stream_of(
    pictures: Callable[[Sandbox, _Item], Iterator[Picture]], source: Source, params: Params
) -> PoseStream[_Item]:
    """A stream of the poses in the `pictures` of some items, each decoded by one of several sandboxes; a context manager."""
    from violence_ops.pose.backends import processors
    from violence_ops.pose.stream import PoseStream
    from violence_ops.video.sandbox import Sandbox

    @contextmanager
    def decoder() -> Iterator[Decoder[_Item]]:
        with Sandbox(params.validation) as sandbox:
            yield lambda item: pictures(sandbox, item)

    return PoseStream(source, decoder, decoders=max(2, processors() // 2))


def source_sha256(params: PoseParams) -> str:
    """The SHA-256 of the weights (and their INT8 calibration) or model files that these parameters name; poses carry it.

    Raises as `open_source`.
    """
    _check_paths(params)
    if params.source == "topdown":
        return open_source(params).sha256
    from violence_ops.pose import quantise, weights

    return quantise.poses_sha256(weights.find(params.weights), params.precision)


def source_name(params: PoseParams) -> str:
    """What these parameters find people with, for people."""
    return params.weights if params.source == "rtmo" else f"{params.detector} + {params.keypoints}"


def expected(clip: ClipRecord, weights_sha256: str, params: PoseParams) -> str:
    """The fingerprint of the poses that this content, these weights and these parameters give.

    `auto` of precisions is one setting, whatever it stands for on the machine that looks; where it can only be fp32, it is fp32.
    """
    from violence_ops.pose.backends import may_be_bf16

    settings = params.model_dump(exclude=NO_MATTER)
    if params.precision == "auto" and not may_be_bf16(params.backend, params.device):
        settings["precision"] = "fp32"
    return fingerprint("poses", clip.sha256, weights_sha256, settings)


def _frames(clip: ClipRecord, params: Params) -> IntArray:
    return sampled_frames(clip, params.pose.max_frames_per_second)


def _chunks(indices: IntArray, poses: Iterable[FramePoses]) -> Iterator[tuple[IntArray, list[FramePoses]]]:
    """The frames' indices and poses, some at a time, so that the rows of a long clip never lie in memory together."""
    start, coming = 0, iter(poses)
    while some := list(islice(coming, _FRAMES_AT_ONCE)):
        yield indices[start : start + len(some)], some
        start += len(some)
