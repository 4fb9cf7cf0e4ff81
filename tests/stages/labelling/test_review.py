"""Review by people: doubtful clips go out for Label Studio or CVAT, their answers come back as a version of the labels."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from violence_ops import versioning
from violence_ops.cli.program import app
from violence_ops.errors import UsageError, WorkspaceError
from violence_ops.exchange import label_studio
from violence_ops.exchange.task import Task
from violence_ops.files import sha256_file, write_table
from violence_ops.records import CLIPS_SCHEMA, COMPONENTS, PREDICTIONS_SCHEMA, ClipRecord, ClipTracks
from violence_ops.stages.labelling import labels, review, review_import
from violence_ops.stages.learning import assemble
from violence_ops.stages.nightly import ingest
from violence_ops.stages.provenance import forget
from violence_ops.stages.releasing import holdout
from violence_ops.store import batches
from violence_ops.store.index import open_catalog
from violence_ops.store.labels import effective_labels, give
from violence_ops.workspace import Workspace

Seal = Callable[..., list[ClipRecord]]


def predictions(records: list[ClipRecord], probabilities: dict[int, float]) -> pa.Table:
    """What a champion `3` says: it is right and sure, but for the clips that `probabilities` names by position."""
    rows = []
    for number, record in enumerate(records):
        probability = probabilities.get(number, 0.95 if record.label == "Fight" else 0.05)
        verdict = "Fight" if probability > 0.5 else "NonFight"
        common = {
            "clip_id": record.clip_id,
            "model_version": "3",
            "clip_probability": probability,
            "threshold": 0.5,
            "verdict": verdict,
        }
        rows += [
            common | {"window": w, "start_frame": 0, "end_frame": 30, "probability": probability, "weight": 1.0} for w in (0, 1)
        ]  # fmt: skip
    return pa.Table.from_pylist(rows, PREDICTIONS_SCHEMA)


@pytest.fixture
def clips(workspace: Workspace, seal_tracks: Seal) -> list[ClipRecord]:
    """24 sealed clips in clip_id order: of the first the champion is unsure, the second's label it denies, the third both."""
    records = seal_tracks(workspace)
    batch = workspace.batch(records[0].batch_id)
    records = [record.with_(codec="h264") for record in records]
    write_table(batch.table("clips"), pa.Table.from_pylist([one.to_dict() for one in records], CLIPS_SCHEMA))
    for number in range(24):
        content = f"0/{number}".encode()  # the bytes that `seal_tracks` made the clip ids from
        (record,) = [one for one in records if one.source_path == f"{number}.mp4"]
        batches.video_of(batch, record).parent.mkdir(exist_ok=True)
        batches.video_of(batch, record).write_bytes(content)
    wrong = [0.1 if one.label == "Fight" else 0.9 for one in records]
    doubts = {
        0: 0.55 if records[0].label == "Fight" else 0.45,
        1: wrong[1],
        2: 0.4 if records[2].label == "Fight" else 0.6,
    }
    write_table(batch.table("predictions"), predictions(records, doubts))
    return records


def export(
    workspace: Workspace, out: Path, form: review.Format = "label-studio", **options: Any
) -> review.ReviewResult:
    chosen: dict[str, Any] = {"confidence": 0.65, "limit": 100, "overlays": False} | options
    return review.run(workspace, workspace.params(), out, format=form, **chosen)


def other(label: str) -> str:
    return "NonFight" if label == "Fight" else "Fight"


def annotated(task: dict[str, Any], *answers: tuple[Any, str], **facts: Any) -> dict[str, Any]:
    """A task as Label Studio exports it after these people `(completed_by, choice)` have submitted it."""
    regions = [one for one in task["predictions"][0]["result"] if one["type"] == "videorectangle"]
    annotations = [
        {
            "id": 100 + number, "completed_by": by, "was_cancelled": False, "ground_truth": False, "lead_time": 4.2, "task": 7,
            "created_at": f"2026-11-21T10:00:{number:02d}Z", "updated_at": f"2026-11-21T10:00:{number:02d}Z",
            "result": [*regions, {"id": f"r{number}", "from_name": "verdict", "to_name": "video", "type": "choices", "origin": "manual", "value": {"choices": [choice]}}],
        } | facts
        for number, (by, choice) in enumerate(answers)
    ]  # fmt: skip
    return {
        "id": 7,
        "project": 1,
        "inner_id": 1,
        "total_annotations": len(annotations),
        "annotations": annotations,
        **task,
    }


def exported_tasks(out: Path) -> list[dict[str, Any]]:
    return list(json.loads((out / "tasks.json").read_text("utf-8")))


def write_export(path: Path, tasks: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(tasks), "utf-8")
    return path


# what is asked


