"""`pretrain`: a start for `train` from synthetic skeletons, as coarse as the pose weights in use would find them.

A few clips are rendered and their poses really extracted; what the estimator did to them is measured
(`recognition.degradation`). Thousands of further clips are never drawn: their true poses are degraded in the same way, then
tracked and ranked by the pipeline's own code. The scenes, people and motions are those of a world of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_ops.errors import UsageError
from violence_ops.params import Params
from violence_ops.stages.batches import Progress

if TYPE_CHECKING:
    import numpy as np

    from violence_ops.recognition.degradation import Degradation, Truth
    from violence_ops.recognition.skeleton import Skeleton
    from violence_ops.recognition.train import Epoch
    from violence_ops.records import ClipRecord, FramePoses
    from violence_ops.synthetic import SyntheticClip

WORLD, HELD_OUT_WORLD = 21, 22
_CLIPS_PER_GROUP = 4
_VIEWS = 2
"""How often a clip is degraded, each time by other borrowed errors."""
_LABELS = ("Fight", "NonFight")


@dataclass(frozen=True, slots=True)
class PretrainResult:
    """The start, what it was made of, and its figures on really extracted clips that chose the epoch."""

    path: str
    sha256: str
    trained_on: int
    measured_on: int
    best_epoch: int
    val_f1: float
    val_loss: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def run(
    params: Params, *, out: Path, clips: int, measured: int = 80, seed: int = 0, progress: Progress | None = None
) -> PretrainResult:
    """Train on `clips` clips that are never drawn and write the start `out` (.safetensors, its JSON beside it).

    `measured` clips are drawn and extracted with `pose.weights`; their true poses teach the degradation, and the poses that were
    really found choose the epoch. `train` and `windows` of `params` say how; `train.start` may go on from another start.

    Raises UsageError if there are too few clips or `out` is no .safetensors path.
    """
    if clips < 8 or measured < 8 or out.suffix != ".safetensors":
        raise UsageError("pretrain needs an OUT that ends in .safetensors, and at least 8 clips and 8 measured ones.")
    import numpy as np

    from violence_ops.recognition import ensemble, starts
    from violence_ops.recognition.degradation import Degradation
    from violence_ops.recognition.families import fit
    from violence_ops.recognition.model import Settings, load_config

    members = ensemble.members(Settings.of(params.train, params.windows)).values()
    if not all("train_pipeline" in load_config(one) for one in members):
        raise UsageError(
            f"train.family {params.train.family} is not of networks on skeletons, which alone can begin with a start."
        )
    labels: dict[str, str] = {}
    seen = list(_extracted(params, measured, seed, progress))
    degradation = Degradation.measure((truth, found) for _, _, truth, found in seen)
    val = [_skeleton(record, found, params) for _, record, _, found in seen]
    labels |= {record.clip_id: clip.label for clip, record, _, _ in seen}
    train = []
    for number in range(clips):
        clip = _clip(number, seed + 1, drawn=False)
        rng = np.random.default_rng([seed, number, 5])
        for view, skeleton in enumerate(_views(clip, f"s{number}", degradation, params, rng)):
            labels[f"s{number}-{view}"] = clip.label
            train.append(skeleton)
        if progress:
            progress("degrade", number + 1, clips)
    train, val = ([one for one in side if not one.is_empty] for side in (train, val))

    def on_epoch(epoch: Epoch) -> None:
        if progress:
            progress("pretrain", epoch.epoch, params.train.epochs)

    trained = fit(train, val, labels, params.train, params.windows, on_epoch)
    best = trained.history[trained.best_epoch - 1]
    facts = {"clips": clips, "views": _VIEWS, "measured": measured, "seed": seed, "world": WORLD}
    recipe = {"pose_weights": params.pose.weights, "train": params.train.model_dump(mode="json")}
    start = starts.save(trained.state, trained.settings, out, **facts, **recipe)
    return PretrainResult(
        str(start.path), start.sha256, len(train), len(val), best.epoch, round(best.val.f1, 4), round(best.val_loss, 4)
    )  # fmt: skip


def evaluate(params: Params, *, start: str, clips: int = 120, seed: int = 0, threshold: float = 0.4) -> dict[str, Any]:
    """Figures of a start, not fine-tuned, on `clips` drawn and really extracted clips of a world that no training has seen."""
    import numpy as np

    from violence_ops.evaluation.metrics import metrics
    from violence_ops.recognition import ensemble, starts
    from violence_ops.recognition.model import Settings
    from violence_ops.recognition.package import Package
    from violence_ops.recognition.predict import predict_skeleton

    found = starts.find(start)
    settings = Settings.of(params.train, params.windows)
    judge = Package(settings, threshold, ensemble.build(settings, starts.load(found, settings)))
    labels, probabilities = [], []
    for clip, record, _, poses in _extracted(params, clips, seed, None, HELD_OUT_WORLD):
        labels.append(clip.label == "Fight")
        probabilities.append(predict_skeleton(judge, _skeleton(record, poses, params)).probability)
    fights, scores = np.array(labels), np.array(probabilities)
    figures = metrics(fights, scores, scores > threshold)
    names = ("auc", "f1", "precision", "recall", "specificity", "ece")
    rounded = {name: round(float(getattr(figures, name)), 3) for name in names}
    return {"start": found.name, "clips": clips, "threshold": threshold} | rounded


def _clip(number: int, seed: int, *, drawn: bool, world: int = WORLD) -> SyntheticClip:
    """Clip `number`; those that are drawn and those that are not have no scene and no motion in common."""
    from violence_ops import synthetic

    apart = 0 if drawn else 10_000
    motion = 2**31 + seed * 1_000_003 + 50 * apart + number  # the clips of `synth` are drawn with seeds below 2^31
    group = apart + number // _CLIPS_PER_GROUP
    return synthetic.clip(motion, _LABELS[number % 2], group=group, world=world)


def _record(clip: SyntheticClip, clip_id: str) -> ClipRecord:
    from violence_ops.records import ClipRecord

    return ClipRecord(
        clip_id=clip_id, sha256="", batch_id="", source_path="", source_group=clip.source_group, width=clip.width,
        height=clip.height, fps=clip.fps, frame_count=clip.frame_count,
    )  # fmt: skip


def _truth(clip: SyntheticClip, frames: np.ndarray) -> Truth:
    from violence_ops.recognition.degradation import Truth

    return Truth(clip.keypoints[frames], clip.visibility[frames], clip.bboxes[frames])


def _extracted(
    params: Params, count: int, seed: int, progress: Progress | None, world: int = WORLD
) -> Iterator[tuple[SyntheticClip, ClipRecord, Truth, list[FramePoses]]]:
    """Clips with their true poses and those that the pose weights find in their pictures."""
    from violence_ops.records import sampled_frames
    from violence_ops.stages.extract_poses import open_source

    source = open_source(params.pose)
    for number in range(count):
        clip = _clip(number, seed, drawn=True, world=world)
        record = _record(clip, f"m{number}")
        frames = sampled_frames(record, params.pose.max_frames_per_second)
        found = source.estimate([clip.frame(int(index)) for index in frames])
        yield clip, record, _truth(clip, frames), found
        if progress:
            progress("extract", number + 1, count)


def _views(
    clip: SyntheticClip, name: str, degradation: Degradation, params: Params, rng: np.random.Generator
) -> Iterator[Skeleton]:
    """The clip as the pose weights might have found it, several times."""
    from violence_ops.records import sampled_frames

    for view in range(_VIEWS):
        record = _record(clip, f"{name}-{view}")
        truth = _truth(clip, sampled_frames(record, params.pose.max_frames_per_second))
        yield _skeleton(record, degradation.apply(truth, rng), params)


def _skeleton(record: ClipRecord, found: Sequence[FramePoses], params: Params) -> Skeleton:
    """Tracked, ranked and cut to the persons that the classifier looks at, as `annotate` and `assemble` do it."""
    from violence_ops.recognition.skeleton import from_tracks
    from violence_ops.records import ClipPoses, sampled_frames
    from violence_ops.stages.following import follow

    frames = sampled_frames(record, params.pose.max_frames_per_second)
    tracks = follow(ClipPoses.from_frames(record, frames, list(found)), params, frames)
    return from_tracks(tracks, params.windows.persons, params.windows.frames_per_second)
