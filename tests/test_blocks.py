"""Long arrays some rows at a time: the same result, and people who are followed for long in little memory."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from violence_ops import blocks
from violence_ops.params import load_params
from violence_ops.records import ClipPoses, ClipTracks
from violence_ops.stages.nightly.following import follow

PARAMS = load_params(Path(__file__).parents[1] / "params.yaml")
FIELDS = ("frame", "track_id", "rank", "involvement", "components", "keypoints", "interpolated")


def poses(frames: int, people: int, seen: float = 1.0) -> ClipPoses:
    """People who stroll about side by side and sometimes are not seen."""
    rng = np.random.default_rng(frames)
    start = np.stack([np.linspace(60, 1200, people), rng.uniform(200, 500, people)], axis=1)
    frame, person = np.nonzero(rng.random((frames, people)) <= seen)
    middle = (start + np.cumsum(rng.normal(0, 0.5, (frames, people, 2)), axis=0))[frame, person]
    rows, half = len(frame), np.array([20.0, 50.0])
    return ClipPoses(
        clip_id="0" * 20, frame_count=frames, width=1280, height=720, fps=15.0, frame=frame.astype(np.int32),
        bboxes=np.hstack([middle - half, middle + half]).astype(np.float32),
        scores=rng.uniform(0.5, 0.9, rows).astype(np.float32),
        keypoints=(middle[:, None] + rng.normal(0, 1, (rows, 17, 2)) * (15, 40)).astype(np.float32),
        keypoint_scores=(rng.uniform(0, 1, (rows, 17)) * (rng.random((rows, 17)) < 0.8)).astype(np.float32),
    )  # fmt: skip


def followed(some: ClipPoses) -> ClipTracks:
    return follow(some, PARAMS, np.arange(some.frame_count, dtype=np.int32))


@pytest.mark.parametrize("rows", [0, 1, 4, 5, 23])
def test_a_function_of_rows_gives_the_same_in_blocks(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "AT_ONCE", 5)
    first, second = np.arange(rows * 3).reshape(rows, 3), np.arange(rows)
    sizes: list[int] = []

    def function(some: np.ndarray, others: np.ndarray) -> np.ndarray:
        sizes.append(len(some))
        return some * others[:, None]

    assert np.array_equal(blocks.in_blocks(function, first, second), first * second[:, None])
    assert max(sizes) <= 5


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_clip_looked_at_a_few_rows_at_a_time_is_annotated_bit_for_bit_the_same(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for some in (poses(40, 5, seen=0.9), poses(5, 1), poses(0, 3)):
        whole = followed(some)
        with monkeypatch.context() as patched:
            patched.setattr(blocks, "AT_ONCE", size)
            pieces = followed(some)
        for name in FIELDS:
            assert np.array_equal(getattr(pieces, name), getattr(whole, name)), name


def test_following_the_people_of_a_long_clip_takes_less_than_a_kibibyte_for_each_row() -> None:
    def peak(frames: int) -> int:
        some = poses(frames, 5)
        tracemalloc.start()
        followed(some)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    followed(poses(10, 1))  # imports count too
    # the difference leaves out what every clip takes, however short
    assert peak(6_000) - peak(2_500) < 1024 * 5 * 3_500
