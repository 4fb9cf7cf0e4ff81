"""The most involved persons of a clip as one array over time, and its cutting into windows (SPEC 8)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from violence_ops.errors import UserError
from violence_ops.params import WindowParams
from violence_ops.recognition.pictures import Pictures
from violence_ops.records import COMPONENTS, JOINTS, ClipTracks, FloatArray, piece_starts

SKELETONS_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()), ("width", pa.int32()), ("height", pa.int32()), ("step", pa.float64()), ("intensity", pa.float32()),
        ("persons", pa.int32()), ("frames", pa.int32()),
        ("keypoints", pa.list_(pa.float32())), ("keypoint_scores", pa.list_(pa.float16())),
    ]
)  # fmt: skip
"""One row per clip; the arrays are flat, persons first, then frames."""
_STARTS = pa.field("starts", pa.list_(pa.int32()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Skeleton:
    """What the classifier sees of a clip.

    keypoints `(K, T, 17, 2)` float32 px of the original frame, keypoint_scores `(K, T, 17)` in [0, 1]; person k has rank k + 1; zero
    where a person is absent. Who that is changes with the pieces of a long clip, which begin at the frames `starts` of the video
    (`records.piece_starts`), so that no window reaches from one into the next. Frame t of the arrays is at frame `t * step` of the
    video. `intensity` in [0, 1] is the mean movement component of the K persons. `pictures` are there for families that look at
    pictures.
    """

    clip_id: str
    width: int
    height: int
    step: float
    intensity: float
    keypoints: FloatArray
    keypoint_scores: FloatArray
    starts: tuple[int, ...] = (0,)
    pictures: Pictures | None = None

    @property
    def frames(self) -> int:
        """T, the number of frames looked at."""
        return self.keypoints.shape[1]

    @property
    def is_empty(self) -> bool:
        """True if nobody was ranked."""
        return not bool(self.keypoint_scores.any())

    def only(self, persons: Sequence[int]) -> Skeleton:
        """The same clip with these persons alone, as far as they are in it."""
        chosen = [person for person in persons if person < len(self.keypoints)]
        return replace(self, keypoints=self.keypoints[chosen], keypoint_scores=self.keypoint_scores[chosen])

    def first(self, persons: int) -> Skeleton:
        """The same clip with at most that many persons, the most involved ones."""
        return self.only(range(persons))


Stretch = tuple[Skeleton, int, int]
"""The frames `[start, end)` of a clip."""


def blank(params: WindowParams) -> Skeleton:
    """A window without anybody in it, to see what shape a classifier's inputs have."""
    shape = (params.persons, params.size, JOINTS)
    return Skeleton(
        clip_id="", width=1, height=1, step=1.0, intensity=0.0, keypoints=np.zeros((*shape, 2), np.float32),
        keypoint_scores=np.zeros(shape, np.float32),
    )  # fmt: skip


def from_tracks(tracks: ClipTracks, persons: int, frames_per_second: float | None = None) -> Skeleton:
    """The `persons` top-ranked tracks of a clip, at the frames that poses were looked for in, or brought to a rate.

    Raises UserError if that rate is asked for and the clip's own is not known.
    """
    found = _as_sampled(tracks, persons)
    if frames_per_second is None:
        return found
    if not 0 < tracks.fps < math.inf:
        raise UserError(
            f"Clip {tracks.clip_id} has no frame rate, and windows.frames_per_second {frames_per_second:g} needs it: give it as `fps` "
            "(a model registered before it took that column must be trained again)."
        )
    return resampled(found, tracks.fps / frames_per_second)


def resampled(skeleton: Skeleton, step: float) -> Skeleton:
    """The skeleton at every `step` frames of the video, so that clips of all frame rates move at the same pace.

    A joint seen before and after is interpolated linearly; seen on one side only, it stays where that side is the nearer.
    """
    last = (skeleton.frames - 1) * skeleton.step
    places = np.arange(int(last / step + 1e-6) + 1) * step / skeleton.step
    before = np.minimum(places.astype(int), skeleton.frames - 1)
    after = np.minimum(before + 1, skeleton.frames - 1)
    share = (places - before).astype(np.float32)[None, :, None]
    first, second = skeleton.keypoint_scores[:, before], skeleton.keypoint_scores[:, after]
    weight = np.where((first > 0) & (second > 0), share, (share >= 0.5).astype(np.float32))
    scores = first + weight * (second - first)
    points = skeleton.keypoints[:, before]
    points = points + weight[..., None] * (skeleton.keypoints[:, after] - points)
    points[scores <= 0] = 0.0
    return replace(skeleton, step=step, keypoints=points, keypoint_scores=scores)


