"""Drift: do the clips of a night look like those that a model was trained on? Every clip counts once, with one value per quantity.

Frames of a clip, and clips of a camera or a source group, resemble one another, and tests that take them for independent see
drift everywhere. So a clip is one value, and the number of clips is reduced by Kish's design effect (Survey Sampling, 1965).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from violence_ops.params import DriftParams
from violence_ops.records import FloatArray, IntArray

QUANTITIES: Final = {
    "persons": "persons per frame",
    "person_score": "score of a person",
    "joint_score": "score of a joint",
    "box_height": "height of a person, of the frame's",
    "involvement": "involvement of the first in rank",
    "track_s": "length of a track, s",
    "probability": "probability of Fight",
}
"""What is compared, and what people call it. The mean over a clip, but of heights the median."""

_QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
Values = NDArray[np.float64]
Verdict = Literal["drift", "stable", "too few clips"]


@dataclass(frozen=True, slots=True)
class ClipValues:
    """One clip's values by quantity; one that cannot be told (nobody was seen) is left out. Group and camera are None where nobody
    has named them."""

    group: str | None
    camera: str | None
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Shift:
    """One quantity, reference against night. Clips are counted as they are and as so many independent ones; the quantiles are 5, 25,
    50, 75 and 95 %."""

    quantity: str
    verdict: Verdict
    clips: tuple[int, int]
    effective: tuple[float, float]
    ks: float | None = None
    p_value: float | None = None
    psi: float | None = None
    psi_limit: float | None = None
    reference: tuple[float, ...] = ()
    night: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class DriftReport:
    """One night against what a model was trained on. `notes` are sentences about what may explain a difference."""

    batch_id: str
    night: str
    model_version: str
    dataset_revision: str
    shifts: tuple[Shift, ...]
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Drift if any quantity drifted; too few clips if none could be judged."""
        found = {shift.verdict for shift in self.shifts}
        return "drift" if "drift" in found else "stable" if "stable" in found else "too few clips"

    @property
    def judged(self) -> int:
        """How many quantities had clips enough to be judged."""
        return sum(shift.verdict != "too few clips" for shift in self.shifts)

    @property
    def headline(self) -> str:
        """The verdict, and how many quantities it stands on if not on all."""
        if self.judged in (0, len(self.shifts)):
            return self.verdict
        return f"{self.verdict} ({self.judged} of {len(self.shifts)} quantities judged; too few clips for the others)"

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return asdict(self) | {"verdict": self.verdict, "judged": self.judged, "quantities": len(self.shifts)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """What `to_dict` gave."""
        derived = ("verdict", "judged", "quantities")
        known = {key: value for key, value in content.items() if key not in (*derived, "shifts", "notes")}
        listed = ("clips", "effective", "reference", "night")
        shifts = (Shift(**one | {key: tuple(one[key]) for key in listed}) for one in content["shifts"])
        return cls(**known, shifts=tuple(shifts), notes=tuple(content["notes"]))


def of_poses(
    frames: int, height: int, boxes: FloatArray, scores: FloatArray, joint_scores: FloatArray
) -> dict[str, float]:
    """Values of a clip's persons in `frames` frames of `height` px: boxes `(R, 4)` xyxy px, scores `(R,)`, joint_scores `(R, 17)`."""
    found = {"persons": len(scores) / max(frames, 1)}
    if len(scores):
        found["person_score"] = float(scores.mean(dtype=float))
        found["joint_score"] = float(joint_scores.mean(dtype=float))
        found["box_height"] = float(np.median(boxes[:, 3] - boxes[:, 1])) / max(height, 1)
    return found


def of_tracks(
    fps: float, frame: IntArray, track_id: IntArray, rank: IntArray, involvement: FloatArray
) -> dict[str, float]:
    """Values of a clip's tracks, a row per person and frame, all `(R,)`."""
    if not len(frame):
        return {}
    _, place = np.unique(track_id, return_inverse=True)
    first, last = np.full(place.max() + 1, np.iinfo(np.int32).max), np.full(place.max() + 1, -1)
    np.minimum.at(first, place, frame)
    np.maximum.at(last, place, frame)
    found = {"track_s": float((last - first + 1).mean()) / fps}
    leading = involvement[rank == 1]
    return found | ({"involvement": float(leading.max())} if len(leading) else {})


def compare(reference: Sequence[ClipValues], night: Sequence[ClipValues], params: DriftParams) -> tuple[Shift, ...]:
    """Every quantity of `QUANTITIES`, in that order.

    A quantity drifted if Kolmogorov-Smirnov's p is below `significance` over the number of quantities (Bonferroni) and the
    population stability index is above `psi`, and above what chance alone gives so few clips.
    """
    before, now = clusters(reference), clusters(night)
    return tuple(
        _shift(name, _sample(name, reference, before), _sample(name, night, now), params) for name in QUANTITIES
    )


def clusters(clips: Sequence[ClipValues]) -> IntArray:
    """The number of each clip's cluster, `(N,)`: clips of one camera or one source group are together, and all that these join.

    A clip that names neither is a cluster of its own.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    keys: dict[tuple[str, str | int], int] = {}
    edges: list[tuple[int, int]] = []
    for number, clip in enumerate(clips):
        group = ("group", clip.group) if clip.group is not None else None
        camera = ("camera", clip.camera) if clip.camera is not None else None
        ends = (group or camera or ("clip", number), camera or group or ("clip", number))
        edges.append((keys.setdefault(ends[0], len(keys)), keys.setdefault(ends[1], len(keys))))
    if not edges:
        return np.zeros(0, np.int32)
    one, other = np.array(edges).T
    links = coo_array((np.ones(len(edges)), (one, other)), shape=(len(keys), len(keys)))
    return np.asarray(connected_components(links, directed=False)[1][one], np.int32)


def stability_index(reference: Values, night: Values, bins: int) -> tuple[float, int]:
    """PSI = sum over bins of (q - p) ln(q / p), and the number of bins; p, q = shares of `(N,)` reference and `(M,)` night.

    The bins hold equally many reference values; where values repeat there are fewer, and one more if that many share the lowest
    edge: for what lies below it. Half a clip is added to each bin (Jeffreys), so that an empty one gives no infinity.
    """
    edges = np.unique(np.quantile(reference, np.arange(1, bins) / bins))
    if np.mean(reference == edges[0]) >= 1 / bins:
        edges = np.append(np.nextafter(edges[0], -np.inf), edges)
    counts = [np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1) for values in (reference, night)]
    p, q = ((count + 0.5) / (count.sum() + 0.5 * len(count)) for count in counts)
    return float(((q - p) * np.log(q / p)).sum()), len(edges) + 1


def stability_by_chance(bins: int, clips: tuple[float, float], chance: float) -> float:
    """What PSI exceeds with probability `chance` where nothing drifted: it is (1/N + 1/M) times a chi-square of `bins` - 1
    degrees of freedom (Yurdakul & Naranjo, Journal of Risk Model Validation, 2020)."""
    from scipy.stats import chi2

    return float(chi2.ppf(1 - chance, max(bins - 1, 1)) * (1 / clips[0] + 1 / clips[1]))


def likeness_in_groups(samples: Sequence[tuple[Values, Sequence[str] | IntArray]]) -> float:
    """Intraclass correlation in [0, 1] of values `(N,)` within their groups, from a one-way analysis of variance pooled over samples.

    1 if every sample is one group, so that nothing can be told; 0 if every clip is its own.
    """
    between = within = spread = 0.0
    total = groups = 0
    for values, names in samples:
        _, place = np.unique(np.asarray(names), return_inverse=True)
        sizes, centred = np.bincount(place), values - values.mean()
        means = np.bincount(place, centred) / sizes
        between += float((sizes * means**2).sum())
        within += float(((centred - means[place]) ** 2).sum())
        spread += len(values) - float((sizes**2).sum()) / len(values)
        total, groups = total + len(values), groups + len(sizes)
    free_between, free_within = groups - len(samples), total - groups
    if not free_within:
        return 0.0
    if not free_between:
        return 1.0
    variance, noise, size = between / free_between, within / free_within, spread / free_between
    whole = variance + (size - 1) * noise
    return float(np.clip((variance - noise) / whole, 0, 1)) if whole > 0 else 0.0


def effective_count(names: Sequence[str] | IntArray, likeness: float) -> float:
    """How many independent clips are worth as much: N / (1 + (sum of squared group sizes / N - 1) likeness)."""
    sizes = np.unique(np.asarray(names), return_counts=True)[1]
    return float(len(names) / (1 + ((sizes**2).sum() / len(names) - 1) * likeness))


def _sample(name: str, clips: Sequence[ClipValues], cluster: IntArray) -> tuple[Values, IntArray]:
    known = [number for number, clip in enumerate(clips) if name in clip.values]
    return np.array([clips[number].values[name] for number in known], np.float64), cluster[known]


def _shift(name: str, reference: tuple[Values, IntArray], night: tuple[Values, IntArray], params: DriftParams) -> Shift:
    from scipy.stats import ks_2samp, kstwo

    samples = (reference, night)
    clips = (len(reference[0]), len(night[0]))
    if not all(clips):
        return Shift(name, "too few clips", clips, (float(clips[0]), float(clips[1])))
    likeness = likeness_in_groups(samples)
    effective = (effective_count(reference[1], likeness), effective_count(night[1], likeness))
    chance = params.significance / len(QUANTITIES)
    distance = float(ks_2samp(reference[0], night[0], method="asymp").statistic)
    joint = max(1, round(effective[0] * effective[1] / sum(effective)))
    p_value = float(kstwo.sf(distance, joint))
    psi, bins = stability_index(reference[0], night[0], max(2, min(params.bins, int(min(effective) / 5))))
    limit = max(params.psi, stability_by_chance(bins, effective, chance))
    verdict: Verdict = "drift" if p_value < chance and psi > limit else "stable"
    if min(effective) < params.min_clips:
        verdict = "too few clips"
    quantiles = [tuple(float(value) for value in np.quantile(sample[0], _QUANTILES)) for sample in samples]
    return Shift(name, verdict, clips, effective, distance, p_value, psi, limit, quantiles[0], quantiles[1])
