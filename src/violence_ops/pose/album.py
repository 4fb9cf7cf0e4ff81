"""Many labelled pictures in little memory: JPEG bytes and their labels, kept in a file without pickles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from violence_ops.files import atomic_path
from violence_ops.pose.samples import Sample

_QUALITY = 95
_LABELS = ("keypoints", "visibility", "bboxes", "ignored")


@dataclass(frozen=True)
class Print:
    """A packed picture: its sample without pixels, and the pixels as JPEG bytes (N,) uint8."""

    labels: Sample
    pixels: np.ndarray

    @staticmethod
    def of(sample: Sample) -> Print:
        """The sample, packed."""
        done, pixels = cv2.imencode(".jpg", sample.image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        if not done:
            raise ValueError(f"a picture of shape {sample.image.shape} cannot be packed")
        return Print(replace(sample, image=np.zeros((0, 0, 3), np.uint8)), pixels)

    def sample(self) -> Sample:
        """The sample with its pixels."""
        return replace(self.labels, image=np.asarray(cv2.imdecode(self.pixels, cv2.IMREAD_COLOR)))


def save(prints: Iterable[Print], path: Path) -> None:
    """Write the pictures to one .npz file, complete or not at all."""
    arrays = {}
    for number, each in enumerate(prints):
        arrays[f"{number}/pixels"] = each.pixels
        arrays |= {f"{number}/{name}": getattr(each.labels, name) for name in _LABELS}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load(path: Path) -> list[Print]:
    """The pictures of a file that `save` wrote, in its order."""
    with np.load(path, allow_pickle=False) as arrays:
        count = sum(name.endswith("/pixels") for name in arrays.files)
        empty = np.zeros((0, 0, 3), np.uint8)
        return [
            Print(Sample(empty, *(arrays[f"{number}/{name}"] for name in _LABELS)), arrays[f"{number}/pixels"])
            for number in range(count)
        ]
