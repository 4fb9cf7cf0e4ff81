"""How much two poses are alike: what tells people apart whose boxes overlap (SPEC 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from violence_ops.blocks import in_blocks
from violence_ops.tracking.boxes import Float

Complex = NDArray[np.complex64]
Single = NDArray[np.float32]

_SIGMAS: Final = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
"""COCO's standard deviations of where people put the joints of the same picture, in roots of the person's area."""
_AREA_SHARE: Final = 0.53
"""Of a box is the person: COCO's convention where no outline is known."""
_TOLERANCE: Final = 1.5
"""How many times farther a joint may be than in the same picture: people move between two frames."""
_SCALES: Final = 1 / (2 * _AREA_SHARE * (2 * _TOLERANCE * _SIGMAS) ** 2)
_EACH: Final = np.ones(len(_SIGMAS), np.float32)


@dataclass(frozen=True, slots=True)
class Poses:
    """N poses, made ready to be compared often. joints `(N, 17)` px, x + iy; trust `(N, 17)`: the root of how much each joint
    counts; falloff `(N, 17)` per px²: how fast the likeness falls with the distance of a joint."""

    joints: Complex
    trust: Single
    falloff: Single

    @classmethod
    def of(
        cls, keypoints: NDArray[np.floating], scores: NDArray[np.floating], rows: NDArray[np.intp], areas: Float
    ) -> Self:
        """The poses `rows` `(N,)` of keypoints `(R, 17, 2)` px and scores `(R, 17)`; areas `(N,)` px² of the persons' boxes.
        A joint that is nowhere, or whose score is no number above 0, counts nothing."""

        def places(rows: NDArray[np.intp]) -> Complex:
            return np.ascontiguousarray(keypoints[rows], np.float32).view(np.complex64)[..., 0]

        def known(rows: NDArray[np.intp]) -> NDArray[np.bool_]:
            return np.isfinite(places(rows)) & np.isfinite(scores[rows]) & (scores[rows] > 0)

        return cls(
            joints=in_blocks(lambda rows: np.where(known(rows), places(rows), np.complex64(0)), rows),
            trust=in_blocks(lambda rows: np.sqrt(np.where(known(rows), scores[rows], 0.0).astype(np.float32)), rows),
            falloff=in_blocks(lambda areas: (-_SCALES / np.maximum(areas, 1.0)[:, None]).astype(np.float32), areas),
        )

    def oks(self, first: NDArray[np.intp], second: NDArray[np.intp], moved: Complex) -> Single:
        """`(K,)` object keypoint similarity in [0, 1] of K pairs, once the `first` have `moved` `(K,)` px:
        exp(-d² / (2 s² k²)), averaged over the joints by how much they count in both; 0 where none does. s² is a share of
        the area of the `first`.
        """
        apart = self.joints.take(first, axis=0)
        apart -= self.joints.take(second, axis=0)
        apart += moved[:, None]
        alike = np.abs(apart)
        alike *= alike
        alike *= self.falloff.take(first, axis=0)
        np.exp(alike, out=alike)
        trust = self.trust.take(first, axis=0)
        trust *= self.trust.take(second, axis=0)
        alike *= trust
        similarity: Single = alike @ _EACH
        similarity /= np.maximum(trust @ _EACH, np.float32(1e-9))
        return similarity
