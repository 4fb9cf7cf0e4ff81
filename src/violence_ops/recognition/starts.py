"""Shipped and own starts of a training: a pretrained classifier as safetensors beside a small JSON with its SHA-256."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_ops.errors import ParamsError, UserError
from violence_ops.files import atomic_path, sha256_file, write_json
from violence_ops.params import STARTS, shipped_starts

if TYPE_CHECKING:
    from torch import Tensor

    from violence_ops.recognition.model import Settings

_STREAMS = ("joint", "joint_motion")  # of starts from before they named them


@dataclass(frozen=True, slots=True)
class Part:
    """One network of a start: its name, empty if there is but one, and the settings that a training from it must have."""

    name: str
    family: str
    streams: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Start:
    """A verified start: its name, file, SHA-256, and the networks whose weights it holds."""

    name: str
    path: Path
    sha256: str
    base_channels: int
    window_size: int
    parts: tuple[Part, ...]

    def part(self, settings: Settings) -> Part | None:
        """The network that a training with these settings can go on from."""
        if (settings.base_channels, settings.windows.size) != (self.base_channels, self.window_size):
            return None
        asked = (settings.family, tuple(settings.streams))
        return next((part for part in self.parts if (part.family, part.streams) == asked), None)

    def misfit(self, settings: Settings, family: str) -> str:
        """Why a training of `family`, one network of which has these settings, cannot go on from it, and what to change."""
        from violence_ops.recognition import ensemble

        held = " or ".join(f"{part.family} on {', '.join(part.streams)}" for part in self.parts)
        shown = ensemble.streams(settings)
        asked = f"{settings.family} on {', '.join(shown)}" if shown else settings.family
        return (
            f"train.start {self.name} does not fit train.family {family}: it holds {held}, of train.base_channels {self.base_channels} "
            f"and windows.size {self.window_size}, and not {asked}, of {settings.base_channels} and {settings.windows.size}: change "
            'these, or set train.start to null, and epochs and rates as docs/learning.md has them under "From scratch".'
        )


def find(name: str | Path) -> Start:
    """The shipped start of that name, or the one at that .safetensors path; verified against the JSON beside it.

    Raises ParamsError if it is a relative path, there is none, its JSON is missing or incomplete, or the hash does not match.
    """
    path = Path(name) if str(name).endswith(".safetensors") else STARTS / f"{name}.safetensors"
    if not path.is_absolute():
        raise ParamsError(
            f"train.start is {str(name)!r}, which a task of Airflow's would look for in another folder: write {path.absolute()}, if you "
            "mean that."
        )
    card = path.with_suffix(".json")
    if not path.is_file() or not card.is_file():
        shipped = ", ".join(shipped_starts()) or "none"
        raise ParamsError(
            f"train.start is {str(name)!r}, but {path.absolute()} with its .json is not there: use null, one of {shipped}, or the "
            "full path of one of your own."
        )
    digest = sha256_file(path)
    try:
        facts = json.loads(card.read_text("utf-8"))
        expected, sizes = facts["sha256"], (facts["base_channels"], facts["window_size"])
        networks = facts.get("networks") or {"": {"family": facts["family"], "streams": facts.get("streams", _STREAMS)}}
        parts = tuple(Part(part, one["family"], tuple(one["streams"])) for part, one in networks.items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ParamsError(f"{card} does not describe a start (base_channels, networks, ...): make it again.") from None
    if expected != digest:
        raise ParamsError(f"{path} has SHA-256 {digest[:12]}…, not {str(expected)[:12]}…: fetch it again.")
    return Start(path.stem, path, digest, *sizes, parts)


def load(start: Start, settings: Settings) -> dict[str, Tensor]:
    """The weights of a start, for a classifier of `settings`. Raises ParamsError if it was trained with other settings."""
    from violence_ops.recognition import ensemble

    weights = _weights(start)
    found = {}
    for member, own in ensemble.members(settings).items():
        part = start.part(own)
        if part is None:
            raise ParamsError(start.misfit(own, settings.family))
        found[member] = ensemble.of_member(weights, part.name) if part.name else weights
    return found[settings.family] if list(found) == [settings.family] else ensemble.joined(found)


def _weights(start: Start) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {
            name: value.float() if value.is_floating_point() else value for name, value in load_file(start.path).items()
        }
    except (OSError, SafetensorError) as error:
        raise UserError(f"{start.path} is not readable as safetensors ({error}): fetch it again.") from None


def save(state: Mapping[str, Tensor], settings: Settings, path: Path, **facts: Any) -> Start:
    """Write a start, of a network or of an ensemble of some: half-precision weights, and the JSON beside them with `facts`."""
    from safetensors.torch import save_file

    from violence_ops.recognition import ensemble

    halves = {n: (v.half() if v.is_floating_point() else v).cpu().contiguous() for n, v in state.items()}
    with atomic_path(path) as temporary:
        save_file(halves, temporary, metadata={"format": "pt"})
        digest = sha256_file(temporary)
    networks = {
        "" if name == settings.family else name: {"family": one.family, "streams": list(one.streams)}
        for name, one in ensemble.members(settings).items()
    }
    content = {
        "sha256": digest, "base_channels": settings.base_channels, "window_size": settings.windows.size, "networks": networks,
        "persons": settings.windows.persons, **facts,
    }  # fmt: skip
    write_json(path.with_suffix(".json"), content)
    return find(path.absolute())
