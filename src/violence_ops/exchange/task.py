"""A clip as a person is asked about it, and the answer that comes back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from violence_ops.records import ClipTracks, FloatArray, IntArray, Label


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A question about one clip.

    `review` is the id of the export that asks; `sha256` the digest of the clip's original bytes; `video` and `overlay` name the
    files that people look at. `verdict` is what the model `model` says, with its `confidence` in [0, 1]; `label` is the present label.
    """

    review: str
    clip_id: str
    sha256: str
    video: str
    overlay: str | None
    label: Label | None
    verdict: Label
    confidence: float
    model: str
    reasons: tuple[str, ...]
    tracks: ClipTracks

    @property
    def why(self) -> str:
        """For the person: what the model and the label say."""
        known = f"labelled {self.label}" if self.label else "without a label"
        return f"{known}; model {self.model} says {self.verdict} ({self.confidence:.2f}): {', '.join(self.reasons)}"


@dataclass(frozen=True, slots=True)
class Vote:
    """What one person said of a clip. `by` tells the tool's users (or CVAT's tasks) apart without naming them; what is before its
    dot, if it has one, may be all that another file of the tool knows of the same person. `at` is the `moment` at which it was
    last said. Both are empty if the file does not say both."""

    label: Label
    by: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What people said of one clip: a vote each. `where` names the file, for messages. Nothing of it has been checked yet."""

    review: str
    clip_id: str
    sha256: str
    votes: tuple[Vote, ...]
    where: str


def moment(text: str | None) -> str:
    """A time in ISO form as one that sorts: UTC, to the microsecond; empty if it is none."""
    try:
        found = datetime.fromisoformat(text or "")
        at = found if found.tzinfo else found.replace(tzinfo=UTC)
        return at.astimezone(UTC).isoformat(timespec="microseconds")
    except (ValueError, OverflowError):
        return ""


def majority(votes: Counter[Label]) -> Label | None:
    """What most say; None if as many say the one as the other."""
    first, *others = votes.most_common()
    return None if others and others[0][1] == first[1] else first[0]


def runs(tracks: ClipTracks) -> Iterator[tuple[int, int, list[IntArray]]]:
    """Each track's id and best rank (0: none) with its rows, in pieces: a new one begins where the person was out of sight for a
    sampled frame or more."""
    frames = np.unique(tracks.frame)
    step = int(np.gcd.reduce(np.diff(frames))) if len(frames) > 1 else 1
    for track_id, best in zip(*tracks.at_their_best(), strict=True):
        rows = np.flatnonzero(tracks.track_id == track_id)
        yield (
            int(track_id),
            int(tracks.rank[best]),
            np.split(rows, np.flatnonzero(np.diff(tracks.frame[rows]) > step) + 1),
        )


def boxes(tracks: ClipTracks) -> FloatArray:
    """The boxes `(R, 4)` xyxy px, finite and within the frame."""
    return _within(tracks.bboxes.reshape(-1, 2, 2), tracks).reshape(-1, 4)


def joints(tracks: ClipTracks) -> FloatArray:
    """The joints `(R, 17, 2)` px, finite and within the frame."""
    return _within(tracks.keypoints, tracks)


def _within(points: FloatArray, tracks: ClipTracks) -> FloatArray:
    size = np.array([tracks.width, tracks.height], np.float32)
    return np.clip(np.nan_to_num(points, nan=0.0), 0, size)
