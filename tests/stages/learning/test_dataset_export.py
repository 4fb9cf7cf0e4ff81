"""The dataset for MMAction2: its own PoseDataset and Runner take it as it is, and see what our classifier sees."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from violence_ops.cli.program import app
from violence_ops.errors import ParamsError, UsageError, WorkspaceError
from violence_ops.params import export_fault, families
from violence_ops.records import LABELS, ClipRecord
from violence_ops.stages.learning import assemble, dataset_export
from violence_ops.workspace import Workspace

Seal = Callable[..., list[ClipRecord]]


@pytest.fixture
def assembled(new_workspace: Callable[..., Workspace], seal_tracks: Seal) -> Workspace:
    small = {"train.start": None, "train.base_channels": 8, "train.epochs": 1, "windows.size": 20, "windows.stride": 8}
    workspace = new_workspace(**small)
    seal_tracks(workspace, clips=16, per_group=2)
    assemble.run(workspace, workspace.params())
    return workspace


def test_mmaction2s_own_dataset_gives_the_tensors_that_our_classifier_sees(
    assembled: Workspace, tmp_path: Path
) -> None:
    from violence_ops.recognition.model import Recogniser, Settings
    from violence_ops.recognition.skeleton import read_table

    # isort: split
    from mmaction.datasets import PoseDataset
    from mmaction.registry import DATASETS
    from mmengine.config import Config

    params = assembled.params()
    result = dataset_export.run(assembled, params, tmp_path / "out")
    config = Config.fromfile(result.config)
    built = DATASETS.build(config.val_dataloader.dataset)
    assert type(built) is PoseDataset
    items = {info["frame_dir"]: built[i] for i, info in enumerate(built.get_data_info(i) for i in range(len(built)))}
    recogniser = Recogniser(Settings.of(params.train, params.windows))
    skeletons = read_table(pq.read_table(assembled.dataset / "skeletons.parquet"))
    seen = 0
    for row in pq.read_table(assembled.dataset / "val.parquet").to_pylist():
        windows = recogniser.windows(skeletons[row["clip_id"]])
        for (start, end), ours in zip(windows.cuts, windows.inputs, strict=True):
            for pair, view in zip(("1+2", "1+3", "2+3"), ours, strict=True):
                if pair == "1+2" or view.any():
                    item = items[f"{row['clip_id']}/{start}-{end}/{pair}"]
                    torch.testing.assert_close(item["inputs"], view[None], rtol=1e-5, atol=1e-5)
                    assert int(item["data_samples"].gt_label) == LABELS.index(row["label"])
                    seen += 1
    assert seen == len(built) == result.windows["val"] > 0


def test_the_sides_are_those_of_the_dataset(assembled: Workspace, tmp_path: Path) -> None:
    import violence_ops.recognition.dataset

    # isort: split
    from mmaction.datasets import PoseDataset

    assert violence_ops.recognition.dataset
    result = dataset_export.run(assembled, assembled.params(), tmp_path)
    for side in ("train", "val"):
        found = PoseDataset(ann_file=result.pose_dataset, pipeline=[], split=side)
        clips = {found.get_data_info(i)["frame_dir"].partition("/")[0] for i in range(len(found))}
        assert clips == set(pq.read_table(assembled.dataset / f"{side}.parquet").column("clip_id").to_pylist())
        assert len(found) == result.windows[side]


def test_whole_clips_are_exported_for_who_cuts_them_on_his_own(assembled: Workspace, tmp_path: Path) -> None:
    import violence_ops.recognition.dataset

    # isort: split
    from mmaction.datasets import PoseDataset

    assert violence_ops.recognition.dataset
    done = CliRunner().invoke(
        app,
        ["dataset", "export", str(tmp_path / "out"), "--format", "clips", "--workspace", str(assembled.root), "--json"],
    )
    result = json.loads(done.stdout)
    for side in ("train", "val"):
        found = PoseDataset(ann_file=result["pose_dataset"], pipeline=[], split=side)
        clips = [found.get_data_info(i) for i in range(len(found))]
        names = pq.read_table(assembled.dataset / f"{side}.parquet").column("clip_id").to_pylist()
        assert {clip["frame_dir"] for clip in clips} == set(names)
        assert len(clips) == len(names) == result["clips"][side]
    with pytest.raises(UsageError, match="holds an export already"):
        dataset_export.whole_clips(assembled, tmp_path / "out")


def test_mmaction2s_runner_trains_and_validates_with_the_configuration_as_it_is(
    assembled: Workspace, tmp_path: Path
) -> None:
    import violence_ops.openmmlab

    # isort: split
    from mmengine.config import Config
    from mmengine.runner import Runner

    assert violence_ops.openmmlab
    config = Config.fromfile(dataset_export.run(assembled, assembled.params(), tmp_path / "out").config)
    config.work_dir = str(tmp_path / "work")
    runner = Runner.from_cfg(config)
    runner.train()
    assert runner.epoch == 1
    metrics = runner.val_loop.run()
    assert 0 <= metrics["acc/top1"] <= 1
    assert all(np.isfinite(value.numpy()).all() for value in runner.model.state_dict().values())


def test_mmaction2s_runner_begins_with_the_start_that_our_training_begins_with(
    new_workspace: Callable[..., Workspace], seal_tracks: Seal, tmp_path: Path
) -> None:
    from violence_ops.recognition import starts
    from violence_ops.recognition.model import Settings

    # isort: split
    from mmengine.config import Config
    from mmengine.runner import Runner

    workspace = new_workspace()
    seal_tracks(workspace, clips=16, per_group=2)
    params = workspace.params()
    assemble.run(workspace, params)
    config = Config.fromfile(dataset_export.run(workspace, params, tmp_path / "out").config)
    config.work_dir = str(tmp_path / "work")
    runner = Runner.from_cfg(config)
    runner.load_or_resume()
    begun = starts.load(starts.find("synthetic_fights"), Settings.of(params.train, params.windows))
    found = runner.model.state_dict()
    assert begun.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in begun.items())


def test_a_family_that_cannot_be_exported_is_refused_before_anything_is_read(
    workspace: Workspace, tmp_path: Path
) -> None:
    with pytest.raises(
        ParamsError, match=r"stgcnpp_two_streams is no network of MMAction2 .* -S train\.family=stgcnpp\."
    ):
        dataset_export.run(workspace, workspace.params({"train.family": "stgcnpp_two_streams"}), tmp_path / "out")


@pytest.mark.parametrize("family", families())
def test_a_family_can_be_exported_if_its_configuration_is_a_networks_on_skeletons(
    workspace: Workspace, family: str
) -> None:
    from violence_ops.recognition.model import Settings, load_config

    params = workspace.params({"train.family": family, "train.start": None})
    assert (export_fault(family) is None) == (
        "train_pipeline" in load_config(Settings.of(params.train, params.windows))
    )


def test_what_cannot_be_exported_is_said_in_a_sentence(assembled: Workspace, tmp_path: Path) -> None:
    (tmp_path / "pose_dataset.pkl").touch()
    with pytest.raises(UsageError, match="holds an export already"):
        dataset_export.run(assembled, assembled.params(), tmp_path)
    with pytest.raises(ParamsError, match="no network of MMAction2"):
        dataset_export.run(assembled, assembled.params({"train.family": "feature_forest"}), tmp_path / "out")
    (assembled.dataset / "split.json").unlink()
    with pytest.raises(WorkspaceError, match="assemble"):
        dataset_export.run(assembled, assembled.params(), tmp_path / "out")
