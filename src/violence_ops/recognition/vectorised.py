"""MMAction2's skeleton pipelines over a whole mini-batch at once: the same numbers, one NumPy call where it has one a window.

A pipeline is read from the family's configuration, so that MMAction2 and this file follow the same lines of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from violence_ops.recognition.skeleton import Skeleton
from violence_ops.records import FloatArray

_BONES = np.array([0, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 0, 0, 11, 12, 13, 14])
"""The joint that each joint's bone begins at, as in MMAction2's `JointToBone` for COCO."""
_MARGIN = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """W windows of K persons, T frames at most.

    keypoints `(W, K, T, 17, 2)`, scores `(W, K, T, 17)`, sizes `(W, 2)` height and width of the picture, lengths `(W,)`: the
    frames of each window, the rest is zero. Once features are made, `features` `(W, K, T, 17, C)`.
    """

    keypoints: FloatArray
    scores: FloatArray
    sizes: NDArray[np.float64]
    lengths: NDArray[np.int64]
    features: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))

    def __len__(self) -> int:
        return len(self.keypoints)

    def __getitem__(self, chosen: NDArray[np.int64]) -> Sight:
        return Sight(
            keypoints=self.keypoints[chosen], scores=self.scores[chosen], sizes=self.sizes[chosen], lengths=self.lengths[chosen]
        )  # fmt: skip


Piece = tuple[FloatArray, FloatArray, tuple[int, int]]
Step = Callable[[Sight, np.random.Generator], Sight]


class Vectorised:
    """A pipeline for many windows at once. `split` is where chance begins: what comes before is done once for all epochs."""

    def __init__(self, steps: Sequence[Step], split: int) -> None:
        self._before, self._after = steps[:split], steps[split:]

    def prepare(self, windows: Sight) -> Sight:
        """The steps without chance that a training has to do only once."""
        for step in self._before:
            windows = step(windows, NO_CHANCE)
        return windows

    def inputs(self, prepared: Sight, chance: np.random.Generator) -> FloatArray:
        """The network's input `(W, 1, K, T, 17, C)` of windows that `prepare` gave."""
        for step in self._after:
            prepared = step(prepared, chance)
        return prepared.features[:, None]


def read(pipeline: Sequence[Mapping[str, Any]]) -> Vectorised | None:
    """The pipeline of a configuration, or None if a step of it is not known here: then MMAction2 itself must run it."""
    if any(step["type"] not in _STEPS for step in pipeline):
        return None
    chance = [number for number, step in enumerate(pipeline) if step["type"] in _RANDOM and not step.get("test_mode")]
    made = [_STEPS[step["type"]](**{k: v for k, v in step.items() if k != "type"}) for step in pipeline]
    return Vectorised(made, chance[0] if chance else 0)


def piece(skeleton: Skeleton, start: int, end: int) -> Piece:
    """The frames `[start, end)` of a clip."""
    size = (skeleton.height, skeleton.width)
    return skeleton.keypoints[:, start:end], skeleton.keypoint_scores[:, start:end], size


def gathered(pieces: Sequence[Piece]) -> Sight:
    """Windows of keypoints `(K, T, 17, 2)`, scores `(K, T, 17)` and picture `(height, width)`, each of its own T."""
    lengths = np.array([keypoints.shape[1] for keypoints, _, _ in pieces])
    persons, joints = pieces[0][0].shape[0], pieces[0][0].shape[2]
    keypoints = np.zeros((len(pieces), persons, int(lengths.max()), joints, 2), np.float32)
    scores = np.zeros(keypoints.shape[:-1], np.float32)
    for row, (points, seen, _) in enumerate(pieces):
        keypoints[row, :, : points.shape[1]] = points
        scores[row, :, : points.shape[1]] = seen
    return Sight(
        keypoints=keypoints, scores=scores, sizes=np.array([size for *_, size in pieces], float), lengths=lengths
    )


def _crop_to_persons() -> Step:
    def step(windows: Sight, chance: np.random.Generator) -> Sight:
        seen = (windows.scores > 0).reshape(len(windows), 1, -1)
        # x and y in rows of their own: NumPy is slow over a last axis of two
        points = windows.keypoints.reshape(len(windows), -1, 2).transpose(0, 2, 1).copy()
        there = np.asarray(seen.any(axis=(1, 2)))
        low = np.where(there[:, None], points.min(axis=2, where=seen, initial=np.inf), np.float32(0))
        high = np.where(there[:, None], points.max(axis=2, where=seen, initial=-np.inf), np.float32(0))
        side = np.maximum((high - low).max(axis=1).astype(np.float64), 1.0) * _MARGIN
        corner = np.where(there[:, None], (low + high) / 2 - (side / 2).astype(np.float32)[:, None], 0)
        sizes = np.where(there[:, None], side[:, None], windows.sizes)
        return replace(
            windows, keypoints=windows.keypoints - corner[:, None, None, None].astype(np.float32), sizes=sizes
        )

    return step


def _flip(flip_ratio: float, left_kp: Sequence[int], right_kp: Sequence[int]) -> Step:
    order = np.arange(17)
    order[[*left_kp, *right_kp]] = [*right_kp, *left_kp]

    def step(windows: Sight, chance: np.random.Generator) -> Sight:
        chosen = np.flatnonzero(chance.random(len(windows)) < flip_ratio)
        keypoints, scores = windows.keypoints.copy(), windows.scores.copy()
        turned = keypoints[chosen]
        x = turned[..., 0]
        width = windows.sizes[chosen, 1].astype(np.float32)[:, None, None, None]
        turned[..., 0] = np.where(x != 0, width - x, x)
        keypoints[chosen], scores[chosen] = turned[..., order, :], scores[chosen][..., order]
        return replace(windows, keypoints=keypoints, scores=scores)

    return step


