"""Whole mini-batches at once give the numbers of MMAction2's transforms, window by window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from violence_ops.params import load_params
from violence_ops.recognition import vectorised
from violence_ops.recognition.export import annotation
from violence_ops.recognition.model import Settings, load_config
from violence_ops.recognition.skeleton import Skeleton

# isort: split
from mmaction.registry import TRANSFORMS
from mmengine.dataset import Compose

PARAMS = Path(__file__).parents[2] / "params.yaml"
STREAMS = ["joint", "bone", "joint_motion", "bone_motion"]


def skeleton(seed: int, frames: int, persons: int = 2) -> Skeleton:
    """Jittering persons; joints, whole persons and whole frames are missing here and there."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.05, 1, (persons, frames, 17)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.2] = 0
    scores[-1, : frames // 3] = 0
    scores[:, frames // 2] = 0
    points = rng.uniform(0, 300, (persons, frames, 17, 2)).astype(np.float32)
    points[scores <= 0] = 0
    return Skeleton(
        clip_id=str(seed), width=640, height=360, step=1.0, intensity=0.5, keypoints=points, keypoint_scores=scores
    )  # fmt: skip


def config(size: int = 30) -> Any:
    params = load_params(PARAMS, {"train.streams": STREAMS, "windows.size": size})
    return load_config(Settings.of(params.train, params.windows))


def theirs(pipeline: list[Any], one: Skeleton, cut: tuple[int, int]) -> Any:
    item = annotation(one, "Fight", *cut) | {"modality": "Pose", "start_index": 0, "test_mode": True}
    return Compose(pipeline)(item)["inputs"].numpy()


def ours(pipeline: list[Any], pieces: list[tuple[Skeleton, tuple[int, int]]]) -> Any:
    known = vectorised.read(pipeline)
    assert known is not None
    windows = known.prepare(vectorised.gathered([vectorised.piece(one, *cut) for one, cut in pieces]))
    return known.inputs(windows, np.random.default_rng(0))


@pytest.mark.parametrize("lengths", [(30, 30, 30), (30, 7, 1, 22), (45, 20, 30), (61, 95, 30)],
                         ids=["equal", "short", "adaptive", "long"])  # fmt: skip
@pytest.mark.parametrize("side", ["train", "test"])
def test_with_augmentation_off_the_inputs_are_mmaction2s_own(lengths: tuple[int, ...], side: str) -> None:
    chosen = config()
    pipeline = chosen.test_pipeline
    if side == "train":
        pipeline = [step for step in chosen.train_pipeline if step.type not in ("Flip", "RandomRotateScale")]
        pipeline = [step | {"test_mode": True} if step.type == "UniformSampleFrames" else step for step in pipeline]
    pieces = [(skeleton(i, n + 4), (2, n + 2)) for i, n in enumerate(lengths)]
    expected = np.stack([theirs(pipeline, *piece) for piece in pieces])
    np.testing.assert_allclose(ours(pipeline, pieces), expected, rtol=0, atol=1e-6)


def test_a_window_without_persons_and_a_person_too_few_are_as_in_mmaction2() -> None:
    pipeline = config().test_pipeline
    full = skeleton(1, 30)
    empty = Skeleton(clip_id="e", width=640, height=360, step=1.0, intensity=0.0, keypoints=full.keypoints * 0,
                     keypoint_scores=full.keypoint_scores * 0)  # fmt: skip
    for one in (empty, skeleton(2, 30, persons=1)):
        np.testing.assert_allclose(
            ours(pipeline, [(one, (0, 30))])[0], theirs(pipeline, one, (0, 30)), rtol=0, atol=1e-6
        )


def test_a_certain_flip_is_mmaction2s() -> None:
    chosen = config()
    pipeline = [step for step in chosen.train_pipeline if step.type != "RandomRotateScale"]
    pipeline = [step | {"flip_ratio": 1.0} if step.type == "Flip" else step for step in pipeline]
    pieces = [(skeleton(i, 30), (0, 30)) for i in range(3)]
    expected = np.stack([theirs(pipeline, *piece) for piece in pieces])
    np.testing.assert_allclose(ours(pipeline, pieces), expected, rtol=0, atol=1e-6)


def test_turning_and_scaling_keep_angles_and_are_within_their_bounds() -> None:
    pipeline = [
        step for step in config().train_pipeline if step.type in ("RandomRotateScale", "GenSkeFeat", "PackActionInputs")
    ]
    one = skeleton(3, 30)
    points = one.keypoints - 150
    one = Skeleton(
        clip_id="a",
        width=640,
        height=360,
        step=1.0,
        intensity=0.5,
        keypoints=points,
        keypoint_scores=one.keypoint_scores + 1,
    )
    found = ours(pipeline, [(one, (0, 30))] * 50)[:, 0, ..., :2]
    before, after = points[..., 0] + 1j * points[..., 1], found[..., 0] + 1j * found[..., 1]
    change = (after / before).reshape(50, -1)
    assert np.ptp(np.abs(change), axis=1).max() < 1e-3
    assert np.ptp(np.angle(change), axis=1).max() < 1e-3
    assert 0.85 <= np.abs(change).min() < 0.9 < 1.1 < np.abs(change).max() <= 1.15
    assert np.radians(8) < np.abs(np.angle(change)).max() <= np.radians(10.01)


def test_random_frames_of_a_long_window_come_in_order_one_of_each_stretch() -> None:
    steps = ("GenSkeFeat", "UniformSampleFrames", "PackActionInputs")
    one = skeleton(1, 95)
    one.keypoints[:] = np.arange(95)[:, None, None]  # every frame says which it is
    pipeline = [step for step in config().train_pipeline if step.type in steps]
    found = ours(pipeline, [(one, (0, 95))] * 20)[:, 0, 0, :, 0, 0]
    edges = np.arange(31) * 95 // 30
    assert ((found >= edges[:-1]) & (found < edges[1:])).all()
    assert len(np.unique(found, axis=0)) > 10


def test_a_pipeline_with_a_step_that_is_not_known_is_left_to_mmaction2() -> None:
    assert "GeneratePoseTarget" in TRANSFORMS.module_dict
    assert vectorised.read([{"type": "PoseDecode"}, {"type": "GeneratePoseTarget"}]) is None
