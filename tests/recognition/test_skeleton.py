"""Windows, and the skeletons of the most involved persons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from violence_ops.params import WindowParams
from violence_ops.recognition.skeleton import Skeleton, from_tracks, presence, read_table, resampled, to_table, windows
from violence_ops.records import COMPONENTS, ClipTracks, piece_starts


def fixed(size: int = 30, stride: int = 10) -> WindowParams:
    return WindowParams(mode="fixed", size=size, stride=stride, persons=2)


def tracks(frame: list[int], rank: list[int], frame_count: int = 40, movement: float = 0.6) -> ClipTracks:
    """Rows at the given frames and ranks; row i has all joints at (i + 1, i + 2)."""
    count = len(frame)
    row = np.arange(count, dtype=np.float32)
    return ClipTracks(
        clip_id="0" * 20, frame_count=frame_count, width=640, height=360, fps=30.0, frame=np.array(frame, np.int32),
        bboxes=np.zeros((count, 4), np.float32), scores=np.ones(count, np.float32),
        keypoints=np.broadcast_to(np.stack([row + 1, row + 2], -1)[:, None], (count, 17, 2)).astype(np.float32),
        keypoint_scores=np.full((count, 17), 0.75, np.float32), track_id=np.array(rank, np.int32) + 1,
        rank=np.array(rank, np.int32), involvement=np.zeros(count, np.float32),
        components=np.full((count, len(COMPONENTS)), movement, np.float32),
    )  # fmt: skip


def still(frames: int, intensity: float = 0.5, starts: tuple[int, ...] = (0,)) -> Skeleton:
    """A clip without anybody."""
    keypoints = np.zeros((1, frames, 17, 2), np.float32)
    return Skeleton(
        clip_id="0" * 20, width=640, height=360, step=1.0, intensity=intensity, keypoints=keypoints,
        keypoint_scores=keypoints[..., 0], starts=starts,
    )  # fmt: skip


@given(st.integers(1, 2000), st.integers(4, 60), st.data())
def test_windows_cover_every_frame_and_never_leave_the_clip(frames: int, size: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, size))
    cuts = windows(still(frames), fixed(size, stride))
    seen = np.zeros(frames, bool)
    for start, end in cuts:
        assert 0 <= start < end <= frames
        assert end - start == min(size, frames)
        seen[start:end] = True
    assert seen.all()
    assert cuts == sorted(set(cuts))


@given(st.integers(1, 4000), st.floats(5.0, 60.0), st.sampled_from([1.0, 2.0, 1.7]))
def test_no_window_reaches_from_one_piece_of_a_clip_into_the_next(frames: int, fps: float, step: float) -> None:
    starts = piece_starts(frames, fps)
    sampled = max(1, int(-(-frames // step)))
    cuts = windows(replace(still(sampled, starts=tuple(starts.tolist())), step=step), fixed())
    assert sorted(set(cuts)) == cuts
    assert {frame for start, end in cuts for frame in range(start, end)} == set(range(sampled))
    for start, end in cuts:
        first, last = (int(np.searchsorted(starts, frame * step + 1e-6, side="right")) for frame in (start, end - 1))
        assert first == last
    assert len(starts) == 1 or np.diff(starts).min() >= 7 * fps, "a piece is long enough to rank in"


@pytest.mark.parametrize(
    ("intensity", "size", "stride"), [(0.81, 20, 5), (0.8, 30, 10), (0.51, 30, 10), (0.5, 45, 15), (0.0, 45, 15)]
)
def test_adaptive_windows_are_shorter_where_there_is_more_movement(intensity: float, size: int, stride: int) -> None:
    cuts = windows(still(200, intensity), WindowParams(mode="adaptive", size=30, stride=10, persons=2))
    assert cuts[0] == (0, size)
    assert cuts[1][0] == stride


def test_persons_come_in_order_of_rank_on_the_frames_that_were_looked_at() -> None:
    found = from_tracks(tracks(frame=[0, 0, 2, 4], rank=[2, 1, 1, 0], frame_count=9), persons=2)
    assert found.step == 2
    assert found.keypoints.shape == (2, 5, 17, 2)
    assert found.keypoints[0, :, 0, 0].tolist() == [2, 3, 0, 0, 0]
    assert found.keypoints[1, :, 0, 0].tolist() == [1, 0, 0, 0, 0]
    assert found.intensity == pytest.approx(0.6)


def test_a_clip_without_ranked_persons_is_empty_and_keeps_its_length() -> None:
    assert from_tracks(tracks([], [], frame_count=12), 2).is_empty
    unranked = from_tracks(tracks([0, 1], [0, 0], frame_count=12), 2)
    assert unranked.is_empty
    assert unranked.frames == 12


def test_skeletons_survive_their_table() -> None:
    before = from_tracks(tracks([0, 2, 4, 4], [1, 1, 1, 2], frame_count=50), persons=2)
    after = read_table(to_table([before]))[before.clip_id]
    assert np.array_equal(before.keypoints, after.keypoints)
    assert np.array_equal(before.keypoint_scores, after.keypoint_scores)
    assert (before.step, before.width, before.height) == (after.step, after.width, after.height)
    assert before.intensity == pytest.approx(after.intensity)


def test_presence_is_the_share_of_a_windows_frames_that_show_somebody() -> None:
    found = from_tracks(tracks([0, 1, 2], [1, 1, 1], frame_count=6), 1)
    assert presence(found, [(0, 6), (0, 3), (3, 6)]).tolist() == [0.5, 1.0, 0.0]


@given(st.integers(1, 60), st.floats(0.3, 6.0))
def test_at_another_rate_a_steady_movement_is_the_same_movement(length: int, step: float) -> None:
    before = from_tracks(tracks(list(range(0, 2 * length, 2)), [1] * length, frame_count=2 * length - 1), 1)
    after = resampled(before, step)
    assert after.step == step
    assert (after.frames - 1) * step <= (before.frames - 1) * 2 + 1e-3
    expected = 1 + np.arange(after.frames) * step / 2  # row i of `tracks` has its joints at i + 1
    assert np.allclose(after.keypoints[0, :, 3, 0], expected, atol=1e-3)
    assert np.allclose(after.keypoint_scores, 0.75)


def test_a_person_who_is_absent_stays_absent_at_another_rate() -> None:
    before = from_tracks(tracks([0, 2, 8], [1, 1, 1], frame_count=10), 1)
    after = from_tracks(tracks([0, 2, 8], [1, 1, 1], frame_count=10), 1, frames_per_second=30.0)
    assert (before.step, after.step) == (2.0, 1.0)
    assert after.keypoint_scores[0, :, 0].tolist() == [0.75, 0.75, 0.75, 0, 0, 0, 0, 0.75, 0.75]
    assert not after.keypoints[0, 3:7].any()


def test_clips_of_different_frame_rates_come_to_the_same_length() -> None:
    lengths = []
    for fps in (10.0, 25.0, 30.0):
        frames = int(4 * fps)
        clip = replace(tracks(list(range(frames)), [1] * frames, frame_count=frames), fps=fps)
        lengths.append(from_tracks(clip, 1, frames_per_second=15.0).frames)
    assert max(lengths) - min(lengths) <= 1
