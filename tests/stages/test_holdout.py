"""Freezing the clips that models are judged on."""

from __future__ import annotations

import json
from collections.abc import Callable

import pyarrow.parquet as pq
import pytest

from violence_ops import versioning
from violence_ops.errors import UsageError, UserError
from violence_ops.records import LABELS, ClipRecord
from violence_ops.stages import holdout
from violence_ops.workspace import Workspace, sha256_file

Seal = Callable[..., list[ClipRecord]]


def test_a_holdout_holds_whole_groups_of_both_labels_with_their_tracks_and_is_versioned(
    workspace: Workspace, seal_tracks: Seal
) -> None:
    records = {record.clip_id: record for record in seal_tracks(workspace)}
    found = holdout.freeze(workspace, workspace.params())
    assert found.version == "v1"
    folder = workspace.holdout("v1")
    clips = pq.read_table(folder / "clips.parquet").to_pylist()
    assert {row["label"] for row in clips} == set(LABELS)
    assert {row["clip_id"] for row in clips} == {r.clip_id for r in records.values() if r.source_group in found.groups}
    tracks = pq.read_table(folder / "tracks.parquet")
    assert set(tracks.column("clip_id").to_pylist()) == {row["clip_id"] for row in clips}
    content = json.loads((folder / "holdout.json").read_text())
    assert content["sha256"] == {name: sha256_file(folder / name) for name in ("clips.parquet", "tracks.parquet")}
    assert content["rows"] == {"clips.parquet": len(clips), "tracks.parquet": len(tracks)}
    assert (workspace.holdouts / "v1.dvc").is_file()
    assert not any("v1" in name for name in versioning.status(workspace))


def test_the_same_clips_and_seed_freeze_the_same_bytes_whatever_the_version_is_called(
    workspace: Workspace, seal_tracks: Seal
) -> None:
    seal_tracks(workspace)
    first = holdout.freeze(workspace, workspace.params())
    second = holdout.freeze(workspace, workspace.params(), version="again")
    assert (first.revision, first.groups) == (second.revision, second.groups)
    third = holdout.freeze(workspace, workspace.params({"holdout.seed": 12345}), share=0.5, version="other")
    assert third.revision != first.revision


def test_a_frozen_version_is_never_changed(workspace: Workspace, seal_tracks: Seal) -> None:
    seal_tracks(workspace)
    holdout.freeze(workspace, workspace.params(), version="mine")
    with pytest.raises(UsageError, match="Holdout mine exists and is never changed"):
        holdout.freeze(workspace, workspace.params(), version="mine")
    with pytest.raises(UsageError, match="is not a holdout version"):
        holdout.freeze(workspace, workspace.params(), version="../mine")
    with pytest.raises(UsageError, match="between 0 and 1"):
        holdout.freeze(workspace, workspace.params(), share=1.0)


def test_a_label_in_one_source_group_only_cannot_be_held_out(workspace: Workspace, seal_tracks: Seal) -> None:
    seal_tracks(workspace, clips=12, labels=lambda i: "Fight" if i < 3 else "NonFight")
    with pytest.raises(
        UserError, match=r"of 3 labelled Fight clips .* 0 would be held out.*at least two source groups"
    ):
        holdout.freeze(workspace, workspace.params())
    assert workspace.holdout_versions() == []


def test_nothing_labelled_is_refused(workspace: Workspace) -> None:
    with pytest.raises(UserError, match="No holdout can be frozen"):
        holdout.freeze(workspace, workspace.params())


def test_ensure_freezes_once_and_only_if_it_may(workspace: Workspace, seal_tracks: Seal) -> None:
    seal_tracks(workspace)
    assert holdout.ensure(workspace, workspace.params({"holdout.auto_freeze": False})) is None
    first = holdout.ensure(workspace, workspace.params())
    seal_tracks(workspace, seed=1)
    assert holdout.ensure(workspace, workspace.params()) == first
    assert workspace.holdout_versions() == ["v1"]


def test_a_freeze_that_was_cut_off_before_versioning_is_completed(
    workspace: Workspace, seal_tracks: Seal, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal_tracks(workspace)

    def cut_off(*arguments: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(versioning, "add_artifact", cut_off)
        with pytest.raises(KeyboardInterrupt):
            holdout.freeze(workspace, workspace.params())
    assert not (workspace.holdouts / "v1.dvc").exists()
    found = holdout.ensure(workspace, workspace.params())
    assert found is not None
    assert found.version == "v1"
    assert (workspace.holdouts / "v1.dvc").is_file()
