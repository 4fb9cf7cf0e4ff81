"""What one person alone does: walking, running, sitting, dancing, exercising, falling, ...

An action takes the times of the frames (F,) in seconds, where it starts, and a random generator, and returns a Motion.
Whatever is not a fight must still be lively: several of these move as fast and reach as far as a fighter does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from violence_ops.synthetic.body import LEG, Motion, standing

Place = tuple[float, float]
Action = Callable[[np.ndarray, Place, float, np.random.Generator], Motion]
GUARD = np.array([[-0.13, 0.27, -0.08], [0.15, 0.24, -0.10]])


def pulse(times: np.ndarray, centre: float, width: float) -> np.ndarray:
    """(F,) smooth bump of height 1 at `centre`, zero beyond `width` on either side, s."""
    distance = np.clip(np.abs(times - centre) / width, 0.0, 1.0)
    return 0.5 + 0.5 * np.cos(np.pi * distance)


def step(times: np.ndarray, start: float, duration: float) -> np.ndarray:
    """(F,) smooth rise from 0 before `start` to 1 after `start + duration`."""
    share = np.clip((times - start) / duration, 0.0, 1.0)
    return share * share * (3.0 - 2.0 * share)


def drift(times: np.ndarray, rng: np.random.Generator, size: float, rate: float = 0.5) -> np.ndarray:
    """(F,) slow random sway of about `size`, with changes `rate` times a second."""
    phases = rng.uniform(0.0, 2 * np.pi, 3)
    speeds = rate * rng.uniform(0.5, 1.6, 3)
    waves = np.sin(2 * np.pi * speeds[:, None] * times[None] + phases[:, None])
    return np.asarray(size * waves.sum(axis=0) / 2.0)


def alive(motion: Motion, times: np.ndarray, rng: np.random.Generator, amount: float = 1.0) -> Motion:
    """Add the small movements that nobody is without: breathing, weight shifts, glances."""
    motion.spine[:, 0] += drift(times, rng, 0.03 * amount)
    motion.spine[:, 1] += drift(times, rng, 0.03 * amount)
    motion.spine[:, 2] += drift(times, rng, 0.05 * amount)
    motion.head[:, 0] += rng.normal(0.08, 0.12) + drift(times, rng, 0.08 * amount)
    motion.head[:, 1] += rng.normal(0.0, 0.25) + drift(times, rng, 0.25 * amount)
    for side in (0, 1):
        for axis in range(3):
            motion.hands[:, side, axis] += drift(times, rng, 0.02 * amount)
    motion.feet[:, :, 0] += np.array([-1.0, 1.0]) * abs(rng.normal(0.0, 0.04))
    motion.feet[:, :, 1] += rng.normal(0.0, 0.05, 2)
    return motion


def gait(motion: Motion, times: np.ndarray, speed: np.ndarray, rng: np.random.Generator) -> Motion:
    """Legs and arms of someone moving forward at `speed` (F,) m/s; does not move the position."""
    pace = np.maximum(speed, 0.0)
    rate = np.where(pace > 0.1, 0.62 + 0.26 * pace, 0.0)
    steps = np.diff(times, prepend=times[0])
    phase = 2 * np.pi * np.cumsum(rate * steps) + rng.uniform(0, 2 * np.pi)
    stride = np.minimum(0.24 * pace / np.maximum(rate, 0.2), 0.42)
    running = np.clip((pace - 1.9) / 1.0, 0.0, 1.0)
    for side, shift in ((0, 0.0), (1, np.pi)):
        swing, raise_ = np.sin(phase + shift), np.maximum(np.cos(phase + shift), 0.0)
        motion.feet[:, side, 1] += stride * swing
        motion.feet[:, side, 2] += raise_ * (0.06 + 0.05 * pace + 0.1 * running) * np.minimum(pace, 1.0)
        motion.feet[:, side, 2] += 0.04 * np.minimum(pace, 1.0)
        arm = -swing * np.minimum(0.12 + 0.10 * pace, 0.34)
        motion.hands[:, side, 1] += arm * np.minimum(pace, 1.0) + 0.18 * running
        motion.hands[:, side, 2] += 0.25 * running + 0.12 * np.abs(swing) * running
    motion.spine[:, 0] += 0.04 * pace + 0.05 * running
    motion.spine[:, 2] += 0.10 * np.sin(phase) * np.minimum(pace, 1.0)
    motion.lift[:] += 0.05 * running * np.abs(np.sin(phase))
    return motion


def travel(times: np.ndarray, start: Place, yaw: float, speed: float, rng: np.random.Generator) -> Motion:
    """Someone going along a gently bent path at `speed` m/s."""
    motion = standing(len(times), start, yaw)
    pace = speed * (1.0 + drift(times, rng, 0.12))
    motion.yaw[:] += drift(times, rng, 0.3, 0.2)
    heading = np.stack([-np.sin(motion.yaw), np.cos(motion.yaw)], axis=1)
    steps = np.diff(times, prepend=times[0])
    motion.position[:] += np.cumsum(heading * (pace * steps)[:, None], axis=0)
    return alive(gait(motion, times, pace, rng), times, rng, 0.7)


def walk(times: np.ndarray, start: Place, yaw: float, rng: np.random.Generator) -> Motion:
    """Walking at 0.7 to 1.7 m/s, sometimes with a hand in use."""
    motion = travel(times, start, yaw, rng.uniform(0.7, 1.7), rng)
    if rng.random() < 0.3:
        _hold(motion, int(rng.integers(2)), rng)
    return motion


def run(times: np.ndarray, start: Place, yaw: float, rng: np.random.Generator) -> Motion:
    """Running at 2.2 to 3.8 m/s, starting behind so that the run passes the place."""
    speed = rng.uniform(2.2, 3.8)
    back = 0.5 * speed * float(times[-1])
    origin = (start[0] + np.sin(yaw) * back, start[1] - np.cos(yaw) * back)
    return travel(times, origin, yaw, speed, rng)


def _hold(motion: Motion, side: int, rng: np.random.Generator) -> None:
    """One hand holds something before the chest or at the ear."""
    sign = 2 * side - 1
    target = [sign * 0.12, 0.16, 0.12] if rng.random() < 0.3 else [sign * 0.08, 0.28, -0.18 + rng.normal(0, 0.05)]
    motion.hands[:, side] = target


def stand(times: np.ndarray, start: Place, yaw: float, rng: np.random.Generator) -> Motion:
    """Standing: hanging arms, crossed arms, hands on the hips, a telephone, or gestures."""
    motion = standing(len(times), start, yaw)
    pose = rng.integers(6)
    if pose == 1:
        motion.hands[:] = [[0.12, 0.20, -0.24], [-0.12, 0.22, -0.22]]
    elif pose == 2:
        motion.hands[:] = [[-0.20, 0.03, -0.42], [0.20, 0.03, -0.42]]
    elif pose == 3:
        _hold(motion, int(rng.integers(2)), rng)
        motion.head[:, 0] += 0.3
    elif pose >= 4:
        gesture(motion, times, rng, rng.uniform(0.05, 0.16))
    return alive(motion, times, rng, 1.4)


def gesture(motion: Motion, times: np.ndarray, rng: np.random.Generator, size: float) -> Motion:
    """Talk with the hands."""
    for side, sign in ((0, -1), (1, 1)):
        motion.hands[:, side] = [sign * 0.2, 0.27, -0.28 + rng.normal(0, 0.05)]
        for axis in range(3):
            motion.hands[:, side, axis] += drift(times, rng, size, rng.uniform(0.8, 2.0))
    return motion


def wave(times: np.ndarray, start: Place, yaw: float, rng: np.random.Generator) -> Motion:
    """Waving with one raised arm."""
    motion = standing(len(times), start, yaw)
    side = int(rng.integers(2))
    sign = 2 * side - 1
    up = step(times, rng.uniform(-0.5, 0.4), 0.4)[:, None]
    target = np.array([sign * 0.35, 0.1, 0.4]) + np.stack(
        [0.14 * np.sin(2 * np.pi * rng.uniform(1.2, 2.2) * times), np.zeros_like(times), np.zeros_like(times)], axis=1
    )
    motion.hands[:, side] = motion.hands[:, side] * (1 - up) + target * up
    return alive(motion, times, rng)


def sit(times: np.ndarray, start: Place, yaw: float, rng: np.random.Generator) -> Motion:
    """Sitting on a stool (see `props`), or sitting down during the clip."""
    motion = standing(len(times), start, yaw)
    down = step(times, rng.uniform(0.2, 1.0), 0.8) if rng.random() < 0.35 else np.ones(len(times))
    bend(motion, down, 0.40, 0.40)
    motion.spine[:, 0] += 0.6 * np.sin(np.pi * down) + rng.uniform(-0.1, 0.35) * down
    lap = np.array([[-0.14, 0.36, -0.42], [0.14, 0.36, -0.42]])
    motion.hands[:] += (lap - motion.hands) * down[:, None, None]
    return alive(motion, times, rng)


def bend(motion: Motion, amount: np.ndarray, drop: float, forward: float = 0.0) -> Motion:
    """Bend the knees: the pelvis comes down by `drop` m and the feet go `forward` m ahead of it, times `amount` (F,)."""
    motion.feet[:, :, 2] += drop * amount[:, None]
    motion.feet[:, :, 1] += forward * amount[:, None]
    return motion


def pick_up(times: np.ndarray, start: Place, yaw: float, rng: np.random.Generator) -> Motion:
    """Bending down to the ground and up again, once or repeatedly."""
    motion = standing(len(times), start, yaw)
    down = 0.5 - 0.5 * np.cos(2 * np.pi * rng.uniform(0.35, 0.7) * times + rng.uniform(0, 2 * np.pi))
    bend(motion, down, rng.uniform(0.1, 0.45), 0.05)
    motion.spine[:, 0] += rng.uniform(0.7, 1.3) * down
    motion.hands[:, :, 1] += 0.22 * down[:, None]
    return alive(motion, times, rng)


def fall(times: np.ndarray, start: Place, yaw: float, rng: np.random.Generator) -> Motion:
    """Stumbling and falling alone; sometimes lying from the beginning."""
    motion = standing(len(times), start, yaw)
    begin = -2.0 if rng.random() < 0.2 else rng.uniform(0.1, 0.6) * float(times[-1])
    collapse(motion, times, begin, rng)
    return alive(motion, times, rng)


def collapse(motion: Motion, times: np.ndarray, begin: float, rng: np.random.Generator) -> Motion:
    """From `begin` (s) on, go to the ground within about 0.6 s and stay there, on the back, the front or a side."""
    down = step(times, begin, rng.uniform(0.45, 0.8))
    direction = rng.uniform(0, 2 * np.pi)
    motion.tilt[:, 0] += 1.5 * np.cos(direction) * down
    motion.tilt[:, 1] += 1.5 * np.sin(direction) * down
    knees = rng.uniform(0.02, 0.4, 2)
    motion.feet[:, :, 2] += down[:, None] * knees
    motion.feet[:, :, 1] += down[:, None] * knees * rng.uniform(0.2, 0.8, 2)
    spread = np.array([[-0.4, 0.15, 0.0], [0.4, 0.15, 0.0]]) + rng.normal(0, 0.2, (2, 3))
    flail = pulse(times, begin + 0.25, 0.4)[:, None, None]
    motion.hands[:] += (spread - motion.hands) * np.clip(0.7 * down[:, None, None] + 0.6 * flail, 0, 1)
    motion.spine[:, 0] += rng.uniform(-0.1, 0.6) * down
    return motion


def jumping_jack(times: np.ndarray, start: Place, yaw: float, rng: np.random.Generator) -> Motion:
    """Jumping jacks or jumps with the arms swinging."""
    motion = standing(len(times), start, yaw)
    phase = 2 * np.pi * rng.uniform(0.9, 1.6) * times + rng.uniform(0, 2 * np.pi)
    open_ = 0.5 - 0.5 * np.cos(phase)
    for side, sign in ((0, -1), (1, 1)):
        motion.hands[:, side, 0] = sign * (0.2 + 0.45 * np.sin(np.pi * open_))
        motion.hands[:, side, 2] = -0.5 + 1.0 * open_
        motion.feet[:, side, 0] += sign * 0.22 * open_
    motion.lift[:] = 0.14 * np.abs(np.sin(phase))
    return alive(motion, times, rng)


def dance(times: np.ndarray, start: Place, yaw: float, rng: np.random.Generator) -> Motion:
    """Dancing alone: steps, turns, arms in the air."""
    motion = standing(len(times), start, yaw)
    beat = 2 * np.pi * rng.uniform(0.9, 1.5) * times
    motion.yaw[:] += rng.uniform(0.3, 1.2) * np.sin(beat / 2) + rng.uniform(-1.0, 1.0) * times
    motion.position[:, 0] += 0.15 * np.sin(beat / 2 + 1.0)
    motion.spine[:, 1] += 0.22 * np.sin(beat)
    bend(motion, 0.5 + 0.5 * np.sin(2 * beat), 0.12)
    for side, sign in ((0, -1), (1, 1)):
        motion.feet[:, side, 2] += 0.12 * np.maximum(np.sin(beat + np.pi * side), 0.0)
        high = rng.uniform(-0.3, 0.35)
        motion.hands[:, side] = [sign * 0.38, 0.22, high]
        motion.hands[:, side, 0] += rng.uniform(0.05, 0.2) * np.sin(beat + rng.uniform(0, 6))
        motion.hands[:, side, 2] += rng.uniform(0.1, 0.3) * np.sin(beat + rng.uniform(0, 6))
    return alive(motion, times, rng)


def exercise_punches(times: np.ndarray, start: Place, yaw: float, rng: np.random.Generator) -> Motion:
    """Boxing training: combinations in the air or at a bag (see `props`), at the speed of real punches."""
    motion = standing(len(times), start, yaw)
    guard(motion, times, rng)
    at, side = rng.uniform(0.0, 0.3), int(rng.integers(2))
    while at < times[-1] + 0.2:
        punch(motion, times, at, side, 0.62, rng.normal(-0.02, 0.06))
        at += rng.uniform(0.28, 0.6)
        side = 1 - side
    return alive(motion, times, rng)


def guard(motion: Motion, times: np.ndarray, rng: np.random.Generator) -> Motion:
    """A fighter's stance: hands before the face, knees bent, one foot ahead, light footwork."""
    motion.hands[:] = GUARD + rng.normal(0, 0.03, (2, 3))
    lead = 1 if rng.random() < 0.3 else -1
    motion.feet[:, 0, 1] += 0.17 * -lead
    motion.feet[:, 1, 1] += 0.17 * lead
    motion.feet[:, :, 0] += [-0.07, 0.07]
    bend(motion, 0.6 + 0.4 * np.sin(2 * np.pi * 1.5 * times + rng.uniform(0, 6)), 0.1)
    motion.spine[:, 0] += 0.18
    motion.spine[:, 2] += 0.25 * lead
    return motion


