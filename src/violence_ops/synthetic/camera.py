"""A pinhole camera above the origin of the ground plane, looking along +y and down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Camera:
    """`height` in m; `pitch` below the horizon and `roll`, rad; `focal` in px; an image of `width` × `height_px` px.

    `distance` is that of the middle of the watched ground from the point below the camera, m.
    """

    height: float
    pitch: float
    roll: float
    focal: float
    width: int
    height_px: int
    distance: float

    def axes(self) -> np.ndarray:
        """(3, 3) rows: image right, image down, and the viewing direction, in world axes."""
        cos, sin = np.cos(self.pitch), np.sin(self.pitch)
        right, down = np.array([1.0, 0.0, 0.0]), np.array([0.0, -sin, -cos])
        turn = np.cos(self.roll), np.sin(self.roll)
        return np.stack([turn[0] * right + turn[1] * down, -turn[1] * right + turn[0] * down, [0.0, cos, -sin]])

    def matrix(self) -> np.ndarray:
        """(3, 3) intrinsic matrix, px."""
        return np.array([[self.focal, 0, self.width / 2], [0, self.focal, self.height_px / 2], [0, 0, 1.0]])

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points (..., 3) to pixels (..., 2) and depths (...,) in m; depths are kept above 0.1 m."""
        seen = (points - [0.0, 0.0, self.height]) @ self.axes().T
        depth = np.maximum(seen[..., 2], 0.1)
        pixels = seen[..., :2] * (self.focal / depth)[..., None] + [self.width / 2, self.height_px / 2]
        return pixels, depth

    def plane(self, origin: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(3, 3) homography from plane coordinates (u, v) of origin + u·first + v·second to pixels."""
        shifted = origin - np.array([0.0, 0.0, self.height])
        return np.asarray(self.matrix() @ self.axes() @ np.stack([first, second, shifted], axis=1))


def random_camera(rng: np.random.Generator, width: int, height_px: int) -> Camera:
    """A surveillance-like view: people take 20 to 75 % of the image's height, seen from 2 to 45 degrees above."""
    view = np.deg2rad(rng.uniform(48, 88))
    focal = width / 2 / np.tan(view / 2)
    share = float(np.exp(rng.uniform(np.log(0.22), np.log(0.72))))
    distance = focal * 1.7 / (share * height_px)
    above = np.deg2rad(rng.choice([rng.uniform(2, 14), rng.uniform(10, 28), rng.uniform(24, 42)], p=[0.3, 0.45, 0.25]))
    height = 0.9 + distance * np.sin(above)
    pitch = above + np.deg2rad(rng.normal(0.0, 2.0))
    return Camera(
        height=float(height),
        pitch=float(pitch),
        roll=float(np.deg2rad(rng.normal(0.0, 2.0))),
        focal=float(focal),
        width=width,
        height_px=height_px,
        distance=float(distance * np.cos(above)),
    )
