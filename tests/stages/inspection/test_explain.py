import json
import os
import shutil
from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from violence_ops.errors import Rejected, UsageError, WorkspaceError
from violence_ops.files import write_table
from violence_ops.records import PREDICTIONS_SCHEMA
from violence_ops.stages.inspection import explain, overlay
from violence_ops.stages.labelling import labels
from violence_ops.stages.nightly import annotate, ingest
from violence_ops.store import batches, quarantine
from violence_ops.store.parts import withdraw
from violence_ops.synthetic import encode
from violence_ops.video import explanation


@pytest.fixture
def annotated(workspace, params, open_batch):
    clips = open_batch(workspace, clips=2, people=lambda number: 3)
    for clip in clips:
        common = {"root": str(workspace.root), "batch_id": clip.batch_id, "params": params.model_dump(mode="json")}
        annotate.annotate_clip(common, clip.clip_id)
    return clips


def write_predictions(workspace, clip, rows):
    import pyarrow as pa

    path = workspace.batch(clip.batch_id).part("predictions", clip.clip_id)
    write_table(path, pa.Table.from_pylist(rows, PREDICTIONS_SCHEMA), "judged")


def judge(workspace, clip, probability):
    rows = [
        {"clip_id": clip.clip_id, "model_version": "4", "window": n, "start_frame": 10 * n, "end_frame": 10 * n + 20,
         "probability": probability, "weight": 1.0, "clip_probability": probability, "threshold": 0.5, "verdict": "Fight"}
        for n in range(2)
    ]  # fmt: skip
    write_predictions(workspace, clip, rows)


def test_it_says_who_is_ranked_first_and_what_the_model_made_of_it(workspace, params, annotated):
    judge(workspace, annotated[1], 0.91)
    result = explain.run(workspace, params, annotated[1].clip_id)
    assert (result.status, result.label, result.label_from) == ("accepted", "Fight", "inbox")
    assert [track["rank"] for track in result.tracks] == [1, 2, 3]
    assert result.tracks[0]["involvement"] >= result.tracks[1]["involvement"]
    assert result.verdict["verdict"] == "Fight"
    text = "\n".join(result.lines())
    assert "Model version 4: Fight, probability 0.91" in text
    assert "interaction" in text
    assert "adds" in text


@pytest.fixture
def long_recording(workspace, params, open_batch):
    """An annotated and judged clip of 90 s in 9 pieces: in each three other people, and in the fifth something that may be a fight."""
    (clip,) = open_batch(workspace, clips=1, people=lambda number: 27, frame_count=1350)
    batch = workspace.batch(clip.batch_id)
    poses = batches.read_poses(batch, clip)
    person = np.arange(len(poses)) % 27
    kept = person // 3 == poses.frame // 150
    rows = {name: getattr(poses, name)[kept] for name in ("frame", "bboxes", "scores", "keypoints", "keypoint_scores")}
    write_table(batch.part("poses", clip.clip_id), replace(poses, **rows).to_table(), "others in every piece")
    common = {"root": str(workspace.root), "batch_id": clip.batch_id, "params": params.model_dump(mode="json")}
    annotate.annotate_clip(common, clip.clip_id)
    rows = [
        {"clip_id": clip.clip_id, "model_version": "4", "window": n, "start_frame": 75 * n, "end_frame": 75 * (n + 1),
         "probability": 0.95 if n == 1 else 0.9 if n in (8, 9) else 0.1, "weight": 0.9, "clip_probability": 0.236, "threshold": 0.5,
         "verdict": "NonFight"}
        for n in range(18)
    ]  # fmt: skip
    write_predictions(workspace, clip, rows)
    return clip


def test_of_a_long_recording_it_says_when_the_fight_may_be_and_who_is_in_it(workspace, params, long_recording):
    result = explain.run(workspace, params, long_recording.clip_id)
    assert result.verdict["verdict"] == "NonFight"
    pieces = result.verdict["pieces"]
    assert [round(piece["probability"], 2) for piece in pieces] == [0.53, *[0.1] * 3, 0.9, *[0.1] * 4]
    first = [track["track_id"] for track in result.tracks if track["start_s"] == 40 and track["rank"] in (1, 2)]
    assert pieces[4]["tracks"] == first
    assert len(first) == 2
    (line,) = (line for line in result.lines() if "0.90" in line)
    who = f"first: tracks {first[0]}, {first[1]}"
    assert line.split() == ["frames", "600", "to", "749", "0:40", "to", "0:50", "0.90", "#" * 18, *who.split()]
    assert len(result.verdict["windows"]) == 18


