"""Making a start of one's own from synthetic skeletons."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from violence_ops.errors import UsageError, UserError
from violence_ops.params import load_params
from violence_ops.recognition import starts
from violence_ops.stages.learning import pretrain
from violence_ops.stages.learning.drawn import World

PARAMS = Path(__file__).parents[3] / "params.yaml"
SMALL = {"train.start": None, "train.base_channels": 8, "train.epochs": 1}


@pytest.mark.slow
def test_a_start_is_made_from_drawn_clips_and_names_its_recipe(tmp_path: Path) -> None:
    params = load_params(PARAMS, SMALL)
    result = pretrain.run(params, out=tmp_path / "own.safetensors", clips=8, validation=8)
    start = starts.find(result.path)
    assert (start.sha256, start.base_channels) == (result.sha256, 8)
    facts = json.loads((tmp_path / "own.json").read_text())
    assert facts["world"] == pretrain.WORLD
    assert facts["pose_weights"] == params.pose.weights
    figures = pretrain.evaluate(params, start=result.path, clips=4)
    assert 0 <= figures["auc"] <= 1


def test_clips_are_drawn_and_looked_at_once(tmp_path: Path) -> None:
    params, world = load_params(PARAMS), World(world=3, seed=0, folder=tmp_path)
    first = list(world.look(params, 2))
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = list(world.look(params, 3))
    assert [record.label for record, _ in again] == ["Fight", "NonFight", "Fight"]
    assert [record for record, _ in again[:2]] == [record for record, _ in first]
    assert all(np.array_equal(one.keypoints, two.keypoints) for (_, one), (_, two) in zip(first, again, strict=False))
    assert all(path.stat().st_mtime_ns == when for path, when in written.items())


def test_other_pose_parameters_look_again(tmp_path: Path) -> None:
    world = World(world=3, seed=0, folder=tmp_path)
    ((_, some),) = world.look(load_params(PARAMS), 1)
    ((_, fewer),) = world.look(load_params(PARAMS, {"pose.score_threshold": 0.6}), 1)
    assert len(fewer) < len(some)


@pytest.mark.parametrize("suffix", [".json", ".parquet"])
def test_a_clip_whose_files_are_damaged_or_gone_is_drawn_again(tmp_path: Path, suffix: str) -> None:
    params, world = load_params(PARAMS), World(world=3, seed=0, folder=tmp_path)
    ((record, poses),) = world.look(params, 1)
    (kept,) = tmp_path.glob(f"*{suffix}")
    for damage in (lambda: kept.write_bytes(kept.read_bytes()[:-9] + b"damaged!!"), kept.unlink):
        damage()
        ((again, found),) = world.look(params, 1)
        assert again == record
        assert np.array_equal(found.keypoints, poses.keypoints)


@pytest.mark.slow
def test_validation_is_of_whole_scenes_that_training_does_not_see(tmp_path: Path) -> None:
    params = load_params(PARAMS, SMALL)
    result = pretrain.run(params, out=tmp_path / "own.safetensors", clips=8, validation=9)
    assert result.validated_on == 12
    assert not list(tmp_path.glob("own.run/*.pt"))


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ({"train.start": "nothing"}, "nothing"),
        ({"train.precision": "fp16"}, "GPU"),
        ({"train.family": "feature_line"}, "skeletons"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_drawn(
    tmp_path: Path, override: dict[str, str], wanted: str
) -> None:
    with pytest.raises(UserError, match=wanted):
        pretrain.run(load_params(PARAMS, override), out=tmp_path / "own.safetensors", clips=8, validation=8)
    assert not list(tmp_path.iterdir())


def test_too_few_clips_or_another_kind_of_file_are_refused(tmp_path: Path) -> None:
    params = load_params(PARAMS)
    with pytest.raises(UsageError, match="at least 8"):
        pretrain.run(params, out=tmp_path / "own.safetensors", clips=2, validation=8)
    with pytest.raises(UsageError, match=r"\.safetensors"):
        pretrain.run(params, out=tmp_path / "own.pth", clips=8, validation=8)
    with pytest.raises(UsageError, match="seed"):
        pretrain.run(params, out=tmp_path / "own.safetensors", clips=8, validation=8, seed=-1)
