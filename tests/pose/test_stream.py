"""The stream of poses: complete, in order, bounded, and a failure is told where it belongs."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from violence_ops.errors import Rejected
from violence_ops.letterbox import Letterbox
from violence_ops.pose import stream
from violence_ops.pose.stream import Picture, PoseStream
from violence_ops.records import FramePoses

Video = tuple[int, int, int]  # its name, its frames, its pictures' height


class Marks:
    """A source that answers each picture with one person whose score is the picture's first pixel."""

    fit = None

    def __init__(self, lanes: int, mini_batch: int, fail_at: int | None = None) -> None:
        self.lanes, self.mini_batch, self.fail_at = lanes, mini_batch, fail_at
        self.sizes: list[int] = []
        self.seconds = 0.0
        self.shapes: set[tuple[int, ...]] = set()

    def clock(self) -> float:
        """A second for each picture, and a hundred more for the first of its size."""
        return self.seconds

    def persons(self, pictures: Sequence[np.ndarray], boxes: Sequence[Letterbox]) -> list[FramePoses]:
        self.sizes.append(len(pictures))
        first = pictures[0].shape not in self.shapes
        self.shapes.add(pictures[0].shape)
        self.seconds += len(pictures) + 100 * first
        assert len({picture.shape for picture in pictures}) == 1, "a mini-batch holds pictures of one size"
        values = [int(picture[0, 0, 0]) + 256 * int(picture[0, 0, 1]) for picture in pictures]
        if self.fail_at in values:
            raise ZeroDivisionError("the network broke")
        return [_person(value) for value in values]


def _person(value: int) -> FramePoses:
    return FramePoses(
        np.zeros((1, 17, 2), np.float32), np.zeros((1, 17), np.float32), np.zeros((1, 4), np.float32), np.array([value])
    )


def _picture(video: int, frame: int, height: int) -> Picture:
    picture = np.zeros((height, 4, 3), np.uint8)
    picture[0, 0, :2] = frame % 256, 16 * video + frame // 256
    return picture, Letterbox(4, height, 4, height)


def _decode(video: Video) -> Iterator[Picture]:
    name, frames, height = video
    for frame in range(frames):
        if height == 13 and frame == 2:
            raise Rejected("decode_error", f"video {name} is damaged")
        yield _picture(name, frame, height)


@contextmanager
def _decoder() -> Iterator[stream.Decoder[Video]]:
    yield _decode


def _numbers(source: Marks, videos: list[Video], decoders: int) -> list[list[int]]:
    with PoseStream(source, _decoder, decoders) as poses:
        return [[int(found.scores[0]) for found in one] for one in poses.over(videos)]


@settings(deadline=None, max_examples=40)
@given(
    frames=st.lists(st.tuples(st.integers(0, 40), st.sampled_from([4, 8])), max_size=8),
    lanes=st.integers(1, 3), mini_batch=st.integers(1, 5), decoders=st.integers(1, 3),
)  # fmt: skip
def test_every_frame_of_every_video_once_and_in_order(
    frames: list[tuple[int, int]], lanes: int, mini_batch: int, decoders: int
) -> None:
    videos = [(number, count, height) for number, (count, height) in enumerate(frames)]
    found = _numbers(Marks(lanes, mini_batch), videos, decoders)
    assert found == [[256 * 16 * name + frame for frame in range(count)] for name, count, _ in videos]


def test_a_mini_batch_takes_pictures_of_several_videos() -> None:
    source = Marks(lanes=1, mini_batch=16)
    _numbers(source, [(number, 3, 4) for number in range(12)], decoders=2)
    assert max(source.sizes) > 3


@pytest.mark.parametrize("mini_batch", [1, 4])
def test_a_video_costs_what_looking_at_it_takes_and_not_the_opening_of_the_network(mini_batch: int) -> None:
    videos = [(0, 5, 4), (1, 3, 8), (2, 7, 4)]
    with PoseStream(Marks(1, mini_batch), _decoder) as poses:
        costs = [(len(list(one)), one.engine_s) for one in poses.over(videos)]
    assert costs == [(5, 5.0), (3, 3.0), (7, 7.0)]


def test_a_video_that_does_not_decode_fails_alone_and_gives_what_came_before() -> None:
    with PoseStream(Marks(2, 1), _decoder) as poses:
        good, bad, last = poses.over([(0, 5, 4), (1, 5, 13), (2, 5, 4)])
        assert len(list(good)) == 5
        before = []
        with pytest.raises(Rejected, match="video 1 is damaged"):
            before += list(bad)
        assert len(list(last)) == 5


def test_what_breaks_the_network_is_raised_where_results_are_taken_and_no_thread_stays() -> None:
    threads = threading.active_count()
    with pytest.raises(ZeroDivisionError, match="the network broke"):
        _numbers(Marks(2, 1, fail_at=7), [(0, 50, 4), (1, 50, 4)], decoders=2)
    assert threading.active_count() == threads


def test_leaving_in_the_middle_ends_the_threads() -> None:
    threads = threading.active_count()
    with PoseStream(Marks(2, 1), _decoder) as poses:
        first = next(iter(poses.over([(0, 4000, 4), (1, 4000, 4)])))
        next(iter(first))
    assert threading.active_count() == threads


def test_decoding_does_not_run_ahead_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "AHEAD", 30)
    decoded: list[int] = []

    def slow(video: Video) -> Iterator[Picture]:
        for picture in _decode(video):
            decoded.append(video[0])
            yield picture

    @contextmanager
    def decoder() -> Iterator[stream.Decoder[Video]]:
        yield slow

    def until_nothing_moves() -> None:
        seen = -1
        while seen != len(decoded):
            seen = len(decoded)
            time.sleep(0.5)

    with PoseStream(Marks(1, 1), decoder, decoders=2) as poses:
        every = poses.over([(0, 4000, 4), (1, 4000, 4), (2, 4000, 4)])
        first = iter(next(every))
        next(first)
        until_nothing_moves()
        assert decoded.count(0) <= 33
        assert decoded.count(1) <= 33
        assert decoded.count(2) == 0

    decoded.clear()
    with PoseStream(Marks(1, 1), decoder, decoders=2) as poses:
        every = poses.over([(number % 16, 3, 4) for number in range(200)])
        next(every)
        until_nothing_moves()
        assert len(set(decoded)) <= 2 + stream._VIDEOS_AHEAD
        assert [len(list(one)) for one in every] == [3] * 199
