"""Write a video frame by frame with PyAV (FFmpeg)."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from violence_ops.files import temporary_beside
from violence_ops.video.decode import Frame

_CONTAINERS: Final = {".mp4": "mp4", ".mov": "mov", ".avi": "avi"}
_CODECS: Final = {"mp4": ("libx264", "mpeg4"), "mov": ("libx264", "mpeg4"), "avi": ("mpeg4", "mjpeg")}


def container_suffix(path: Path) -> str:
    """The suffix of a video made from `path`: its own for mp4, avi and mov, otherwise `.avi` (SPEC 6)."""
    suffix = path.suffix.lower()
    return suffix if suffix in _CONTAINERS else ".avi"


def read_comment(path: Path) -> str | None:
    """The comment that a VideoWriter stored in a file; None if there is none. Raises ValueError if it is no video."""
    import av

    try:
        with av.open(str(path)) as container:
            return container.metadata.get("comment")
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"{path.name} is no video that can be opened: {error}") from None


class VideoWriter:
    """Streams frames into a file that appears under its name only when it is complete.

    Codecs of the container are tried in order; `codec` says which one was taken. Odd sides lose one row or column.
    `comment` is stored in the file and can be read back with `read_comment`.
    Leaving the block by an exception leaves no file. Raises ValueError for a suffix other than .mp4, .mov and .avi.
    """

    def __init__(
        self,
        path: Path,
        *,
        width: int,
        height: int,
        fps: float,
        codecs: tuple[str, ...] | None = None,
        comment: str | None = None,
    ) -> None:
        container = _CONTAINERS.get(path.suffix.lower())
        if container is None:
            raise ValueError(f"{path.suffix} is no container that can be written; use one of {', '.join(_CONTAINERS)}")
        self._path = path
        self._comment = comment
        self._size = (max(2, width // 2 * 2), max(2, height // 2 * 2))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = temporary_beside(path, path.suffix)
        self._temporary.touch(0o644, exist_ok=False)
        self._open(container, fps, codecs or _CODECS[container])

    def _open(self, container: str, fps: float, codecs: tuple[str, ...]) -> None:
        import av

        problems = []
        for codec in codecs:
            output = av.open(str(self._temporary), "w", format=container)
            try:
                stream = output.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
                stream.width, stream.height = self._size
                stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
                if codec == "mpeg4":
                    stream.codec_context.qmin, stream.codec_context.qmax = 2, 6
                if codec == "libx264":
                    stream.options = {"preset": "veryfast", "crf": "23"}
                stream.codec_context.open()
            except (av.FFmpegError, ValueError) as error:
                output.close()
                problems.append(f"{codec}: {error}")
                continue
            if self._comment:
                output.metadata["comment"] = self._comment
            self._output, self._stream, self.codec = output, stream, codec
            return
        self._temporary.unlink()
        raise RuntimeError(f"no codec for {self._path.name} works in this FFmpeg ({'; '.join(problems)})")

    def write(self, frame: Frame) -> None:
        """Add one frame, `(height, width, 3)` uint8 BGR."""
        import av
        import numpy as np

        width, height = self._size
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="bgr24")
        self._output.mux(self._stream.encode(picture))

    def close(self) -> None:
        """Finish the file and give it its name."""
        self._output.mux(self._stream.encode(None))
        self._output.close()
        self._temporary.replace(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        self._output.close()
        self._temporary.unlink(missing_ok=True)
