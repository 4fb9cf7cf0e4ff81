"""One synthetic clip: its scene, its ground truth, and its frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from violence_ops.records import LABELS
from violence_ops.synthetic import render, truth
from violence_ops.synthetic.cast import cast
from violence_ops.synthetic.scene import Scene, scene


@dataclass(frozen=True)
class SyntheticClip:
    """A drawn clip with everything that is true about it.

    Arrays over F frames and P persons: keypoints (F, P, 17, 2) px, COCO-17; visibility (F, P, 17), 2 visible,
    1 occluded, 0 outside; bboxes (F, P, 4) xyxy px cut at the border, zeros out of view; track_ids (P,) 1 … P.
    `fighters` are the track ids of the two who fight; empty for NonFight. `actions` names what each person does.
    """

    label: str
    source_group: str
    camera_id: str
    fps: float
    width: int
    height: int
    frame_count: int
    keypoints: np.ndarray
    visibility: np.ndarray
    bboxes: np.ndarray
    track_ids: np.ndarray
    fighters: tuple[int, ...]
    actions: tuple[str, ...]
    scene: Scene = field(repr=False)
    stage: render.Stage = field(repr=False)

    def frame(self, index: int) -> np.ndarray:
        """Frame `index` as (H, W, 3) uint8 BGR."""
        return render.draw(self.stage, index)

    def frames(self) -> Iterator[np.ndarray]:
        """All frames, one at a time, as (H, W, 3) uint8 BGR."""
        for index in range(self.frame_count):
            yield self.frame(index)


def clip(
    seed: int, label: str | None = None, *, group: int | None = None, world: int = 0, duration_s: float = 2.0
) -> SyntheticClip:
    """A clip of about `duration_s` seconds (0.75 to 1.25 times as long), the same for the same arguments.

    `label` is Fight or NonFight, drawn when None. Clips of one `group` (drawn from 1,000 when None) in one `world`
    share scene, camera, background and people; another world has other groups. Only the motion depends on the label.

    Raises:
        ValueError: the label is unknown.
    """
    rng = np.random.default_rng([seed, 2])
    drawn = LABELS[int(rng.integers(2))]
    label = drawn if label is None else label
    if label not in LABELS:
        raise ValueError(f"label must be one of {', '.join(LABELS)}, not {label!r}")
    drawn_group = int(rng.integers(1000))
    where = scene(world, drawn_group if group is None else group)
    frame_count = max(8, round(duration_s * rng.uniform(0.75, 1.25) * where.fps))
    roles, fighting = cast(where, label, np.arange(frame_count) / where.fps, rng)
    order = rng.permutation(len(roles))
    roles = [roles[index] for index in order]
    fighters = tuple(sorted(position + 1 for position, index in enumerate(order) if index < fighting))
    skeletons = [role.skeleton for role in roles]
    points, depths = truth.keypoints(where.camera, skeletons)
    surfaces = [role.surface for role in roles]
    props = [prop for role in roles for prop in role.props]
    return SyntheticClip(
        label=label,
        source_group=where.source_group,
        camera_id=where.camera_id,
        fps=where.fps,
        width=where.camera.width,
        height=where.camera.height_px,
        frame_count=frame_count,
        keypoints=points.astype(np.float32),
        visibility=truth.visibility(where.camera, skeletons, points, depths, where.occluders),
        bboxes=truth.boxes(where.camera, surfaces),
        track_ids=np.arange(1, len(roles) + 1, dtype=np.int32),
        fighters=fighters,
        actions=tuple(role.action for role in roles),
        scene=where,
        stage=render.prepare(where, surfaces + props, skeletons, seed),
    )
