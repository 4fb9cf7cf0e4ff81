"""Clips of a synthetic world for `benchmarks.tracking`: who was where in truth, and what a tracker gets to see of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

from benchmarks import kept
from violence_ops import synthetic
from violence_ops.params import Params
from violence_ops.records import JOINTS, ClipPoses, ClipRecord, FloatArray, FramePoses, IntArray, sampled_frames
from violence_ops.stages.nightly.extract_poses import open_source
from violence_ops.tracking.boxes import iou

TUNING_WORLD, REPORTED_WORLD = 31, 32
"""No weights were trained on either. The tracker's defaults were chosen on the first; the benchmark reports the second."""

DURATION_S = 4.0
_MIN_SIDE_PX, _MIN_VISIBLE = 6.0, 4
_CROSSING_IOU = 0.2
_FOUND = "found_"  # before the names of arrays of extracted poses


@dataclass(frozen=True)
class Scene:
    """One clip. Over the F frames looked at and P persons: bboxes `(F, P, 4)` px, keypoints `(F, P, 17, 2)` px, visible
    `(F, P, 17)`, present `(F, P)` = can be seen well enough to be asked for. `extracted`: what the pose weights find."""

    record: ClipRecord
    frames: IntArray
    bboxes: FloatArray
    keypoints: FloatArray
    visible: np.ndarray
    present: np.ndarray
    fight: bool
    extracted: ClipPoses | None = None

    @property
    def crossing(self) -> bool:
        """Whether two persons' boxes overlap at some time."""
        others = ~np.eye(self.present.shape[1], dtype=bool)
        return any((iou(boxes, boxes)[others] > _CROSSING_IOU).any() for boxes in self.bboxes.astype(np.float64))


def scenes(world: int, count: int, params: Params, *, extract: bool) -> Iterator[Scene]:
    """Clips 0 to `count` - 1 of a world, Fight and NonFight in turn; what is found in them is kept in the temporary folder."""
    mark = kept.found_by(params) if extract else "truth"
    source = None
    for number in range(count):
        path = kept.folder("tracking") / f"{mark}-{world}-{DURATION_S:g}-{number}.npz"
        if not path.exists():
            if extract and source is None:
                source = open_source(params.pose)
            _store(_drawn(number, world, params, source), path)
        yield _stored(path)


def _drawn(number: int, world: int, params: Params, source: Any) -> Scene:
    """A clip, made anew; its pictures are looked at by `source`, if there is one."""
    label = ("NonFight", "Fight")[number % 2]
    clip = synthetic.clip(2**32 + 1000 * world + number, label, group=number, world=world, duration_s=DURATION_S)
    record = ClipRecord(
        clip_id=f"{world}-{number}", sha256="", batch_id="", source_path="", source_group=clip.source_group,
        width=clip.width, height=clip.height, fps=clip.fps, frame_count=clip.frame_count,
    )  # fmt: skip
    frames = sampled_frames(record, params.pose.max_frames_per_second)
    boxes, visible = clip.bboxes[frames], clip.visibility[frames] == 2
    present = ((boxes[..., 2:] - boxes[..., :2]).min(-1) >= _MIN_SIDE_PX) & (visible.sum(-1) >= _MIN_VISIBLE)
    found = None
    if source is not None:
        found = ClipPoses.from_frames(record, frames, source.estimate([clip.frame(int(index)) for index in frames]))
    return Scene(record, frames, boxes, clip.keypoints[frames], visible, present, label == "Fight", found)


def _store(scene: Scene, path: Path) -> None:
    arrays = {name: getattr(scene, name) for name in ("frames", "bboxes", "keypoints", "visible", "present", "fight")}
    if scene.extracted is not None:
        arrays |= {f"{_FOUND}{name}": rows for name, rows in kept.rows_of(scene.extracted).items()}
    facts = [scene.record.width, scene.record.height, scene.record.fps, scene.record.frame_count]
    kept.save(path, arrays | {"clip_id": scene.record.clip_id, "facts": np.array(facts, float)})


def _stored(path: Path) -> Scene:
    data = kept.load(path)
    width, height, fps, frame_count = data["facts"].tolist()
    record = ClipRecord(
        clip_id=str(data["clip_id"]), sha256="", batch_id="", source_path="", source_group="", width=int(width),
        height=int(height), fps=fps, frame_count=int(frame_count),
    )  # fmt: skip
    found = None
    if f"{_FOUND}frame" in data:
        rows = {name.removeprefix(_FOUND): values for name, values in data.items() if name.startswith(_FOUND)}
        found = kept.poses_of(record, rows)
    names = ("frames", "bboxes", "keypoints", "visible", "present")
    return Scene(record, *(data[name] for name in names), bool(data["fight"]), found)


