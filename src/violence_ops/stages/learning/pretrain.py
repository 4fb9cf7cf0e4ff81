"""`pretrain`: a start for `train` from synthetic clips, as the pose weights in use find the people in them.

The clips are drawn, encoded, decoded and looked at like those of a night; tracking and ranking are the pipeline's own. Their
scenes, people and motions are those of a world of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from violence_ops.errors import UsageError
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params
from violence_ops.store.batches import Progress

if TYPE_CHECKING:
    from violence_ops.recognition.skeleton import Skeleton
    from violence_ops.recognition.train import Epoch
    from violence_ops.records import ClipPoses, ClipRecord

MIN_CLIPS: Final = 8
"""Clips, at least, to train on, and to choose the epoch by."""
WORLD, HELD_OUT_WORLD = 21, 22


@dataclass(frozen=True, slots=True)
class PretrainResult(Jsonable):
    """The start, what it was made of, and its figures on the clips that chose the epoch."""

    path: str
    sha256: str
    trained_on: int
    validated_on: int
    best_epoch: int
    val_f1: float
    val_loss: float


def run(
    params: Params, *, out: Path, clips: int, validation: int, seed: int = 0, progress: Progress | None = None
) -> PretrainResult:
    """Train on `clips` drawn clips and write the start `out` (.safetensors, its JSON beside it).

    `validation` further clips, rounded up to whole scenes that training does not see, choose the epoch. What `pose.weights`
    finds, and each epoch, is kept in `<out>.run/`, so that a run that was ended goes on, and one with more clips looks at the
    new ones alone. `train` and `windows` of `params` say how; `train.start` may go on from another start.

    Raises UsageError if there are too few clips, `out` is no .safetensors path, or the family cannot begin with a start;
    ParamsError if `train.start` or `train.precision` does not fit. Nothing is drawn then.
    """
    _check(params, out, clips, validation, seed)
    from violence_ops.recognition import starts
    from violence_ops.recognition.families import fit, precision
    from violence_ops.stages.learning.drawn import CLIPS_PER_SCENE, World
    from violence_ops.stages.nightly.extract_poses import source_sha256

    # with thousands of clips the start that this one goes on from has nothing to keep
    params = params.model_copy(update={"train": params.train.model_copy(update={"start_share": 0.0})})
    held = -(-validation // CLIPS_PER_SCENE) * CLIPS_PER_SCENE  # whole scenes
    world = World(WORLD, seed, out.with_suffix(".run"))
    labels, skeletons = {}, []
    for record, poses in world.look(params, held + clips, progress):
        labels[record.clip_id] = str(record.label)
        skeletons.append(_skeleton(record, poses, params))
    train = [one for one in skeletons[held:] if not one.is_empty]

    def on_epoch(epoch: Epoch) -> None:
        if progress:
            progress("pretrain", epoch.epoch, params.train.epochs)

    facts: dict[str, Any] = {"clips": clips, "validation": held, "seed": seed, "world": WORLD}
    facts |= {"pose_weights": params.pose.weights, "pose_weights_sha256": source_sha256(params.pose)}
    facts["trained_in"] = precision(params.train, params.windows)
    facts |= {name: getattr(params, name).model_dump(mode="json") for name in ("train", "windows")}
    checkpoint = world.folder / f"{_digest(skeletons, facts)}.pt"
    trained = fit(train, skeletons[:held], labels, params.train, params.windows, on_epoch, checkpoint)
    best = trained.history[trained.best_epoch - 1]
    start = starts.save(trained.state, trained.settings, out, **facts)
    for path in world.folder.glob(f"{checkpoint.stem}*.pt"):
        path.unlink()
    return PretrainResult(
        str(start.path.absolute()), start.sha256, len(train), held, best.epoch, round(best.val.f1, 4), round(best.val_loss, 4)
    )  # fmt: skip


def _check(params: Params, out: Path, clips: int, validation: int, seed: int) -> None:
    if min(clips, validation) < MIN_CLIPS or seed < 0 or out.suffix != ".safetensors" or out.is_dir():
        raise UsageError(
            f"pretrain needs an OUT that ends in .safetensors and is no folder, at least {MIN_CLIPS} clips and {MIN_CLIPS} of validation, and "
            "a seed >= 0."
        )
    from violence_ops.recognition import ensemble, families
    from violence_ops.recognition.model import Settings, load_config

    members = ensemble.members(Settings.of(params.train, params.windows)).values()
    if not all("train_pipeline" in load_config(one) for one in members):
        raise UsageError(
            f"train.family {params.train.family} is not of networks on skeletons, which alone can begin with a start."
        )
    families.check(params.train, params.windows)


def _digest(skeletons: Sequence[Skeleton], facts: dict[str, Any]) -> str:
    """Of all that a training follows from: one of other clips or settings does not go on from its epochs."""
    import hashlib

    from violence_ops.files import fingerprint

    seen = hashlib.sha256()
    for one in skeletons:
        seen.update(one.keypoints.tobytes())
        seen.update(one.keypoint_scores.tobytes())
    return fingerprint(seen.hexdigest(), facts)


def evaluate(params: Params, *, start: str, clips: int = 120, seed: int = 0, threshold: float = 0.4) -> dict[str, Any]:
    """Figures of a start, not fine-tuned, on `clips` clips of a world that no training has seen."""
    import numpy as np

    from violence_ops.evaluation.metrics import metrics
    from violence_ops.recognition import ensemble, starts
    from violence_ops.recognition.model import Settings
    from violence_ops.recognition.package import Package
    from violence_ops.recognition.predict import predict_skeleton
    from violence_ops.stages.learning.drawn import World

    found = starts.find(start)
    settings = Settings.of(params.train, params.windows)
    judge = Package(settings, threshold, ensemble.build(settings, starts.load(found, settings)))
    labels, probabilities = [], []
    with TemporaryDirectory() as folder:
        for record, poses in World(HELD_OUT_WORLD, seed, Path(folder)).look(params, clips):
            labels.append(record.label == "Fight")
            probabilities.append(predict_skeleton(judge, _skeleton(record, poses, params)).probability)
    fights, scores = np.array(labels), np.array(probabilities)
    figures = metrics(fights, scores, scores > threshold)
    names = ("auc", "f1", "precision", "recall", "specificity", "ece")
    rounded = {name: round(float(getattr(figures, name)), 3) for name in names}
    return {"start": found.name, "clips": clips, "threshold": threshold} | rounded


def _skeleton(record: ClipRecord, poses: ClipPoses, params: Params) -> Skeleton:
    """Tracked, ranked and cut to the persons that the classifier looks at, as `annotate` and `assemble` do it."""
    from violence_ops.recognition.skeleton import from_tracks
    from violence_ops.records import sampled_frames
    from violence_ops.stages.nightly.following import follow

    tracks = follow(poses, params, sampled_frames(record, params.pose.max_frames_per_second))
    return from_tracks(tracks, params.windows.persons, params.windows.frames_per_second)
