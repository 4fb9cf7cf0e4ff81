"""`weights`: which pose weights are used, training of new ones on synthetic clips, and their figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from violence_ops.code_revision import code_revision
from violence_ops.errors import UsageError
from violence_ops.files import fingerprint, read_json, sha256_file, write_json
from violence_ops.params import shipped_params
from violence_ops.pose.config import OWN
from violence_ops.stages.nightly.extract_poses import open_source
from violence_ops.stages.poses.training_run import TrainingRun, held_out_drawn, targets_drawn
from violence_ops.store.batches import Progress, is_video

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from violence_ops.pose.agreement import Source
    from violence_ops.pose.backends import BackendName, Precision
    from violence_ops.pose.lessons import Lessons
    from violence_ops.pose.samples import Sample
    from violence_ops.pose.training import TrainingSettings
    from violence_ops.pose.weights import Weights
    from violence_ops.stages.nightly.extract_poses import Source as PoseSource
    from violence_ops.video.decode import Frame

LOWEST_SCORE = 0.05  # of what average precision is over
_RATES = {"scratch": 1e-3, "whole": 4e-4, "refiner": 2.5e-3}  # peak learning rates
_SHOWN_EVERY = 1000  # steps between pictures of what the weights find
_JUDGED = 75  # held-out scenes, for the figures of a training
_LABELLED_EVERY, _LABELLED_AT_MOST = 5, 40  # frames of a real clip
_ABOUT, _REAL = "training.json", "real.npz"  # in a training's folder: what it is of, and its labelled frames
_MAY_CHANGE = {"steps", "report_every", "save_every"}  # settings that a training may go on with


def path(name: str = OWN) -> dict[str, str]:
    """Where the weights of that name (or .safetensors path) lie, with their verified SHA-256."""
    from violence_ops.pose import weights

    found = weights.find(name)
    return {"name": name, "path": str(found.path), "sha256": found.sha256}


def train(
    out: Path,
    *,
    steps: int,
    start: str | None = OWN,
    size: int = 16,
    learning_rate: float | None = None,
    seed: int = 0,
    device: str = "cpu",
    refiner: bool = False,
    clips: Path | None = None,
    teachers: Path | None = None,
    tracking: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train the small RTMO on synthetic clips and write `out` (.safetensors, with its JSON beside it).

    Continues the run whose checkpoint lies in `<out>.run/` if there is one, with as many steps or more and all else as before;
    otherwise starts from the weights `start` (None: from scratch, which needs ten times as long). `learning_rate` is the peak;
    None takes the usual one.
    The network learns together with the refiner (`pose.refiner`) that its weights bring; from scratch with a new one.
    `refiner` leaves the network as it is and trains the refiner alone, a new one if it has none.
    `clips` is a folder of real clips: half of the pictures are then frames of them, labelled by the models in the
    folder `teachers` (`pose.teacher`). `tracking` is the address of an MLflow that gets curves, pictures, and final figures
    over held-out scenes; a training that goes on stays the same run there.

    Raises:
        UsageError: `out` is no .safetensors path, `start` holds another network, a refiner has no weights to start from, real
            clips have no teachers, or `<out>.run/` holds another training. Nothing is written then.
        Rejected: a real clip does not decode within the limits (`validation`) that a workspace starts with.
    """
    from violence_ops.pose import training, weights

    begun = _begun(out, start, refiner)
    settings = training.TrainingSettings(
        steps=steps,
        size=size,
        learning_rate=learning_rate or _RATES["refiner" if refiner else "whole" if start else "scratch"],
        seed=seed,
        refiner=refiner,
    )
    folder = out.with_suffix(".run")
    if clips is not None and not (folder / _REAL).exists():
        _check_real(clips, teachers)
    run = TrainingRun(folder, tracking)
    _same_training(folder, settings, begun, clips, teachers)
    lessons = _lessons(folder, clips, teachers, begun, seed)

    def on_save(step: int, average: nn.Module) -> None:
        if step % _SHOWN_EVERY == 0 or step == steps:
            run.show(f"held_out_{step:06d}", _seen_by(average, folder / "average.safetensors", step))

    def on_report(step: int) -> None:
        run.report()
        if progress:
            progress("training", step, steps)

    facts = {"start": start, "clips": clips, "teachers": teachers, "real_pictures": len(lessons.real)}
    tags = {
        "start_sha256": begun.sha256 if begun else "none",
        "code_revision": code_revision(),
        "device": device,
    }
    with run.running(out.stem, asdict(settings) | facts, tags, training.steps_done(folder)):
        if not run.has("training"):
            run.show("training", targets_drawn(lessons, seed, size))
        model = _model(begun, refiner)
        average = training.train(model, lessons, settings, folder, device=device, on_report=on_report, on_save=on_save)
        written = weights.save(average, out, settings=asdict(settings), start=start)
        if run.is_tracked:
            run.finish(written.sha256, _numbers(evaluate(str(out), _JUDGED)))
    return {
        "path": str(written.path.absolute()), "sha256": written.sha256, "steps": steps, "log": str(folder / "log.jsonl"),
        "refiner": refiner, "mlflow": run.outcome(),
    }  # fmt: skip


