"""Drawing: shaded facets of people and things over the background, shadows, occluders in front, lens and sensor."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from violence_ops.synthetic.body import Skeleton
from violence_ops.synthetic.mesh import Mesh
from violence_ops.synthetic.scene import Scene, expose

_FRACTION_BITS = 3  # of a pixel in drawn polygons
_SHADOW_SCALE = 4
_SHADOW_LINES = ((5, 7, 9), (6, 8, 10), (11, 13, 15), (12, 14, 16), (5, 11), (6, 12), (5, 6), (0, 0))
_NOISE_MARGIN = 48


@dataclass(frozen=True)
class Stage:
    """What a renderer keeps for a clip: one joined surface of everybody, skeletons, and prepared overlays."""

    scene: Scene
    surface: Mesh
    skeletons: tuple[Skeleton, ...]
    front: np.ndarray
    front_mask: np.ndarray | None
    noise: tuple[np.ndarray, np.ndarray] | None
    seed: int
    clock_s: int


def prepare(scene: Scene, meshes: list[Mesh], skeletons: list[Skeleton], seed: int) -> Stage:
    """Join the surfaces and draw what is the same in every frame."""
    rng = np.random.default_rng([seed, 7])
    front = np.zeros_like(scene.background)
    mask = np.zeros(front.shape[:2], np.uint8) if scene.occluders else None
    for occluder in sorted(scene.occluders, key=lambda thing: -thing.depth):
        for polygon, colour in occluder.faces:
            corners = np.round(polygon).astype(np.int32)
            cv2.fillConvexPoly(front, corners, expose(colour, scene.light).tolist())
            cv2.fillConvexPoly(mask, corners, 255)
    noise = None
    if scene.noise > 0:
        height, width = front.shape[:2]
        grain = rng.normal(0, scene.noise, (height + _NOISE_MARGIN, width + _NOISE_MARGIN, 1))
        grain = np.repeat(grain, 3, axis=2) + rng.normal(0, scene.noise * 0.3, (*grain.shape[:2], 3))
        noise = np.maximum(grain, 0).astype(np.uint8), np.maximum(-grain, 0).astype(np.uint8)
    return Stage(scene, _join(meshes), tuple(skeletons), front, mask, noise, seed, int(rng.integers(86400)))


def _join(meshes: list[Mesh]) -> Mesh:
    starts = np.cumsum([0] + [mesh.vertices.shape[1] for mesh in meshes[:-1]])
    return Mesh(
        vertices=np.concatenate([mesh.vertices for mesh in meshes], axis=1),
        quads=np.concatenate([mesh.quads + start for mesh, start in zip(meshes, starts, strict=True)]),
        albedo=np.concatenate([mesh.albedo for mesh in meshes]),
    )


def draw(stage: Stage, index: int) -> np.ndarray:
    """Frame `index` as (H, W, 3) uint8 BGR."""
    scene = stage.scene
    image = scene.background.copy()
    _shadows(image, stage, index)
    _facets(image, stage, index)
    if stage.front_mask is not None:
        cv2.copyTo(stage.front, stage.front_mask, image)
    if scene.blur > 0:
        cv2.GaussianBlur(image, (3, 3) if scene.blur < 1 else (5, 5), scene.blur, dst=image)
    if stage.noise is not None:
        _add_noise(image, stage, index)
    if scene.clock:
        _write_clock(image, stage, index)
    return image


def _facets(image: np.ndarray, stage: Stage, index: int) -> None:
    vertices = stage.surface.vertices[index]
    pixels, depth = stage.scene.camera.project(vertices)
    corners = pixels[stage.surface.quads]
    first, second = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    low, high = corners.min(axis=1), corners.max(axis=1)
    height, width = image.shape[:2]
    facing = (area < 0) & (high >= 0).all(axis=1) & (low[:, 0] < width) & (low[:, 1] < height)
    chosen = np.flatnonzero(facing)
    quads = stage.surface.quads[chosen]
    distance = depth[quads].mean(axis=1)
    order = np.argsort(-distance, kind="stable")
    chosen, quads = chosen[order], quads[order]
    points = vertices[quads]
    normal = np.cross(points[:, 2] - points[:, 0], points[:, 3] - points[:, 1])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    light = stage.scene.light
    shade = light.ambient + (1 - light.ambient) * np.maximum(normal @ light.direction, -0.25)
    colours = expose(stage.surface.albedo[chosen] * shade[:, None], light).tolist()
    polygons = np.round(corners[chosen] * 2**_FRACTION_BITS).astype(np.int32)
    for polygon, colour in zip(polygons, colours, strict=True):
        cv2.fillConvexPoly(image, polygon, colour, cv2.LINE_8, _FRACTION_BITS)


def _shadows(image: np.ndarray, stage: Stage, index: int) -> None:
    """Darken the ground where the body hides it from the light; softened."""
    camera, light = stage.scene.camera, stage.scene.light
    direction = light.direction
    height, width = image.shape[:2]
    mask = np.full((height // _SHADOW_SCALE, width // _SHADOW_SCALE), 255, np.uint8)
    dark = int(255 * (0.45 + 0.4 * light.ambient))
    for skeleton in stage.skeletons:
        joints = skeleton.coco[index]
        ground = joints - direction * (joints[:, 2:] / direction[2])
        pixels, depth = camera.project(ground)
        corners = np.clip(np.round(pixels / _SHADOW_SCALE), -9999, 9999).astype(np.int32)
        thickness = max(1, int(0.2 * camera.focal / depth.mean() / _SHADOW_SCALE))
        cv2.polylines(mask, [corners[list(line)] for line in _SHADOW_LINES], False, dark, thickness)
    columns, rows = np.flatnonzero((mask < 255).any(axis=0)), np.flatnonzero((mask < 255).any(axis=1))
    if len(columns) == 0:
        return
    left, right = max(columns[0] - 3, 0), min(columns[-1] + 4, mask.shape[1])
    top, bottom = max(rows[0] - 3, 0), min(rows[-1] + 4, mask.shape[0])
    soft = cv2.GaussianBlur(mask[top:bottom, left:right], (5, 5), 1.3)
    size = ((right - left) * _SHADOW_SCALE, (bottom - top) * _SHADOW_SCALE)
    factor = cv2.cvtColor(cv2.resize(soft, size, interpolation=cv2.INTER_LINEAR), cv2.COLOR_GRAY2BGR)
    region = image[top * _SHADOW_SCALE : bottom * _SHADOW_SCALE, left * _SHADOW_SCALE : right * _SHADOW_SCALE]
    cv2.multiply(region, factor, dst=region, scale=1 / 255)


def _add_noise(image: np.ndarray, stage: Stage, index: int) -> None:
    assert stage.noise is not None
    x, y = np.random.default_rng([stage.seed, index, 8]).integers(0, _NOISE_MARGIN, 2)
    window = np.s_[y : y + image.shape[0], x : x + image.shape[1]]
    cv2.add(image, stage.noise[0][window], dst=image)
    cv2.subtract(image, stage.noise[1][window], dst=image)


def _write_clock(image: np.ndarray, stage: Stage, index: int) -> None:
    second = (stage.clock_s + int(index / stage.scene.fps)) % 86400
    text = f"{stage.scene.camera_id.upper()}  {second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
    size = image.shape[0] / 500
    cv2.putText(image, text, (int(8 * size), int(24 * size)), cv2.FONT_HERSHEY_SIMPLEX, 0.7 * size, (235, 235, 235), 1)
