"""A trained classifier as a folder: `model.safetensors`, `config.json`, `thresholds.json`, `MODEL_CARD.md`. No pickle in it.

Its networks lie beside them as ONNX too: `model.onnx`, of an ensemble one for each member that is a network.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from violence_ops.errors import UserError
from violence_ops.recognition import exported
from violence_ops.recognition.ensemble import build, pictures, streams
from violence_ops.recognition.model import Classifier, Settings
from violence_ops.recognition.pictures import Asked
from violence_ops.wording import counted

if TYPE_CHECKING:
    from violence_ops.recognition.train import Trained

_FORMAT = 1


@dataclass(frozen=True)
class Package:
    """A classifier ready to judge clips."""

    settings: Settings
    threshold: float
    recogniser: Classifier

    @cached_property
    def asked(self) -> Asked | None:
        """The pictures that the classifier looks at; None if it looks at skeletons alone."""
        return pictures(self.settings)


def save(trained: Trained, folder: Path, facts: dict[str, Any]) -> None:
    """Write the package into `folder`. `facts` (dataset revision, code revision, counts) go on the model card."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in trained.state.items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    _write(folder / "config.json", {"format": _FORMAT} | trained.settings.to_dict())
    sweep = [asdict(scores) for scores in trained.sweep]
    thresholds: dict[str, Any] = {
        "threshold": trained.threshold,
        "chosen_by": "validation F1, within its standard error, nearest 0.5",
        "sweep": sweep,
    }
    if trained.members:
        thresholds["members"] = {name: asdict(scores) for name, scores in trained.members.items()}
    _write(folder / "thresholds.json", thresholds)
    (folder / "MODEL_CARD.md").write_text(_card(trained, facts), "utf-8")
    for name, network in exported.networks(build(trained.settings, state)).items():
        exported.export(network, folder / name)


def load(folder: Path) -> Package:
    """Read a package. Raises UserError if a file is missing or is not what `save` writes."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        if config.pop("format") != _FORMAT:
            raise UserError(
                f"{folder} holds a model of another format: train it again with this version of violence-ops."
            )
        settings = Settings.from_dict(config)
        threshold = float(json.loads((folder / "thresholds.json").read_text("utf-8"))["threshold"])
        recogniser = build(settings, load_file(folder / "model.safetensors"))
        exported.attach(recogniser, folder)
    # what lies there is anybody's: RecursionError is a RuntimeError, and what is no object has no `pop`
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{folder} is no usable model package ({reason}): download or train it again.") from None
    return Package(settings, threshold, recogniser)


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", "utf-8")


def _card(trained: Trained, facts: dict[str, Any]) -> str:
    settings, best = trained.settings, trained.history[trained.best_epoch - 1]
    windows = settings.windows
    asked = pictures(settings)
    seen = f"pictures of {asked.size} px around" if asked else "the skeletons of"
    persons = asked.persons if asked else windows.persons
    shown = streams(settings)
    named = f"streams {', '.join(shown)}, " if shown else ""
    lines = [
        "# violence-detector",
        "",
        f"Fight or NonFight from {seen} the {counted(persons, 'most involved person')} of a clip ({settings.family}, "
        f"{settings.base_channels} base channels, {named}windows of {windows.size} frames every {windows.stride}).",
        "",
        "| fact | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in facts.items()),
        f"| parameters | {sum(value.numel() for value in trained.state.values()):,} |",
        f"| best epoch | {best.epoch} of {len(trained.history)} |",
        f"| threshold | {trained.threshold} (by F1 on validation; of those within its standard error the nearest 0.5) |",
        f"| validation | {counted(len(trained.val_clips), 'clip')}: F1 {best.val.f1:.3f}, precision {best.val.precision:.3f}, "
        f"recall {best.val.recall:.3f} |",
        *(f"| member {name} | alone: F1 {one.f1:.3f} at {one.threshold} |" for name, one in trained.members.items()),
        "",
        "The validation figures chose the epoch and the threshold, so they flatter; the evaluation on the frozen holdout is the "
        "figure to trust. A person decides on every alarm: the model sees people, not intent.",
    ]
    return "\n".join(lines) + "\n"
