"""The record of a training of pose weights: its pictures, and one MLflow run that outlives kills and lost servers.

What there is to tell lies in the training's folder: `log.jsonl`, `pictures/` and what `mlflow.json` still owes. To send is
always to send what MLflow does not have yet.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from violence_ops.errors import UserError
from violence_ops.files import atomic_path, read_json, write_json
from violence_ops.registry import POSE_EXPERIMENT, Registry, Run

if TYPE_CHECKING:
    from violence_ops.pose.agreement import Source
    from violence_ops.pose.samples import Draw
    from violence_ops.video.decode import Frame

NOT_TRACKED: Final = "not logged to MLflow: pass --tracking"
_SHOWN: Final = 8  # pictures on a sheet
_NAMES: Final = {"lr": "learning_rate", "s_per_step": "s_per_step"}
_log = logging.getLogger(__name__)


class TrainingRun:
    """A training's record. Without a tracking address it only draws the pictures."""

    def __init__(self, folder: Path, tracking: str | None) -> None:
        """`folder` is the training's.

        Raises UsageError if `tracking` is no address of MLflow, ServiceUnavailable if a run must be begun and MLflow cannot be
        reached.
        """
        self.folder, self.pictures = folder, folder / "pictures"
        self._registry = Registry.at(tracking) if tracking else None
        self._file = folder / "mlflow.json"
        self._state: dict[str, Any] = (
            read_json(self._file, "remove it, and another run is begun") if self._file.exists() else {}
        )
        self._lost = False
        if self._registry and not self._state:
            self._registry.check()

    @property
    def is_tracked(self) -> bool:
        """Whether MLflow is told."""
        return self._registry is not None

    @contextmanager
    def running(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], step: int) -> Iterator[None]:
        """Begin the run, or go on at `step` with the one that was begun before; FAILED if the block raises."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._registry and not self._state:
            run = self._registry.create_run(name, tags, POSE_EXPERIMENT)
            self._state = {
                "run_id": run.run_id, "url": run.url, "resumed_at": [step] if step else [],
                "sent": {"step": 0, "pictures": []}, "owed": {"params": {k: str(v) for k, v in params.items()}},
            }  # fmt: skip
        elif self._state:
            self._state["resumed_at"] += [step]
            self._owe(
                "tags", {"resumed_at": ", ".join(map(str, self._state["resumed_at"])), "steps": str(params["steps"])}
            )
            self._owe("status", "RUNNING")
        self.send()
        try:
            yield
        except BaseException:
            self._owe("status", "FAILED")
            self.send()
            raise

    def finish(self, sha256: str, metrics: Mapping[str, float]) -> None:
        """Log the hash and the figures of the weights that came out, and end the run."""
        self._owe("tags", {"sha256": sha256})
        self._owe("metrics", dict(metrics))
        self._owe("status", "FINISHED")
        self.send()

    def has(self, name: str) -> bool:
        """Whether a picture of that name was kept."""
        return (self.pictures / f"{name}.png").exists()

    def report(self) -> None:
        """The log has a new line. A lost MLflow is left alone until there is more to tell."""
        if not self._lost:
            self.send()

    def show(self, name: str, picture: Frame) -> None:
        """Keep a picture, and tell MLflow."""
        import cv2

        with atomic_path(self.pictures / f"{name}.png") as temporary:
            temporary.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
        self.send()

    def send(self) -> None:
        """Send what MLflow does not have yet; if that fails, say so once and keep it for the next time."""
        if not self._registry:
            return
        write_json(self._file, self._state)
        try:
            with self._registry.run(self._state["run_id"]) as run:
                self._send(run)
        except (UserError, OSError) as error:
            if not self._lost:
                _log.warning("%s The training goes on; what MLflow has missed is sent later.", error)
            self._lost = True
        else:
            self._lost = False
        write_json(self._file, self._state)

    def outcome(self) -> str:
        """For people: where the run is, and whether something is missing there."""
        if not self._registry:
            return NOT_TRACKED
        missing = "; not all of it could be sent: run this again when MLflow is back" if self._lost else ""
        return f"{self._state['url']}{missing}"

    def _owe(self, key: str, value: Any) -> None:
        if self._state:
            owed = self._state["owed"]
            owed[key] = owed.get(key, {}) | value if isinstance(value, dict) else value

    def _send(self, run: Run) -> None:
        sent, owed = self._state["sent"], self._state["owed"]
        if "params" in owed:
            run.log_params(owed["params"])
            del owed["params"]
        for name, value in owed.get("tags", {}).items():
            run.set_tag(name, value)
        owed.pop("tags", None)
        points = [(step, values) for step, values in _lines(self.folder / "log.jsonl") if step > sent["step"]]
        if points:
            run.log_curves(points)
            sent["step"] = points[-1][0]
        for picture in sorted(self.pictures.glob("[!.]*.png")):
            if picture.name not in sent["pictures"]:
                run.log_file(picture, "pictures")
                sent["pictures"].append(picture.name)
        if "metrics" in owed:
            run.log_curves([(sent["step"], owed["metrics"])])
            del owed["metrics"]
        if "status" in owed:
            run.set_status(owed["status"])
            del owed["status"]


def _lines(log: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Step and metrics of every line; of a step that was done twice the later one."""
    if not log.exists():
        return
    lines = {line["step"]: line for line in map(json.loads, log.read_text("utf-8").splitlines())}
    for step in sorted(lines):
        values = {name: float(value) for name, value in lines[step].items() if name != "step"}
        losses = {name: value for name, value in values.items() if name not in _NAMES}
        curves = {_NAMES[name]: values[name] for name in _NAMES}
        yield step, curves | {f"loss/{name}": value for name, value in losses.items()} | {"loss": sum(losses.values())}


def targets_drawn(draw: Draw, seed: int, size: int) -> Frame:
    """Pictures of the first mini-batch, with what is wanted of the network; in grey who is neither wanted nor wrong."""
    from violence_ops.pose.samples import mini_batches
    from violence_ops.video.sheet import sheet, with_people

    batch = next(mini_batches(draw, seed, size))[:_SHOWN]
    return sheet([with_people(s.image, s.keypoints, s.visibility / 2, s.bboxes, s.ignored, least=0.25) for s in batch])


def held_out_drawn(source: Source, seed: int = 0) -> Frame:
    """What a source finds in pictures that no training sees, the same ones every time."""
    import numpy as np

    from violence_ops.synthetic.stills import HELD_OUT_WORLD, stills
    from violence_ops.video.sheet import sheet, with_people

    pictures = []
    for number in range(_SHOWN):
        ((picture, *_),) = stills(np.random.default_rng([seed, number, 8]), 1, HELD_OUT_WORLD)
        found = source.estimate([picture])[0]
        nobody = np.zeros(len(found), bool)
        pictures.append(with_people(picture, found.keypoints, found.keypoint_scores, found.bboxes, nobody, least=0.2))
    return sheet(pictures)
