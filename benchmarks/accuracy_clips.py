"""Labelled clips for `benchmarks.accuracy`, as the pipeline sees them: real surveillance clips, and drawn ones.

Poses are kept in the temporary folder by the hash of what found them, so that a second run takes seconds and new weights are
looked at anew; tracking and ranking are done again every time.
"""

from __future__ import annotations

import csv
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from violence_ops import synthetic
from violence_ops.errors import UserError
from violence_ops.involvement import rank
from violence_ops.params import Params
from violence_ops.records import ClipPoses, ClipRecord, ClipTracks, FramePoses, IntArray, sampled_frames
from violence_ops.stages.extract_poses import open_source, source_sha256
from violence_ops.tracking import ByteTrack
from violence_ops.video import decode

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SYNTHETIC_WORLD = 41
"""No weights, start or preset of the project was made with clips of this world."""
_ROWS = ("frame", "bboxes", "scores", "keypoints", "keypoint_scores")


@dataclass(frozen=True)
class Example:
    """A labelled clip and who is in it."""

    label: str
    source_group: str
    tracks: ClipTracks

    @property
    def is_fight(self) -> bool:
        return self.label == "Fight"


def surveillance(params: Params, folder: Path) -> list[Example]:
    """The clips that `labels.csv` in `folder` lists (path, label, source_group, width, height, fps, frames).

    Raises UserError if there is no such file.
    """
    listing = folder / "labels.csv"
    if not listing.is_file():
        raise UserError(f"There is no {listing}: give the folder of the Surveillance Camera Fight Dataset with --data.")
    with listing.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    records = [
        ClipRecord(
            clip_id=Path(row["path"]).stem, sha256="", batch_id="", source_path=row["path"], label=_label(row["label"]),
            source_group=row["source_group"], width=int(row["width"]), height=int(row["height"]), fps=float(row["fps"]),
            frame_count=int(row["frames"]),
        )
        for row in rows
    ]  # fmt: skip

    def pictures(record: ClipRecord, frames: IntArray) -> Iterator[np.ndarray]:
        yield from decode.frames(folder / record.source_path, list(frames))

    return _examples(records, params, pictures)


def drawn(params: Params, count: int, world: int = SYNTHETIC_WORLD) -> list[Example]:
    """Synthetic clips, fights and others in turn, four of a source group; encoded and decoded like any other."""
    records = []
    for number in range(count):
        clip = _drawn(number, world)
        records.append(ClipRecord(
            clip_id=f"world{world}-{number}", sha256="", batch_id="", source_path=str(number), label=_label(clip.label),
            source_group=clip.source_group, width=clip.width, height=clip.height, fps=clip.fps,
            frame_count=clip.frame_count,
        ))  # fmt: skip

    def pictures(record: ClipRecord, frames: IntArray) -> Iterator[np.ndarray]:
        clip = _drawn(int(record.source_path), world)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"clip.{clip.scene.container}"
            synthetic.write_clip(clip, path)
            yield from decode.frames(path, list(frames))

    return _examples(records, params, pictures)


def _label(text: str) -> Any:
    return "Fight" if text == "Fight" else "NonFight"


def _drawn(number: int, world: int) -> synthetic.SyntheticClip:
    return synthetic.clip(number, ("Fight", "NonFight")[number % 2], group=number // 4, world=world)


def _examples(
    records: list[ClipRecord], params: Params, pictures: Callable[[ClipRecord, IntArray], Iterable[np.ndarray]]
) -> list[Example]:
    mark = hashlib.sha256(f"{source_sha256(params.pose)}{params.pose.model_dump()}".encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"violence-ops-accuracy-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    found, source = [], None
    for number, record in enumerate(records):
        frames = sampled_frames(record, params.pose.max_frames_per_second)
        path = folder / f"{mark}-{record.clip_id}.npz"
        if not path.is_file():
            source = source or open_source(params.pose)
            poses = ClipPoses.from_frames(record, frames, _people(source, list(pictures(record, frames))))
            _save(path, {name: getattr(poses, name) for name in _ROWS})
            print(f"\rextracted: clip {number + 1} of {len(records)} ", end="", file=sys.stderr, flush=True)
        found.append(Example(record.label or "", record.source_group, _followed(record, frames, _load(path), params)))
    return found


def _people(source: Any, pictures: list[np.ndarray]) -> list[FramePoses]:
    return [people for start in range(0, len(pictures), 8) for people in source.estimate(pictures[start : start + 8])]


def _followed(record: ClipRecord, frames: IntArray, rows: dict[str, Any], params: Params) -> ClipTracks:
    """Tracked and ranked as `annotate` does it."""
    poses = ClipPoses(
        clip_id=record.clip_id, frame_count=record.frame_count or 0, width=record.width or 0, height=record.height or 0,
        fps=record.fps or 0.0, **{name: rows[name] for name in _ROWS},
    )  # fmt: skip
    tracks = ClipTracks.from_poses(poses, ByteTrack(params.tracking).track(poses, frames))
    return rank(tracks, params.involvement, frames=frames)


def _save(path: Path, arrays: dict[str, Any]) -> None:
    temporary = path.with_suffix(".part.npz")
    np.savez_compressed(temporary, **arrays)
    temporary.rename(path)


def _load(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
