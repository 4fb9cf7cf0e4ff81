"""Pictures come as players show them: the right way up, and people as broad as they are."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from violence_ops.errors import Rejected
from violence_ops.letterbox import Fit
from violence_ops.params import ValidationParams, load_params
from violence_ops.video import decode
from violence_ops.video.facts import examine
from violence_ops.video.sandbox import Sandbox

COLOURS = {"red": (0, 0, 255), "green": (0, 255, 0), "blue": (255, 0, 0), "white": (255, 255, 255)}
SQUARE = Fraction(1)


@pytest.fixture(scope="module")
def limits() -> ValidationParams:
    return load_params(Path(__file__).parents[2] / "params.yaml").validation


def video(path: Path, *, pixel: Fraction = SQUARE, overhead: bool = False) -> Path:
    """Red and green over blue and white, 128 by 96 pixels that are `pixel` times as wide as high; with the camera `overhead` turned."""
    width, height = 128, 96
    picture = np.array([list(COLOURS.values())], np.uint8).reshape(2, 2, 3).repeat(height // 2, 0).repeat(width // 2, 1)
    if overhead:
        picture = np.ascontiguousarray(picture[::-1, ::-1])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=15)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.sample_aspect_ratio = pixel
        for _ in range(15):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())
    return path


def turned(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a display matrix into the track's header: where the picture's x and y axes point, as ISO 14496-12 has it."""
    content = bytearray(path.read_bytes())
    place = content.find(b"tkhd") + 4 + 4 + 20 + 8 + 8
    assert struct.unpack(">9i", content[place : place + 36]) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    a, b, c, d = (one << 16 for one in matrix)
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def corners(picture: np.ndarray) -> str:
    """The colours at a quarter and three quarters of both sides, row by row."""
    ys, xs = ((side // 4, 3 * side // 4) for side in picture.shape[:2])
    distance = {name: picture[np.ix_(ys, xs)].astype(int) - colour for name, colour in COLOURS.items()}
    nearest = np.argmin([np.abs(one).sum(axis=-1).reshape(-1) for one in distance.values()], axis=0)
    return " ".join(np.array(list(COLOURS))[nearest])


@pytest.mark.parametrize(
    ("matrix", "size", "seen"),
    [
        ((1, 0, 0, 1), (128, 96), "red green blue white"),
        ((0, 1, -1, 0), (96, 128), "blue red white green"),
        ((-1, 0, 0, -1), (128, 96), "white blue green red"),
        ((0, -1, 1, 0), (96, 128), "green white red blue"),
        ((-1, 0, 0, 1), (128, 96), "green red white blue"),
        ((1, 0, 0, -1), (128, 96), "blue white red green"),
        ((0, 1, 1, 0), (96, 128), "red blue green white"),
        ((1, 1, -1, 1), (128, 96), "red green blue white"),
    ],
    ids=["upright", "clockwise", "overhead", "anticlockwise", "mirrored", "upended", "transposed", "askew"],
)
def test_a_turned_video_is_seen_upright_by_everybody(
    tmp_path: Path, limits: ValidationParams, matrix: tuple[int, int, int, int], size: tuple[int, int], seen: str
) -> None:
    path = turned(video(tmp_path / "phone.mp4"), matrix)
    facts = examine(path, limits)
    frame, (fitted, box) = next(decode.frames(path)), next(decode.fitted(path, None, Fit(128, 32)))
    assert (facts.width, facts.height) == size == frame.shape[1::-1] == (box.width, box.height)
    assert corners(frame) == corners(fitted) == seen
    with Sandbox(limits) as sandbox:
        ((sent, _),) = sandbox.pictures(path, [3], None)
    assert corners(sent) == seen


def test_a_turned_video_and_one_that_was_filmed_so_look_alike(tmp_path: Path, limits: ValidationParams) -> None:
    plain, camera = video(tmp_path / "plain.mp4"), video(tmp_path / "camera.mp4", overhead=True)

    def unlike(one: Path, two: Path) -> int:
        hashes = (int(examine(path, limits).perceptual_hash, 16) for path in (one, two))
        return (next(hashes) ^ next(hashes)).bit_count()

    assert unlike(plain, camera) > 15
    assert unlike(plain, turned(camera, (-1, 0, 0, -1))) <= 4


@pytest.mark.parametrize(
    ("pixel", "size"),
    [
        (SQUARE, (128, 96)),
        (Fraction(64, 51), (160, 96)),
        (Fraction(1, 2), (128, 192)),
        (Fraction(100, 99), (128, 96)),
        (Fraction(5), (128, 96)),
        (Fraction(1, 9), (128, 96)),
    ],
    ids=["square", "wide", "2CIF", "nearly-square", "far-too-wide", "far-too-high"],
)
def test_oblong_pixels_are_made_square(
    tmp_path: Path, limits: ValidationParams, pixel: Fraction, size: tuple[int, int]
) -> None:
    path = video(tmp_path / "recorder.mp4", pixel=pixel)
    facts, frame = examine(path, limits), next(decode.frames(path))
    _, box = next(decode.fitted(path, None, Fit(128, 32)))
    assert (facts.width, facts.height) == size == frame.shape[1::-1] == (box.width, box.height)
    assert corners(frame) == "red green blue white"


def test_pixels_are_stretched_before_the_picture_is_turned(tmp_path: Path, limits: ValidationParams) -> None:
    path = turned(video(tmp_path / "both.mp4", pixel=Fraction(3, 2)), (0, 1, -1, 0))
    facts = examine(path, limits)
    assert (facts.width, facts.height) == (96, 192) == next(decode.frames(path)).shape[1::-1]


def test_a_clip_that_is_known_by_the_size_it_is_stored_in_stays_so(tmp_path: Path, limits: ValidationParams) -> None:
    """Its tracks are of before pictures were turned."""
    path = turned(video(tmp_path / "phone.mp4"), (0, 1, -1, 0))
    with Sandbox(limits) as sandbox:
        (_, frame), *_ = sandbox.frames(path, 8, known=(128, 96))
        ((picture, box),) = sandbox.pictures(path, [3], Fit(128, 32), known=(128, 96))
        ((upright, _),) = sandbox.pictures(path, [3], None, known=(96, 128))
    assert corners(frame) == corners(picture) == "red green blue white"
    assert frame.shape[1::-1] == (box.width, box.height) == (128, 96)
    assert (corners(upright), upright.shape[1::-1]) == ("blue red white green", (96, 128))


def test_a_picture_that_is_too_large_once_it_is_stretched_is_refused(tmp_path: Path, limits: ValidationParams) -> None:
    path = video(tmp_path / "bomb.mp4", pixel=Fraction(4))
    small = limits.model_copy(update={"max_pixels": 128 * 96 * 2})
    with pytest.raises(Rejected) as refusal:
        examine(path, small)
    assert refusal.value.reason == "bad_dimensions"
