"""How long a video lasts and whether all of it is there, for recordings that are not as even as their header says."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from violence_ops.errors import Rejected
from violence_ops.params import ValidationParams, load_params
from violence_ops.video.facts import VideoFacts, examine

EVEN = [i / 25 for i in range(250)]
DROPPED = [time for i, time in enumerate(EVEN) if i < 2 or i % 7]
PAUSED = [*EVEN[:125], *(time + 2 for time in EVEN[125:])]
NIGHT = [*EVEN[:125], *(5 + i / 15 for i in range(75))]
SLOW_FIRST = [*(i / 5 for i in range(25)), *(5 + i / 25 for i in range(125))]


@pytest.fixture(scope="module")
def limits() -> ValidationParams:
    return load_params(Path(__file__).parents[2] / "params.yaml").validation


def recording(path: Path, times: Sequence[float], codec: str = "libx264", ticks: int = 1000) -> Path:
    """A video whose header says 25 frames a second, with frames at these times, s, which its container counts in `ticks` of a second."""
    options = {"preset": "veryfast", "bf": "0"} if codec == "libx264" else {}
    picture = np.random.default_rng(0).integers(60, 160, (96, 128, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.time_base = Fraction(1, ticks)
        stream.codec_context.gop_size = 25
        for time in times:
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts, frame.time_base = round(time * ticks), Fraction(1, ticks)
            container.mux(stream.encode(frame))
            picture = np.roll(picture, 2, axis=1)
        container.mux(stream.encode())
    return path


def copied(source: Path, target: Path, start_s: float, **options: str) -> Path:
    """The stream of `source`, not encoded again, from `start_s` on: an mp4 hides what lies before by an edit list."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                shift = round(start_s / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = stream
                new.mux(packet)
    return target


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def facts_or_reason(path: Path, limits: ValidationParams) -> VideoFacts | str:
    try:
        return examine(path, limits)
    except Rejected as refusal:
        return refusal.reason


def test_a_recording_whose_later_frames_are_larger_than_is_allowed_is_refused(
    tmp_path: Path, limits: ValidationParams
) -> None:
    small, large = (
        cv2.imencode(".jpg", np.zeros((*size, 3), np.uint8))[1].tobytes() for size in ((96, 128), (480, 640))
    )
    grown = tmp_path / "grown.mjpeg"
    grown.write_bytes(small * 30 + large + small * 30)
    assert examine(grown, limits).frame_count == 61
    with pytest.raises(Rejected, match="is 640x480 px; allowed are sides"):
        examine(grown, limits.model_copy(update={"max_pixels": 200 * 200}))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "flv", "ts"])
@pytest.mark.parametrize(
    ("times", "fps"),
    [(EVEN, 25.0), (DROPPED, 21.5), (PAUSED, 25.0), (NIGHT, 20.0), (SLOW_FIRST, 15.0)],
    ids=["even", "dropped", "paused", "night", "slow-first"],
)
def test_an_uneven_recording_is_complete_and_as_fast_as_its_time_stamps_say(
    tmp_path: Path, limits: ValidationParams, times: list[float], fps: float, suffix: str
) -> None:
    facts = examine(recording(tmp_path / f"clip.{suffix}", times), limits)
    assert facts.frame_count == len(times)
    assert facts.fps == pytest.approx(fps, rel=0.01)
    if times is EVEN:
        assert facts.fps == 25.0


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_an_avi_with_skipped_frames_is_complete(tmp_path: Path, limits: ValidationParams, codec: str) -> None:
    times = [*EVEN[:75], *(3 + i / 5 for i in range(60))]
    facts = examine(recording(tmp_path / "clip.avi", times, codec, ticks=25), limits)
    assert facts.frame_count == 135
    assert facts.duration_s == pytest.approx(15.0, rel=0.01)


def test_what_an_edit_list_hides_is_not_missed(tmp_path: Path, limits: ValidationParams) -> None:
    whole = recording(tmp_path / "whole.mp4", EVEN)
    clip = copied(whole, tmp_path / "clip.mp4", 5.2)  # a few frames after a key frame
    with av.open(str(clip)) as video:
        assert video.streams.video[0].frames == 250
    facts = examine(clip, limits)
    assert (facts.frame_count, facts.fps) == (120, 25.0)


def test_a_recording_cut_out_of_a_longer_one_need_not_begin_at_zero(tmp_path: Path, limits: ValidationParams) -> None:
    whole = recording(tmp_path / "whole.mkv", EVEN)
    assert examine(copied(whole, tmp_path / "late.mkv", -100.0), limits).frame_count == 250


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mkv", "mpeg4"), ("mkv", "libx264"), ("avi", "mpeg4"), ("avi", "libx264"), ("flv", "libx264")],
    ids=lambda value: value,
)
@pytest.mark.parametrize("times", [EVEN, NIGHT], ids=["even", "night"])
def test_a_recording_that_is_cut_off_is_found(
    tmp_path: Path, limits: ValidationParams, times: list[float], suffix: str, codec: str
) -> None:
    ticks = 25 if suffix == "avi" else 1000
    assert facts_or_reason(cut(recording(tmp_path / f"clip.{suffix}", times, codec, ticks), 0.6), limits) == "truncated"


@pytest.mark.parametrize("movflags", ["faststart", "frag_keyframe+empty_moov"])
@pytest.mark.parametrize("start_s", [0.0, 5.2], ids=["whole", "edit-list"])
def test_an_mp4_whose_index_comes_first_is_found_to_be_cut_off(
    tmp_path: Path, limits: ValidationParams, movflags: str, start_s: float
) -> None:
    whole = recording(tmp_path / "whole.mp4", EVEN)
    clip = copied(whole, tmp_path / "clip.mp4", start_s, movflags=movflags)
    assert isinstance(facts_or_reason(clip, limits), VideoFacts)
    assert facts_or_reason(cut(clip, 0.72), limits) in ("truncated", "decode_error")


def test_a_codec_that_nobody_knows_is_called_that(tmp_path: Path, limits: ValidationParams) -> None:
    path = recording(tmp_path / "clip.mp4", EVEN[:20])
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(Rejected, match="codec that FFmpeg does not know") as refusal:
        examine(path, limits)
    assert refusal.value.reason == "decode_error"
