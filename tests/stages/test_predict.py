"""The champion judges videos straight from their files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from violence_ops.errors import UsageError
from violence_ops.records import ClipRecord
from violence_ops.stages import assemble, predict, synth, train
from violence_ops.stages.releases import open_registry
from violence_ops.workspace import Workspace


@pytest.mark.slow
def test_every_video_of_a_folder_gets_a_row_and_a_broken_one_its_reason(
    new_workspace: Callable[..., Workspace], seal_tracks: Callable[..., list[ClipRecord]], tmp_path: Path
) -> None:
    workspace = new_workspace(**{"train.base_channels": 8, "train.epochs": 1})
    params = workspace.params()
    seal_tracks(workspace)
    assemble.run(workspace, params)
    open_registry(workspace).set_alias("champion", train.run(workspace, params).model_version, None)

    videos = tmp_path / "videos"
    synth.run(videos, clips=2, seed=1, groups=2, with_truth=False, duration_s=1.5)
    (videos / "broken.mp4").write_text("no video")
    rows = {Path(row["path"]).name: row for row in predict.run(workspace, params, [videos])}
    assert rows["broken.mp4"]["reason"] == "unreadable"
    assert len(rows) == 3
    judged = [row for row in rows.values() if "verdict" in row]
    assert len(judged) == 2
    for row in judged:
        assert row["model_version"] == "1"
        assert row["verdict"] == ("Fight" if row["probability"] > row["threshold"] else "NonFight")
        assert row["windows"]
    with pytest.raises(UsageError, match="does not exist"):
        list(predict.run(workspace, params, [tmp_path / "nowhere"]))
