"""What is in the annotations: a clip's facts from its rows, and their sums over clips (SPEC 7).

A `Survey` keeps counts, histograms and three numbers a clip, whatever the clips' length.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from violence_ops.evaluation.scene import Scene, persons_at_once, scene_of

Float = NDArray[np.float64]

GRID: Final = (18, 32)
"""Rows and columns of the heat map."""
LENGTH_EDGES: Final = (0.0, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, np.inf)
"""s, of the track lengths' histogram."""
_SCORES: Final = 20
"""Bins of a histogram over [0, 1]."""
_TOP: Final = 2
"""Ranks that count as top: the pair that fights, if one does."""
UNLABELLED: Final = "unlabelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSurvey:
    """One annotated clip.

    frames: how many were looked at, with_person: in how many of them a track is, most: the persons at once (`scene`).
    scores `(R,)`, keypoint_scores `(R,)`: of each pose in each frame, the second the mean over the joints.
    lengths `(T,)` s from a track's first to its last frame, ranked: how many tracks have a rank.
    involvement: of ranks 1 and 2, or fewer. places `(P, 2)`: middles of their boxes, in shares of width and height.
    """

    frames: int
    with_person: int
    most: int
    scores: Float
    keypoint_scores: Float
    lengths: Float
    ranked: int
    involvement: Float
    places: Float


def of_clip(
    *,
    frames: int,
    fps: float,
    size: tuple[int, int],
    scores: Float,
    keypoint_scores: Float,
    frame: NDArray[np.int32],
    bboxes: Float,
    track_id: NDArray[np.int32],
    rank: NDArray[np.int32],
    involvement: Float,
) -> ClipSurvey:
    """The facts of a clip of `size` (width, height) px of which `frames` were looked at.

    Of its poses: scores `(R,)`, keypoint_scores `(R, 17)`. Of its tracks: frame `(Q,)`, bboxes `(Q, 4)`
    xyxy px, track_id, rank (0: none), involvement `(Q,)`.
    """
    # of each track the row where it ranks best, which in a long clip differs from piece to piece
    order = np.lexsort((np.where(rank > 0, rank, len(rank) + 1), track_id))
    _, places = np.unique(track_id[order], return_index=True)
    first, member = order[places], np.unique(track_id, return_inverse=True)[1]
    start, end = np.full(len(first), np.iinfo(np.int32).max), np.full(len(first), -1)
    np.minimum.at(start, member, frame)
    np.maximum.at(end, member, frame)
    top = (rank >= 1) & (rank <= _TOP)
    middles = (bboxes[top, :2] + bboxes[top, 2:]) / 2 / size
    best = first[(rank[first] >= 1) & (rank[first] <= _TOP)]
    return ClipSurvey(
        frames=frames, with_person=len(np.unique(frame)), most=persons_at_once(frame), scores=scores,
        keypoint_scores=keypoint_scores.mean(axis=1) if len(keypoint_scores) else np.zeros(0),
        lengths=(end - start + 1) / max(fps, 1e-6), ranked=int((rank[first] > 0).sum()),
        involvement=involvement[best], places=middles[np.isfinite(middles).all(axis=1)],
    )  # fmt: skip


@dataclass(slots=True)
class Part:
    """The sums over some of the clips: those of a label, a camera or a source; all of them."""

    clips: int = 0
    seconds: float = 0.0
    labels: Counter[str] = field(default_factory=Counter)
    nobody: int = 0
    crowd: int = 0
    frames: int = 0
    with_person: int = 0
    persons: Counter[int] = field(default_factory=Counter)
    score_sum: float = 0.0
    rows: int = 0
    involvement: array[float] = field(default_factory=lambda: array("f"))

    def add(self, clip: ClipSurvey, label: str, seconds: float, scene: Scene) -> None:
        """Count one more clip."""
        self.clips += 1
        self.seconds += seconds
        self.labels[label] += 1
        self.nobody += scene == "nobody"
        self.crowd += scene == "crowd"
        self.frames += clip.frames
        self.with_person += clip.with_person
        self.persons[clip.most] += 1
        self.score_sum += float(clip.scores.sum())
        self.rows += len(clip.scores)
        if len(clip.involvement):
            self.involvement.append(float(clip.involvement.max()))

    def summary(self) -> dict[str, Any]:
        """Plain figures; None where there is nothing to take a mean of."""
        return {
            "clips": self.clips,
            "hours": round(self.seconds / 3600, 4),
            "labels": dict(sorted(self.labels.items())),
            "nobody": self.nobody,
            "crowd": self.crowd,
            "median_persons": _median_of(self.persons),
            "share_of_frames_with_person": _ratio(self.with_person, self.frames),
            "mean_score": _ratio(self.score_sum, self.rows),
            "median_involvement": _round(np.median(self.involvement)) if self.involvement else None,
        }


