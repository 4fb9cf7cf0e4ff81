"""Slices and leakage."""

import numpy as np
import pytest

from violence_ops.evaluation.judgement import Origin, leakage
from violence_ops.evaluation.slices import slices_of
from violence_ops.records import COMPONENTS, JOINTS, ClipRecord, ClipTracks


def _tracks(frames: list[int]) -> ClipTracks:
    rows = len(frames)
    return ClipTracks(
        clip_id="a" * 20, frame_count=10, width=640, height=360, fps=10.0, frame=np.array(frames, np.int32),
        bboxes=np.zeros((rows, 4), np.float32), scores=np.zeros(rows, np.float32), keypoints=np.zeros((rows, JOINTS, 2), np.float32),
        keypoint_scores=np.zeros((rows, JOINTS), np.float32), track_id=np.ones(rows, np.int32), rank=np.ones(rows, np.int32),
        involvement=np.zeros(rows, np.float32), components=np.zeros((rows, len(COMPONENTS)), np.float32),
    )  # fmt: skip


def _clip(**changes: object) -> ClipRecord:
    return ClipRecord(clip_id="a" * 20, sha256="a" * 64, batch_id="b", source_path="p", source_group="g").with_(
        **changes
    )


@pytest.mark.parametrize(
    ("frames", "crowd"),
    [([], "nobody found"), ([0, 1, 2], "1 person"), ([0, 0, 1, 2], "2 persons"), ([0] * 7 + [1, 2], "6 persons and more")],
    ids=["none", "one", "two", "crowd"],
)  # fmt: skip
def test_the_crowd_slice_counts_the_persons_at_once(frames: list[int], crowd: str) -> None:
    assert slices_of(_clip(), _tracks(frames))["crowd"] == crowd


def test_a_clip_with_unknown_facts_is_in_slices_called_unknown() -> None:
    assert slices_of(_clip(), _tracks([])) == {
        "camera": "unknown", "resolution": "unknown", "crowd": "nobody found", "darkness": "unknown",
    }  # fmt: skip


def test_a_clip_is_cut_by_its_facts() -> None:
    found = slices_of(_clip(camera_id="door", height=360, brightness=20.0), _tracks([0, 0, 1, 1]))
    assert found == {"camera": "door", "resolution": "288 to 479 lines", "crowd": "2 persons", "darkness": "dark"}


def test_leakage_names_shared_clips_groups_and_near_duplicates() -> None:
    held = [Origin("c1", "g1", "00000000000000ff"), Origin("c2", "g2", None)]
    trained = [Origin("c2", "g9", None), Origin("c3", "g1", None), Origin("c4", "g8", "00000000000000fe")]
    found = leakage(held, trained, near_duplicate_bits=1)
    assert (found.clip_ids, found.source_groups, found.near_duplicates) == (("c2",), ("g1",), (("c1", "c4"),))
    assert not leakage(held, trained, near_duplicate_bits=0).near_duplicates
    assert not leakage(held[:1], [Origin("c9", "g9", None)], near_duplicate_bits=64).found