def punch(motion: Motion, times: np.ndarray, at: float, side: int, reach: float, height: float) -> Motion:
    """One straight punch that lands at time `at`, `reach` m before the neck's base and `height` m above it."""
    out = pulse(times, at, 0.17)[:, None]
    sign = 2 * side - 1
    target = np.array([-0.03 * sign, reach, height])
    motion.hands[:, side] += (target - motion.hands[:, side]) * out
    motion.spine[:, 2] += 0.45 * sign * out[:, 0]
    motion.spine[:, 0] += 0.12 * out[:, 0]
    return motion


def kick(motion: Motion, times: np.ndarray, at: float, side: int, reach: float, height: float) -> Motion:
    """One kick that lands at time `at`, `reach` m ahead, `height` m above the ground."""
    out = pulse(times, at, 0.26)[:, None]
    target = np.array([0.0, reach, height - LEG - 0.02])
    motion.feet[:, side] += (target - motion.feet[:, side]) * out
    motion.spine[:, 0] -= 0.30 * out[:, 0]
    motion.hands[:, 1 - side, 0] += (1 - 2 * side) * 0.2 * out[:, 0]
    return motion


def kick_ball(times: np.ndarray, start: Place, yaw: float, rng: np.random.Generator) -> Motion:
    """Kicking at a ball on the ground, after a short run-up."""
    motion = standing(len(times), start, yaw)
    at = rng.uniform(0.35, 0.8) * float(times[-1])
    pace = 2.0 * step(times, at - 0.9, 0.3) * (1 - step(times, at - 0.1, 0.4))
    steps = np.diff(times, prepend=times[0])
    motion.position[:] += np.outer(np.cumsum(pace * steps), [-np.sin(yaw), np.cos(yaw)])
    gait(motion, times, pace, rng)
    kick(motion, times, at, int(rng.integers(2)), rng.uniform(0.5, 0.7), rng.uniform(0.15, 0.5))
    return alive(motion, times, rng)


SOLO: dict[str, tuple[Action, float]] = {
    "walk": (walk, 3.0),
    "stand": (stand, 3.0),
    "run": (run, 1.2),
    "sit": (sit, 1.0),
    "wave": (wave, 0.6),
    "pick_up": (pick_up, 0.8),
    "fall": (fall, 0.8),
    "jumping_jack": (jumping_jack, 0.7),
    "dance": (dance, 1.0),
    "exercise_punches": (exercise_punches, 1.0),
    "kick_ball": (kick_ball, 0.6),
}
