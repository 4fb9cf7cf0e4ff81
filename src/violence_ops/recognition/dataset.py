"""MMAction2's dataset over windows of skeletons in memory, and the transforms that its pipelines lack.

Importing this file imports MMAction2 and registers the transforms below with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import violence_ops.openmmlab  # noqa: F401
from violence_ops.recognition.export import Annotation, annotation
from violence_ops.recognition.skeleton import Stretch

# isort: split
from mmaction.datasets import PoseDataset
from mmaction.registry import DATASETS, TRANSFORMS
from mmcv.transforms import BaseTransform


@DATASETS.register_module()
class WindowDataset(PoseDataset):
    """MMAction2's PoseDataset over stretches of clips in memory, each with the label of its clip."""

    def __init__(self, *, stretches: Sequence[Stretch], labels: Mapping[str, str], pipeline: list[Any]) -> None:
        self._items = [annotation(skeleton, labels[skeleton.clip_id], *cut) for skeleton, *cut in stretches]
        super().__init__(ann_file="", pipeline=pipeline, serialize_data=False)

    def load_data_list(self) -> list[Annotation]:
        """The windows."""
        return self._items


@TRANSFORMS.register_module()
class CropToPersons(BaseTransform):
    """Move the origin to the corner of a square around the visible joints of the window and call that square the image.

    `PreNormalize2D` then gives coordinates that depend neither on where in the picture the scene is nor on its resolution.
    (MMAction2's own PoseCompact does this too, but not on NumPy 2, and it shears the aspect ratio.)
    """

    margin = 1.1

    def transform(self, results: Annotation) -> Annotation:
        visible = results["keypoint"][results["keypoint_score"] > 0]
        if len(visible):
            low, high = visible.min(axis=0), visible.max(axis=0)
            side = max(float((high - low).max()), 1.0) * self.margin
            results["keypoint"] = results["keypoint"] - ((low + high) / 2 - side / 2)
            results["img_shape"] = (side, side)
        return results


@TRANSFORMS.register_module()
class RandomRotateScale(BaseTransform):
    """Turn the normalised scene by up to `degrees` and scale it by up to `scale`, the same for all of a window."""

    def __init__(self, degrees: float, scale: float) -> None:
        self.radians = math.radians(degrees)
        self.scale = scale

    def transform(self, results: Annotation) -> Annotation:
        angle = np.random.uniform(-self.radians, self.radians)
        factor = 1 + np.random.uniform(-self.scale, self.scale)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], np.float32)
        results["keypoint"] = results["keypoint"] @ (factor * turn).T
        return results


@TRANSFORMS.register_module()
class ZeroMissing(BaseTransform):
    """Put joints that were not seen back to zero after a change of coordinates."""

    def transform(self, results: Annotation) -> Annotation:
        results["keypoint"] = np.where(results["keypoint_score"][..., None] > 0, results["keypoint"], 0).astype(
            np.float32
        )
        return results
