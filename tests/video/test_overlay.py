import dataclasses

import av
import numpy as np
import pytest

from violence_ops.records import JOINTS, ClipPoses, ClipTracks
from violence_ops.video import decode
from violence_ops.video.drawing import BLACK, RED, YELLOW, text_size
from violence_ops.video.explanation import best_frame
from violence_ops.video.overlay import Judgement, Overlay, Regions, frame_image, write

WIDTH, HEIGHT, FRAMES = 320, 240, 12


def tracks(people=2, frames=range(0, FRAMES, 2)):
    """People side by side in every second frame; rank is the id."""
    frame = np.repeat(np.array(frames, np.int32), people)
    person = np.tile(np.arange(people), len(frames))
    middle = np.column_stack([80 + 60.0 * person, np.full(len(person), 140)])
    half = np.array([18.0, 50.0])
    spread = np.random.default_rng(0).uniform(-1, 1, (JOINTS, 2)) * (15, 45)
    poses = ClipPoses(
        clip_id="0" * 20, frame_count=FRAMES, width=WIDTH, height=HEIGHT, fps=10.0, frame=frame,
        bboxes=np.hstack([middle - half, middle + half]).astype(np.float32), scores=np.full(len(frame), 0.9, np.float32),
        keypoints=(middle[:, None] + spread).astype(np.float32), keypoint_scores=np.full((len(frame), JOINTS), 0.8, np.float32),
    )  # fmt: skip
    found = ClipTracks.from_poses(poses, person.astype(np.int32) + 1)
    found.rank[:] = found.track_id
    return found


def judgement(probability):
    return Judgement(
        start=np.array([0, 6], np.int32), end=np.array([6, 12], np.int32), probability=np.array(probability, np.float32),
        threshold=0.5, clip_probability=0.7, is_fight=True,
    )  # fmt: skip


GREY = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)


def share_of(picture, colour):
    return (np.abs(picture.astype(int) - colour).max(axis=-1) < 12).mean()


def test_the_id_stands_in_yellow_above_the_topmost_sure_keypoint():
    one = tracks(people=1)
    one.keypoint_scores[:, one.keypoints[0, :, 1].argmin()] = 0.45
    picture, overlay = frame_image(GREY, 0, one), Overlay(one)
    sure = one.keypoint_scores[0] > 0.5
    topmost = one.keypoints[0][sure][:, 1].min() * overlay.scale
    rows = np.flatnonzero((np.abs(picture.astype(int) - YELLOW).max(axis=-1) < 12).any(axis=1))
    assert topmost - 4 * overlay.font < rows.min() <= rows.max() < topmost


@pytest.mark.parametrize(
    ("probability", "alarm"), [pytest.param(0.95, True, id="sure fight"), pytest.param(0.75, False, id="unsure fight"),
                               pytest.param(0.1, False, id="no fight")],
)  # fmt: skip
def test_only_a_sure_fight_turns_the_frame_red(probability, alarm):
    picture = frame_image(GREY, 1, tracks(), judgement([probability, 0.0]))
    border = np.concatenate([picture[:4].reshape(-1, 3), picture[4 : Overlay(tracks()).height - 4, :4].reshape(-1, 3)])
    assert (share_of(border[None], RED) > 0.8) == alarm


def test_the_alarm_follows_the_windows_in_time():
    overlay = Overlay(tracks(), judgement([0.1, 0.95]))
    assert [share_of(overlay.draw(GREY, index)[:4], RED) > 0.8 for index in (0, 5, 6, 11)] == [False, False, True, True]


@pytest.mark.parametrize(
    ("second", "alarm"), [pytest.param(0.5, False, id="one sure"), pytest.param(0.75, True, id="sure on average")]
)
def test_where_windows_overlap_their_mean_decides_on_the_alarm_as_it_does_on_the_time_line(second, alarm):
    both = Judgement(
        start=np.array([0, 0], np.int32), end=np.array([12, 12], np.int32), probability=np.array([0.95, second], np.float32),
        threshold=0.5, clip_probability=0.7, is_fight=True,
    )  # fmt: skip
    overlay = Overlay(tracks(), both)
    picture = overlay.draw(GREY, 3)
    assert (share_of(picture[:4], RED) > 0.8) == alarm
    column = picture[overlay.height :, overlay.width // 2]
    height = (np.abs(column.astype(int) - RED).max(axis=-1) < 12).sum()
    assert height / (0.64 * overlay.strip) == pytest.approx((0.95 + second) / 2, abs=0.06)


def test_people_are_shown_until_the_next_sampled_frame():
    overlay = Overlay(tracks())
    seen = [share_of(overlay.draw(GREY, index), YELLOW) > 0 for index in range(FRAMES)]
    assert all(seen)
    gap = Overlay(tracks(frames=(0, 2, 8, 10)))
    assert [share_of(gap.draw(GREY, index), YELLOW) > 0 for index in (3, 4, 7, 8)] == [True, False, False, True]


@pytest.mark.parametrize("frame_count", [12, 9_000, 20_000, 72_000], ids=["1 s", "15 min", "33 min", "2 h"])
def test_the_clock_of_a_clip_of_any_length_lies_beside_the_time_line(frame_count):
    overlay = Overlay(dataclasses.replace(tracks(), frame_count=frame_count))
    strip = overlay.draw(GREY, frame_count - 1)[overlay.height :].astype(int)
    bar = np.flatnonzero((np.abs(strip - BLACK).max(axis=-1) < 3).sum(axis=0) > 0.5 * overlay.strip)
    grey = np.flatnonzero((np.abs(strip - (150, 150, 152)).max(axis=-1) < 12).any(axis=0))
    clock = grey[grey > overlay.width // 2]
    words = f"{(frame_count - 1) / 10:.1f} / {frame_count / 10:.1f} s"
    assert np.ptp(clock) == pytest.approx(text_size(words, overlay.font)[0], rel=0.08)  # all of it can be read
    assert bar.max() < clock.min()


def test_regions_are_drawn_only_when_asked_for():
    regions = Regions(boxes=np.array([[0.25, 0.25, 0.75, 0.75]]), names=("centre",))
    nobody = tracks(people=0)
    assert share_of(frame_image(GREY, 0, nobody)[:200], (245, 245, 245)) == 0
    assert share_of(frame_image(GREY, 0, nobody, regions=regions)[:200], (245, 245, 245)) > 0


def test_drawing_changes_neither_the_frame_nor_the_tracks():
    frame, people = GREY.copy(), tracks()
    before = people.keypoints.copy()
    frame_image(frame, 0, people, judgement([0.9, 0.9]))
    assert np.array_equal(frame, GREY)
    assert np.array_equal(people.keypoints, before)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30, -1e30])
