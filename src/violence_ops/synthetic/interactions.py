"""What two persons do together: greetings, dances and games on one side, fights on the other.

An interaction takes the times (F,) in seconds, where it happens, the direction from the first to the second person,
and a random generator; it returns both Motions. Peaceful pairs come as near and move as fast as fighters do: only what
they do to each other differs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from violence_ops.synthetic import actions
from violence_ops.synthetic.actions import Place, pulse, step
from violence_ops.synthetic.body import Motion, standing

Pair = tuple[Motion, Motion]
Interaction = Callable[[np.ndarray, Place, float, np.random.Generator], Pair]


def facing(frames: int, place: Place, yaw: float, distance: float | np.ndarray) -> Pair:
    """Two persons who stand `distance` m apart around `place` and look at each other; the first looks along `yaw`."""
    first, second = standing(frames, place, yaw), standing(frames, place, yaw + np.pi)
    half = np.broadcast_to(np.asarray(distance, dtype=float) / 2, (frames,))
    ahead = np.array([-np.sin(yaw), np.cos(yaw)])
    first.position[:] -= half[:, None] * ahead
    second.position[:] += half[:, None] * ahead
    return first, second


def circle(pair: Pair, place: Place, angle: np.ndarray) -> None:
    """Turn both persons about `place` by `angle` (F,) rad."""
    cos, sin = np.cos(angle), np.sin(angle)
    for motion in pair:
        x, y = (motion.position - place).T
        motion.position[:] = np.stack([x * cos - y * sin, x * sin + y * cos], axis=1) + place
        motion.yaw[:] += angle


def shuffle_feet(motion: Motion, times: np.ndarray, rng: np.random.Generator, size: float) -> None:
    """Small quick steps on the spot, as of somebody who keeps balance."""
    rate, phase = rng.uniform(1.2, 2.2), rng.uniform(0, 2 * np.pi)
    for side in (0, 1):
        beat = 2 * np.pi * rate * times + phase + np.pi * side
        motion.feet[:, side, 1] += 0.12 * size * np.sin(beat)
        motion.feet[:, side, 2] += 0.10 * size * np.maximum(np.cos(beat), 0.0)


def lively(pair: Pair, times: np.ndarray, rng: np.random.Generator, amount: float = 1.0) -> Pair:
    for motion in pair:
        actions.alive(motion, times, rng, amount)
    return pair


def hug(times: np.ndarray, place: Place, yaw: float, rng: np.random.Generator) -> Pair:
    """They come together, embrace and sway, sometimes part again; some hugs are quick and hearty."""
    near = step(times, rng.uniform(-0.5, 0.4), rng.uniform(0.4, 0.8))
    if rng.random() < 0.4:
        near *= 1 - step(times, rng.uniform(0.6, 0.8) * float(times[-1]), 0.5)
    pair = facing(len(times), place, yaw, 1.7 - 1.36 * near)
    pace = np.abs(np.gradient(near, times)) * 0.68
    for motion in pair:
        actions.gait(motion, times, pace, rng)
        target = np.array([[-0.16, 0.38, -0.12], [0.14, 0.40, -0.25]]) + rng.normal(0, 0.04, (2, 3))
        motion.hands[:] += (target - motion.hands) * near[:, None, None]
        motion.hands[:, 1, 2] += 0.07 * near * np.sin(2 * np.pi * rng.uniform(1.0, 3.5) * times)  # patting
        motion.spine[:, 0] += 0.15 * near
    circle(pair, place, actions.drift(times, rng, 0.25, 0.4))
    return lively(pair, times, rng)


def handshake(times: np.ndarray, place: Place, yaw: float, rng: np.random.Generator) -> Pair:
    """They step up and shake hands."""
    near = step(times, rng.uniform(-0.5, 0.5), 0.5)
    distance = 1.5 - 0.65 * near
    pair = facing(len(times), place, yaw, distance)
    shake = 0.06 * np.sin(2 * np.pi * rng.uniform(2.0, 3.5) * times) * near
    for motion in pair:
        actions.gait(motion, times, np.abs(np.gradient(near, times)) * 0.33, rng)
        target = np.stack([np.full(len(times), 0.0), distance / 2, -0.34 + shake], axis=1)
        motion.hands[:, 1] += (target - motion.hands[:, 1]) * near[:, None]
    return lively(pair, times, rng)


def high_five(times: np.ndarray, place: Place, yaw: float, rng: np.random.Generator) -> Pair:
    """Clapping raised hands, once or in a rhythm: fast arms between two near persons."""
    pair = facing(len(times), place, yaw, rng.uniform(0.75, 0.95))
    period, first = rng.uniform(0.45, 0.9), rng.uniform(0.1, 0.5)
    count = int(rng.integers(1, 5))
    sides = rng.integers(0, 2, count)
    height = rng.uniform(0.05, 0.35)
    for motion in pair:
        for number, side in enumerate(sides):
            out = pulse(times, first + number * period, 0.28)[:, None]
            target = np.array([(2 * side - 1) * 0.1, 0.42, height])
            motion.hands[:, side] += (target - motion.hands[:, side]) * out
            motion.spine[:, 2] += 0.2 * (2 * side - 1) * out[:, 0]
        shuffle_feet(motion, times, rng, rng.uniform(0.0, 0.8))
    return lively(pair, times, rng)


def dance_together(times: np.ndarray, place: Place, yaw: float, rng: np.random.Generator) -> Pair:
    """A couple dancing, close or at arms' length, turning about each other."""
    beat = 2 * np.pi * rng.uniform(0.8, 1.5) * times
    distance = rng.uniform(0.42, 0.85) + 0.12 * np.sin(beat / 2)
    pair = facing(len(times), place, yaw, distance)
    for motion in pair:
        motion.hands[:] = [[-0.42, 0.22, 0.02], [0.16, 0.36, -0.22]]
        motion.hands[:, :, 0] += 0.12 * np.sin(beat)[:, None]
        motion.spine[:, 1] += 0.15 * np.sin(beat)
        shuffle_feet(motion, times, rng, rng.uniform(0.8, 1.6))
    pair[1].hands[:, :, 0] *= -1
    pair[1].hands[:] = pair[1].hands[:, ::-1].copy()
    circle(pair, place, rng.uniform(-1.5, 1.5) * times + 0.3 * np.sin(beat / 2))
    return lively(pair, times, rng)


