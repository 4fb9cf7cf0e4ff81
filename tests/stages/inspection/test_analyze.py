"""`analyze` on workspaces with sealed and open batches: whose clips it counts, with which labels, and what it leaves out."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from violence_ops.cli.program import app
from violence_ops.errors import UnknownBatch, WorkspaceError
from violence_ops.records import ClipRecord
from violence_ops.stages.inspection import analyze, explain
from violence_ops.stages.nightly import annotate
from violence_ops.stages.provenance import forget
from violence_ops.store import labels_file
from violence_ops.workspace import Workspace

Seal = Callable[..., list[ClipRecord]]


def test_sealed_batches_are_counted_with_the_labels_in_force(workspace: Workspace, seal_whole: Seal) -> None:
    first = seal_whole(workspace, clips=6, night="2026-01-01", seed=1)
    seal_whole(workspace, clips=4, night="2026-01-02", seed=2, labels=lambda number: None)
    labels_file.record(workspace, {first[0].clip_id: "Fight" if first[0].label == "NonFight" else "NonFight"}, "ann")
    result = analyze.run(workspace, workspace.params())
    fights = sum(clip.label == "Fight" for clip in first) + (1 if first[0].label == "NonFight" else -1)
    assert result.survey["labels"] == {"Fight": fights, "NonFight": 6 - fights, "unlabelled": 4}
    assert [(row["batch_id"][:10], row["clips"]) for row in result.batches] == [("2026-01-01", 6), ("2026-01-02", 4)]
    assert result.survey["persons_per_clip"] == {"2": 10}
    assert result.survey["median_involvement"] == pytest.approx(0.6)
    assert workspace.annotations_page.read_text().count("<svg") >= 8
    one = analyze.run(workspace, workspace.params(), batch_ids=[first[0].batch_id])
    assert one.survey["clips"] == 6


def test_the_same_batches_give_the_same_page(workspace: Workspace, seal_whole: Seal) -> None:
    seal_whole(workspace, clips=4)
    analyze.run(workspace, workspace.params())
    before = workspace.annotations_page.read_bytes()
    analyze.run(workspace, workspace.params())
    assert workspace.annotations_page.read_bytes() == before


def test_of_an_open_batch_the_annotated_clips_count(
    workspace: Workspace, open_batch: Callable[..., list[ClipRecord]]
) -> None:
    clips = open_batch(workspace, clips=3, people=lambda number: 2 * number, camera_id="door")
    params = workspace.params()
    assert analyze.run(workspace, params).survey["clips"] == 0
    annotate.run(workspace, params, clip_ids=[clip.clip_id for clip in clips[:2]])
    result = analyze.run(workspace, params)
    assert result.survey["clips"] == 2
    assert result.survey["by_camera"].keys() == {"door"}
    assert list(result.survey["clips_with"]["nobody"]) == [clips[0].clip_id]
    assert (result.batches[0]["state"], result.batches[0]["weights"]) == ("open", "–")


def test_persons_at_once_are_those_of_annotate_and_explain_and_not_the_poses(
    workspace: Workspace, seal_whole: Seal
) -> None:
    """A person whom the pose model finds four times in a frame is one person."""
    clips = seal_whole(workspace, clips=4)
    table = workspace.batch(clips[0].batch_id).table("poses")
    poses = pq.read_table(table)
    pq.write_table(pa.concat_tables([poses] * 4).sort_by([("clip_id", "ascending"), ("frame", "ascending")]), table)
    params = workspace.params({"annotation.crowd": 3})
    result = analyze.run(workspace, params).survey
    assert result["persons_per_clip"] == {"2": 4}
    assert result["crowd"] == len(result["clips_with"]["crowd"]) == 0
    assert explain.run(workspace, params, clips[0].clip_id).scene == "few"


def test_json_and_a_page_elsewhere(workspace: Workspace, seal_whole: Seal) -> None:
    seal_whole(workspace, clips=4)
    page = workspace.root.parent / "elsewhere" / "page.html"
    done = CliRunner().invoke(app, ["analyze", "--json", "--out", str(page), "--workspace", str(workspace.root)])
    assert done.exit_code == 0
    content = json.loads(done.stdout)
    assert content["page"] == str(page)
    assert content["clips"] == 4
    assert page.read_text().startswith("<!doctype html>")
    assert not workspace.annotations_page.exists()


def test_a_batch_that_is_not_pulled_is_left_out_and_told(workspace: Workspace, seal_whole: Seal) -> None:
    seal_whole(workspace, clips=4)
    (workspace.batches / "2026-02-01-0badcafe.dvc").write_text("outs: []\n")
    result = analyze.run(workspace, workspace.params())
    assert list(result.left_out) == ["2026-02-01-0badcafe"]
    assert any("2026-02-01-0badcafe" in line for line in result.lines())


def test_what_cannot_be_read_or_is_not_there_is_one_sentence(workspace: Workspace, seal_whole: Seal) -> None:
    batch = workspace.batch(seal_whole(workspace, clips=4)[0].batch_id)
    with pytest.raises(UnknownBatch, match="2026-03-03-00000000 is not in this workspace"):
        analyze.run(workspace, workspace.params(), batch_ids=["2026-03-03-00000000"])
    batch.table("tracks").write_bytes(b"PAR1")
    with pytest.raises(WorkspaceError, match=r"tracks.parquet is damaged: `violence-ops check`"):
        analyze.run(workspace, workspace.params())


def test_a_damaged_table_of_an_open_batch_is_named_with_the_command_that_says_more(
    workspace: Workspace, open_batch: Callable[..., list[ClipRecord]]
) -> None:
    clip = open_batch(workspace, clips=1, people=lambda number: 2)[0]
    annotate.run(workspace, workspace.params())
    part = workspace.batch(clip.batch_id).part("tracks", clip.clip_id)
    content = bytearray(part.read_bytes())
    content[4:60] = bytes(56)  # the end, which says what is in it, stays as it was
    for damage in (bytes(content), b"PAR1"):
        part.write_bytes(damage)
        done = CliRunner().invoke(app, ["analyze", "--workspace", str(workspace.root)])
        assert done.exit_code == 1
        assert f"{part} is damaged: `violence-ops check` says what brings it back." == done.stderr.strip()


def test_memory_does_not_grow_with_the_length_of_a_batch(workspace: Workspace, seal_whole: Seal) -> None:
    small = workspace.batch(seal_whole(workspace, clips=3, night="2026-01-01", seed=1)[0].batch_id)
    large = workspace.batch(seal_whole(workspace, clips=60, night="2026-01-02", seed=2)[0].batch_id)
    for batch in (small, large):
        for name in ("poses", "tracks"):
            by_clip(batch.table(name))

    def peak(batch_id: str) -> int:
        tracemalloc.start()
        analyze.run(workspace, workspace.params(), batch_ids=[batch_id])
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(small.batch_id)  # what is imported once
    assert peak(large.batch_id) < peak(small.batch_id) + 400_000


def by_clip(path: Path) -> None:
    """Write a table as `seal` does, a row group a clip."""
    table = pq.read_table(path)
    names = table["clip_id"].to_numpy()
    with pq.ParquetWriter(path, table.schema) as writer:
        for name in sorted(set(names)):
            writer.write_table(table.filter(names == name))


def test_the_page_goes_with_a_clip_that_is_forgotten(workspace: Workspace, seal_whole: Seal) -> None:
    clips = seal_whole(workspace, clips=4)
    analyze.run(workspace, workspace.params({"annotation.crowd": 2}))
    assert clips[0].clip_id in workspace.annotations_page.read_text()
    gone = forget.run(workspace, workspace.params(), clips[0].clip_id, dry_run=True)
    assert ".cache/annotations.html" in gone.removed["files"]
