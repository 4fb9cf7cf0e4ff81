from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from violence_ops import synthetic
from violence_ops.params import TrackingParams, load_params
from violence_ops.records import JOINTS, ClipPoses
from violence_ops.tracking import ByteTrack

PARAMS = TrackingParams(
    high_score=0.5,
    new_track_score=0.55,
    match_iou=0.2,
    second_match_iou=0.4,
    keypoint_weight=0.85,
    buffer_s=1.0,
    min_hits=2,
    fill_gap_s=0.0,
)


def people(rows, fps=10.0, frame_count=100):
    """ClipPoses from (frame, x, y, score) of persons 40 px wide and 100 px high."""
    rows = np.array(rows, np.float64).reshape(-1, 4)
    count = len(rows)
    boxes = np.column_stack([rows[:, 1] - 20, rows[:, 2] - 50, rows[:, 1] + 20, rows[:, 2] + 50])
    return ClipPoses(
        clip_id="0" * 20, frame_count=frame_count, width=640, height=360, fps=fps,
        frame=rows[:, 0].astype(np.int32), bboxes=boxes.astype(np.float32), scores=rows[:, 3].astype(np.float32),
        keypoints=np.zeros((count, JOINTS, 2), np.float32), keypoint_scores=np.zeros((count, JOINTS), np.float32),
    )  # fmt: skip


def track(rows, frames=range(100), params=PARAMS, **facts):
    return ByteTrack(params).track(people(rows, **facts), np.array(frames, np.int32)).tolist()


def test_two_people_who_pass_each_other_keep_their_ids():
    rows = [(f, x, y, 0.9) for f in range(20) for x, y in ((100 + 20 * f, 150), (500 - 20 * f, 190))]
    ids = track(rows)
    assert ids == [1, 2] * 20


def test_ids_start_at_1_in_every_clip_in_order_of_appearance():
    rows = [(f, 100, 100, 0.9) for f in range(10)] + [(f, 400, 100, 0.9) for f in range(4, 10)]
    tracker = ByteTrack(PARAMS)
    for _ in range(2):
        ids = tracker.track(people(rows), np.arange(10, dtype=np.int32))
        assert ids.tolist() == [1] * 10 + [2] * 6


def test_someone_seen_once_gets_no_id_and_leaves_no_gap():
    rows = [(0, 50, 100, 0.9), *((f, 300, 100, 0.9) for f in range(1, 6))]
    assert track(rows) == [0, 1, 1, 1, 1, 1]


def test_a_weak_box_carries_a_known_person_on_but_starts_nobody():
    scores = [0.9, 0.9, 0.35, 0.35, 0.9]
    rows = [(f, 100, 100, score) for f, score in enumerate(scores)] + [(f, 400, 100, 0.4) for f in range(5)]
    assert track(rows) == [1] * 5 + [0] * 5


@pytest.mark.parametrize(
    ("gap", "expected"),
    [pytest.param(8, [1, 1, 1, 1, 1, 1], id="within"), pytest.param(12, [1, 1, 1, 2, 2, 2], id="beyond")],
)
def test_someone_who_comes_back_within_the_buffer_is_the_same_person(gap, expected):
    rows = [(f, 100, 100, 0.9) for f in (0, 1, 2, 2 + gap, 3 + gap, 4 + gap)]
    assert track(rows) == expected


def test_the_buffer_is_in_seconds_of_the_clip():
    rows = [(f, 100, 100, 0.9) for f in (0, 1, 2, 22, 23, 24)]
    assert track(rows, fps=25.0) == [1] * 6
    assert track(rows, fps=10.0) == [1, 1, 1, 2, 2, 2]


def test_a_thinned_clip_is_followed_as_well():
    walk = [(f, 100 + 6 * f, 150, 0.9) for f in range(0, 60, 2)]
    assert track(walk, frames=range(0, 60, 2), fps=30.0) == [1] * 30


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_boxes_that_are_none_get_no_id_and_harm_nobody(bad):
    poses = people([(f, x, 100, 0.9) for f in range(6) for x in (100, 300)])
    poses.bboxes[[3, 7]] = [bad, 0, 10, 10]
    poses.bboxes[5] = [50, 50, 50, 90]
    ids = ByteTrack(PARAMS).track(poses, np.arange(6, dtype=np.int32))
    assert (ids[[3, 5, 7]] == 0).all()
    assert (ids[::2] == 1).all()


@pytest.mark.parametrize("rows", [[], [(0, 100, 100, 0.9)]], ids=["nobody", "one frame"])
def test_clips_with_nothing_to_follow(rows):
    assert track(rows, frames=[0]) == [0] * len(rows)


def test_a_clip_of_which_no_frame_was_looked_at_has_no_ids():
    assert track([], frames=[]) == []


