"""Synthetic clips of articulated people with ground truth (label, keypoints, boxes, tracks, fighters)."""

import hashlib
from functools import cache
from pathlib import Path

from violence_ops.synthetic.clips import SyntheticClip, clip
from violence_ops.synthetic.encode import write_clip

__all__ = ["SyntheticClip", "clip", "code_sha256", "write_clip"]


@cache
def code_sha256() -> str:
    """The SHA-256, in hex, of the code that draws: another one may draw other clips of the same numbers."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