class Survey:
    """The sums over all clips, a part for each label, camera and source, and the clips that want a look, with their labels.

    crowd: persons at once that make a clip a crowd. regions `(5, 4)`: the five regions, xyxy in shares, called `region_names`.
    """

    def __init__(self, *, crowd: int, regions: Float, region_names: tuple[str, ...]) -> None:
        self.crowd, self.regions, self.region_names = crowd, regions, region_names
        self.everything = Part()
        self.by_label: dict[str, Part] = defaultdict(Part)
        self.by_camera: dict[str, Part] = defaultdict(Part)
        self.by_source: dict[str, Part] = defaultdict(Part)
        self.tracks: Counter[int] = Counter()
        self.ranked: Counter[int] = Counter()
        self.lengths = np.zeros(len(LENGTH_EDGES) - 1, np.int64)
        self.presence = np.zeros(11, np.int64)
        self.scores = np.zeros(_SCORES, np.int64)
        self.keypoint_scores = np.zeros(_SCORES, np.int64)
        self.heat: dict[str, Float] = defaultdict(lambda: np.zeros(GRID))
        self.in_regions: dict[str, Float] = defaultdict(lambda: np.zeros(len(regions)))
        self.placed: Counter[str] = Counter()
        self.notable: dict[str, dict[str, str]] = {"nobody": {}, "one person": {}, "crowd": {}, "nobody ranked": {}}

    def add(
        self, clip_id: str, clip: ClipSurvey, *, label: str | None, camera: str | None, source: str, seconds: float
    ) -> None:
        """Count one more clip."""
        name, scene = label or UNLABELLED, scene_of(clip.most, self.crowd)
        parts = (self.everything, self.by_label[name], self.by_camera[camera or "unknown"], self.by_source[source])
        for part in parts:
            part.add(clip, name, seconds, scene)
        self.tracks[len(clip.lengths)] += 1
        self.ranked[clip.ranked] += 1
        self.lengths += np.histogram(clip.lengths, LENGTH_EDGES)[0]
        share = clip.with_person / clip.frames if clip.frames else 0.0
        self.presence[0 if clip.with_person == 0 else 1 + min(9, int(share * 10))] += 1
        self.scores += histogram(clip.scores)
        self.keypoint_scores += histogram(clip.keypoint_scores)
        self._place(name, clip.places)
        if scene != "few":
            self.notable[scene][clip_id] = name
        if clip.most > 0 and not clip.ranked:
            self.notable["nobody ranked"][clip_id] = name

    def _place(self, label: str, places: Float) -> None:
        """Every clip counts alike, however long it is."""
        if not len(places):
            return
        cells = np.histogram2d(places[:, 1], places[:, 0], bins=GRID, range=((0, 1), (0, 1)))[0]
        inside = (places[:, None] >= self.regions[:, :2]) & (places[:, None] <= self.regions[:, 2:])
        self.heat[label] += cells / len(places)
        self.in_regions[label] += inside.all(axis=2).mean(axis=0)
        self.placed[label] += 1

    def region_shares(self, label: str | None = None) -> dict[str, float]:
        """Share of the top persons' frames in each region, each clip counting alike; of one label, or of all."""
        labels = [label] if label else list(self.placed)
        total = sum((self.in_regions[each] for each in labels), np.zeros(len(self.regions)))
        clips = sum(self.placed[each] for each in labels)
        return {name: _round(value / max(clips, 1)) for name, value in zip(self.region_names, total, strict=True)}

    def to_dict(self) -> dict[str, Any]:
        """Everything but the heat map, as plain values."""
        return {
            **self.everything.summary(),
            "crowd_from": self.crowd,
            "persons_per_clip": _plain(self.everything.persons),
            "tracks_per_clip": _plain(self.tracks),
            "ranked_tracks_per_clip": _plain(self.ranked),
            "track_lengths_s": {"edges": [_edge(edge) for edge in LENGTH_EDGES], "tracks": self.lengths.tolist()},
            "clips_by_share_of_frames_with_person": self.presence.tolist(),
            "pose_scores": self.scores.tolist(),
            "keypoint_scores": self.keypoint_scores.tolist(),
            "regions": {"all": self.region_shares()} | {name: self.region_shares(name) for name in sorted(self.placed)},
            "by_label": {name: part.summary() for name, part in sorted(self.by_label.items())},
            "by_camera": {name: part.summary() for name, part in sorted(self.by_camera.items())},
            "by_source": {name: part.summary() for name, part in sorted(self.by_source.items())},
            "clips_with": self.notable,
        }


def histogram(values: Any) -> NDArray[np.int64]:
    """`(20,)` counts over [0, 1]; what lies outside counts at the ends, what is no number not at all."""
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    return np.histogram(np.clip(finite, 0.0, 1.0), _SCORES, (0.0, 1.0))[0].astype(np.int64)


def _median_of(counts: Counter[int]) -> float | None:
    """The median of values given by how often each comes."""
    total = counts.total()
    if not total:
        return None
    values = np.array(sorted(counts))
    reached = np.cumsum([counts[value] for value in values.tolist()])
    low, high = np.searchsorted(reached, [(total + 1) // 2, total // 2 + 1])
    return float(values[low] + values[high]) / 2


def _plain(counts: Counter[int]) -> dict[str, int]:
    return {str(value): counts[value] for value in sorted(counts)}


def _ratio(total: float, count: int) -> float | None:
    return _round(total / count) if count else None


def _round(value: Any) -> float:
    return round(float(value), 4)


def _edge(value: float) -> float | None:
    return None if np.isinf(value) else value
