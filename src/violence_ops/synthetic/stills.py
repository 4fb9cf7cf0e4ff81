"""Single frames with their ground truth, for training and judging a pose model."""

from __future__ import annotations

import numpy as np

from violence_ops.synthetic.clips import SyntheticClip, clip

TRAINING_WORLD, HELD_OUT_WORLD = 11, 12
Still = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def stills(rng: np.random.Generator, count: int = 4, world: int = TRAINING_WORLD) -> list[Still]:
    """`count` frames of a new clip in a new scene: image (H, W, 3) uint8 BGR, keypoints (P, 17, 2), visibility (P, 17), bboxes (P, 4).

    The scenes of one world never occur in another: train in one, judge in another.
    """
    made = clip(int(rng.integers(2**31)), group=int(rng.integers(1_000_000)), world=world, duration_s=1.5)
    return [still(made, int(index)) for index in rng.integers(0, made.frame_count, count)]


def still(made: SyntheticClip, index: int) -> Still:
    """Frame `index` of a clip with the truth of everybody in view."""
    boxes = made.bboxes[index]
    seen = boxes[:, 3] > boxes[:, 1]
    return made.frame(index), made.keypoints[index][seen], made.visibility[index][seen], boxes[seen]
