"""Drift: a night like the training data is stable, one of another world is not, and too few clips are not judged."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from violence_ops.errors import UnknownBatch, WorkspaceError
from violence_ops.files import write_json, write_table
from violence_ops.records import ClipRecord
from violence_ops.registry import Registry
from violence_ops.stages.releasing import drift, reports
from violence_ops.store import batches, rewrite, tombstones
from violence_ops.workspace import Workspace

Seal = Callable[..., list[ClipRecord]]
Trained = Callable[..., None]
Judge = Callable[..., str]
Release = Callable[[Workspace, str], None]


@pytest.fixture
def champion(released: Workspace, seal_whole: Seal, trained: Trained, release: Release) -> Workspace:
    """A workspace whose champion, version 1, was trained on a sealed batch of 60 clips of 20 groups."""
    trained(released, "1", seal_whole(released, clips=60, seed=1))
    release(released, "1")
    return released


def verdicts(workspace: Workspace, batch_id: str) -> dict[str, str]:
    report = drift.run(workspace, workspace.params(), batch_id=batch_id).report
    assert report is not None
    return {shift.quantity: shift.verdict for shift in report.shifts}


def test_a_night_like_the_training_data_is_stable_and_one_of_small_people_drifts_in_their_height_only(
    champion: Workspace, seal_whole: Seal
) -> None:
    like = seal_whole(champion, clips=40, seed=2, night="2026-02-01")[0].batch_id
    small = seal_whole(champion, clips=40, seed=3, night="2026-02-02", scale=0.4)[0].batch_id
    assert set(verdicts(champion, like).values()) <= {"stable", "too few clips"}
    found = verdicts(champion, small)
    assert [name for name, verdict in found.items() if verdict == "drift"] == ["box_height"]

    newest = drift.run(champion, champion.params())
    assert (newest.batch_id, newest.report.verdict) == (small, "drift")
    kept = champion.drift_report(small)
    content = kept.read_bytes()
    assert json.loads(content)["verdict"] == "drift"
    drift.run(champion, champion.params())
    assert kept.read_bytes() == content
    logged = ["git", "-C", champion.root, "log", "--format=%s", "--", kept]
    assert subprocess.run(logged, capture_output=True, text=True, check=True).stdout.split("\n") == [
        f"Drift of batch {small}: drift",
        "",
    ]


def test_probabilities_are_compared_with_those_that_the_champion_gave_the_holdout(
    champion: Workspace, registry: Registry, seal_whole: Seal, write_evaluation: Judge
) -> None:
    registry.set_tag("1", "report", write_evaluation("1"))  # 24 clips, all at 0.1 or 0.9
    judged = seal_whole(champion, clips=40, per_group=1, seed=2, night="2026-02-01", judged_by="1", surely=True)[
        0
    ].batch_id
    by_another = seal_whole(champion, clips=40, seed=3, night="2026-02-02", judged_by="2")[0].batch_id
    assert verdicts(champion, judged)["probability"] == "drift"
    assert verdicts(champion, by_another)["probability"] == "too few clips"


def test_too_few_clips_are_not_judged_however_different(champion: Workspace, seal_whole: Seal) -> None:
    few = seal_whole(champion, clips=6, seed=2, night="2026-02-01", scale=0.2)[0].batch_id
    assert verdicts(champion, few)["box_height"] == "too few clips"


def test_clips_that_nobody_has_given_a_group_or_camera_are_counted_in_a_note(
    champion: Workspace, seal_whole: Seal
) -> None:
    def notes(seed: int, **options: bool) -> tuple[str, ...]:
        batch_id = seal_whole(champion, clips=20, seed=seed, night="2026-02-01", **options)[0].batch_id
        report = drift.run(champion, champion.params(), batch_id=batch_id).report
        assert report is not None
        return report.notes

    assert notes(2) == ()
    (note,) = notes(3, is_named=False)
    assert note.startswith("20 of 20 clips of the night name no source group or camera and were counted as independent")


def test_a_reference_of_before_cameras_and_settings_counted_is_measured_again(
    champion: Workspace, seal_whole: Seal
) -> None:
    night = seal_whole(champion, clips=20, seed=2, night="2026-02-01")[0].batch_id
    drift.run(champion, champion.params(), batch_id=night)
    kept = champion.drift_reference("1")
    whole = json.loads(kept.read_text())
    clips = [{"group": one["group"], "values": one["values"]} for one in whole["clips"]]
    earlier = {"dataset_revision": whole["dataset_revision"], "pose_weights": ["ab" * 32], "clips": clips}
    for kept_then in (earlier, whole | {"clips": clips}):
        write_json(kept, kept_then)
        drift.run(champion, champion.params(), batch_id=night)
        assert json.loads(kept.read_text()) == whole


def test_the_newest_of_a_night_is_the_one_sealed_last(champion: Workspace, seal_whole: Seal) -> None:
    both = [champion.batch(seal_whole(champion, clips=6, seed=seed, night="2026-02-01")[0].batch_id) for seed in (2, 3)]
    for last in both:
        for batch in both:
            os.utime(batch.manifest, (2e9, 2e9) if batch == last else (1e9, 1e9))
        report = drift.run(champion, champion.params()).report
        assert report is not None
        assert report.batch_id == last.batch_id


def test_only_drift_with_the_trigger_on_asks_for_retraining(champion: Workspace, seal_whole: Seal) -> None:
    small = seal_whole(champion, clips=40, seed=2, night="2026-02-01", scale=0.4)[0].batch_id
    params = champion.params({"drift.trigger": True})
    assert drift.run(champion, params, batch_id=small).retrain
    assert not drift.run(champion, champion.params(), batch_id=small).retrain
    like = champion.sealed_batches()[0].batch_id
    assert not drift.run(champion, params, batch_id=like).retrain


def test_settings_that_differ_are_named_and_what_they_may_explain_starts_no_training(
    champion: Workspace, seal_whole: Seal, trained: Trained, release: Release
) -> None:
    triggered = champion.params({"drift.trigger": True})

    def night(seed: int, section: str, key: str, value: Any) -> tuple[list[ClipRecord], drift.DriftResult]:
        clips = seal_whole(champion, clips=60, seed=seed, night=f"2026-02-0{seed}", scale=0.4)
        path = champion.batch(clips[0].batch_id).manifest
        facts = json.loads(path.read_text())
        facts["params"][section][key] = value
        path.write_text(json.dumps(facts))
        return clips, drift.run(champion, triggered, batch_id=clips[0].batch_id)

    _, same = night(2, "pose", "mini_batch", 7)  # it changes no pose
    assert (same.report.notes, same.retrain) == ((), True)
    _, tracked = night(3, "tracking", "min_hits", 9)
    assert "tracking.min_hits" in tracked.report.notes[0]
    assert "length of a track, s" in tracked.report.notes[0]
    assert tracked.retrain  # small people are no matter of tracking
    clips, posed = night(4, "pose", "score_threshold", 0.9)
    assert "pose.score_threshold" in posed.report.notes[0]
    assert "every quantity, so it starts no training" in posed.report.notes[0]
    assert (posed.report.verdict, posed.retrain) == ("drift", False)

    first = next(batch for batch in champion.sealed_batches() if batch.batch_id.startswith("2026-01-31"))
    trained(champion, "2", [*batches.read_clips(first), *clips[:9]])
    release(champion, "2")
    again = drift.run(champion, triggered, batch_id=clips[0].batch_id)
    assert "no training" not in again.report.notes[0]  # clips of the training were annotated so too


def test_a_page_shows_all_nights_with_the_champion_and_other_weights_are_named(
    champion: Workspace, seal_whole: Seal, tmp_path: Path
) -> None:
    with pytest.raises(WorkspaceError, match="No night was compared"):
        drift.write_page(champion, tmp_path / "drift.html")
    for seed, scale in ((2, 1.0), (3, 0.4)):
        batch = champion.batch(
            seal_whole(champion, clips=40, seed=seed, night=f"2026-02-0{seed}", scale=scale)[0].batch_id
        )
        facts = json.loads(batch.manifest.read_text())
        batch.manifest.write_text(json.dumps(facts | {"pose_weights": {"name": "<b>new</b>", "sha256": "0"}}))
        drift.run(champion, champion.params(), batch_id=batch.batch_id)
    page = drift.write_page(champion, tmp_path / "drift.html").read_text()
    assert "2026-02-02" in page
    assert "2026-02-03" in page
    assert "by &lt;b&gt;new&lt;/b&gt;" in page
    assert "<b>new" not in page
    assert f"<title>Drift · model 1 · {champion.root}</title>" in page
    assert "Nights against what model 1 was trained on</h1>" in page
    assert "2 batches, 2026-02-02 to 2026-02-03" in page
    assert [report.night for report in drift.drift_summary(champion, "1")] == ["2026-02-02", "2026-02-03"]
    assert drift.drift_summary(champion, "2") == []


def test_without_a_champion_or_a_sealed_batch_it_says_so(released: Workspace, seal_whole: Seal) -> None:
    with pytest.raises(WorkspaceError, match="No batch is sealed yet"):
        drift.run(released, released.params())
    with pytest.raises(UnknownBatch, match="2026-01-31-0a1b2c3d is not in this workspace"):
        drift.run(released, released.params(), batch_id="2026-01-31-0a1b2c3d")
    seal_whole(released, clips=4)
    found = drift.run(released, released.params())
    assert (found.report, found.retrain, found.to_dict()["verdict"]) == (None, False, "no champion")


def test_a_champion_that_does_not_say_what_it_was_trained_on_is_named(champion: Workspace, release: Release) -> None:
    release(champion, "2")
    champion.model_package("2").mkdir(parents=True)
    with pytest.raises(WorkspaceError, match="Version 2 does not say which clips"):
        drift.run(champion, champion.params())


def test_a_reference_is_measured_from_all_training_clips_or_not_at_all(champion: Workspace, seal_whole: Seal) -> None:
    (batch,) = champion.sealed_batches()
    night = seal_whole(champion, clips=20, seed=2, night="2026-02-01")[0].batch_id
    kept, away = champion.drift_reference("1"), champion.root / "away"
    batch.sealed.rename(away)
    with pytest.raises(WorkspaceError, match=rf"not here \({batch.batch_id}\): run `violence-ops dvc pull`, then"):
        drift.run(champion, champion.params(), batch_id=night)
    away.rename(batch.sealed)
    clips = pq.read_table(batch.table("clips"))
    write_table(batch.table("clips"), clips.slice(2))
    force = (
        rf"{batch.batch_id} lacks 2 of the clips .* `violence-ops dvc pull --force data/batches/{batch.batch_id}\.dvc`"
    )
    with pytest.raises(WorkspaceError, match=force):
        drift.run(champion, champion.params(), batch_id=night)
    assert not kept.exists()

    write_table(batch.table("clips"), clips)
    drift.run(champion, champion.params(), batch_id=night)
    whole = json.loads(kept.read_text())
    assert len(whole["clips"]) == 60
    write_json(kept, whole | {"clips": whole["clips"][:40]})  # as versions of before November 2026 left it
    drift.run(champion, champion.params(), batch_id=night)
    assert json.loads(kept.read_text()) == whole


def test_forgotten_clips_are_no_part_of_the_reference_and_missed_by_nobody(
    champion: Workspace, seal_whole: Seal
) -> None:
    (batch,) = champion.sealed_batches()
    night = seal_whole(champion, clips=20, seed=2, night="2026-02-01")[0].batch_id
    drift.run(champion, champion.params(), batch_id=night)
    for clip in batches.read_clips(batch)[:3]:
        tombstones.write(champion, {"clip_id": clip.clip_id, "by": "ann", "reason": "r", "at": "", "models": ["1"]})
        rewrite.sealed_without(batch, clip.clip_id)
    drift.run(champion, champion.params(), batch_id=night)
    assert len(json.loads(champion.drift_reference("1").read_text())["clips"]) == 57


def test_batches_that_an_old_training_json_does_not_name_are_found_in_the_catalog(
    champion: Workspace, seal_whole: Seal
) -> None:
    night = seal_whole(champion, clips=20, seed=2, night="2026-02-01")[0].batch_id
    path = champion.model_package("1") / "training.json"
    record = json.loads(path.read_text())
    for row in record["clips"]:
        del row["batch_id"]
    write_json(path, record)
    drift.run(champion, champion.params(), batch_id=night)
    record["clips"][0]["clip_id"] = "0" * 20
    write_json(path, record)
    champion.drift_reference("1").unlink()
    with pytest.raises(WorkspaceError, match=r"which batch holds clip 0{20}, .* `violence-ops catalog rebuild`"):
        drift.run(champion, champion.params(), batch_id=night)


def test_the_report_of_an_evaluation_shows_the_nights_of_its_champion(
    champion: Workspace, seal_whole: Seal, write_evaluation: Judge
) -> None:
    small = seal_whole(champion, clips=40, seed=2, night="2026-02-01", scale=0.4)[0].batch_id
    drift.run(champion, champion.params(), batch_id=small)
    for name, shown in ((write_evaluation("2", "1"), True), (write_evaluation("3"), False)):
        files = champion.report(name)
        reports.write_page(champion, files, reports.read(files).evaluation, champion.params())
        assert (small in files.page.read_text()) == shown
