"""`synth` makes a drop that an inbox can take, and the broken files of a bad night."""

import csv
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from violence_ops.errors import UsageError
from violence_ops.records import REASONS
from violence_ops.stages.upkeep import synth


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def drop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night") / "drop"
    synth.run(folder, 8, seed=3, groups=2, unlabelled=2, duration_s=0.8)
    return folder


def test_the_drop_holds_the_clips_and_their_labels_and_nothing_else(drop: Path) -> None:
    rows = _rows(drop)
    assert list(rows[0]) == ["path", "label", "source_group", "camera_id", "recorded_at"]
    assert {file.name for file in drop.iterdir()} == {row["path"] for row in rows} | {"labels.csv"}
    assert Counter(row["label"] for row in rows) == {"Fight": 4, "NonFight": 4, "": 2}
    assert len({row["source_group"] for row in rows}) == 2


def test_both_labels_occur_in_every_group(drop: Path) -> None:
    labelled = {(row["source_group"], row["label"]) for row in _rows(drop) if row["label"]}
    assert len(labelled) == 4


def test_the_truth_lies_beside_the_drop_and_fits_the_clip(drop: Path) -> None:
    row = _rows(drop)[0]
    with np.load(drop.with_name("drop-truth") / f"{Path(row['path']).stem}.truth.npz") as truth:
        assert str(truth["label"]) == row["label"]
        frames = truth["keypoints"].shape[0]
    with av.open(str(drop / row["path"])) as container:
        assert sum(1 for _ in container.decode(video=0)) == frames


def test_the_same_seed_gives_the_same_drop(drop: Path, tmp_path: Path) -> None:
    synth.run(tmp_path / "again", 8, seed=3, groups=2, unlabelled=2, duration_s=0.8, with_truth=False)
    for file in drop.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_another_seed_gives_other_clips_of_the_same_cameras(drop: Path, tmp_path: Path) -> None:
    synth.run(tmp_path / "next", 4, seed=4, groups=2, duration_s=0.8, with_truth=False)
    assert {row["camera_id"] for row in _rows(tmp_path / "next")} == {row["camera_id"] for row in _rows(drop)}
    assert not {file.read_bytes() for file in drop.glob("*.*4")} & {
        file.read_bytes() for file in (tmp_path / "next").glob("*.*4")
    }


def test_nonsense_numbers_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="groups >= 1"):
        synth.run(tmp_path / "x", 3, seed=0, groups=0)


def test_a_folder_that_holds_files_is_refused_and_an_empty_inbox_is_not(tmp_path: Path) -> None:
    (tmp_path / ".gitkeep").touch()
    synth.run(tmp_path, 1, seed=0, groups=1, duration_s=0.5, with_truth=False)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UsageError, match="is not empty"):
        synth.run(tmp_path, 2, seed=1, groups=1)
    assert sorted(tmp_path.iterdir()) == before


def test_fewer_groups_than_asked_for_are_told(tmp_path: Path) -> None:
    made = synth.run(tmp_path / "x", 2, seed=0, groups=2, duration_s=0.5, with_truth=False)
    assert made["groups"] == 1
    assert made["notices"] == ["Only 1 of 2 groups was made: each group needs a clip of both labels."]


def test_broken_files_are_broken_in_the_way_their_reason_says(tmp_path: Path) -> None:
    expected = synth.broken_files(tmp_path, seed=2)
    assert set(expected.values()) <= set(REASONS)
    assert {file.name for file in tmp_path.iterdir()} == set(expected)
    by_reason = {reason: tmp_path / name for name, reason in expected.items()}
    assert by_reason["not_a_regular_file"].is_symlink()
    assert "\n" in by_reason["unsafe_name"].name
    assert ".." in by_reason["unsafe_name"].name
    with av.open(str(by_reason["no_video_stream"])) as sound:
        assert not sound.streams.video
    with av.open(str(by_reason["too_short"])) as single:
        assert sum(1 for _ in single.decode(video=0)) == 1
    with av.open(str(by_reason["truncated"])) as short:
        promised = short.streams.video[0].frames
        decoded = 0
        try:
            for _ in short.decode(video=0):
                decoded += 1
        except av.error.FFmpegError:
            pass
    assert 0 < decoded < promised