def _begun(out: Path, start: str | None, refiner: bool) -> Weights | None:
    """The weights that a training of `out` begins with. Raises UsageError if it cannot be begun."""
    from violence_ops.pose import weights

    if out.suffix != ".safetensors" or out.is_dir():
        raise UsageError(f"{out} does not end in .safetensors, or is a folder: name the file to write.")
    if refiner and start is None:
        raise UsageError("A refiner learns on top of a network: name its weights with --start.")
    if start is None:
        return None
    begun = weights.find(start)
    if begun.network != OWN:
        raise UsageError(
            f"{begun.path} holds weights of {begun.network}, and only {OWN} is trained here: start from weights of that, or from none."
        )
    return begun


def _check_real(clips: Path, teachers: Path | None) -> None:
    """Raise UsageError unless there are real clips, and teachers to label them."""
    if teachers is None:
        raise UsageError("Real clips need teachers: pass --teachers with the folder of yolox_nano.onnx and MoveNet.")
    teacher_files(teachers)
    if not _videos(clips):
        raise UsageError(f"{clips} holds no videos: pass --clips with the folder of real clips, or leave it out.")


def _same_training(
    folder: Path, settings: TrainingSettings, start: Weights | None, clips: Path | None, teachers: Path | None
) -> None:
    """Note in `folder` what a training is of, or see that the one that it holds goes on. Raises UsageError if it is another."""
    from violence_ops.pose import training

    about = {name: value for name, value in asdict(settings).items() if name not in _MAY_CHANGE}
    about |= {"start_sha256": start and start.sha256, "clips_digest": clips and _digest(_videos(clips))}
    if clips and teachers:  # who goes on need not name them again
        about["teachers_digest"] = _digest(teacher_files(teachers))
    file, done = folder / _ABOUT, training.steps_done(folder)
    remedy = "name another file to write, or remove that folder to begin anew"
    if file.exists():
        kept = read_json(file, remedy)
        for name, value in about.items():
            if kept.get(name) != value:
                raise UsageError(
                    f"{folder} holds a training with {name} {kept.get(name)}, not {value}: go on with what it had, {remedy}."
                )
        if done > settings.steps:
            raise UsageError(f"{folder} holds a training of {done} steps already: ask for as many or more, {remedy}.")
    elif done or (folder / _REAL).exists():
        raise UsageError(f"{folder} holds a training of which {_ABOUT} does not say what it is of: {remedy}.")
    else:
        write_json(file, about)


def _digest(files: Iterable[Path]) -> str:
    """Of the bytes of these files, in their order."""
    return fingerprint([sha256_file(file) for file in files])


def _videos(clips: Path) -> list[Path]:
    return sorted(filter(is_video, clips.rglob("*")))


def _model(start: Weights | None, refiner: bool) -> nn.Module:
    from violence_ops.pose import config, training, weights
    from violence_ops.pose.network import refiner_of
    from violence_ops.pose.refiner import Refiner

    model = config.build()
    if start is not None:
        weights.load(model, start)
    else:
        model.init_weights()
        training.soften_start(model)
    if refiner or start is None:
        model.refiner = refiner_of(model) or Refiner()
    return model


def _seen_by(average: nn.Module, file: Path, step: int) -> Frame:
    """What the weights, kept in `file`, find in held-out pictures as the night would look at them."""
    from violence_ops.pose import weights

    weights.save(average, file, steps=step)
    return held_out_drawn(as_shipped(str(file), backend="torch", precision="fp32", device="cpu"))


def _numbers(figures: dict[str, Any]) -> dict[str, float]:
    return {f"held_out/{name}": value for name, value in figures.items() if isinstance(value, (int, float))}


