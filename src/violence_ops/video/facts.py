"""Look at every frame of a video and say what it is, or why it cannot be used (SPEC 1). Runs inside the sandbox's child."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from violence_ops.errors import Rejected
from violence_ops.params import ValidationParams
from violence_ops.video.decode import decoded, open_video

_SAMPLES: Final = 64
_THUMB_PX: Final = 32
_HASH_SIDE: Final = 8
_COMPLETE: Final = 0.9
"""A file that decodes to less than this share of what its header promises is truncated."""
_MAX_FPS: Final = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFacts:
    """What a usable video is. fps in 1/s, brightness = mean luma in [0, 255], perceptual_hash 64 bits as 16 hex digits."""

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

    def perceptual_hash(self, middle: int) -> str:
        """pHash (`hash_of`) of the sampled frame nearest to the middle."""
        _, thumb = min(self._kept, key=lambda item: abs(item[0] - middle))
        return hash_of(thumb)


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
    promised_s = _promised_seconds(container, stream)
    promised = stream.frames or int(promised_s * float(stream.average_rate or 0))
    _check_size(name, stream.codec_context.width, stream.codec_context.height, limits, known=False)
    if promised_s > limits.max_duration_s * 1.1:
        raise Rejected(
            "too_long", f"{name} lasts {promised_s:.0f} s; validation.max_duration_s allows {limits.max_duration_s:g}."
        )
    on_promise(promised_s)
    failures: list[str] = []
    samples = _Samples()
    count, first_s, last_s, width, height = 0, None, 0.0, 0, 0
    for frame in decoded(container, name, failures):
        if count == 0:
            width, height = frame.width, frame.height
            _check_size(name, width, height, limits, known=True)
        if frame.time is not None:
            first_s = frame.time if first_s is None else first_s
            last_s = max(last_s, frame.time)
        samples.add(count, frame)
        count += 1
        if count > limits.max_frames:
            raise Rejected(
                "too_long",
                f"{name} has more than {limits.max_frames} frames, which is what validation.max_frames allows.",
            )
    _check_complete(name, count, promised, failures)
    fps = _frame_rate(name, stream, count, last_s - (first_s or 0.0))
    duration = count / fps
    _check_length(name, count, duration, limits)
    return VideoFacts(
        container=container.format.name.split(",")[0], codec=stream.codec_context.name, width=width, height=height,
        fps=round(fps, 6), frame_count=count, duration_s=round(duration, 6), size_bytes=size_bytes,
        brightness=samples.brightness(), perceptual_hash=samples.perceptual_hash(count // 2),
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


def _check_complete(name: str, count: int, promised: int, failures: list[str]) -> None:
    if count == 0 and failures:
        raise Rejected("decode_error", f"{name}: no frame decodes ({failures[0]}): copy it again from its source.")
    if count == 0 and promised:
        raise Rejected(
            "truncated", f"{name} announces {promised} frames and holds none: the copy was cut off, copy it again."
        )
    if count == 0:
        raise Rejected("no_frames", f"{name} holds a video stream without a frame: copy it again from its source.")
    missing = promised - count
    if promised and count < _COMPLETE * promised and missing > 2:
        if len(failures) >= missing / 2:
            raise Rejected(
                "decode_error",
                f"{name}: {len(failures)} of {promised} frames do not decode ({failures[0]}): copy it again from its source.",
            )
        raise Rejected(
            "truncated",
            f"{name} announces {promised} frames and ends after {count}: the copy was cut off, copy it again.",
        )
    if len(failures) > (1 - _COMPLETE) * (count + len(failures)):
        raise Rejected(
            "decode_error",
            f"{name}: {len(failures)} packets do not decode beside {count} frames ({failures[0]}): copy it again from its source.",
        )


def _check_length(name: str, count: int, duration: float, limits: ValidationParams) -> None:
    if count < limits.min_frames or duration < limits.min_duration_s:
        raise Rejected(
            "too_short",
            f"{name} has {count} frames in {duration:.2f} s; at least {limits.min_frames} frames and {limits.min_duration_s:g} s are needed.",
        )
    if duration > limits.max_duration_s:
        raise Rejected(
            "too_long", f"{name} lasts {duration:.0f} s; validation.max_duration_s allows {limits.max_duration_s:g}."
        )


def _promised_seconds(container: Any, stream: Any) -> float:
    """What the header says; 0 where it says nothing or FFmpeg only estimates it from the bit rate."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    reliable = container.format.name.startswith(("matroska", "avi", "asf", "flv", "mov"))
    return container.duration / 1e6 if reliable and container.duration else 0.0


def _frame_rate(name: str, stream: Any, count: int, span_s: float) -> float:
    """The stream's average rate, else the one that its time stamps show."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and 0 < float(rate) <= _MAX_FPS:
            return float(rate)
    if span_s > 0 and 0 < (count - 1) / span_s <= _MAX_FPS:
        return (count - 1) / span_s
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
