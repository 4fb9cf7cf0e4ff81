"""INT8 networks: RTMO after training, quantised by NNCF with pictures like those that it will see.

Kept beside the weights that were pulled, because they cannot be made anew without the site's clips. `calibration.json` names the
networks that count; a new calibration writes its own files first and then replaces that one file.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from violence_ops.files import read_json, sha256_file, write_json
from violence_ops.pose.openvino import computes_bf16, core
from violence_ops.pose.weights import Weights, WeightsError, cache_folder

_CARD = "calibration.json"
_PARTS = (".xml", ".bin")  # of an OpenVINO network
_NOT_QUANTISED = (r".*/head_module/out_.*", r".*/(stem|stage\d)/.*")
"""Layers that are not quantised, and run in bf16 where the processor has it: those whose outputs are boxes, scores and poses,
and the backbone.

Measured (persons of full precision found again in real frames): all in INT8 .21; with a transformer's rules and the
outputs left .91; with half of the backbone left .96, with all of it .99, each at nearly the same speed. bf16: .95.
"""
_REFINER = r".*/fine_features/.*"  # stays too, in networks that have it

Size = tuple[int, int]
"""Width and height of an input, px."""


@dataclass(frozen=True)
class Calibration:
    """The INT8 networks of some weights: the .xml of each input size, and the SHA-256 of all their numbers."""

    weights: Weights
    sha256: str
    networks: dict[Size, Path]

    @property
    def poses_sha256(self) -> str:
        """What poses are marked with: weights, calibration, and what the rest of the network is computed with here."""
        rest = " bf16" if computes_bf16() else ""
        return hashlib.sha256(f"{self.weights.sha256} {self.sha256}{rest}".encode()).hexdigest()

    def network(self, width: int, height: int) -> Path:
        """The network for this input size. Raises WeightsError if there is none, or none any more."""
        if (width, height) not in self.networks:
            known = ", ".join(f"{w}x{h}" for w, h in self.networks)
            raise WeightsError(
                f"{self.weights.path.stem} has INT8 networks for {known} and none for {width}x{height}: run "
                "`violence-ops weights calibrate` with clips of that shape too, or set pose.precision to fp32."
            )
        found = self.networks[width, height]
        if not found.is_file():
            raise WeightsError(f"{found} is gone, as a newer calibration has replaced it: run the stage again.")
        return found


def poses_sha256(weights: Weights, precision: str) -> str:
    """The SHA-256 that poses are marked with: of the weights, and for int8 of their calibration too.

    Raises:
        WeightsError: int8 without a calibration.
    """
    return calibration(weights).poses_sha256 if precision == "int8" else weights.sha256


def calibration(weights: Weights) -> Calibration:
    """The last calibration of these weights.

    Raises:
        WeightsError: there is none, or its files are damaged.
        WorkspaceError: what describes it is damaged.
    """
    remedy = "run `violence-ops weights calibrate`, or set pose.precision to fp32"
    folder = _folder(weights)
    if not (folder / _CARD).is_file():
        raise WeightsError(f"{weights.path.stem} has no INT8 networks on this machine yet: {remedy}.")
    facts = read_json(folder / _CARD, remedy)
    for name, digest in facts["files"].items():
        if not (folder / name).is_file() or sha256_file(folder / name) != digest:
            raise WeightsError(f"{folder / name} is missing or damaged: {remedy}.")
    networks = {(width, height): folder / name for width, height, name, _ in facts["networks"]}
    return Calibration(weights, facts["sha256"], networks)


def calibrate(weights: Weights, pictures: Mapping[Size, Sequence[np.ndarray]], **facts: Any) -> Calibration:
    """Quantise the network of each input size with pictures (H, W, 3) uint8 BGR of that size; replaces what was before.

    `facts` are kept with it. More pictures than some hundreds bring nothing. Raises WeightsError if they cannot be written.
    """
    folder = _folder(weights)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "calibration.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another one would remove what this one has not named yet
            _calibrate(weights, pictures, folder, facts)
    except OSError as error:
        raise WeightsError(
            f"The INT8 networks cannot be kept in {folder} ({error.strerror or error}): let this user write there, make room, or "
            "name another folder in VIOLENCE_OPS_WEIGHTS."
        ) from error
    return calibration(weights)


def _calibrate(
    weights: Weights, pictures: Mapping[Size, Sequence[np.ndarray]], folder: Path, facts: dict[str, Any]
) -> None:
    """Quantise each size and publish all of them; by one process at a time."""
    networks, files = [], {}
    for (width, height), given in sorted(pictures.items()):
        with tempfile.TemporaryDirectory(prefix=".int8.", dir=folder) as fresh:
            made = _quantise(weights, (width, height), given, Path(fresh) / "network.xml")
            name = f"int8_{width}x{height}_{sha256_file(made)[:12]}"
            for part in _PARTS:
                _sync(made.with_suffix(part))
                made.with_suffix(part).replace(folder / f"{name}{part}")
                files[f"{name}{part}"] = sha256_file(folder / f"{name}{part}")
        networks.append((width, height, f"{name}.xml", len(given)))
    # an .xml has accidental names in it, which differ between equal networks
    numbers = sorted(digest for name, digest in files.items() if name.endswith(".bin"))
    digest = hashlib.sha256(" ".join(numbers).encode()).hexdigest()
    _publish(folder, {"sha256": digest, "networks": networks, "files": files, **facts})


def _folder(weights: Weights) -> Path:
    from violence_ops.pose.export import name_of

    return cache_folder() / "int8" / name_of(weights)


def _quantise(weights: Weights, size: Size, pictures: Sequence[np.ndarray], into: Path) -> Path:
    """Write the INT8 network of one input size as OpenVINO files."""
    import openvino

    from violence_ops.pose.export import exported
    from violence_ops.pose.network import FINE

    model = core().read_model(exported(weights, *size).dense)
    model.reshape({"pictures": [1, size[1], size[0], 3]})
    kept = [
        *_NOT_QUANTISED,
        *([_REFINER] if FINE in {name for port in model.outputs for name in port.get_names()} else []),
    ]
    with _nncf() as nncf:
        quantised = nncf.quantize(
            model, nncf.Dataset([picture[None] for picture in pictures]), subset_size=len(pictures),
            # a transformer's rules leave the products inside SiLU alone, on which all accuracy depends
            model_type=nncf.ModelType.TRANSFORMER, preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(patterns=kept),
        )  # fmt: skip
    openvino.save_model(quantised, into, compress_to_fp16=False)
    return into


@contextmanager
def _nncf() -> Iterator[Any]:
    """NNCF without what it sends to its makers, its log, and its bars on stdout."""
    os.environ.setdefault("NNCF_CI", "1")  # the only way to switch its telemetry off
    with redirect_stdout(sys.stderr):
        import nncf

        # of the logger alone: `nncf.set_log_level` sets what others have put on it too
        logging.getLogger("nncf").setLevel(logging.ERROR)
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            yield nncf


def _publish(folder: Path, card: dict[str, Any]) -> None:
    """Make these networks the ones that count, and remove those that no longer do."""
    write_json(folder / _CARD, card)
    for path in folder.glob("int8_*"):
        if path.name not in card["files"]:
            path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb+") as written:
        os.fsync(written.fileno())
