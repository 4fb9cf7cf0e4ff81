"""From poses to ranked tracks, whatever the poses are like: a defined result, and tables that hold only what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from violence_ops.params import load_params
from violence_ops.recognition.skeleton import from_tracks
from violence_ops.records import TRACKS_SCHEMA, ClipPoses, ClipRecord, ClipTracks, FramePoses
from violence_ops.stages.nightly.annotation_summary import scene_of, summary_row
from violence_ops.stages.nightly.following import follow

PARAMS = load_params(Path(__file__).parents[3] / "params.yaml")
CLIP = ClipRecord(
    clip_id="0" * 20, sha256="0" * 64, batch_id="", source_path="", source_group="", width=640, height=360, fps=15.0, frame_count=30
)  # fmt: skip
FRAMES = np.arange(30, dtype=np.int32)
ROWS = ("frame", "bboxes", "scores", "keypoints", "keypoint_scores")


def poses(people: int = 3) -> ClipPoses:
    """People side by side who sway a little, in every frame."""
    rng = np.random.default_rng(people)
    middle = (
        np.stack(np.divmod(np.arange(people), 20)[::-1], axis=1) * (30, 35)
        + (20, 18)
        + rng.normal(0, 0.5, (30, people, 2))
    )
    middle, size = middle.reshape(-1, 2), np.array([10.0, 16.0])
    return ClipPoses(
        clip_id=CLIP.clip_id, frame_count=30, width=640, height=360, fps=15.0, frame=np.repeat(FRAMES, people),
        bboxes=np.hstack([middle - size, middle + size]).astype(np.float32), scores=np.full(len(middle), 0.8, np.float32),
        keypoints=(middle[:, None] + rng.normal(0, 0.4, (len(middle), 17, 2)) * size).astype(np.float32),
        keypoint_scores=np.full((len(middle), 17), 0.75, np.float32),
    )  # fmt: skip


def spoil_keypoints(poses: ClipPoses, value: float) -> ClipPoses:
    poses.keypoints[poses.frame % 5 == 0, :9] = value
    poses.keypoints[poses.frame == 12] = value
    return poses


def spoil_scores(poses: ClipPoses, value: float) -> ClipPoses:
    poses.keypoint_scores[poses.frame % 5 == 0, :9] = value
    poses.scores[poses.frame == 12] = value
    return poses


def without_area(poses: ClipPoses) -> ClipPoses:
    poses.bboxes[poses.frame % 4 == 0, 2:] = poses.bboxes[poses.frame % 4 == 0, :2]
    return poses


def inside_out(poses: ClipPoses) -> ClipPoses:
    poses.bboxes[poses.frame < 8] = poses.bboxes[poses.frame < 8][:, [2, 3, 0, 1]]
    return poses


def boxes_nowhere(poses: ClipPoses) -> ClipPoses:
    poses.bboxes[poses.frame < 8] = np.nan
    return poses


def without_frames(poses: ClipPoses, *missing: int) -> ClipPoses:
    kept = ~np.isin(poses.frame, missing)
    return replace(poses, **{name: getattr(poses, name)[kept] for name in ROWS})


SPOILED: dict[str, Callable[[ClipPoses], ClipPoses]] = {
    "keypoints are NaN": lambda poses: spoil_keypoints(poses, np.nan),
    "keypoints are infinite": lambda poses: spoil_keypoints(poses, -np.inf),
    "keypoints are far outside": lambda poses: spoil_keypoints(poses, 1e30),
    "scores are NaN": lambda poses: spoil_scores(poses, np.nan),
    "scores are infinite": lambda poses: spoil_scores(poses, np.inf),
    "boxes without area": without_area,
    "boxes inside out": inside_out,
    "boxes nowhere": boxes_nowhere,
    "frames missing in the middle": lambda poses: without_frames(poses, *range(10, 15)),
    "most frames missing": lambda poses: without_frames(poses, *range(1, 29)),
    "nobody": lambda poses: without_frames(poses, *range(30)),
    "one frame": lambda poses: without_frames(poses, *range(1, 30)),
    "every joint unseen": lambda poses: replace(poses, keypoint_scores=np.zeros_like(poses.keypoint_scores)),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_bad_poses_give_tables_that_hold_only_what_is_allowed(spoil: Callable[[ClipPoses], ClipPoses]) -> None:
    spoiled = spoil(poses())
    tracks = follow(spoiled, PARAMS, FRAMES)
    row = summary_row(CLIP, spoiled.usable().to_table(), tracks.to_table(), crowd=6)
    wrong = ("schema_differences", "frames_outside", "bad_boxes", "not_finite", "repeated_tracks", "bad_ranks")
    assert {name: row[name] for name in wrong} == dict.fromkeys(wrong, 0)
    assert row["tracks_without_poses"] == 0
    seen = from_tracks(tracks, persons=2)
    assert np.isfinite(seen.keypoints).all()
    assert np.isfinite(seen.keypoint_scores).all()


def test_bad_rows_leave_the_good_ones_their_people():
    whole, spoiled = (follow(some, PARAMS, FRAMES) for some in (poses(), spoil_keypoints(poses(), np.nan)))
    assert np.array_equal(whole.track_id, spoiled.track_id)
    assert follow(boxes_nowhere(poses()), PARAMS, FRAMES).frame.min() == 8


def test_two_hundred_people_are_all_followed():
    tracks = follow(poses(200), PARAMS, FRAMES)
    assert np.unique(tracks.rank).tolist() == list(range(1, 201))


def test_a_short_gap_is_filled_in_and_marked_and_a_long_one_left():
    tracks = follow(without_frames(poses(2), 5, 6, *range(12, 24)), PARAMS, FRAMES)
    assert np.unique(tracks.frame[tracks.interpolated]).tolist() == [5, 6]
    assert len(np.unique(tracks.track_id)) == 2
    assert set(tracks.rank[tracks.interpolated].tolist()) == {1, 2}


def test_filling_changes_no_rank_and_no_component():
    gone = without_frames(poses(4), 5, 6, 13, 20, 21)
    without = PARAMS.model_copy(update={"tracking": PARAMS.tracking.model_copy(update={"fill_gap_s": 0.0})})
    filled, bare = follow(gone, PARAMS, FRAMES), follow(gone, without, FRAMES)
    for name in ("frame", "track_id", "rank", "involvement", "components", "keypoints"):
        assert np.array_equal(getattr(filled, name)[~filled.interpolated], getattr(bare, name))


def test_a_track_that_flickers_is_not_ranked():
    flickering = poses(2)
    second = (np.arange(len(flickering)) % 2 == 1) & (flickering.frame % 3 == 2)
    some = replace(flickering, **{name: getattr(flickering, name)[~second] for name in ROWS})
    ranks = {
        int(t): int(r)
        for t, r in zip(*(getattr(follow(some, PARAMS, FRAMES), n) for n in ("track_id", "rank")), strict=True)
    }
    assert sorted(ranks.values()) == [0, 1]


def test_what_a_pose_model_must_not_give_never_reaches_a_table():
    good = poses()
    assert good.usable().to_table().equals(good.to_table())
    bad = FramePoses(
        keypoints=np.full((3, 17, 2), np.nan, np.float32), keypoint_scores=np.full((3, 17), 2.0, np.float32),
        bboxes=np.array([[0, 0, 5, 5], [3, 3, 3, 9], [0, 0, np.inf, 5]], np.float32), scores=np.array([0.5, 0.9, 0.9], np.float32),
    )  # fmt: skip
    found = ClipPoses.from_frames(CLIP, np.array([4], np.int32), [bad])
    assert (len(found), found.keypoints.any(), found.keypoint_scores.any()) == (1, False, False)


def test_tables_of_before_gaps_were_filled_are_read():
    table = follow(poses(), PARAMS, FRAMES).to_table()
    old = ClipTracks.from_table(table.drop_columns(["interpolated"]), CLIP)
    assert old.to_table().schema.equals(TRACKS_SCHEMA)
    assert not old.interpolated.any()


@pytest.mark.parametrize(
    ("frame", "scene"), [([], "nobody"), ([0, 1, 2], "one person"), ([0, 0, 1], "few"), ([3] * 6, "crowd")]
)
def test_a_clip_is_marked_by_how_many_it_shows_at_once(frame: list[int], scene: str) -> None:
    assert scene_of(np.array(frame, np.int32), crowd=6) == scene
