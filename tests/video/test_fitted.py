"""Letterboxing from the decoder's planes gives the picture that letterboxing the decoded frame gives."""

from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from av.video.reformatter import ColorRange, Colorspace

from violence_ops.letterbox import PADDING, Fit, Letterbox
from violence_ops.params import ValidationParams, load_params
from violence_ops.video import decode
from violence_ops.video.sandbox import Sandbox

FIT = Fit(128, 32)
BT709 = 1


@pytest.fixture(scope="module")
def limits() -> ValidationParams:
    return load_params(Path(__file__).parents[2] / "params.yaml").validation


def video(path: Path, width: int, height: int, pixels: str = "yuv420p", matrix: int | None = None) -> Path:
    """Ten frames of soft colours, tagged with a colour matrix of ITU-T H.273 if one is given."""
    across, down = np.meshgrid(np.linspace(0, 1.5, width), np.linspace(0, 1, height))
    with av.open(str(path), "w") as container:
        codec = "libx264" if matrix is not None else "mpeg4" if pixels == "yuv420p" else "ffv1"
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        if matrix is not None:
            stream.codec_context.colorspace, stream.codec_context.color_range = matrix, ColorRange.MPEG
        for number in range(10):
            waves = [np.sin(across + number / 5), np.cos(down), np.sin(across + down)]
            picture = ((np.stack(waves, axis=-1) + 1) * 100 + 20).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            if matrix == BT709:
                frame = frame.reformat(format=pixels, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
            container.mux(stream.encode(frame))
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


@pytest.mark.parametrize("matrix", [BT709, 5, 6, 7], ids=["709", "601-625", "601-525", "240M"])
def test_colours_are_those_of_the_matrix_that_the_file_names(tmp_path: Path, matrix: int) -> None:
    path = video(tmp_path / "clip.mp4", 320, 180, matrix=matrix)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).colorspace == matrix
    frame, (picture, box) = next(decode.frames(path)), next(decode.fitted(path, None, FIT))
    top = int(np.ceil(box.offset[1])) + 2
    difference = np.abs(picture[top:-top].astype(int) - box.apply(frame)[top:-top].astype(int))
    assert difference.mean() < 1.5
    assert difference.max() <= 8


@pytest.mark.parametrize("matrix", [0, 3, *range(8, 16), 200])
def test_a_matrix_that_cannot_be_converted_does_not_cost_the_clip(
    tmp_path: Path, matrix: int, limits: ValidationParams
) -> None:
    path = tmp_path / "clip.mp4"
    with av.open(str(video(tmp_path / "plain.mp4", 320, 180, matrix=6))) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        tagged = BitStreamFilterContext(f"h264_metadata=matrix_coefficients={matrix}", old.streams.video[0], stream)
        for packet in old.demux(old.streams.video[0]):
            for changed in tagged.filter(packet):
                changed.stream = stream
                new.mux(changed)
    with Sandbox(limits) as sandbox:
        assert sandbox.validate(path).frame_count == 10
        assert len(list(sandbox.frames(path))) == len(list(sandbox.pictures(path, range(10), FIT))) == 10