def test_two_hundred_people_in_a_frame_are_told_apart():
    rows = [(f, 60 * (person % 20), 120 * (person // 20), 0.9) for f in range(3) for person in range(200)]
    assert track(rows, frames=range(3)) == [*range(1, 201)] * 3


def test_the_defaults_are_those_of_params_yaml():
    defaults = load_params(Path(__file__).parents[2] / "params.yaml").tracking
    assert track([(f, 100, 100, 0.9) for f in range(5)], params=defaults) == [1] * 5


def test_frames_missing_in_the_middle_cost_nobody_his_id():
    rows = [(f, x + 4 * f, 150, 0.9) for f in (*range(8), *range(14, 22)) for x in (100, 400)]
    assert track(rows, frames=sorted({row[0] for row in rows})) == [1, 2] * 16


def figures(poses, seed=0):
    """The same people with joints: everybody a figure of his own, which moves with his box."""
    places = np.random.default_rng(seed).uniform(0, 1, (len(poses), JOINTS, 2))
    size = poses.bboxes[:, None, 2:] - poses.bboxes[:, None, :2]
    joints = (poses.bboxes[:, None, :2] + places * size).astype(np.float32)
    return replace(poses, keypoints=joints, keypoint_scores=np.full((len(poses), JOINTS), 0.9, np.float32))


def test_joints_tell_apart_who_meet_and_turn_back():
    """Two boxes come to lie upon each other and part again: those who passed look like those who turned, but for the joints."""
    way = [*range(0, 60, 10), 60, 60, *range(60, 0, -10)]
    poses = people([(f, x, 150, 0.9) for f, step in enumerate(way) for x in (100 + step, 220 - step)])
    joints = np.where(np.arange(len(poses))[:, None, None] % 2 == 0, [[-15.0, -40.0]], [[15.0, 40.0]])
    centre = (poses.bboxes[:, None, :2] + poses.bboxes[:, None, 2:]) / 2
    poses.keypoints[:] = centre + joints * np.linspace(0.2, 1, JOINTS)[:, None]
    poses.keypoint_scores[:] = 0.9
    ids = ByteTrack(PARAMS).track(poses, np.arange(len(way), dtype=np.int32))
    assert ids.tolist() == [1, 2] * len(way)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_joints_that_are_no_numbers_say_nothing(bad):
    rows = [(f, x, 150, 0.9) for f in range(10) for x in (100 + 12 * f, 220 - 12 * f)]
    poses = figures(people(rows))
    poses.keypoints[::3, :9] = bad
    poses.keypoint_scores[::4, 4:12] = bad
    poses.keypoint_scores[1, :] = -1.0
    ids = ByteTrack(PARAMS).track(poses, np.arange(10, dtype=np.int32))
    assert sorted(ids.tolist()) == [1] * 10 + [2] * 10


FIGHTS = range(700, 710)


def switches(ids, who):
    """How often somebody's id is another than the last one he had."""
    changes = 0
    for person in np.unique(who):
        his = ids[(who == person) & (ids > 0)]
        changes += int((his[1:] != his[:-1]).sum())
    return changes


def fight(seed):
    """The true people of a fight with a little noise, now and then missed, as poses; whose each row is; the frames."""
    clip, rng = synthetic.clip(seed, "Fight", duration_s=3.0), np.random.default_rng(seed)
    boxes = clip.bboxes[::2]
    size = boxes[..., 2:] - boxes[..., :2]
    frame, person = np.nonzero((size.min(-1) > 6) & (rng.random(boxes.shape[:2]) > 0.05))
    size = size[frame, person]
    count = len(frame)
    poses = ClipPoses(
        clip_id="0" * 20, frame_count=clip.frame_count, width=clip.width, height=clip.height, fps=clip.fps,
        frame=(2 * frame).astype(np.int32), scores=np.full(count, 0.9, np.float32),
        bboxes=(boxes[frame, person] + rng.normal(0, 0.04, (count, 4)) * np.tile(size, 2)).astype(np.float32),
        keypoints=(clip.keypoints[::2][frame, person] + rng.normal(0, 0.03, (count, JOINTS, 2)) * size[:, None, 1:]).astype(np.float32),
        keypoint_scores=np.where(clip.visibility[::2][frame, person] == 2, 0.8, 0.2).astype(np.float32),
    )  # fmt: skip
    return poses, person, np.arange(0, clip.frame_count, 2, dtype=np.int32)


def test_fighters_keep_their_ids_better_with_their_joints():
    defaults = load_params(Path(__file__).parents[2] / "params.yaml").tracking
    boxes_alone = defaults.model_copy(update={"keypoint_weight": 0.0})
    with_joints, without = 0, 0
    for seed in FIGHTS:
        poses, who, frames = fight(seed)
        with_joints += switches(ByteTrack(defaults).track(poses, frames), who)
        without += switches(ByteTrack(boxes_alone).track(poses, frames), who)
    assert with_joints < 0.6 * without


anybody = st.lists(
    st.tuples(st.integers(0, 12), st.floats(-50, 700), st.floats(-50, 400), st.floats(0, 1)), max_size=40
)


@settings(max_examples=60, deadline=None)
@given(anybody)
def test_whatever_comes_ids_are_dense_unique_in_a_frame_and_repeatable(rows):
    rows = sorted(rows, key=lambda row: row[0])
    poses, frames = figures(people(rows)), np.arange(13, dtype=np.int32)
    ids = ByteTrack(PARAMS).track(poses, frames)
    known = np.unique(ids[ids > 0])
    assert known.tolist() == list(range(1, len(known) + 1))
    first_seen = [int(poses.frame[ids == number].min()) for number in known]
    assert first_seen == sorted(first_seen)
    for frame in frames:
        here = ids[(poses.frame == frame) & (ids > 0)]
        assert len(np.unique(here)) == len(here)
    assert all((ids == n).sum() >= PARAMS.min_hits for n in known)
    assert np.array_equal(ids, ByteTrack(PARAMS).track(poses, frames))


@settings(max_examples=60, deadline=None)
@given(anybody, st.randoms(use_true_random=False))
def test_the_order_of_the_people_in_a_frame_does_not_matter(rows, random):
    rows = sorted({row[:3]: row for row in rows}.values())
    poses = figures(people(rows))
    order = sorted(range(len(rows)), key=lambda index: (rows[index][0], random.random()))
    columns = ("frame", "bboxes", "scores", "keypoints", "keypoint_scores")
    shuffled = replace(poses, **{name: getattr(poses, name)[order] for name in columns})
    frames = np.arange(13, dtype=np.int32)
    assert np.array_equal(ByteTrack(PARAMS).track(poses, frames)[order], ByteTrack(PARAMS).track(shuffled, frames))
