"""Following persons from frame to frame: ByteTrack on the boxes of the poses (SPEC 3)."""

from violence_ops.tracking.bytetrack import ByteTrack
from violence_ops.tracking.gaps import fill

__all__ = ["ByteTrack", "fill"]
