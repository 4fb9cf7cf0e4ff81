"""Encoded clips are what the scene says, byte for byte the same each time."""

from pathlib import Path

import av
import pytest

from violence_ops import synthetic


@pytest.mark.parametrize("seed", [0, 1, 2, 5], ids=str)
def test_a_written_clip_reads_back_as_promised(seed: int, tmp_path: Path) -> None:
    clip = synthetic.clip(seed, duration_s=0.8)
    path = tmp_path / f"clip.{clip.scene.container}"
    synthetic.write_clip(clip, path)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
        rate = float(container.streams.video[0].average_rate)
    assert len(frames) == clip.frame_count
    assert frames[0].shape == (clip.height, clip.width, 3)
    assert rate == pytest.approx(clip.fps, rel=0.01)
    assert abs(frames[-1].mean() - clip.frame(clip.frame_count - 1).mean()) < 12


@pytest.mark.parametrize("seed", [0, 1, 3], ids=str)
def test_the_same_clip_gives_the_same_bytes(seed: int, tmp_path: Path) -> None:
    clip = synthetic.clip(seed, duration_s=0.8)
    paths = [tmp_path / f"{name}.{clip.scene.container}" for name in "ab"]
    for path in paths:
        synthetic.write_clip(clip, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
