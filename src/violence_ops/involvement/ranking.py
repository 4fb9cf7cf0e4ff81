"""From tracked persons to tracks in the order of their involvement (SPEC 5, docs/involvement.md)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from violence_ops.blocks import in_blocks
from violence_ops.involvement import components as parts
from violence_ops.involvement import pairs, regions
from violence_ops.involvement.regions import Float
from violence_ops.involvement.sightings import Sightings
from violence_ops.params import InvolvementParams
from violence_ops.records import COMPONENTS, ClipTracks, IntArray, piece_starts

_SPEC: Final = slice(0, 5)
_OWN: Final = (*COMPONENTS[:5], "limbs")
"""What a person does whoever else is there; the rest of the composite is between two."""


def rank(tracks: ClipTracks, params: InvolvementParams, *, frames: IntArray) -> ClipTracks:
    """`tracks` with components, involvement and rank filled in; whatever these held before is not looked at.

    `frames` `(F,)` are the frames that were looked at, those without anybody included. In each piece of a long clip
    (`records.piece_starts`) people are compared anew: what somebody does counts as much in an hour's recording as in ten seconds
    of it. A component of a track is the mean over its rows in the piece; persistence is its share of the piece's frames; closeness,
    contact and partner are those of its best pair. Rank 1 is the most involved; equal ones in the order of their ids; 0 for a track
    that was seen too shortly, weakly or unsteadily in the whole clip (`Sightings`). Rows that were filled in get what their track
    has and change nothing. Rows with track_id 0 take no part and get zeros. The order of the persons within a frame does not
    matter.
    """
    seen = np.flatnonzero((tracks.track_id > 0) & ~tracks.interpolated)
    seen = seen[np.lexsort((tracks.track_id[seen], tracks.frame[seen]))]
    ids = np.unique(tracks.track_id[seen])
    rankable = Sightings.of(tracks, frames).obstacles(params) == 0
    rows = len(tracks)
    result = replace(
        tracks, rank=np.zeros(rows, np.int32), involvement=np.zeros(rows, np.float32),
        components=np.zeros((rows, len(COMPONENTS)), np.float32),
    )  # fmt: skip
    starts = piece_starts(tracks.frame_count, tracks.fps)
    of_row, of_frame = (np.searchsorted(starts, each, side="right") - 1 for each in (tracks.frame, frames))
    for piece in range(len(starts)):
        inside = seen[of_row[seen] == piece]
        followed = np.flatnonzero((of_row == piece) & np.isin(tracks.track_id, tracks.track_id[inside]))
        _rank_piece(result, inside, followed, rankable, ids, frames[of_frame == piece], params)
    return result


def _rank_piece(
    result: ClipTracks, seen: parts.Rows, followed: parts.Rows, rankable: parts.Flags, ids: IntArray, frames: IntArray,
    params: InvolvementParams,
) -> None:  # fmt: skip
    """Fill in the rows `followed` of a piece from those that were `seen`; `rankable` is of the clip's tracks `ids`."""
    own, track = np.unique(result.track_id[seen], return_inverse=True)
    can_be = rankable[np.searchsorted(ids, own)]
    clip = _Clip(result, seen, track, can_be, frames, params)
    weights = regions.weight_vector(params.region_weights)
    values = clip.values(_adapted(clip, weights) if params.adaptive_regions else weights)
    involvement = clip.involvement(values)
    whose = np.searchsorted(own, result.track_id[followed])
    result.components[followed] = values[whose]
    result.involvement[followed] = involvement[whose]
    result.rank[followed] = _ranks(involvement, can_be)[whose]


