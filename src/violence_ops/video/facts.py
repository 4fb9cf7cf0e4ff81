"""Look at every frame of a video and say what it is, or why it cannot be used (SPEC 1). Runs inside the sandbox's child."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from violence_ops.errors import Rejected
from violence_ops.params import ValidationParams
from violence_ops.video.decode import decoded, open_video
from violence_ops.video.display import Display
from violence_ops.wording import counted

_SAMPLES: Final = 64
_THUMB_PX: Final = 32
_HASH_SIDE: Final = 8
_COMPLETE: Final = 0.9
"""A file that decodes to less than this share of what its header promises is truncated."""
_MISSING: Final = 2
"""Frames that a file may lack whatever share of it they are."""
_MAX_FPS: Final = 1000.0
_SAME_RATE: Final = 0.02
_LOOSE_STEPS: Final = 3
"""The header's frame rate holds unless the time stamps leave it by more than this share, and by more steps than a muxer may
lose at a clip's ends."""
_PAUSE_S: Final = 1.0
_PAUSE_STEPS: Final = 10
"""Nothing for longer than both, the latter in usual steps between two frames, is a pause of the recording."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFacts:
    """What a usable video is: width and height as it is seen, px; fps in 1/s, without pauses; duration_s = frame_count / fps;
    brightness = mean luma in [0, 255]; perceptual_hash 64 bits as 16 hex digits."""

    container: str
    codec: str
    width: int
    height: int
    fps: float
    frame_count: int
    duration_s: float
    size_bytes: int
    brightness: float
    perceptual_hash: str


class _Samples:
    """Small grey pictures of evenly spread frames: at most `_SAMPLES`, whatever the length of the video."""

    def __init__(self) -> None:
        self._step = 1
        self._kept: list[tuple[int, NDArray[np.uint8]]] = []

    def add(self, index: int, frame: Any) -> None:
        if index % self._step:
            return
        self._kept.append((index, frame.to_ndarray(width=_THUMB_PX, height=_THUMB_PX, format="gray")))
        if len(self._kept) > _SAMPLES:
            self._step *= 2
            self._kept = [item for item in self._kept if item[0] % self._step == 0]

    def brightness(self) -> float:
        return round(float(np.mean([thumb.mean() for _, thumb in self._kept])), 3)

    def perceptual_hash(self, middle: int, display: Display) -> str:
        """pHash (`hash_of`) of the sampled frame nearest to the middle, as it is seen."""
        _, thumb = min(self._kept, key=lambda item: abs(item[0] - middle))
        return hash_of(display.turned(thumb))


@dataclass(frozen=True, slots=True)
class _Clock:
    """What time stamps say: how long the frames last, the last one included, and how many come in a second, pauses left out."""

    length_s: float
    rate: float

    @classmethod
    def of(cls, times: list[float], count: int) -> Self | None:
        """None unless each of `count` frames has a time stamp, in order but for exchanged neighbours, and they make a frame rate."""
        if count < 2 or len(times) != count or np.diff(times).min() < -_PAUSE_S:
            return None
        steps = np.diff(np.sort(times))
        moving = steps[steps <= max(_PAUSE_S, _PAUSE_STEPS * float(np.median(steps)))]
        moving_s = float(moving.sum())
        if moving_s <= 0 or len(moving) / moving_s > _MAX_FPS:
            return None
        rate = len(moving) / moving_s
        return cls(float(steps.sum()) + 1 / rate, rate)

    def agrees_with(self, rate: float, count: int) -> bool:
        """Whether frames at this rate would have these time stamps, about."""
        off = abs(rate / self.rate - 1) * (count - 1)
        return off <= max(_LOOSE_STEPS, _SAME_RATE * (count - 1))


def hash_of(thumb: NDArray[np.uint8]) -> str:
    """64-bit perceptual hash of a square grey picture, 16 hex digits: which of its 8x8 lowest DCT-II terms exceed their median.

    The pHash of the `imagehash` package without its heavy imports; pictures that look alike differ in few bits.
    """
    size = len(thumb)
    basis = np.cos(np.pi / size * np.outer(np.arange(_HASH_SIDE), np.arange(size) + 0.5))
    low = basis @ thumb.astype(np.float64) @ basis.T
    bits = (np.round(low, 6) > np.median(np.round(low, 6))).reshape(-1)
    return f"{int(''.join('1' if bit else '0' for bit in bits), 2):016x}"


def examine(
    path: Path, limits: ValidationParams, on_promise: Callable[[float], None] = lambda seconds: None
) -> VideoFacts:
    """Decode the whole video. Raises Rejected with a reason code of SPEC 1.

    `on_promise` hears, before the decoding, how many seconds the header promises (0: it says nothing).
    """
    import av

    size_bytes = path.stat().st_size
    name = path.name
    if size_bytes == 0:
        raise Rejected("unreadable", f"{name} is an empty file: copy it again from its source.")
    if size_bytes > limits.max_size_mb * 2**20:
        raise Rejected(
            "too_large",
            f"{name} has {size_bytes / 2**20:.1f} MB; validation.max_size_mb allows {limits.max_size_mb:g}.",
        )
    try:
        container = open_video(path)
    except MemoryError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ENOMEM:
            raise MemoryError from error
        if _is_mp4_without_index(path):
            raise Rejected(
                "truncated", f"{name} ends before its index (moov): the copy was cut off, copy it again."
            ) from None
        raise Rejected(
            "unreadable", f"{name} is no video that can be read ({_plain(error)}): copy it again from its source."
        ) from None
    with container:
        return _examine_opened(container, name, size_bytes, limits, on_promise)


def _examine_opened(
    container: Any, name: str, size_bytes: int, limits: ValidationParams, on_promise: Callable[[float], None]
) -> VideoFacts:
    if not container.streams.video:
        raise Rejected("no_video_stream", f"{name} holds no video stream: drop a file with pictures.")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise Rejected(
            "decode_error",
            f"{name} is in a codec that FFmpeg does not know: write it again, in H.264 for example, with its recorder's software.",
        )
    promised_s = _promised_seconds(container, stream)
    _check_size(name, stream.codec_context.width, stream.codec_context.height, limits, known=False)
    if promised_s > limits.max_duration_s * 1.1:
        raise Rejected(
            "too_long", f"{name} lasts {promised_s:.0f} s; validation.max_duration_s allows {limits.max_duration_s:g}."
        )
    on_promise(promised_s)
    failures: list[str] = []
    samples = _Samples()
    display = Display(0, 0)
    count, times = 0, []
    for frame in decoded(container, name, failures):
        if count == 0:
            display = Display.of(stream, frame)
            _check_size(name, *display.size, limits, known=True)
        elif frame.width * frame.height > limits.max_pixels:  # nothing keeps a stream to the size that it began with
            _check_size(name, frame.width, frame.height, limits, known=True)
        if frame.time is not None:
            times.append(frame.time)
        samples.add(count, frame)
        count += 1
        if count > limits.max_frames:
            raise Rejected(
                "too_long",
                f"{name} has more than {counted(limits.max_frames, 'frame')}, which is what validation.max_frames allows.",
            )
    clock = _Clock.of(times, count)
    _check_complete(name, count, _shortfall(stream, promised_s, count, clock), failures)
    fps = _frame_rate(name, stream, count, clock)
    duration = count / fps
    _check_length(name, count, duration, limits)
    return VideoFacts(
        container=container.format.name.split(",")[0], codec=stream.codec_context.name, width=display.size[0], height=display.size[1],
        fps=round(fps, 6), frame_count=count, duration_s=round(duration, 6), size_bytes=size_bytes,
        brightness=samples.brightness(), perceptual_hash=samples.perceptual_hash(count // 2, display),
    )  # fmt: skip


def _check_size(name: str, width: int, height: int, limits: ValidationParams, *, known: bool) -> None:
    unknown = width <= 0 or height <= 0
    if unknown and not known:
        return
    if unknown or min(width, height) < limits.min_side_px or width * height > limits.max_pixels:
        raise Rejected(
            "bad_dimensions",
            f"{name} is {width}x{height} px; allowed are sides from {limits.min_side_px} px and at most {limits.max_pixels} px in all.",
        )


@dataclass(frozen=True, slots=True)
class _Shortfall:
    """What a file promises beyond what decodes: both in words, and about how many frames are missing."""

    promised: str
    found: str
    missing: float


def _shortfall(stream: Any, promised_s: float, count: int, clock: _Clock | None) -> _Shortfall | None:
    """What is missing of the video; None if it is complete.

    It ends when its header says, for cameras leave frames out and change their rate, and an edit list hides frames. Without time
    stamps frames are counted.
    """
    promised = stream.frames or int(promised_s * float(stream.average_rate or 0))
    if clock is None or count >= _COMPLETE * stream.frames > 0:
        missing = float(promised - count)
        short = count < _COMPLETE * promised
        words = counted(promised, "frame"), f"{count}"
    else:
        missing = (promised_s - clock.length_s) * clock.rate
        short = clock.length_s < _COMPLETE * promised_s
        words = f"{promised_s:.1f} s", f"{clock.length_s:.1f} s"
    return _Shortfall(*words, missing) if short and missing > _MISSING else None


def _check_complete(name: str, count: int, short: _Shortfall | None, failures: list[str]) -> None:
    if count == 0 and failures:
        raise Rejected("decode_error", f"{name}: no frame decodes ({failures[0]}): copy it again from its source.")
    if count == 0 and short:
        raise Rejected(
            "truncated", f"{name} announces {short.promised} and holds none: the copy was cut off, copy it again."
        )
    if count == 0:
        raise Rejected("no_frames", f"{name} holds a video stream without a frame: copy it again from its source.")
    if short and len(failures) >= short.missing / 2:
        raise Rejected(
            "decode_error",
            f"{name}: {counted(len(failures), 'packet does', 'packets do')} not decode beside {counted(count, 'frame')} ({failures[0]}): copy it again from its source.",
        )
    if short:
        raise Rejected(
            "truncated",
            f"{name} announces {short.promised} and ends after {short.found}: the copy was cut off, copy it again.",
        )
    if len(failures) > (1 - _COMPLETE) * (count + len(failures)):
        raise Rejected(
            "decode_error",
            f"{name}: {counted(len(failures), 'packet does', 'packets do')} not decode beside {counted(count, 'frame')} ({failures[0]}): copy it again from its source.",
        )


def _check_length(name: str, count: int, duration: float, limits: ValidationParams) -> None:
    if count < limits.min_frames or duration < limits.min_duration_s:
        raise Rejected(
            "too_short",
            f"{name} has {counted(count, 'frame')} in {duration:.2f} s; at least {counted(limits.min_frames, 'frame')} and {limits.min_duration_s:g} s are needed.",
        )
    if duration > limits.max_duration_s:
        raise Rejected(
            "too_long", f"{name} lasts {duration:.0f} s; validation.max_duration_s allows {limits.max_duration_s:g}."
        )


def _promised_seconds(container: Any, stream: Any) -> float:
    """What the header says; 0 where it says nothing or FFmpeg only estimates it from the bit rate."""
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        return float(stream.frames / stream.average_rate)  # the duration is that of the bytes that are there
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    reliable = container.format.name.startswith(("matroska", "avi", "asf", "flv", "mov"))
    if not reliable or not container.duration:
        return 0.0
    # Matroska's runs from 0, where a recording cut out of a longer one need not begin
    before = (container.start_time or 0) if container.format.name.startswith("matroska") else 0
    return float(max(0, container.duration - max(0, before)) / 1e6)


def _frame_rate(name: str, stream: Any, count: int, clock: _Clock | None) -> float:
    """The stream's average rate, unless its time stamps show another one."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and 0 < float(rate) <= _MAX_FPS and (clock is None or clock.agrees_with(float(rate), count)):
            return float(rate)
    if clock is not None:
        return clock.rate
    raise Rejected(
        "decode_error",
        f"{name} does not say how many frames a second it has, and neither do its time stamps: write it again with a frame rate.",
    )


def _is_mp4_without_index(path: Path) -> bool:
    """Whether the file begins like an mp4 and none of its top boxes is `moov`."""
    with path.open("rb") as handle:
        start = 0
        names: list[bytes] = []
        while len(names) < 64 and len(head := handle.read(16)) >= 8:
            size, kind = int.from_bytes(head[:4]), head[4:8]
            size = int.from_bytes(head[8:16]) if size == 1 and len(head) == 16 else size
            names.append(kind)
            if size < 8:
                break
            start += size
            handle.seek(start)
    return names[:1] == [b"ftyp"] and b"moov" not in names


def _plain(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
