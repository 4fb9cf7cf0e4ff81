"""What hands, bodies and pairs of people do in a window, as numbers: the input of classifiers that need few clips.

All lengths are in units of the person's own size (of two persons: their mean), all speeds per frame, angles in radians. Nothing
depends on where in the picture the people are, on its resolution, or on left and right.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from violence_ops.records import HEAD, LIMBS, TRUNK, FloatArray

Floats = NDArray[np.float64]

_SHOULDERS: Final = [5, 6]
_HANDS: Final = [9, 10]
_HIPS: Final = [11, 12]
_FEET: Final = [15, 16]
_MIN_TOGETHER: Final = 3  # frames: two persons seen together for fewer are no pair
_CLOSE, _OVERLAPPING = 0.8, 0.15
_REACH: Final = 1.5  # sizes; how fast limbs are counts less the farther apart two persons are, and nothing from here on

_STATISTICS: Final[dict[str, Callable[[Floats], Any]]] = {
    "mean": np.mean, "max": np.max, "min": np.min, "std": np.std,
    "low": lambda values: np.quantile(values, 0.1), "high": lambda values: np.quantile(values, 0.9),
}  # fmt: skip


def features(keypoints: FloatArray, scores: FloatArray) -> dict[str, float]:
    """The features of a window by name, always the same names in the same order.

    keypoints `(K, T, 17, 2)` px, most involved person first; scores `(K, T, 17)`, 0 where a joint was not seen. What cannot be
    said because nobody, or no pair, is there is -1.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # means of joints that were never seen: no number, dropped later
        people = [_Person.of(*both) for both in zip(keypoints, scores, strict=True) if both[1].any()]
        persons = [_of_person(person) for person in people]
        pairs = [_of_pair(a, b) for a, b in combinations(people, 2) if (a.present & b.present).sum() >= _MIN_TOGETHER]
    found = _joined("person", persons, _PERSON_NAMES, first_two=True)
    found |= _joined("pair", pairs, _PAIR_NAMES, first_two=False)
    found["people"] = float(scores.any(axis=2).sum(axis=0).mean())
    found["close_pairs"] = float(sum(pair["distance_mean"] < _CLOSE for pair in pairs))
    found["overlapping_pairs"] = float(sum(pair["overlap_mean"] > _OVERLAPPING for pair in pairs))
    return found


def _joined(kind: str, rows: list[dict[str, float]], names: tuple[str, ...], *, first_two: bool) -> dict[str, float]:
    """Of each number: that of the first person or pair, the mean, the largest, and another of them all."""
    found = {}
    for name in names:
        values = np.array([row[name] for row in rows] or [-1.0])
        found[f"{kind}_{name}_first"] = float(values[0])
        found[f"{kind}_{name}_mean"] = float(values.mean())
        found[f"{kind}_{name}_largest"] = float(values.max())
        if first_two:
            found[f"{kind}_{name}_two"] = float(values[:2].mean())
        else:
            found[f"{kind}_{name}_least"] = float(values.min())
    return found


@dataclass(frozen=True, slots=True)
class _Person:
    """One person over T frames; no number where not seen. Points `(T, 2)` px, velocities `(T - 1, ..., 2)` in sizes a frame."""

    joints: Floats
    scores: FloatArray
    present: NDArray[np.bool_]
    low: Floats
    high: Floats
    size: float
    centre: Floats
    head: Floats
    shoulders: Floats
    hips: Floats
    velocity: Floats
    drift: Floats

    @classmethod
    def of(cls, keypoints: FloatArray, scores: FloatArray) -> _Person:
        joints = np.where((scores > 0)[..., None], keypoints, np.nan).astype(np.float64)
        low, high = np.nanmin(joints, axis=1), np.nanmax(joints, axis=1)
        size = max(float(np.nanmedian((high - low).max(axis=-1))), 1.0)
        centre = _or(np.nanmean(joints[:, TRUNK], axis=1), (low + high) / 2)
        shoulders = np.nanmean(joints[:, _SHOULDERS], axis=1)
        head = _or(np.nanmean(joints[:, HEAD], axis=1), shoulders)
        return cls(
            joints, scores, np.asarray(scores.any(axis=1)), low, high, size, centre, head, shoulders,
            np.nanmean(joints[:, _HIPS], axis=1), np.diff(joints, axis=0) / size, np.diff(centre, axis=0) / size,
        )  # fmt: skip


