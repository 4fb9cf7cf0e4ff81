"""Shipped and own weights: fp16 safetensors beside a small JSON that names the network and the file's SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_ops.errors import UserError
from violence_ops.files import atomic_path, sha256_file
from violence_ops.pose.config import NETWORKS, OWN

if TYPE_CHECKING:
    from torch import nn

FOLDER = Path(__file__).parent / "weights"
_REFINER = "refiner."  # what the names of its tensors begin with


class WeightsError(UserError):
    """Weights are missing, damaged, or of another network."""


@dataclass(frozen=True)
class Weights:
    """A verified weights file: its path, its SHA-256 (64 hex digits), which fingerprints use, and its network's name."""

    path: Path
    sha256: str
    network: str


def user_cache() -> Path:
    """What is this user's on this machine and can be made anew at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "violence-ops"


def cache_folder() -> Path:
    """Where `weights pull` puts what it fetched, and `weights calibrate` INT8 networks: $VIOLENCE_OPS_WEIGHTS, which machines may
    share and workers need not be able to write, or a folder of the user's cache."""
    return Path(os.environ.get("VIOLENCE_OPS_WEIGHTS") or user_cache() / "weights")


def find(name: str | Path) -> Weights:
    """The shipped or pulled weights of that name (`rtmo-s` is `rtmo_s`), or those at that path; verified against their JSON.

    Raises:
        WeightsError: no such file, no JSON beside it, an unknown network, or a hash that does not match.
    """
    path = _locate(str(name))
    card = path.with_suffix(".json")
    if not card.is_file():
        raise WeightsError(f"{card} is missing; weights are read only with the JSON that was written beside them.")
    facts = read_card(path)
    digest = sha256_file(path)
    if facts.get("sha256") != digest:
        raise WeightsError(f"{path} has SHA-256 {digest[:12]}…, not {str(facts.get('sha256'))[:12]}…: fetch it again.")
    if str(facts.get("network")) not in NETWORKS:
        raise WeightsError(
            f"{path} holds weights of {facts.get('network')}; known networks are: {', '.join(NETWORKS)}."
        )
    return Weights(path, digest, facts["network"])


def read_card(path: Path) -> dict[str, Any]:
    """What the JSON beside a weights file says. Raises WeightsError if it is not readable."""
    card = path.with_suffix(".json")
    try:
        facts = json.loads(card.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{card} is not readable as JSON ({error}): fetch the weights again.") from error
    if not isinstance(facts, dict):
        raise WeightsError(f"{card} does not describe weights: fetch them again.")
    return facts


def _locate(name: str) -> Path:
    """The file that a name or path means. Raises WeightsError if there is none."""
    if name.endswith(".safetensors"):
        places = [Path(name)]
    else:
        places = [folder / f"{name.replace('-', '_')}.safetensors" for folder in (FOLDER, cache_folder())]
    for path in places:
        if path.is_file():
            return path
    shipped = ", ".join(sorted(file.stem for file in FOLDER.glob("*.safetensors"))) or "none"
    raise WeightsError(
        f"No pose weights at {' or '.join(map(str, places))}; shipped ones are: {shipped}. "
        "Give a name or a .safetensors file, or fetch official ones: `violence-ops weights pull`."
    )


def save(model: nn.Module, path: Path, *, network: str = OWN, **facts: Any) -> Weights:
    """Write the model's weights as fp16 safetensors and the JSON beside them, each complete or not at all.

    A tensor that fp16 cannot hold (variances of raw pixels may pass 65504) stays fp32.
    """
    import torch
    from safetensors.torch import save as to_bytes

    tensors = {
        name: _narrow(value).cpu().contiguous()
        for name, value in model.state_dict().items()
        if value.dtype != torch.int64 or "num_batches_tracked" not in name
    }
    content = to_bytes(tensors)
    digest = hashlib.sha256(content).hexdigest()
    card = json.dumps({"network": network, "sha256": digest, **facts}, indent=2, ensure_ascii=False) + "\n"
    with atomic_path(path.with_suffix(".json")) as card_file, atomic_path(path) as weights_file:
        card_file.write_text(card, "utf-8")
        weights_file.write_bytes(content)
    return Weights(path, digest, network)


def has_refiner(weights: Weights) -> bool:
    """Whether these weights bring a refiner along."""
    from safetensors import safe_open

    with safe_open(weights.path, "np") as file:
        return any(name.startswith(_REFINER) for name in file.keys())  # noqa: SIM118  (no mapping)


def _narrow(value: Any) -> Any:
    """A tensor as fp16, if that holds all its values."""
    if not value.dtype.is_floating_point:
        return value
    half = value.half()
    return half if half.isfinite().all() else value.float()


def load(model: Any, weights: Weights) -> Any:
    """Put the weights into the model; every tensor must be there and fit. Weights with a refiner bring it along.

    Raises:
        WeightsError: a tensor is missing, unknown, or of another shape.
    """
    from safetensors.torch import load_file

    from violence_ops.pose.refiner import Refiner, grown

    state = grown({name: value.float() for name, value in load_file(weights.path).items()})
    model.refiner = Refiner().eval() if any(name.startswith(_REFINER) for name in state) else None
    counters = {name for name in model.state_dict() if name.endswith("num_batches_tracked")}
    unfit = f"{weights.path} does not fit the network {weights.network}"
    try:
        missing, unknown = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        one = str(error).splitlines()[-1].strip()  # of a heading and a line for each tensor
        raise WeightsError(f"{unfit}: {one.removesuffix('.')}.") from error
    absent = set(missing) - counters
    if unknown or absent:
        raise WeightsError(f"{unfit}: {len(absent)} tensors are missing, {len(unknown)} are unknown.")
    return model
