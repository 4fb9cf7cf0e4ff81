"""Reading a sealed batch: clip after clip, whatever way its rows lie in the table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from violence_ops.errors import WorkspaceError
from violence_ops.records import ClipRecord
from violence_ops.store import batches
from violence_ops.workspace import Workspace


@pytest.mark.parametrize("rows", [36, 72, 100, 10_000], ids=["half a clip", "a clip", "more than a clip", "all"])
def test_each_clip_has_its_own_tracks_however_the_row_groups_are_cut(
    new_workspace: Callable[..., Workspace], seal_tracks: Callable[..., list[ClipRecord]], rows: int
) -> None:
    workspace = new_workspace()
    clips = seal_tracks(workspace, clips=6)
    batch = workspace.batch(clips[0].batch_id)
    pq.write_table(pq.read_table(batch.table("tracks")), batch.table("tracks"), row_group_size=rows)
    wanted = [clips[4], clips[0], clips[4]]
    found = list(batches.tracks_by_clip(batch, wanted))
    assert [clip for clip, _ in found] == wanted
    for clip, tracks in found:
        alone = batches.read_tracks(batch, clip)
        assert len(tracks) == 72
        assert np.array_equal(tracks.keypoints, alone.keypoints)
        assert np.array_equal(tracks.track_id, alone.track_id)


@pytest.mark.parametrize("rows", [1, 36, 72, 100, 10_000])
@pytest.mark.parametrize("at_once", [1, 150, 16_384])
def test_a_whole_table_is_read_clip_by_clip_however_many_row_groups_at_once(
    new_workspace: Callable[..., Workspace],
    seal_tracks: Callable[..., list[ClipRecord]],
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
    at_once: int,
) -> None:
    workspace = new_workspace()
    clips = seal_tracks(workspace, clips=4)
    path = workspace.batch(clips[0].batch_id).table("tracks")
    whole = pq.read_table(path)
    pq.write_table(whole, path, row_group_size=rows)
    monkeypatch.setattr(batches, "_AT_ONCE", at_once)
    found = list(batches.rows_by_clip(path, ["frame", "keypoints"]))
    assert [clip_id for clip_id, _ in found] == sorted(clip.clip_id for clip in clips)
    assert pa.concat_tables([table for _, table in found]).equals(whole.select(["clip_id", "frame", "keypoints"]))
    assert all(table["clip_id"].unique().to_pylist() == [clip_id] for clip_id, table in found)


def test_a_clip_that_shows_nobody_has_no_tracks_and_a_damaged_table_is_named(
    new_workspace: Callable[..., Workspace], seal_tracks: Callable[..., list[ClipRecord]]
) -> None:
    workspace = new_workspace()
    clips = seal_tracks(workspace, clips=3)
    table = workspace.batch(clips[0].batch_id).table("tracks")
    batch = workspace.batch(clips[0].batch_id)
    pq.write_table(pq.read_table(table, filters=[("clip_id", "!=", clips[1].clip_id)]), table, row_group_size=72)
    assert [len(tracks) for _, tracks in batches.tracks_by_clip(batch, clips)] == [72, 0, 72]
    table.write_bytes(table.read_bytes()[:1000])
    with pytest.raises(WorkspaceError, match=r"tracks\.parquet is damaged"):
        list(batches.tracks_by_clip(batch, clips))


def test_of_many_clips_the_end_of_the_table_is_read_once(
    new_workspace: Callable[..., Workspace],
    seal_tracks: Callable[..., list[ClipRecord]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace = new_workspace()
    clips = seal_tracks(workspace, clips=6)
    opened: list[object] = []
    real = batches.open_table
    monkeypatch.setattr(batches, "open_table", lambda path: opened.append(path) or real(path))
    monkeypatch.setattr(batches, "load_table", lambda *_, **__: pytest.fail("a clip is looked for in the whole table"))
    assert len(list(batches.tracks_by_clip(workspace.batch(clips[0].batch_id), clips))) == 6
    assert len(opened) == 1
