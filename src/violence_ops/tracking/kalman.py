"""A constant-velocity Kalman filter over many boxes at once.

A box is measured as (centre x, centre y, aspect, height). Each of the four moves on its own, at its own velocity, and
all noise is independent, so the usual 8 x 8 covariance splits exactly into four 2 x 2 ones: position, velocity, and what
they share. Noise is relative to the height of the box, as in SORT and ByteTrack (SPEC 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from violence_ops.tracking.boxes import Float

_POSITION_NOISE: Final = 1 / 20
"""Standard deviation of a position after one time step, in heights."""
_VELOCITY_NOISE: Final = 1 / 160
_ASPECT_POSITION: Final = 1e-2
_ASPECT_VELOCITY: Final = 1e-5
_ASPECT_MEASURED: Final = 1e-1


@dataclass(frozen=True, slots=True)
class Motion:
    """What is believed of N boxes: `position` and `velocity` `(N, 4)` of (cx, cy, aspect, height), px and px per step,
    with the variances of both and their covariance, each `(N, 4)`."""

    position: Float
    velocity: Float
    position_variance: Float
    covariance: Float
    velocity_variance: Float

    def __len__(self) -> int:
        return len(self.position)

    def __getitem__(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Motion:
        return Motion(*(getattr(self, name)[rows] for name in self.__slots__))

    def replaced(self, rows: NDArray[np.integer], other: Motion) -> Motion:
        """A copy in which `rows` come from `other`."""
        columns = [getattr(self, name).copy() for name in self.__slots__]
        for column, name in zip(columns, self.__slots__, strict=True):
            column[rows] = getattr(other, name)
        return Motion(*columns)

    def followed_by(self, other: Motion) -> Motion:
        """The boxes of both."""
        return Motion(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in self.__slots__))

    @classmethod
    def at(cls, measured: Float) -> Self:
        """Boxes seen for the first time, at rest but of very uncertain velocity. `measured` `(N, 4)` cx, cy, aspect, height."""
        height = measured[:, 3]
        position = _deviations(height, 2 * _POSITION_NOISE, _ASPECT_POSITION)
        velocity = _deviations(height, 10 * _VELOCITY_NOISE, _ASPECT_VELOCITY)
        zeros = np.zeros_like(measured)
        return cls(measured.copy(), zeros, position**2, zeros, velocity**2)

    def predicted(self, steps: float) -> Motion:
        """The boxes `steps` time steps later."""
        height = self.position[:, 3]
        position_noise = steps * _deviations(height, _POSITION_NOISE, _ASPECT_POSITION) ** 2
        velocity_noise = steps * _deviations(height, _VELOCITY_NOISE, _ASPECT_VELOCITY) ** 2
        covariance = self.covariance + steps * self.velocity_variance
        return Motion(
            self.position + steps * self.velocity,
            self.velocity,
            self.position_variance + steps * (self.covariance + covariance) + position_noise,
            covariance,
            self.velocity_variance + velocity_noise,
        )

    def updated(self, measured: Float) -> Motion:
        """The boxes after seeing `measured` `(N, 4)` cx, cy, aspect, height."""
        noise = _deviations(self.position[:, 3], _POSITION_NOISE, _ASPECT_MEASURED) ** 2
        innovation_variance = self.position_variance + noise
        gain, velocity_gain = self.position_variance / innovation_variance, self.covariance / innovation_variance
        innovation = measured - self.position
        return Motion(
            self.position + gain * innovation,
            self.velocity + velocity_gain * innovation,
            (1 - gain) * self.position_variance,
            (1 - gain) * self.covariance,
            self.velocity_variance - velocity_gain * self.covariance,
        )


def _deviations(height: Float, share: float, aspect: float) -> Float:
    """`(N, 4)` standard deviations: a share of the height `(N,)`, px, for all but the aspect."""
    scale = share * np.maximum(height, 1e-3)
    return np.column_stack([scale, scale, np.full_like(height, aspect), scale])
