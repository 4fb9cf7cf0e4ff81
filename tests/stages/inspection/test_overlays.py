"""Overlays of several clips: read back as videos, each for itself, and those of the clips that a model got wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import av
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from violence_ops import workers
from violence_ops.cli.program import app
from violence_ops.errors import UnknownBatch, UsageError, WorkspaceError
from violence_ops.evaluation import judgement
from violence_ops.evaluation.records import DataChecks, HoldoutFacts, JudgedClip, Latency, Leakage, ModelFacts, Timings
from violence_ops.files import write_json, write_table
from violence_ops.folders import Batch
from violence_ops.params import Params
from violence_ops.records import PREDICTIONS_SCHEMA, ClipRecord
from violence_ops.stages.inspection import check, check_overlays, overlay, overlays, overlays_of_failures
from violence_ops.stages.labelling import labels
from violence_ops.stages.learning import assemble, train
from violence_ops.stages.nightly import annotate, night, score
from violence_ops.stages.upkeep import synth
from violence_ops.store import batches
from violence_ops.video.write import read_comment
from violence_ops.workspace import Workspace

OpenBatch = Callable[..., list[ClipRecord]]


def annotated(workspace: Workspace, params: Params, open_batch: OpenBatch, clips: int = 3) -> list[ClipRecord]:
    records = open_batch(workspace, clips=clips, people=lambda number: 2)
    common = {"root": str(workspace.root), "batch_id": records[0].batch_id, "params": params.model_dump(mode="json")}
    for record in records:
        annotate.annotate_clip(common, record.clip_id)
    return records


def facts(path: Any) -> tuple[str, float, int]:
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        return video.format.name, float(stream.average_rate), sum(1 for _ in video.decode(stream))


def test_a_clip_that_fails_is_one_sentence_and_stops_no_other(
    workspace: Workspace, params: Params, open_batch: OpenBatch
) -> None:
    clips = annotated(workspace, params, open_batch)
    batch = workspace.batch(clips[0].batch_id)
    batches.video_of(batch, clips[1]).write_bytes(b"this is no video any more")
    wanted = [clips[0].clip_id, clips[1].clip_id, "f" * 20, "../../etc", clips[2].clip_id, clips[0].clip_id]
    result = overlays.run(workspace, params, wanted)
    assert [one.clip_id for one in result.made] == [clips[0].clip_id, clips[2].clip_id]
    assert list(result.failed) == [clips[1].clip_id, "f" * 20, "../../etc"]
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in result.failed.values())
    for one in result.made:
        name, rate, frames = facts(one.path)
        assert ("mp4" in name, rate, frames) == (True, 15.0, 30)
        assert (one.frames, one.codec, one.judged) == (30, "libx264", False)
    assert not workspace.overlay(clips[1].clip_id, ".mp4").exists()
    text = "\n".join(result.lines())
    assert f"no overlay of {'f' * 20}: No clip" in text


def test_a_batch_is_all_its_clips_and_an_unknown_one_is_said_to_be_so(
    workspace: Workspace, params: Params, open_batch: OpenBatch
) -> None:
    clips = annotated(workspace, params, open_batch, clips=2)
    result = overlays.of_batch(workspace, params, clips[0].batch_id, regions=True)
    assert {one.clip_id for one in result.made} == {clip.clip_id for clip in clips}
    with pytest.raises(UnknownBatch, match="violence-ops status"):
        overlays.of_batch(workspace, params, "2020-01-01-00000000")
    with pytest.raises(UsageError):
        overlays.of_batch(workspace, params, "../elsewhere")


def test_one_that_takes_too_long_is_given_up(workspace: Workspace, params: Params, open_batch: OpenBatch) -> None:
    clips = annotated(workspace, params, open_batch, clips=1)
    hasty = workspace.params({"annotation.timeout_s": 0.001, "annotation.seconds_per_video_second": 0.0})
    result = overlays.run(workspace, hasty, [clips[0].clip_id])
    assert "annotation.timeout_s" in result.failed[clips[0].clip_id]
    assert not any(workspace.overlays.glob("*.mp4"))


@pytest.mark.parametrize(
    ("facts", "allowed_s"),
    [
        ({"width": 1920, "height": 1080, "fps": 30.0}, 0.003),
        ({"width": 1920, "height": 1080, "fps": 60.0}, 0.005),
        ({"width": 3840, "height": 2160, "fps": 60.0}, 0.017),
    ],
    ids=["usual", "twice the frames", "four times the pixels too"],
)
def test_a_clip_may_take_longer_the_more_and_the_larger_its_frames_are(
    workspace: Workspace, open_batch: OpenBatch, facts: dict[str, Any], allowed_s: float
) -> None:
    (clip,) = open_batch(workspace, clips=1, **facts)  # 2 s
    hasty = workspace.params({"annotation.timeout_s": 0.001, "annotation.seconds_per_video_second": 0.001})
    assert f"({allowed_s:g} s)" in overlays.run(workspace, hasty, [clip.clip_id]).failed[clip.clip_id]


@pytest.mark.slow
@pytest.mark.parametrize("sealed", [True, False])
def test_how_many_are_drawn_at_once_depends_on_how_long_they_are_and_on_the_people_in_them(
    workspace: Workspace,
    params: Params,
    seal_tracks: Callable[..., list[ClipRecord]],
    open_batch: OpenBatch,
    monkeypatch: pytest.MonkeyPatch,
    sealed: bool,
) -> None:
    asked: list[tuple[int, int, float]] = []
    monkeypatch.setattr(
        workers, "worker_count", lambda _, items, memory, *, seconds: asked.append((items, memory, seconds)) or 1
    )
    monkeypatch.setattr(workers, "MEMORY_PER_WORKER", 0)
    clips = seal_tracks(workspace, clips=3) if sealed else annotated(workspace, params, open_batch)
    batch = workspace.batch(clips[0].batch_id)
    if sealed:
        tracks = batch.table("tracks")
        pq.write_table(pq.read_table(tracks), tracks, row_group_size=72)  # a clip each, as `seal` does
    overlays.run(workspace, params, [clip.clip_id for clip in clips])
    ((items, memory, seconds),) = asked[-1:]
    rows = max(len(batches.read_tracks(batch, clip)) for clip in clips)
    assert (items, seconds) == (3, pytest.approx(sum(clip.duration_s or 0 for clip in clips)))
    assert memory == (512 << 20) + 1280 * rows > 512 << 20


def judged(batch: Batch, clip: ClipRecord, verdict: str) -> None:
    """As if `score` had run, and a model said this."""
    row = {
        "clip_id": clip.clip_id, "model_version": "4", "window": 0, "start_frame": 0, "end_frame": 30, "probability": 0.9, "weight": 1.0,
        "clip_probability": 0.9, "threshold": 0.5, "verdict": verdict,
    }  # fmt: skip
    mark = score.expected(batch, clip, None)
    write_table(batch.part("predictions", clip.clip_id), pa.Table.from_pylist([row], PREDICTIONS_SCHEMA), mark)


def drawn(workspace: Workspace) -> set[str]:
    return {path.stem for path in workspace.overlays.glob("*.mp4")}


@pytest.mark.slow
def test_score_draws_what_is_a_fight_by_the_verdict_or_by_the_label_in_force(
    workspace: Workspace, params: Params, open_batch: OpenBatch
) -> None:
    asked = workspace.params({"annotation.overlay": "fights", "annotation.workers": 1})
    clips = open_batch(workspace, clips=4, people=lambda number: 2, label="NonFight")
    assert not annotate.run(workspace, asked).quarantined
    assert drawn(workspace) == set()
    batch, (by_verdict, by_label, neither, no_longer) = workspace.batch(clips[0].batch_id), clips
    judged(batch, by_verdict, "Fight")
    for clip in (by_label, neither, no_longer):
        judged(batch, clip, "NonFight")
    labels.run(workspace, by_label.clip_id, "Fight", by="ann")

    def stale_or_missing() -> list[tuple[str, tuple[str, ...]]]:
        accepted = {clip.clip_id: clip for clip in batches.accepted_clips(batch)}
        return [(one.kind, one.items) for one in check_overlays.Overlays(workspace, asked).of_batch(batch, accepted)]

    wanted = {by_verdict.clip_id, by_label.clip_id}
    assert stale_or_missing() == [("missing", tuple(sorted(wanted)))]
    result = score.run(workspace, asked)
    assert (result.skipped, result.overlays) == (4, 2)
    assert "2 overlays were drawn." in result.lines()
    assert drawn(workspace) == wanted
    assert stale_or_missing() == []
    assert score.run(workspace, asked).overlays == 0  # they show what they should

    workspace.overlay(by_verdict.clip_id, ".mp4").write_bytes(b"no video")
    labels.run(workspace, no_longer.clip_id, "Fight", by="ann")
    assert score.run(workspace, asked, clip_ids=[by_verdict.clip_id, by_label.clip_id]).overlays == 1
    assert stale_or_missing() == [("missing", (no_longer.clip_id,))]


@pytest.mark.slow
def test_an_overlay_that_cannot_be_drawn_fails_no_step(
    workspace: Workspace, open_batch: OpenBatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = workspace.params({"annotation.overlay": "all", "annotation.workers": 1})
    clips = open_batch(workspace, clips=2, people=lambda number: 2)
    annotate.run(workspace, asked)
    batches.video_of(workspace.batch(clips[0].batch_id), clips[0]).write_bytes(b"this is no video any more")
    assert score.run(workspace, asked).overlays == 1
    assert drawn(workspace) == {clips[1].clip_id}
    assert "no overlay: " in caplog.text


def test_overlays_without_a_folder_to_lie_in_or_labels_to_choose_by_stop_no_night(
    workspace: Workspace, open_batch: OpenBatch, caplog: pytest.LogCaptureFixture
) -> None:
    (clip,) = open_batch(workspace, clips=1, people=lambda number: 2)
    annotate.run(workspace, workspace.params({"annotation.workers": 1}))
    workspace.overlays.write_text("in the way")
    score.run(workspace, workspace.params({"annotation.overlay": "all", "annotation.workers": 1}))
    assert f"no overlay: Drawing clip {clip.clip_id} failed (" in caplog.text
    workspace.labels_file.write_bytes(b"\xff")
    assert score.run(workspace, workspace.params({"annotation.overlay": "fights"})).overlays == 0
    assert f"no overlays of batch {clip.batch_id}: " in caplog.text


@pytest.mark.slow
def test_after_a_night_with_a_champion_its_overlays_show_the_verdict_and_are_in_order(
    small_workspace: Callable[..., Workspace],
    seal_tracks: Callable[..., object],
    release: Callable[[Workspace, str], None],
    tmp_path: Path,
) -> None:
    settings = {"train.epochs": 2, "annotation.overlay": "fights"}
    workspace = small_workspace(**settings)
    params = workspace.params()
    seal_tracks(workspace)
    assemble.run(workspace, params)
    release(workspace, str(train.run(workspace, params).model_version))
    synth.run(tmp_path / "drop", 4, seed=3, groups=2, with_truth=False, duration_s=1.5)
    clips = sorted((tmp_path / "drop").rglob("*.mp4"))
    fights = workspace.inbox / "Fight"
    fights.mkdir()
    for number, path in enumerate(clips):  # one that the folder calls a Fight
        path.rename(workspace.inbox / f"{number}.mp4" if number else fights / "0.mp4")

    found = night.run(workspace, params, night=date(2026, 2, 1)).batches
    (batch_id,) = (one for one in found if one.startswith("2026-02-01"))
    batch = workspace.batch(batch_id)
    wanted = set()
    for clip in batches.accepted_clips(batch):
        said = overlay.judgement(batch, clip)
        assert said is not None
        if clip.label == "Fight" or said.is_fight:
            wanted.add(clip.clip_id)
            assert read_comment(workspace.overlay(clip.clip_id, ".mp4")) == overlay.shown(
                batches.read_tracks(batch, clip), said
            )
    assert drawn(workspace) == wanted != set()
    assert [one for one in check.run(workspace, params, batch_id=batch_id).findings if one.what == "overlays"] == []


@pytest.mark.slow
def test_failures_show_what_the_candidate_of_the_report_said(
    small_workspace: Callable[..., Workspace], seal_tracks: Callable[..., object], open_batch: OpenBatch
) -> None:
    workspace = small_workspace(**{"train.epochs": 2})
    params = workspace.params()
    seal_tracks(workspace)
    assemble.run(workspace, params)
    version = train.run(workspace, params).model_version
    clips = annotated(workspace, params, open_batch)
    with pytest.raises(WorkspaceError, match="violence-ops evaluate"):
        overlays_of_failures.run(workspace, params)

    write_evaluation(workspace, version, clips, wrong={clips[1].clip_id})
    result = overlays_of_failures.run(workspace, params)
    assert [(one.clip_id, one.judged) for one in result.made] == [(clips[1].clip_id, True)]
    path = workspace.overlay(clips[1].clip_id, ".mp4", report=f"{version}-vs-none")
    assert result.made[0].path == str(path)
    assert facts(path)[2] == 30
    overlays.run(workspace, params, [clips[1].clip_id])
    assert read_comment(path) != read_comment(workspace.overlay(clips[1].clip_id, ".mp4"))


@pytest.mark.parametrize(
    "arguments", [[], ["--batch", "2026-01-31-0000beef", "--failures"], ["f" * 20, "--failures"], ["f" * 20, "--report", "1-vs-none"]],
    ids=["nothing", "batch and failures", "clip and failures", "a report of no failures"],
)  # fmt: skip
def test_which_clips_must_be_said_once(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, ["overlay", *arguments])
    assert done.exit_code == 2
    assert "Say which clips" in done.output


def write_evaluation(workspace: Workspace, version: str, clips: list[ClipRecord], wrong: set[str]) -> None:
    """An evaluation of these clips, as `evaluate` leaves it."""
    other = {"Fight": "NonFight", "NonFight": "Fight"}
    judged = [
        JudgedClip(
            clip_id=clip.clip_id, label=clip.label, source_group=clip.source_group, batch_id=clip.batch_id,
            source_path=clip.source_path, slices={},
            candidate=judgement.prediction(0.6, other[str(clip.label)] if clip.clip_id in wrong else str(clip.label)),
        )
        for clip in clips
    ]  # fmt: skip
    made = judgement.evaluate(
        judged, name=f"{version}-vs-none", holdout=HoldoutFacts(version="v1", revision="ab" * 16, batches=()),
        candidate=ModelFacts(version=version, threshold=0.5, lineage={}, holdout_version="v1", holdout_revision="ab" * 16),
        champion=None, checks=DataChecks(near_duplicate_bits=0, candidate=Leakage()),
        timings=Timings(candidate=Latency(p50_ms=1.0, p95_ms=1.0, peak_memory_mb=1.0)), confidence=0.9, resamples=500,
    )  # fmt: skip
    write_json(workspace.report(made.name).evaluation, made.to_dict())
    workspace.write_progress("evaluate", {"report": made.name})
