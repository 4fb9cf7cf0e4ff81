"""The champion judges the clips of open batches."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest

from violence_ops.errors import UserError, WorkspaceError
from violence_ops.files import folder_sha256, read_fingerprint, write_table
from violence_ops.folders import Batch
from violence_ops.records import CLIPS_SCHEMA, PREDICTIONS_SCHEMA, TRACKS_SCHEMA, ClipRecord
from violence_ops.registry import MODEL
from violence_ops.stages.learning import assemble, predict, train
from violence_ops.stages.nightly import score
from violence_ops.stages.releasing import rollback
from violence_ops.store import batches, releases
from violence_ops.store.models import load_version
from violence_ops.store.releases import open_registry
from violence_ops.workspace import Workspace

Seal = Callable[..., list[ClipRecord]]
Release = Callable[[Workspace, str], None]


def reopen(workspace: Workspace, records: list[ClipRecord]) -> Batch:
    """Turn a sealed batch into an open one whose clips are annotated."""
    batch = workspace.batch(records[0].batch_id)
    tracks = pq.read_table(batch.table("tracks"))
    names = np.array(tracks.column("clip_id").to_pylist())
    batches.write_manifest(batch, "2026-02-01", records)
    for record in records:
        rows = tracks.filter(pa.array(names == record.clip_id))
        write_table(batch.part("clips", record.clip_id), pa.Table.from_pylist([record.to_dict()], CLIPS_SCHEMA), "c")
        write_table(batch.part("tracks", record.clip_id), rows, f"tracks of {record.clip_id}")
    batch.sealed.rename(workspace.root / "elsewhere")
    return batch


def rows(batch: Batch, records: list[ClipRecord]) -> pa.Table:
    return pa.concat_tables([pq.read_table(batch.part("predictions", record.clip_id)) for record in records])


def test_without_a_champion_nothing_is_judged_and_it_says_so(workspace: Workspace, seal_tracks: Seal) -> None:
    records = seal_tracks(workspace, clips=4)
    batch = reopen(workspace, records)
    result = score.run(workspace, workspace.params(), batch_id=batch.batch_id)
    assert (result.champion, result.scored, result.skipped) == (None, 0, 0)
    assert result.lines() == ["There is no champion yet: no clip was judged."]
    found = rows(batch, records)
    assert found.schema.equals(PREDICTIONS_SCHEMA)
    assert len(found) == 0
    assert score.run(workspace, workspace.params(), batch_id=batch.batch_id).skipped == 4
    with pytest.raises(WorkspaceError, match="There is no champion to judge videos"):
        list(predict.run(workspace, workspace.params(), [workspace.params_file]))


def test_the_champion_judges_each_clip_once_and_again_when_it_or_the_tracks_change(
    small_workspace: Callable[..., Workspace], seal_tracks: Seal, release: Release
) -> None:
    workspace = small_workspace(**{"train.epochs": 4, "train.learning_rate": 0.03})
    params = workspace.params()
    seal_tracks(workspace)
    assemble.run(workspace, params)
    version = train.run(workspace, params).model_version
    release(workspace, version)

    records = seal_tracks(workspace, clips=6, seed=5)
    batch = reopen(workspace, records)
    first = score.run(workspace, params, batch_id=batch.batch_id, clip_ids=[r.clip_id for r in records[:2]])
    assert (first.champion, first.scored, first.skipped) == (version, 2, 0)
    rest = score.run(workspace, params)
    assert (rest.scored, rest.skipped) == (4, 2)
    found = rows(batch, records)
    assert found.column("clip_id").unique().to_pylist() == [record.clip_id for record in records]
    assert set(found.column("model_version").to_pylist()) == {version}
    assert first.fights + rest.fights == len(
        set(found.filter(pa.compute.equal(found.column("verdict"), "Fight")).column("clip_id").to_pylist())
    )

    changed = batch.part("tracks", records[0].clip_id)
    write_table(changed, TRACKS_SCHEMA.empty_table(), "other tracks")
    before = read_fingerprint(batch.part("predictions", records[0].clip_id))
    again = score.run(workspace, params)
    assert (again.scored, again.skipped) == (1, 5)
    assert read_fingerprint(batch.part("predictions", records[0].clip_id)) != before
    assert rows(batch, records[:1]).column("verdict").to_pylist() == ["NonFight"]


def test_a_workspace_that_was_moved_keeps_its_models(
    small_workspace: Callable[..., Workspace], seal_tracks: Seal, release: Release
) -> None:
    workspace = small_workspace(**{"train.epochs": 1})
    seal_tracks(workspace)
    assemble.run(workspace, workspace.params())
    first = train.run(workspace, workspace.params()).model_version
    release(workspace, first)
    records = seal_tracks(workspace, clips=6, seed=5)

    moved = Workspace.open(shutil.move(workspace.root, workspace.root.with_name("renamed")))
    batch = reopen(moved, records)
    assert score.run(moved, moved.params(), batch_id=batch.batch_id).scored == 6
    second = train.run(moved, moved.params()).model_version
    release(moved, second)
    assert score.run(moved, moved.params()).champion == second
    assert rollback.run(moved, by="ada", reason="r").version == first
    assert not workspace.root.exists(), "nothing is written to where it was"


@pytest.fixture
def two_champions(
    small_workspace: Callable[..., Workspace], seal_tracks: Seal
) -> tuple[Workspace, Batch, list[list[str]]]:
    """A workspace with versions 1 and 2 of one package, none of them champion, and an open batch with its two shards."""
    from mlflow.tracking import MlflowClient

    workspace = small_workspace(**{"train.epochs": 1})
    seal_tracks(workspace)
    assemble.run(workspace, workspace.params())
    train.run(workspace, workspace.params())
    package = open_registry(workspace).download("1", workspace.model_package("1"))
    MlflowClient(workspace.mlflow_uri, workspace.mlflow_uri).create_model_version(MODEL, source=package.as_uri())
    shutil.copytree(package, workspace.model_package("2"))
    records = seal_tracks(workspace, clips=6, seed=5)
    clip_ids = [record.clip_id for record in records]
    return workspace, reopen(workspace, records), [clip_ids[:3], clip_ids[3:]]


def test_a_champion_exchanged_behind_its_release_does_not_judge(
    two_champions: tuple[Workspace, Batch, list[list[str]]],
) -> None:
    workspace, _, _ = two_champions
    folder, registered = workspace.model_package("1"), load_version(workspace, "1").threshold
    (folder / "thresholds.json").write_text('{"threshold": 0.001}')
    assert load_version(workspace, "1").threshold == registered  # it has a tag: fetched again

    with workspace.lock("release"):  # version 2 has none, as one of before November 2026, but was released after it
        facts = {"package": folder_sha256(folder)}
        registry = releases.open_registry(workspace)
        releases.move(workspace, registry, event="promotion", actor="admin", to="2", expected=None, facts=facts)
    assert load_version(workspace, "2").threshold == registered
    (workspace.model_package("2") / "thresholds.json").write_text('{"threshold": 0.001}')
    with pytest.raises(UserError, match=r"Version 2 .* restore the store"):
        load_version(workspace, "2")


def judged_by(batch: Batch, champion: str | None) -> int:
    """How many clips have predictions of their tracks and this version."""
    return sum(
        read_fingerprint(batch.part("predictions", clip.clip_id)) == score.expected(batch, clip, champion)
        for clip in batches.accepted_clips(batch)
    )


def test_all_shards_have_one_champion_whatever_is_promoted_or_rolled_back_between_them(
    two_champions: tuple[Workspace, Batch, list[list[str]]], release: Release
) -> None:
    workspace, batch, shards = two_champions
    params = workspace.params()

    def judge(shard: list[str] | None) -> tuple[str | None, int]:
        result = score.run(workspace, params, batch_id=batch.batch_id, clip_ids=shard)
        return result.champion, result.scored

    assert judge(shards[0]) == (None, 0)
    release(workspace, "1")  # the first champion, in mid-night
    assert judge(shards[1]) == (None, 0)
    assert judged_by(batch, None) == 6
    assert judge(None) == ("1", 6)
    assert judged_by(batch, "1") == 6

    release(workspace, "2")
    score.unpin_champion(workspace, batch_id=batch.batch_id)  # the night is run again as a whole
    assert judge(shards[0]) == ("2", 3)
    rollback.run(workspace, by="ada", reason="false alarms in mid-night")
    assert judge(shards[1]) == ("2", 3)
    assert judged_by(batch, "2") == 6
    assert judge(None) == ("1", 6)


def test_a_champion_damaged_between_two_shards_stops_the_night_until_another_one_judges_all_of_it(
    two_champions: tuple[Workspace, Batch, list[list[str]]], release: Release
) -> None:
    workspace, batch, shards = two_champions
    params = workspace.params()
    release(workspace, "2")
    score.run(workspace, params, batch_id=batch.batch_id, clip_ids=shards[0])
    (workspace.model_package("2") / "config.json").write_text("{")
    release(workspace, "1")
    with pytest.raises(
        UserError, match=rf"version 2 is damaged: .* until `violence-ops score --batch {batch.batch_id}`"
    ):
        score.run(workspace, params, batch_id=batch.batch_id, clip_ids=shards[1])
    shutil.rmtree(workspace.model_package("2"))  # MLflow has not its files either
    with pytest.raises(UserError, match=f"violence-ops score --batch {batch.batch_id}"):
        score.run(workspace, params, batch_id=batch.batch_id, clip_ids=shards[1])
    assert score.run(workspace, params, batch_id=batch.batch_id).scored == 6
    assert judged_by(batch, "1") == 6
    assert score.run(workspace, params, batch_id=batch.batch_id, clip_ids=shards[1]).skipped == 3