def talk(times: np.ndarray, place: Place, yaw: float, rng: np.random.Generator) -> Pair:
    """A conversation, from calm to lively."""
    pair = facing(len(times), place, yaw, rng.uniform(0.6, 1.2))
    for motion in pair:
        motion.yaw[:] += rng.normal(0, 0.35)
        if rng.random() < 0.75:
            actions.gesture(motion, times, rng, rng.uniform(0.05, 0.28))
    return lively(pair, times, rng, 1.5)


def walk_together(times: np.ndarray, place: Place, yaw: float, rng: np.random.Generator) -> Pair:
    """Side by side along one way, walking or running, sometimes arm in arm."""
    speed, gap = rng.choice([rng.uniform(0.8, 1.6), rng.uniform(2.2, 3.2)]), rng.uniform(0.45, 0.9)
    aside = np.array([np.cos(yaw), np.sin(yaw)]) * gap / 2
    seed = int(rng.integers(2**31))
    pair = []
    for sign in (-1, 1):
        same_way = np.random.default_rng(seed)
        motion = actions.travel(times, place, yaw, speed, same_way)
        motion.position[:] += sign * aside
        pair.append(motion)
    if gap < 0.6:
        pair[0].hands[:, 1] = [0.45, 0.0, -0.08]  # around the other's shoulder
    return pair[0], pair[1]


