"""Arrays that benchmarks keep in the temporary folder, so that a second run takes seconds, and poses as they are kept there."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from violence_ops.params import Params
from violence_ops.records import ClipPoses, ClipRecord, FramePoses
from violence_ops.stages.nightly.extract_poses import source_sha256

_ROWS = ("frame", "bboxes", "scores", "keypoints", "keypoint_scores")


def folder(name: str) -> Path:
    """This user's folder of that name in the temporary folder."""
    path = Path(tempfile.gettempdir()) / f"violence-ops-{name}-{os.getuid()}"
    path.mkdir(exist_ok=True)
    return path


def found_by(params: Params) -> str:
    """A hash of what finds poses: with other weights or parameters they are looked for anew."""
    return hashlib.sha256(f"{source_sha256(params.pose)}{params.pose.model_dump()}".encode()).hexdigest()[:12]


def save(path: Path, arrays: dict[str, Any]) -> None:
    temporary = path.with_suffix(".part.npz")
    np.savez_compressed(temporary, **arrays)
    temporary.rename(path)


def load(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def rows_of(poses: ClipPoses) -> dict[str, Any]:
    """Poses as arrays; `poses_of` reads them back."""
    return {name: getattr(poses, name) for name in _ROWS}


def poses_of(record: ClipRecord, rows: dict[str, Any]) -> ClipPoses:
    return ClipPoses(
        clip_id=record.clip_id, frame_count=record.frame_count or 0, width=record.width or 0, height=record.height or 0,
        fps=record.fps or 0.0, **{name: rows[name] for name in _ROWS},
    )  # fmt: skip


def people(source: Any, pictures: list[np.ndarray]) -> list[FramePoses]:
    """Who is in each picture, eight pictures at a time."""
    return [found for start in range(0, len(pictures), 8) for found in source.estimate(pictures[start : start + 8])]
