"""Freezing the clips that models are judged on."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from violence_ops import versioning
from violence_ops.cli.program import app
from violence_ops.errors import ServiceUnavailable, UsageError, UserError, WorkspaceError
from violence_ops.files import sha256_file, write_json
from violence_ops.records import CLIPS_SCHEMA, LABELS, ClipRecord
from violence_ops.stages.learning import assemble
from violence_ops.stages.releasing import holdout, holdout_show
from violence_ops.stages.upkeep import init, status
from violence_ops.store import labels_file
from violence_ops.store.labelled import labelled_clips
from violence_ops.workspace import Workspace

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
    new_workspace: Callable[..., Workspace], seal_tracks: Seal
) -> None:
    def frozen(name: str, version: str, share: float | None = None, **changed: object) -> holdout.HoldoutResult:
        workspace = new_workspace(name)
        seal_tracks(workspace)
        return holdout.freeze(workspace, workspace.params(changed), share=share, version=version)

    first, second = frozen("a", "v1"), frozen("b", "again")
    assert (first.revision, first.groups) == (second.revision, second.groups)
    third = frozen("c", "other", 0.5, **{"holdout.seed": 12345})
    assert third.revision != first.revision


def test_a_further_holdout_keeps_the_earlier_groups_and_takes_none_that_was_trained_on(
    workspace: Workspace, seal_tracks: Seal
) -> None:
    seal_tracks(workspace)
    first = holdout.freeze(workspace, workspace.params())
    assert workspace.read_progress("holdout") == {"versions": {"v1": first.revision}}
    assemble.run(workspace, workspace.params())
    with pytest.raises(UserError, match="No further holdout can be frozen"):
        holdout.freeze(workspace, workspace.params())
    seal_tracks(workspace, seed=1)
    second = holdout.freeze(workspace, workspace.params())
    assert set(first.groups) < set(second.groups)
    assert all(group.startswith("s1") for group in set(second.groups) - set(first.groups))
    assert versioning.status(workspace)["assemble"]


def test_a_corrected_label_freezes_the_same_groups_anew_and_once(workspace: Workspace, seal_tracks: Seal) -> None:
    seal_tracks(workspace)
    first = holdout.freeze(workspace, workspace.params())
    assemble.run(workspace, workspace.params())
    corrected = next(clip for clip in holdout.held_out(workspace) if clip.label == "Fight")
    labels_file.record(workspace, {corrected.clip_id: "NonFight"}, "ada")
    second = holdout.freeze(workspace, workspace.params())
    assert (second.version, second.groups) == ("v2", first.groups)
    assert second.clips == {"Fight": first.clips["Fight"] - 1, "NonFight": first.clips["NonFight"] + 1}
    assert workspace.read_progress("holdout") == {"versions": {"v1": first.revision, "v2": second.revision}}
    with pytest.raises(UserError, match="labels have not changed, and too few source groups are unused"):
        holdout.freeze(workspace, workspace.params())
    assert workspace.holdout_versions() == ["v1", "v2"]


def test_show_says_what_a_holdout_holds_and_lacks_and_whether_it_is_stale(
    workspace: Workspace, seal_tracks: Seal
) -> None:
    def shown(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["holdout", "show", *arguments, "--workspace", str(workspace.root)])
        assert done.exit_code == 0, done.output
        return done.stdout

    params = workspace.params()
    with pytest.raises(WorkspaceError, match="There is no holdout yet"):
        holdout_show.run(workspace, params)
    seal_tracks(workspace)
    first = holdout.freeze(workspace, params)
    found = json.loads(shown("--json"))
    assert (found["version"], found["revision"], found["groups"]) == ("v1", first.revision, list(first.groups))
    assert abs(datetime.now(UTC) - datetime.fromisoformat(found["frozen_at"])) < timedelta(hours=1)
    assert (first.clips, len(first.groups)) == ({"Fight": 3, "NonFight": 3}, 2)
    assert found["lacks"] == {"Fight": 5, "NonFight": 5, "groups": 3}
    assert "\nclips     3 Fight and 3 NonFight of 2 source groups in 1 batch\n" in shown()
    assert "it lacks 5 NonFight clips, 5 Fight clips, 3 source groups: bring labelled clips of new source" in shown()
    assert shown().endswith("\nstale     no\n")

    corrected = next(clip for clip in holdout.held_out(workspace) if clip.label == "Fight")
    labels_file.record(workspace, {corrected.clip_id: "NonFight"}, "ada")
    assert "\nstale     1 clip has another label by now: freeze another" in shown()
    holdout.freeze(workspace, params)
    assert "\nversions  v1, v2\n" in shown()
    assert shown().endswith("\nstale     no\n")
    assert "\nstale     v2 is newer; 1 clip has another label by now" in shown("v1")
    with pytest.raises(UsageError, match="There is no holdout v3"):
        holdout_show.run(workspace, params, "v3")


def test_a_new_clip_of_a_held_out_group_comes_with_the_next_version(workspace: Workspace, seal_tracks: Seal) -> None:
    seal_tracks(workspace)
    first = holdout.freeze(workspace, workspace.params())
    assemble.run(workspace, workspace.params())
    seal_tracks(workspace, clips=2, seed=1, group_of=first.groups[0])
    second = holdout.freeze(workspace, workspace.params())
    assert second.groups == first.groups
    assert sum(second.clips.values()) == sum(first.clips.values()) + 2


def test_a_holdout_that_is_not_pulled_is_named_and_never_overlooked(workspace: Workspace, seal_tracks: Seal) -> None:
    seal_tracks(workspace)
    params = workspace.params()
    holdout.freeze(workspace, params)
    seal_tracks(workspace, seed=1)
    shutil.rmtree(workspace.holdout("v1"))
    sentence = r"^The data of holdout v1 is not pulled: run `violence-ops dvc pull` first\.$"
    for act in (
        lambda: assemble.run(workspace, params),
        lambda: assemble.run(workspace, workspace.params({"holdout.auto_freeze": False})),
        lambda: holdout.ensure(workspace, params),
        lambda: holdout.freeze(workspace, params),
        lambda: holdout.freeze(workspace, params, version="v1"),
        lambda: status.run(workspace),
    ):
        with pytest.raises(WorkspaceError, match=sentence):
            act()
    assert re.match(sentence, assemble.obstacle(workspace, params, labelled_clips(workspace)) or "")
    assert not workspace.dataset.exists()
    assert init.run(workspace.root).created is False
    assert [path.name for path in workspace.holdouts.iterdir()] == ["v1.dvc"]
    subprocess.run(
        [sys.executable, "-m", "dvc", "checkout", "-q", "data/holdout/v1.dvc"], cwd=workspace.root, check=True
    )
    assert assemble.run(workspace, params).held_out > 0


def test_no_holdout_is_frozen_of_a_part_of_the_batches(workspace: Workspace, seal_tracks: Seal) -> None:
    seal_tracks(workspace)
    away = workspace.batch(seal_tracks(workspace, seed=1)[0].batch_id)
    versioning.add_batch(workspace, away)
    shutil.rmtree(away.sealed)
    with pytest.raises(WorkspaceError, match=f"The data of sealed batch {away.batch_id} is not pulled"):
        holdout.freeze(workspace, workspace.params())
    assert workspace.holdout_versions() == []


def test_groups_of_any_registered_model_stay_out_of_a_further_holdout(
    released: Workspace, seal_tracks: Seal, trained: Callable[..., None]
) -> None:
    records = seal_tracks(released)
    trained(released, "2", records[:6])
    frozen = holdout.freeze(released, released.params())
    assert not {record.source_group for record in records[:6]} & set(frozen.groups)
    # the others' packages were not copied here to ask them
    assert list(released.model_package("2").parent.iterdir()) == [released.model_package("2")]


def test_a_frozen_version_is_never_changed(workspace: Workspace, seal_tracks: Seal) -> None:
    seal_tracks(workspace)
    holdout.freeze(workspace, workspace.params(), version="mine")
    with pytest.raises(UsageError, match="Holdout mine exists and is never changed"):
        holdout.freeze(workspace, workspace.params(), version="mine")
    with pytest.raises(UsageError, match="is not a holdout version"):
        holdout.freeze(workspace, workspace.params(), version="../mine")
    with pytest.raises(UsageError, match="between 0 and 1"):
        holdout.freeze(workspace, workspace.params(), share=1.0)


@pytest.mark.parametrize(
    "damage",
    [
        {"sha256": {}}, {"sha256": "x"}, {"sha256": ["x"]}, {"sha256": None}, {"sha256": {"clips.parquet": 7, "tracks.parquet": "x"}},
        {"revision": ["x"]}, {"revision": "ab" * 16}, {"batches": 7}, {"clips": "x"}, {"groups": None}, {"replaces": 7},
    ],
    ids=str,
)  # fmt: skip
def test_facts_of_the_wrong_kind_are_one_sentence(
    workspace: Workspace, seal_tracks: Seal, damage: dict[str, object]
) -> None:
    records = seal_tracks(workspace)
    clips = pa.Table.from_pylist([record.to_dict() for record in records], CLIPS_SCHEMA)
    folder = workspace.holdout("v1")
    holdout.write_frozen(folder, "v1", clips, CLIPS_SCHEMA.empty_table(), {})
    revision = holdout.read(workspace, "v1").revision
    assert revision[:16] == sha256_file(folder / "clips.parquet")[:16]
    content = json.loads((folder / "holdout.json").read_text())
    write_json(folder / "holdout.json", content | damage)
    with pytest.raises(
        WorkspaceError, match=r"holdout\.json is damaged \(.*\): restore it with `violence-ops dvc checkout .*v1\.dvc`"
    ):
        holdout.read(workspace, "v1")


def test_a_name_that_would_count_as_older_than_the_newest_is_refused(workspace: Workspace, seal_tracks: Seal) -> None:
    seal_tracks(workspace)
    holdout.freeze(workspace, workspace.params(), version="v2")
    with pytest.raises(UsageError, match="2026-q1 would count as older than v2"):
        holdout.freeze(workspace, workspace.params(), version="2026-q1")
    assert workspace.holdout_versions() == ["v2"]


def test_a_label_in_one_source_group_only_cannot_be_held_out(workspace: Workspace, seal_tracks: Seal) -> None:
    seal_tracks(workspace, clips=12, labels=lambda i: "Fight" if i < 3 else "NonFight")
    with pytest.raises(
        UserError, match=r"of 3 labelled Fight clips .* 0 would be held out.*at least two source groups"
    ):
        holdout.freeze(workspace, workspace.params())
    assert workspace.holdout_versions() == []


def test_nothing_labelled_is_refused(workspace: Workspace) -> None:
    with pytest.raises(UserError, match="No holdout can be frozen: no clip in a sealed batch is labelled NonFight"):
        holdout.freeze(workspace, workspace.params())


def test_ensure_freezes_once_and_only_if_it_may(workspace: Workspace, seal_tracks: Seal) -> None:
    seal_tracks(workspace, clips=48)
    assert holdout.ensure(workspace, workspace.params({"holdout.auto_freeze": False})) is None
    first = holdout.ensure(workspace, workspace.params())
    seal_tracks(workspace, seed=1)
    assert holdout.ensure(workspace, workspace.params()) == first
    assert workspace.holdout_versions() == ["v1"]


def support(found: holdout.HoldoutResult | None) -> tuple[int, int]:
    """Clips of the rarer label, and source groups."""
    assert found is not None
    return min(found.clips.get(label, 0) for label in LABELS), len(found.groups)


def trained_groups(workspace: Workspace) -> set[str]:
    tables = (pq.read_table(workspace.dataset / f"{name}.parquet") for name in ("train", "val"))
    return {group for table in tables for group in table.column("source_group").to_pylist()}


def test_forty_clips_are_enough_for_a_holdout_that_the_gate_can_use_and_a_larger_training_set(
    workspace: Workspace, seal_tracks: Seal
) -> None:
    seal_tracks(workspace, clips=40)
    result = assemble.run(workspace, workspace.params())
    found = holdout.ensure(workspace, workspace.params())
    clips, groups = support(found)
    assert clips >= 8
    assert groups >= 5
    assert result.train + result.val >= result.held_out
    assert workspace.holdout_versions() == ["v1"]
    assert holdout_show.run(workspace, workspace.params()).lacks == {}


def test_a_holdout_that_is_too_small_for_the_gate_grows_night_by_night_by_groups_that_nothing_was_trained_on(
    workspace: Workspace, seal_tracks: Seal
) -> None:
    params = workspace.params()
    seal_tracks(workspace, clips=20, per_group=2)
    assemble.run(workspace, params)
    assert support(holdout.read(workspace, "v1")) < (8, 5)
    ever_trained = trained_groups(workspace)
    for night in range(1, 9):  # a Fight group and a NonFight group each: no share of them could be held out
        seal_tracks(workspace, clips=4, per_group=2, seed=night, labels=lambda i: LABELS[i // 2])
        assert assemble.obstacle(workspace, params, labelled_clips(workspace)) is None
        assemble.run(workspace, params)
        newest = holdout.read(workspace, workspace.holdout_versions()[-1])
        assert not ever_trained & set(newest.groups)
        ever_trained |= trained_groups(workspace)
        assert not ever_trained & set(newest.groups)
    versions = workspace.holdout_versions()
    enough = [support(holdout.read(workspace, name)) >= (8, 5) for name in versions]
    assert enough == [False] * (len(versions) - 1) + [True]
    assert all(versioning.is_tagged(workspace, f"holdout/{name}") for name in versions)


def test_a_clip_that_came_to_a_held_group_later_stays_out_if_it_looks_like_one_that_was_trained_on(
    workspace: Workspace, seal_tracks: Seal
) -> None:
    records = seal_tracks(workspace, clips=20, per_group=2)
    assemble.run(workspace, workspace.params())
    group, *_ = holdout.read(workspace, "v1").groups
    trained = next(record for record in records if record.source_group in trained_groups(workspace))
    alike, other = (
        seal_tracks(workspace, clips=1, seed=seed, group_of=group, perceptual_hash_of=picture)[0].clip_id
        for seed, picture in ((1, trained.perceptual_hash), (2, None))
    )
    newest = holdout.freeze(workspace, workspace.params()).version
    frozen = {clip.clip_id for clip in holdout.open_frozen(workspace, newest)[1]}
    assert other in frozen
    assert alike not in frozen


def test_a_holdout_that_is_too_small_is_left_alone_where_people_freeze_or_named_it_to_sort_last(
    workspace: Workspace, seal_tracks: Seal
) -> None:
    seal_tracks(workspace, clips=12, per_group=1)
    holdout.freeze(workspace, workspace.params(), version="z")
    assemble.run(workspace, workspace.params())
    seal_tracks(workspace, clips=40, seed=1)
    for automatic in (False, True):
        assemble.run(workspace, workspace.params({"holdout.auto_freeze": automatic}))
    assert workspace.holdout_versions() == ["z"]


def test_a_freeze_that_was_cut_off_before_versioning_is_completed(
    workspace: Workspace, seal_tracks: Seal, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal_tracks(workspace)

    def cut_off(*arguments: object, **options: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(versioning, "add_and_push", cut_off)
        with pytest.raises(KeyboardInterrupt):
            holdout.freeze(workspace, workspace.params())
    assert not (workspace.holdouts / "v1.dvc").exists()
    found = holdout.ensure(workspace, workspace.params())
    assert found is not None
    assert found.version == "v1"
    assert (workspace.holdouts / "v1.dvc").is_file()


def test_a_holdout_that_the_remote_did_not_take_is_sent_by_the_next_run(
    workspace: Workspace, seal_tracks: Seal
) -> None:
    seal_tracks(workspace)
    aside = workspace.remote.rename(workspace.root / ".aside")
    workspace.remote.write_text("a file where the remote was")
    with pytest.raises(ServiceUnavailable, match="run this again"):
        holdout.ensure(workspace, workspace.params())
    workspace.remote.unlink()
    aside.rename(workspace.remote)
    holdout.ensure(workspace, workspace.params())
    with versioning.repository(workspace) as repo:
        assert repo.push(targets=[str(workspace.holdouts / "v1.dvc")]) == 0
    assert versioning.is_tagged(workspace, "holdout/v1")


def test_a_holdout_is_as_open_as_the_umask_allows(workspace: Workspace, seal_tracks: Seal) -> None:
    seal_tracks(workspace)
    before = os.umask(0o027)
    try:
        holdout.freeze(workspace, workspace.params())
    finally:
        os.umask(before)
    assert workspace.holdout("v1").stat().st_mode & 0o777 == 0o750
