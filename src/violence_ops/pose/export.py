"""RTMO as ONNX files: made once for weights and an input size, kept in the user's cache under the hash of both."""

from __future__ import annotations

import copy
import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_ops.files import atomic_path
from violence_ops.pose.network import (
    DENSE_OUTPUTS,
    FINE,
    JOINTS_INPUTS,
    REFINED_INPUTS,
    Dense,
    Joints,
    Refined,
)  # fmt: skip
from violence_ops.pose.weights import Weights, WeightsError, has_refiner, load, user_cache

if TYPE_CHECKING:
    from torch import nn

_OPSET = 17
_VERSION = 7  # of what is exported: another one makes the files anew
_FREE = {0: "pictures", 1: "height", 2: "width"}  # of fine features: they are of pictures, not of persons


@dataclass(frozen=True)
class Exported:
    """The networks of one input size: `dense` looks at pictures, `joints` places joints, `refined` looks at them again."""

    dense: Path
    joints: Path
    refined: Path | None


def name_of(weights: Weights) -> str:
    """What the folders of what is made of these weights are called."""
    text = f"{_VERSION} {_OPSET} {weights.network} {weights.sha256}"
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def exported(weights: Weights, width: int, height: int) -> Exported:
    """The ONNX files of these weights for pictures of this size (px, multiples of 32), made if they are not there yet.

    Raises WeightsError if they cannot be written.
    """
    folder = user_cache() / "engines" / name_of(weights)
    refined = folder / "refined.onnx" if has_refiner(weights) else None
    found = Exported(folder / f"dense_{width}x{height}.onnx", folder / "joints.onnx", refined)
    try:
        if not all(path is None or path.is_file() for path in (found.dense, found.joints, found.refined)):
            _export(weights, width, height, found)
    except OSError as error:
        raise WeightsError(
            f"The networks made of {weights.path.name} cannot be kept in {folder} ({error.strerror or error}): let this user write "
            "there, make room, or name another folder for caches in XDG_CACHE_HOME."
        ) from error
    return found


def fused(model: Any, width: int, height: int) -> Any:
    """A copy of the model for pictures of one size, its re-parameterised branches merged (RepVGG, section 3.3), and its stem."""
    merged = copy.deepcopy(model).eval()
    merged.backbone.stem = _one_convolution(merged.backbone.stem)
    for part in (merged.backbone, merged.neck):
        for module in part.modules():
            if module is not part and hasattr(module, "switch_to_deploy"):
                module.switch_to_deploy(None)
    merged.neck.switch_to_deploy({"input_size": (height, width)})
    return merged


def _one_convolution(stem: Any) -> Any:
    """YOLOX's Focus, which turns 2 x 2 px into channels for a k x k convolution, as one of 2k x 2k px and stride 2."""
    import torch
    from torch import nn

    module, old = stem.conv, stem.conv.conv
    size, colours = 2 * old.kernel_size[0], old.in_channels // 4
    new = nn.Conv2d(colours, old.out_channels, size, stride=2, padding=2 * old.padding[0], bias=False)
    with torch.no_grad():
        for part, (down, right) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
            new.weight[:, :, down::2, right::2] = old.weight[:, part * colours :][:, :colours]
    module.conv = new
    return module


def _export(weights: Weights, width: int, height: int, into: Exported) -> None:
    import torch

    from violence_ops.pose import config

    model = load(config.build(weights.network), weights)
    dense = Dense(fused(model, width, height), width, height).eval()
    joints = Joints(model).eval()
    with torch.inference_mode():
        pictures = torch.zeros((1, height, width, 3), dtype=torch.uint8)
        seen = [output.clone() for output in dense(pictures)]
        poses, frames, centres = seen[3][0, :2], torch.tensor([[32.0, 32.0, 64.0, 64.0]] * 2), torch.full((2, 2), 24.0)
        placed = joints(poses, frames, centres)
    outputs = DENSE_OUTPUTS if into.refined is None else (*DENSE_OUTPUTS, FINE)
    _write(dense, (pictures,), ("pictures",), outputs, into.dense)
    _write(joints, (poses, frames, centres), JOINTS_INPUTS, ("joints",), into.joints)
    if into.refined is not None:
        example = (poses, frames, placed, torch.zeros(2, dtype=torch.int64), seen[4])
        _write(Refined(model.refiner).eval(), example, REFINED_INPUTS, ("refined",), into.refined, {FINE: _FREE})


def _write(
    network: nn.Module,
    example: tuple[Any, ...],
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    path: Path,
    free: dict[str, dict[int, str]] = {},  # noqa: B006  (only read)
) -> None:
    """Write the network with a free first dimension, complete or not at all; `free` are more free dimensions."""
    import torch

    with atomic_path(path) as temporary, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, example, str(temporary), input_names=list(inputs), output_names=list(outputs), opset_version=_OPSET,
            dynamic_axes={name: {0: "count"} for name in (*inputs, *outputs)} | free, dynamo=False,
        )  # fmt: skip
