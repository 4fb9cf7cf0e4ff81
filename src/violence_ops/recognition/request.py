"""A clip of a request to a served model: its rows checked, and brought into the form that the classifier reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from violence_ops.errors import UserError
from violence_ops.records import COMPONENTS, JOINTS, ClipTracks, FloatArray

_MOST_FRAMES: Final = 216_000
_LONGEST_S: Final = 7200.0
"""Of a clip, as `validation` in the shipped params.yaml has them: a request's own word must not fill a server's memory."""

Columns = Mapping[str, NDArray[Any]]
"""One value per row of each column of the model's signature; `fps` may be left out."""


def to_tracks(clip_id: str, columns: Columns) -> ClipTracks:
    """The rows of one clip as the tracks that the classifier reads; what it does not look at is zero.

    A joint with a coordinate or score that is no number (JSON's null) was not seen, as in poses: score 0 at (0, 0).
    Raises UserError if the rows cannot be of a clip's ranked persons, as with frames beyond its end or a rank twice in one frame.
    """
    _check_facts(clip_id, columns)
    _check_rows(clip_id, columns)
    count = len(columns["frame"])
    components = np.zeros((count, len(COMPONENTS)), np.float32)
    components[:, COMPONENTS.index("movement")] = columns["movement"]
    points = _lists(clip_id, columns, "keypoints", 2 * JOINTS).reshape(count, JOINTS, 2)
    scores = _lists(clip_id, columns, "keypoint_scores", JOINTS)
    seen = np.isfinite(points).all(axis=2) & np.isfinite(scores)
    rank = columns["rank"].astype(np.int32)
    return ClipTracks(
        clip_id=clip_id, width=int(columns["width"][0]), height=int(columns["height"][0]), frame_count=int(columns["frame_count"][0]),
        fps=_frame_rate(columns), frame=columns["frame"].astype(np.int32), bboxes=np.zeros((count, 4), np.float32),
        scores=np.zeros(count, np.float32), keypoints=np.where(seen[..., None], points, np.float32(0)),
        keypoint_scores=np.where(seen, scores, np.float32(0)), track_id=rank, rank=rank,
        involvement=np.zeros(count, np.float32), components=components,
    )  # fmt: skip


def _check_facts(clip_id: str, columns: Columns) -> None:
    """Refuse what a clip as a whole cannot be."""
    for name in ("width", "height", "frame_count", "fps"):
        values = columns.get(name, np.zeros(1))
        if len(np.unique(values)) > 1:  # takes all that are no number for one
            raise _unfit(clip_id, name, "differs from row to row", "give every row of a clip the same")
        if name != "fps" and values[0] < 1:
            raise _unfit(clip_id, name, f"is {values[0]}", "give the video's own, from 1")
    frames, fps = columns["frame_count"][0], _frame_rate(columns)
    if not 0 <= fps < math.inf:
        raise _unfit(clip_id, "fps", f"is {fps:g}", "give the video's frames per second, or leave it out")
    if frames > _MOST_FRAMES or (fps > 0 and frames / fps > _LONGEST_S):
        remedy = f"cut it, a clip has at most {_MOST_FRAMES:,} frames and {_LONGEST_S:g} s"
        raise _unfit(clip_id, "frame_count", f"is {frames:,}" + (f" at {fps:g} frames/s" if fps else ""), remedy)


def _check_rows(clip_id: str, columns: Columns) -> None:
    """Refuse rows that no clip's ranked persons can have."""
    frame, rank, movement = columns["frame"], columns["rank"], columns["movement"]
    count = int(columns["frame_count"][0])
    if outside := frame[(frame < 0) | (frame >= count)].tolist():
        raise _unfit(
            clip_id, "frame", f"is {outside[0]} in a clip of {count} frames", "count them from 0 within the clip"
        )
    ranks = np.unique(rank)
    if ranks[0] != 1 or ranks[-1] != len(ranks):
        remedy = "number the persons from 1, the most involved, without a gap"
        raise _unfit(clip_id, "rank", f"takes {len(ranks)} values from {ranks[0]} to {ranks[-1]}", remedy)
    if np.unique(np.stack([frame, rank]), axis=1).shape[1] < len(frame):
        raise _unfit(clip_id, "rank", "comes twice in one frame", "give one row per person and frame")
    if strange := movement[~((movement >= 0) & (movement <= 1))].tolist():
        raise _unfit(clip_id, "movement", f"is {strange[0]}", "give the track's component, from 0 to 1")


def _lists(clip_id: str, columns: Columns, name: str, length: int) -> FloatArray:
    """A column of lists as `(R, length)` float32."""
    lists = columns[name].tolist()
    sizes = {len(one) if isinstance(one, list | tuple | np.ndarray) else 0 for one in lists}
    if sizes != {length}:
        wrong = min(sizes - {length})
        raise _unfit(
            clip_id, name, f"holds {wrong} numbers in a row", f"give {length}, of COCO's {JOINTS} joints in their order"
        )
    return np.array(lists, np.float32)


def _frame_rate(columns: Columns) -> float:
    """The clip's frames per second; 0 if that is not given, or no number."""
    rate = float(columns["fps"][0]) if "fps" in columns else 0.0
    return 0.0 if math.isnan(rate) else rate


def _unfit(clip_id: str, column: str, what: str, remedy: str) -> UserError:
    return UserError(f"Clip {clip_id} cannot be judged, `{column}` {what}: {remedy}.")
