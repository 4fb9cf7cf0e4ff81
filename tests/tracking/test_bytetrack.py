from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from violence_ops.params import TrackingParams
from violence_ops.records import JOINTS, ClipPoses
from violence_ops.tracking import ByteTrack

PARAMS = TrackingParams(
    high_score=0.5, new_track_score=0.55, match_iou=0.2, second_match_iou=0.4, keypoint_weight=0.5, buffer_s=1.0, min_hits=2
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


def test_two_hundred_people_in_a_frame_are_told_apart():
    rows = [(f, 60 * (person % 20), 120 * (person // 20), 0.9) for f in range(3) for person in range(200)]
    assert track(rows, frames=range(3)) == [*range(1, 201)] * 3


def test_the_defaults_are_those_of_params_yaml():
    from violence_ops.params import load_params

    defaults = load_params(Path(__file__).parents[2] / "params.yaml").tracking
    assert track([(f, 100, 100, 0.9) for f in range(5)], params=defaults) == [1] * 5


anybody = st.lists(
    st.tuples(st.integers(0, 12), st.floats(-50, 700), st.floats(-50, 400), st.floats(0, 1)), max_size=40
)


@settings(max_examples=60, deadline=None)
@given(anybody)
def test_whatever_comes_ids_are_dense_unique_in_a_frame_and_repeatable(rows):
    rows = sorted(rows, key=lambda row: row[0])
    poses, frames = people(rows), np.arange(13, dtype=np.int32)
    ids = ByteTrack(PARAMS).track(poses, frames)
    known = np.unique(ids[ids > 0])
    assert known.tolist() == list(range(1, len(known) + 1))
    assert [int(np.flatnonzero(ids == n)[0]) for n in known] == sorted(int(np.flatnonzero(ids == n)[0]) for n in known)
    for frame in frames:
        here = ids[(poses.frame == frame) & (ids > 0)]
        assert len(np.unique(here)) == len(here)
    assert all((ids == n).sum() >= PARAMS.min_hits for n in known)
    assert np.array_equal(ids, ByteTrack(PARAMS).track(poses, frames))
