"""A family that looks at pictures goes the same way as all others: trained, judged, in shadow, on videos; only the files must be there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from violence_ops.errors import Rejected, UsageError, WorkspaceError
from violence_ops.evaluation.records import JudgedClip, Prediction
from violence_ops.records import ClipRecord
from violence_ops.stages.learning import assemble, predict, pretrain, train
from violence_ops.stages.learning.dataset import Dataset
from violence_ops.stages.releasing import evaluate, thumbnails
from violence_ops.stages.upkeep import synth
from violence_ops.store import batches, pictures
from violence_ops.store.releases import open_registry
from violence_ops.video.sandbox import Sandbox
from violence_ops.video.write import VideoWriter
from violence_ops.workspace import Workspace

FAMILY = {"train.family": "resnet18_timeseries", "train.start": None, "train.epochs": 1, "gate.resamples": 200}


def film(workspace: Workspace, records: list[ClipRecord]) -> None:
    """The videos of a sealed batch: grey, and a square that moves."""
    batch = workspace.batch(records[0].batch_id)
    batch.videos.mkdir()
    for number, record in enumerate(records):
        with VideoWriter(batches.video_of(batch, record), width=640, height=360, fps=15) as writer:
            for index in range(36):
                frame = np.full((360, 640, 3), 60 + 5 * number, np.uint8)
                frame[100 + index : 200 + index, 200:400] = (200, 90, 30)
                writer.write(frame)


def test_a_missing_video_is_named(
    new_workspace: Callable[..., Workspace], seal_tracks: Callable[..., list[ClipRecord]]
) -> None:
    workspace = new_workspace(**FAMILY)
    records = seal_tracks(workspace, clips=12)
    assemble.run(workspace, workspace.params())
    with pytest.raises(
        WorkspaceError, match=r"\.mp4 is missing, and the model looks at pictures: `violence-ops dvc pull`"
    ):
        train.fit(workspace.params(), Dataset.read(workspace), None, None)
    video = batches.video_of(workspace.batch(records[0].batch_id), records[0])
    with Sandbox(workspace.params().validation) as sandbox, pytest.raises(WorkspaceError, match=video.name):
        pictures.of_clip(workspace.batch(records[0].batch_id), records[0], sandbox)([0])


def test_a_video_that_does_not_decode_within_the_limits_is_named_or_left_without_picture(
    new_workspace: Callable[..., Workspace], seal_tracks: Callable[..., list[ClipRecord]]
) -> None:
    workspace = new_workspace(**FAMILY)
    records = seal_tracks(workspace, clips=12)
    film(workspace, records)
    assemble.run(workspace, workspace.params())
    hurried = workspace.params({"validation.timeout_s": 1e-6})
    with pytest.raises(Rejected, match=r"took longer than 1e-06 s to decode \(validation.timeout_s\)"):
        train.fit(hurried, Dataset.read(workspace), None, None)

    said = Prediction(probability=0.9, verdict="Fight", confidence=0.9)
    judged = JudgedClip(
        clip_id=records[0].clip_id, label="Fight", source_group="g", batch_id=records[0].batch_id, source_path="a.mp4",
        slices={}, candidate=said, champion=None,
    )  # fmt: skip
    assert thumbnails.data_uris(workspace, hurried, [judged]) == {}
    assert not workspace.thumbnail(judged.clip_id).exists()
    found = thumbnails.data_uris(workspace, workspace.params(), [judged])
    assert found[judged.clip_id].startswith("data:image/jpeg;base64,")


def test_what_needs_skeletons_alone_refuses_a_family_on_pictures(workspace: Workspace, tmp_path: Path) -> None:
    params = workspace.params(FAMILY)
    with pytest.raises(UsageError, match="resnet18_timeseries is not of networks on skeletons"):
        pretrain.run(params, out=tmp_path / "start.safetensors", clips=8, validation=8)


@pytest.mark.slow
def test_it_is_trained_evaluated_and_judges_videos(
    new_workspace: Callable[..., Workspace], seal_tracks: Callable[..., list[ClipRecord]], tmp_path: Path,
    release: Callable[[Workspace, str], None],
) -> None:  # fmt: skip
    workspace = new_workspace(**FAMILY)
    params = workspace.params()
    film(workspace, seal_tracks(workspace, clips=12))
    assemble.run(workspace, params)
    version = train.run(workspace, params).model_version
    assert open_registry(workspace).tags(version)["family"] == "resnet18_timeseries"
    result = evaluate.run(workspace, params)
    assert Path(result.report_path).is_file()
    release(workspace, version)

    videos = tmp_path / "videos"
    synth.run(videos, clips=1, seed=1, groups=1, with_truth=False, duration_s=1.5)
    (row,) = predict.run(workspace, params, [videos])
    assert row["verdict"] == ("Fight" if row["probability"] > row["threshold"] else "NonFight")
    assert row["windows"]
