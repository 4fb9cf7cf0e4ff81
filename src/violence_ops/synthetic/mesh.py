"""The body's surface: rings of points around the bones, joined to quadrilateral facets with clothing colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from violence_ops.synthetic.body import Body, Skeleton, unit

RING = 8  # points in a ring
_ANGLES = np.arange(RING) * (2 * np.pi / RING)
_COS, _SIN = np.cos(_ANGLES), np.sin(_ANGLES)


@dataclass(frozen=True)
class Clothing:
    """BGR albedos (3,) in [0, 1] and cuts of one person's clothing."""

    skin: np.ndarray
    hair: np.ndarray
    shirt: np.ndarray
    trim: np.ndarray
    trousers: np.ndarray
    shoes: np.ndarray
    long_sleeves: bool
    long_trousers: bool
    open_jacket: bool
    striped: bool
    skirt: bool
    long_hair: bool
    wrinkle_seed: int


@dataclass(frozen=True)
class Mesh:
    """A surface over F frames: vertices (F, V, 3) in metres, quads (Q, 4) vertex indices, albedo (Q, 3) BGR in [0, 1]."""

    vertices: np.ndarray
    quads: np.ndarray
    albedo: np.ndarray


def ring(centre: np.ndarray, across: np.ndarray, along: np.ndarray, width: float, depth: float) -> np.ndarray:
    """(F, RING, 3) points of an ellipse around `centre` (F, 3) with half axes `width`·across and `depth`·along."""
    return (
        centre[:, None]
        + across[:, None] * (width * _COS)[None, :, None]
        + along[:, None] * (depth * _SIN)[None, :, None]
    )


def tube(start: np.ndarray, end: np.ndarray, radii: list[float], reference: np.ndarray) -> np.ndarray:
    """(F, len(radii), RING, 3) rings spread evenly from start to end (F, 3); `reference` (F, 3) fixes the rotation."""
    axis = unit(end - start)
    across = unit(reference - np.sum(reference * axis, axis=-1, keepdims=True) * axis)
    along = np.cross(axis, across)
    steps = np.linspace(0.0, 1.0, len(radii))
    rings = [ring(start + (end - start) * s, across, along, r, r) for s, r in zip(steps, radii, strict=True)]
    return np.stack(rings, axis=1)


def join(strips: list[np.ndarray], albedos: list[np.ndarray]) -> Mesh:
    """One mesh of several strips (F, R, RING, 3); albedos[i] is (R - 1, RING, 3) for strip i."""
    quads, start = [], 0
    around = np.arange(RING)
    after = (around + 1) % RING
    for strip in strips:
        for step in range(strip.shape[1] - 1):
            low, high = start + step * RING, start + (step + 1) * RING
            quads.append(np.stack([low + around, low + after, high + after, high + around], axis=1))
        start += strip.shape[1] * RING
    frames = strips[0].shape[0]
    return Mesh(
        vertices=np.concatenate([strip.reshape(frames, -1, 3) for strip in strips], axis=1),
        quads=np.concatenate(quads),
        albedo=np.concatenate([albedo.reshape(-1, 3) for albedo in albedos]),
    )


def plain(strip: np.ndarray, *colours: np.ndarray) -> np.ndarray:
    """Albedo (R - 1, RING, 3) of a strip: the colours from its first segment on, the last one repeated."""
    segments = strip.shape[1] - 1
    chosen = [colours[min(step, len(colours) - 1)] for step in range(segments)]
    return np.repeat(np.asarray(chosen)[:, None], RING, axis=1)


def person(pose: Skeleton, body: Body, clothing: Clothing) -> Mesh:
    """The clothed surface of one person."""
    strips: list[np.ndarray] = []
    albedos: list[np.ndarray] = []

    def add(strip: np.ndarray, albedo: np.ndarray) -> None:
        strips.append(strip)
        albedos.append(albedo)

    torso = _torso(pose, body)
    add(torso, _torso_albedo(torso, clothing))
    head = _head(pose, body)
    add(head, _head_albedo(head, clothing))
    if clothing.long_hair:
        back = pose.head_centre - pose.head_axes[:, :, 1] * 0.05 * body.scale
        tips = back - pose.chest_axes[:, :, 2] * 0.27 * body.scale - pose.chest_axes[:, :, 1] * 0.05 * body.scale
        hair = tube(back, tips, [0.085 * body.scale, 0.09 * body.scale, 0.05 * body.scale], pose.head_axes[:, :, 0])
        add(hair, plain(hair, clothing.hair))
    for side in (0, 1):
        for strip, albedo in _arm(pose, body, clothing, side) + _leg(pose, body, clothing, side):
            add(strip, albedo)
    if clothing.skirt:
        hem = (pose.coco[:, 13] + pose.coco[:, 14]) / 2
        skirt = tube(
            pose.pelvis, hem, [0.15 * body.scale, 0.19 * body.scale, 0.23 * body.scale], pose.pelvis_axes[:, :, 0]
        )
        add(skirt, plain(skirt, clothing.trousers))
    mesh = join(strips, albedos)
    wrinkles = np.random.default_rng(clothing.wrinkle_seed).normal(1.0, 0.07, (len(mesh.quads), 1))
    return Mesh(mesh.vertices, mesh.quads, np.clip(mesh.albedo * wrinkles, 0.0, 1.0))


