"""The articulated body: proportions, motion parameters, and forward kinematics to three-dimensional joints.

World axes: x right, y away from the camera, z up, metres. Body axes: x to the person's right, y forward, z up.
Sides are indexed 0 = left, 1 = right. Reference lengths are those of a person 1.75 m tall and scale with height.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

REFERENCE_HEIGHT = 1.75
TORSO, NECK, HEAD_RADIUS = 0.50, 0.10, 0.105
UPPER_ARM, FOREARM, HAND = 0.29, 0.26, 0.17
THIGH, CALF = 0.44, 0.43
HIP_HALF, SHOULDER_HALF = 0.095, 0.185
LEG = THIGH + CALF
SOLE = 0.075  # ankle above the ground
SIDES = np.array([-1.0, 1.0])


@dataclass(frozen=True)
class Body:
    """Proportions of one person. `height` in metres; `girth` and `shoulders` are factors around 1."""

    height: float
    girth: float
    shoulders: float

    @property
    def scale(self) -> float:
        return self.height / REFERENCE_HEIGHT


@dataclass(frozen=True)
class Motion:
    """What one person does over F frames, in body axes and reference metres.

    position (F, 2) on the ground; yaw (F,) heading, rad, 0 looks along +y, positive turns left; tilt (F, 2) of the whole body, forward
    and to the right, rad; spine (F, 3) forward, right, twist, rad; head (F, 2) down and left, rad; hands (F, 2, 3) from the base of the
    neck; feet (F, 2, 3) ankles from the pelvis; lift (F,) above ground contact, m.
    """

    position: np.ndarray
    yaw: np.ndarray
    tilt: np.ndarray
    spine: np.ndarray
    head: np.ndarray
    hands: np.ndarray
    feet: np.ndarray
    lift: np.ndarray


@dataclass(frozen=True)
class Skeleton:
    """Joints of one person over F frames: coco (F, 17, 3), the extra joints, and the frames' axes (F, 3, 3)."""

    coco: np.ndarray
    neck: np.ndarray
    pelvis: np.ndarray
    head_centre: np.ndarray
    hand_tips: np.ndarray
    toes: np.ndarray
    chest_axes: np.ndarray
    pelvis_axes: np.ndarray
    head_axes: np.ndarray


def standing(frames: int, position: tuple[float, float], yaw: float) -> Motion:
    """A person standing still with hanging arms: the start of every action."""
    hands = np.zeros((frames, 2, 3))
    hands[:] = [[-0.23, 0.04, -0.56], [0.23, 0.04, -0.56]]
    feet = np.zeros((frames, 2, 3))
    feet[:] = [[-0.10, 0.0, -LEG + 0.005], [0.10, 0.0, -LEG + 0.005]]
    return Motion(
        position=np.tile(np.asarray(position, dtype=float), (frames, 1)),
        yaw=np.full(frames, float(yaw)),
        tilt=np.zeros((frames, 2)),
        spine=np.zeros((frames, 3)),
        head=np.zeros((frames, 2)),
        hands=hands,
        feet=feet,
        lift=np.zeros(frames),
    )


