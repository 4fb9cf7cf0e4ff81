"""A network as ONNX, run by ONNX Runtime on all processors: three times as fast as torch on each, and checked against it when written."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from violence_ops.errors import UserError
from violence_ops.recognition.channels_first import ChannelsFirstSTGCN
from violence_ops.recognition.ensemble import Ensemble
from violence_ops.recognition.folded import Folded
from violence_ops.recognition.model import Classifier, Network, device
from violence_ops.records import FloatArray

TOLERANCE = 1e-4
"""Of a probability, between torch and ONNX Runtime. Log odds x are compared: next to 0 and 1, where a network that sees noise soon
is, a probability hardly moves. If they differ by less than 4 max(1, |x|) times this, no probability differs by more."""
_OPSET = 17
_BATCH = 4  # windows at most; more at once are not faster
_MAX_LANES = 8


class Session:
    """An exported network."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError if the file is no ONNX model."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # batches side by side cost less than threads that share a layer
        # the next level's blocked layout costs more than it brings with channels this few
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        try:
            self._session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no base class but this
            raise ValueError(f"{path.name}: {error}") from None
        self._lanes = ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), _MAX_LANES))

    def probabilities(self, inputs: Tensor) -> FloatArray:
        """Probability of Fight `(W,)` for windows in the form that the network takes; the same on any number of processors.

        Where torch may use one thread, so does this.
        """
        batches = inputs.tensor_split(_parts(len(inputs)))
        side_by_side = torch.get_num_threads() > 1 and len(batches) > 1
        found = (self._lanes.map if side_by_side else map)(self._probabilities, batches)
        return np.concatenate(list(found))

    def _probabilities(self, batch: Tensor) -> FloatArray:
        return self._run("probability", batch)

    def log_odds(self, inputs: Tensor) -> FloatArray:
        """As `probabilities`, the log odds of Fight `(W,)`. Files of before November 2026 have none."""
        return self._run("log_odds", inputs)

    def _run(self, output: str, inputs: Tensor) -> FloatArray:
        found: FloatArray = self._session.run([output], {"windows": inputs.float().numpy()})[0]
        return found


def _parts(count: int) -> int:
    """How many batches so many windows are cut into: of like size and, if there are several, an even number of them, which
    two processors share. Not of as many as there are processors: results would depend on it in the seventh digit."""
    parts = max(1, math.ceil(count / _BATCH))
    return parts + parts % 2 if parts > 1 else 1


def networks(classifier: Classifier) -> dict[str, Network]:
    """The networks of a classifier by the name of their ONNX file; a forest has none."""
    if isinstance(classifier, Network):
        return {"model.onnx": classifier}
    if isinstance(classifier, Ensemble):
        return {f"model-{name}.onnx": one for name, one in classifier.members.items() if isinstance(one, Network)}
    return {}


def export(recogniser: Network, path: Path) -> None:
    """Write a network as ONNX with a dynamic number of windows.

    Raises UserError if ONNX Runtime then gives other probabilities than torch.
    """
    low, high = recogniser.limits
    inputs = low + (high - low) * torch.rand(3, *recogniser.shape, generator=torch.Generator().manual_seed(0))
    network = _Network(recogniser).cpu().eval()
    with warnings.catch_warnings(), _without_fused_attention(), torch.no_grad():
        warnings.simplefilter("ignore")  # of tracing: no shape but the number of windows changes
        torch.onnx.export(
            network, (inputs,), str(path), input_names=["windows"], output_names=["probability", "log_odds"], opset_version=_OPSET,
            dynamic_axes={name: {0: "count"} for name in ("windows", "probability", "log_odds")}, dynamo=False,
        )  # fmt: skip
        # of the network itself, not of the form in which it is exported
        expected = _log_odds(recogniser.scores(inputs)).numpy()
    recogniser.network.to(device())
    apart = np.abs(Session(path).log_odds(inputs) - expected)
    if not (apart <= 4 * TOLERANCE * np.maximum(1, np.abs(expected))).all():
        raise UserError(
            f"{path.name} gives log odds that differ from the network's by {apart.max():.2g}: train it again."
        )


def _log_odds(scores: Tensor) -> Tensor:
    """Of Fight, `(W,)`, from the scores of NonFight and Fight `(W, 2)`."""
    return scores[:, 1] - scores[:, 0]


def attach(classifier: Classifier, folder: Path) -> None:
    """Let the networks of a package run as ONNX where the package has them so; a GPU keeps torch.

    Raises ValueError if a file is no ONNX model.
    """
    if device().type == "cuda":
        return
    for name, recogniser in networks(classifier).items():
        if (folder / name).is_file():
            recogniser.session = Session(folder / name)


@contextmanager
def _without_fused_attention() -> Iterator[None]:
    """ONNX has no operator for torch's fused encoder layer."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Network(nn.Module):
    def __init__(self, recogniser: Network) -> None:
        super().__init__()
        self.network: Any = recogniser.network
        self._scores = _folded(recogniser) or recogniser.scores

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        scores = self._scores(windows)
        return scores.softmax(dim=-1)[:, 1], _log_odds(scores)


def _folded(recogniser: Network) -> Folded | None:
    """The network in the form that costs least to look with, where it has one."""
    if not isinstance(recogniser.network.backbone, ChannelsFirstSTGCN):
        return None
    _, persons, frames, *_ = recogniser.shape
    return Folded(recogniser.network.cpu(), persons, frames)
