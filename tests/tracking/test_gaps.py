"""Gaps in tracks are filled linearly up to a limit, marked, and nothing else is touched."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from violence_ops.records import COMPONENTS, JOINTS, ClipTracks
from violence_ops.tracking import fill

FPS = 10.0


def walker(frames: list[int], track: int = 1, speed: float = 3.0) -> dict[str, np.ndarray]:
    """Someone who walks at a steady `speed` px a frame."""
    frame = np.array(frames, np.int32)
    x = speed * frame.astype(np.float32) + 100 * track
    joints = np.stack([np.repeat(x[:, None], JOINTS, 1), np.tile(np.arange(JOINTS, dtype=np.float32), (len(x), 1))], 2)
    return {
        "frame": frame, "track_id": np.full(len(x), track, np.int32), "keypoints": joints,
        "bboxes": np.stack([x - 5, x * 0, x + 5, x * 0 + 40], 1).astype(np.float32),
        "keypoint_scores": np.full((len(x), JOINTS), 0.8, np.float32), "scores": np.full(len(x), 0.7, np.float32),
        "rank": np.full(len(x), track, np.int32), "involvement": np.full(len(x), 0.1 * track, np.float32),
        "components": np.full((len(x), len(COMPONENTS)), 0.1 * track, np.float32),
    }  # fmt: skip


def tracks(*people: dict[str, np.ndarray]) -> ClipTracks:
    joined = {name: np.concatenate([person[name] for person in people]) for name in people[0]}
    order = np.lexsort((joined["track_id"], joined["frame"]))
    rows = {name: values[order] for name, values in joined.items()}
    return ClipTracks(clip_id="0" * 20, frame_count=60, width=640, height=360, fps=FPS, **rows)


EVERY = np.arange(60, dtype=np.int32)


def test_a_steady_walker_is_filled_where_he_was():
    gone, whole = tracks(walker([0, 1, 2, 6, 7])), tracks(walker(list(range(8))))
    filled = fill(gone, EVERY, 0.5)
    assert filled.frame.tolist() == list(range(8))
    assert filled.interpolated.tolist() == [False] * 3 + [True] * 3 + [False] * 2
    np.testing.assert_allclose(filled.keypoints, whole.keypoints, rtol=1e-5)
    np.testing.assert_allclose(filled.bboxes, whole.bboxes, rtol=1e-5)
    assert filled.rank.tolist() == [1] * 8


@pytest.mark.parametrize(("limit_s", "rows"), [(0.0, 4), (0.39, 4), (0.4, 7), (9.0, 7)])
def test_only_gaps_up_to_the_limit_are_filled(limit_s: float, rows: int) -> None:
    assert len(fill(tracks(walker([0, 1, 5, 6])), EVERY, limit_s)) == rows


def test_only_frames_that_were_looked_at_are_filled_and_nothing_before_or_after():
    filled = fill(tracks(walker([6, 8, 14])), np.arange(0, 60, 2, dtype=np.int32), 2.0)
    assert filled.frame.tolist() == [6, 8, 10, 12, 14]


def test_a_joint_that_one_side_does_not_have_stays_unseen_and_no_score_is_made_better():
    one = walker([0, 4])
    one["keypoint_scores"][0, 3], one["keypoint_scores"][1, 4], one["scores"][0] = 0.0, 0.3, 0.4
    filled = fill(tracks(one), EVERY, 1.0)
    middle = filled.frame == 2
    assert filled.keypoint_scores[middle, 3].item() == 0
    assert not filled.keypoints[middle, 3].any()
    assert filled.keypoint_scores[middle, 4].item() == np.float32(0.3)
    assert filled.scores[middle].item() == np.float32(0.4)


@given(st.lists(st.sets(st.integers(0, 59), min_size=1, max_size=60), min_size=1, max_size=4), st.floats(0, 6))
def test_filling_keeps_what_was_seen_and_leaves_no_short_gap(frames: list[set[int]], limit_s: float) -> None:
    before = tracks(*(walker(sorted(some), track + 1) for track, some in enumerate(frames)))
    after = fill(before, EVERY, limit_s)
    seen = ~after.interpolated
    for name in ("frame", "track_id", "keypoints", "bboxes", "scores", "involvement"):
        assert np.array_equal(getattr(after, name)[seen], getattr(before, name))
    assert len(np.unique(np.stack([after.frame, after.track_id]), axis=1).T) == len(after)
    assert np.array_equal(np.lexsort((after.track_id, after.frame)), np.arange(len(after)))
    for track in np.unique(after.track_id):
        gaps = np.diff(after.frame[after.track_id == track])
        assert not ((gaps > 1) & (gaps <= limit_s * FPS)).any()


def test_filling_twice_is_filling_once():
    once = fill(tracks(walker([0, 3, 4, 20]), walker([1, 2, 9], 2)), EVERY, 1.0)
    assert fill(once, EVERY, 1.0) is once
