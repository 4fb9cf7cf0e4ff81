"""Validation of a batch: one bad clip never fails it, and a second run does nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from violence_ops.errors import ServiceUnavailable, WorkspaceError
from violence_ops.stages.nightly import ingest, validate
from violence_ops.store import batches, quarantine
from violence_ops.store.index import open_catalog
from violence_ops.workspace import Workspace

NIGHT = date(2026, 1, 1)


def ingested(workspace: Workspace, *folders: Path) -> str:
    for folder in folders:
        shutil.copytree(folder, workspace.inbox / folder.name)
    (batch_id,) = ingest.run(workspace, workspace.params(), night=NIGHT).batch_ids
    return batch_id


def test_good_clips_are_accepted_and_bad_ones_are_in_quarantine_with_their_reason(
    workspace: Workspace, clip_folder: Path, broken_folder: Path
) -> None:
    batch_id = ingested(workspace, clip_folder, broken_folder)
    result = validate.run(workspace, workspace.params(), batch_id=batch_id)
    assert result.accepted == 6
    assert result.quarantined == {
        "bad_dimensions": 1, "decode_error": 1, "no_video_stream": 1, "too_short": 1, "truncated": 1, "unreadable": 3,
    }  # fmt: skip
    assert sum(result.quarantined.values()) == len(list(quarantine.entries(workspace)))
    marks = {path: path.stat().st_mtime_ns for path in workspace.batch(batch_id).open.rglob("*")}
    assert validate.run(workspace, workspace.params()) == result
    assert {path: path.stat().st_mtime_ns for path in workspace.batch(batch_id).open.rglob("*")} == marks


def test_a_file_that_changed_after_it_was_taken_in_is_refused(workspace: Workspace, clip_folder: Path) -> None:
    batch_id = ingested(workspace, clip_folder)
    video = next(workspace.batch(batch_id).videos.iterdir())
    with video.open("ab") as handle:
        handle.write(b"still writing")
    assert validate.run(workspace, workspace.params(), batch_id=batch_id).quarantined == {"truncated": 1}


def test_a_checkpoint_before_all_clips_are_judged_is_refused(workspace: Workspace, clip_folder: Path) -> None:
    batch_id = ingested(workspace, clip_folder)
    (shard,) = ingest.shards(workspace, workspace.params(), batch_id)
    validate.run(workspace, workspace.params(), batch_id=batch_id, clip_ids=shard[:2])
    with pytest.raises(WorkspaceError, match="4 clips"):
        validate.checkpoint(workspace, workspace.params(), batch_id=batch_id)


def test_the_checkpoint_tells_the_catalog_what_a_shard_has_judged_and_could_not_tell(
    workspace: Workspace, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = ingested(workspace, clip_folder)

    def lost(*_: object) -> None:
        raise ServiceUnavailable("The catalog does not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(validate, "record", lost)
        with pytest.raises(ServiceUnavailable):
            validate.run(workspace, workspace.params(), batch_id=batch_id)
    validate.checkpoint(workspace, workspace.params(), batch_id=batch_id)
    with open_catalog(workspace) as catalog:
        assert catalog.counts()["status"] == {"accepted": 6}


def test_limits_that_change_judge_accepted_clips_again(workspace: Workspace, clip_folder: Path) -> None:
    batch_id = ingested(workspace, clip_folder)
    validate.run(workspace, workspace.params(), batch_id=batch_id)
    result = validate.run(workspace, workspace.params({"validation.min_duration_s": 10.0}), batch_id=batch_id)
    assert (result.accepted, result.quarantined) == (0, {"too_short": 6})


@pytest.mark.slow
def test_near_duplicates_are_refused_when_asked_for(new_workspace: Callable[..., Workspace], clip_folder: Path) -> None:
    workspace = new_workspace(**{"validation.near_duplicate_bits": 4})
    again = workspace.inbox / "again.mp4"
    again.write_bytes((clip_folder / "clip0.mp4").read_bytes() + os.urandom(8))
    batch_id = ingested(workspace, clip_folder)
    validate.run(workspace, workspace.params(), batch_id=batch_id)
    validate.checkpoint(workspace, workspace.params(), batch_id=batch_id)
    refused = [clip.reason for clip in batches.read_clips(workspace.batch(batch_id)) if clip.status == "quarantined"]
    assert "near_duplicate" in refused
    with open_catalog(workspace) as catalog:
        assert catalog.counts()["reason"]["near_duplicate"] == len(refused)
