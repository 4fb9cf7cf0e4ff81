"""How long, how surely and how steadily each track was seen, and whether that is enough to rank it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from violence_ops.involvement.regions import Float
from violence_ops.params import InvolvementParams
from violence_ops.records import ClipTracks, IntArray

OBSTACLES: Final = (None, "short", "weak", "flickering")
"""Why a track is not ranked; None if it is."""


@dataclass(frozen=True, slots=True)
class Sightings:
    """Of T tracks, by id: ids `(T,)`; seconds `(T,)` seen; strength `(T,)` in [0, 1], mean score; flicker `(T,)` in [0, 1].

    Flicker is the share of a track's rows, but for its first, that follow a gap: 0 if it is there in every frame of its
    span, 1 if it is there in every other one. A single gap counts once, however long it is. Rows that were filled in
    count nowhere.
    """

    ids: IntArray
    seconds: Float
    strength: Float
    flicker: Float

    @classmethod
    def of(cls, tracks: ClipTracks, frames: IntArray) -> Self:
        """`frames` `(F,)` are those that were looked at, those without anybody included."""
        rows = np.flatnonzero((tracks.track_id > 0) & ~tracks.interpolated)
        rows = rows[np.lexsort((tracks.frame[rows], tracks.track_id[rows]))]
        ids, track = np.unique(tracks.track_id[rows], return_inverse=True)
        count = np.maximum(np.bincount(track, minlength=len(ids)), 1)
        spacing = float(np.median(np.diff(frames))) if len(frames) > 1 else 1.0
        place = np.searchsorted(np.union1d(frames, tracks.frame), tracks.frame[rows])
        after_gap = (np.diff(track) == 0) & (np.diff(place) > 1)
        return cls(
            ids=ids,
            seconds=count * spacing / (tracks.fps or 1.0),
            strength=np.bincount(track, tracks.scores[rows], len(ids)) / count,
            flicker=np.bincount(track[1:][after_gap], minlength=len(ids)) / np.maximum(count - 1, 1),
        )

    def obstacles(self, params: InvolvementParams) -> NDArray[np.intp]:
        """`(T,)` which of `OBSTACLES` keeps a track from being ranked, 0 = none; of several the first."""
        failed = np.stack(
            [
                self.seconds < params.min_track_s - 1e-6,
                self.strength < params.min_mean_score,
                self.flicker > params.max_flicker + 1e-6,
            ]
        )
        return np.where(failed.any(axis=0), failed.argmax(axis=0) + 1, 0)
