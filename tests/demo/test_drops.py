"""What the demo brings: nights that share no source group, duplicates, broken files; a folder of real clips is only copied."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import pytest

from violence_ops import demo
from violence_ops.demo import drops
from violence_ops.errors import UsageError
from violence_ops.files import write_text
from violence_ops.stages.upkeep import synth
from violence_ops.workspace import Workspace


def groups(folder: Path) -> set[str]:
    with (folder / "labels.csv").open() as handle:
        return {row["source_group"] for row in csv.DictReader(handle)}


def digests(folder: Path) -> set[str]:
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.mp4") if path.is_file()}


@pytest.fixture
def real_clips(tmp_path: Path) -> Path:
    synth.run(tmp_path / "clips", 8, seed=3, groups=8, duration_s=0.5, with_truth=False)
    return tmp_path / "clips"


def test_real_clips_are_split_by_source_group_and_left_untouched(real_clips: Path, tmp_path: Path) -> None:
    before = digests(real_clips)
    rows = list(csv.DictReader((real_clips / "labels.csv").open()))
    for number, row in enumerate(rows):
        row["source_group"] = f"group-{number}"
    with (real_clips / "labels.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    first, second = drops.prepare(tmp_path / "drops", real_clips)
    assert groups(first.folder)
    assert groups(second.folder)
    assert not groups(first.folder) & groups(second.folder)
    assert first.good + second.good == 8
    assert digests(real_clips) == before


def test_the_second_night_brings_bytes_of_the_first_again(real_clips: Path, tmp_path: Path) -> None:
    for path in list(real_clips.glob("syn_*")):
        label = "Fight" if int(path.stem[-1]) % 2 == 0 else "NonFight"
        (real_clips / label).mkdir(exist_ok=True)
        path.rename(real_clips / label / path.with_suffix(path.suffix.upper()).name)  # as cameras name them
    (real_clips / "labels.csv").unlink()
    first, second = drops.prepare(tmp_path / "drops", real_clips)
    again = list((second.folder / "again").iterdir())
    known = {hashlib.sha256(path.read_bytes()).hexdigest() for path in first.folder.rglob("syn_*")}
    assert len(again) == second.duplicates > 0
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in again} <= known
    assert set(second.broken.values()) >= {"unreadable", "truncated", "no_video_stream", "too_short", "unsafe_name"}


def test_a_folder_without_clips_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no labels"):
        drops.prepare(tmp_path / "drops", tmp_path)


@pytest.mark.parametrize(
    ("clips", "said"),
    [("nowhere", "is no folder"), ("empty", "nothing to run the demo on"), ("few", "the demo needs 6")],
)
def test_clips_that_the_demo_cannot_run_on_are_refused_before_anything_is_started_or_replaced(
    clips: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    synth.run(tmp_path / "few", 4, seed=3, groups=2, duration_s=0.5, with_truth=False)
    earlier = Workspace(tmp_path / "demo")
    write_text(earlier.demo_marker, "an earlier demo")
    with pytest.raises(UsageError, match=said):
        demo.run(earlier.root, clips=tmp_path / clips)
    assert list(earlier.root.rglob("*")) == [earlier.services, earlier.demo_marker]


def test_a_table_that_names_a_missing_file_is_refused(real_clips: Path, tmp_path: Path) -> None:
    next(real_clips.glob("syn_*")).unlink()
    with pytest.raises(UsageError, match="is not there"):
        drops.prepare(tmp_path / "drops", real_clips)


def test_a_workspace_that_no_demo_made_is_never_deleted(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="nothing was deleted"):
        demo.run(workspace.root)
    assert workspace.params_file.is_file()
