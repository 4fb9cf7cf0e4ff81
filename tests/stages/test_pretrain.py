"""Making a start of one's own from synthetic skeletons."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from violence_ops.errors import UsageError
from violence_ops.params import load_params
from violence_ops.recognition import starts
from violence_ops.stages import pretrain

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.mark.slow
def test_a_start_is_made_from_clips_that_were_never_drawn_and_names_its_recipe(tmp_path: Path) -> None:
    params = load_params(PARAMS, {"train.epochs": 1, "train.base_channels": 8})
    result = pretrain.run(params, out=tmp_path / "own.safetensors", clips=8, measured=8)
    start = starts.find(result.path)
    assert (start.sha256, start.base_channels) == (result.sha256, 8)
    facts = json.loads((tmp_path / "own.json").read_text())
    assert facts["world"] == pretrain.WORLD
    assert facts["pose_weights"] == params.pose.weights
    figures = pretrain.evaluate(params, start=result.path, clips=4)
    assert 0 <= figures["auc"] <= 1


def test_too_few_clips_or_another_kind_of_file_are_refused(tmp_path: Path) -> None:
    params = load_params(PARAMS)
    with pytest.raises(UsageError, match="at least 8"):
        pretrain.run(params, out=tmp_path / "own.safetensors", clips=2)
    with pytest.raises(UsageError, match=r"\.safetensors"):
        pretrain.run(params, out=tmp_path / "own.pth", clips=8)