def _lessons(folder: Path, clips: Path | None, teachers: Path | None, start: Weights | None, seed: int) -> Lessons:
    """What draws training pictures; the real ones are labelled once and then kept in the run's folder."""
    from violence_ops.pose import album
    from violence_ops.pose.lessons import Lessons

    if clips is None:
        return Lessons(_drawn, seed=seed)
    kept = folder / _REAL
    if not kept.exists():
        assert teachers is not None
        album.save(map(album.Print.of, _real_samples(clips, teachers, start)), kept)
    return Lessons(_drawn, album.load(kept), seed=seed)


def _drawn(rng: np.random.Generator) -> list[Sample]:
    """Stills of a new synthetic scene."""
    from violence_ops.pose import samples
    from violence_ops.synthetic.stills import stills

    return [samples.sample(*picture) for picture in stills(rng)]


def _real_samples(clips: Path, teachers: Path, start: Weights | None) -> Iterator[Sample]:
    """Frames of the clips, labelled by the teachers as far as they are sure."""
    from violence_ops.pose import teacher
    from violence_ops.video.sandbox import Sandbox

    guide = teacher.guide(*teacher_files(teachers))
    student = teacher.student(start) if start else None
    with Sandbox(shipped_params().validation) as sandbox:
        for file in _videos(clips):
            frames = (frame for _, frame in sandbox.frames(file))
            yield from teacher.labelled(guide, student, teacher.pairs(frames, _LABELLED_EVERY, _LABELLED_AT_MOST))


def teacher_files(folder: Path) -> tuple[Path, Path]:
    """The detector and the keypoint model in a folder: one .onnx, one .tflite.

    Raises:
        UsageError: there is not one of each.
    """
    files = tuple(sorted(folder.glob(pattern)) for pattern in ("*.onnx", "*.tflite"))
    if not all(len(found) == 1 for found in files):
        raise UsageError(f"{folder} must hold one .onnx detector and one .tflite keypoint model to be a teacher.")
    return files[0][0], files[1][0]


def evaluate(
    name: str,
    clips: int,
    seed: int = 0,
    score_threshold: float = 0.3,
    backend: BackendName | Literal["auto"] = "auto",
    precision: Precision | Literal["auto"] = "auto",
) -> dict[str, Any]:
    """Figures of weights on frames of synthetic scenes that no training has seen: two frames of each of `clips` clips.

    People are told apart as in a new workspace, whatever is changed in this one, so that figures can be compared (`as_shipped`).
    AP is over everything scored above LOWEST_SCORE; recall and precision are those at `score_threshold`, as on the model card.
    `auto` is what it is in params.yaml, on a processor.
    """
    from violence_ops.pose.backends import settled

    chosen, exactly = settled(backend, precision, "cpu")
    source = as_shipped(name, backend=chosen, precision=exactly, device="cpu", score_threshold=LOWEST_SCORE)
    return {"weights": name, "backend": chosen, "precision": exactly} | evaluate_source(
        source, clips, seed, score_threshold
    )


def as_shipped(name: str, **changes: Any) -> PoseSource:
    """These weights with the parameters of `pose` that a workspace starts with, but for `changes`; a path may begin here."""
    whole = str(Path(name).absolute()) if name.endswith(".safetensors") else name
    return open_source(shipped_params().pose.model_copy(update={"weights": whole} | changes))


def evaluate_source(source: Source, clips: int, seed: int = 0, score_threshold: float = 0.3) -> dict[str, Any]:
    """As `evaluate`, of a source that was opened with the score threshold LOWEST_SCORE."""
    import numpy as np

    from violence_ops.pose import quality, samples
    from violence_ops.synthetic.stills import HELD_OUT_WORLD, stills

    judged = []
    for number in range(clips):
        for still in stills(np.random.default_rng([seed, number, 9]), 2, HELD_OUT_WORLD):
            found = source.estimate([still[0]])[0]
            judged.append(quality.judge(found, samples.sample(*still)))
    overall = quality.measure(judged, LOWEST_SCORE)
    working = quality.measure(judged, score_threshold)
    return {
        "frames": len(judged),
        "persons": overall.persons,
        "ap": round(overall.average_precision, 4),
        "ap_50": round(overall.average_precision_50, 4),
        "recall_50": round(working.recall_50, 4),
        "precision_50": round(working.precision_50, 4),
        "box_recall_50": round(working.box_recall_50, 4),
        "score_threshold": score_threshold,
    }