def test_the_tracks_of_a_long_recording_come_by_time_and_only_those_that_are_first_somewhere(
    workspace, params, long_recording
):
    result = explain.run(workspace, params, long_recording.clip_id)
    assert len(result.tracks) == 27
    *lines, _next = result.lines()
    assert lines[-1] == "Not shown: 9 tracks, first or second in no piece; `--json` has all."
    table = lines[lines.index("Each track in the piece where it ranks best:") + 2 : -1 : 2]
    shown = [(line.split()[0], line.split()[2], line.split()[3]) for line in table]
    assert shown == [
        (f"{s // 60}:{s % 60:02d}", f"{(s + 10) // 60}:{(s + 10) % 60:02d}", rank) for s in range(0, 90, 10) for rank in "12"
    ]  # fmt: skip
    assert lines.index("Each track in the piece where it ranks best:") > lines.index(
        "Model version 4: NonFight, probability 0.236 (Fight above 0.500)"
    )


def test_the_picture_of_a_long_recording_is_of_its_highest_piece(
    workspace, params, long_recording, tmp_path, monkeypatch
):
    video = batches.video_of(workspace.batch(long_recording.batch_id), long_recording)
    encode.write_frames((np.full((120, 160, 3), 90, np.uint8) for _ in range(1350)), video, 15, "mpeg4", 100_000)
    drawn, real = {}, explanation.write

    def write(path, picture, bars, title):
        drawn.update(bars=[bar.name for bar in bars], title=title)
        real(path, picture, bars, title)

    monkeypatch.setattr(explanation, "write", write)
    result = explain.run(workspace, params, long_recording.clip_id, image=tmp_path / "why.png")
    there = [track for track in result.tracks if track["start_s"] == 40]
    assert drawn["bars"] == [f"#{track['rank']}  ID {track['track_id']}" for track in there]
    assert drawn["title"].endswith("; tracks of 0:40 to 0:50")
    assert (tmp_path / "why.png").is_file()


def test_what_the_components_add_makes_up_the_involvement(workspace, params, annotated):
    for track in explain.run(workspace, params, annotated[0].clip_id).tracks:
        assert sum(track["adds"].values()) == pytest.approx(track["involvement"], abs=1e-3)


def test_it_says_why_a_track_is_not_ranked_and_what_was_filled_in(workspace, open_batch):
    strict = workspace.params({"involvement.min_mean_score": 0.95})
    (clip,) = open_batch(workspace, clips=1, people=lambda number: 2)
    batch = workspace.batch(clip.batch_id)
    poses = batches.read_poses(batch, clip)
    kept = poses.frame != 7
    rows = {name: getattr(poses, name)[kept] for name in ("frame", "bboxes", "scores", "keypoints", "keypoint_scores")}
    write_table(batch.part("poses", clip.clip_id), replace(poses, **rows).to_table(), "one frame less")
    common = {"root": str(workspace.root), "batch_id": batch.batch_id, "params": strict.model_dump(mode="json")}
    annotate.annotate_clip(common, clip.clip_id)
    result = explain.run(workspace, strict, clip.clip_id)
    assert result.scene == "few"
    assert [(track["rank"], track["frames"], track["filled"]) for track in result.tracks] == [(0, 29, 1)] * 2
    text = "\n".join(result.lines())
    assert text.count("not ranked, weak: mean score 0.80, involvement.min_mean_score is 0.95") == 2
    assert "steadily enough to be ranked" in text


def test_it_says_why_a_clip_was_refused(workspace, params, annotated):
    clip = annotated[0]
    withdraw(
        workspace, workspace.batch(clip.batch_id), clip, Rejected("decode_error", "clip0.mp4 crashed the decoder.")
    )
    result = explain.run(workspace, params, clip.clip_id)
    assert result.status == "quarantined"
    assert result.to_dict()["refusal"]["reason"] == "decode_error"
    assert "decode_error: clip0.mp4 crashed the decoder." in "\n".join(result.lines())