def rotation(axis: int, angle: np.ndarray) -> np.ndarray:
    """(F, 3, 3) right-handed rotations by `angle` (F,) rad about coordinate axis 0, 1 or 2."""
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.zeros((*angle.shape, 3, 3))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix[..., axis, axis] = 1.0
    matrix[..., first, first] = cos
    matrix[..., second, second] = cos
    matrix[..., first, second] = -sin
    matrix[..., second, first] = sin
    return matrix


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors scaled to length one along the last axis; the null vector stays null."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def two_bones(
    root: np.ndarray, target: np.ndarray, upper: float, lower: float, pole: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Middle and end joint (F, 3) of a two-bone limb that reaches from root to target (F, 3), bending towards `pole`.

    A target out of reach is approached with an almost straight limb.
    """
    reach = target - root
    direction = unit(reach)
    distance = np.clip(np.linalg.norm(reach, axis=-1), abs(upper - lower) + 0.02, upper + lower - 1e-3)
    along = (upper**2 - lower**2 + distance**2) / (2 * distance)
    aside = np.sqrt(np.maximum(upper**2 - along**2, 0.0))
    sideways = unit(pole - np.sum(pole * direction, axis=-1, keepdims=True) * direction)
    middle = root + direction * along[:, None] + sideways * aside[:, None]
    return middle, root + direction * distance[:, None]


def skeleton(motion: Motion, body: Body) -> Skeleton:
    """Forward kinematics: joints of `body` doing `motion`, resting on the ground plane z = 0 plus `motion.lift`."""
    spine = rotation(1, motion.spine[:, 1]) @ rotation(0, -motion.spine[:, 0]) @ rotation(2, motion.spine[:, 2])
    neck = spine[:, :, 2] * TORSO
    shoulder_offset = SIDES[:, None] * np.array([SHOULDER_HALF * body.shoulders, 0.0, 0.0]) + [0.0, 0.0, -0.045]
    shoulders = neck[:, None] + np.einsum("fij,sj->fsi", spine, shoulder_offset)
    hips = np.broadcast_to(SIDES[:, None] * np.array([HIP_HALF, 0.0, 0.0]), shoulders.shape)
    elbows, wrists, knees, ankles = (np.empty_like(shoulders) for _ in range(4))
    for side, sign in enumerate(SIDES):
        elbow_pole = np.einsum("fij,j->fi", spine, np.array([0.55 * sign, -0.7, -0.6]))
        elbows[:, side], wrists[:, side] = two_bones(
            shoulders[:, side], neck + motion.hands[:, side], UPPER_ARM, FOREARM, elbow_pole
        )
        knee_pole = np.broadcast_to(np.array([0.18 * sign, 1.0, 0.1]), neck.shape)
        knees[:, side], ankles[:, side] = two_bones(hips[:, side], motion.feet[:, side], THIGH, CALF, knee_pole)
    head_axes = spine @ rotation(2, motion.head[:, 1]) @ rotation(0, -motion.head[:, 0] + 0.45 * motion.spine[:, 0])
    head_centre = neck + spine[:, :, 2] * NECK * 0.7 + head_axes[:, :, 2] * (HEAD_RADIUS + 0.02)
    face = np.array(
        [[0.0, 0.105, -0.015], [-0.032, 0.09, 0.02], [0.032, 0.09, 0.02], [-0.078, 0.0, 0.0], [0.078, 0.0, 0.0]]
    )
    face_points = head_centre[:, None] + np.einsum("fij,kj->fki", head_axes, face)
    hand_tips = wrists + unit(wrists - elbows) * HAND
    toes = ankles + np.array([0.0, 0.19, -0.045])
    limbs = np.stack([shoulders, elbows, wrists, hips, knees, ankles], axis=1).reshape(len(neck), 12, 3)
    parts = np.concatenate(
        [face_points, limbs, neck[:, None], np.zeros((len(neck), 1, 3)), head_centre[:, None], hand_tips, toes], axis=1
    )
    return _place(parts, spine, head_axes, motion, body)


def _place(parts: np.ndarray, spine: np.ndarray, head_axes: np.ndarray, motion: Motion, body: Body) -> Skeleton:
    """Turn body-frame joints (F, 24, 3) into the world and let the lowest one touch the ground."""
    turn = rotation(2, motion.yaw) @ rotation(1, motion.tilt[:, 1]) @ rotation(0, -motion.tilt[:, 0])
    world = np.einsum("fij,fkj->fki", turn, parts) * body.scale
    thickness = np.full(parts.shape[1], 0.05)
    thickness[[15, 16]] = SOLE
    thickness[[5, 6, 11, 12, 17, 18, 19]] = [0.07, 0.07, 0.09, 0.09, 0.08, 0.11, 0.10]
    thickness[[22, 23]] = 0.02
    floor = np.min(world[:, :, 2] - thickness * body.scale, axis=1)
    world[:, :, 2] += (motion.lift - floor)[:, None]
    world[:, :, :2] += motion.position[:, None]
    return Skeleton(
        coco=world[:, :17],
        neck=world[:, 17],
        pelvis=world[:, 18],
        head_centre=world[:, 19],
        hand_tips=world[:, 20:22],
        toes=world[:, 22:24],
        chest_axes=turn @ spine,
        pelvis_axes=turn,
        head_axes=turn @ head_axes,
    )
