"""Labelled pictures come back from a file as they went in."""

from pathlib import Path

import numpy as np
import pytest

from violence_ops.pose import album
from violence_ops.pose.samples import Sample


def _sample(rng: np.random.Generator, people: int, size: tuple[int, int] = (48, 64)) -> Sample:
    smooth = np.linspace(0, 255, size[0] * size[1] * 3).reshape(*size, 3).astype(np.uint8)
    corner = rng.uniform(0, 20, (people, 2))
    return Sample(
        smooth, rng.uniform(0, 60, (people, 17, 2)).astype(np.float32), rng.integers(0, 3, (people, 17), np.uint8),
        np.hstack([corner, corner + 20]).astype(np.float32), rng.random(people) < 0.5,
    )  # fmt: skip


@pytest.fixture
def samples() -> list[Sample]:
    rng = np.random.default_rng(0)
    return [_sample(rng, people, (40 + people, 64)) for people in (3, 0, 1, 2, 1, 1, 1, 1, 1, 1, 4)]


def test_an_album_gives_back_its_labels_exactly_and_its_pictures_nearly(samples: list[Sample], tmp_path: Path) -> None:
    album.save(map(album.Print.of, samples), tmp_path / "real.npz")
    again = [packed.sample() for packed in album.load(tmp_path / "real.npz")]
    assert len(again) == len(samples)
    for before, after in zip(samples, again, strict=True):
        for name in ("keypoints", "visibility", "bboxes", "ignored"):
            assert np.array_equal(getattr(before, name), getattr(after, name))
            assert getattr(before, name).dtype == getattr(after, name).dtype
        assert after.image.shape == before.image.shape
        assert np.abs(after.image.astype(int) - before.image).mean() < 4
    assert [path.name for path in tmp_path.iterdir()] == ["real.npz"]


def test_an_album_that_could_not_be_written_leaves_the_old_one(samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "real.npz"
    album.save(map(album.Print.of, samples[:1]), path)
    before = path.read_bytes()

    def broken() -> object:
        yield album.Print.of(samples[0])
        raise RuntimeError("the decoder died")

    with pytest.raises(RuntimeError, match="the decoder died"):
        album.save(broken(), path)  # type: ignore[arg-type]
    assert path.read_bytes() == before


def test_an_empty_album_is_an_album(tmp_path: Path) -> None:
    album.save([], tmp_path / "real.npz")
    assert album.load(tmp_path / "real.npz") == []
