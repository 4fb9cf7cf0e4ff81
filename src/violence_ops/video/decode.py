"""Decode videos frame by frame with PyAV (FFmpeg). Only known container formats, only the file itself, one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from violence_ops.errors import Rejected
from violence_ops.letterbox import Fit, Letterbox
from violence_ops.video.display import Display

Frame = NDArray[np.uint8]
"""`(H, W, 3)`, BGR."""

FORMATS: Final = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpegts,mpeg,mpegvideo,flv,asf,ogg,dhav,mxf,h264,hevc,m4v,mjpeg,dv,gif,wav,mp3,aac"
"""Demuxers that may be used: none that follows references to other files or addresses (hls, concat, dash, image2, …)."""

_UNSPECIFIED, _BT709 = 2, 1  # colour matrices, as ITU-T H.273 numbers them
_LIKE_BT601: Final = (_UNSPECIFIED, 5, 6)
_CONVERTIBLE: Final = (*_LIKE_BT601, 0, _BT709, 4, 7, 9)
"""Colour matrices that libswscale converts."""


def open_video(path: Path) -> Any:
    """The opened `av` container. Raises `av.FFmpegError` or OSError; the caller closes it."""
    import av

    return av.open(
        str(path), options={"format_whitelist": FORMATS, "protocol_whitelist": "file"}, metadata_errors="replace"
    )


def frames(
    path: Path,
    indices: Iterable[int] | None = None,
    on_frame: Callable[[], None] = lambda: None,
    known: tuple[int, int] | None = None,
) -> Iterator[Frame]:
    """The frames of a video in order, as they are meant to be seen, all or those with the given ascending indices.

    Each is `(H, W, 3)` uint8 BGR. `on_frame` is called for every frame that decodes, wanted or not; `known` is the size that the
    clip is known by (`Display.of`). Holds one frame at a time
    and closes the file when the generator ends or is closed. For files that somebody vouches for; for others use
    `sandbox.Sandbox`. Raises Rejected `unreadable` or `no_video_stream`; frames that do not decode are left out, as they are in
    the frame count.
    """
    for frame, display in _chosen(path, indices, on_frame, known):
        yield display.picture(frame)


def fitted(
    path: Path,
    indices: Iterable[int] | None,
    fit: Fit,
    on_frame: Callable[[], None] = lambda: None,
    known: tuple[int, int] | None = None,
) -> Iterator[tuple[Frame, Letterbox]]:
    """As `frames`, but letterboxed: pictures `(h, w, 3)` uint8 BGR and how each lies in its frame.

    The planes of the usual YUV 4:2:0 are fitted before colours are converted, which differs from fitting the converted
    frame by a level or two.
    """
    for frame, display in _chosen(path, indices, on_frame, known):
        box = Letterbox.of(*display.size, fit)
        if _is_plain_yuv(frame) and display.shows_as_stored(frame):
            planes = (_plane(plane) for plane in frame.planes)
            yield box.apply_planes(*planes, bt709=frame.colorspace == _BT709), box
        else:
            yield box.apply(display.picture(frame)), box


def _is_plain_yuv(frame: Any) -> bool:
    """Whether its samples are what `Letterbox.apply_planes` wants; libswscale, too, takes unspecified colours for BT.601."""
    from av.video.reformatter import ColorRange

    return (
        frame.format.name == "yuv420p"
        and frame.color_range != ColorRange.JPEG
        and frame.colorspace in (*_LIKE_BT601, _BT709)
    )


def _plane(plane: Any) -> Frame:
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]


def _chosen(
    path: Path, indices: Iterable[int] | None, on_frame: Callable[[], None], known: tuple[int, int] | None
) -> Iterator[tuple[Any, Display]]:
    """The `av.VideoFrame`s with the given indices, and how they are shown, which the first one decides for all."""
    import av

    wanted = None if indices is None else iter(indices)
    next_wanted = 0 if wanted is None else next(wanted, None)
    try:
        container = open_video(path)
    except (av.FFmpegError, OSError) as error:
        raise Rejected("unreadable", f"{path.name} cannot be opened as a video ({error}).") from None
    try:
        display = None
        for index, frame in enumerate(decoded(container, path.name)):
            if next_wanted is None:
                return
            on_frame()
            display = display or Display.of(container.streams.video[0], frame, known)
            if wanted is None or index == next_wanted:
                yield frame, display
                next_wanted = index + 1 if wanted is None else next(wanted, None)
    finally:
        container.close()


def decoded(container: Any, name: str, failures: list[str] | None = None) -> Iterator[Any]:
    """The `av.VideoFrame`s of the first video stream; a packet that does not decode is skipped and added to `failures`.

    Colours by a matrix that cannot be converted are unspecified then: somewhat wrong, where the file would be lost.
    """
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
        for picture in pictures:
            if picture.colorspace not in _CONVERTIBLE:
                picture.colorspace = _UNSPECIFIED
            yield picture
