"""Synthetic clips of articulated people with ground truth (label, keypoints, boxes, tracks, fighters)."""

from violence_ops.synthetic.clips import SyntheticClip, clip
from violence_ops.synthetic.encode import write_clip

__all__ = ["SyntheticClip", "clip", "write_clip"]