def _as_sampled(tracks: ClipTracks, persons: int) -> Skeleton:
    step = int(np.gcd.reduce(tracks.frame)) if len(tracks) else 1
    step = max(1, step)
    length = max(1, -(-tracks.frame_count // step))
    keypoints = np.zeros((persons, length, JOINTS, 2), np.float32)
    scores = np.zeros((persons, length, JOINTS), np.float32)
    rows = np.flatnonzero((tracks.rank >= 1) & (tracks.rank <= persons) & (tracks.frame < length * step))
    person, time = tracks.rank[rows] - 1, tracks.frame[rows] // step
    keypoints[person, time] = tracks.keypoints[rows]
    scores[person, time] = tracks.keypoint_scores[rows]
    keypoints[scores <= 0] = 0.0
    movement = tracks.components[rows, COMPONENTS.index("movement")]
    firsts = [movement[person == k][0] for k in range(persons) if (person == k).any()]
    return Skeleton(
        clip_id=tracks.clip_id, width=tracks.width, height=tracks.height, step=float(step),
        intensity=float(np.mean(firsts)) if firsts else 0.0, keypoints=keypoints, keypoint_scores=scores,
        starts=tuple(piece_starts(tracks.frame_count, tracks.fps).tolist()),
    )  # fmt: skip


def to_table(skeletons: list[Skeleton]) -> pa.Table:
    """The skeletons in `SKELETONS_SCHEMA`, with the `starts` of their pieces only if one has several."""
    schema = SKELETONS_SCHEMA.append(_STARTS) if any(len(one.starts) > 1 for one in skeletons) else SKELETONS_SCHEMA
    rows = [
        {
            "clip_id": one.clip_id, "width": one.width, "height": one.height, "step": one.step, "intensity": one.intensity,
            "persons": one.keypoints.shape[0], "frames": one.frames, "keypoints": one.keypoints.reshape(-1),
            "keypoint_scores": one.keypoint_scores.reshape(-1).astype(np.float16), "starts": one.starts,
        }
        for one in skeletons
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=schema)


def read_table(table: pa.Table) -> dict[str, Skeleton]:
    """What `to_table` wrote, by clip_id."""
    return {name: _read_row(table, i) for i, name in enumerate(table.column("clip_id").to_pylist())}


def _read_row(table: pa.Table, row: int) -> Skeleton:
    def value(name: str) -> Any:
        return table.column(name)[row]

    shape = (value("persons").as_py(), value("frames").as_py(), JOINTS)
    return Skeleton(
        clip_id=value("clip_id").as_py(), width=value("width").as_py(), height=value("height").as_py(),
        step=value("step").as_py(), intensity=value("intensity").as_py(),
        keypoints=value("keypoints").values.to_numpy(zero_copy_only=False).reshape(*shape, 2),
        keypoint_scores=value("keypoint_scores").values.to_numpy(zero_copy_only=False).astype(np.float32).reshape(shape),
        starts=tuple(value("starts").as_py()) if "starts" in table.column_names else (0,),
    )  # fmt: skip


def windows(skeleton: Skeleton, params: WindowParams) -> list[tuple[int, int]]:
    """Cut each piece of a clip into windows `[start, end)`; the last one ends with the piece, a short piece is one window.

    Adaptive (SPEC 8): movement intensity > 0.8 gives size 20 and stride 5, > 0.5 gives 30/10, less gives 45/15.
    """
    size, stride = params.size, params.stride
    if params.mode == "adaptive":
        intensity = skeleton.intensity
        size, stride = (20, 5) if intensity > 0.8 else (30, 10) if intensity > 0.5 else (45, 15)
    borders = [math.ceil(start / skeleton.step - 1e-6) for start in skeleton.starts]
    borders = [border for border in borders if border < skeleton.frames]
    return [cut for first, end in pairwise((*borders, skeleton.frames)) for cut in _cuts(first, end, size, stride)]


def _cuts(first: int, end: int, size: int, stride: int) -> list[tuple[int, int]]:
    if end - first <= size:
        return [(first, end)]
    starts = list(range(first, end - size + 1, stride))
    if starts[-1] + size < end:
        starts.append(end - size)
    return [(start, start + size) for start in starts]


def to_train_on(skeleton: Skeleton, params: WindowParams, at_most: int) -> list[tuple[int, int]]:
    """The windows that show somebody, of at most `at_most` ones spread evenly over the clip."""
    cuts = windows(skeleton, params)
    cuts = cuts[:: math.ceil(len(cuts) / at_most)]
    return [(start, end) for start, end in cuts if skeleton.keypoint_scores[:, start:end].any()]


def views(persons: int, at_a_time: int) -> list[tuple[int, ...]]:
    """What a network that looks at so many persons at a time is shown of `persons` ranked ones: every choice of them, in order."""
    return list(combinations(range(persons), at_a_time))


def views_there(
    skeleton: Skeleton, cuts: Sequence[tuple[int, int]], shown: Sequence[Sequence[int]]
) -> NDArray[np.bool_]:
    """Which views `(W, views)` show all their persons; the first one is taken as it is."""
    seen = np.zeros((len(cuts), 1 + max(map(max, shown))), bool)
    count = min(seen.shape[1], len(skeleton.keypoint_scores))
    for row, (start, end) in enumerate(cuts):
        seen[row, :count] = skeleton.keypoint_scores[:count, start:end].any(axis=(1, 2))
    there = np.asarray(seen[:, np.array(shown)].all(axis=-1))
    there[:, 0] = True
    return there


def presence(skeleton: Skeleton, cuts: Sequence[tuple[int, int]]) -> FloatArray:
    """Share of each window's frames that show somebody, `(W,)` in [0, 1]."""
    seen = np.asarray(skeleton.keypoint_scores.any(axis=(0, 2)))
    return np.array([seen[start:end].mean() for start, end in cuts], np.float32)