def test_points_that_are_nowhere_can_be_drawn(bad):
    people = tracks()
    people.keypoints[:3] = bad
    people.bboxes[1] = bad
    assert frame_image(GREY, 0, people).shape[1] == Overlay(people).width


@pytest.mark.parametrize("people", [0, 200])
def test_an_empty_frame_and_a_crowd_can_be_drawn(people):
    assert frame_image(GREY, 0, tracks(people)).dtype == np.uint8


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mov"])
def test_the_video_has_every_frame_and_the_codec_is_reported(tmp_path, suffix):
    path, overlay = tmp_path / f"overlay{suffix}", Overlay(tracks(), judgement([0.2, 0.9]))
    codec, count = write((GREY for _ in range(FRAMES)), path, overlay)
    assert codec in ("libx264", "mpeg4", "mjpeg")
    shapes = [frame.shape for frame in decode.frames(path)]
    assert shapes == [(overlay.size[1], overlay.size[0], 3)] * FRAMES == [shapes[0]] * count
    with av.open(str(path)) as video:
        assert video.streams.video[0].average_rate == 10


@pytest.mark.parametrize(
    ("clip", "shown"),
    [((3840, 2160), (1920, 1080)), ((2160, 3840), (1080, 1920)), ((2592, 1944), (1440, 1080)), ((1920, 1080), (1920, 1080))],
)  # fmt: skip
def test_a_clip_larger_than_1080p_is_drawn_at_that_size(tmp_path, clip, shown):
    people = dataclasses.replace(tracks(), width=clip[0], height=clip[1])
    people.keypoints[:] *= clip[1] / HEIGHT
    people.bboxes[:] *= clip[1] / HEIGHT
    path, overlay = tmp_path / "overlay.mp4", Overlay(people)
    write((np.full((clip[1], clip[0], 3), 90, np.uint8) for _ in range(2)), path, overlay)
    picture = next(iter(decode.frames(path)))
    assert (picture.shape[1], picture.shape[0] - overlay.strip) == shown
    label = (picture[..., 2] > 180) & (picture[..., 1] > 160) & (picture[..., 0] < 130)
    assert label[: round(0.6 * shown[1])].sum() > 20


def test_the_marks_are_in_the_video_that_is_read_back(tmp_path):
    """Compression blurs edges and colours, so areas are looked at: the red frame in the second half, the label's yellow."""
    path, overlay = tmp_path / "overlay.mp4", Overlay(tracks(), judgement([0.2, 0.95]))
    write((GREY for _ in range(FRAMES)), path, overlay)
    pictures = [picture.astype(int) for picture in decode.frames(path)]
    assert [(np.abs(p[:4, 40:-40] - RED).max(axis=-1) < 60).mean() > 0.8 for p in pictures] == [False] * 6 + [True] * 6
    assert all(((p[..., 2] > 180) & (p[..., 1] > 160) & (p[..., 0] < 130)).sum() > 20 for p in pictures)


def test_what_was_filled_in_says_so():
    people = tracks()
    people.interpolated[people.frame == 4] = True
    overlay = Overlay(people)
    seen, filled = (overlay.draw(GREY, index) for index in (2, 4))
    assert share_of(filled, (150, 150, 152)) > share_of(seen, (150, 150, 152))


def test_the_best_frame_lies_in_the_surest_window_and_shows_the_top_two():
    people = tracks(frames=range(FRAMES))
    people.rank[people.frame < 8] = 0
    assert best_frame(people) >= 8
    assert 0 <= best_frame(people, judgement([0.9, 0.1])) < 6
    assert best_frame(tracks(people=0)) == 0


def test_the_best_frame_of_a_piece_is_nowhere_else():
    people = tracks(frames=range(FRAMES))
    people.scores[people.frame < 6] = 1.0
    assert 6 <= best_frame(people, within=(6, 12)) < 12
    assert 6 <= best_frame(people, judgement([0.9, 0.1]), (6, 12)) < 12
    assert best_frame(tracks(frames=range(4)), judgement([0.9, 0.1]), (6, 12)) < 4
