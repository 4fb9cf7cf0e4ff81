import os

import numpy as np
import pytest

from violence_ops import workers
from violence_ops.errors import ServiceUnavailable, UserError
from violence_ops.files import write_table
from violence_ops.stages.nightly import annotate
from violence_ops.store import batches, quarantine
from violence_ops.store.parts import record_progress


def tables(workspace, clips):
    batch = workspace.batch(clips[0].batch_id)
    return {clip.clip_id: batch.part("tracks", clip.clip_id).read_bytes() for clip in clips}


def test_everybody_is_followed_and_ranked_once(workspace, params, open_batch):
    clips = open_batch(workspace, people=lambda number: 3)
    result = annotate.run(workspace, params)
    assert (result.annotated, result.skipped, result.tracks, result.without_person) == (3, 0, 9, 0)
    tracks = batches.read_tracks(workspace.batch(clips[0].batch_id), clips[0])
    assert {(int(t), int(r)) for t, r in zip(tracks.track_id, tracks.rank, strict=True)}.issubset(
        {(t, r) for t in (1, 2, 3) for r in (1, 2, 3)}
    )
    before = tables(workspace, clips)
    again = annotate.run(workspace, params)
    assert (again.annotated, again.skipped, again.tracks) == (0, 3, 9)
    assert tables(workspace, clips) == before


def test_the_tables_do_not_depend_on_the_number_of_processes_or_shards(new_workspace, open_batch):
    alone, together = new_workspace("alone"), new_workspace("together")
    clips = open_batch(alone, clips=4, people=lambda number: number + 1)
    open_batch(together, clips=4, people=lambda number: number + 1)
    for some in (clips[:1], clips[1:]):  # a shard leaves the record of the whole batch to `seal`
        annotate.run(alone, alone.params({"annotation.workers": 1}), clip_ids=[clip.clip_id for clip in some])
    assert alone.read_progress("annotate") == {}
    annotate.run(together, together.params({"annotation.workers": 2}))
    assert tables(alone, clips) == tables(together, clips)
    record_progress(alone, "annotate")
    assert alone.read_progress("annotate") == together.read_progress("annotate")


def test_other_parameters_annotate_again(workspace, params, open_batch):
    open_batch(workspace, clips=2, people=lambda number: 2)
    annotate.run(workspace, params)
    progress = workspace.read_progress("annotate")
    result = annotate.run(workspace, workspace.params({"involvement.preset": "accuracy"}))
    assert (result.annotated, result.skipped) == (2, 0)
    assert workspace.read_progress("annotate") != progress


def test_clips_with_nobody_with_one_frame_and_with_200_people(workspace, params, open_batch):
    clips = open_batch(workspace, clips=2, people=lambda number: 200 * number)
    result = annotate.run(workspace, params)
    assert (result.without_person, result.crowds, result.tracks) == (1, 1, 200)
    batch = workspace.batch(clips[0].batch_id)
    assert len(batches.read_tracks(batch, clips[0])) == 0
    assert np.unique(batches.read_tracks(batch, clips[1]).rank).tolist() == list(range(1, 201))


def test_one_frame_is_too_short_to_follow_anybody(workspace, params, open_batch):
    clips = open_batch(workspace, clips=1, people=lambda number: 2, frame_count=1)
    result = annotate.run(workspace, params)
    assert (result.annotated, result.tracks) == (1, 0)
    assert len(batches.read_tracks(workspace.batch(clips[0].batch_id), clips[0])) == 0


def test_one_bad_clip_does_not_stop_its_shard(workspace, params, open_batch):
    clips = open_batch(workspace, clips=3, people=lambda number: 2)
    batch = workspace.batch(clips[0].batch_id)
    poses = batches.read_poses(batch, clips[1])
    poses.keypoints[:], poses.bboxes[:] = np.nan, np.inf
    write_table(batch.part("poses", clips[1].clip_id), poses.to_table(), "spoiled")
    result = annotate.run(workspace, params)
    assert (result.annotated, result.without_person, result.tracks) == (3, 1, 4)
    assert (result.one_person, result.crowds, result.quarantined) == (0, 0, {})
    assert len(batches.read_tracks(batch, clips[1])) == 0


def test_people_too_weak_to_be_ranked_are_said_to_be_so(workspace, open_batch):
    open_batch(workspace, clips=1, people=lambda number: 2)
    result = annotate.run(workspace, workspace.params({"involvement.min_mean_score": 0.95}))
    assert (result.tracks, result.without_person, result.not_ranked) == (2, 0, 1)