def _torso(pose: Skeleton, body: Body) -> np.ndarray:
    size, girth = body.scale, body.girth * body.scale
    spine = pose.neck - pose.pelvis
    profile = [  # share of the way from pelvis to neck, half width, half depth
        (-0.16, 0.10 * girth, 0.09 * girth),
        (0.0, 0.165 * girth, 0.12 * girth),
        (0.15, 0.160 * girth, 0.118 * girth),
        (0.42, 0.150 * girth, 0.112 * girth),
        (0.70, 0.175 * girth * body.shoulders, 0.125 * girth),
        (0.88, 0.195 * size * body.shoulders, 0.11 * girth),
        (0.97, 0.13 * size * body.shoulders, 0.085 * size),
        (1.04, 0.062 * size, 0.062 * size),
    ]
    rings = []
    for share, width, depth in profile:
        axes = pose.pelvis_axes if share < 0.3 else pose.chest_axes
        rings.append(ring(pose.pelvis + spine * share, axes[:, :, 0], axes[:, :, 1], width, depth))
    return np.stack(rings, axis=1)


def _torso_albedo(strip: np.ndarray, clothing: Clothing) -> np.ndarray:
    shirt, trousers = clothing.shirt, clothing.trousers
    albedo = plain(strip, trousers, trousers, shirt, shirt, shirt, shirt, clothing.skin)
    if clothing.striped:
        albedo[[3, 5]] = clothing.trim
    if clothing.open_jacket:
        albedo[2:6, 1:3] = clothing.trim
    return albedo


def _head(pose: Skeleton, body: Body) -> np.ndarray:
    size = body.scale
    up, forward, across = pose.head_axes[:, :, 2], pose.head_axes[:, :, 1], pose.head_axes[:, :, 0]
    chin = pose.neck + (pose.head_centre - pose.neck) * 0.35
    rings = [
        ring(pose.neck, across, forward, 0.058 * size, 0.058 * size),
        ring(chin, across, forward, 0.055 * size, 0.06 * size),
    ]
    for height, width in ((-0.10, 0.045), (-0.06, 0.07), (0.0, 0.082), (0.06, 0.078), (0.105, 0.05), (0.125, 0.01)):
        centre = pose.head_centre + (up * height + forward * 0.012) * size
        rings.append(ring(centre, across, forward, width * size, (width * 1.18) * size))
    return np.stack(rings, axis=1)


def _head_albedo(strip: np.ndarray, clothing: Clothing) -> np.ndarray:
    albedo = plain(strip, clothing.skin)
    albedo[5:] = clothing.hair
    albedo[3:5, 4:] = clothing.hair
    albedo[2, 5:7] = clothing.hair
    albedo[4, 1:3] = clothing.skin * 0.8  # eyes and brows
    return albedo


def _arm(pose: Skeleton, body: Body, clothing: Clothing, side: int) -> list[tuple[np.ndarray, np.ndarray]]:
    girth, size = body.girth * body.scale, body.scale
    shoulder, elbow, wrist = (pose.coco[:, joint + side] for joint in (5, 7, 9))
    reference = pose.chest_axes[:, :, 1] + 0.3 * pose.chest_axes[:, :, 0]
    sleeve = clothing.shirt if clothing.long_sleeves else clothing.skin
    upper = tube(shoulder, elbow, [0.062 * girth, 0.056 * girth, 0.047 * girth, 0.043 * girth], reference)
    lower = tube(elbow, wrist, [0.044 * girth, 0.043 * girth, 0.032 * size], reference)
    hand = tube(wrist, pose.hand_tips[:, side], [0.03 * size, 0.045 * size, 0.038 * size, 0.012 * size], reference)
    return [
        (upper, plain(upper, clothing.shirt, clothing.shirt, sleeve)),
        (lower, plain(lower, sleeve)),
        (hand, plain(hand, clothing.skin)),
    ]


def _leg(pose: Skeleton, body: Body, clothing: Clothing, side: int) -> list[tuple[np.ndarray, np.ndarray]]:
    girth, size = body.girth * body.scale, body.scale
    hip, knee, ankle = (pose.coco[:, joint + side] for joint in (11, 13, 15))
    across = pose.pelvis_axes[:, :, 0]
    shin = clothing.trousers if clothing.long_trousers else clothing.skin
    thigh = tube(hip, knee, [0.095 * girth, 0.09 * girth, 0.07 * girth, 0.06 * girth], across)
    calf = tube(knee, ankle, [0.06 * girth, 0.062 * girth, 0.047 * girth, 0.043 * size], across)
    toes = pose.toes[:, side]
    heel = ankle + (ankle - toes) * 0.3
    heel[:, 2] = np.minimum(heel[:, 2], ankle[:, 2] - 0.02 * size)
    foot = tube(heel, toes, [0.035 * size, 0.05 * size, 0.048 * size, 0.022 * size], across)
    return [
        (thigh, plain(thigh, clothing.trousers)),
        (calf, plain(calf, shin)),
        (foot, plain(foot, clothing.shoes)),
    ]


def column(centre: np.ndarray, heights: list[float], radii: list[float], colour: np.ndarray) -> Mesh:
    """An upright prop (ball, punching bag, stool): rings of the given radii at the given heights above centre (F, 3)."""
    across = np.broadcast_to(np.array([1.0, 0.0, 0.0]), centre.shape)
    along = np.broadcast_to(np.array([0.0, 1.0, 0.0]), centre.shape)
    up = np.array([0.0, 0.0, 1.0])
    strip = np.stack([ring(centre + up * h, across, along, r, r) for h, r in zip(heights, radii, strict=True)], axis=1)
    return join([strip], [plain(strip, colour)])
