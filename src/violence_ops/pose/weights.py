"""Shipped and own weights: fp16 safetensors beside a small JSON that names the network and the file's SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_ops.errors import UserError

if TYPE_CHECKING:
    from torch import nn

FOLDER = Path(__file__).parent / "weights"
NETWORK = "rtmo_small"


class WeightsError(UserError):
    """Weights are missing, damaged, or of another network."""


@dataclass(frozen=True)
class Weights:
    """A verified weights file: its path and SHA-256 (64 hex digits), which fingerprints use."""

    path: Path
    sha256: str


def find(name: str | Path) -> Weights:
    """The shipped weights of that name, or those at that path; verified against the JSON beside them.

    Raises:
        WeightsError: no such file, no JSON beside it, another network, or a hash that does not match.
    """
    path = FOLDER / f"{name}.safetensors" if not str(name).endswith(".safetensors") else Path(name)
    if not path.is_file():
        shipped = ", ".join(sorted(file.stem for file in FOLDER.glob("*.safetensors"))) or "none"
        raise WeightsError(
            f"No pose weights at {path}; shipped ones are: {shipped}. Give a name or a .safetensors file."
        )
    card = path.with_suffix(".json")
    if not card.is_file():
        raise WeightsError(f"{card} is missing; weights are read only with the JSON that was written beside them.")
    facts = json.loads(card.read_text())
    digest = file_sha256(path)
    if facts.get("sha256") != digest:
        raise WeightsError(f"{path} has SHA-256 {digest[:12]}…, not {str(facts.get('sha256'))[:12]}…: fetch it again.")
    if facts.get("network") != NETWORK:
        raise WeightsError(f"{path} holds weights of {facts.get('network')}, not of {NETWORK}.")
    return Weights(path, digest)


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save(model: nn.Module, path: Path, **facts: Any) -> Weights:
    """Write the model's weights as fp16 safetensors and the JSON beside them, each complete or not at all."""
    import torch
    from safetensors.torch import save_file

    tensors = {
        name: (value.half() if value.dtype.is_floating_point else value).cpu().contiguous()
        for name, value in model.state_dict().items()
        if value.dtype != torch.int64 or "num_batches_tracked" not in name
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    save_file(tensors, fresh)
    digest = file_sha256(fresh)
    card = path.with_suffix(".json.tmp")
    card.write_text(json.dumps({"network": NETWORK, "sha256": digest, **facts}, indent=2) + "\n")
    for done in (fresh, card):
        with done.open("rb") as file:
            os.fsync(file.fileno())
    fresh.replace(path)
    card.replace(path.with_suffix(".json"))
    return Weights(path, digest)


def load(model: Any, weights: Weights) -> Any:
    """Put the weights into the model; every tensor must be there and fit.

    Raises:
        WeightsError: a tensor is missing, unknown, or of another shape.
    """
    from safetensors.torch import load_file

    state = {name: value.float() for name, value in load_file(weights.path).items()}
    counters = {name for name in model.state_dict() if name.endswith("num_batches_tracked")}
    try:
        missing, unknown = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"{weights.path} does not fit the network {NETWORK}: {error}") from error
    if unknown or set(missing) - counters:
        raise WeightsError(f"{weights.path} does not fit the network {NETWORK}: {len(missing)} tensors are missing.")
    return model