def _pre_normalize() -> Step:
    def step(windows: Sight, chance: np.random.Generator) -> Sight:
        half = (windows.sizes[:, ::-1] / 2).astype(np.float32)[:, None, None, None]
        return replace(windows, keypoints=(windows.keypoints - half) / half)

    return step


def _rotate_scale(degrees: float, scale: float) -> Step:
    radians = math.radians(degrees)

    def step(windows: Sight, chance: np.random.Generator) -> Sight:
        angle = chance.uniform(-radians, radians, len(windows))
        factor = 1 + chance.uniform(-scale, scale, len(windows))
        turn = factor * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        turned = windows.keypoints.reshape(len(windows), -1, 2) @ turn.transpose(2, 0, 1).astype(np.float32)
        return replace(windows, keypoints=turned.reshape(windows.keypoints.shape))

    return step


def _zero_missing() -> Step:
    def step(windows: Sight, chance: np.random.Generator) -> Sight:
        return replace(windows, keypoints=np.where(windows.scores[..., None] > 0, windows.keypoints, np.float32(0)))

    return step


def _features(dataset: str, feats: Sequence[str]) -> Step:
    if dataset != "coco":
        raise ValueError(f"GenSkeFeat's dataset is {dataset!r}, not 'coco'")

    def step(windows: Sight, chance: np.random.Generator) -> Sight:
        made = {"j": np.concatenate([windows.keypoints, windows.scores[..., None]], axis=-1)}
        if {"b", "bm"} & set(feats):
            joints, starts = made["j"], made["j"][..., _BONES, :]
            made["b"] = joints - starts
            made["b"][..., 2] = (joints[..., 2] + starts[..., 2]) / 2
        for name in ("jm", "bm"):
            if name in feats:
                made[name] = _motion(made[name[0]], windows.lengths)
        return replace(windows, features=np.concatenate([made[name] for name in feats], axis=-1))

    return step


def _motion(values: FloatArray, lengths: NDArray[np.int64]) -> FloatArray:
    """To the next frame `(W, K, T, 17, 3)`, with the mean score of both; zero in the last frame of a window."""
    motion = np.zeros_like(values)
    before, after = values[:, :, :-1], values[:, :, 1:]
    np.subtract(after, before, out=motion[:, :, :-1])
    motion[:, :, :-1, :, 2] = (before[..., 2] + after[..., 2]) / 2
    rows = np.flatnonzero(lengths < values.shape[2])
    motion[rows, :, lengths[rows] - 1] = 0
    return motion


def _sample(clip_len: int, num_clips: int = 1, test_mode: bool = False, seed: int = 255) -> Step:
    if num_clips != 1:
        raise ValueError(f"UniformSampleFrames has num_clips {num_clips}, not 1")

    def step(windows: Sight, chance: np.random.Generator) -> Sight:
        lengths = windows.lengths
        if (lengths == clip_len).all():
            return replace(windows, features=windows.features[:, :, :clip_len])
        if test_mode:
            known = {n: _frames(int(n), clip_len, np.random.RandomState(seed), True) for n in np.unique(lengths)}
            frames = np.stack([known[n] for n in lengths])
        else:
            random = np.random.RandomState(int(chance.integers(2**31)))
            frames = np.stack([_frames(int(n), clip_len, random, False) for n in lengths])
        rows = np.arange(len(windows))[:, None]
        return replace(
            windows, features=windows.features.transpose(0, 2, 1, 3, 4)[rows, frames].transpose(0, 2, 1, 3, 4)
        )

    return step


def _frames(length: int, clip_len: int, random: np.random.RandomState, test_mode: bool) -> NDArray[np.int64]:
    """Which `clip_len` of `length` frames: MMAction2's `UniformSampleFrames`, with its draws from its generator."""
    if length < clip_len:
        start = 0 if test_mode else random.randint(0, length)
        return np.arange(start, start + clip_len) % length
    if length < 2 * clip_len:
        skipped = np.zeros(clip_len + 1, np.int64)
        skipped[random.choice(clip_len + 1, length - clip_len, replace=False)] = 1
        return (np.arange(clip_len) + np.cumsum(skipped)[:-1]) % length
    edges = np.arange(clip_len + 1) * length // clip_len
    return (edges[:-1] + random.randint(np.diff(edges))) % length


def _format(num_person: int) -> Step:
    def step(windows: Sight, chance: np.random.Generator) -> Sight:
        features = windows.features[:, :num_person]
        missing = num_person - features.shape[1]
        if missing > 0:
            features = np.pad(features, ((0, 0), (0, missing), (0, 0), (0, 0), (0, 0)))
        return replace(windows, features=np.ascontiguousarray(features))

    return step


def _nothing() -> Step:
    return lambda windows, chance: windows


NO_CHANCE = np.random.default_rng(0)
"""For pipelines without chance."""
_RANDOM = {"Flip", "RandomRotateScale", "UniformSampleFrames"}
_STEPS: dict[str, Callable[..., Step]] = {
    "CropToPersons": _crop_to_persons, "Flip": _flip, "PreNormalize2D": _pre_normalize, "RandomRotateScale": _rotate_scale,
    "ZeroMissing": _zero_missing, "GenSkeFeat": _features, "UniformSampleFrames": _sample, "PoseDecode": _nothing,
    "FormatGCNInput": _format, "PackActionInputs": _nothing,
}  # fmt: skip
