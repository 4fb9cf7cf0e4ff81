"""Poses of the second source lie in the same tables as RTMO's."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from violence_ops.errors import UsageError
from violence_ops.files import read_fingerprint
from violence_ops.pose.weights import WeightsError
from violence_ops.records import POSES_SCHEMA
from violence_ops.stages.nightly import extract_poses
from violence_ops.stages.poses.weights import teacher_files
from violence_ops.store import batches
from violence_ops.video.write import VideoWriter

DATA = Path(__file__).parents[4] / "shared" / "data"
PICTURE = DATA / "keypoints" / "coco" / "000000000785.jpg"


def _film(path: Path) -> None:
    """A still of one person on skis, 320 × 212 px, six frames."""
    frame = np.asarray(cv2.resize(cv2.imread(str(PICTURE)), (320, 212), interpolation=cv2.INTER_AREA), np.uint8)
    with VideoWriter(path, width=320, height=212, fps=15) as writer:
        for _ in range(6):
            writer.write(frame)


@pytest.mark.skipif(not (DATA / "teachers").is_dir(), reason="needs the models in ../shared/data/teachers")
def test_the_tables_of_both_sources_are_alike_and_their_fingerprints_are_not(new_workspace, open_batch):
    workspace = new_workspace()
    (clip,) = open_batch(workspace, clips=1, width=320, height=212, frame_count=6)
    batch = workspace.batch(clip.batch_id)
    _film(batches.video_of(batch, clip))
    detector, keypoints = map(str, teacher_files(DATA / "teachers"))
    topdown = {"pose.source": "topdown", "pose.detector": detector, "pose.keypoints": keypoints}
    tables, marks = [], []
    for overrides in ({}, topdown):
        result = extract_poses.run(workspace, workspace.params(overrides))
        assert (result.extracted, result.frames, result.without_person) == (1, 6, 0)
        assert extract_poses.run(workspace, workspace.params(overrides)).skipped == 1
        part = batch.part("poses", clip.clip_id)
        tables.append(pq.read_table(part))
        marks.append(read_fingerprint(part))
    assert tables[0].schema.equals(tables[1].schema)
    assert tables[1].schema.names == POSES_SCHEMA.names
    assert set(tables[1].column("frame").to_pylist()) == set(range(6))
    assert marks[0] != marks[1]


def test_a_source_without_its_files_is_refused_in_a_sentence(workspace, open_batch, tmp_path):
    open_batch(workspace, clips=1)
    with pytest.raises(UsageError, match=r"needs two model files: set pose\.detector and pose\.keypoints"):
        extract_poses.run(workspace, workspace.params({"pose.source": "topdown"}))
    gone = {
        "pose.source": "topdown",
        "pose.detector": str(tmp_path / "a.onnx"),
        "pose.keypoints": str(tmp_path / "b.tflite"),
    }
    with pytest.raises(WeightsError, match=r"There is no model file .*a\.onnx"):
        extract_poses.run(workspace, workspace.params(gone))
