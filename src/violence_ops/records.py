"""The typed records that flow through the pipeline, and the Parquet schemas they are kept in."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Label = Literal["Fight", "NonFight"]
LABELS: Final[tuple[Label, Label]] = ("NonFight", "Fight")
"""Class index 0 is NonFight, 1 is Fight."""

JOINTS: Final = 17
SKELETON: Final = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
    (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip
"""Pairs of joints joined by a bone (COCO-17, 0-based)."""
HEAD: Final = (0, 1, 2, 3, 4)
"""Nose, eyes and ears."""
TRUNK: Final = (5, 6, 11, 12)
"""Shoulders and hips."""
LIMBS: Final = (9, 10, 15, 16)
"""Wrists and ankles: the limbs' ends, which strike."""

REASONS: Final = (
    "unreadable", "no_video_stream", "no_frames", "truncated", "decode_error", "too_large", "too_long", "too_short",
    "bad_dimensions", "duplicate", "near_duplicate", "unsafe_name", "not_a_regular_file", "timeout", "unlabelled",
    "forgotten",
)  # fmt: skip
"""Why a clip is in quarantine (SPEC 1)."""

TRANSIENT: Final = ("timeout", "unlabelled", "unsafe_name")
"""Those that do not lie in the bytes: with more time, with a label or under a proper name, the same bytes are a new clip."""

COMPONENTS: Final = (
    "position", "movement", "interaction", "detection", "consistency", "persistence", "closeness", "contact", "limbs", "partner",
)  # fmt: skip
"""What involvement is made of: six of SPEC 5, then ours (docs/involvement.md)."""

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]
BoolArray = NDArray[np.bool_]

_FAR: Final = 1e7
"""px; no frame is as large, so what lies farther is nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRecord:
    """One row of clips.parquet: what is known of a clip. Holds no clock and no run id."""

    clip_id: str
    sha256: str
    batch_id: str
    source_path: str
    label: Label | None = None
    source_group: str
    camera_id: str | None = None
    recorded_at: str | None = None
    container: str | None = None
    codec: str | None = None
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    frame_count: int | None = None
    duration_s: float | None = None
    size_bytes: int = 0
    brightness: float | None = None
    perceptual_hash: str | None = None
    status: Literal["claimed", "accepted", "quarantined"] = "claimed"
    reason: str | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height, px, of a clip that was examined."""
        return (self.width, self.height) if self.width and self.height else None

    def with_(self, **changes: Any) -> Self:
        """A copy with some fields replaced."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """The record as a plain mapping, in column order."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Self:
        """The record from a row of clips.parquet or a line of JSON; columns it does not know are left out."""
        names = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in row.items() if key in names})


CLIPS_SCHEMA: Final = pa.schema(
    [
        ("clip_id", pa.string()), ("sha256", pa.string()), ("batch_id", pa.string()), ("source_path", pa.string()),
        ("label", pa.string()), ("source_group", pa.string()), ("camera_id", pa.string()), ("recorded_at", pa.string()),
        ("container", pa.string()), ("codec", pa.string()), ("width", pa.int32()), ("height", pa.int32()),
        ("fps", pa.float64()), ("frame_count", pa.int32()), ("duration_s", pa.float64()), ("size_bytes", pa.int64()),
        ("brightness", pa.float64()), ("perceptual_hash", pa.string()), ("status", pa.string()), ("reason", pa.string()),
    ]
)  # fmt: skip

_POSE_FIELDS: Final = [
    ("clip_id", pa.string()), ("frame", pa.int32()), ("bbox", pa.list_(pa.float32(), 4)), ("score", pa.float32()),
    ("keypoints", pa.list_(pa.float32(), 2 * JOINTS)), ("keypoint_scores", pa.list_(pa.float16(), JOINTS)),
]  # fmt: skip
POSES_SCHEMA: Final = pa.schema(_POSE_FIELDS)
TRACKS_SCHEMA: Final = pa.schema(
    [*_POSE_FIELDS, ("track_id", pa.int32()), ("rank", pa.int32()), ("involvement", pa.float32())]
    + [(name, pa.float32()) for name in COMPONENTS]
    + [("interpolated", pa.bool_())]
)
PREDICTIONS_SCHEMA: Final = pa.schema(
    [
        ("clip_id", pa.string()), ("model_version", pa.string()), ("window", pa.int32()), ("start_frame", pa.int32()),
        ("end_frame", pa.int32()), ("probability", pa.float32()), ("weight", pa.float32()),
        ("clip_probability", pa.float32()), ("threshold", pa.float32()), ("verdict", pa.string()),
    ]
)  # fmt: skip
"""One row per clip and window; the clip's own probability, threshold and verdict repeat on its rows."""


def as_tracks(table: pa.Table) -> pa.Table:
    """Rows of tracks in `TRACKS_SCHEMA`; a column that was not there yet when they were written is 0 or false."""
    for column in TRACKS_SCHEMA:
        if column.name not in table.column_names:
            table = table.append_column(column.name, pa.array(np.zeros(len(table), bool)).cast(column.type))
    return table.select(TRACKS_SCHEMA.names).cast(TRACKS_SCHEMA)


