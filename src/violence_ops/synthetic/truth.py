"""Ground truth of a clip in the image: keypoints, their visibility, boxes."""

from __future__ import annotations

import numpy as np

from violence_ops.records import TRUNK
from violence_ops.synthetic.body import Skeleton
from violence_ops.synthetic.camera import Camera
from violence_ops.synthetic.mesh import Mesh
from violence_ops.synthetic.scene import Occluder

OUTSIDE, OCCLUDED, VISIBLE = 0, 1, 2
_BONES = ((5, 7), (7, 9), (6, 8), (8, 10), (11, 13), (13, 15), (12, 14), (14, 16))
_BONE_RADII = np.array([0.055, 0.045, 0.055, 0.045, 0.08, 0.055, 0.08, 0.055, 0.14, 0.10])


def keypoints(camera: Camera, skeletons: list[Skeleton]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (F, P, 17, 2) and depths (F, P, 17) of everybody's joints."""
    return camera.project(np.stack([skeleton.coco for skeleton in skeletons], axis=1))


def boxes(camera: Camera, surfaces: list[Mesh]) -> np.ndarray:
    """(F, P, 4) xyxy px around the visible surface, cut at the image's border; zeros where nobody is in view."""
    found = []
    for surface in surfaces:
        pixels, _ = camera.project(surface.vertices)
        low, high = pixels.min(axis=1), pixels.max(axis=1)
        box = np.concatenate([low, high], axis=1)
        box[:, [0, 2]] = np.clip(box[:, [0, 2]], 0, camera.width)
        box[:, [1, 3]] = np.clip(box[:, [1, 3]], 0, camera.height_px)
        box[(box[:, 2] <= box[:, 0]) | (box[:, 3] <= box[:, 1])] = 0.0
        found.append(box)
    return np.stack(found, axis=1).astype(np.float32)


def visibility(
    camera: Camera, skeletons: list[Skeleton], points: np.ndarray, depths: np.ndarray, occluders: tuple[Occluder, ...]
) -> np.ndarray:
    """(F, P, 17) uint8: VISIBLE, OCCLUDED (by a thing, another person or the own body) or OUTSIDE the image.

    Bodies count as capsules around limbs, trunk and head; a joint is hidden when one lies before it.
    """
    hidden = _turned_away(camera, skeletons)
    for occluder in occluders:
        for polygon, _ in occluder.faces:
            hidden |= _inside(points, polygon)
    starts, ends, radii, near = _capsules(camera, skeletons)
    for person in range(points.shape[1]):
        covered = _covered(points, depths, starts[:, person], ends[:, person], radii[:, person], near[:, person])
        own = _covered(
            points[:, [person]],
            depths[:, [person]] - 0.12,
            *(part[:, person, 8:9] for part in (starts, ends, radii, near)),
        )[:, 0]
        own[:, TRUNK] = False
        covered[:, person] = own
        hidden |= covered
    outside = (points < 0).any(axis=-1) | (points[..., 0] >= camera.width) | (points[..., 1] >= camera.height_px)
    return np.where(outside, OUTSIDE, np.where(hidden, OCCLUDED, VISIBLE)).astype(np.uint8)


def _turned_away(camera: Camera, skeletons: list[Skeleton]) -> np.ndarray:
    """(F, P, 17) face points that look away from the camera."""
    hidden = np.zeros((len(skeletons[0].coco), len(skeletons), 17), bool)
    for person, skeleton in enumerate(skeletons):
        to_camera = np.array([0.0, 0.0, camera.height]) - skeleton.head_centre
        to_camera /= np.linalg.norm(to_camera, axis=1, keepdims=True)
        across = np.einsum("fi,fi->f", skeleton.head_axes[:, :, 0], to_camera)
        forward = np.einsum("fi,fi->f", skeleton.head_axes[:, :, 1], to_camera)
        hidden[:, person, 0] = forward < -0.1
        hidden[:, person, 1] = forward - 0.5 * across < 0.0
        hidden[:, person, 2] = forward + 0.5 * across < 0.0
        hidden[:, person, 3] = across > 0.35
        hidden[:, person, 4] = across < -0.35
    return hidden


def _inside(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Which points (..., 2) lie in a convex polygon (C, 2)."""
    edges = np.roll(polygon, -1, axis=0) - polygon
    offset = points[..., None, :] - polygon
    turn = edges[:, 0] * offset[..., 1] - edges[:, 1] * offset[..., 0]
    return np.asarray((turn >= 0).all(axis=-1) | (turn <= 0).all(axis=-1))


def _capsules(camera: Camera, skeletons: list[Skeleton]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Image capsules of everybody: starts, ends (F, P, B, 2), radii and depths (F, P, B); bone 8 is the trunk."""
    first = np.stack(
        [
            np.concatenate([s.coco[:, [a for a, _ in _BONES]], s.neck[:, None], s.head_centre[:, None]], 1)
            for s in skeletons
        ],
        axis=1,
    )
    last = np.stack(
        [
            np.concatenate([s.coco[:, [b for _, b in _BONES]], s.pelvis[:, None], s.head_centre[:, None]], 1)
            for s in skeletons
        ],
        axis=1,
    )
    starts, start_depth = camera.project(first)
    ends, end_depth = camera.project(last)
    depth = (start_depth + end_depth) / 2
    return starts, ends, _BONE_RADII * camera.focal / depth, depth


def _covered(
    points: np.ndarray, depths: np.ndarray, starts: np.ndarray, ends: np.ndarray, radii: np.ndarray, near: np.ndarray
) -> np.ndarray:
    """(F, P, K) points (F, P, K, 2) behind any of the capsules (F, B, ...) of one person."""
    axis = (ends - starts)[:, None, None]
    offset = points[:, :, :, None] - starts[:, None, None]
    length = np.maximum((axis**2).sum(-1), 1e-6)
    share = np.clip((offset * axis).sum(-1) / length, 0.0, 1.0)
    distance = np.linalg.norm(offset - share[..., None] * axis, axis=-1)
    before = near[:, None, None] < depths[..., None] - 0.08
    return np.asarray(((distance < radii[:, None, None]) & before).any(axis=-1))
