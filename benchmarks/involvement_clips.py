"""Synthetic fights with bystanders for `benchmarks.involvement`: with their true poses, and with really extracted ones.

Drawing and extraction are kept in the temporary folder, by the hash of what made them: new weights are looked at anew.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import kept
from violence_ops import synthetic
from violence_ops.params import Params
from violence_ops.pose.quality import AREA_SHARE, oks
from violence_ops.records import JOINTS, ClipPoses, ClipRecord, ClipTracks, FramePoses, IntArray, sampled_frames
from violence_ops.stages.nightly.extract_poses import open_source
from violence_ops.tracking import ByteTrack
from violence_ops.tracking.boxes import iou
from violence_ops.video import decode

TUNING_WORLDS, REPORT_WORLD = (31, 33), 34
"""No weights of the project were trained in any of them; presets were chosen in the first, and are reported in the last."""
_OVERLAP = 0.3  # IoU of boxes that may be of one person


@dataclass(frozen=True)
class Fight:
    """One clip: who is who (`tracks`, ranked by nobody yet), the frames looked at, and which tracks are of which fighter.

    `fighters` are two sets of track ids: one id each with true poses; the pieces that the tracker made of a fighter otherwise.
    """

    seed: int
    tracks: ClipTracks
    frames: IntArray
    fighters: tuple[frozenset[int], frozenset[int]]
    actions: tuple[str, ...]


def with_true_poses(count: int, world: int, params: Params) -> list[Fight]:
    """The first `count` fights of a world with at least one bystander in view half of the time."""
    return [_true(seed, arrays, clip) for seed, clip, arrays in _truths(count, world, params)]


def with_extracted_poses(count: int, world: int, params: Params) -> list[Fight]:
    """The same fights as the pipeline sees them: encoded, decoded, poses found by `params.pose`, followed by our tracker.

    A track is of the true person whose joints its joints are most like (OKS), most often, of those whose boxes overlap (IoU of
    0.3 or more): of two who hold each other the boxes do not tell.
    """
    found, source = [], None
    folder, mark = kept.folder("involvement"), kept.found_by(params)
    for number, (seed, clip, arrays) in enumerate(_truths(count, world, params)):
        path = folder / f"{synthetic.code_sha256()[:12]}-{mark}-{world}-{seed}.npz"
        if not path.is_file():
            source = source or open_source(params.pose)
            frames = arrays["sampled"]
            people = _looked_at(source, seed, world, frames)
            poses = ClipPoses.from_frames(clip, frames, people)
            kept.save(path, kept.rows_of(poses))
        print(f"\rextracted: clip {number + 1} of {count} ", end="", file=sys.stderr, flush=True)
        found.append(_followed(seed, clip, arrays, kept.load(path), params))
    print(file=sys.stderr)
    return found


def _truths(count: int, world: int, params: Params) -> Iterator[tuple[int, ClipRecord, dict[str, Any]]]:
    """Seed, record and truth of the clips that count."""
    seed = found = 0
    while found < count:
        path = (
            kept.folder("involvement")
            / f"{synthetic.code_sha256()[:12]}-{params.pose.max_frames_per_second:g}-{world}-{seed}.npz"
        )
        if not path.is_file():
            kept.save(path, _truth(seed, world, params))
        arrays = kept.load(path)
        if arrays["bystanders"] > 0:
            found += 1
            yield seed, _record(arrays), arrays
        seed += 1


def _truth(seed: int, world: int, params: Params) -> dict[str, Any]:
    clip = synthetic.clip(seed, "Fight", world=world)
    record = ClipRecord(
        clip_id="", sha256="", batch_id="", source_path="", source_group="", fps=clip.fps, frame_count=clip.frame_count
    )
    frames = sampled_frames(record, params.pose.max_frames_per_second)
    boxes = clip.bboxes[frames]
    in_view = (boxes[..., 3] > boxes[..., 1]) & (boxes[..., 2] > boxes[..., 0])
    others = ~np.isin(clip.track_ids, clip.fighters)
    frame, person = np.nonzero(in_view)
    return {
        "size": [clip.width, clip.height, clip.frame_count], "fps": clip.fps, "sampled": frames,
        "bystanders": int((in_view.mean(axis=0)[others] >= 0.5).sum()), "fighters": clip.fighters, "actions": clip.actions,
        "frame": frames[frame], "bboxes": boxes[frame, person], "scores": np.ones(len(frame)), "track_id": clip.track_ids[person],
        "keypoints": clip.keypoints[frames[frame], person],
        "keypoint_scores": (clip.visibility[frames[frame], person] > 0).astype(np.float32),
    }  # fmt: skip


def _record(arrays: dict[str, Any]) -> ClipRecord:
    width, height, count = (int(value) for value in arrays["size"])
    return ClipRecord(
        clip_id="0" * 20, sha256="", batch_id="", source_path="", source_group="", fps=float(arrays["fps"]),
        width=width, height=height, frame_count=count,
    )  # fmt: skip


def _true(seed: int, arrays: dict[str, Any], clip: ClipRecord) -> Fight:
    tracks = ClipTracks.from_poses(kept.poses_of(clip, arrays), arrays["track_id"])
    first, second = (frozenset({int(one)}) for one in arrays["fighters"])
    return Fight(seed, tracks, arrays["sampled"], (first, second), tuple(map(str, arrays["actions"])))


def _looked_at(source: Any, seed: int, world: int, frames: IntArray) -> list[FramePoses]:
    clip = synthetic.clip(seed, "Fight", world=world)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"clip.{clip.scene.container}"
        synthetic.write_clip(clip, path)
        pictures = list(decode.frames(path, list(frames)))
    return kept.people(source, pictures)


def _followed(seed: int, clip: ClipRecord, truth: dict[str, Any], rows: dict[str, Any], params: Params) -> Fight:
    poses, frames = kept.poses_of(clip, rows), truth["sampled"]
    tracks = ClipTracks.from_poses(poses, ByteTrack(params.tracking).track(poses, frames))
    persons = len(truth["actions"])
    votes = np.zeros((int(tracks.track_id.max(initial=0)) + 1, persons + 1), int)
    for frame in frames:
        here, there = np.flatnonzero(tracks.frame == frame), np.flatnonzero(truth["frame"] == frame)
        if len(here) and len(there):
            boxes = truth["bboxes"][there].astype(float)
            possible = iou(tracks.bboxes[here].astype(float), boxes) >= _OVERLAP
            areas = AREA_SHARE * (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
            every = np.ones((len(there), JOINTS), bool)
            alike = np.where(possible, oks(tracks.keypoints[here], truth["keypoints"][there], every, areas), -1.0)
            whose = np.where(possible.any(axis=1), truth["track_id"][there][alike.argmax(axis=1)], 0)
            np.add.at(votes, (tracks.track_id[here], whose), 1)
    votes[:, 0] = 0
    owner = np.where(votes.max(axis=1) > 0, votes.argmax(axis=1), 0)
    first, second = (frozenset(np.flatnonzero(owner == one).tolist()) for one in truth["fighters"])
    return Fight(seed, tracks, frames, (first, second), tuple(map(str, truth["actions"])))