def test_an_accepted_clip_that_arrived_twice_is_still_accepted(workspace, params, annotated, clip_folder, tmp_path):
    (workspace.inbox / "NonFight").mkdir()
    shutil.copy(clip_folder / "clip0.mp4", workspace.inbox / "NonFight" / "copy.mp4")
    assert ingest.run(workspace, params, night=date(2026, 2, 1)).duplicates == 1
    path = tmp_path / "why.png"
    result = explain.run(workspace, params, annotated[0].clip_id, image=path)
    assert (result.status, result.refusal, result.batch_id) == ("accepted", None, annotated[0].batch_id)
    assert "  also arrived as NonFight/copy.mp4 on 2026-02-01" in result.lines()
    assert path.is_file()


def test_a_picture_of_a_refused_clip_is_refused_and_not_left_out(workspace, params, annotated, tmp_path):
    clip = annotated[0]
    withdraw(workspace, workspace.batch(clip.batch_id), clip, Rejected("decode_error", "It crashed the decoder."))
    with pytest.raises(WorkspaceError, match="leave --image out"):
        explain.run(workspace, params, clip.clip_id, image=tmp_path / "why.png")


def test_giving_up_a_clip_twice_is_giving_it_up_once(workspace, params, annotated):
    clip, refusal = annotated[0], Rejected("timeout", "too slow.")
    for _ in range(2):
        withdraw(workspace, workspace.batch(clip.batch_id), clip, refusal)
    assert quarantine.read(workspace.quarantined(clip.clip_id))["original"] == "original.mp4"


def test_it_says_what_is_still_to_come(workspace, params, open_batch):
    (clip,) = open_batch(workspace, clips=1)
    text = "\n".join(explain.run(workspace, params, clip.clip_id).lines())
    assert "Not annotated yet" in text
    assert "No champion has judged it yet." in text
    assert f"Next: `violence-ops extract-poses --batch {clip.batch_id}`, or `violence-ops night`" in text


def test_of_each_clip_it_names_the_step_that_comes_next(workspace, params, annotated, write_annotations):
    clip = annotated[0]
    batch = workspace.batch(clip.batch_id)
    assert explain.run(workspace, params, clip.clip_id).next_step == f"score --batch {batch.batch_id}"
    write_annotations(workspace, batch.batch_id)
    assert explain.run(workspace, params, clip.clip_id).next_step == f"seal --batch {batch.batch_id}"
    batch.part("tracks", clip.clip_id).unlink()
    assert explain.run(workspace, params, clip.clip_id).next_step == f"annotate --batch {batch.batch_id}"


def test_of_a_clip_that_is_not_validated_yet_it_says_what_it_came_with(workspace, params, clip_folder):
    for name in ("Fight/a.mp4", "copy.mp4"):
        (workspace.inbox / name).parent.mkdir(exist_ok=True)
        shutil.copy(clip_folder / "clip0.mp4", workspace.inbox / name)
    (workspace.inbox / "labels.csv").write_text("path,source_group\nFight/a.mp4,gate-7\n")
    (batch_id,) = ingest.run(workspace, params, night=date(2026, 1, 1)).batch_ids
    (clip,) = batches.read_manifest(workspace.batch(batch_id)).clips
    assert explain.run(workspace, params, clip.clip_id).lines() == [
        f"Clip {clip.clip_id}: claimed, not validated yet",
        "  from     Fight/a.mp4, source group gate-7",
        "  also arrived as copy.mp4 on 2026-01-01",
        f"  batch    {batch_id} (open)",
        "  label    Fight (from inbox)",
        f"Next: `violence-ops validate --batch {batch_id}`, or `violence-ops night`, which does all that is still to be done.",
    ]
    labels.run(workspace, clip.clip_id, "NonFight", by="ada")
    told = explain.run(workspace, params, clip.clip_id)
    assert (told.label, told.label_from, told.label_by) == ("NonFight", "label", "ada")


