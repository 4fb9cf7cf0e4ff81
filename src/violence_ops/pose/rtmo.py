"""Everybody's pose in a frame: RTMO through MMPose, letterboxed in, mapped back out (SPEC 2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from violence_ops.pose import config
from violence_ops.pose.minibatch import Grower
from violence_ops.pose.samples import PADDING
from violence_ops.pose.weights import Weights, find, load
from violence_ops.records import FramePoses

NMS_CANDIDATES = 300


class PoseEstimator:
    """A loaded RTMO that finds everybody's 17 keypoints.

    On a GPU the mini-batch grows while it fits and shrinks when memory runs out; on a CPU it is fixed, so that the
    same frames always meet in the same mini-batches.
    """

    def __init__(
        self,
        weights: Weights | Path | str,
        *,
        device: str = "cpu",
        score_threshold: float = 0.3,
        nms_threshold: float = 0.35,
        mini_batch: int = 8,
        max_mini_batch: int = 16,
    ) -> None:
        """`weights`: a shipped name, a .safetensors path, or what `weights.find` gave; loaded without unpickling.

        `score_threshold`: raising it loses weak persons. `nms_threshold`: raising it keeps more of close pairs.

        Raises:
            WeightsError: the weights are missing, damaged, or of another network.
        """
        self.device = torch.device(device)
        self.score_threshold, self.nms_threshold = score_threshold, nms_threshold
        verified = weights if isinstance(weights, Weights) else find(weights)
        self.sha256 = verified.sha256
        self.model: Any = load(config.build(), verified).to(self.device).eval()
        growing = self.device.type == "cuda"
        self._grower = Grower(mini_batch, max_mini_batch if growing else mini_batch)

    def estimate(self, frames: Sequence[np.ndarray] | np.ndarray) -> list[FramePoses]:
        """The persons of each frame (H, W, 3) uint8 BGR, all of one size, strongest first.

        Coordinates are pixels of the frame; keypoint scores are in [0, 1] and tell how surely a joint can be seen.
        """
        return self._grower.run(self._estimate_some, list(frames))

    def _estimate_some(self, frames: Sequence[np.ndarray]) -> list[FramePoses]:
        height, width = frames[0].shape[:2]
        size = config.input_size(width, height)
        matrix = letterbox(width, height, size)
        inputs = np.stack(
            [cv2.warpAffine(f, matrix, size, flags=cv2.INTER_LINEAR, borderValue=(PADDING,) * 3) for f in frames]
        )
        images = torch.from_numpy(inputs).to(self.device).permute(0, 3, 1, 2).float()
        return [self._to_frame(persons, matrix, width, height) for persons in self._persons(images)]

    @torch.inference_mode()
    def _persons(self, images: torch.Tensor) -> list[dict[str, np.ndarray]]:
        """Per image: bboxes (N, 4), scores (N,), keypoints (N, 17, 2), keypoint_scores (N, 17), in input pixels."""
        from violence_ops.pose.loss import forward

        predictions = forward(self.model, images)
        found = []
        for number, logits in enumerate(predictions.scores):
            scores = logits.sigmoid()
            kept = torch.nonzero(scores > self.score_threshold).squeeze(1)
            kept = kept[scores[kept].sort(descending=True, stable=True).indices[:NMS_CANDIDATES]]
            boxes = predictions.boxes[number, kept]
            chosen = suppress(boxes, self.nms_threshold)
            kept, boxes = kept[chosen], boxes[chosen]
            padding = self.model.head.bbox_padding
            frame = torch.cat([(boxes[:, 2:] + boxes[:, :2]) / 2, (boxes[:, 2:] - boxes[:, :2]) * padding], dim=1)
            joints = (
                self.model.head.dcc.forward_test(predictions.poses[number, kept], frame, predictions.centres[kept])
                if len(kept)
                else boxes.new_zeros((0, 17, 2))
            )
            visible = predictions.visible[number, kept].sigmoid()
            parts = {"bboxes": boxes, "scores": scores[kept], "keypoints": joints, "keypoint_scores": visible}
            found.append({name: value.cpu().numpy() for name, value in parts.items()})
        return found

    @staticmethod
    def _to_frame(persons: dict[str, np.ndarray], matrix: np.ndarray, width: int, height: int) -> FramePoses:
        scale, offset = matrix[0, 0], matrix[:, 2]
        boxes = (persons["bboxes"].reshape(-1, 2, 2) - offset) / scale
        boxes = np.clip(boxes, 0, [width, height]).reshape(-1, 4)
        return FramePoses(
            keypoints=((persons["keypoints"] - offset) / scale).astype(np.float32),
            keypoint_scores=persons["keypoint_scores"].astype(np.float32),
            bboxes=boxes.astype(np.float32),
            scores=persons["scores"].astype(np.float32),
        )


def letterbox(width: int, height: int, size: tuple[int, int]) -> np.ndarray:
    """(2, 3) affine map that fits a frame into the model's input, centred, as MMPose's BottomupResize does."""
    scale = min(size[0] / width, size[1] / height)
    return np.array([[scale, 0, (size[0] - scale * width) / 2], [0, scale, (size[1] - scale * height) / 2]])


def suppress(boxes: torch.Tensor, threshold: float) -> torch.Tensor:
    """(K,) indices of boxes (N, 4), given strongest first, that overlap no stronger kept one by more than `threshold`."""
    from violence_ops.pose.loss import box_iou

    overlap = box_iou(boxes, boxes).cpu().numpy() > threshold
    kept: list[int] = []
    for index in range(len(overlap)):
        if not overlap[index, kept].any():
            kept.append(index)
    return torch.tensor(kept, dtype=torch.long, device=boxes.device)