def catch(times: np.ndarray, place: Place, yaw: float, rng: np.random.Generator) -> Pair:
    """Throwing a ball (see `props`) to and fro over a few metres."""
    pair = facing(len(times), place, yaw, rng.uniform(1.6, 3.0))
    flight, hold = 0.5, 0.35
    for number in range(int(times[-1] / (flight + hold)) + 2):
        thrower, catcher = pair[number % 2], pair[(number + 1) % 2]
        at = number * (flight + hold)
        for moment, target in ((at - 0.18, [0.28, -0.15, 0.25]), (at, [0.1, 0.5, 0.12])):
            out = pulse(times, moment, 0.2)[:, None]
            thrower.hands[:, 1] += (np.array(target) - thrower.hands[:, 1]) * out
        ready = pulse(times, at + flight, 0.4)[:, None, None]
        catcher.hands[:] += (np.array([[-0.08, 0.42, -0.1], [0.08, 0.42, -0.1]]) - catcher.hands) * ready
    for motion in pair:
        shuffle_feet(motion, times, rng, rng.uniform(0.2, 0.8))
    return lively(pair, times, rng)


def help_up(times: np.ndarray, place: Place, yaw: float, rng: np.random.Generator) -> Pair:
    """One lies or sits on the ground, the other bends down and pulls him up."""
    pair = facing(len(times), place, yaw, 0.95)
    helper, lying = pair
    rise = step(times, rng.uniform(0.4, 0.8), rng.uniform(0.9, 1.3))
    down = 1 - rise
    lying.tilt[:, 0] -= rng.uniform(0.4, 1.2) * down
    actions.bend(lying, down, 0.45, 0.35)
    helper.spine[:, 0] += 0.25 + 0.6 * down
    actions.bend(helper, 0.4 + 0.6 * down, 0.15)
    for motion in pair:
        motion.hands[:, 1] = [0.0, 0.45, -0.35]
        motion.hands[:, 0] += (np.array([0.05, 0.4, -0.3]) - motion.hands[:, 0]) * down[:, None] * 0.8
    helper.hands[:, :, 2] -= 0.15 * down[:, None]
    return lively(pair, times, rng)


def strike(
    attacker: Motion, target: Motion, times: np.ndarray, at: float, distance: float, rng: np.random.Generator
) -> None:
    """One blow or kick at time `at` that meets the target, and the target's recoil."""
    force = rng.uniform(0.5, 1.0)
    side = int(rng.integers(2))
    if rng.random() < 0.28:
        actions.kick(attacker, times, at, side, distance + 0.05, rng.uniform(0.35, 1.15))
        head = 0.35
    else:
        actions.punch(attacker, times, at, side, distance + 0.02, rng.uniform(-0.12, 0.16))
        head = 1.0
    recoil = step(times, at - 0.02, 0.12) * (1 - step(times, at + 0.15, 0.4)) * force
    target.spine[:, 0] -= 0.45 * head * recoil
    target.spine[:, 0] += 0.6 * (1 - head) * recoil
    target.spine[:, 1] += rng.uniform(-0.35, 0.35) * recoil
    target.head[:, 0] -= 0.5 * head * recoil
    target.head[:, 1] += rng.uniform(-0.8, 0.8) * head * recoil
    away = np.stack([np.sin(target.yaw), -np.cos(target.yaw)], axis=1)
    target.position[:] += away * (0.22 * force * step(times, at, 0.25) * (1 - step(times, at + 0.35, 0.4)))[:, None]


def exchange(times: np.ndarray, place: Place, yaw: float, rng: np.random.Generator) -> Pair:
    """Blows and kicks from both, or from one at another who covers himself."""
    distance = rng.uniform(0.6, 0.8)
    pair = facing(len(times), place, yaw, distance + 0.12 * np.sin(2 * np.pi * rng.uniform(0.4, 0.9) * times))
    for motion in pair:
        actions.guard(motion, times, rng)
        shuffle_feet(motion, times, rng, rng.uniform(0.5, 1.3))
    _blows(pair, times, distance, rng, balance=rng.choice([0.5, 0.85]))
    circle(pair, place, actions.drift(times, rng, 0.4, 0.4))
    return lively(pair, times, rng)


def _blows(pair: Pair, times: np.ndarray, distance: float, rng: np.random.Generator, balance: float) -> None:
    at = rng.uniform(0.0, 0.35)
    while at < times[-1] + 0.1:
        first = rng.random() < balance
        attacker, target = pair if first else (pair[1], pair[0])
        strike(attacker, target, times, at, distance, rng)
        at += rng.uniform(0.28, 0.65)


