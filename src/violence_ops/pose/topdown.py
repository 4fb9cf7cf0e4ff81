"""A second source of poses: any YOLOX detector and any MoveNet-like model of one person's joints, given as files.

Both run in OpenVINO, which reads ONNX, TensorFlow Lite and its own format, so that a closed site can use the models it
has. The weights that it gives are compared with RTMO's by the same tables. It is also the teacher of `pose.teacher`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from violence_ops.files import sha256_file
from violence_ops.letterbox import PADDING, Letterbox
from violence_ops.pose.openvino import core
from violence_ops.pose.samples import MIRRORED
from violence_ops.pose.suppression import distinct, suppress
from violence_ops.pose.weights import WeightsError
from violence_ops.records import FramePoses

_STRIDES = (8, 16, 32)  # of YOLOX's three grids
_PERSON = 0  # COCO's first class
_CROP = 1.3  # side of a person's square crop over the longer side of the box
_TILE = 0.6  # side of a tile over the frame's
_TINY = 8.0  # px; a smaller box has no pose to read


class TopDown:
    """First every person's box, then each one's 17 joints in a square crop."""

    def __init__(
        self, detector: Path | str, keypoints: Path | str, *, score_threshold: float, nms_threshold: float,
        duplicate_distance: float, thorough: bool = False,
    ) -> None:  # fmt: skip
        """`detector` gives (1, A, 5 + C) raw YOLOX rows, `keypoints` (1, 1, 17, 3) rows of y, x, score in [0, 1].

        The thresholds are those of `rtmo.PoseEstimator`.
        `thorough` looks at the frame, its mirror image and four tiles, and at every crop twice: slower, and finds more.

        Raises:
            WeightsError: a file is missing, is no model that OpenVINO reads, or gives something else.
        """
        self.score_threshold, self.nms_threshold, self.thorough = score_threshold, nms_threshold, thorough
        self.duplicate_distance = duplicate_distance
        self._detector, self._keypoints = _Model(Path(detector)), _Model(Path(keypoints))
        if len(self._detector.output) != 3 or self._detector.output[2] < 6:
            raise WeightsError(f"{detector} is no YOLOX detector: its output is {self._detector.output}.")
        if self._keypoints.output[-2:] != (17, 3):
            raise WeightsError(f"{keypoints} is no model of 17 joints: its output is {self._keypoints.output}.")
        self.fit, self.lanes, self.mini_batch, self.device, self.engine = None, 1, 1, "cpu", "openvino fp32"
        self.clock = time.process_time  # OpenVINO works in threads of its own
        both = f"{sha256_file(Path(detector))}{sha256_file(Path(keypoints))}"
        self.sha256 = hashlib.sha256(both.encode()).hexdigest()

    def estimate(self, frames: Sequence[np.ndarray] | np.ndarray) -> list[FramePoses]:
        """The persons of each frame (H, W, 3) uint8 BGR, strongest first, in pixels of the frame."""
        return [self._frame(frame) for frame in frames]

    def persons(self, pictures: Sequence[np.ndarray], boxes: Sequence[Letterbox]) -> list[FramePoses]:
        """As `estimate`: this source takes frames as they are."""
        return self.estimate(pictures)

    def _frame(self, frame: np.ndarray) -> FramePoses:
        boxes, scores = self._persons(frame)
        joints = np.zeros((len(boxes), 17, 3), np.float32)
        for number, box in enumerate(boxes):
            joints[number] = self._joints(frame, box)
        left = distinct(joints[..., :2], boxes, self.duplicate_distance)
        return FramePoses(
            keypoints=joints[left, :, :2].copy(), keypoint_scores=joints[left, :, 2].copy(), bboxes=boxes[left], scores=scores[left]
        )  # fmt: skip

    def _persons(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (N, 4) xyxy px and scores (N,), strongest first."""
        height, width = frame.shape[:2]
        boxes, scores = self._detect(frame)
        if self.thorough:
            found = [(boxes, scores), _mirrored(*self._detect(frame[:, ::-1]), width)]
            found += [self._tile(frame, x, y) for x in (0.0, 1 - _TILE) for y in (0.0, 1 - _TILE)]
            boxes, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        boxes = np.clip(boxes, 0, [width, height] * 2).astype(np.float32)
        good = (scores >= self.score_threshold) & (np.minimum(*(boxes[:, 2:] - boxes[:, :2]).T) >= _TINY)
        order = np.flatnonzero(good)[np.argsort(-scores[good], kind="stable")]
        kept = order[suppress(boxes[order], self.nms_threshold)]
        return boxes[kept], scores[kept].astype(np.float32)

    def _tile(self, frame: np.ndarray, x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
        """What is found in one tile; a person whom its edge cuts is left to the others."""
        height, width = frame.shape[:2]
        left, top, wide, high = round(x * width), round(y * height), round(_TILE * width), round(_TILE * height)
        boxes, scores = self._detect(frame[top : top + high, left : left + wide])
        inner = np.array([x > 0, y > 0, x == 0, y == 0])
        near = np.abs(boxes - np.array([0, 0, wide, high])) < 4
        whole = ~(near & inner).any(axis=1)
        return boxes[whole] + np.array([left, top, left, top]), scores[whole]

    def _detect(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (N, 4) xyxy and scores (N,) of the persons in a picture: YOLOX's rows, decoded (its paper, 2.1)."""
        side = self._detector.input[2]
        scale = side / max(picture.shape[:2])
        small = cv2.resize(np.ascontiguousarray(picture), None, fx=scale, fy=scale)
        canvas = np.full((side, side, 3), PADDING, np.uint8)
        canvas[: small.shape[0], : small.shape[1]] = small[:side, :side]
        rows = self._detector(canvas.transpose(2, 0, 1)[None])[0]
        scores = rows[:, 4] * rows[:, 5 + _PERSON]
        kept = scores >= min(self.score_threshold, 0.3)
        centres, strides = _grid(side)
        middle = (rows[kept, :2] + centres[kept]) * strides[kept]
        half = np.exp(rows[kept, 2:4]) * strides[kept] / 2
        return np.concatenate([middle - half, middle + half], axis=1) / scale, scores[kept]

    def _joints(self, frame: np.ndarray, box: np.ndarray) -> np.ndarray:
        """(17, 3) x, y px and score of one person; with `thorough` the mean of the crop and its mirror image."""
        side = self._keypoints.input[1]
        centre, reach = (box[:2] + box[2:]) / 2, _CROP * (box[2:] - box[:2]).max()
        scale = side / reach
        matrix = np.array([[scale, 0, side / 2 - scale * centre[0]], [0, scale, side / 2 - scale * centre[1]]])
        crop = cv2.warpAffine(frame, matrix, (side, side), flags=cv2.INTER_AREA, borderValue=(0, 0, 0))
        found = self._read(crop)
        if self.thorough:
            again = self._read(crop[:, ::-1])[MIRRORED]
            again[:, 0] = side - again[:, 0]
            weight = np.maximum(np.stack([found[:, 2], again[:, 2]]), 1e-3)
            found[:, :2] = (weight[0, :, None] * found[:, :2] + weight[1, :, None] * again[:, :2]) / weight.sum(axis=0)[
                :, None
            ]
            found[:, 2] = weight.mean(axis=0)
        found[:, :2] = found[:, :2] / scale + centre - reach / 2
        return found

    def _read(self, crop: np.ndarray) -> np.ndarray:
        """(17, 3) x, y in the crop's pixels and score."""
        rows = self._keypoints(np.ascontiguousarray(crop[None, :, :, ::-1])).reshape(17, 3)
        return np.stack([rows[:, 1] * crop.shape[1], rows[:, 0] * crop.shape[0], rows[:, 2]], axis=1)


class _Model:
    """A network file in OpenVINO, for one picture at a time."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise WeightsError(f"There is no model file {path}: give the path of an .onnx, .tflite or .xml file.")
        try:
            model = core().read_model(path)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise WeightsError(f"{path} is no model that can be read here ({reason}).") from None
        self.input, self.output = _shape(model.inputs[0]), _shape(model.outputs[0])
        self._type = np.dtype(model.inputs[0].get_element_type().to_dtype())
        self._compiled: Any = core().compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY"})

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(self._compiled(values.astype(self._type))[0])


def _shape(port: Any) -> tuple[int, ...]:
    return tuple(1 if side.is_dynamic else side.get_length() for side in port.get_partial_shape())


def _mirrored(boxes: np.ndarray, scores: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    turned = boxes.copy()
    turned[:, [0, 2]] = width - boxes[:, [2, 0]]
    return turned, scores


def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells (A, 2) in units of their stride, and strides (A, 1) px, of YOLOX's three grids on a square input."""
    cells, strides = [], []
    for stride in _STRIDES:
        count = side // stride
        y, x = np.divmod(np.arange(count * count), count)
        cells.append(np.stack([x, y], axis=1))
        strides.append(np.full((count * count, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)