def test_a_clip_beyond_the_time_limit_is_quarantined_and_the_stage_goes_on(workspace, open_batch):
    clips = open_batch(workspace, clips=2, people=lambda number: 2)
    batch = workspace.batch(clips[0].batch_id)
    video = batches.video_of(batch, clips[0]).read_bytes()
    result = annotate.run(
        workspace, workspace.params({"annotation.timeout_s": 0.001, "annotation.seconds_per_video_second": 0.0})
    )
    assert result.quarantined == {"timeout": 2}
    reason = quarantine.read(workspace.quarantined(clips[0].clip_id))
    assert reason["reason"] == "timeout"
    assert "annotation.timeout_s" in reason["message"]
    assert (workspace.quarantined(clips[0].clip_id) / reason["original"]).read_bytes() == video
    assert batches.accepted_clips(batch) == []
    assert [clip.status for clip in batches.read_clips(batch)] == ["quarantined"] * 2


def test_a_machine_that_lacks_memory_for_a_while_refuses_no_clip(workspace, params, open_batch, tmp_path, monkeypatch):
    (tmp_path / "killed_in_this_test.py").write_text(
        "import os, signal\ndef work(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    clips, outcomes = open_batch(workspace, clips=2, people=lambda number: 2), workers.outcomes
    with monkeypatch.context() as patched:
        patched.setattr(annotate, "free_memory", lambda: 512 << 20)
        patched.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
        patched.setattr(workers, "outcomes", lambda _, *rest, **how: outcomes("killed_in_this_test:work", *rest, **how))
        with pytest.raises(ServiceUnavailable, match=r"night/clip\d.mp4 was killed twice.*then run the step again"):
            annotate.run(workspace, params)
    assert list(quarantine.entries(workspace)) == []
    assert batches.accepted_clips(workspace.batch(clips[0].batch_id)) == sorted(clips, key=lambda clip: clip.clip_id)
    assert annotate.run(workspace, params).annotated == 2


def test_a_clip_that_needs_more_memory_than_is_free_is_quarantined_and_the_stage_goes_on(
    workspace, params, open_batch, tmp_path, monkeypatch
):
    clips, outcomes = open_batch(workspace, clips=3, people=lambda number: 2), workers.outcomes
    (tmp_path / "too_large_in_this_test.py").write_text(
        "import os, signal\nfrom violence_ops.stages.nightly.annotate import annotate_clip\ndef work(common, item):\n"
        f"    return annotate_clip(common, item) if item != {clips[1].clip_id!r} else os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(annotate, "free_memory", lambda: 3 << 30)
    monkeypatch.setattr(
        workers, "outcomes", lambda _, *rest, **how: outcomes("too_large_in_this_test:work", *rest, **how)
    )
    result = annotate.run(workspace, params)
    assert (result.annotated, result.quarantined) == (2, {"timeout": 1})
    reason = quarantine.read(workspace.quarantined(clips[1].clip_id))
    assert "killed twice, with no other clip beside it" in reason["message"]
    assert "more memory than is free (3.0 GiB)" in reason["message"]


def test_the_longest_clip_says_how_many_processes_there_is_memory_for(workspace, params, open_batch, monkeypatch):
    clips = open_batch(workspace, clips=2, people=lambda number: 1 + 9 * number, frame_count=100)
    batch = workspace.batch(clips[0].batch_id)
    room = []
    monkeypatch.setattr(workers, "worker_count", lambda asked, items, memory=0, **_: room.append(memory) or 1)
    monkeypatch.setattr(workers, "MEMORY_PER_WORKER", 0)
    annotate.run(workspace, params)
    assert max(batches.part_rows(batch, "poses", clip.clip_id) for clip in clips) == 1000
    assert room[0] == (256 << 20) + 1280 * 1000


def test_a_clip_that_crashes_its_process_is_quarantined_and_the_stage_goes_on(
    workspace, params, open_batch, tmp_path, monkeypatch
):
    open_batch(workspace, clips=2, people=lambda number: 2)
    outcomes = workers.outcomes
    (tmp_path / "crashed_in_this_test.py").write_text(
        "import os, signal\ndef work(*_): os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(
        workers, "outcomes", lambda _, *rest, **how: outcomes("crashed_in_this_test:work", *rest, **how)
    )
    assert annotate.run(workspace, params).quarantined == {"decode_error": 2}


def test_poses_that_are_missing_are_asked_for(workspace, params, open_batch):
    open_batch(workspace, clips=1)
    with pytest.raises(UserError, match="has no poses yet"):
        annotate.run(workspace, params)


def test_damaged_poses_are_said_in_a_sentence_that_says_what_mends_them(workspace, params, open_batch):
    clips = open_batch(workspace, clips=2, people=lambda number: 2)
    part = workspace.batch(clips[0].batch_id).part("poses", clips[0].clip_id)
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=rf"{part} is damaged: `violence-ops check` says what brings it back"):
        annotate.run(workspace, params)
    part.write_bytes(whole)
    assert annotate.run(workspace, params).tracks == 4
