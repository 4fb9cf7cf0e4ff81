"""The official RTMO weights (OpenMMLab, trained on the seven body data sets): fetched, checked, converted once.

What is known of a published file before it is fetched are eight hex digits: OpenMMLab's publishing tool puts the first
ones of the file's SHA-256 into its name. They guard against damage and against a wrong file, not against somebody who
makes another file with the same digits on purpose (2^32 tries). Who needs that gives the whole SHA-256, seen on a
trusted machine: every pull prints it and writes it into the JSON beside the converted weights.

MMPose and these weights are under Apache-2.0; the data sets behind them have terms of their own.
"""

from __future__ import annotations

import fcntl
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from violence_ops.files import sha256_file
from violence_ops.pose import download, weights
from violence_ops.pose.weights import Weights, WeightsError

if TYPE_CHECKING:
    from torch import Tensor

ADDRESS: Final = "https://download.openmmlab.com/mmpose/v1/projects/rtmo"
LICENCE: Final = "Apache-2.0"
_LIMIT: Final = 1 << 29
"""Bytes that a checkpoint may have at most; the largest published one has a third of them."""
_TRAINING_ONLY: Final = ("head.assigner.", "head.loss_", "data_preprocessor.")


@dataclass(frozen=True)
class Checkpoint:
    """A published file: the network it is for, its name, and the bytes of its weights once they are converted."""

    network: str
    file: str
    converted_bytes: int

    @property
    def digits(self) -> str:
        """The first eight hex digits of the file's SHA-256, which its name carries."""
        match = re.search(r"-([0-9a-f]{8})_\d{8}\.pth$", self.file)
        if match is None:
            raise ValueError(f"{self.file} carries no digits of its SHA-256")
        return match[1]


CHECKPOINTS: Final = {
    checkpoint.network: checkpoint
    for checkpoint in (
        Checkpoint("rtmo_t", "rtmo-t_8xb32-600e_body7-416x416-f48f75cb_20231219.pth", 13_755_992),
        Checkpoint("rtmo_s", "rtmo-s_8xb32-600e_body7-640x640-dac2bf74_20231211.pth", 19_844_200),
        Checkpoint("rtmo_m", "rtmo-m_16xb16-600e_body7-640x640-39e78cc4_20231211.pth", 45_208_856),
        Checkpoint("rtmo_l", "rtmo-l_16xb16-600e_body7-640x640-b37118ce_20231211.pth", 89_597_712),
    )
}


@dataclass(frozen=True)
class Pulled:
    """Converted weights, the whole SHA-256 of the checkpoint they were made from, and whether it was fetched just now."""

    weights: Weights
    checkpoint_sha256: str
    fetched: bool


def pull(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    source: str = ADDRESS,
    sha256: str | None = None,
    progress: download.Progress | None = None,
) -> Pulled:
    """Fetch a checkpoint into `folder` and convert it to fp16 safetensors; weights that are there already are kept.

    `source` is an address that the file's name is appended to, or a local folder that holds the file. `sha256`: the whole
    digest that the checkpoint must have. One pull of a network at a time; others wait, and then find the weights there.

    Raises:
        WeightsError: a wrong digest, a file that is no checkpoint of this network, no such file, or no room.
        DownloadError, ServiceUnavailable: the server refused, or could not be reached; see `download.fetch`.
        CheckpointError: the file holds more than tensors and plain containers.
    """
    target = folder / f"{checkpoint.network}.safetensors"
    part = folder / f".{checkpoint.file}.part"
    with _writing(folder), _alone(folder / f".{checkpoint.network}.lock"):
        if there := _there(target, checkpoint, sha256):
            return there
        _obtain(checkpoint, source, part, progress)
        try:
            digest = _verified(part, checkpoint, source, sha256)
            origin = f"OpenMMLab, {checkpoint.file}, from {_shown(source)}"
            facts = {"origin": origin, "licence": LICENCE, "checkpoint_sha256": digest}
            return Pulled(convert(part, checkpoint.network, target, **facts), digest, True)
        finally:
            download.discard(part)


