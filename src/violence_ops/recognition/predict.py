"""A clip's verdict: all its windows in one forward pass, then the vote (SPEC 8)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from violence_ops.errors import UserError
from violence_ops.recognition import vote
from violence_ops.recognition.pictures import Look
from violence_ops.recognition.skeleton import Skeleton, from_tracks
from violence_ops.records import PREDICTIONS_SCHEMA, ClipTracks, FloatArray, IntArray, Label

if TYPE_CHECKING:
    from violence_ops.recognition.package import Package


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPrediction:
    """The verdict on a clip of W windows.

    start_frame, end_frame `(W,)` frames of the video, end exclusive; probabilities `(W,)` of Fight; weights `(W,)` in the
    vote. `probability` is that of the clip: Fight if it is above `threshold`. A clip without persons has one window of weight 0.
    `pieces` are the votes of a long clip's pieces, to say where in it something may be; the verdict is on all of it.
    """

    clip_id: str
    start_frame: IntArray
    end_frame: IntArray
    probabilities: FloatArray
    weights: FloatArray
    probability: float
    threshold: float
    pieces: list[vote.Piece] = field(default_factory=list)

    @property
    def verdict(self) -> Label:
        return "Fight" if self.probability > self.threshold else "NonFight"

    @property
    def shows_nobody(self) -> bool:
        """Whether no window has any weight: NonFight is then said for want of anything to judge."""
        return not self.weights.any()

    @property
    def confidence(self) -> float:
        """How sure the verdict is, in [0.5, 1], by the distance to the threshold (`vote.confidence`); 0.5 if nobody was found."""
        return 0.5 if self.shows_nobody else vote.confidence(self.probability, self.threshold)

    def to_dict(self) -> dict[str, Any]:
        """The clip's verdict and its windows as plain values."""
        columns = zip(self.start_frame, self.end_frame, self.probabilities, self.weights, strict=True)
        return {
            "clip_id": self.clip_id, "verdict": self.verdict, "probability": round(self.probability, 6),
            "confidence": round(self.confidence, 6), "threshold": self.threshold,
            "windows": [
                {"start_frame": int(s), "end_frame": int(e), "probability": round(float(p), 6), "weight": round(float(w), 6)}
                for s, e, p, w in columns
            ],
            "pieces": [asdict(piece) | {"probability": round(piece.probability, 6)} for piece in self.pieces],
        }  # fmt: skip

    def to_table(self, model_version: str) -> pa.Table:
        """The rows in `PREDICTIONS_SCHEMA`."""
        count = len(self.probabilities)
        columns = {
            "clip_id": [self.clip_id] * count, "model_version": [model_version] * count, "window": np.arange(count, dtype=np.int32),
            "start_frame": self.start_frame, "end_frame": self.end_frame, "probability": self.probabilities.astype(np.float32),
            "weight": self.weights.astype(np.float32), "clip_probability": np.full(count, self.probability, np.float32),
            "threshold": np.full(count, self.threshold, np.float32), "verdict": [self.verdict] * count,
        }  # fmt: skip
        return pa.table(columns, schema=PREDICTIONS_SCHEMA)


def predict_clip(package: Package, tracks: ClipTracks, look: Look | None = None) -> ClipPrediction:
    """The verdict on a clip from its tracks, with the windows, persons and threshold that the package was trained with.

    `look` gives the frames to families that look at pictures; without it they raise UserError. Others never call it.
    """
    cut = package.settings.windows
    skeleton = from_tracks(tracks, cut.persons, cut.frames_per_second)
    if look and package.asked:
        skeleton = package.asked.of(skeleton, tracks.fps, look)
    return predict_skeleton(package, skeleton)


def predict_skeleton(package: Package, skeleton: Skeleton) -> ClipPrediction:
    """The verdict on a clip from the skeletons of its most involved persons. Raises UserError if a window's is not a number."""
    if skeleton.is_empty:
        cuts, probabilities, weights = [(0, skeleton.frames)], np.zeros(1, np.float32), np.zeros(1, np.float32)
    else:
        windows = package.recogniser.windows(skeleton)
        cuts = list(windows.cuts)
        probabilities = package.recogniser.probabilities(windows.inputs)
        if not np.isfinite(probabilities).all():
            raise UserError(
                f"The model gives no number for clip {skeleton.clip_id}: its weights or the clip's size and joints are damaged."
            )
        weights = vote.confidences(probabilities, windows.presence)
    frames = np.rint(np.array(cuts) * skeleton.step).astype(np.int32)
    return ClipPrediction(
        clip_id=skeleton.clip_id, start_frame=frames[:, 0], end_frame=frames[:, 1], probabilities=probabilities,
        weights=weights, probability=vote.clip_probability(probabilities, weights), threshold=package.threshold,
        pieces=vote.pieces(np.array(skeleton.starts), frames, probabilities, weights),
    )  # fmt: skip
