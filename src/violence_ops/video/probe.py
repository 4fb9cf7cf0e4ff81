"""Validate one video (SPEC 1): `validate` is the door for a single file; `sandbox.Sandbox` keeps its child for many."""

from __future__ import annotations

from pathlib import Path

from violence_ops.params import ValidationParams
from violence_ops.video.facts import VideoFacts
from violence_ops.video.sandbox import Sandbox


def validate(path: Path, limits: ValidationParams) -> VideoFacts:
    """What the video is, found by decoding all of it in a killable child process bounded by `limits`.

    Raises Rejected with a reason code of SPEC 1 if it cannot be used.
    """
    with Sandbox(limits) as sandbox:
        return sandbox.validate(path)
