"""From clips to a sealed batch: validation, expectations, sealing, and what DVC and git know afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from violence_ops import git, versioning
from violence_ops.errors import ExpectationsFailed, ServiceUnavailable, WorkspaceError
from violence_ops.files import fingerprint, read_fingerprint, sha256_file, write_table
from violence_ops.records import CLIPS_SCHEMA, POSES_SCHEMA, PREDICTIONS_SCHEMA, TRACKS_SCHEMA
from violence_ops.stages.labelling import labels
from violence_ops.stages.nightly import ingest, score, seal, validate
from violence_ops.store import batches, parts, quarantine
from violence_ops.store.index import open_catalog
from violence_ops.workspace import Workspace

pytestmark = pytest.mark.slow  # Great Expectations alone takes longer to import than all else
NIGHT = date(2026, 1, 1)
STAGES = ["ingest", "validate", "extract-poses", "annotate", "score", "seal"]
Annotate = Callable[[Workspace, str], None]


def validated(workspace: Workspace, *folders: Path) -> str:
    for folder in folders:
        shutil.copytree(folder, workspace.inbox / folder.name)
    (batch_id,) = ingest.run(workspace, workspace.params(), night=NIGHT).batch_ids
    validate.run(workspace, workspace.params(), batch_id=batch_id)
    return batch_id


def validated_clip(workspace: Workspace, clip: Path) -> str:
    shutil.copy(clip, workspace.inbox)
    (batch_id,) = ingest.run(workspace, workspace.params(), night=NIGHT).batch_ids
    validate.run(workspace, workspace.params(), batch_id=batch_id)
    return batch_id


def missing_in_remote(workspace: Workspace) -> int:
    with versioning.repository(workspace) as repo:
        return int(repo.push())


def test_a_night_with_broken_files_is_sealed_versioned_and_leaves_nothing_to_redo(
    workspace: Workspace, clip_folder: Path, broken_folder: Path, write_annotations: Annotate
) -> None:
    params = workspace.params()
    batch_id = validated(workspace, clip_folder, broken_folder)
    batch = workspace.batch(batch_id)
    validate.checkpoint(workspace, params, batch_id=batch_id)
    write_annotations(workspace, batch_id)
    result = seal.run(workspace, params)
    assert (result.batch_ids, result.clips) == ([batch_id], 6)

    for name, schema in {
        "clips": CLIPS_SCHEMA,
        "poses": POSES_SCHEMA,
        "tracks": TRACKS_SCHEMA,
        "predictions": PREDICTIONS_SCHEMA,
    }.items():
        table = batch.table(name)
        assert pq.read_schema(table).equals(schema)
        described = json.loads(batch.manifest.read_text())["tables"][name]
        assert described == {"rows": pq.read_metadata(table).num_rows, "sha256": sha256_file(table)}
    clips = batches.read_clips(batch)
    assert [clip.clip_id for clip in clips] == sorted(clip.clip_id for clip in clips)
    assert {video.stem for video in batch.videos.iterdir()} == {
        clip.clip_id for clip in clips if clip.status == "accepted"
    }
    assert batches.read_tracks(batch, batches.accepted_clips(batch)[0]).track_id.max() == 2

    refused = {entry["source_path"].partition("/")[2]: entry for entry in quarantine.entries(workspace)}
    assert {name.removesuffix(".mp4").partition("-")[0] for name in refused} == {
        entry["reason"] for entry in refused.values()
    }
    for name, entry in refused.items():
        original = workspace.quarantined(entry["clip_id"]) / entry["original"]
        assert original.read_bytes() == (broken_folder / name).read_bytes()
        assert name in entry["message"]

    assert not batch.open.exists()
    with open_catalog(workspace) as catalog:
        assert catalog.batches("sealed") == [batch_id]
        assert catalog.counts()["status"] == {"accepted": 6, "quarantined": len(refused)}
    tags = subprocess.run(
        ["git", "-C", workspace.root, "tag"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert tags == [f"batch/{batch_id}"]
    versioning.commit_stage(workspace, STAGES, "Night")
    assert not versioning.status(workspace).keys() & {*STAGES, f"{batch_id}.dvc"}
    assert missing_in_remote(workspace) == 0
    assert not subprocess.run(
        ["git", "-C", workspace.root, "status", "--short"], capture_output=True, check=True
    ).stdout

    before = sorted(batch.sealed.rglob("*"))
    assert seal.run(workspace, params).batch_ids == []
    labels.run(workspace, batches.accepted_clips(batch)[0].clip_id, "NonFight", by="ann")  # a commit after the batch's
    again = seal.run(workspace, params, batch_id=batch_id)
    assert (again.batch_ids, again.revision) == ([batch_id], result.revision)
    assert sorted(batch.sealed.rglob("*")) == before
    (workspace.inbox / "new.mp4").write_bytes(b"new")
    assert "ingest" in versioning.status(workspace)


def test_hidden_files_in_the_inbox_stop_no_sealing(
    workspace: Workspace, clip_folder: Path, write_annotations: Annotate
) -> None:
    batch_id = validated(workspace, clip_folder)
    write_annotations(workspace, batch_id)
    (workspace.inbox / ".#labels.csv").symlink_to("ann@host.123:456")
    os.mkfifo(workspace.inbox / ".pipe")
    Path(os.fsdecode(os.fsencode(workspace.inbox) + b"/.\xff.mp4.Xy12")).write_bytes(b"an upload under way")
    command = [sys.executable, "-m", "violence_ops.cli", "seal", "--workspace", str(workspace.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=workspace.root)
    assert done.returncode == 0, done.stderr
    assert versioning.versioned_batches(workspace) == {batch_id}
    assert not versioning.status(workspace).keys() & {*STAGES, f"{batch_id}.dvc"}


def test_too_many_refused_clips_stop_the_batch_with_a_sentence_and_nothing_is_lost(
    workspace: Workspace, clip_folder: Path, broken_folder: Path
) -> None:
    batch_id = validated(workspace, clip_folder, broken_folder)
    before = sorted(workspace.batch(batch_id).open.rglob("*"))
    strict = workspace.params({"expectations.max_share_quarantined": 0.2})
    with pytest.raises(ExpectationsFailed) as failure:
        validate.checkpoint(workspace, strict, batch_id=batch_id)
    message = str(failure.value)
    assert "share of clips in quarantine: observed 0.5" in message
    assert "max value 0.2" in message
    assert str(workspace.data_docs) in message
    pages = "".join(page.read_text() for page in workspace.data_docs.parent.rglob("*.html"))
    assert "share of clips in quarantine" in pages
    assert "To disable this footer" not in pages
    assert "footer { display: none; }" in pages
    assert sorted(workspace.batch(batch_id).open.rglob("*")) == before


def test_tracks_that_cannot_be_stop_the_batch(
    workspace: Workspace, clip_folder: Path, write_annotations: Annotate
) -> None:
    batch_id = validated(workspace, clip_folder)
    batch = workspace.batch(batch_id)
    write_annotations(workspace, batch_id)
    part = batch.part("tracks", batches.accepted_clips(batch)[0].clip_id)
    table, mark = pq.read_table(part), read_fingerprint(part)
    write_table(part, table.take([0, 0, 1]), mark)
    with pytest.raises(ExpectationsFailed, match="a track is at most once in a frame: observed 1"):
        seal.run(workspace, workspace.params(), batch_id=batch_id)
    write_table(part, table.drop_columns(["rank"]), mark)
    with pytest.raises(ExpectationsFailed, match="poses and tracks have their columns"):
        seal.run(workspace, workspace.params(), batch_id=batch_id)
    assert not batch.is_sealed


def test_a_batch_without_poses_is_not_sealed(workspace: Workspace, clip_folder: Path) -> None:
    batch_id = validated(workspace, clip_folder)
    with pytest.raises(WorkspaceError, match="extract-poses"):
        seal.run(workspace, workspace.params(), batch_id=batch_id)


def test_a_damaged_file_of_another_open_batch_keeps_no_batch_from_being_sealed(
    workspace: Workspace, clip_folder: Path, write_annotations: Annotate
) -> None:
    damaged, sound = (
        workspace.batch(validated_clip(workspace, clip_folder / f"clip{number}.mp4")) for number in (0, 1)
    )
    for batch in (damaged, sound):
        write_annotations(workspace, batch.batch_id)
    next((damaged.open / "clips").iterdir()).write_bytes(b"")
    validate.run(workspace, workspace.params(), batch_id=sound.batch_id)
    assert seal.run(workspace, workspace.params(), batch_id=sound.batch_id).batch_ids == [sound.batch_id]
    with pytest.raises(WorkspaceError, match=r"\.parquet is damaged"):
        seal.run(workspace, workspace.params(), batch_id=damaged.batch_id)


def test_what_was_recorded_of_other_open_batches_stays_while_they_are_open(
    workspace: Workspace, clip_folder: Path, write_annotations: Annotate
) -> None:
    first, second = (workspace.batch(validated_clip(workspace, clip_folder / f"clip{number}.mp4")) for number in (0, 1))
    for batch in (first, second):
        write_annotations(workspace, batch.batch_id)
    assert list(workspace.read_progress("validate")) == sorted([first.batch_id, second.batch_id])
    parts.record_progress(workspace, "annotate", batch_id=second.batch_id)
    assert list(workspace.read_progress("annotate")) == [second.batch_id]
    parts.record_progress(workspace, "annotate", batch_id=first.batch_id)
    one_by_one = workspace.read_progress("annotate")
    parts.record_progress(workspace, "annotate")
    assert workspace.read_progress("annotate") == one_by_one


def test_a_batch_that_nobody_scored_is_not_sealed(
    workspace: Workspace, clip_folder: Path, write_annotations: Annotate
) -> None:
    batch = workspace.batch(validated(workspace, clip_folder))
    write_annotations(workspace, batch.batch_id)
    batch.part("predictions", batches.accepted_clips(batch)[-1].clip_id).unlink()
    with pytest.raises(WorkspaceError, match=r"no predictions yet: run `violence-ops score`"):
        seal.run(workspace, workspace.params())
    assert not batch.is_sealed


def test_a_batch_with_a_clip_whose_bytes_were_changed_waits_for_the_file_that_came_or_for_its_removal(
    workspace: Workspace, clip_folder: Path, write_annotations: Annotate
) -> None:
    batch = workspace.batch(validated(workspace, clip_folder))
    write_annotations(workspace, batch.batch_id)
    changed, *rest = batches.accepted_clips(batch)
    video = batches.video_of(batch, changed)
    came = video.read_bytes()
    video.write_bytes(batches.video_of(batch, rest[0]).read_bytes())
    with pytest.raises(
        WorkspaceError, match=f"changed after it was validated .*`violence-ops forget {changed.clip_id} --by NAME"
    ):
        seal.run(workspace, workspace.params())
    assert not batch.is_sealed
    assert list(quarantine.entries(workspace)) == []
    video.write_bytes(came)
    assert seal.run(workspace, workspace.params()).clips == len(rest) + 1


@pytest.mark.parametrize(
    ("change", "verb"), [({"pose.score_threshold": 0.4}, "extract-poses"), ({"tracking.min_hits": 4}, "annotate")]
)
def test_poses_and_tracks_of_other_parameters_than_those_recorded_are_not_sealed(
    workspace: Workspace, clip_folder: Path, write_annotations: Annotate, change: dict[str, float], verb: str
) -> None:
    batch_id = validated(workspace, clip_folder)
    write_annotations(workspace, batch_id)
    first = batches.accepted_clips(workspace.batch(batch_id))[0].clip_id
    with pytest.raises(
        WorkspaceError, match=f"Clip {first} .* of other weights or parameters: run `violence-ops {verb}`"
    ):
        seal.run(workspace, workspace.params(change), batch_id=batch_id)
    assert not workspace.batch(batch_id).is_sealed


@pytest.mark.parametrize("changed", ["champion", "tracks"])
def test_predictions_of_two_champions_or_of_other_tracks_are_not_sealed_until_they_are_made_again(
    workspace: Workspace, clip_folder: Path, write_annotations: Annotate, changed: str
) -> None:
    batch, params = workspace.batch(validated(workspace, clip_folder)), workspace.params()
    write_annotations(workspace, batch.batch_id)
    clip = batches.accepted_clips(batch)[-1]
    marks = {"champion": score.expected(batch, clip, "1"), "tracks": fingerprint("tracks of other parameters", None)}
    write_table(batch.part("predictions", clip.clip_id), PREDICTIONS_SCHEMA.empty_table(), marks[changed])
    sentence = f"Clip {clip.clip_id} .* predictions of other tracks or another champion: run `violence-ops score`"
    with pytest.raises(WorkspaceError, match=sentence):
        seal.run(workspace, params)
    assert not batch.is_sealed
    assert score.run(workspace, params).skipped == 5
    assert seal.run(workspace, params).batch_ids == [batch.batch_id]


def test_a_remote_that_is_gone_refuses_and_a_second_run_sends_the_batch(
    workspace: Workspace, clip_folder: Path, write_annotations: Annotate
) -> None:
    batch_id = validated(workspace, clip_folder)
    write_annotations(workspace, batch_id)
    shutil.rmtree(workspace.remote)
    workspace.remote.write_text("a file where the remote was")
    with pytest.raises(ServiceUnavailable):
        seal.run(workspace, workspace.params())
    workspace.remote.unlink()
    workspace.remote.mkdir()
    assert seal.run(workspace, workspace.params()).batch_ids == [batch_id]
    assert missing_in_remote(workspace) == 0
    assert versioning.versioned_batches(workspace) == {batch_id}


def test_a_batch_that_is_sealed_beside_an_open_one_leaves_nothing_that_git_does_not_have(
    workspace: Workspace, clip_folder: Path
) -> None:
    (workspace.inbox / "junk.mp4").write_bytes(b"no video")
    (batch_id,) = ingest.run(workspace, workspace.params(), night=NIGHT).batch_ids
    validate.run(workspace, workspace.params(), batch_id=batch_id)
    shutil.copy(clip_folder / "clip0.mp4", workspace.inbox)
    (stuck,) = ingest.run(workspace, workspace.params(), night=NIGHT).batch_ids
    seal.run(workspace, workspace.params(), batch_id=batch_id)
    assert batches.open_batch_ids(workspace) == [stuck]
    assert git.run(workspace, "status", "--short") == ""


def test_shards_in_any_order_give_the_same_batch(
    new_workspace: Callable[..., Workspace], clip_folder: Path, broken_folder: Path, write_annotations: Annotate
) -> None:
    sealed: list[dict[str, Any]] = []
    for name, size, backwards in (("one", 100, False), ("many", 2, True)):
        workspace = new_workspace(name, **{"ingest.shard_size": size})
        for folder in (clip_folder, broken_folder):
            shutil.copytree(folder, workspace.inbox / folder.name)
        params = workspace.params()
        (batch_id,) = ingest.run(workspace, params, night=NIGHT).batch_ids
        shards = ingest.shards(workspace, params, batch_id)
        for shard in reversed(shards) if backwards else shards:
            validate.run(workspace, params, batch_id=batch_id, clip_ids=shard)
        write_annotations(workspace, batch_id)
        seal.run(workspace, params)
        sealed.append(
            {
                path.name: path.read_bytes()
                for path in workspace.batch(batch_id).sealed.rglob("*.*")
                if path.name != "batch.json"
            }
            | {stage: workspace.read_progress(stage) for stage in parts.STAGES}
        )
        assert sealed[-1]["score"][batch_id]["clips"] == 6
    assert sealed[0] == sealed[1]
