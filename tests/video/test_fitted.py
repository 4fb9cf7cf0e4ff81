"""Letterboxing from the decoder's planes gives the picture that letterboxing the decoded frame gives."""

from pathlib import Path

import av
import numpy as np
import pytest

from violence_ops.letterbox import PADDING, Fit, Letterbox
from violence_ops.video import decode

FIT = Fit(128, 32)


def video(path: Path, width: int, height: int, pixels: str = "yuv420p") -> Path:
    """Ten frames of soft colours."""
    across, down = np.meshgrid(np.linspace(0, 1.5, width), np.linspace(0, 1, height))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4" if pixels == "yuv420p" else "ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        for number in range(10):
            waves = [np.sin(across + number / 5), np.cos(down), np.sin(across + down)]
            picture = ((np.stack(waves, axis=-1) + 1) * 100 + 20).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("width", "height", "pixels"), [(320, 180, "yuv420p"), (64, 96, "yuv420p"), (321, 241, "yuv444p")]
)
def test_pictures_are_those_of_the_decoded_frames(tmp_path: Path, width: int, height: int, pixels: str) -> None:
    path = video(tmp_path / "clip.mkv", width, height, pixels)
    frames = list(decode.frames(path, [0, 4, 9]))
    fitted = list(decode.fitted(path, [0, 4, 9], FIT))
    assert len(fitted) == len(frames) == 3
    for frame, (picture, box) in zip(frames, fitted, strict=True):
        assert box == Letterbox.of(width, height, FIT)
        left, top = np.ceil(box.offset).astype(int) + 2  # the edge's colours are half those of the grey beside it
        inside = np.s_[top : picture.shape[0] - top, left : picture.shape[1] - left]
        difference = np.abs(picture[inside].astype(int) - box.apply(frame)[inside].astype(int))
        assert difference.mean() < 2.5
        assert np.percentile(difference, 99) <= 16


def test_what_the_frame_leaves_free_is_grey(tmp_path: Path) -> None:
    picture, box = next(decode.fitted(video(tmp_path / "wide.mp4", 320, 96), None, FIT))
    assert box.offset[1] >= 8
    assert (picture[: int(box.offset[1]) - 1] == PADDING).all()
    assert (picture[-int(box.offset[1]) + 1 :] == PADDING).all()
