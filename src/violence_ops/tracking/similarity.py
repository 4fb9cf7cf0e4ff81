"""How much two poses are alike: what tells people apart whose boxes overlap (SPEC 3)."""

from __future__ import annotations

from typing import Final

import numpy as np

from violence_ops.tracking.boxes import Float

_SIGMAS: Final = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
"""COCO's standard deviations of where people put the joints of the same picture, in roots of the person's area."""
_AREA_SHARE: Final = 0.53
"""Of a box is the person: COCO's convention where no outline is known."""
_TOLERANCE: Final = 1.5
"""How many times farther a joint may be than in the same picture: people move between two frames."""
_SCALES: Final = 1 / (2 * _AREA_SHARE * (2 * _TOLERANCE * _SIGMAS) ** 2)


def oks(apart: Float, trust: Float, areas: Float) -> Float:
    """`(K,)` object keypoint similarity in [0, 1] of K pairs of poses whose joints are `apart` `(K, 2, 17)` px:
    exp(-d² / (2 s² k²)), averaged.

    `trust` `(K, 17)` >= 0 is how much each joint counts; a pair of whom no joint counts has similarity 0. s² is a share of
    `areas` `(K,)`, those of the persons' boxes, px².
    """
    squared = apart * apart
    alike = (squared[:, 0] + squared[:, 1]) * _SCALES
    alike /= -np.maximum(areas, 1.0)[:, None]
    np.exp(alike, out=alike)
    alike *= trust
    similarity: Float = np.add.reduce(alike, 1)
    similarity /= np.maximum(np.add.reduce(trust, 1), 1e-9)
    return similarity
