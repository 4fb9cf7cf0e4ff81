"""Everybody's pose in a frame: RTMO on a backend, letterboxed in, mapped back out (SPEC 2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from violence_ops.letterbox import Letterbox
from violence_ops.pose.backends import BackendName, Candidates, Precision, open_backend
from violence_ops.pose.config import fit
from violence_ops.pose.minibatch import Grower
from violence_ops.pose.quantise import poses_sha256
from violence_ops.pose.suppression import distinct, suppress
from violence_ops.pose.weights import Weights, find
from violence_ops.records import FramePoses

CANDIDATES = 300  # cells of a picture that suppression looks at
FRAME_PADDING = 1.25  # of a box is where its joints are looked for, as RTMO was trained


class PoseEstimator:
    """A loaded RTMO that finds everybody's 17 keypoints.

    On a GPU the mini-batch grows while it fits and shrinks when memory runs out. On a processor every picture is
    computed alone, so that its poses are the same bit for bit whatever else is looked at.
    """

    def __init__(
        self,
        weights: Weights | Path | str,
        *,
        score_threshold: float,
        nms_threshold: float,
        duplicate_distance: float,
        backend: BackendName = "torch",
        precision: Precision = "fp32",
        device: str = "cpu",
        mini_batch: int = 1,
        max_mini_batch: int = 1,
    ) -> None:
        """`weights`: a name, a .safetensors path, or what `weights.find` gave; loaded without unpickling.

        `score_threshold`: raising it loses weak persons. `nms_threshold`: raising it keeps more of close pairs.
        `duplicate_distance`: as `suppression.distinct` has it, after the boxes; 0, as in MMPose, looks at boxes alone.
        `mini_batch`, `max_mini_batch`: on a GPU, what the mini-batch begins with and grows to; a processor takes one picture.

        Raises:
            WeightsError: the weights are missing, damaged, or of another network; or there is no INT8 of them.
            UsageError: the backend cannot run with that precision or on that device.
        """
        verified = weights if isinstance(weights, Weights) else find(weights)
        self.score_threshold, self.nms_threshold = score_threshold, nms_threshold
        self.duplicate_distance = duplicate_distance
        self.backend = open_backend(backend, verified, device, precision)
        self.sha256, self.fit = poses_sha256(verified, precision), fit(verified.network)
        self.lanes, self.clock, self.device = self.backend.lanes, self.backend.clock, device
        self.engine = f"{backend} {precision}"
        growing = device.startswith("cuda")
        self._grower = Grower(min(mini_batch, max_mini_batch), max_mini_batch) if growing else Grower(1, 1)

    @property
    def mini_batch(self) -> int:
        """How many pictures are best given at once now."""
        return self._grower.size

    def estimate(self, frames: Sequence[np.ndarray]) -> list[FramePoses]:
        """The persons of each frame (H, W, 3) uint8 BGR, all of one size, strongest first.

        Coordinates are pixels of the frame; keypoint scores are in [0, 1] and tell how surely a joint can be seen.
        """
        boxes = [Letterbox.of(frame.shape[1], frame.shape[0], self.fit) for frame in frames]
        return self.persons([box.apply(frame) for box, frame in zip(boxes, frames, strict=True)], boxes)

    def persons(self, pictures: Sequence[np.ndarray], boxes: Sequence[Letterbox]) -> list[FramePoses]:
        """As `estimate`, of frames that were letterboxed before: pictures (h, w, 3), all of one size, and how each was made."""
        return self._grower.run(self._some, list(zip(pictures, boxes, strict=True)))

    def _some(self, items: Sequence[tuple[np.ndarray, Letterbox]]) -> list[FramePoses]:
        found = self.backend.candidates(np.stack([picture for picture, _ in items]), self.score_threshold)
        chosen = np.concatenate([self._apart(found, number) for number in range(len(items))])
        chosen, joints = self._placed(found, chosen)
        parts = (found.picture[chosen] == number for number in range(len(items)))
        return [_to_frame(found, chosen[here], joints[here], box) for (_, box), here in zip(items, parts, strict=True)]

    def _apart(self, found: Candidates, picture: int) -> np.ndarray:
        """Indices of the candidates of one picture whose boxes are no stronger one's, strongest first."""
        here = np.flatnonzero(found.picture == picture)
        here = here[np.argsort(-found.scores[here], kind="stable")][:CANDIDATES]
        return here[suppress(found.boxes[here], self.nms_threshold)]

    def _placed(self, found: Candidates, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those of `chosen` whose trunks are no stronger one's either, and their joints (N, 17, 2) px of the input.

        Doubles are told before the second look, which costs more than all else that is done for a person, and by it.
        """
        if not len(chosen):
            return chosen, np.zeros((0, 17, 2), np.float32)
        boxes = found.boxes[chosen]
        middle, size = (boxes[:, 2:] + boxes[:, :2]) / 2, (boxes[:, 2:] - boxes[:, :2]) * FRAME_PADDING
        frames = np.concatenate([middle, size], axis=1)
        joints = self.backend.joints(found, chosen, frames)
        left = self._distinct(found, chosen, joints)
        chosen, frames = chosen[left], frames[left]
        joints = self.backend.refined(found, chosen, frames, joints[left])
        left = self._distinct(found, chosen, joints)
        return chosen[left], joints[left]

    def _distinct(self, found: Candidates, chosen: np.ndarray, joints: np.ndarray) -> np.ndarray:
        """Places in `chosen` of those who are no double of a stronger one in their picture."""
        picture, boxes = found.picture[chosen], found.boxes[chosen]
        parts = [np.flatnonzero(picture == number) for number in np.unique(picture)]
        return np.concatenate([here[distinct(joints[here], boxes[here], self.duplicate_distance)] for here in parts])


def _to_frame(found: Candidates, chosen: np.ndarray, joints: np.ndarray, box: Letterbox) -> FramePoses:
    corners = box.to_frame(found.boxes[chosen].reshape(-1, 2, 2))
    return FramePoses(
        keypoints=box.to_frame(joints),
        keypoint_scores=found.visible[chosen].astype(np.float32),
        bboxes=np.clip(corners, 0, np.array([box.width, box.height], np.float32)).reshape(-1, 4),
        scores=found.scores[chosen].astype(np.float32),
    )