def convert(checkpoint: Path, network: str, target: Path, **facts: Any) -> Weights:
    """Write a checkpoint's weights as fp16 safetensors, with `facts` in the JSON beside them.

    Raises:
        CheckpointError: the file holds more than tensors and plain containers.
        WeightsError: its tensors are not those of the network, or not finite.
    """
    from violence_ops.pose import checkpoint as untrusted
    from violence_ops.pose import config

    state = untrusted.read(checkpoint)
    model = config.build(network)
    _fill(model, state, f"{checkpoint.name} does not fit the network {network}")
    return weights.save(model, target, network=network, **facts)


def _fill(model: Any, state: dict[str, Tensor], unfit: str) -> None:
    """Put the tensors into the model. All that was learned must be there; constants may come from the configuration."""
    kept = {name: value for name, value in state.items() if not name.startswith(_TRAINING_ONLY)}
    names = model.state_dict().keys()
    learned = {name for name, _ in model.named_parameters()} | {name for name in names if "running_" in name}
    missing, unknown = learned - kept.keys(), kept.keys() - names
    if missing or unknown:
        raise WeightsError(f"{unfit}: {len(missing)} tensors are missing, {len(unknown)} are unknown.")
    if not all(value.isfinite().all() for value in kept.values()):
        raise WeightsError(f"{unfit}: it holds values that are not finite.")
    try:
        model.load_state_dict(kept, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"{unfit}: tensors have other shapes.") from error


def _obtain(checkpoint: Checkpoint, source: str, part: Path, progress: download.Progress | None) -> None:
    """Have the whole checkpoint in `part`, from an address or a folder."""
    if part.is_file() and sha256_file(part).startswith(checkpoint.digits):
        return  # fetched whole by a pull that was stopped before it converted
    if "://" in source:
        download.fetch(f"{source.rstrip('/')}/{checkpoint.file}", part, limit=_LIMIT, progress=progress)
        return
    mirrored = Path(source) / checkpoint.file
    if not mirrored.is_file():
        raise WeightsError(f"There is no {checkpoint.file} in {source}: put the published file there, under that name.")
    if mirrored.stat().st_size > _LIMIT:
        raise WeightsError(f"{mirrored} has more than the {_LIMIT >> 20} MiB that are taken: it is another file.")
    try:
        shutil.copyfile(mirrored, part)
    except OSError:
        download.discard(part)
        raise


def _verified(part: Path, checkpoint: Checkpoint, source: str, sha256: str | None) -> str:
    """The checkpoint's SHA-256. Raises WeightsError if it is not the expected one."""
    digest = sha256_file(part)
    wanted = sha256.lower() if sha256 else checkpoint.digits
    if not digest.startswith(wanted) or not digest.startswith(checkpoint.digits):
        raise WeightsError(
            f"{checkpoint.file} from {_shown(source)} has SHA-256 {digest}, which does not begin with "
            f"{wanted if not digest.startswith(wanted) else checkpoint.digits}: it was removed; pull again, or from elsewhere."
        )
    return digest


def _there(target: Path, checkpoint: Checkpoint, sha256: str | None) -> Pulled | None:
    """What an earlier pull left, if it is whole and of this checkpoint."""
    try:
        found = weights.find(target)
    except WeightsError:
        return None
    seen = str(weights.read_card(target).get("checkpoint_sha256"))
    wanted = sha256.lower() if sha256 else checkpoint.digits
    same = found.network == checkpoint.network and seen.startswith(wanted) and seen.startswith(checkpoint.digits)
    return Pulled(found, seen, False) if same else None


def _shown(source: str) -> str:
    return download.shown(source) if "://" in source else source


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait for, then hold, an exclusive lock; the system frees it if the holder dies."""
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Make the folder, and turn what the system says about it into a sentence."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise WeightsError(
            f"{error.filename or folder}: {error.strerror or error}; no weights were written. "
            "Make room, see that the folder can be written, or give another one (--to)."
        ) from error
