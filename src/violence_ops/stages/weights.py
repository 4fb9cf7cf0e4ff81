"""`weights`: which pose weights are used, training of new ones on synthetic clips, and their figures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from violence_ops.pose.samples import Draw

_FRAMES_OF_A_CLIP = (5, 25)  # that are rehearsed


def path(name: str = "rtmo_small") -> dict[str, str]:
    """Where the weights of that name (or .safetensors path) lie, with their verified SHA-256."""
    from violence_ops.pose import weights

    found = weights.find(name)
    return {"name": name, "path": str(found.path), "sha256": found.sha256}


def available() -> dict[str, str]:
    """The shipped weights: name to size, hash and where they come from."""
    import json

    from violence_ops.pose import weights

    rows = {}
    for file in sorted(weights.FOLDER.glob("*.safetensors")):
        found = weights.find(file.stem)
        origin = json.loads(file.with_suffix(".json").read_text("utf-8")).get("origin", "see its model card")
        size = found.path.stat().st_size / 2**20
        rows[file.stem] = f"{size:.1f} MiB, Apache-2.0, sha256 {found.sha256[:16]}…, {origin}"
    return rows


def train(
    out: Path,
    steps: int,
    start: str | None = "rtmo_small",
    size: int = 16,
    learning_rate: float = 1e-3,
    seed: int = 0,
    device: str = "cpu",
    soften: bool = False,
    clips: Path | None = None,
) -> dict[str, Any]:
    """Train the small RTMO on synthetic clips and write `out` (.safetensors, with its JSON beside it).

    Continues the run whose checkpoint lies in `<out>.run/` if there is one; otherwise starts from the weights `start`
    (None: from scratch, which needs ten times as long). `soften` resets the coordinate classifier's start.
    `clips` is a folder of real clips, unlabelled: a quarter of the pictures are then frames of them (`pose.rehearsal`).
    """
    from violence_ops.pose import config, training, weights

    model = config.build()
    if start is not None:
        weights.load(model, weights.find(start))
    else:
        model.init_weights()
    if soften or start is None:
        training.soften_start(model)
    settings = training.TrainingSettings(steps=steps, size=size, learning_rate=learning_rate, seed=seed)
    folder = out.with_suffix(".run")
    average = training.train(model, _drawer(clips, start), settings, folder, device=device)
    written = weights.save(average, out, settings=asdict(settings), start=start)
    return {"path": str(written.path), "sha256": written.sha256, "steps": steps, "log": str(folder / "log.jsonl")}


def _drawer(clips: Path | None, start: str | None) -> Draw:
    """What draws training pictures: synthetic stills, and one time in four real frames if there are any."""
    from violence_ops.pose import rehearsal, samples, weights
    from violence_ops.synthetic.stills import stills
    from violence_ops.video import decode

    real: list[samples.Sample] = []
    if clips is not None and start is not None:
        files = sorted(file for file in clips.rglob("*") if file.suffix in {".mp4", ".avi", ".mov", ".mkv"})
        frames = (frame for file in files for frame in decode.frames(file, indices=_FRAMES_OF_A_CLIP))
        real = rehearsal.rehearse(weights.find(start), frames)

    def draw(rng: np.random.Generator) -> list[samples.Sample]:
        if real and rng.random() < 0.25:
            return [real[index] for index in rng.integers(0, len(real), 4)]
        return [samples.sample(*picture) for picture in stills(rng)]

    return draw


def evaluate(name: str = "rtmo_small", clips: int = 150, seed: int = 0, score_threshold: float = 0.3) -> dict[str, Any]:
    """Figures of weights on frames of synthetic scenes that no training has seen: two frames of each of `clips` clips.

    AP is over everything scored above 0.05; recall and precision are those at `score_threshold`.
    """
    import numpy as np

    from violence_ops.pose import quality, samples, weights
    from violence_ops.pose.rtmo import PoseEstimator
    from violence_ops.synthetic.stills import HELD_OUT_WORLD, stills

    estimator = PoseEstimator(weights.find(name), score_threshold=0.05)
    judged = []
    for number in range(clips):
        for still in stills(np.random.default_rng([seed, number, 9]), 2, HELD_OUT_WORLD):
            found = estimator.estimate([still[0]])[0]
            judged.append(quality.judge(found, samples.sample(*still)))
    overall = quality.measure(judged, 0.05)
    working = quality.measure(judged, score_threshold)
    return {
        "weights": name,
        "frames": len(judged),
        "persons": overall.persons,
        "ap": round(overall.average_precision, 4),
        "ap_50": round(overall.average_precision_50, 4),
        "recall_50": round(working.recall_50, 4),
        "precision_50": round(working.precision_50, 4),
        "box_recall_50": round(working.box_recall_50, 4),
        "score_threshold": score_threshold,
    }
