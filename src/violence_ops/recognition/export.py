"""Skeletons in the form of MMAction2's `PoseDataset`: one annotation per clip, and the pickle it reads.

The pickle is for the data scientist's own MMAction2 configurations; this project writes it and never reads one.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from violence_ops.recognition.skeleton import Skeleton
from violence_ops.records import LABELS

Annotation = dict[str, Any]
"""One item of MMAction2's `PoseDataset`: frame_dir, label, img_shape, original_shape, total_frames, keypoint `(M, T, 17, 2)`
px, keypoint_score `(M, T, 17)`."""


def annotation(skeleton: Skeleton, label: str | None, start: int = 0, end: int | None = None) -> Annotation:
    """A clip, or the frames `[start, end)` of it. An unlabelled one has label index 0."""
    keypoints = skeleton.keypoints[:, start:end]
    shape = (skeleton.height, skeleton.width)
    return {
        "frame_dir": skeleton.clip_id,
        "label": LABELS.index(label) if label else 0,
        "img_shape": shape,
        "original_shape": shape,
        "total_frames": keypoints.shape[1],
        "keypoint": np.array(keypoints, np.float32),
        "keypoint_score": np.array(skeleton.keypoint_scores[:, start:end], np.float32),
    }


def pose_dataset(skeletons: Sequence[Skeleton], labels: Mapping[str, str], split: Mapping[str, Sequence[str]]) -> bytes:
    """The pickle that MMAction2's `PoseDataset` reads: `split` (name to clip_ids) and one annotation per clip."""
    content = {
        "split": {name: list(clip_ids) for name, clip_ids in split.items()},
        "annotations": [annotation(one, labels[one.clip_id]) for one in skeletons],
    }
    return pickle.dumps(content, protocol=4)
