"""From poses to ranked tracks, the same wherever a clip's people are followed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from violence_ops.params import Params
from violence_ops.records import ClipPoses, ClipTracks

if TYPE_CHECKING:
    from violence_ops.records import IntArray


def follow(poses: ClipPoses, params: Params, frames: IntArray) -> ClipTracks:
    """The people of a clip with their identities, short gaps filled, ranked; `frames` `(F,)` are those that were looked at.

    What is no person (a box without area, coordinates that are no numbers) is left out.
    """
    from violence_ops.involvement import rank
    from violence_ops.tracking import ByteTrack, fill

    poses = poses.usable()
    tracks = ClipTracks.from_poses(poses, ByteTrack(params.tracking).track(poses, frames))
    del poses  # of a long clip no more than needs be is held
    return rank(fill(tracks, frames, params.tracking.fill_gap_s), params.involvement, frames=frames)
