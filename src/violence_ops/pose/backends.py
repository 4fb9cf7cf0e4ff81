"""Where RTMO runs: PyTorch (the reference; GPUs), OpenVINO (processors), ONNX Runtime (processors, CUDA, TensorRT).

All behind one small interface, `Backend`: who may be in some pictures, and where the joints of those who are lie.
"""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from violence_ops.errors import UsageError
from violence_ops.pose.openvino import computes_bf16, core
from violence_ops.pose.quantise import calibration
from violence_ops.pose.weights import Weights

BackendName = Literal["torch", "openvino", "onnxruntime"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True)
class Candidates:
    """K cells that score above a threshold, of any of the pictures, in no order.

    picture (K,) its number, scores (K,) and visible (K, 17) in [0, 1], boxes (K, 4) xyxy px and centres (K, 2) px of the
    input, poses (K, C). `fine` is what the network's refiner looks at, if it has one: the backend's own, and on a processor
    good until this thread's next call of `candidates`.
    """

    picture: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    visible: np.ndarray
    poses: np.ndarray
    centres: np.ndarray
    fine: Any = None


class Backend(Protocol):
    """A loaded network; `lanes` calls may run at the same time. `clock` gives the seconds by which a call's cost is counted."""

    lanes: int

    @property
    def clock(self) -> Callable[[], float]: ...

    def candidates(self, pictures: np.ndarray, threshold: float) -> Candidates:
        """Who may be in pictures (B, H, W, 3) uint8 BGR."""

    def joints(self, found: Candidates, chosen: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Joints (N, 17, 2) px of the input, of the candidates `chosen` (N,), in frames (N, 4) of centre and size."""

    def refined(self, found: Candidates, chosen: np.ndarray, frames: np.ndarray, joints: np.ndarray) -> np.ndarray:
        """Those joints after the refiner's second look; as they are if the weights have none."""


def open_backend(name: BackendName, weights: Weights, device: str, precision: Precision) -> Backend:
    """The backend of that name with these weights.

    Raises:
        UsageError: it cannot run with that precision or on that device.
    """
    if precision not in _PRECISIONS[name]:
        able = ", ".join(_PRECISIONS[name])
        raise UsageError(
            f"The backend {name} has no {precision}: set pose.precision to {able}, or another pose.backend."
        )
    if name == "torch":
        return TorchBackend(weights, device, precision)
    if name == "openvino":
        return OpenVinoBackend(weights, precision)
    return OnnxRuntimeBackend(weights, device)


_PRECISIONS: dict[BackendName, tuple[Precision, ...]] = {
    "torch": ("fp32", "fp16", "bf16"),
    "openvino": ("fp32", "bf16", "int8"),
    "onnxruntime": ("fp32",),
}


def settled(
    backend: BackendName | Literal["auto"], precision: Precision | Literal["auto"], device: str
) -> tuple[BackendName, Precision]:
    """What `auto` stands for on this machine: the fastest (`python -m benchmarks.pose_speed` prints all).

    Of precisions that is bf16 on a processor that computes with it, and fp32 elsewhere.
    """
    if precision == "auto":
        precision = "bf16" if may_be_bf16(backend, device) and computes_bf16() else "fp32"
    if backend == "auto":
        backend = "torch" if device != "cpu" else "onnxruntime" if precision == "fp32" else "openvino"
    return backend, precision


def may_be_bf16(backend: str, device: str) -> bool:
    """Whether the precision `auto` is bf16 with this backend (or `auto`) and device (or `auto`) on some machine."""
    return backend in ("auto", "openvino") and device != "cuda"


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


class TorchBackend:
    """MMPose's own modules. On a GPU in mini-batches and, with fp16, in half precision; what leaves it are the candidates."""

    def __init__(self, weights: Weights, device: str, precision: Precision) -> None:
        import torch

        from violence_ops.pose import config
        from violence_ops.pose.network import Joints, Refined, refiner_of
        from violence_ops.pose.weights import load

        self._torch, self._device = torch, torch.device(device)
        self._autocast = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
        self._model = load(config.build(weights.network), weights).to(self._device).eval()
        refiner = refiner_of(self._model)
        self._joints, self._refined = Joints(self._model).eval(), refiner and Refined(refiner).eval()
        self._networks: dict[tuple[int, int], Any] = {}
        self.lanes = 1
        # on a processor it works in threads of its own
        self.clock = time.process_time if self._device.type == "cpu" else time.perf_counter

    def candidates(self, pictures: np.ndarray, threshold: float) -> Candidates:
        torch = self._torch
        network = self._network(pictures.shape[2], pictures.shape[1])
        images = torch.from_numpy(pictures)
        if self._device.type == "cuda":
            images = images.pin_memory().to(self._device, non_blocking=True)
        with torch.inference_mode(), self._casting():
            scores, boxes, visible, poses, *fine = network(images)
            picture, cell = torch.nonzero(scores > threshold, as_tuple=True)
            chosen = (
                picture,
                scores[picture, cell],
                boxes[picture, cell],
                visible[picture, cell],
                poses[picture, cell],
            )
            arrays = [part.float().cpu().numpy() for part in (*chosen, network.centres[cell])]
        picture, *found = arrays
        return Candidates(picture.astype(np.intp), *found, *(features.float() for features in fine))

    def joints(self, found: Candidates, chosen: np.ndarray, frames: np.ndarray) -> np.ndarray:
        return self._run(self._joints, found.poses[chosen], frames, found.centres[chosen])

    def refined(self, found: Candidates, chosen: np.ndarray, frames: np.ndarray, joints: np.ndarray) -> np.ndarray:
        if self._refined is None:
            return joints
        return self._run(self._refined, found.poses[chosen], frames, joints, found.picture[chosen], found.fine)

    def _run(self, network: Any, *inputs: Any) -> np.ndarray:
        with self._torch.inference_mode():
            return np.asarray(network(*map(self._there, inputs)).cpu().numpy())

    def _there(self, array: Any) -> Any:
        return self._torch.as_tensor(array, device=self._device)

    def _network(self, width: int, height: int) -> Any:
        from violence_ops.pose.network import Dense

        if (width, height) not in self._networks:
            self._networks[width, height] = Dense(self._model, width, height).to(self._device).eval()
        return self._networks[width, height]

    def _casting(self) -> Any:
        return self._torch.autocast(self._device.type, dtype=self._autocast, enabled=self._autocast is not None)


class _Compiled(ABC):
    """What OpenVINO and ONNX Runtime share: a network per input size, opened once, and picking the candidates.

    ONNX Runtime places and refines the joints for both: of so many small operations OpenVINO takes twice its time.
    """

    def __init__(self, weights: Weights, providers: list[str]) -> None:
        self._weights, self._providers = weights, providers
        self._networks: dict[tuple[int, int], Any] = {}
        self._centres: dict[tuple[int, int], np.ndarray] = {}
        self._opening = threading.Lock()
        self._joints: Any = None
        self._refined: Any = None

    @abstractmethod
    def _open(self, path: Path, width: int, height: int) -> Any:
        """The network at `path` for pictures of this size, ready to run."""

    def joints(self, found: Candidates, chosen: np.ndarray, frames: np.ndarray) -> np.ndarray:
        return _run(self._joints, found.poses[chosen], frames, found.centres[chosen])

    def refined(self, found: Candidates, chosen: np.ndarray, frames: np.ndarray, joints: np.ndarray) -> np.ndarray:
        if self._refined is None:
            return joints
        return _run(self._refined, found.poses[chosen], frames, joints, found.picture[chosen], found.fine)

    def _network(self, width: int, height: int) -> Any:
        from violence_ops.pose.export import exported
        from violence_ops.pose.network import cells

        size = (width, height)
        with self._opening:
            if size not in self._networks:
                files = exported(self._weights, width, height)
                self._joints = self._joints or self._session(files.joints)
                self._refined = self._refined or (files.refined and self._session(files.refined))
                self._networks[size] = self._open(files.dense, width, height)
                self._centres[size] = cells(width, height)[0]
        return self._networks[size]

    def _session(self, path: Path) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(path, options, providers=self._providers)

    def _candidates(self, outputs: list[np.ndarray], size: tuple[int, int], threshold: float) -> Candidates:
        scores, boxes, visible, poses, *fine = outputs
        picture, cell = np.nonzero(scores > threshold)
        return Candidates(
            picture, scores[picture, cell], boxes[picture, cell], visible[picture, cell], poses[picture, cell],
            self._centres[size][cell], fine[0] if fine else None,
        )  # fmt: skip


def _run(session: Any, *inputs: np.ndarray) -> np.ndarray:
    """The one output of an ONNX Runtime session."""
    names = [port.name for port in session.get_inputs()]
    return np.asarray(session.run(None, dict(zip(names, inputs, strict=True)))[0])


class OpenVinoBackend(_Compiled):
    """OpenVINO on the processor: as many pictures at once as there are processors, each on one of OpenVINO's threads.

    There are half as many lanes again, so that a processor has another picture's network to run while a lane picks persons.
    """

    def __init__(self, weights: Weights, precision: Precision) -> None:
        super().__init__(weights, ["CPUExecutionProvider"])
        if precision == "bf16" and not computes_bf16():
            raise UsageError("This processor does not compute with bf16: set pose.precision to auto or fp32.")
        self._core = core()
        self._streams = processors()
        self.lanes = self._streams + (self._streams + 1) // 2
        self._running = threading.Semaphore(self._streams)
        # also for the layers of an INT8 network that are not quantised
        self._hint = "f32" if precision == "fp32" or not computes_bf16() else "bf16"
        self._calibration = calibration(weights) if precision == "int8" else None
        self._own = threading.local()

    def candidates(self, pictures: np.ndarray, threshold: float) -> Candidates:
        size = (pictures.shape[2], pictures.shape[1])
        request = self._request(size, self._network(*size))
        with self._running:
            began = time.perf_counter() - time.thread_time()
            request.infer([pictures], share_inputs=True, share_outputs=True)
            self._own.elsewhere = self._elsewhere() + time.perf_counter() - time.thread_time() - began
        outputs = [tensor.data for tensor in request.output_tensors]
        return self._candidates(outputs, size, threshold)

    def clock(self) -> float:
        """Processor time of this thread, and how long OpenVINO's ran its pictures."""
        return time.thread_time() + self._elsewhere()

    def _elsewhere(self) -> float:
        return float(getattr(self._own, "elsewhere", 0.0))

    def _open(self, path: Path, width: int, height: int) -> Any:
        model = self._core.read_model(self._calibration.network(width, height) if self._calibration else path)
        model.reshape({"pictures": [1, height, width, 3]})
        settings = {
            "INFERENCE_PRECISION_HINT": self._hint, "NUM_STREAMS": self._streams, "INFERENCE_NUM_THREADS": self._streams,
            "ENABLE_CPU_PINNING": False,  # decoders share the processors
        }  # fmt: skip
        return self._core.compile_model(model, "CPU", settings)

    def _request(self, key: Any, network: Any) -> Any:
        """This thread's own request of a network."""
        requests = self._own.__dict__.setdefault("requests", {})
        if key not in requests:
            requests[key] = network.create_infer_request()
        return requests[key]


class OnnxRuntimeBackend(_Compiled):
    """ONNX Runtime: on a GPU with TensorRT or CUDA if its build has them, else on the processor."""

    def __init__(self, weights: Weights, device: str) -> None:
        import onnxruntime

        there = onnxruntime.get_available_providers()
        wanted = ["TensorrtExecutionProvider", "CUDAExecutionProvider"] if device.startswith("cuda") else []
        providers = [name for name in wanted if name in there]
        if wanted and not providers:
            raise UsageError("This ONNX Runtime has no CUDA: install onnxruntime-gpu, or set pose.device to cpu.")
        super().__init__(weights, [*providers, "CPUExecutionProvider"])
        self.lanes = 1 if wanted else processors()
        self.clock = time.perf_counter if wanted else time.thread_time

    def candidates(self, pictures: np.ndarray, threshold: float) -> Candidates:
        size = (pictures.shape[2], pictures.shape[1])
        outputs = self._network(*size).run(None, {"pictures": pictures})
        return self._candidates(outputs, size, threshold)

    def _open(self, path: Path, width: int, height: int) -> Any:
        return self._session(path)
