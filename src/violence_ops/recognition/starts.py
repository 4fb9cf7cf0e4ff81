"""Shipped and own starts of a training: a pretrained classifier as safetensors beside a small JSON with its SHA-256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_ops.errors import ParamsError, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from violence_ops.recognition.model import Settings

FOLDER = Path(__file__).parent / "weights"
_STREAMS = ("joint", "joint_motion")  # of starts from before they named them


@dataclass(frozen=True, slots=True)
class Start:
    """A verified start: its name, file, SHA-256, and the settings that a training from it must have."""

    name: str
    path: Path
    sha256: str
    family: str
    base_channels: int
    window_size: int
    streams: tuple[str, ...]

    def misfit(self, settings: Settings) -> str | None:
        """What a training would have to change for this start, or None if it fits."""
        asked = (settings.family, settings.base_channels, settings.windows.size, tuple(settings.streams))
        if asked == (self.family, self.base_channels, self.window_size, self.streams):
            return None
        return (
            f"train.start {self.name} needs train.family {self.family}, train.base_channels {self.base_channels}, "
            f"windows.size {self.window_size} and train.streams {', '.join(self.streams)}, not {asked[0]}, {asked[1]}, "
            f"{asked[2]} and {', '.join(asked[3])}: change these, or train.start to null."
        )


def available() -> list[str]:
    """The names of the shipped starts."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def find(name: str | Path) -> Start:
    """The shipped start of that name, or the one at that .safetensors path; verified against the JSON beside it.

    Raises ParamsError if there is none, its JSON is missing or incomplete, or the hash does not match.
    """
    path = Path(name) if str(name).endswith(".safetensors") else FOLDER / f"{name}.safetensors"
    card = path.with_suffix(".json")
    if not path.is_file() or not card.is_file():
        shipped = ", ".join(available()) or "none"
        raise ParamsError(
            f"train.start is {str(name)!r}, but {path} with its .json is not there: use null or one of {shipped}."
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        facts = json.loads(card.read_text("utf-8"))
        known = {key: facts[key] for key in ("family", "base_channels", "window_size")}
        known["streams"] = tuple(facts.get("streams", _STREAMS))
        expected = facts["sha256"]
    except (ValueError, KeyError, TypeError):
        raise ParamsError(f"{card} does not describe a start (family, base_channels, ...): make it again.") from None
    if expected != digest:
        raise ParamsError(f"{path} has SHA-256 {digest[:12]}…, not {str(expected)[:12]}…: fetch it again.")
    return Start(path.stem, path, digest, **known)


def load(start: Start, settings: Settings) -> dict[str, Tensor]:
    """The weights of a start, for a network of `settings`. Raises ParamsError if it was trained with other settings."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if reason := start.misfit(settings):
        raise ParamsError(reason)
    try:
        return {
            name: value.float() if value.is_floating_point() else value for name, value in load_file(start.path).items()
        }
    except (OSError, SafetensorError) as error:
        raise UserError(f"{start.path} is not readable as safetensors ({error}): fetch it again.") from None


def save(state: Mapping[str, Tensor], settings: Settings, path: Path, **facts: Any) -> Start:
    """Write a start: half-precision weights, and the JSON beside them with `facts`."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    halves = {n: (v.half() if v.is_floating_point() else v).cpu().contiguous() for n, v in state.items()}
    temporary = path.with_suffix(".tmp")
    save_file(halves, temporary, metadata={"format": "pt"})
    digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
    needs = {"family": settings.family, "base_channels": settings.base_channels, "window_size": settings.windows.size,
             "streams": list(settings.streams)}  # fmt: skip
    content = {"sha256": digest, **needs, "persons": settings.windows.persons, **facts}
    path.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    temporary.replace(path)
    return find(path)
