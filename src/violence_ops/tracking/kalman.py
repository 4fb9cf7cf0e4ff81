"""A constant-velocity Kalman filter over many boxes at once.

A box is measured as (centre x, centre y, aspect, height). Each of the four moves on its own, at its own velocity, and
all noise is independent, so the usual 8 x 8 covariance splits exactly into four 2 x 2 ones: position, velocity, and what
they share. Noise is relative to the height of the box, as in SORT and ByteTrack (SPEC 3), so that with the height squared
and a 1 beside what is believed, a step in time is a single product of matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from violence_ops.tracking.boxes import Float

_POSITION, _VELOCITY, _POSITION_VARIANCE, _COVARIANCE, _VELOCITY_VARIANCE = range(5)
_HEIGHT, _BELIEVED, _SQUARED, _ONE, _ROWS = 3, 20, 20, 21, 22
"""Rows of `Motion.values`: the height, how many are believed, the height squared, the 1, all of them."""
_POSITION_NOISE: Final = 1 / 20
"""Standard deviation of a position after one time step, in heights."""
_VELOCITY_NOISE: Final = 1 / 160
_ASPECT_POSITION: Final = 1e-2
_ASPECT_VELOCITY: Final = 1e-5
_ASPECT_MEASURED: Final = 1e-1
_LEAST_HEIGHT: Final = np.array(1e-3)
"""px; a box has some height, whatever was predicted."""


@dataclass(slots=True)
class Motion:
    """What is believed of N boxes.

    `values` `(22, N)`: four rows each, of (cx, cy, aspect, height), are the position, px, the velocity, px per step, the
    variance of the position, its covariance with the velocity, the variance of the velocity; then a height squared, and 1.
    """

    values: Float

    @property
    def believed(self) -> Float:
        """`(5, 4, N)` the values without the last two rows."""
        return self.values[:_BELIEVED].reshape(5, 4, -1)

    @property
    def position(self) -> Float:
        """`(N, 4)` cx, cy, aspect, height."""
        return self.values[:4].T

    @property
    def centre(self) -> Float:
        """`(2, N)` cx, cy."""
        return self.values[:2]

    @classmethod
    def at(cls, measured: Float) -> Self:
        """Boxes seen for the first time, at rest but of very uncertain velocity. `measured` `(4, N)` cx, cy, aspect, height."""
        motion = cls(np.zeros((_ROWS, measured.shape[1])))
        motion.values[:4] = measured
        motion.values[_ONE] = 1.0
        motion._square_height()
        motion.values[:_BELIEVED] += _beginning() @ motion.values
        return motion

    def keep(self, which: NDArray[np.bool_]) -> None:
        """Drop all boxes but `which` `(N,)`."""
        self.values = self.values.compress(which, axis=1)

    def add(self, measured: Float) -> None:
        """Begin with more boxes, seen for the first time."""
        self.values = np.concatenate([self.values, Motion.at(measured).values], axis=1)

    def stop_growing(self, which: NDArray[np.bool_]) -> None:
        """The sizes of the boxes `which` `(N,)` do not change from now on."""
        self.believed[_VELOCITY, 2:, which] = 0.0

    def predict(self, steps: float) -> None:
        """Move the boxes on by `steps` time steps."""
        self._square_height()
        self.values[:_BELIEVED] = _passage(steps) @ self.values

    def update(self, measured: Float, seen: NDArray[np.bool_] | None = None) -> None:
        """Take in `measured` `(4, N)` cx, cy, aspect, height, of the boxes that were `seen` `(N,)`: all, or only some."""
        self._square_height()
        innovation_variance = _innovation() @ self.values
        if seen is not None:
            np.copyto(innovation_variance, np.inf, where=~seen)
        position, velocity, variance, covariance, velocity_variance = self.believed
        gain, velocity_gain = variance / innovation_variance, covariance / innovation_variance
        innovation = measured - position
        position += gain * innovation
        velocity += velocity_gain * innovation
        velocity_variance -= velocity_gain * covariance
        variance -= gain * variance
        covariance -= gain * covariance

    def _square_height(self) -> None:
        height = np.maximum(self.values[_HEIGHT], _LEAST_HEIGHT)
        np.multiply(height, height, out=self.values[_SQUARED])


@lru_cache(maxsize=64)
def _passage(steps: float) -> Float:
    """`(20, 22)` what `steps` time steps do to the values: movement, and noise on top."""
    single = np.eye(5)
    single[_POSITION, _VELOCITY] = steps
    single[_POSITION_VARIANCE, [_COVARIANCE, _VELOCITY_VARIANCE]] = 2 * steps, steps**2
    single[_COVARIANCE, _VELOCITY_VARIANCE] = steps
    passage = np.zeros((_BELIEVED, _ROWS))
    passage[:, :_BELIEVED] = np.kron(single, np.eye(4))
    _add_noise(passage, _POSITION_VARIANCE, steps, _POSITION_NOISE, _ASPECT_POSITION)
    _add_noise(passage, _VELOCITY_VARIANCE, steps, _VELOCITY_NOISE, _ASPECT_VELOCITY)
    return passage


@lru_cache(maxsize=1)
def _beginning() -> Float:
    """`(20, 22)` the variances of what is seen for the first time."""
    beginning = np.zeros((_BELIEVED, _ROWS))
    _add_noise(beginning, _POSITION_VARIANCE, 1.0, 2 * _POSITION_NOISE, _ASPECT_POSITION)
    _add_noise(beginning, _VELOCITY_VARIANCE, 1.0, 10 * _VELOCITY_NOISE, _ASPECT_VELOCITY)
    return beginning


@lru_cache(maxsize=1)
def _innovation() -> Float:
    """`(4, 22)` the variance of what is measured about what is predicted: both uncertainties together."""
    innovation = np.zeros((4, _ROWS))
    _add_noise(innovation, 0, 1.0, _POSITION_NOISE, _ASPECT_MEASURED)
    innovation[:, 4 * _POSITION_VARIANCE : 4 * _COVARIANCE] = np.eye(4)
    return innovation


def _add_noise(matrix: Float, quantity: int, steps: float, share: float, aspect: float) -> None:
    """The four rows of a `quantity` get a variance: `steps` times that of a standard deviation that is a `share` of the
    height; for the aspect of a fixed one."""
    rows = 4 * quantity + np.arange(4)
    matrix[rows[[0, 1, 3]], _SQUARED] += steps * share**2
    matrix[rows[2], _ONE] += steps * aspect**2
