"""`weights calibrate`: INT8 networks made with a site's own frames, and what they cost in accuracy and save in time."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from violence_ops.errors import Rejected, UsageError
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params
from violence_ops.stages.poses.weights import LOWEST_SCORE
from violence_ops.store import batches, inbox
from violence_ops.store.batches import Progress
from violence_ops.wording import counted
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np

    from violence_ops.letterbox import Fit
    from violence_ops.pose.agreement import Labelled, Share
    from violence_ops.pose.quality import Judgement
    from violence_ops.pose.quantise import Size
    from violence_ops.pose.rtmo import PoseEstimator
    from violence_ops.pose.weights import Weights
    from violence_ops.records import FramePoses
    from violence_ops.synthetic.stills import Still
    from violence_ops.video.sandbox import Sandbox

_Item = TypeVar("_Item")
_PER_CLIP: Final = 6  # frames of a clip at least: every other one calibrates, those between are compared on
_CLIPS: Final = 400  # whose shape is looked at


@dataclass(frozen=True, slots=True)
class SizeFigures:
    """The INT8 network of one input size beside full precision, and beside bf16 where the processor has it.

    `agreement`: share of the persons that full precision finds in `compared` other frames of the clips and INT8 finds too
    (OKS ≥ 0.5; None of nobody). `ap_*`: on held-out synthetic scenes, in points of 100. `ms_*`: processor time of a frame.
    """

    frames: int
    compared: int
    persons: int
    agreement: float | None
    ap_fp32: float
    ap_int8: float
    loss_points: float
    ms_fp32: float
    ms_int8: float
    ap_bf16: float | None = None
    ms_bf16: float | None = None


@dataclass(frozen=True, slots=True)
class CalibrateResult(Jsonable):
    """The calibration of some weights: its hash, how many clips gave frames or could not, and figures by input size."""

    weights: str
    sha256: str
    clips: int
    refused: dict[str, int]
    sizes: dict[str, SizeFigures]

    def lines(self) -> Iterator[str]:
        refused = "".join(f", {count} {reason}" for reason, count in self.refused.items())
        yield f"{self.weights}: INT8 calibrated with {counted(self.clips, 'clip')}{refused}; {self.sha256[:12]}"
        yield f"{'input':>9}  {'frames':>6}  {'agreement':>9}  {'AP fp32':>7}  {'AP int8':>7}  {'loss':>5}  {'ms fp32':>7}  {'ms int8':>7}  {'AP bf16':>7}  {'ms bf16':>7}"
        for size, found in self.sizes.items():
            agreement = "-" if found.agreement is None else f"{found.agreement:.3f}"
            yield (
                f"{size:>9}  {found.frames:>6}  {agreement:>9}  {found.ap_fp32:>7.2f}  {found.ap_int8:>7.2f}  "
                f"{found.loss_points:>5.2f}  {found.ms_fp32:>7.2f}  {found.ms_int8:>7.2f}  "
                f"{_cell(found.ap_bf16):>7}  {_cell(found.ms_bf16):>7}"
            )


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def run(
    workspace: Workspace,
    params: Params,
    *,
    clips: Path | None = None,
    name: str | None = None,
    frames: int,
    scenes: int,
    progress: Progress | None = None,
) -> CalibrateResult:
    """Make the INT8 networks of weights (default: `pose.weights`), one for each input size that occurs.

    Calibrates with at most `frames` frames a size, of the videos in the folder `clips`, else of the inbox and the newest
    batches, and with `frames` synthetic pictures: without them what a site has not shown yet would be cut off (AP falls
    by 0.9 points instead of 0.5). Compares with full precision on as many other frames, and on `scenes` held-out synthetic
    scenes. Replaces what was before.

    Raises:
        WeightsError: the weights are missing or damaged.
        UsageError: there is no video that can be used.
    """
    from violence_ops.pose import quantise, weights
    from violence_ops.pose.config import fit
    from violence_ops.video.sandbox import Sandbox

    found = weights.find(name or params.pose.weights)
    tell = progress or (lambda *_: None)
    videos = _videos(clips) if clips else _of_workspace(workspace, params)
    with Sandbox(params.validation) as sandbox:
        taken = _Pictures(sandbox, fit(found.network), frames, tell)
        taken.take(videos)
    if not taken.calibrating:
        raise UsageError(
            f"No frame could be taken from {clips or 'the inbox and the batches'}: pass --clips with a folder of videos."
        )
    pictures = {size: [*own, *_synthetic(size, frames)] for size, own in taken.calibrating.items()}
    made = quantise.calibrate(found, pictures, clips=taken.clips, at=datetime.now(UTC).isoformat(timespec="seconds"))
    figures = _figures(found, params, taken, scenes, tell)
    return CalibrateResult(name or params.pose.weights, made.sha256, taken.clips, dict(taken.refused), figures)


def _videos(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and batches.is_video(path))


def _of_workspace(workspace: Workspace, params: Params) -> list[Path]:
    """What waits in the inbox, then the clips of the newest batches."""
    waiting = [path for path, drop in inbox.scan(workspace.inbox, params.ingest.settle_s).drops if not drop.unsafe]
    kept = (
        batches.video_of(batch, clip)
        for batch in chain(reversed(batches.chosen_batches(workspace, None)), reversed(workspace.sealed_batches()))
        for clip in batches.accepted_clips(batch)
    )
    return [path for path in chain(waiting, kept) if path.is_file() and not path.is_symlink()]


class _Pictures:
    """Letterboxed frames of clips by input size: some to calibrate with, others to compare on."""

    def __init__(self, sandbox: Sandbox, fit: Fit, frames: int, tell: Progress) -> None:
        self._sandbox, self._fit, self._frames, self._tell = sandbox, fit, frames, tell
        self.calibrating: dict[Size, list[np.ndarray]] = defaultdict(list)
        self.compared: dict[Size, list[np.ndarray]] = defaultdict(list)
        self.refused: Counter[str] = Counter()
        self.clips = 0

    def take(self, videos: Sequence[Path]) -> None:
        """Frames of videos spread over all of them, from each spread over its time; what cannot be decoded is counted."""
        by_size = self._by_size(_spread(videos, _CLIPS))
        chosen = [_spread(group, math.ceil(2 * self._frames / _PER_CLIP)) for group in by_size.values()]
        total = sum(map(len, chosen))
        for group in chosen:
            wanted = max(_PER_CLIP, math.ceil(2 * self._frames / len(group)))
            for video in group:
                self._tell(f"frames of {video.name}", self.clips, total)
                try:
                    self._take(video, wanted)
                except Rejected as refusal:
                    self.refused[refusal.reason] += 1

    def _by_size(self, videos: Sequence[Path]) -> dict[Size, list[Path]]:
        found: dict[Size, list[Path]] = defaultdict(list)
        for number, video in enumerate(videos):
            self._tell(f"shape of {video.name}", number, len(videos))
            try:
                for _, box in self._sandbox.pictures(video, [0], self._fit):
                    found[box.input_width, box.input_height].append(video)
            except Rejected as refusal:
                self.refused[refusal.reason] += 1
        return found

    def _take(self, video: Path, wanted: int) -> None:
        count = self._sandbox.validate(video).frame_count
        indices = _spread(range(count), wanted)
        for number, (picture, box) in enumerate(self._sandbox.pictures(video, indices, self._fit)):
            size, to = (box.input_width, box.input_height), (self.calibrating, self.compared)[number % 2]
            if len(to[size]) < self._frames:
                to[size].append(picture)
        self.clips += 1


def _synthetic(size: Size, count: int) -> Iterator[np.ndarray]:
    """Letterboxed synthetic pictures of scenes that weights are trained with."""
    import numpy as np

    from violence_ops.letterbox import Letterbox
    from violence_ops.synthetic.stills import TRAINING_WORLD, stills

    for number in range(count):
        ((picture, *_),) = stills(np.random.default_rng([0, number, 13]), 1, TRAINING_WORLD)
        yield Letterbox(picture.shape[1], picture.shape[0], *size).apply(picture)


def _spread(items: Sequence[_Item], count: int) -> list[_Item]:
    """At most `count` of the items, evenly over all."""
    kept = min(count, len(items))
    return [items[number * len(items) // kept] for number in range(kept)]


class _Comparison:
    """Full precision, INT8 and perhaps bf16 side by side in one input size."""

    def __init__(self, every: Sequence[PoseEstimator], size: Size) -> None:
        self.every, self.size = every, size
        self.judged: list[list[Judgement]] = [[] for _ in every]
        self.seconds: list[list[float]] = [[] for _ in every]

    def agreement(self, pictures: Sequence[np.ndarray], score_threshold: float) -> Share:
        """How many of the persons of full precision INT8 finds too."""
        from violence_ops.pose.agreement import agreement

        full, int8, *_ = self.every
        truth = (_as_truth(full.estimate([picture])[0], picture, score_threshold) for picture in pictures)
        return agreement(int8, truth, score_threshold).share()

    def judge(self, still: Still) -> None:
        """Let each look at a labelled picture."""
        from violence_ops.letterbox import Letterbox
        from violence_ops.pose import quality, samples

        truth = samples.sample(*still)
        box = Letterbox(still[0].shape[1], still[0].shape[0], *self.size)
        picture = box.apply(still[0])
        for estimator, judged, seconds in zip(self.every, self.judged, self.seconds, strict=True):
            start = time.process_time()
            found = estimator.persons([picture], [box])[0]
            seconds.append(time.process_time() - start)
            judged.append(quality.judge(found, truth))

    def points(self) -> list[float]:
        """Average precision of each, of 100."""
        from violence_ops.pose import quality

        return [round(100 * quality.measure(judged, LOWEST_SCORE).average_precision, 2) for judged in self.judged]

    def milliseconds(self) -> list[float]:
        """Processor time of a frame of each, the median."""
        return [round(1000 * statistics.median(seconds), 2) for seconds in self.seconds]


def _as_truth(found: FramePoses, picture: np.ndarray, score_threshold: float) -> Labelled:
    """The persons found in a picture as if they were its labels."""
    import numpy as np

    from violence_ops.pose.agreement import Labelled
    from violence_ops.pose.samples import Sample

    sure = found.scores >= score_threshold
    visibility = np.full(found.keypoint_scores[sure].shape, 2, np.uint8)
    boxes = found.bboxes[sure]
    return Labelled(Sample(picture, found.keypoints[sure], visibility, boxes, np.zeros(len(boxes), bool)))


def _figures(weights: Weights, params: Params, taken: _Pictures, scenes: int, tell: Progress) -> dict[str, SizeFigures]:
    """Compare the precisions in every input size."""
    import numpy as np

    from violence_ops.pose.backends import Precision, settled
    from violence_ops.pose.openvino import computes_bf16
    from violence_ops.pose.rtmo import PoseEstimator
    from violence_ops.synthetic.stills import HELD_OUT_WORLD, stills

    suppression = params.pose.model_dump(include={"nms_threshold", "duplicate_distance"})
    limits: Any = {"score_threshold": LOWEST_SCORE} | suppression
    precisions: tuple[Precision, ...] = ("fp32", "int8", "bf16") if computes_bf16() else ("fp32", "int8")
    every = [
        PoseEstimator(weights, backend=settled("auto", precision, "cpu")[0], precision=precision, **limits)
        for precision in precisions
    ]
    compared = [_Comparison(every, size) for size in sorted(taken.calibrating)]
    shares = [each.agreement(taken.compared[each.size], params.pose.score_threshold) for each in compared]
    for number in range(scenes):
        tell("held-out scenes", number, scenes)
        for still in stills(np.random.default_rng([0, number, 9]), 2, HELD_OUT_WORLD):
            for each in compared:
                each.judge(still)
    return {
        "{}x{}".format(*each.size): _size_figures(each, share, taken)
        for each, share in zip(compared, shares, strict=True)
    }


def _size_figures(compared: _Comparison, share: Share, taken: _Pictures) -> SizeFigures:
    (ap, ap_int8, *ap_bf16), (ms, ms_int8, *ms_bf16) = compared.points(), compared.milliseconds()
    return SizeFigures(
        frames=len(taken.calibrating[compared.size]), compared=len(taken.compared[compared.size]), persons=share.persons,
        agreement=None if share.pose_recall is None else round(share.pose_recall, 4),
        ap_fp32=ap, ap_int8=ap_int8, loss_points=round(ap - ap_int8, 2), ms_fp32=ms, ms_int8=ms_int8,
        ap_bf16=next(iter(ap_bf16), None), ms_bf16=next(iter(ms_bf16), None),
    )  # fmt: skip
