"""The training set: never anything of the holdout, the same bytes for the same data, clear words when it cannot be made."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from violence_ops import git, versioning
from violence_ops.errors import ServiceUnavailable, UserError, WorkspaceError
from violence_ops.records import ClipRecord
from violence_ops.stages.learning import assemble
from violence_ops.stages.releasing import holdout
from violence_ops.store import tombstones
from violence_ops.store.labelled import labelled_clips
from violence_ops.store.labels_file import record
from violence_ops.workspace import Workspace

Seal = Callable[..., list[ClipRecord]]


def sides(workspace: Workspace) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    train, val = (pq.read_table(workspace.dataset / f"{name}.parquet").to_pylist() for name in ("train", "val"))
    return train, val


def test_no_source_group_is_on_two_sides(workspace: Workspace, seal_tracks: Seal) -> None:
    seal_tracks(workspace)
    frozen = holdout.ensure(workspace, workspace.params())
    assert frozen is not None
    result = assemble.run(workspace, workspace.params())
    train, val = sides(workspace)
    groups = [{row["source_group"] for row in side} for side in (train, val)]
    assert not groups[0] & groups[1]
    assert not set(frozen.groups) & (groups[0] | groups[1])
    assert (result.train, result.val, result.held_out) == (len(train), len(val), sum(frozen.clips.values()))
    assert result.train + result.val + result.held_out == 24
    for side in (train, val):
        assert {row["label"] for row in side} == {"Fight", "NonFight"}


def test_the_same_data_gives_the_same_bytes(workspace: Workspace, seal_tracks: Seal) -> None:
    seal_tracks(workspace)
    holdout.ensure(workspace, workspace.params())
    first = assemble.run(workspace, workspace.params())
    before = {path.name: path.read_bytes() for path in workspace.dataset.iterdir()}
    assert set(before) == {"train.parquet", "val.parquet", "skeletons.parquet", "split.json"}
    assert assemble.run(workspace, workspace.params()) == first
    assert {path.name: path.read_bytes() for path in workspace.dataset.iterdir()} == before
    assert json.loads(before["split.json"])["revision"] == first.revision


def test_what_only_an_earlier_version_wrote_into_the_dataset_goes(workspace: Workspace, seal_tracks: Seal) -> None:
    seal_tracks(workspace)
    first = assemble.run(workspace, workspace.params())
    (workspace.dataset / "pose_dataset.pkl").write_bytes(b"may hold a forgotten clip")
    assert assemble.run(workspace, workspace.params()) == first
    assert not (workspace.dataset / "pose_dataset.pkl").exists()


def test_new_clips_of_held_out_groups_and_near_duplicates_of_held_out_clips_stay_out(
    workspace: Workspace, seal_tracks: Seal
) -> None:
    seal_tracks(workspace)
    frozen = holdout.ensure(workspace, workspace.params())
    assert frozen is not None
    held = pq.read_table(workspace.holdout("v1") / "clips.parquet").to_pylist()
    before = assemble.run(workspace, workspace.params())
    four_bits_apart = f"{int(held[0]['perceptual_hash'], 16) ^ 0b1111:016x}"
    seal_tracks(workspace, clips=4, seed=1, perceptual_hash_of=four_bits_apart)
    seal_tracks(workspace, clips=4, seed=2, group_of=frozen.groups[0])
    after = assemble.run(workspace, workspace.params())
    assert after.revision == before.revision
    assert (after.held_out, after.near_duplicates) == (before.held_out + 4, 4)


def test_of_a_chain_of_near_duplicates_only_what_is_near_a_held_out_clip_stays_out(
    workspace: Workspace, seal_tracks: Seal
) -> None:
    params = workspace.params()
    seal_tracks(workspace)
    before = assemble.run(workspace, params)
    held = int(pq.read_table(workspace.holdout("v1") / "clips.parquet")["perceptual_hash"][0].as_py(), 16)
    for seed, apart in enumerate((0xF, 0xFF, 0xFFF), start=1):  # each link is 4 bits from the one before
        seal_tracks(workspace, clips=4, seed=seed, perceptual_hash_of=f"{held ^ apart:016x}")
    after = assemble.run(workspace, params)
    assert (after.held_out, after.near_duplicates) == (before.held_out, 4)
    assert after.train + after.val == before.train + before.val + 8
    (notice,) = after.notices
    assert notice.startswith("4 of 36 labelled clips are left out")
    assert "dataset.near_duplicate_bits (4)" in notice
    split = [{int(str(row["perceptual_hash"]), 16) for row in side} for side in sides(workspace)]
    frozen = {
        int(value, 16)
        for value in pq.read_table(workspace.holdout("v1") / "clips.parquet")["perceptual_hash"].to_pylist()
    }
    for one, others in ((frozen, split[0] | split[1]), (split[0], split[1])):
        assert min((a ^ b).bit_count() for a in one for b in others) > params.dataset.near_duplicate_bits
    assert (before.near_duplicates, before.notices) == (0, [])


def test_a_clip_like_a_later_one_of_a_held_out_group_stays_out_as_the_next_holdout_holds_that(
    workspace: Workspace, seal_tracks: Seal
) -> None:
    params = workspace.params()
    seal_tracks(workspace)
    before = assemble.run(workspace, params)
    (group, *_) = holdout.read(workspace, "v1").groups
    seal_tracks(workspace, clips=2, seed=1, group_of=group, perceptual_hash_of="0f" * 8)
    seal_tracks(workspace, clips=2, seed=2, perceptual_hash_of="0f" * 8)
    after = assemble.run(workspace, params)
    assert (after.revision, after.held_out, after.near_duplicates) == (before.revision, before.held_out + 2, 2)


def test_unlabelled_clips_wait_and_enter_once_a_label_arrives(workspace: Workspace, seal_tracks: Seal) -> None:
    records = seal_tracks(workspace, clips=50, labels=lambda i: ("NonFight", "Fight")[i % 2] if i < 48 else None)
    holdout.ensure(workspace, workspace.params())
    before = assemble.run(workspace, workspace.params())
    late = [record for record in records if record.label is None]
    record(workspace, {late[0].clip_id: "Fight"}, "reviewer")
    after = assemble.run(workspace, workspace.params())
    assert after.train + after.val == before.train + before.val + 1
    train, val = sides(workspace)
    (row,) = [row for row in train + val if row["clip_id"] == late[0].clip_id]
    assert (row["label"], row["label_source"]) == ("Fight", "review")


def test_a_forgotten_clip_stays_out_also_if_it_was_forgotten_after_it_was_read(
    workspace: Workspace, seal_tracks: Seal
) -> None:
    seal_tracks(workspace)
    before = assemble.run(workspace, workspace.params())
    first, second = (side[0]["clip_id"] for side in sides(workspace))
    tombstones.write(workspace, {"clip_id": first})

    def forget_second(_: str, done: int, total: int) -> None:
        if done == total:
            tombstones.write(workspace, {"clip_id": second})

    after = assemble.run(workspace, workspace.params(), progress=forget_second)
    train, val = sides(workspace)
    assert {first, second}.isdisjoint(row["clip_id"] for row in train + val)
    assert after.train + after.val == before.train + before.val - 2


def test_a_second_run_waits_for_the_first(workspace: Workspace, seal_tracks: Seal) -> None:
    seal_tracks(workspace)
    second: list[Future[assemble.AssembleResult]] = []
    with ThreadPoolExecutor(1) as pool:

        def start_second(*_: object) -> None:
            if not second:
                second.append(pool.submit(assemble.run, workspace, workspace.params()))
                assert wait(second, timeout=1).not_done

        first = assemble.run(workspace, workspace.params(), progress=start_second)
    assert second[0].result() == first


@pytest.mark.parametrize(
    ("labelled", "sentence"),
    [
        (lambda i: None, "No sealed batch holds a labelled clip"),
        (lambda i: "Fight", r"All clips to train on \(24\) are Fight: label clips of the other class too"),
        (lambda i: "Fight" if i in (0, 3) else "NonFight", "Only 2 Fight clips to train on, dataset.min_clips_per_label asks for 4"),
        (lambda i: "Fight" if i < 3 else "NonFight", "Only 3 Fight clips"),
    ],
    ids=["no-label", "one-class", "too-few", "too-few-in-one-group"],
)  # fmt: skip
def test_what_is_missing_is_said(
    workspace: Workspace, seal_tracks: Seal, labelled: Callable[[int], str | None], sentence: str
) -> None:
    seal_tracks(workspace, labels=labelled)
    with pytest.raises(UserError, match=sentence):
        assemble.run(workspace, workspace.params())
    assert not workspace.dataset.exists()


def test_a_label_in_one_source_group_cannot_be_split(workspace: Workspace, seal_tracks: Seal) -> None:
    seal_tracks(workspace, per_group=4, labels=lambda i: "Fight" if i < 4 else "NonFight")
    with pytest.raises(UserError, match="Fight clips cannot be on both sides of the split"):
        assemble.run(workspace, workspace.params({"holdout.auto_freeze": False}))


def test_no_holdout_is_frozen_that_leaves_no_dataset(workspace: Workspace, seal_tracks: Seal) -> None:
    seal_tracks(workspace, clips=4, per_group=2)
    with pytest.raises(UserError, match="clips cannot be on both sides of the split"):
        assemble.run(workspace, workspace.params({"dataset.min_clips_per_label": 1}))
    assert workspace.holdout_versions() == []


def test_sealed_batches_that_are_not_pulled_are_named_and_not_left_out(workspace: Workspace, seal_tracks: Seal) -> None:
    seal_tracks(workspace)
    params = workspace.params()
    before = assemble.run(workspace, params)
    away = [workspace.batch(seal_tracks(workspace, seed=seed)[0].batch_id) for seed in (1, 2)]
    for batch in away:
        versioning.add_batch(workspace, batch)
        shutil.rmtree(batch.sealed)
    names = ", ".join(batch.batch_id for batch in away)
    sentence = f"The data of sealed batch {names} is not pulled: run `violence-ops dvc pull` first."
    with pytest.raises(WorkspaceError, match=re.escape(sentence)):
        assemble.run(workspace, params)
    assert assemble.obstacle(workspace, params, labelled_clips(workspace)) == sentence
    assert json.loads((workspace.dataset / "split.json").read_text())["revision"] == before.revision


def test_all_groups_in_the_holdout_is_said(workspace: Workspace, seal_tracks: Seal) -> None:
    seal_tracks(workspace, clips=12)
    holdout.ensure(workspace, workspace.params())
    path = workspace.holdout("v1") / "clips.parquet"
    table = pq.read_table(path)
    held = set(table.column("source_group").to_pylist())
    for batch in workspace.sealed_batches():
        clips = pq.read_table(batch.table("clips"))
        keep = [row for row in clips.to_pylist() if row["source_group"] in held]
        batch.table("clips").unlink()
        pq.write_table(type(clips).from_pylist(keep, schema=clips.schema), batch.table("clips"))
    with pytest.raises(UserError, match=r"labelled clips \(\d+\) belong to source groups of the holdout"):
        assemble.run(workspace, workspace.params())


def test_the_first_dataset_freezes_a_holdout_and_leaves_it_out(workspace: Workspace, seal_tracks: Seal) -> None:
    seal_tracks(workspace)
    result = assemble.run(workspace, workspace.params())
    assert workspace.holdout_versions() == ["v1"]
    assert result.held_out == sum(holdout.read(workspace, "v1").clips.values()) > 0


def test_whoever_clones_the_repository_pulls_the_dataset(
    workspace: Workspace, seal_whole: Seal, tmp_path: Path
) -> None:
    versioning.init(workspace, remote_url=str(tmp_path / "remote"))
    for batch in {clip.batch_id for clip in seal_whole(workspace)}:
        versioning.add_batch(workspace, workspace.batch(batch))
    workspace.write_progress("seal", {})
    git.commit(workspace, [workspace.root / ".dvc" / "config"], "Another remote")
    assemble.run(workspace, workspace.params())
    content = {path.name: path.read_bytes() for path in workspace.dataset.iterdir()}
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(workspace.root), str(clone)], check=True)
    shutil.rmtree(workspace.root)  # the disk is lost
    subprocess.run([sys.executable, "-m", "dvc", "pull", "-q"], cwd=clone, check=True)
    assert {path.name: path.read_bytes() for path in (clone / "data" / "dataset").iterdir()} == content


def test_a_dataset_that_the_remote_did_not_take_is_sent_by_the_next_run(workspace: Workspace, seal_whole: Seal) -> None:
    seal_whole(workspace)
    workspace.write_progress("seal", {})
    holdout.ensure(workspace, workspace.params())
    aside = workspace.remote.rename(workspace.root / ".aside")
    workspace.remote.write_text("a file where the remote was")
    with pytest.raises(ServiceUnavailable, match="run this again"):
        assemble.run(workspace, workspace.params())
    assert versioning.status(workspace).get("assemble") is None
    workspace.remote.unlink()
    aside.rename(workspace.remote)
    assemble.run(workspace, workspace.params())
    assert not versioning.status(workspace).keys() & {"assemble"}
    with versioning.repository(workspace) as repo:
        assert repo.push(targets=[f"{workspace.dvc_file}:assemble"]) == 0