def _of_person(one: _Person) -> dict[str, float]:
    sides = one.high - one.low
    upright = one.shoulders - one.hips
    tilt = np.arctan2(np.abs(upright[:, 0]), -upright[:, 1])
    limbs = one.velocity - one.drift[:, None]
    speed = np.linalg.norm(limbs, axis=-1)
    hands = one.joints[:, _HANDS]
    numbers = {
        "drift": _norm(one.drift), "hand_speed": speed[:, _HANDS], "foot_speed": speed[:, _FEET],
        "head_speed": speed[:, HEAD], "speed": speed, "jerk": _norm(np.diff(limbs, axis=0)),
        "tilt": tilt, "tilt_rate": np.diff(tilt), "aspect": sides[:, 0] / np.maximum(sides[:, 1], 1.0),
        "growth": np.diff(np.log(np.maximum(sides, 1.0)), axis=0),
        "hand_height": (one.shoulders[:, None] - hands)[..., 1] / one.size,
        "hand_reach": _norm(hands - one.shoulders[:, None]) / one.size, "score": one.scores[one.scores > 0],
    }  # fmt: skip
    return dict(_described(numbers, _OF_PERSON)) | {"presence": float(one.present.mean())}


def _of_pair(a: _Person, b: _Person) -> dict[str, float]:
    size = (a.size + b.size) / 2
    distance = _norm(a.centre - b.centre) / size
    shared = np.clip(np.minimum(a.high, b.high) - np.maximum(a.low, b.low), 0, None).prod(axis=-1)
    areas = (a.high - a.low).prod(axis=-1) + (b.high - b.low).prod(axis=-1)
    fastest = np.fmax(*(np.nanmax(_norm(one.velocity[:, LIMBS]), axis=1) for one in (a, b)))
    head_height = (a.head - b.head)[:, 1] / size
    together = (a.drift * b.drift).sum(axis=-1) / np.maximum(_norm(a.drift) * _norm(b.drift), 1e-4)
    numbers = {
        "distance": distance, "approach": np.diff(distance), "approach_speed": np.abs(np.diff(distance)),
        "overlap": shared / np.maximum(areas - shared, 1.0), "close_speed": fastest * np.clip(_REACH - distance[1:], 0, 1),
        "head_height": head_height, "head_height_apart": np.abs(head_height),
        "drift_apart": _norm(a.drift - b.drift), "drift_together": together,
    }  # fmt: skip
    for limb, joints in (("hand", _HANDS), ("foot", _FEET)):
        for target in ("head", "centre"):
            numbers[f"{limb}_to_{target}"] = np.fmin(_gap(a, b, joints, target), _gap(b, a, joints, target)) / size
    alike = {"size_ratio": abs(float(np.log(a.size / b.size))), "together": float((a.present & b.present).mean())}
    return dict(_described(numbers, _OF_PAIR)) | alike


def _gap(one: _Person, other: _Person, joints: list[int], target: str) -> Floats:
    """How far the nearer limb of one is from the other's head or centre, `(T,)` px."""
    return np.asarray(np.nanmin(_norm(one.joints[:, joints] - getattr(other, target)[:, None]), axis=1))


def _described(numbers: dict[str, Any], wanted: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, float]]:
    for name, statistics in wanted.items():
        values = np.asarray(numbers[name], np.float64).ravel()
        values = values[np.isfinite(values)]
        for statistic in statistics:
            yield f"{name}_{statistic}", float(_STATISTICS[statistic](values)) if len(values) else -1.0


def _norm(vectors: Floats) -> Floats:
    return np.asarray(np.linalg.norm(vectors, axis=-1))


def _or(values: Floats, others: Floats) -> Floats:
    return np.where(np.isfinite(values), values, others)


_OF_PERSON: Final[dict[str, tuple[str, ...]]] = {
    "drift": ("mean", "high", "std"), "hand_speed": ("mean", "high", "max"), "foot_speed": ("mean", "high"),
    "head_speed": ("mean", "high"), "speed": ("mean", "high"), "jerk": ("mean", "high"), "tilt": ("mean", "max", "std"),
    "tilt_rate": ("std",), "aspect": ("mean", "max", "std"), "growth": ("std",), "hand_height": ("mean", "high"),
    "hand_reach": ("mean", "high", "std"), "score": ("mean", "low"),
}  # fmt: skip
_OF_PAIR: Final[dict[str, tuple[str, ...]]] = {
    "distance": ("mean", "min", "std", "low"), "approach": ("mean",), "approach_speed": ("mean", "high"),
    "overlap": ("mean", "max", "std"), "close_speed": ("mean", "high", "max"), "head_height": ("std",),
    "head_height_apart": ("mean",), "drift_apart": ("mean", "high"), "drift_together": ("mean",),
    "hand_to_head": ("mean", "min", "low"), "hand_to_centre": ("mean", "min", "low"),
    "foot_to_head": ("mean", "min", "low"), "foot_to_centre": ("mean", "min", "low"),
}  # fmt: skip


def _names(wanted: dict[str, tuple[str, ...]], *more: str) -> tuple[str, ...]:
    return (*(f"{name}_{statistic}" for name, statistics in wanted.items() for statistic in statistics), *more)


_PERSON_NAMES: Final = _names(_OF_PERSON, "presence")
_PAIR_NAMES: Final = _names(_OF_PAIR, "size_ratio", "together")