def test_it_says_who_gave_a_label_and_when(workspace, params, annotated):
    clip = annotated[0]
    assert clip.label == "NonFight"
    labels.run(workspace, clip.clip_id, "Fight", by="ann")
    told = explain.run(workspace, params, clip.clip_id)
    at = told.label_at[:16].replace("T", " ")
    assert f"  label    Fight (from label, by ann, {at} UTC)" in told.lines()
    assert (told.to_dict()["label_by"], told.to_dict()["label"]) == ("ann", "Fight")


def test_of_a_clip_that_came_before_the_first_champion_it_says_what_the_newest_evaluation_made_of_it(
    workspace, params, seal_whole, write_evaluation
):
    clip = seal_whole(workspace, clips=2)[0]
    assert "No champion judged it in its night." in explain.run(workspace, params, clip.clip_id).lines()
    for candidate, champion in (("2", None), ("3", None), ("3", "1")):
        path = workspace.report(write_evaluation(candidate, champion, wrong=1)).evaluation
        path.write_text(path.read_text().replace(f"{0:020x}", clip.clip_id))
    told = explain.run(workspace, params, clip.clip_id)
    assert told.to_dict()["evaluation"]["candidate"] == {
        "model_version": "3", "verdict": "NonFight", "probability": 0.1, "threshold": 0.5,
    }  # fmt: skip
    assert told.lines()[-4:] == [
        "No champion judged it in its night.",
        "Evaluation 3-vs-1, where its label is Fight:",
        "  candidate 3: NonFight, probability 0.100 (Fight above 0.500)",
        "  champion 1: Fight, probability 0.900 (Fight above 0.500)",
    ]
    path = workspace.report("3-vs-1").evaluation
    content = json.loads(path.read_text().replace(clip.clip_id, "f" * 20))
    content["checks"]["candidate"]["near_duplicates"] = [["f" * 20, clip.clip_id]]
    path.write_text(json.dumps(content))
    told = explain.run(workspace, params, clip.clip_id)
    assert (told.evaluation["name"], told.evaluation["champion"]) == ("3-vs-none", None)


@pytest.mark.parametrize("unknown", ["0" * 20, "../../etc/passwd"], ids=["never seen", "no id"])
def test_an_unknown_clip_is_refused(workspace, params, annotated, unknown):
    with pytest.raises(UsageError):
        explain.run(workspace, params, unknown)


@pytest.mark.parametrize("place", ["why.xyz", "nowhere/why.png"])
def test_a_picture_goes_into_a_png_in_a_folder_that_there_is(workspace, params, annotated, tmp_path, place):
    with pytest.raises(UsageError, match=r"no place for a picture: name a \.png in a folder that there is"):
        explain.run(workspace, params, annotated[0].clip_id, image=tmp_path / place)
    assert not (tmp_path / place).exists()
    assert not (tmp_path / "nowhere").exists()


def test_the_picture_shows_something(workspace, params, annotated, tmp_path):
    import cv2

    judge(workspace, annotated[0], 0.4)
    path = tmp_path / "why.png"
    assert explain.run(workspace, params, annotated[0].clip_id, image=path).image == str(path)
    picture = cv2.imread(str(path))
    assert picture.shape[1] > 1000
    assert np.std(picture) > 20


def test_an_overlay_has_as_many_frames_as_its_clip(workspace, params, annotated):
    from violence_ops.video import decode

    result = overlay.run(workspace, params, annotated[0].clip_id, regions=True)
    path = workspace.overlay(annotated[0].clip_id, ".mp4")
    assert result.path == str(path)
    assert sum(1 for _ in decode.frames(path)) == result.frames == 30


def test_a_video_that_hangs_the_decoder_is_given_up_in_time(workspace, annotated, tmp_path):
    clip = annotated[0]
    video = batches.video_of(workspace.batch(clip.batch_id), clip)
    video.unlink()
    os.mkfifo(video)  # whoever opens it waits for ever
    params = workspace.params({"validation.timeout_s": 2})
    with pytest.raises(Rejected, match=r"took longer than 2 s to decode \(validation.timeout_s\)"):
        explain.run(workspace, params, clip.clip_id, image=tmp_path / "why.png")
    assert not (tmp_path / "why.png").exists()
