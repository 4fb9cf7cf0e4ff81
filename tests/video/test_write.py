"""Writing videos: what was written can be read, and nothing half written is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from violence_ops.video import decode
from violence_ops.video.write import VideoWriter, container_suffix


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".avi"])
def test_a_written_video_reads_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"video{suffix}"
    with VideoWriter(path, width=97, height=65, fps=12.5) as writer:
        for index in range(20):
            writer.write(np.full((65, 97, 3), 10 * index, np.uint8))
    frames = list(decode.frames(path))
    assert len(frames) == 20
    assert frames[0].shape == (64, 96, 3)
    assert all(abs(float(frame.mean()) - 10 * index) < 12 for index, frame in enumerate(frames))


def test_the_codecs_are_tried_in_order_and_the_choice_is_told(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", width=64, height=64, fps=10, codecs=("no_such_codec", "mpeg4")) as writer:
        writer.write(np.zeros((64, 64, 3), np.uint8))
    assert writer.codec == "mpeg4"


def test_an_exception_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyError), VideoWriter(tmp_path / "a.mp4", width=64, height=64, fps=10):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_other_containers_become_avi() -> None:
    assert container_suffix(Path("x.MKV")) == ".avi"
    assert container_suffix(Path("x.MP4")) == ".mp4"