def grapple(times: np.ndarray, place: Place, yaw: float, rng: np.random.Generator) -> Pair:
    """Holding each other, pulling and wrenching, with knees and short blows."""
    tug = np.sin(2 * np.pi * rng.uniform(0.8, 1.7) * times + rng.uniform(0, 6))
    pair = facing(len(times), place, yaw, rng.uniform(0.45, 0.6) + 0.06 * tug)
    for sign, motion in zip((1, -1), pair, strict=True):
        motion.hands[:] = np.array([[-0.17, 0.38, -0.04], [0.17, 0.38, -0.10]]) + rng.normal(0, 0.06, (2, 3))
        motion.hands[:, :, 0] += 0.10 * tug[:, None]
        motion.spine[:, 0] += rng.uniform(0.3, 0.7) + sign * 0.3 * tug
        motion.spine[:, 1] += actions.drift(times, rng, 0.3, 1.3)
        motion.spine[:, 2] += actions.drift(times, rng, 0.4, 1.3)
        motion.feet[:, :, 1] -= rng.uniform(0.1, 0.3)
        actions.bend(motion, np.ones(len(times)), 0.12)
        shuffle_feet(motion, times, rng, rng.uniform(1.0, 2.0))
        for at in rng.uniform(0, times[-1], 2):
            side = int(rng.integers(2))
            actions.kick(motion, times, float(at), side, 0.35, rng.uniform(0.6, 0.8))
            actions.punch(motion, times, float(rng.uniform(0, times[-1])), 1 - side, 0.48, -0.05)
    swing = actions.drift(times, rng, 0.9, 0.55)
    circle(pair, place, swing)
    slide = np.stack([actions.drift(times, rng, 0.3, 0.5), actions.drift(times, rng, 0.3, 0.5)], axis=1)
    for motion in pair:
        motion.position[:] += slide
    return lively(pair, times, rng)


def shove(times: np.ndarray, place: Place, yaw: float, rng: np.random.Generator) -> Pair:
    """Pushing hard with both hands, again and again; the other staggers, pushes or strikes back."""
    distance = 0.62
    pair = facing(len(times), place, yaw, distance)
    at, turn = rng.uniform(0.15, 0.45), 0
    for motion in pair:
        motion.hands[:] += (actions.GUARD - [0.0, 0.05, 0.12] - motion.hands) * 0.7
    while at < times[-1]:
        attacker, target = (pair[0], pair[1]) if turn % 3 < 2 else (pair[1], pair[0])
        out = pulse(times, at, 0.22)[:, None, None]
        attacker.hands[:] += (np.array([[-0.13, 0.56, -0.12], [0.13, 0.56, -0.12]]) - attacker.hands) * out
        attacker.spine[:, 0] += 0.4 * out[:, 0, 0]
        thrust = np.stack([-np.sin(attacker.yaw), np.cos(attacker.yaw)], axis=1)
        target.position[:] += thrust * (0.42 * step(times, at, 0.35))[:, None]
        target.spine[:, 0] -= 0.5 * pulse(times, at + 0.2, 0.3)
        target.hands[:, :, 2] += 0.3 * pulse(times, at + 0.25, 0.3)[:, None]
        attacker.position[:] += thrust * (0.42 * step(times, at + 0.25, 0.35))[:, None]
        at += rng.uniform(0.55, 0.8)
        turn += 1
        if rng.random() < 0.4:
            strike(attacker, target, times, at - 0.3, distance, rng)
    for motion in pair:
        shuffle_feet(motion, times, rng, rng.uniform(0.8, 1.6))
    return lively(pair, times, rng)


