"""Overlays of several clips: read back as videos, each for itself, and those of the clips that a model got wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import av
import pytest
from typer.testing import CliRunner

from violence_ops.cli.program import app
from violence_ops.errors import UnknownBatch, UsageError, WorkspaceError
from violence_ops.evaluation import judgement
from violence_ops.evaluation.records import DataChecks, HoldoutFacts, JudgedClip, Latency, Leakage, ModelFacts, Timings
from violence_ops.files import write_json
from violence_ops.params import Params
from violence_ops.records import ClipRecord
from violence_ops.stages import annotate, assemble, batches, overlays, train
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


@pytest.mark.slow
def test_failures_show_what_the_candidate_of_the_report_said(
    new_workspace: Callable[..., Workspace], seal_tracks: Callable[..., object], open_batch: OpenBatch
) -> None:
    workspace = new_workspace(**{"train.base_channels": 8, "train.epochs": 2, "train.start": None})
    params = workspace.params()
    seal_tracks(workspace)
    assemble.run(workspace, params)
    version = train.run(workspace, params).model_version
    clips = annotated(workspace, params, open_batch)
    with pytest.raises(WorkspaceError, match="violence-ops evaluate"):
        overlays.of_failures(workspace, params)

    write_evaluation(workspace, version, clips, wrong={clips[1].clip_id})
    result = overlays.of_failures(workspace, params)
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
