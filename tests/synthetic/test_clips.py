"""What users of synthetic clips rely on: true ground truth, determinism, balance, variety."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from violence_ops import synthetic


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), label=st.sampled_from(["Fight", "NonFight"]))
def test_the_truth_is_consistent_with_itself(seed: int, label: str) -> None:
    clip = synthetic.clip(seed, label, duration_s=1.0)
    frames, persons = clip.frame_count, len(clip.track_ids)
    assert clip.keypoints.shape == (frames, persons, 17, 2)
    assert clip.visibility.shape == (frames, persons, 17)
    assert clip.bboxes.shape == (frames, persons, 4)
    seen = clip.visibility > 0
    x, y = clip.keypoints[..., 0], clip.keypoints[..., 1]
    assert ((x >= 0) & (x < clip.width) & (y >= 0) & (y < clip.height))[seen].all()
    low, high = clip.bboxes[..., None, :2], clip.bboxes[..., None, 2:]
    slack = 0.03 * (high - low).max() + 1.0
    inside = ((clip.keypoints >= low - slack) & (clip.keypoints <= high + slack)).all(axis=-1)
    assert inside[seen].all()
    assert len(clip.fighters) == (2 if label == "Fight" else 0)
    assert set(clip.fighters) <= set(clip.track_ids.tolist())


def test_the_same_seed_gives_the_same_clip_and_another_gives_another() -> None:
    first, again, other = (synthetic.clip(seed, duration_s=1.0) for seed in (5, 5, 6))
    assert first.label == again.label
    assert np.array_equal(first.keypoints, again.keypoints)
    assert all(np.array_equal(a, b) for a, b in zip(first.frames(), again.frames(), strict=True))
    assert not np.array_equal(first.frame(0)[:64, :64], other.frame(0)[:64, :64])


def test_frames_are_pictures_of_the_promised_size() -> None:
    clip = synthetic.clip(11, duration_s=0.8)
    frames = list(clip.frames())
    assert len(frames) == clip.frame_count
    assert {frame.shape for frame in frames} == {(clip.height, clip.width, 3)}
    assert {frame.dtype for frame in frames} == {np.dtype(np.uint8)}


def test_people_are_drawn_where_the_truth_says() -> None:
    changed, unchanged = [], []
    for seed in range(40):
        clip = synthetic.clip(seed, duration_s=0.5)
        if clip.scene.noise or clip.scene.occluders or clip.scene.light.gain < 0.6:
            continue
        different = np.abs(clip.frame(3).astype(int) - clip.scene.background.astype(int)).sum(axis=2) > 20
        x, y = clip.keypoints[3][clip.visibility[3] == 2].astype(int).T
        changed.append(different[y, x].mean())
        unchanged.append(different.mean())
    assert len(changed) >= 3
    assert np.mean(changed) > 0.75
    assert np.mean(unchanged) < 0.35


def test_clips_of_a_group_share_the_scene_and_worlds_do_not() -> None:
    first, second = (synthetic.clip(seed, group=7, duration_s=0.8) for seed in (1, 2))
    assert first.source_group == second.source_group
    assert first.camera_id == second.camera_id
    assert np.array_equal(first.scene.background, second.scene.background)
    elsewhere = synthetic.clip(1, group=7, world=3, duration_s=0.8)
    assert elsewhere.scene.background.shape != first.scene.background.shape or not np.array_equal(
        elsewhere.scene.background, first.scene.background
    )


def test_clips_vary_in_size_rate_and_people_and_labels_are_balanced() -> None:
    clips = [synthetic.clip(seed, duration_s=0.4) for seed in range(60)]
    assert len({(clip.width, clip.height) for clip in clips}) >= 5
    assert len({clip.fps for clip in clips}) >= 5
    assert {len(clip.track_ids) for clip in clips} >= {2, 3, 4, 5}
    assert 15 <= sum(clip.label == "Fight" for clip in clips) <= 45


def test_bodies_keep_their_proportions() -> None:
    clip = synthetic.clip(3, "Fight", duration_s=1.0)
    for skeleton in clip.stage.skeletons:
        thigh = np.linalg.norm(skeleton.coco[:, 13] - skeleton.coco[:, 11], axis=-1)
        forearm = np.linalg.norm(skeleton.coco[:, 9] - skeleton.coco[:, 7], axis=-1)
        assert np.ptp(thigh) < 1e-6
        assert np.ptp(forearm) < 1e-6
        assert 1.2 < (thigh / forearm).mean() < 2.2
        assert skeleton.coco[..., 2].min() > -0.05


def test_an_unknown_label_is_refused_with_the_allowed_ones() -> None:
    with pytest.raises(ValueError, match="NonFight, Fight"):
        synthetic.clip(1, "fight")
