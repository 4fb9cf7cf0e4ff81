"""Decode videos frame by frame with PyAV (FFmpeg). Only known container formats, only the file itself, one thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from violence_ops.errors import Rejected
from violence_ops.letterbox import Fit, Letterbox

Frame = NDArray[np.uint8]
"""`(H, W, 3)`, BGR."""

FORMATS: Final = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpegts,mpeg,mpegvideo,flv,asf,ogg,dhav,mxf,h264,hevc,m4v,mjpeg,dv,gif,wav,mp3,aac"
"""Demuxers that may be used: none that follows references to other files or addresses (hls, concat, dash, image2, …)."""


def open_video(path: Path) -> Any:
    """The opened `av` container. Raises `av.FFmpegError` or OSError; the caller closes it."""
    import av

    return av.open(
        str(path), options={"format_whitelist": FORMATS, "protocol_whitelist": "file"}, metadata_errors="replace"
    )


def frames(path: Path, indices: Iterable[int] | None = None) -> Iterator[Frame]:
    """The frames of a video in order, `(H, W, 3)` uint8 BGR, all or those with the given ascending indices.

    Holds one frame at a time and closes the file when the generator ends or is closed. For files that `probe.validate` has
    accepted; for others use `sandbox.decoded_frames`. Raises Rejected `unreadable` or `no_video_stream`; frames that do
    not decode are left out, as they are in the frame count.
    """
    for frame, width, height in _chosen(path, indices):
        yield frame.to_ndarray(width=width, height=height, format="bgr24")


def fitted(path: Path, indices: Iterable[int] | None, fit: Fit) -> Iterator[tuple[Frame, Letterbox]]:
    """As `frames`, but letterboxed: pictures `(h, w, 3)` uint8 BGR and how each lies in its frame.

    The planes of the usual YUV 4:2:0 are fitted before colours are converted, which differs from fitting the converted
    frame by a level or two.
    """
    for frame, width, height in _chosen(path, indices):
        box = Letterbox.of(width, height, fit)
        if _is_plain_yuv(frame) and (frame.width, frame.height) == (width, height):
            yield box.apply_planes(*(_plane(plane) for plane in frame.planes)), box
        else:
            yield box.apply(frame.to_ndarray(width=width, height=height, format="bgr24")), box


def _is_plain_yuv(frame: Any) -> bool:
    """Whether its samples are what `Letterbox.apply_planes` wants; libswscale, too, takes every file for BT.601."""
    from av.video.reformatter import ColorRange

    return frame.format.name == "yuv420p" and frame.color_range != ColorRange.JPEG


def _plane(plane: Any) -> Frame:
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]


def _chosen(path: Path, indices: Iterable[int] | None) -> Iterator[tuple[Any, int, int]]:
    """The `av.VideoFrame`s with the given indices, and the first one's width and height, which all shall get."""
    import av

    wanted = None if indices is None else iter(indices)
    next_wanted = 0 if wanted is None else next(wanted, None)
    try:
        container = open_video(path)
    except (av.FFmpegError, OSError) as error:
        raise Rejected("unreadable", f"{path.name} cannot be opened as a video ({error}).") from None
    try:
        size = None
        for index, frame in enumerate(decoded(container, path.name)):
            if next_wanted is None:
                return
            size = size or (frame.width, frame.height)
            if wanted is None or index == next_wanted:
                yield frame, *size
                next_wanted = index + 1 if wanted is None else next(wanted, None)
    finally:
        container.close()


def decoded(container: Any, name: str, failures: list[str] | None = None) -> Iterator[Any]:
    """The `av.VideoFrame`s of the first video stream; a packet that does not decode is skipped and added to `failures`."""
    import av

    if not container.streams.video:
        raise Rejected("no_video_stream", f"{name} holds no video stream: drop a file with pictures.")
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
            pictures = packet.decode()
        except StopIteration:
            return
        except av.error.EOFError:
            return
        except MemoryError:
            raise
        except av.FFmpegError as error:
            if failures is not None:
                failures.append(str(error.strerror or error))
            if not isinstance(error, av.error.InvalidDataError):
                return
            continue
        yield from pictures
