"""Who does what in one clip: the pair that the label is about, bystanders, and the things they use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from violence_ops.synthetic.actions import SOLO, Action, Place
from violence_ops.synthetic.body import Body, Motion, Skeleton, skeleton
from violence_ops.synthetic.colours import hsv
from violence_ops.synthetic.interactions import PEACEFUL, VIOLENT, Interaction
from violence_ops.synthetic.mesh import Mesh, column, person
from violence_ops.synthetic.scene import Scene

_Made = TypeVar("_Made", Action, Interaction)
_EXTRAS_SHARES = (0.24, 0.24, 0.22, 0.16, 0.14)  # nobody, one, ... four bystanders


@dataclass(frozen=True)
class Role:
    """One person's part: the action's name, body, skeleton and surface, and the things that belong to it."""

    action: str
    motion: Motion
    body: Body
    skeleton: Skeleton
    surface: Mesh
    props: tuple[Mesh, ...]


def cast(scene: Scene, label: str, times: np.ndarray, rng: np.random.Generator) -> tuple[list[Role], int]:
    """The roles of a clip, and how many of them (2 or 0), at the front, fight.

    Number of persons and bystanders' actions are drawn alike for both labels. NonFight clips show a pair that does
    something together in 7 of 10 cases, so that nearness tells little.
    """
    extras = int(rng.choice(len(_EXTRAS_SHARES), p=_EXTRAS_SHARES))
    people = rng.permutation(len(scene.bodies))[: 2 + extras]
    place = _place(scene, rng, central=True)
    yaw = float(rng.uniform(-np.pi, np.pi))
    fight = label == "Fight"
    together = fight or rng.random() < 0.7
    named: list[tuple[str, Motion]] = []
    if together:
        name, interaction = _choose(VIOLENT if fight else PEACEFUL, rng)
        named += [(name, motion) for motion in interaction(times, place, yaw, rng)]
    taken = [place] if together else []
    while len(named) < len(people):
        where = _free_place(scene, rng, taken, central=len(named) < 2)
        name, action = _choose(SOLO, rng)
        named.append((name, action(times, where, _heading(where, place, rng), rng)))
        taken.append(where)
    roles = []
    for index, (name, motion) in zip(people, named, strict=True):
        body = scene.bodies[index]
        pose = skeleton(motion, body)
        surface = person(pose, body, scene.clothes[index])
        roles.append(Role(name, motion, body, pose, surface, _props(name, motion, pose, rng)))
    if named[0][0] == "catch":
        roles[0] = _with_ball(roles[0], roles[1], times, rng)
    return roles, 2 if fight else 0


def _choose(table: Mapping[str, tuple[_Made, float]], rng: np.random.Generator) -> tuple[str, _Made]:
    names = list(table)
    weights = np.array([table[name][1] for name in names])
    name = names[rng.choice(len(names), p=weights / weights.sum())]
    return name, table[name][0]


def _place(scene: Scene, rng: np.random.Generator, central: bool) -> Place:
    """A spot on the watched ground, in view."""
    distance = scene.camera.distance
    far = min(scene.back - 0.8, distance * 1.5 + 1.0)
    y = distance + rng.uniform(-0.03, 0.06) * distance if central else rng.uniform(0.88 * distance, far)
    half = y * scene.camera.width / 2 / scene.camera.focal
    return float(rng.uniform(-1, 1) * half * (0.45 if central else 0.85)), float(min(y, far))


def _free_place(scene: Scene, rng: np.random.Generator, taken: list[Place], central: bool) -> Place:
    """A spot apart from the others; the last of ten tries is taken as it is, which makes crowds."""
    room = rng.uniform(0.5, 1.5)
    for _ in range(10):
        spot = _place(scene, rng, central)
        if all(np.hypot(spot[0] - x, spot[1] - y) > room for x, y in taken):
            break
    return spot


def _heading(where: Place, centre: Place, rng: np.random.Generator) -> float:
    """Half of the bystanders look towards the middle of the event, the others anywhere."""
    if rng.random() < 0.5:
        return float(np.arctan2(-(centre[0] - where[0]), centre[1] - where[1]) + rng.normal(0, 0.4))
    return float(rng.uniform(-np.pi, np.pi))


def _props(name: str, motion: Motion, pose: Skeleton, rng: np.random.Generator) -> tuple[Mesh, ...]:
    colour = hsv(rng.uniform(0, 1), rng.uniform(0, 0.8), rng.uniform(0.1, 0.8))
    ground = np.concatenate([motion.position, np.zeros((len(motion.position), 1))], axis=1)
    ahead = np.stack([-np.sin(motion.yaw), np.cos(motion.yaw), np.zeros(len(motion.yaw))], axis=1)
    if name == "sit":
        return (column(ground, [0.0, 0.40, 0.42, 0.43], [0.14, 0.18, 0.19, 0.01], colour),)
    if name == "exercise_punches" and rng.random() < 0.6:
        bag = np.repeat(ground[:1] + 0.82 * ahead[:1], len(ground), axis=0)
        return (column(bag, [0.5, 0.55, 1.65, 1.7, 3.0], [0.02, 0.17, 0.17, 0.02, 0.015], colour),)
    if name == "kick_ball":
        return (ball(ground[:1] + 0.9 * ahead[:1] + np.zeros_like(ground) + [0, 0, 0.11], colour),)
    return ()


def ball(centre: np.ndarray, colour: np.ndarray) -> Mesh:
    """A ball of 22 cm around centre (F, 3)."""
    return column(centre, [-0.11, -0.08, 0.0, 0.08, 0.11], [0.01, 0.075, 0.11, 0.075, 0.01], colour)


def _with_ball(first: Role, second: Role, times: np.ndarray, rng: np.random.Generator) -> Role:
    """The first player's role with the ball that flies between both (see `interactions.catch`)."""
    hands = [role.skeleton.hand_tips.mean(axis=1) for role in (first, second)]
    flight, period = 0.5, 0.85
    turn = np.floor(times / period).astype(int)
    share = np.clip((times - turn * period) / flight, 0.0, 1.0)[:, None]
    start = np.where((turn % 2 == 0)[:, None], hands[0], hands[1])
    end = np.where((turn % 2 == 0)[:, None], hands[1], hands[0])
    path = start * (1 - share) + end * share
    path[:, 2] += 1.2 * (share * (1 - share))[:, 0]
    colour = hsv(rng.uniform(0, 1), rng.uniform(0, 0.9), rng.uniform(0.3, 1))
    return Role(
        first.action, first.motion, first.body, first.skeleton, first.surface, (*first.props, ball(path, colour))
    )
