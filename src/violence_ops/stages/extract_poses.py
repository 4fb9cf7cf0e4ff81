"""`extract-poses`: everybody's keypoints in every sampled frame of every accepted clip."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from violence_ops.errors import Rejected
from violence_ops.params import Params, PoseParams
from violence_ops.records import ClipPoses, ClipRecord, IntArray, sampled_frames
from violence_ops.stages import batches
from violence_ops.stages.batches import Progress
from violence_ops.stages.parts import record_progress, withdraw
from violence_ops.workspace import Batch, Workspace, fingerprint, read_fingerprint, write_table

if TYPE_CHECKING:
    from violence_ops.pose.rtmo import PoseEstimator
    from violence_ops.video.decode import Frame
    from violence_ops.video.sandbox import Sandbox

_NO_MATTER: Final = {"weights", "mini_batch", "max_mini_batch", "device"}
"""Parameters that do not change what is found (the weights count by their hash)."""


@dataclass(frozen=True, slots=True)
class ExtractResult:
    """What was done: clips worked on now, clips that had their poses already, frames looked at, persons found in them."""

    extracted: int = 0
    skipped: int = 0
    frames: int = 0
    persons: int = 0
    without_person: int = 0
    frames_per_second: float | None = None
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
) -> ExtractResult:
    """Find the people in the accepted clips of one batch, or of every open one; clips done before are left as they are.

    The model is loaded once, and only if there is something to do. A clip whose decoder crashes or hangs goes to quarantine.
    Raises WeightsError if the weights are not there or damaged.
    """
    from violence_ops.pose import weights

    chosen = None if clip_ids is None else list(clip_ids)
    found = weights.find(params.pose.weights)
    due: list[tuple[Batch, ClipRecord]] = []
    total = 0
    for batch in batches.chosen_batches(workspace, batch_id):
        clips = [] if batch.is_sealed else batches.accepted_clips(batch, chosen)
        total += len(clips)
        due += [
            (batch, clip)
            for clip in clips
            if read_fingerprint(batch.part("poses", clip.clip_id)) != expected(clip, found.sha256, params.pose)
        ]
    work = _Work(workspace, params, found.sha256, sum(len(_frames(clip, params)) for _, clip in due), progress)
    if due:
        work.run(due)
    record_progress(workspace, "extract-poses", "poses")
    return work.result(skipped=total - len(due))


class _Work:
    """The clips of one call, one after the other, with one model and one decoding process."""

    def __init__(
        self, workspace: Workspace, params: Params, weights_sha256: str, total: int, progress: Progress | None
    ) -> None:
        self.workspace, self.params, self.weights_sha256 = workspace, params, weights_sha256
        self.total, self.progress = total, progress
        self.clips = self.frames = self.persons = self.without_person = 0
        self.seconds = 0.0
        self.refused: Counter[str] = Counter()

    def run(self, due: list[tuple[Batch, ClipRecord]]) -> None:
        """Write the poses of every clip, or withdraw it."""
        from violence_ops.video.sandbox import Sandbox

        estimator = load_estimator(self.params.pose)
        start = time.perf_counter()
        with Sandbox(self.params.validation) as sandbox:
            for batch, clip in due:
                try:
                    poses = self._poses(batch, clip, estimator, sandbox, start)
                except Rejected as refusal:
                    withdraw(self.workspace, batch, clip, refusal)
                    self.refused[refusal.reason] += 1
                    continue
                mark = expected(clip, self.weights_sha256, self.params.pose)
                write_table(batch.part("poses", clip.clip_id), poses.to_table(), mark)
                self.clips += 1
                self.persons += len(poses)
                self.without_person += not len(poses)
        self.seconds = time.perf_counter() - start

    def _poses(
        self, batch: Batch, clip: ClipRecord, estimator: PoseEstimator, sandbox: Sandbox, start: float
    ) -> ClipPoses:
        """One clip's poses. Its frames meet only each other in a mini-batch, so the result is its own."""
        indices = _frames(clip, self.params)
        step = int(indices[1] - indices[0]) if len(indices) > 1 else max(clip.frame_count or 1, 1)
        people = []
        decoded = (frame for _, frame in sandbox.frames(batches.video_of(batch, clip), step))
        for some in _chunks(decoded, self.params.pose.max_mini_batch):
            people += estimator.estimate(some)
            self.frames += len(some)
            if self.progress:
                rate = self.frames / (time.perf_counter() - start)
                self.progress(f"extract-poses, {rate:.0f} frames/s", self.frames, self.total)
        return ClipPoses.from_frames(clip, indices, people)

    def result(self, skipped: int) -> ExtractResult:
        """What was done so far."""
        rate = round(self.frames / self.seconds, 1) if self.seconds else None
        refused = dict(sorted(self.refused.items()))
        return ExtractResult(self.clips, skipped, self.frames, self.persons, self.without_person, rate, refused)


def load_estimator(params: PoseParams) -> PoseEstimator:
    """The pose model of these parameters; `device: auto` takes the GPU if there is one."""
    import torch

    from violence_ops.pose import weights
    from violence_ops.pose.rtmo import PoseEstimator

    device = params.device if params.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    return PoseEstimator(
        weights.find(params.weights),
        device=device,
        score_threshold=params.score_threshold,
        nms_threshold=params.nms_threshold,
        mini_batch=params.mini_batch,
        max_mini_batch=params.max_mini_batch,
    )


def expected(clip: ClipRecord, weights_sha256: str, params: PoseParams) -> str:
    """The fingerprint of the poses that this content, these weights and these parameters give."""
    return fingerprint("poses", clip.sha256, weights_sha256, params.model_dump(exclude=_NO_MATTER))


def _frames(clip: ClipRecord, params: Params) -> IntArray:
    return sampled_frames(clip, params.pose.max_frames_per_second)


def _chunks(frames: Iterator[Frame], size: int) -> Iterator[list[Frame]]:
    """The frames in lists of `size`, the last one shorter."""
    while some := list(islice(frames, size)):
        yield some