def knock_down(times: np.ndarray, place: Place, yaw: float, rng: np.random.Generator) -> Pair:
    """A fight in which one is beaten to the ground, and the beating goes on."""
    distance = rng.uniform(0.6, 0.75)
    pair = facing(len(times), place, yaw, distance)
    end = float(times[-1])
    begin = -2.0 if rng.random() < 0.4 else rng.uniform(0.2, 0.55) * end
    for motion in pair:
        actions.guard(motion, times, rng)
    before = times[times < begin]
    if len(before):
        strike(pair[0], pair[1], times, begin - rng.uniform(0.0, 0.1), distance, rng)
    actions.collapse(pair[1], times, begin, rng)
    cover = step(times, begin + 0.4, 0.4)[:, None, None]
    pair[1].hands[:] += (
        (np.array([[-0.08, 0.18, 0.08], [0.08, 0.18, 0.08]]) - pair[1].hands) * cover * rng.uniform(0.3, 1.0)
    )
    _beat_lying(pair[0], pair[1], times, begin + 0.5, rng)
    return lively(pair, times, rng)


def _beat_lying(attacker: Motion, target: Motion, times: np.ndarray, begin: float, rng: np.random.Generator) -> None:
    """Kicks at, or punches down on, somebody who lies on the ground."""
    stooped = rng.random() < 0.5
    over = step(times, begin - 0.3, 0.4)
    if stooped:
        actions.bend(attacker, over, 0.42, 0.02)
        attacker.spine[:, 0] += 0.75 * over
    at = max(begin, 0.1)
    while at < times[-1] + 0.1:
        side = int(rng.integers(2))
        if stooped:
            actions.punch(attacker, times, at, side, 0.35, -0.5)
        else:
            actions.kick(attacker, times, at, side, 0.62, rng.uniform(0.12, 0.4))
        jolt = pulse(times, at + 0.06, 0.18)
        target.spine[:, 0] += 0.35 * jolt
        target.feet[:, :, 2] += 0.15 * jolt[:, None]
        target.position[:] += np.outer(0.06 * jolt, [-np.sin(attacker.yaw[0]), np.cos(attacker.yaw[0])])
        at += rng.uniform(0.33, 0.6)


def choke(times: np.ndarray, place: Place, yaw: float, rng: np.random.Generator) -> Pair:
    """Holding the other from behind, or by the neck at arm's length, while he struggles."""
    behind = rng.random() < 0.5
    pair = facing(len(times), place, yaw, 0.36 if behind else 0.55)
    attacker, target = pair
    if behind:
        target.yaw[:] += np.pi
    attacker.hands[:] = [[0.05, 0.36, 0.0], [-0.05, 0.38, -0.02]] if behind else [[-0.07, 0.5, 0.06], [0.07, 0.5, 0.06]]
    struggle = rng.uniform(1.5, 2.5)
    for side, sign in ((0, -1), (1, 1)):
        target.hands[:, side] = [sign * 0.12, 0.12, -0.02]
        target.hands[:, side, 0] += sign * 0.15 * np.sin(2 * np.pi * struggle * times + side)
        target.hands[:, side, 2] += 0.15 * np.sin(2 * np.pi * struggle * times + 2 * side)
    target.spine[:, 0] += -0.3 + actions.drift(times, rng, 0.35, 1.4)
    target.spine[:, 1] += actions.drift(times, rng, 0.4, 1.4)
    attacker.spine[:, 1] += actions.drift(times, rng, 0.25, 1.2)
    for motion in pair:
        shuffle_feet(motion, times, rng, rng.uniform(1.2, 2.2))
        actions.bend(motion, np.ones(len(times)), 0.08)
    circle(pair, place, actions.drift(times, rng, 0.8, 0.5))
    return lively(pair, times, rng)


PEACEFUL: dict[str, tuple[Interaction, float]] = {
    "hug": (hug, 1.3),
    "handshake": (handshake, 0.9),
    "high_five": (high_five, 1.8),
    "dance_together": (dance_together, 2.2),
    "talk": (talk, 1.1),
    "walk_together": (walk_together, 1.0),
    "catch": (catch, 0.8),
    "help_up": (help_up, 0.8),
}

VIOLENT: dict[str, tuple[Interaction, float]] = {
    "exchange": (exchange, 2.2),
    "grapple": (grapple, 1.6),
    "shove": (shove, 1.2),
    "knock_down": (knock_down, 1.8),
    "choke": (choke, 0.8),
}