PIECE_S: Final = 10.0
"""About so many seconds of a long clip are a scene of their own: who is involved in one may have left before the next."""


def piece_starts(frame_count: int, fps: float) -> IntArray:
    """The first frames of the equal pieces in which the people of a clip are ranked and judged: 0 alone for one of less than one
    and a half `PIECE_S`, or if its rate is not known."""
    seconds = frame_count / fps if 0 < fps < math.inf else 0.0
    count = max(1, int(seconds / PIECE_S + 0.5))
    return np.ceil(np.arange(count) * (frame_count / count)).astype(np.int32)


def seconds_of(start_frame: int, end_frame: int, fps: float) -> dict[str, float]:
    """When the frames `[start_frame, end_frame)` of a video are, in s: `start_s` and `end_s`, at `fps` frames/s above 0."""
    return {"start_s": round(start_frame / fps, 2), "end_s": round(end_frame / fps, 2)}


def sampled_frames(clip: ClipRecord, max_frames_per_second: float) -> IntArray:
    """The frames of a validated clip that are looked at: every n-th, with the smallest n that stays within the rate."""
    step = max(1, math.ceil((clip.fps or 1.0) / max_frames_per_second - 1e-6))
    return np.arange(0, clip.frame_count or 0, step, dtype=np.int32)


@dataclass(frozen=True, slots=True)
class FramePoses:
    """The people of one frame, in pixels of the original frame.

    keypoints `(N, 17, 2)` float32 px, keypoint_scores `(N, 17)` in [0, 1], bboxes `(N, 4)` xyxy px, scores `(N,)` in [0, 1].
    """

    keypoints: FloatArray
    keypoint_scores: FloatArray
    bboxes: FloatArray
    scores: FloatArray

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPoses:
    """All people of all frames of one clip, a row per person and frame, ordered by frame.

    frame `(R,)` int32, bboxes `(R, 4)` xyxy px, scores `(R,)`, keypoints `(R, 17, 2)` px, keypoint_scores `(R, 17)`.
    """

    clip_id: str
    frame_count: int
    width: int
    height: int
    fps: float
    frame: IntArray
    bboxes: FloatArray
    scores: FloatArray
    keypoints: FloatArray
    keypoint_scores: FloatArray

    def __len__(self) -> int:
        return len(self.frame)

    @classmethod
    def from_frames(cls, clip: ClipRecord, indices: IntArray, frames: list[FramePoses]) -> Self:
        """Join the usable people of the frames `indices` `(F,)`. `clip` must have been validated (size, fps known)."""
        counts = [len(poses) for poses in frames]

        def joined(name: str, *shape: int) -> FloatArray:
            parts = [getattr(poses, name) for poses in frames]
            return np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, *shape), np.float32)

        return cls(
            clip_id=clip.clip_id, frame_count=clip.frame_count or 0, width=clip.width or 0, height=clip.height or 0, fps=clip.fps or 0.0,
            frame=np.repeat(indices[: len(frames)].astype(np.int32), counts),
            bboxes=joined("bboxes", 4), scores=joined("scores"), keypoints=joined("keypoints", JOINTS, 2),
            # stored as float16: rounding here keeps a first run and a reread of its table equal
            keypoint_scores=joined("keypoint_scores", JOINTS).astype(np.float16).astype(np.float32),
        ).usable()  # fmt: skip

    def usable(self) -> Self:
        """Without what a pose model may give that is nobody: rows whose score is no number, or whose box has no area or is nowhere.

        A joint that is nowhere was not seen: score 0 at (0, 0). Scores are held to [0, 1].
        """
        with np.errstate(invalid="ignore"):
            somewhere = (np.abs(self.bboxes) < _FAR).all(axis=1) & np.isfinite(self.scores)
            rows = np.flatnonzero(somewhere & (self.bboxes[:, 2:] > self.bboxes[:, :2]).all(axis=1))
            seen = (np.abs(self.keypoints[rows]) < _FAR).all(axis=2) & np.isfinite(self.keypoint_scores[rows])
        return replace(
            self,
            frame=self.frame[rows],
            bboxes=self.bboxes[rows],
            scores=self.scores[rows].clip(0.0, 1.0),
            keypoints=np.where(seen[..., None], self.keypoints[rows], np.float32(0)),
            keypoint_scores=np.where(seen, self.keypoint_scores[rows], np.float32(0)).clip(0.0, 1.0),
        )

    def to_table(self) -> pa.Table:
        """The rows in `POSES_SCHEMA`."""
        return pa.table(_pose_columns(self), schema=POSES_SCHEMA)

    @classmethod
    def from_table(cls, table: pa.Table, clip: ClipRecord) -> Self:
        """Read back what `to_table` wrote (rows of this clip only)."""
        return cls(**_pose_arrays(table, clip))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipTracks(ClipPoses):
    """Poses with the identity and the involvement of each person.

    track_id `(R,)` int32 from 1; rank `(R,)` int32, 1 = most involved, 0 = not ranked; involvement `(R,)` and components
    `(R, 10)` in [0, 1] in the order of `COMPONENTS`; these are per track and repeat on the track's rows of a piece of the clip
    (`piece_starts`). interpolated `(R,)`: nobody was seen there, the row was filled in between two that were.
    """

    track_id: IntArray
    rank: IntArray
    involvement: FloatArray
    components: FloatArray
    interpolated: BoolArray = None  # type: ignore[assignment]  # models that were logged before it was there leave it out

    def __post_init__(self) -> None:
        if self.interpolated is None:
            object.__setattr__(self, "interpolated", np.zeros(len(self.frame), bool))

    @classmethod
    def from_poses(cls, poses: ClipPoses, track_id: IntArray) -> Self:
        """The rows of `poses` that belong to a track (`track_id` `(R,)` above 0), by frame and track; nothing ranked yet."""
        rows = np.lexsort((track_id, poses.frame))
        rows = rows[track_id[rows] > 0]
        constant = ("clip_id", "frame_count", "width", "height", "fps")
        return cls(
            **{name: getattr(poses, name) for name in constant},
            **{
                name: getattr(poses, name)[rows]
                for name in ("frame", "bboxes", "scores", "keypoints", "keypoint_scores")
            },
            track_id=track_id[rows].astype(np.int32),
            rank=np.zeros(len(rows), np.int32),
            involvement=np.zeros(len(rows), np.float32),
            components=np.zeros((len(rows), len(COMPONENTS)), np.float32),
            interpolated=np.zeros(len(rows), bool),
        )

    def at_their_best(self, among: BoolArray | None = None) -> tuple[IntArray, IntArray]:
        """The tracks' ids, in order, and of each the row (`among` some `(R,)`) where its rank is the best; of equals the first."""
        order = np.lexsort((self.frame, np.where(self.rank > 0, self.rank, len(self) + 1), self.track_id))
        order = order if among is None else order[among[order]]
        ids, first = np.unique(self.track_id[order], return_index=True)
        return ids, order[first]

    def to_table(self) -> pa.Table:
        """The rows in `TRACKS_SCHEMA`."""
        columns = _pose_columns(self) | {
            "track_id": self.track_id.astype(np.int32),
            "rank": self.rank.astype(np.int32),
            "involvement": self.involvement.astype(np.float32),
            "interpolated": self.interpolated.astype(bool),
        }
        columns |= {name: self.components[:, i].astype(np.float32) for i, name in enumerate(COMPONENTS)}
        return pa.table(columns, schema=TRACKS_SCHEMA)

    @classmethod
    def from_table(cls, table: pa.Table, clip: ClipRecord) -> Self:
        """Read back what `to_table` wrote (rows of this clip only), also before a column was added."""
        table = as_tracks(table)
        return cls(
            **_pose_arrays(table, clip),
            track_id=_column(table, "track_id"),
            rank=_column(table, "rank"),
            involvement=_column(table, "involvement"),
            components=np.stack([_column(table, name) for name in COMPONENTS], axis=1).astype(np.float32),
            interpolated=table.column("interpolated").to_numpy(zero_copy_only=False).astype(bool),
        )


