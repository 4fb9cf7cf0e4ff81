"""The five regions of a frame, and how much the place of a person counts (SPEC 4 and 5, position)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from violence_ops.params import RegionWeights

Float = NDArray[np.float64]

REGION_NAMES: Final = ("centre", "top_left", "top_right", "bottom_left", "bottom_right")
REGIONS: Final = np.array(
    [[0.25, 0.25, 0.75, 0.75], [0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]]
)
"""`(5, 4)` xyxy in shares of the frame's width and height, in the order of `REGION_NAMES`; borders belong to both sides."""


def weight_vector(weights: RegionWeights) -> Float:
    """`(5,)` in the order of `REGION_NAMES`."""
    return np.array([getattr(weights, name) for name in REGION_NAMES], np.float64)


def membership(points: Float, width: int, height: int) -> NDArray[np.bool_]:
    """`(N, 5)` which regions hold each of `points` `(N, 2)`, px; none holds a point that is not finite."""
    share = points / (width, height)
    low, high = REGIONS[:, :2], REGIONS[:, 2:]
    return np.asarray(((share[:, None] >= low) & (share[:, None] <= high)).all(axis=2))


def frame_scores(points: Float, width: int, height: int, weights: Float) -> Float:
    """`(N,)` position component, frame form, in [0, 1], of the persons' centres `(N, 2)`, px; 0 where not finite.

    The largest, over the regions holding the point, of weight x max(0.5, 1 - 0.5 x distance to the region's centre /
    half its diagonal). `weights` `(5,)`.
    """
    boxes = REGIONS * (width, height, width, height)
    centres, half_diagonals = (boxes[:, :2] + boxes[:, 2:]) / 2, np.linalg.norm(boxes[:, 2:] - boxes[:, :2], axis=1) / 2
    distance = np.linalg.norm(points[:, None] - centres, axis=2)
    scores = weights * np.maximum(0.5, 1 - 0.5 * distance / half_diagonals)
    held = np.where(membership(points, width, height), scores, 0.0)
    return np.minimum(held.max(axis=1, initial=0.0), 1.0)


def track_scores(
    points: Float, width: int, height: int, weights: Float, track: NDArray[np.intp], tracks: int, frames: int
) -> Float:
    """`(tracks,)` position component, track form, in [0, 1], of the box centres `(N, 2)`, px.

    Inside a quadrant a centre scores 1 - its distance to the quadrant's middle / sqrt(1/2), inside the centre region
    0.8 + 0.2 x distance to the nearest border / 0.5, in relative coordinates. Averaged over all `frames` of the clip,
    times the region's weight `(5,)`, largest region. `track` `(N,)` in 0 … tracks - 1 says whose each centre is.
    """
    relative = (points[:, None] / (width, height) - REGIONS[:, :2]) / (REGIONS[:, 2:] - REGIONS[:, :2])
    scores = 1 - np.linalg.norm(relative - 0.5, axis=2) / np.sqrt(0.5)
    scores[:, 0] = 0.8 + 0.2 * np.minimum(relative[:, 0], 1 - relative[:, 0]).min(axis=1) / 0.5
    held = np.where(membership(points, width, height), np.maximum(scores, 0.0), 0.0)
    sums = np.stack([np.bincount(track, held[:, region], tracks) for region in range(len(REGIONS))], axis=1)
    return np.minimum((weights * sums / max(frames, 1)).max(axis=1, initial=0.0), 1.0)


def observed_shares(points: Float, width: int, height: int) -> Float:
    """`(5,)` share of `points` `(N, 2)`, px, that lies in each region; zeros without points."""
    return membership(points, width, height).sum(axis=0) / max(len(points), 1)