def test_doubtful_clips_are_chosen_and_the_reason_is_said(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    result = export(workspace, tmp_path / "out")
    assert (result.clips, result.reasons) == (3, {"label_disagrees": 2, "low_confidence": 2})
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    chosen = {one["clip_id"]: one["reasons"] for one in manifest["clips"]}
    assert chosen == {
        clips[2].clip_id: ["low_confidence", "label_disagrees"], clips[0].clip_id: ["low_confidence"], clips[1].clip_id: ["label_disagrees"],
    }  # fmt: skip
    assert manifest["clips"][0]["clip_id"] == clips[2].clip_id  # more rules, asked first
    for one in manifest["clips"]:
        assert one["sha256"] == sha256_file(tmp_path / "out" / f"{one['clip_id']}.mp4")
    assert manifest["files"] == {
        str(path.relative_to(tmp_path / "out")): sha256_file(path)
        for path in sorted((tmp_path / "out").rglob("*")) if path.is_file() and path.name != "manifest.json"
    }  # fmt: skip
    assert json.loads(workspace.review(result.review).read_text()) == manifest


def test_limit_and_confidence_narrow_and_widen_the_choice(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    assert export(workspace, tmp_path / "one", limit=1).clips == 1
    assert export(workspace, tmp_path / "all", confidence=1.0).clips == 24
    with pytest.raises(UsageError, match="between"):
        export(workspace, tmp_path / "none", confidence=0.2)


@pytest.mark.parametrize(
    ("threshold", "probability", "sure"), [(0.3, 0.29, 0.05), (0.3, 0.31, 0.9), (0.7, 0.72, 0.95), (0.7, 0.66, 0.1)]
)
def test_a_probability_near_the_threshold_is_doubtful_on_either_side(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path, threshold: float, probability: float, sure: float
) -> None:
    table = predictions(clips, dict.fromkeys(range(24), sure) | {5: probability})
    rows = [
        row | {"threshold": threshold, "verdict": "Fight" if row["clip_probability"] > threshold else "NonFight"}
        for row in table.to_pylist()
    ]
    write_table(workspace.batch(clips[0].batch_id).table("predictions"), pa.Table.from_pylist(rows, PREDICTIONS_SCHEMA))
    assert export(workspace, tmp_path / "out").reasons["low_confidence"] == 1
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (doubtful,) = [one for one in manifest["clips"] if "low_confidence" in one["reasons"]]
    assert doubtful["clip_id"] == clips[5].clip_id


def test_clips_that_show_nobody_are_asked_about_after_the_others(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    harmless = next(number for number in range(3, 24) if clips[number].label == "NonFight")
    missed = next(number for number in range(3, 24) if clips[number].label == "Fight")
    empty = {clips[number].clip_id for number in (harmless, missed)}
    doubt = 0.55 if clips[0].label == "Fight" else 0.45
    rows = [
        row | ({"weight": 0.0} if row["clip_id"] in empty else {})
        for row in predictions(clips, {0: doubt, harmless: 0.0, missed: 0.0}).to_pylist()
    ]
    write_table(workspace.batch(clips[0].batch_id).table("predictions"), pa.Table.from_pylist(rows, PREDICTIONS_SCHEMA))
    export(workspace, tmp_path / "out")
    chosen = json.loads((tmp_path / "out" / "manifest.json").read_text())["clips"]
    assert [(one["clip_id"], one["reasons"], one["confidence"]) for one in chosen] == [
        (clips[missed].clip_id, ["nobody_seen", "label_disagrees"], 0.5),
        (clips[0].clip_id, ["low_confidence"], pytest.approx(0.55)),
        (clips[harmless].clip_id, ["nobody_seen"], 0.5),
    ]


def test_clips_that_divide_candidate_and_champion_in_the_newest_report_are_asked(
    released: Workspace, clips: list[ClipRecord], write_evaluation: Callable[..., str], tmp_path: Path
) -> None:
    path = released.report(write_evaluation("2", "1", wrong=2)).evaluation
    content = json.loads(path.read_text())
    for row, clip in zip(content["clips"], clips, strict=True):
        row["clip_id"] = clip.clip_id
    path.write_text(json.dumps(content))
    export(released, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    disputed = {one["clip_id"] for one in manifest["clips"] if "models_disagree" in one["reasons"]}
    differ = {row["clip_id"] for row in content["clips"] if row["candidate"]["verdict"] != row["champion"]["verdict"]}
    assert disputed == differ != set()
    assert manifest["report"] == "2-vs-1"
    assert {one["model"] for one in manifest["clips"]} == {"1"}


def test_a_folder_in_use_nothing_to_ask_and_changed_bytes_are_refused_and_leave_nothing(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UsageError, match="new or empty"):
        export(workspace, tmp_path / "full")
    batches.video_of(workspace.batch(clips[1].batch_id), clips[1]).write_bytes(b"something else")
    with pytest.raises(WorkspaceError, match="SHA-256"):
        export(workspace, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"full", workspace.root.name}


def test_a_night_that_is_not_over_does_not_keep_its_forerunners_from_review(
    released: Workspace,
    release: Callable[[Workspace, str], None],
    clips: list[ClipRecord],
    open_batch: Callable[..., list[ClipRecord]],
    tmp_path: Path,
) -> None:
    release(released, "1")
    open_batch(released, clips=2, people=lambda _: 2)  # accepted, and not annotated yet
    result = export(released, tmp_path / "out")
    assert (result.clips, result.not_annotated) == (3, 2)


def test_why_there_is_nothing_to_review_is_said_as_it_is(
    workspace: Workspace, clips: list[ClipRecord], open_batch: Callable[..., list[ClipRecord]], tmp_path: Path
) -> None:
    def why() -> str:
        with pytest.raises(WorkspaceError, match="There is nothing to review: ") as refusal:
            export(workspace, tmp_path / "out", confidence=0.5)
        return str(refusal.value)

    batch = workspace.batch(clips[0].batch_id)
    write_table(batch.table("predictions"), predictions(clips, {}))
    assert "raise --confidence" in why()
    write_table(batch.table("predictions"), PREDICTIONS_SCHEMA.empty_table())
    assert "no model has judged 24 clips, for there is no champion; release one, or run " in why()
    give(workspace, {clip.clip_id: "Fight" for clip in clips}, "ann", "review")
    assert "or pass --again" in why()
    open_batch(workspace, clips=2, people=lambda _: 2)
    assert "2 clips are not annotated yet; let their night end" in why()


# the two formats


def test_tasks_for_label_studio_have_the_documented_form(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    export(workspace, tmp_path / "night one")
    config = ElementTree.parse(tmp_path / "night one" / "label_config.xml").getroot()
    controls = {element.get("name"): element for element in config.iter() if element.get("toName")}
    (task,) = [one for one in exported_tasks(tmp_path / "night one") if one["data"]["clip_id"] == clips[1].clip_id]
    assert task["data"]["video"] == f"/data/local-files/?d=night%20one/{clips[1].clip_id}.mp4"
    assert task["meta"] == {name: task["data"][name] for name in ("review", "clip_id", "sha256")}
    (prediction,) = task["predictions"]
    assert prediction["model_version"] == "3"
    for result in prediction["result"]:
        assert controls[result["from_name"]].get("toName") == result["to_name"] == "video"
    verdict, *regions = prediction["result"]
    assert verdict["value"] == {"choices": [other(str(clips[1].label))]}
    assert {choice.get("value") for choice in controls["verdict"]} == {"Fight", "NonFight"}
    assert [one["id"] for one in regions] == ["track-1", "track-2"]
    tracks = batches.read_tracks(workspace.batch(clips[1].batch_id), clips[1])
    for region in regions:
        value = region["value"]
        assert (value["framesCount"], value["duration"]) == (36, 2.4)
        assert set(value["labels"]) <= {label.get("value") for label in controls["person"]}
        numbers = [frame["frame"] for frame in value["sequence"]]
        assert (numbers[0], numbers[-1]) == (1, 36)
        shown = tracks.bboxes[tracks.track_id == int(region["id"].removeprefix("track-"))]
        for place, name in enumerate(("x", "y")):
            drawn = np.interp(range(1, 37), numbers, [frame[name] for frame in value["sequence"]])
            size = (640, 360)[place]
            assert np.allclose(drawn, 100 * np.clip(shown[:, place], 0, size) / size, atol=0.21)
        for frame in value["sequence"]:
            assert set(frame) == {"frame", "time", "enabled", "rotation", "x", "y", "width", "height"}
            assert 0 <= frame["x"] <= frame["x"] + frame["width"] <= 100.01
            assert 0 <= frame["y"] <= frame["y"] + frame["height"] <= 100.01
    first = regions[0]["value"]["sequence"][0]
    box = np.clip(tracks.bboxes[(tracks.track_id == 1) & (tracks.frame == 0)][0], 0, [640, 360, 640, 360])
    assert np.allclose([first["x"] * 6.4, first["y"] * 3.6], box[:2], atol=0.01)


def test_an_export_is_as_open_as_the_umask_allows(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    before = os.umask(0o077)
    try:
        export(workspace, tmp_path / "out")
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "out" / "manifest.json").stat().st_mode & 0o777 == 0o600


def test_xml_for_cvat_has_the_documented_form(workspace: Workspace, clips: list[ClipRecord], tmp_path: Path) -> None:
    export(workspace, tmp_path / "out", "cvat")
    root = ElementTree.parse(tmp_path / "out" / f"{clips[1].clip_id}.xml").getroot()
    assert (root.tag, root.findtext("version"), root.findtext("meta/task/mode")) == (
        "annotations",
        "1.1",
        "interpolation",
    )
    assert (root.findtext("meta/task/size"), root.findtext("meta/task/source")) == ("36", f"{clips[1].clip_id}.mp4")
    tracks = root.findall("track")
    assert [(track.get("id"), track.get("label")) for track in tracks] == [
        ("0", "clip"), ("1", "person"), ("2", "joints"), ("3", "person"), ("4", "joints"),
    ]  # fmt: skip
    label_set = {label["name"]: label for label in json.loads((tmp_path / "out" / "labels.json").read_text())}
    for track in tracks:
        names = {attribute["name"] for attribute in label_set[str(track.get("label"))]["attributes"]}
        for shape in track:
            assert {"frame", "keyframe", "outside", "occluded"} <= set(shape.attrib)
            assert {attribute.get("name") for attribute in shape} == names
    said = {attribute.get("name"): attribute.text for attribute in tracks[0][0]}
    assert said["verdict"] == "unanswered"
    assert f"model 3 says {other(str(clips[1].label))}" in str(said["why"])
    (verdict,) = [one for one in label_set["clip"]["attributes"] if one["name"] == "verdict"]
    assert verdict["default_value"] == "unanswered"
    assert set(verdict["values"]) == {"unanswered", "Fight", "NonFight"}
    assert all(len(str(shape.get("points")).split(";")) == 17 for shape in tracks[2])
    assert [int(str(shape.get("frame"))) for shape in tracks[1]] == list(range(36))


def test_a_person_out_of_sight_is_hidden_in_both_formats(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    batch = workspace.batch(clips[1].batch_id)
    table = pq.read_table(batch.table("tracks"))
    hidden = pa.compute.and_(
        pa.compute.equal(table["track_id"], 2),
        pa.compute.and_(pa.compute.greater(table["frame"], 9), pa.compute.less(table["frame"], 20)),
    )
    write_table(batch.table("tracks"), table.filter(pa.compute.invert(hidden)))
    export(workspace, tmp_path / "ls", limit=3)
    export(workspace, tmp_path / "cvat", "cvat", limit=3)
    (task,) = [one for one in exported_tasks(tmp_path / "ls") if one["data"]["clip_id"] == clips[1].clip_id]
    sequence = task["predictions"][0]["result"][2]["value"]["sequence"]
    assert [frame["frame"] for frame in sequence if not frame["enabled"]] == [11]
    root = ElementTree.parse(tmp_path / "cvat" / f"{clips[1].clip_id}.xml").getroot()
    for track in root.findall("track")[3:]:
        assert [shape.get("frame") for shape in track if shape.get("outside") == "1"] == ["10"]


def test_real_videos_go_out_with_overlays_in_a_form_that_browsers_play(
    workspace: Workspace,
    open_batch: Callable[..., list[ClipRecord]],
    write_annotations: Callable[..., None],
    tmp_path: Path,
) -> None:
    import av

    records = open_batch(workspace, 2, codec="mpeg4")
    batch = workspace.batch(records[0].batch_id)
    write_annotations(workspace, batch.batch_id)
    for record in records:
        write_table(batch.part("predictions", record.clip_id), predictions([record], {0: 0.5}))
    result = export(workspace, tmp_path / "out", overlays=True)
    assert result.clips == 2
    for task in exported_tasks(tmp_path / "out"):
        for name in ("video", "overlay"):
            path = tmp_path / task["data"][name].partition("?d=")[2]
            assert re.fullmatch(r"[0-9a-f]{20}\.mp4", path.name)
            with av.open(str(path)) as video:
                assert video.streams.video[0].codec_context.name == "h264"
                assert sum(1 for _ in video.decode(video=0)) == 30
    assert "$overlay" in (tmp_path / "out" / "label_config.xml").read_text()


# there and back


def test_label_studio_round_trip_corrected_labels_win_and_reach_the_dataset(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    params = workspace.params()
    before = assemble.run(workspace, params)
    frozen = {clip.clip_id for clip in holdout.held_out(workspace)}
    result = export(workspace, tmp_path / "out", confidence=1.0)
    corrected = next(clip for clip in clips if clip.clip_id not in frozen)
    held = next(clip for clip in clips if clip.clip_id in frozen)
    tasks = [
        annotated(task, (1, other(clip.label) if clip in (corrected, held) else clip.label))  # type: ignore[arg-type, type-var]
        for task in exported_tasks(tmp_path / "out")
        for clip in clips if clip.clip_id == task["data"]["clip_id"]
    ]  # fmt: skip
    file = write_export(tmp_path / "project-1.json", tasks)
    imported = review_import.run(workspace, file, by="ann")
    assert imported.to_dict() == {
        "version": 1,
        "by": "ann",
        "answered": 24,
        "corrected": 2,
        "confirmed": 22,
        "in_holdout": 1,
        "gone": 0,
        "echoes": 0,
        "taken_before": 0,
        "older": 0,
        "outdated": 0,
    }
    assert effective_labels(workspace)[corrected.clip_id] == (other(str(corrected.label)), "review")
    (version,) = review_import.log(workspace).versions
    assert (version["version"], version["by"], version["source"], version["clips"]) == (1, "ann", "review", 24)

    after = assemble.run(workspace, params)
    assert after.revision != before.revision
    rows = [
        row for side in ("train", "val") for row in pq.read_table(workspace.dataset / f"{side}.parquet").to_pylist()
    ]
    (row,) = [row for row in rows if row["clip_id"] == corrected.clip_id]
    assert (row["label"], row["label_source"], row["label_version"]) == (other(str(corrected.label)), "review", 1)
    assert json.loads((workspace.dataset / "split.json").read_text())["labels_version"] == 1

    again = review_import.run(workspace, file, by="ann")
    assert (again.version, again.corrected, again.taken_before) == (None, 0, 24)
    assert len(review_import.log(workspace).versions) == 1
    with pytest.raises(WorkspaceError, match="nothing to review"):
        export(workspace, tmp_path / "more")
    assert export(workspace, tmp_path / "again", again=True).review != result.review


def answered_in_cvat(path: Path, verdict: str | None = None) -> None:
    """Leave a clip's XML as CVAT does: written anew, whether a person has chosen a verdict or has not even opened the task."""
    root = ElementTree.parse(path).getroot()
    ElementTree.SubElement(root, "dumped").text = "2026-11-22 10:00:00+00:00"
    for attribute in root.iterfind("track[@label='clip']/box/attribute[@name='verdict']"):
        attribute.text = verdict or attribute.text
    path.write_text("\n" + ElementTree.tostring(root, "unicode"))


@pytest.mark.parametrize("packed", [False, True], ids=["xml", "zip"])
def test_cvat_round_trip(workspace: Workspace, clips: list[ClipRecord], tmp_path: Path, packed: bool) -> None:
    export(workspace, tmp_path / "out", "cvat")
    path = tmp_path / "out" / f"{clips[0].clip_id}.xml"
    answered_in_cvat(path, other(str(clips[0].label)))
    if packed:
        with zipfile.ZipFile(tmp_path / "task.zip", "w") as archive:
            archive.write(path, "annotations.xml")
            archive.writestr("images/frame_000000.png", b"png")
    imported = review_import.run(workspace, tmp_path / ("task.zip" if packed else "out"), by="bob")
    assert (imported.version, imported.answered, imported.corrected) == (1, 1, 1)
    assert effective_labels(workspace)[clips[0].clip_id] == (other(str(clips[0].label)), "review")
    assert effective_labels(workspace)[clips[1].clip_id] == (clips[1].label, "inbox")


def test_a_cvat_task_that_nobody_answered_is_no_answer_however_cvat_writes_it(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    export(workspace, tmp_path / "out", "cvat")
    with pytest.raises(UsageError, match="no answer"):
        review_import.run(workspace, tmp_path / "out", by="bob")
    for path in (tmp_path / "out").glob("*.xml"):
        answered_in_cvat(path)
    with pytest.raises(UsageError, match="no answer"):
        review_import.run(workspace, tmp_path / "out", by="bob")
    answered_in_cvat(tmp_path / "out" / f"{clips[2].clip_id}.xml", str(clips[2].label))
    assert review_import.run(workspace, tmp_path / "out", by="bob").answered == 1
    assert effective_labels(workspace)[clips[1].clip_id] == (clips[1].label, "inbox")


def test_of_an_older_cvat_export_with_the_verdict_filled_in_only_contradictions_count(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    review_id = export(workspace, tmp_path / "out", "cvat").review
    manifest = json.loads(workspace.review(review_id).read_text())
    del manifest["prefilled"]
    workspace.review(review_id).write_text(json.dumps(manifest))
    said = {one["clip_id"]: one["verdict"] for one in manifest["clips"]}
    for clip_id, verdict in said.items():
        answered_in_cvat(tmp_path / "out" / f"{clip_id}.xml", verdict)
    with pytest.raises(UsageError, match="no answer that counts, no more than what the model says"):
        review_import.run(workspace, tmp_path / "out", by="bob")
    answered_in_cvat(tmp_path / "out" / f"{clips[0].clip_id}.xml", other(said[clips[0].clip_id]))
    result = review_import.run(workspace, tmp_path / "out", by="bob")
    assert (result.answered, result.echoes) == (1, 2)
    assert any("2 answers were left out" in line for line in result.lines())
    assert effective_labels(workspace)[clips[0].clip_id] == (other(said[clips[0].clip_id]), "review")
    assert export(workspace, tmp_path / "anew", "cvat").clips == 2  # the others are asked again


def test_the_majority_of_several_people_decides_and_a_tie_is_refused_with_its_clips(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    export(workspace, tmp_path / "out")
    first, second, third = exported_tasks(tmp_path / "out")
    two_to_one = annotated(first, ({"id": 1}, "NonFight"), (2, "Fight"), ({"id": 3}, "Fight"))
    changed_mind = annotated(second, (1, "NonFight"), (1, "Fight"))
    tie = annotated(third, (1, "NonFight"), (2, "Fight"))
    with pytest.raises(UsageError, match=third["data"]["clip_id"]):
        review_import.run(workspace, write_export(tmp_path / "a.json", [two_to_one, changed_mind, tie]), by="ann")
    assert review_import.log(workspace).versions == []
    cancelled = annotated(third, (1, "NonFight"), was_cancelled=True)
    untouched = {**third, "annotations": []}
    answered = [two_to_one, changed_mind, cancelled, untouched]
    assert review_import.run(workspace, write_export(tmp_path / "b.json", answered), by="ann").answered == 2
    found = effective_labels(workspace)
    assert [found[one["data"]["clip_id"]] for one in (first, second)] == [("Fight", "review")] * 2


def test_the_same_answers_exported_again_do_not_undo_what_was_said_of_a_clip_since(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    export(workspace, tmp_path / "out")
    first, second, third = exported_tasks(tmp_path / "out")
    clip_id, other_id = first["data"]["clip_id"], second["data"]["clip_id"]
    weekly = [annotated(first, (1, "Fight")), annotated(second, (1, "Fight"))]
    review_import.run(workspace, write_export(tmp_path / "a.json", weekly), by="ann")
    labels.run(workspace, clip_id, "NonFight", by="bob")

    later = annotated(second, (1, "NonFight"), updated_at="2026-11-22T09:00:00.5Z")
    changed = [annotated(first, (1, "Fight")), later, annotated(third, (1, "Fight"))]
    result = review_import.run(workspace, write_export(tmp_path / "b.json", changed), by="ann")
    assert (result.answered, result.taken_before) == (2, 1)
    assert "1 answer was left out, unchanged since an earlier import." in result.lines()
    found = effective_labels(workspace)
    assert (found[clip_id][0], found[other_id][0]) == ("NonFight", "NonFight")

    result = review_import.run(workspace, tmp_path / "a.json", by="ann")  # the first export again
    assert (result.taken_before, result.outdated) == (1, 1)
    assert any(line.startswith("1 answer was left out, as the same person") for line in result.lines())
    assert effective_labels(workspace)[other_id][0] == "NonFight"
    back = [annotated(second, (1, "Fight"), updated_at="2026-11-22T09:00:01Z")]
    assert review_import.run(workspace, write_export(tmp_path / "c.json", back), by="ann").taken_before == 0
    assert effective_labels(workspace)[other_id][0] == "Fight"
    status = ["git", "-C", workspace.root, "status", "--porcelain", "data"]
    assert not subprocess.run(status, capture_output=True, check=True).stdout


def cvat_answer(
    out: Path, folder: Path, name: str, verdict: str, task: tuple[int, str] | None = None, clip_id: str | None = None
) -> Path:
    """Somebody's answer to the first clip of an export; `task` is its number at CVAT and when it was changed last."""
    source = out / f"{clip_id}.xml" if clip_id else min(out.glob("*.xml"))
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.xml"
    path.write_bytes(source.read_bytes())
    answered_in_cvat(path, verdict)
    if task:
        created = f"<id>{task[0]}</id><created>2026-11-20 10:00:00.5+01:00</created><updated>{task[1]}</updated><name>"
        path.write_text(path.read_text().replace("<name>", created, 1))
    return path


def label_of(workspace: Workspace, path: Path) -> str:
    """The present label of the clip that an answer is about."""
    clip_id = ElementTree.parse(path).findtext("track[@label='clip']/box/attribute[@name='clip_id']")
    return effective_labels(workspace)[str(clip_id)][0]


@pytest.mark.parametrize("numbered", [False, True], ids=["without the task", "as CVAT writes it"])
def test_a_folder_of_several_peoples_answers_gives_the_same_label_however_often_it_comes(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path, numbered: bool
) -> None:
    export(workspace, tmp_path / "out", "cvat")
    said = {"1-carl": "NonFight", "2-ann": "Fight", "3-bob": "Fight"}
    for number, (name, verdict) in enumerate(said.items()):
        task = (number, f"2026-11-21 10:0{number}:00+01:00") if numbered else None
        path = cvat_answer(tmp_path / "out", tmp_path / "all", name, verdict, task)
    results = []
    for _ in range(3):
        results.append(review_import.run(workspace, tmp_path / "all", by="ann"))
        assert label_of(workspace, path) == "Fight"
    assert [(one.version, one.answered, one.taken_before) for one in results] == [(1, 1, 0), (None, 0, 3), (None, 0, 3)]
    assert review_import.run(workspace, tmp_path / "all" / "1-carl.xml", by="ann").taken_before == 1
    assert label_of(workspace, path) == "Fight"


@pytest.mark.parametrize("numbered", [False, True], ids=["without the task", "as CVAT writes it"])
def test_an_old_answer_does_not_undo_a_later_one_of_somebody_else(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path, numbered: bool
) -> None:
    export(workspace, tmp_path / "out", "cvat")

    def answer(name: str, verdict: str, number: int) -> Path:
        task = (number, f"2026-11-21 10:0{number}:00+01:00") if numbered else None
        return cvat_answer(tmp_path / "out", tmp_path / name, name, verdict, task)

    ann, bob = answer("ann", "Fight", 1), answer("bob", "NonFight", 2)
    for path, label in ((ann, "Fight"), (bob, "NonFight"), (ann, "NonFight"), (bob, "NonFight")):
        review_import.run(workspace, path, by="ann")
        assert label_of(workspace, path) == label
    answer("ann", "Fight", 1).rename(tmp_path / "bob" / "ann.xml")
    third = answer("carl", "NonFight", 3).rename(tmp_path / "bob" / "carl.xml")
    review_import.run(workspace, tmp_path / "bob", by="ann")
    assert label_of(workspace, third) == "NonFight"


def test_a_changed_answer_counts_and_the_one_before_it_never_again(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    export(workspace, tmp_path / "out", "cvat")
    first, second, third = (
        cvat_answer(tmp_path / "out", tmp_path, f"{hour}", verdict, (7, f"2026-11-21 {hour}:00:00.1+01:00"))
        for hour, verdict in ((10, "Fight"), (11, "NonFight"), (12, "Fight"))
    )
    said = []
    for path in (first, second, first, third, second, third):
        review_import.run(workspace, path, by="ann")
        said.append(label_of(workspace, path))
    assert said == ["Fight", "NonFight", "NonFight", "Fight", "Fight", "Fight"]


def test_one_of_several_people_of_whom_nothing_is_known_changes_the_majority(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    export(workspace, tmp_path / "out", "cvat")
    for name, verdict in (("ann", "Fight"), ("bob", "NonFight"), ("carl", "Fight")):
        path = cvat_answer(tmp_path / "out", tmp_path / "all", name, verdict)
    review_import.run(workspace, tmp_path / "all", by="ann")
    old = path.read_bytes()
    cvat_answer(tmp_path / "out", tmp_path / "all", "carl", "NonFight")
    review_import.run(workspace, tmp_path / "all", by="ann")
    assert label_of(workspace, path) == "NonFight"
    path.write_bytes(old)
    assert review_import.run(workspace, tmp_path / "all", by="ann").taken_before == 3
    assert label_of(workspace, path) == "NonFight"


def test_old_answers_that_come_with_a_new_one_do_not_undo_a_correction_that_it_confirms(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    export(workspace, tmp_path / "out")
    task = exported_tasks(tmp_path / "out")[0]
    clip_id = task["data"]["clip_id"]

    def given(*answers: str) -> str:
        found = annotated(task, *enumerate(answers))
        for number, one in enumerate(found["annotations"]):
            one["updated_at"] = f"{2020 if number < 3 else 2100}-11-21T10:00:{number:02d}Z"
        review_import.run(workspace, write_export(tmp_path / "a.json", [found]), by="ann")
        return effective_labels(workspace)[clip_id][0]

    assert given("Fight", "Fight", "Fight") == "Fight"
    labels.run(workspace, clip_id, "NonFight", by="bob")
    assert given("Fight", "Fight", "Fight", "NonFight") == "NonFight"
    assert given("Fight", "Fight", "Fight", "NonFight", "Fight") == "Fight"
    assert given("Fight", "Fight", "Fight", "NonFight", "Fight", "NonFight") == "Fight"  # four of six


def test_an_answer_of_before_somebody_labelled_the_clip_does_not_change_that_label(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    export(workspace, tmp_path / "out")
    task = exported_tasks(tmp_path / "out")[0]
    clip_id = task["data"]["clip_id"]
    for label in ("Fight", "NonFight"):
        labels.run(workspace, clip_id, label, by="lead")
    old = write_export(
        tmp_path / "a.json", [annotated(task, (1, "Fight"), (2, "Fight"), updated_at="2020-01-01T09:00:00Z")]
    )
    for _ in range(2):
        result = review_import.run(workspace, old, by="ann")
        assert (result.version, result.answered, result.taken_before, result.older) == (None, 0, 0, 2)
        assert (
            "2 answers were left out, older than the label that `violence-ops label` gave the clip since."
            in result.lines()
        )
        assert effective_labels(workspace)[clip_id] == ("NonFight", "label")
    # what is newer counts, and then everybody has a vote
    new = annotated(task, (3, "Fight"), updated_at="2100-01-01T09:00:00Z")
    result = review_import.run(workspace, write_export(tmp_path / "b.json", [new]), by="ann")
    assert (result.corrected, result.older) == (1, 0)
    assert effective_labels(workspace)[clip_id] == ("Fight", "review")


def test_of_a_clip_that_is_twice_in_an_export_everybody_votes_once(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    export(workspace, tmp_path / "out")
    task = exported_tasks(tmp_path / "out")[0]
    twice = [annotated(task, (1, "NonFight"), (2, "Fight"), (3, "Fight")), annotated(task, (1, "NonFight"))]
    path = write_export(tmp_path / "a.json", [*twice, twice[1]])
    for taken in (0, 3):
        assert review_import.run(workspace, path, by="ann").taken_before == taken
        assert effective_labels(workspace)[task["data"]["clip_id"]][0] == "Fight"


@pytest.mark.parametrize("at_once", [True, False])
def test_of_a_persons_answers_to_two_exports_the_last_counts(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path, at_once: bool
) -> None:
    export(workspace, tmp_path / "one")
    export(workspace, tmp_path / "two", limit=2)
    old, new = (exported_tasks(tmp_path / name)[0] for name in ("one", "two"))
    (tmp_path / "both").mkdir()
    later = annotated(new, (1, "NonFight"), updated_at="2026-11-22T09:00:00Z")
    write_export(tmp_path / "both" / "b.json", [later])
    if not at_once:
        review_import.run(workspace, tmp_path / "both", by="ann")
    write_export(tmp_path / "both" / "a.json", [annotated(old, (1, "Fight"))])
    review_import.run(workspace, tmp_path / "both" if at_once else tmp_path / "both" / "a.json", by="ann")
    assert effective_labels(workspace)[old["data"]["clip_id"]] == ("NonFight", "review")


def test_an_export_that_asks_the_same_again_does_not_make_old_answers_new(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    give(workspace, {clip.clip_id: "Fight" for clip in clips}, "ann", "review")
    export(workspace, tmp_path / "one", again=True)
    task = exported_tasks(tmp_path / "one")[0]
    old = write_export(tmp_path / "a.json", [annotated(task, (1, "NonFight"))])
    review_import.run(workspace, old, by="ann")
    give(workspace, {task["data"]["clip_id"]: "Fight"}, "ann", "review")  # as when it was asked about
    export(workspace, tmp_path / "two", again=True)
    assert review_import.run(workspace, old, by="ann").taken_before == 1
    assert effective_labels(workspace)[task["data"]["clip_id"]][0] == "Fight"
    (anew,) = [one for one in exported_tasks(tmp_path / "two") if one["data"]["clip_id"] == task["data"]["clip_id"]]
    later = annotated(anew, (1, "NonFight"), updated_at="2100-01-01T00:00:00Z")
    assert review_import.run(workspace, write_export(tmp_path / "b.json", [later]), by="ann").corrected == 1


def test_who_answers_two_exports_at_the_same_moment_is_counted_once(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    export(workspace, tmp_path / "one")
    export(workspace, tmp_path / "two", limit=2)
    tasks = [exported_tasks(tmp_path / name)[0] for name in ("one", "two")]
    for label in ("Fight", "NonFight"):
        labels.run(workspace, tasks[0]["data"]["clip_id"], label, by="lead")
    both = [annotated(task, (1, "Fight"), updated_at="2020-01-01T00:00:00Z") for task in tasks]
    result = review_import.run(workspace, write_export(tmp_path / "a.json", both), by="ann")
    assert (result.older, result.taken_before) == (1, 0)


def colleague(name: str) -> dict[str, Any]:
    """Somebody who has a Label Studio of his own, where he is number 1."""
    return {"id": 1, "email": f"{name}@example.org"}


def test_two_people_with_the_same_number_in_installations_of_their_own_are_two(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    asked = export(workspace, tmp_path / "out")
    task = exported_tasks(tmp_path / "out")[0]
    ann = annotated(task, (colleague("Ann"), "Fight"), updated_at="2026-11-21T12:00:00Z")
    bob = annotated(task, (colleague("bob"), "NonFight"))
    with pytest.raises(UsageError, match="As many people say Fight as NonFight"):
        review_import.run(workspace, write_export(tmp_path / "a.json", [ann, bob]), by="ann")
    review_import.run(workspace, write_export(tmp_path / "a.json", [ann]), by="ann")
    result = review_import.run(workspace, write_export(tmp_path / "b.json", [bob]), by="ann")
    assert (result.answered, result.taken_before, result.outdated) == (1, 0, 0)
    assert "example.org" not in workspace.review(asked.review).read_text()


def test_a_dissent_that_is_taken_for_an_old_answer_of_the_same_number_is_said(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    export(workspace, tmp_path / "out")
    task = exported_tasks(tmp_path / "out")[0]
    both = [annotated(task, (1, "Fight"), updated_at="2026-11-21T12:00:00Z"), annotated(task, (1, "NonFight"))]
    for unchanged in (0, 1):
        result = review_import.run(workspace, write_export(tmp_path / "a.json", both), by="ann")
        assert (result.taken_before, result.outdated) == (unchanged, 1)
        assert effective_labels(workspace)[task["data"]["clip_id"]][0] == "Fight"


@pytest.mark.parametrize("first", [1, colleague("ann")], ids=["without addresses", "with addresses"])
def test_who_is_known_with_an_address_in_one_export_and_without_in_another_votes_once(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path, first: Any
) -> None:
    export(workspace, tmp_path / "out")
    task = exported_tasks(tmp_path / "out")[0]
    second = 1 if isinstance(first, dict) else colleague("ann")

    def given(*answers: tuple[Any, str], **facts: str) -> review_import.ImportResult:
        path = write_export(tmp_path / "a.json", [annotated(task, *answers, **facts)])
        return review_import.run(workspace, path, by="ann")

    given((first, "Fight"))
    assert given((second, "Fight")).taken_before == 1
    labels.run(workspace, task["data"]["clip_id"], "NonFight", by="lead")
    assert given((second, "Fight")).taken_before == 1
    assert given((second, "NonFight"), updated_at="2100-01-01T00:00:00Z").answered == 1
    assert given((first, "Fight"), updated_at="2100-01-02T00:00:00Z").corrected == 1
    assert given((second, "NonFight"), updated_at="2100-01-01T00:00:00Z").outdated == 1


@pytest.mark.parametrize("known", ["ann", "bob", "carl"])  # whosever hash comes first
def test_of_people_with_the_same_number_an_earlier_version_knew_the_one_who_said_it_then(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path, known: str
) -> None:
    export(workspace, tmp_path / "out")
    task = exported_tasks(tmp_path / "out")[0]
    review_import.run(workspace, write_export(tmp_path / "a.json", [annotated(task, (1, "Fight"))]), by="ann")
    now = [
        annotated(task, (colleague(name), "Fight" if name == known else "NonFight")) for name in ("ann", "bob", "carl")
    ]
    result = review_import.run(workspace, write_export(tmp_path / "b.json", now), by="ann")
    assert (result.corrected, result.outdated) == (1, 0)
    assert effective_labels(workspace)[task["data"]["clip_id"]][0] == "NonFight"


def taken_by_an_earlier_version(workspace: Workspace, out: Path, taken: list[str]) -> tuple[str, dict[str, Any]]:
    """An export's review, and its first task, of which an earlier version has taken these labels."""
    asked = export(workspace, out)
    task: dict[str, Any] = exported_tasks(out)[0]
    manifest = json.loads(workspace.review(asked.review).read_text())
    for clip in manifest["clips"]:
        if clip["clip_id"] == task["data"]["clip_id"]:
            clip["taken"] = taken
    workspace.review(asked.review).write_text(json.dumps(manifest))
    return asked.review, task


def test_what_an_earlier_version_took_is_still_known(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    """It remembered the labels alone that the last file gave."""
    review, task = taken_by_an_earlier_version(workspace, tmp_path / "out", ["Fight", "NonFight"])
    clip_id = task["data"]["clip_id"]
    labels.run(workspace, clip_id, "NonFight", by="bob")
    old = annotated(task, (1, "Fight"), ({"id": 2, "email": "bob@example.org"}, "NonFight"))
    result = review_import.run(workspace, write_export(tmp_path / "a.json", [old]), by="ann")
    assert (result.version, result.taken_before) == (None, 2)
    new = annotated(task, (1, "Fight"), (2, "NonFight"), (3, "Fight"))
    new["annotations"][2]["updated_at"] = "2100-01-01T00:00:00Z"
    review_import.run(workspace, write_export(tmp_path / "b.json", [new]), by="ann")
    assert effective_labels(workspace)[clip_id][0] == "Fight"
    changed = annotated(task, (2, "Fight"), updated_at="2100-01-02T00:00:00Z")
    assert review_import.run(workspace, write_export(tmp_path / "c.json", [changed]), by="ann").answered == 1
    assert review_import.run(workspace, tmp_path / "a.json", by="ann").answered == 0
    assert "example.org" not in workspace.review(review).read_text()


def test_who_had_no_name_in_what_an_earlier_version_took_takes_nobody_elses_voice(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    _, task = taken_by_an_earlier_version(workspace, tmp_path / "out", ["Fight"])
    clip_id = task["data"]["clip_id"]
    changed = annotated(task, (1, "NonFight"), updated_at="2026-11-22T00:00:00Z")
    review_import.run(workspace, write_export(tmp_path / "a.json", [changed]), by="ann")
    assert effective_labels(workspace)[clip_id][0] == "NonFight"
    another = annotated(task, (3, "Fight"), updated_at="2026-11-23T00:00:00Z")
    assert review_import.run(workspace, write_export(tmp_path / "b.json", [another]), by="ann").taken_before == 0
    assert effective_labels(workspace)[clip_id][0] == "Fight"


def test_answers_to_clips_that_were_forgotten_meanwhile_are_left_out(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    export(workspace, tmp_path / "out")
    with open_catalog(workspace) as catalog:
        catalog.forget(clips[0].clip_id)
    tasks = [annotated(task, (1, "Fight")) for task in exported_tasks(tmp_path / "out")]
    result = review_import.run(workspace, write_export(tmp_path / "a.json", tasks), by="ann")
    assert (result.answered, result.gone) == (2, 1)
    assert effective_labels(workspace)[clips[0].clip_id][1] == "inbox"


def test_contradicting_answers_about_a_clip_that_is_gone_keep_no_other_ones_out(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    export(workspace, tmp_path / "out")
    with open_catalog(workspace) as catalog:
        catalog.forget(clips[0].clip_id)
    tasks = [
        annotated(task, (1, "Fight"), *([(2, "NonFight")] if task["data"]["clip_id"] == clips[0].clip_id else []))
        for task in exported_tasks(tmp_path / "out")
    ]
    for answered in (2, 0):
        result = review_import.run(workspace, write_export(tmp_path / "a.json", tasks), by="ann")
        assert (result.answered, result.gone) == (answered, 1)


def test_the_command_line_exports_imports_and_lists(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(app, ["review", *arguments, "--workspace", str(workspace.root), "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    assert run("export", str(tmp_path / "out"), "--format", "cvat", "--no-overlays", "--limit", "2")["clips"] == 2
    for path in (tmp_path / "out").glob("*.xml"):
        answered_in_cvat(path, "Fight")
    assert run("import", str(tmp_path / "out"), "--by", "ann")["version"] == 1
    assert [one["by"] for one in run("log")["versions"]] == ["ann"]


# hostile answers


def billion_laughs() -> str:
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    return f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "lol">{entities}]><annotations>&l9;</annotations>'


HOSTILE = {
    "xml-bomb": ("a.xml", billion_laughs()),
    "external-entity": (
        "a.xml",
        '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotations>&e;</annotations>',
    ),
    "xml-cut-off": ("a.xml", "<annotations><track label='clip'>"),
    "no-cvat": ("a.xml", "<html/>"),
    "odd-encoding": ("a.xml", '<?xml version="1.0" encoding="nonsense"?><annotations/>'),
    "deep-json": ("a.json", "[" * 100_000),
    "json-cut-off": ("a.json", "[{}, "),
    "json-and-more": ("a.json", "[] []"),
    "many-results": (
        "a.json",
        '[{"data": {"review": "a", "clip_id": "b", "sha256": "c"}, "annotations": [{"result": ['
        + "{}," * 10_000
        + "{}]}]}]",
    ),
    "deep-xml": ("a.xml", "<annotations>" + "<a>" * 50),
    "names-without-end": ("a.xml", "<annotations>" + "".join(f"<a{n}/>" for n in range(1001))),
    "tag-without-end": ("a.xml", "<annotations><a " + "b='' " * (1 << 18)),
    "no-json": ("a.json", "\x00\xff"),
    "json-of-another-kind": ("a.json", '{"images": []}'),
    "json-min": ("a.json", '[{"video": "x", "verdict": "Fight", "id": 1}]'),
    "wrong-types": ("a.json", '[{"data": {"review": 1, "clip_id": [], "sha256": null}, "annotations": "many"}]'),
    "no-zip": ("a.zip", "PK nothing"),
    "other-suffix": ("a.txt", "Fight"),
}


@pytest.mark.parametrize(("name", "text"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_answers_end_in_one_sentence(workspace: Workspace, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, "latin-1")
    before = workspace.labels_file.read_bytes()
    with pytest.raises(UsageError) as refusal:
        review_import.run(workspace, tmp_path / name, by="ann")
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500
    assert workspace.labels_file.read_bytes() == before


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("clip_id", "0" * 20, "did not ask"),
        ("clip_id", "../../etc/passwd", "did not ask"),
        ("sha256", "0" * 64, "SHA-256"),
        ("review", "0" * 12, "no review"),
        ("review", "../../x", "not a review's id"),
    ],
    ids=["another-clip", "path-as-clip", "other-bytes", "another-review", "path-as-review"],
)
def test_answers_to_what_was_not_asked_change_nothing(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path, field: str, value: str, sentence: str
) -> None:
    export(workspace, tmp_path / "out")
    tasks = [annotated(task, (1, "Fight")) for task in exported_tasks(tmp_path / "out")]
    tasks[-1]["data"][field] = value
    with pytest.raises(UsageError, match=sentence):
        review_import.run(workspace, write_export(tmp_path / "a.json", tasks), by="ann")
    assert review_import.log(workspace).versions == []


def test_xml_that_nests_without_end_takes_no_memory_to_speak_of(tmp_path: Path) -> None:
    (tmp_path / "deep.xml").write_text("<annotations>" + "<a>" * (1 << 22))
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom violence_ops.errors import UsageError\n"
        "from violence_ops.stages.labelling.review_import import _read\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: list(_read(Path(sys.argv[1])))\nexcept UsageError: pass\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)"
    )
    ran = [sys.executable, "-c", code, tmp_path / "deep.xml"]
    assert int(subprocess.run(ran, capture_output=True, check=True, text=True).stdout) < 100  # MB


def test_of_json_no_more_than_the_longest_task_is_parsed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_studio, "_WINDOW", 1 << 10)
    monkeypatch.setattr(label_studio, "_MAX_TASK", 1 << 20)
    content = b'[{"data": [' + b"{}, " * (1 << 19) + b"{}]}]"
    with pytest.raises(
        UsageError, match=r"x has a task of more than 1 MB or .* values, .*: delete its boxes in Label Studio"
    ):
        list(label_studio.read(content, "x"))


def test_a_task_of_more_values_than_boxes_have_is_refused_before_it_takes_memory() -> None:
    content = b'[{"data": [' + b"[]," * 4_000_000 + b"[]]}]"
    with pytest.raises(UsageError, match=r"x has a task of more than .* or 3,000,000 values, .*: delete its boxes"):
        list(label_studio.read(content, "x"))


def test_a_long_clips_task_has_coarser_boxes_and_stays_small_enough_to_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(label_studio, "_MAX_KEYFRAMES", 200)
    frames, rng = 3000, np.random.default_rng(0)
    corners = np.clip(300 + np.cumsum(rng.normal(0, 3, (frames, 2)), axis=0), 0, 500)
    tracks = ClipTracks(
        clip_id="a", frame_count=frames, width=640, height=640, fps=15.0, frame=np.arange(frames, dtype=np.int32),
        bboxes=np.hstack([corners, corners + 100]).astype(np.float32), scores=np.ones(frames, np.float32),
        keypoints=np.zeros((frames, 17, 2), np.float32), keypoint_scores=np.zeros((frames, 17), np.float32),
        track_id=np.ones(frames, np.int32), rank=np.ones(frames, np.int32), involvement=np.ones(frames, np.float32),
        components=np.ones((frames, len(COMPONENTS)), np.float32),
    )  # fmt: skip
    asked = Task(
        review="r", clip_id="a", sha256="s", video="a.mp4", overlay=None, label=None, verdict="Fight", confidence=0.5, model="1",
        reasons=("doubtful",), tracks=tracks,
    )  # fmt: skip
    sequence = label_studio.task(asked, "")["predictions"][0]["result"][1]["value"]["sequence"]
    assert 20 < len(sequence) <= 200
    drawn = np.interp(range(1, frames + 1), [one["frame"] for one in sequence], [one["x"] for one in sequence])
    assert np.abs(drawn - tracks.bboxes[:, 0] / 6.4).max() < 10


def test_json_is_read_a_task_at_a_time_wherever_it_is_broken_into_lines() -> None:
    identity = '"data": {"review": "r", "clip_id": "%s", "sha256": "s", "note": "]},{\\"[ \u00e4"}'
    answer = (
        '"annotations": [{"completed_by": 1, "result": [{"from_name": "verdict", "value": {"choices": ["Fight"]}}]}]'
    )
    padding = f'"padding": "{"x" * (3 << 20)}"'
    text = f" [\n{{{identity % 'a'}, {answer}}} ,\r\n\t{{{padding}, {identity % 'b'}, {answer}}}]\n"
    assert [one.clip_id for one in label_studio.read(text.encode(), "x")] == ["a", "b"]
    assert list(label_studio.read(b" [ ] \n", "x")) == []
    for broken in ("", "[,]", "[{}", text.replace(" ,", "  "), text + "]", text.replace("]\n", ",]\n")):
        with pytest.raises(UsageError, match="x is not Label Studio's JSON export"):
            list(label_studio.read(broken.encode(), "x"))


@pytest.mark.parametrize("choices", [["Brawl"], ["Fight", "NonFight"]], ids=["unknown", "both"])
def test_an_answer_that_is_no_label_is_refused(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path, choices: list[str]
) -> None:
    export(workspace, tmp_path / "out")
    task = annotated(exported_tasks(tmp_path / "out")[0], (1, "Fight"))
    task["annotations"][0]["result"][-1]["value"]["choices"] = choices
    with pytest.raises(UsageError, match="must be one of NonFight, Fight"):
        review_import.run(workspace, write_export(tmp_path / "a.json", [task]), by="ann")


def test_a_zip_that_unpacks_to_more_than_may_be_is_refused(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review_import, "_MAX_BYTES", 1 << 20)
    with (
        zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("annotations.xml", "w") as out,
    ):
        out.write(b"<annotations>")
        for _ in range(3):
            out.write(b" " * (1 << 20))
    assert (tmp_path / "bomb.zip").stat().st_size < 1 << 14
    with pytest.raises(UsageError, match="more than 1 MB"):
        review_import.run(workspace, tmp_path / "bomb.zip", by="ann")
    monkeypatch.setattr(review_import, "_MAX_UNPACKED", 2 << 20)
    with zipfile.ZipFile(tmp_path / "many.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"{number}.xml", b"<annotations>" + b" " * (1 << 19) * (1 + number) + b"</annotations>")
    with pytest.raises(UsageError, match=r"many\.zip unpacks to more than 2 MB"):
        review_import.run(workspace, tmp_path / "many.zip", by="ann")


def test_a_zip_of_endless_files_is_refused_before_they_are_listed(workspace: Workspace, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        archive.writestr("a.txt", b"")
        offset = archive.fp.tell() if archive.fp else 0
    content = (tmp_path / "one.zip").read_bytes()
    entry, end = content[offset:-22], bytearray(content[-22:])
    listing = entry * 100_000
    end[12:16] = len(listing).to_bytes(4, "little")
    (tmp_path / "many.zip").write_bytes(content[:offset] + listing + end)
    with zipfile.ZipFile(tmp_path / "many.zip") as archive:
        assert len(archive.infolist()) == 100_000
    with pytest.raises(UsageError, match=r"many\.zip lists far more files than a CVAT export has"):
        review_import.run(workspace, tmp_path / "many.zip", by="ann")


# older tables


def test_a_table_from_before_versions_is_read_and_goes_on(workspace: Workspace, clips: list[ClipRecord]) -> None:
    workspace.labels_file.write_text(f"clip_id,label,by,at\n{clips[3].clip_id},Fight,ann,2026-01-01T00:00:00+00:00\n")
    assert effective_labels(workspace)[clips[3].clip_id] == ("Fight", "review")
    labels.run(workspace, clips[3].clip_id, "NonFight", by="bob")
    assert [(one["version"], one["by"]) for one in review_import.log(workspace).versions] == [(0, "ann"), (1, "bob")]
    assert effective_labels(workspace)[clips[3].clip_id] == ("NonFight", "label")


def test_the_log_tells_a_label_that_was_given_from_one_that_was_imported_and_neither_is_asked_again(
    workspace: Workspace, clips: list[ClipRecord], tmp_path: Path
) -> None:
    labels.run(workspace, clips[0].clip_id, other(str(clips[0].label)), by="bob")
    assert export(workspace, tmp_path / "out", confidence=1.0).clips == 23
    task, *_ = exported_tasks(tmp_path / "out")
    review_import.run(workspace, write_export(tmp_path / "a.json", [annotated(task, (1, "Fight"))]), by="ann")
    found = [line.split()[2] for line in review_import.log(workspace).lines()]
    assert found == ["label", "review"]
    assert export(workspace, tmp_path / "again", confidence=1.0).clips == 22


@pytest.mark.parametrize("hostile", ["encrypted", "packed otherwise", "of a newer version"])
def test_a_zip_that_cvat_does_not_write_is_refused(workspace: Workspace, tmp_path: Path, hostile: str) -> None:
    path = tmp_path / "odd.zip"
    method = zipfile.ZIP_LZMA if hostile == "packed otherwise" else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("annotations.xml", "<annotations/>")
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    if hostile == "encrypted":
        content[6] |= 1
        content[entry + 8] |= 1
    elif hostile == "of a newer version":
        content[entry + 6] = 99
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"odd.zip is no ZIP that CVAT wrote \(.+\): export the task again"):
        review_import.run(workspace, path, by="ann")


def test_of_a_forgotten_clip_no_review_knows_and_answers_about_it_are_left_out(
    workspace: Workspace, seal_whole: Seal, tmp_path: Path
) -> None:
    batch = workspace.batch(seal_whole(workspace, clips=6, judged_by="3")[0].batch_id)
    records = [record.with_(codec="h264") for record in batches.read_clips(batch)]
    write_table(batch.table("clips"), pa.Table.from_pylist([one.to_dict() for one in records], CLIPS_SCHEMA))
    versioning.add_batch(workspace, batch)
    asked = export(workspace, tmp_path / "out", confidence=1.0, limit=3)
    tasks = [annotated(task, (1, "Fight")) for task in exported_tasks(tmp_path / "out")]
    clip_id = json.loads(workspace.review(asked.review).read_text())["clips"][0]["clip_id"]
    content = batches.video_of(batch, next(one for one in records if one.clip_id == clip_id)).read_bytes()
    planned = forget.run(workspace, workspace.params(), clip_id, dry_run=True)
    found = forget.run(workspace, workspace.params(), clip_id, by="ann", reason="the person asked")
    assert planned.removed["reviews"] == found.removed["reviews"] == [asked.review]
    assert clip_id not in workspace.review(asked.review).read_text()
    assert not subprocess.run(
        ["git", "-C", workspace.root, "status", "--porcelain", "data/reviews"], capture_output=True, check=True
    ).stdout

    (workspace.inbox / "again.mp4").write_bytes(content)
    assert ingest.run(workspace, workspace.params(), night=date(2026, 2, 2)).quarantined == {"forgotten": 1}
    alone = [task for task in tasks if clip_id in json.dumps(task)]
    result = review_import.run(workspace, write_export(tmp_path / "one.json", alone), by="ann")
    assert (result.answered, result.gone, result.version) == (0, 1, None)
    result = review_import.run(workspace, write_export(tmp_path / "all.json", tasks), by="ann")
    assert (result.answered, result.gone) == (2, 1)
    assert "1 answer was left out, of clips that are no longer in this workspace." in result.lines()
    assert clip_id not in workspace.labels_file.read_text()