def _pose_columns(poses: ClipPoses) -> dict[str, Any]:
    return {
        "clip_id": pa.array([poses.clip_id] * len(poses), pa.string()),
        "frame": poses.frame.astype(np.int32),
        "bbox": _fixed_lists(poses.bboxes, 4, pa.float32()),
        "score": poses.scores.astype(np.float32),
        "keypoints": _fixed_lists(poses.keypoints, 2 * JOINTS, pa.float32()),
        "keypoint_scores": _fixed_lists(poses.keypoint_scores, JOINTS, pa.float16()),
    }


def _fixed_lists(values: FloatArray, size: int, kind: pa.DataType) -> pa.Array:
    dtype = np.float16 if pa.types.is_float16(kind) else np.float32
    return pa.FixedSizeListArray.from_arrays(pa.array(values.astype(dtype).reshape(-1), kind), size)


def _column(table: pa.Table, name: str) -> NDArray[Any]:
    return table.column(name).to_numpy()


def _list_column(table: pa.Table, name: str, *shape: int) -> FloatArray:
    column = table.column(name).combine_chunks()
    flat = column.flatten() if len(column) else pa.array([], pa.float32())
    return flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, *shape)


def _pose_arrays(table: pa.Table, clip: ClipRecord) -> dict[str, Any]:
    return {
        "clip_id": clip.clip_id,
        "frame_count": clip.frame_count or 0,
        "width": clip.width or 0,
        "height": clip.height or 0,
        "fps": clip.fps or 0.0,
        "frame": _column(table, "frame"),
        "bboxes": _list_column(table, "bbox", 4),
        "scores": _column(table, "score"),
        "keypoints": _list_column(table, "keypoints", JOINTS, 2),
        "keypoint_scores": _list_column(table, "keypoint_scores", JOINTS),
    }
