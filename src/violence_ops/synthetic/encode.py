"""Encoding of synthetic clips with FFmpeg's libraries (PyAV)."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from violence_ops.synthetic.clips import SyntheticClip

_FORMATS = {".mp4": "mp4", ".avi": "avi"}
_ENCODERS = {
    "h264": (
        "libx264",
        "yuv420p",
        {"preset": "veryfast", "mbtree": "0"},
    ),  # its look-ahead's trees differ from run to run
    "mpeg4": ("mpeg4", "yuv420p", {}),
    "mjpeg": ("mjpeg", "yuvj420p", {"qmin": "3", "qmax": "20"}),
}


def write_clip(clip: SyntheticClip, path: Path) -> None:
    """Encode a clip with the codec and bit rate of its scene; the container follows from the name's extension.

    The same clip gives the same bytes: one thread, no creation time.
    """
    rate = clip.scene.bits_per_pixel * clip.width * clip.height * clip.fps
    write_frames(clip.frames(), path, clip.fps, clip.scene.codec, int(rate))


def write_frames(
    frames: Iterable[np.ndarray], path: Path, fps: float, codec: str, bit_rate: int, *, index_first: bool = False
) -> None:
    """Encode (H, W, 3) uint8 BGR frames of even size with `codec` (h264, mpeg4 or mjpeg) at `bit_rate` bit/s.

    `index_first` puts an MP4's index before the pictures.
    """
    encoder, pixel_format, options = _ENCODERS[codec]
    muxing = {"fflags": "+bitexact"} | ({"movflags": "+faststart"} if index_first else {})
    with av.open(str(path), "w", format=_FORMATS[path.suffix], options=muxing) as container:
        stream = container.add_stream(encoder, rate=Fraction(fps).limit_denominator(1000), options=dict(options))
        stream.bit_rate = bit_rate
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = 30
        for number, frame in enumerate(frames):
            if number == 0:
                stream.height, stream.width = frame.shape[:2]
            picture = av.VideoFrame.from_ndarray(frame, format="bgr24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def write_sound(path: Path, seconds: float) -> None:
    """A file with a tone and no picture."""
    rate = 16_000
    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)).astype(np.int16)
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("aac", rate=rate)
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
