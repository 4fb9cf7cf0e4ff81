"""How much of what labelled real pictures show a source of poses finds: overall, and by the height of the persons."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from violence_ops.pose.quality import Judgement, judge, recalled
from violence_ops.pose.samples import Sample
from violence_ops.records import FramePoses

HEIGHTS = (0.0, 30.0, 60.0, 100.0, 200.0, math.inf)  # px of the frame, where one group of persons ends


class Source(Protocol):
    """Anything that finds people."""

    def estimate(self, frames: Sequence[np.ndarray], /) -> list[FramePoses]: ...


@dataclass(frozen=True)
class Labelled:
    """A picture with its persons in its own pixels; `areas` (P,) px² of their outlines, where they are known."""

    sample: Sample
    areas: np.ndarray | None = None


@dataclass(frozen=True)
class Share:
    """How many of `persons` were found with a pose of OKS ≥ 0.5, and with a box of IoU ≥ 0.5."""

    persons: int
    poses: int
    boxes: int

    @property
    def pose_recall(self) -> float | None:
        """None of nobody."""
        return self.poses / self.persons if self.persons else None

    @property
    def box_recall(self) -> float | None:
        """None of nobody."""
        return self.boxes / self.persons if self.persons else None


@dataclass(frozen=True)
class Agreement:
    """Everybody who counts in some pictures: heights (P,) px, and whether pose (P,) and box (P,) were found.

    `found` is how many persons the source saw in these pictures, rightly or not.
    """

    heights: np.ndarray
    poses: np.ndarray
    boxes: np.ndarray
    frames: int
    found: int

    def share(self, taller_than: float = 0.0, up_to: float = math.inf) -> Share:
        """Of the persons taller than the one height and not taller than the other, px."""
        chosen = (self.heights > taller_than) & (self.heights <= up_to)
        return Share(int(chosen.sum()), int(self.poses[chosen].sum()), int(self.boxes[chosen].sum()))

    def by_height(self) -> dict[str, Share]:
        """The shares between the HEIGHTS, by name."""
        return {
            f"{low:.0f}-{high:.0f}" if high < math.inf else f"over {low:.0f}": self.share(low, high)
            for low, high in pairwise(HEIGHTS)
        }


def agreement(source: Source, pictures: Iterable[Labelled], score_threshold: float) -> Agreement:
    """What the source finds of the persons in the pictures with at least `score_threshold`.

    Everybody is matched as `quality.match` does, also those whom a `share` then leaves out by their height.
    """
    heights, poses, boxes, frames, found = [], [], [], 0, 0
    for picture in pictures:
        judgement = judge(source.estimate([picture.sample.image])[0], picture.sample, picture.areas)
        counted = ~judgement.ignored
        heights.append((picture.sample.bboxes[:, 3] - picture.sample.bboxes[:, 1])[counted])
        poses.append(_found(judgement, judgement.similarity, score_threshold)[counted])
        boxes.append(_found(judgement, judgement.overlap, score_threshold)[counted])
        frames, found = frames + 1, found + int((judgement.scores >= score_threshold).sum())
    empty = np.zeros(0)
    return Agreement(
        np.concatenate([empty, *heights]), np.concatenate([empty, *poses]).astype(bool),
        np.concatenate([empty, *boxes]).astype(bool), frames, found,
    )  # fmt: skip


def _found(judgement: Judgement, likeness: np.ndarray, score_threshold: float) -> np.ndarray:
    return recalled(likeness, judgement.scores, judgement.ignored, score_threshold)