def disturbed(scene: Scene, seed: int = 0) -> ClipPoses:
    """The true people as a middling detector might report them, the same for the same seed.

    Boxes move by 4 % of their size and joints by 3 % of the height, hidden ones by 10 %, half of it slowly; 4 % of the
    persons are missed anywhere, half of those who stand behind somebody else for a while. One frame in five shows a box
    with nobody in it, for up to three frames. The more of a person is hidden, the weaker the score.
    """
    rng = np.random.default_rng([seed, *scene.record.clip_id.encode()])
    count, people = scene.present.shape
    boxes = scene.bboxes.astype(np.float64)
    size = np.maximum(boxes[..., 2:] - boxes[..., :2], 1.0)
    hidden = 1 - scene.visible.mean(-1)
    boxes = boxes + 0.04 * _wobble(rng, (count, people, 4)) * np.tile(size, 2)
    spread = np.where(scene.visible, 0.03, 0.1)[..., None] * size[..., 1, None, None]
    joints = scene.keypoints + spread * _wobble(rng, (count, people, JOINTS, 2))
    behind = gaussian_filter1d(rng.normal(size=(count, people)), 3.0, axis=0, mode="nearest") > 0
    missed = (rng.random((count, people)) < 0.04) | (behind & (_covered(scene.bboxes) > 0.45))
    scores = np.clip(rng.normal(0.85 - 0.6 * hidden, 0.08), 0.3, 0.99)
    sure = np.where(
        scene.visible, rng.uniform(0.5, 0.95, scene.visible.shape), rng.uniform(0.1, 0.5, scene.visible.shape)
    )
    kept = scene.present & ~missed
    frames = [
        FramePoses(joints[i, kept[i]], sure[i, kept[i]], boxes[i, kept[i]], scores[i, kept[i]]) for i in range(count)
    ]
    for start in np.flatnonzero(rng.random(count) < 0.1):
        ghost = _ghost(rng, scene, joints[start], boxes[start])
        for index in range(start, min(count, start + int(rng.integers(1, 4)))):
            frames[index] = FramePoses(
                *(np.concatenate(pair) for pair in zip(_parts(frames[index]), ghost, strict=True))
            )
    return ClipPoses.from_frames(scene.record, scene.frames, frames)


def _parts(poses: FramePoses) -> tuple[FloatArray, ...]:
    return poses.keypoints, poses.keypoint_scores, poses.bboxes, poses.scores


def _wobble(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Noise of unit variance: half of it new in every frame, half of it slow."""
    slow = gaussian_filter1d(rng.normal(size=shape), 3.0, axis=0, mode="nearest")
    return np.asarray((rng.normal(size=shape) + slow / max(float(slow.std()), 1e-9)) / np.sqrt(2))


def _covered(bboxes: FloatArray) -> np.ndarray:
    """`(F, P)` the largest share of a person's box that lies in the box of somebody who stands lower in the picture."""
    low = np.maximum(bboxes[:, :, None, :2], bboxes[:, None, :, :2])
    high = np.minimum(bboxes[:, :, None, 2:], bboxes[:, None, :, 2:])
    own = np.prod(np.maximum(bboxes[..., 2:] - bboxes[..., :2], 1.0), axis=-1)
    shared = np.prod(np.maximum(high - low, 0.0), axis=-1) / own[..., None]
    return np.asarray(np.where(bboxes[:, None, :, 3] > bboxes[:, :, None, 3], shared, 0.0).max(axis=-1))


def _ghost(rng: np.random.Generator, scene: Scene, joints: np.ndarray, boxes: np.ndarray) -> tuple[FloatArray, ...]:
    """Somebody who is not there: a person of this frame elsewhere, or beside himself, with a lowish score."""
    one = int(rng.integers(len(boxes)))
    far = rng.uniform(-0.5, 0.5, 2) * (scene.record.width or 0, scene.record.height or 0)
    near = rng.normal(0, 0.3, 2) * (boxes[one, 2:] - boxes[one, :2])
    shift = near if rng.random() < 0.5 else far
    score = rng.uniform(0.3, 0.65, 1)
    return (joints[one] + shift)[None], np.full((1, JOINTS), 0.4), (boxes[one] + np.tile(shift, 2))[None], score