class _Clip:
    """What the region weights do not change, computed once: rows in the order of time, all components but position."""

    def __init__(
        self,
        tracks: ClipTracks,
        rows: parts.Rows,
        track: parts.Rows,
        rankable: parts.Flags,
        frames: IntArray,
        params: InvolvementParams,
    ) -> None:
        self.params, self.frames, self.tracks, self.rankable = params, len(frames), len(rankable), rankable
        self.track, self.width, self.height, self.fps = track, tracks.width, tracks.height, tracks.fps or 1.0
        bboxes = tracks.bboxes[rows].astype(np.float64)
        self.box_centres = (bboxes[:, :2] + bboxes[:, 2:]) / 2
        keypoints, keypoint_scores = tracks.keypoints[rows], tracks.keypoint_scores[rows]
        valid = in_blocks(parts.valid_keypoints, keypoints, keypoint_scores)
        self.centres = in_blocks(parts.centres, keypoints, valid)
        heights = self._heights(bboxes[:, 3] - bboxes[:, 1])
        scale = heights / params.reference_height_px if params.scale_normalised else np.ones(len(rows))
        self.movement = parts.movement(self.centres, track, params.movement_px * scale, params.movement_history)
        self.interaction = parts.interaction(self.centres, tracks.frame[rows], params.interaction_px * scale)
        self.detection = in_blocks(parts.detection, keypoint_scores, valid)
        self.presence = np.bincount(track, minlength=self.tracks)
        seconds = tracks.frame[rows] / self.fps
        limbs = parts.limbs(keypoints, valid, seconds, track, params.limb_speed_heights * heights)
        self.limbs = self._mean_where_known(limbs)
        self.pairs = pairs.pairs(
            tracks.frame[rows], track, bboxes, tracks.scores[rows], keypoints, valid, heights, frames=self.frames,
            closeness_reach=params.closeness_heights, contact_reach=params.contact_heights,
        )  # fmt: skip

    def _heights(self, heights: Float) -> Float:
        """`(R,)` px, at least a little: the median over the track, which does not shrink with a fall or behind a table."""
        if not len(heights):
            return heights
        order = np.argsort(self.track, kind="stable")
        bounds = np.cumsum(np.bincount(self.track, minlength=self.tracks))[:-1]
        medians = np.array([np.median(group) for group in np.split(heights[order], bounds)])
        return np.asarray(np.maximum(medians, 1e-3)[self.track])

    def _mean_where_known(self, values: Float) -> Float:
        """`(tracks,)` mean over the rows that have a value; 0 without any."""
        known = np.isfinite(values)
        count = np.bincount(self.track[known], minlength=self.tracks)
        return np.asarray(np.bincount(self.track[known], values[known], self.tracks) / np.maximum(count, 1))

    def values(self, weights: Float) -> Float:
        """`(tracks, 10)` components of every track, in the order of `COMPONENTS`, for the region `weights` `(5,)`."""
        shares = self.params.composite_weights
        spec = self._spec_values(weights)
        persistence = np.minimum(self.presence / max(self.frames, 1), 1.0)
        own = np.clip(np.column_stack([spec, self.limbs]), 0.0, 1.0)
        own_shares = np.array([getattr(shares, name) for name in _OWN])
        alone = own @ own_shares / max(own_shares.sum(), 1e-12)
        between = (shares.closeness, shares.contact, shares.partner)
        closeness, contact, partner = pairs.partners(self.pairs, alone, between, self.rankable).T
        columns = (*own[:, _SPEC].T, persistence, closeness, contact, own[:, -1], partner)
        return np.clip(np.stack(columns, axis=1), 0.0, 1.0)

    def _spec_values(self, weights: Float) -> Float:
        """`(tracks, 5)` the components of SPEC 5 but persistence."""
        shares = self.params.composite_weights
        by_frame = in_blocks(lambda some: regions.frame_scores(some, self.width, self.height, weights), self.centres)
        partial = shares.position * by_frame + shares.movement * self.movement
        partial += shares.interaction * self.interaction + shares.detection * self.detection
        consistency = parts.consistency(partial, self.track, shares.consistency, self.params.consistency_history)
        columns = (by_frame, self.movement, self.interaction, self.detection, consistency)
        means = [np.bincount(self.track, column, self.tracks) / np.maximum(self.presence, 1) for column in columns]
        if self.params.position_form == "track":
            means[0] = regions.track_scores(
                self.box_centres, self.width, self.height, weights, self.track, self.tracks, self.frames
            )
        return np.stack(means, axis=1)

    def involvement(self, values: Float) -> Float:
        """`(tracks,)` in [0, 1]: the preset's weighted sum of the components, with persistence mixed in."""
        shares = np.array([self.params.involvement_shares[name] for name in COMPONENTS])
        return np.clip(values @ shares, 0.0, 1.0)


def _adapted(clip: _Clip, weights: Float) -> Float:
    """`(5,)` region weights drawn towards where the top tracks of the clip are.

    What is observed is the share of the top tracks' rows in each region: it lies in [0, 1] like a weight. Top are the first of
    those that can be ranked: who was seen for a moment, or hardly, does not say where the clip's action is.
    """
    params = clip.params
    for _ in range(params.adaptive_rounds):
        top = _order(clip.involvement(clip.values(weights)), clip.rankable)[: params.adaptive_tracks]
        points = clip.box_centres[np.isin(clip.track, top)]
        if not len(points):
            break
        observed = regions.observed_shares(points, clip.width, clip.height)
        moved = (1 - params.adaptive_rate) * weights + params.adaptive_rate * observed
        change, weights = np.abs(moved - weights).max(), moved
        if change < params.adaptive_tolerance:
            break
    return weights


def _ranks(involvement: Float, rankable: parts.Flags) -> IntArray:
    """`(tracks,)` 1 for the largest involvement, and so on; 0 where not rankable."""
    ranks = np.zeros(len(involvement), np.int32)
    order = _order(involvement, rankable)
    ranks[order] = np.arange(1, len(order) + 1)
    return ranks


def _order(involvement: Float, rankable: parts.Flags) -> parts.Rows:
    """The rankable tracks, the most involved first."""
    order = np.argsort(-involvement, kind="stable")
    return np.asarray(order[rankable[order]])
