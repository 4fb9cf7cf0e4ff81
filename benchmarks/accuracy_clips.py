"""Labelled clips for `benchmarks.accuracy`, as the pipeline sees them: real surveillance clips, and drawn ones.

Poses are kept in the temporary folder by the hash of what found them, so that a second run takes seconds and new weights are
looked at anew; tracking and ranking are done again every time.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import kept
from violence_ops import synthetic
from violence_ops.errors import UserError
from violence_ops.params import Params
from violence_ops.records import ClipPoses, ClipRecord, ClipTracks, IntArray, sampled_frames
from violence_ops.stages.nightly.extract_poses import open_source
from violence_ops.stages.nightly.following import follow
from violence_ops.video import decode

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SYNTHETIC_WORLD = 41
"""No weights, start or preset of the project was made with clips of this world."""


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
    found, source = [], None
    for number, record in enumerate(records):
        frames = sampled_frames(record, params.pose.max_frames_per_second)
        path = kept.folder("accuracy") / f"{kept.found_by(params)}-{record.clip_id}.npz"
        if not path.is_file():
            source = source or open_source(params.pose)
            poses = ClipPoses.from_frames(record, frames, kept.people(source, list(pictures(record, frames))))
            kept.save(path, kept.rows_of(poses))
            print(f"\rextracted: clip {number + 1} of {len(records)} ", end="", file=sys.stderr, flush=True)
        tracks = follow(kept.poses_of(record, kept.load(path)), params, frames)
        found.append(Example(record.label or "", record.source_group, tracks))
    return found
