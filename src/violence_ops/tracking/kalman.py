"""A constant-velocity Kalman filter over many boxes at once.

A box is measured as (centre x, centre y, aspect, height). Each of the four moves on its own, at its own velocity, and
all noise is independent, so the usual 8 x 8 covariance splits exactly into four 2 x 2 ones: position, velocity, and what
they share. Noise is relative to the height of the box, as in SORT and ByteTrack (SPEC 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from violence_ops.tracking.boxes import Float

_POSITION, _VELOCITY, _POSITION_VARIANCE, _COVARIANCE, _VELOCITY_VARIANCE = range(5)
_POSITION_NOISE: Final = 1 / 20
"""Standard deviation of a position after one time step, in heights."""
_VELOCITY_NOISE: Final = 1 / 160
_ASPECT_POSITION: Final = 1e-2
_ASPECT_VELOCITY: Final = 1e-5
_ASPECT_MEASURED: Final = 1e-1
_OF_HEIGHT: Final = np.array([[1.0], [1.0], [0.0], [1.0]])
"""Which of the four have noise that grows with the height: all but the aspect."""
_MEASURED: Final = _POSITION_NOISE**2 * _OF_HEIGHT, _ASPECT_MEASURED**2 * (1 - _OF_HEIGHT)
"""Variance of what is measured: per height², and whatever the height."""


@dataclass(frozen=True, slots=True)
class Motion:
    """What is believed of N boxes: `values` `(5, 4, N)` are the position, px, the velocity, px per step, the variance of
    the position, its covariance with the velocity, the variance of the velocity; each of (cx, cy, aspect, height)."""

    values: Float

    def __len__(self) -> int:
        return self.values.shape[2]

    @property
    def position(self) -> Float:
        """`(N, 4)` cx, cy, aspect, height."""
        return self.values[_POSITION].T

    @classmethod
    def at(cls, measured: Float) -> Self:
        """Boxes seen for the first time, at rest but of very uncertain velocity. `measured` `(N, 4)` cx, cy, aspect, height."""
        values = np.zeros((5, 4, len(measured)))
        values[_POSITION] = measured.T
        square = _squared(measured[:, 3])
        values[_POSITION_VARIANCE] = _variance(square, 2 * _POSITION_NOISE, _ASPECT_POSITION)
        values[_VELOCITY_VARIANCE] = _variance(square, 10 * _VELOCITY_NOISE, _ASPECT_VELOCITY)
        return cls(values)

    def of(self, which: NDArray[np.intp] | NDArray[np.bool_]) -> Motion:
        """Some of the boxes."""
        return Motion(self.values[..., which])

    def without_growth(self, which: NDArray[np.bool_]) -> Motion:
        """A copy in which the sizes of the boxes `which` `(N,)` do not change from now on."""
        values = self.values.copy()
        values[_VELOCITY, 2:, which] = 0.0
        return Motion(values)

    def predicted(self, steps: float) -> Motion:
        """The boxes `steps` time steps later."""
        transition, of_height, constant = _passage(steps)
        moved = (transition @ self.values.reshape(5, -1)).reshape(self.values.shape)
        moved += _squared(self.values[_POSITION, 3]) * of_height
        moved += constant
        return Motion(moved)

    def updated(self, measured: Float) -> Motion:
        """The boxes after seeing `measured` `(N, 4)` cx, cy, aspect, height."""
        values = self.values.copy()
        of_height, constant = _MEASURED
        innovation_variance = _squared(values[_POSITION, 3]) * of_height
        innovation_variance += constant
        innovation_variance += values[_POSITION_VARIANCE]
        uncertain = values[_POSITION_VARIANCE : _COVARIANCE + 1]
        gain = uncertain / innovation_variance
        values[: _VELOCITY + 1] += gain * (measured.T - values[_POSITION])
        values[_VELOCITY_VARIANCE] -= gain[1] * values[_COVARIANCE]
        uncertain *= 1 - gain[0]
        return Motion(values)


def _squared(height: Float) -> Float:
    """The height squared, px², of a box that has some height whatever was predicted."""
    least: Float = np.maximum(height, 1e-3)
    least *= least
    return least


def _variance(square: Float, share: float, aspect: float) -> Float:
    """`(4, N)` variances of a standard deviation that is a share of the height, `square` `(N,)` px², for all but the aspect."""
    return square * (share**2 * _OF_HEIGHT) + aspect**2 * (1 - _OF_HEIGHT)


@lru_cache(maxsize=64)
def _passage(steps: float) -> tuple[Float, Float, NDArray[np.float64]]:
    """What `steps` time steps do to the five numbers of a coordinate: `(5, 5)` to multiply a column with, and the noise that
    comes on top, `(5, 4, 1)` per height² and `(5, 4, 1)` whatever the height."""
    transition = np.eye(5)
    transition[_POSITION, _VELOCITY] = steps
    transition[_POSITION_VARIANCE, [_COVARIANCE, _VELOCITY_VARIANCE]] = 2 * steps, steps**2
    transition[_COVARIANCE, _VELOCITY_VARIANCE] = steps
    of_height, constant = np.zeros((5, 4, 1)), np.zeros((5, 4, 1))
    for row, share, aspect in (
        (_POSITION_VARIANCE, _POSITION_NOISE, _ASPECT_POSITION),
        (_VELOCITY_VARIANCE, _VELOCITY_NOISE, _ASPECT_VELOCITY),
    ):
        of_height[row] = steps * share**2 * _OF_HEIGHT
        constant[row] = steps * aspect**2 * (1 - _OF_HEIGHT)
    return transition, of_height, constant
