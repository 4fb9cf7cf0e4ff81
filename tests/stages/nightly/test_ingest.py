"""Ingestion: what becomes of every file of the inbox."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from violence_ops import git
from violence_ops.catalog import Catalog
from violence_ops.cli.program import app
from violence_ops.errors import ServiceUnavailable
from violence_ops.params import load_params
from violence_ops.stages.inspection import explain
from violence_ops.stages.labelling import labels
from violence_ops.stages.nightly import ingest, intake
from violence_ops.stages.upkeep import status
from violence_ops.store import batches, quarantine
from violence_ops.store.index import open_catalog, rebuild
from violence_ops.store.labels import effective_labels
from violence_ops.workspace import Workspace

NIGHT = date(2026, 1, 1)
SHIPPED = Path(__file__).parents[3] / "params.yaml"


def take_in(workspace: Workspace, night: date = NIGHT) -> ingest.IngestResult:
    return ingest.run(workspace, workspace.params(), night=night)


def clips_of(workspace: Workspace, batch_id: str) -> dict[str, object]:
    return {clip.source_path: clip for clip in batches.read_manifest(workspace.batch(batch_id)).clips}


def test_an_empty_inbox_makes_no_batch(workspace: Workspace) -> None:
    assert take_in(workspace).batch_ids == []


def test_labels_come_from_the_folder_or_from_labels_csv_which_wins(workspace: Workspace) -> None:
    inbox = workspace.inbox
    for folder, name in (("fight", "a"), ("NonFight", "b"), ("camera1", "c"), ("Fight", "d"), (".", "e")):
        (inbox / folder).mkdir(exist_ok=True)
        (inbox / folder / f"{name}.mp4").write_bytes(name.encode())
    (inbox / "labels.csv").write_text(
        "path,label,source_group,camera_id,recorded_at\n"
        "camera1/c.mp4,nonfight,g1,cam 1,2026-01-01T03:00:00\nFight/d.mp4,NonFight,,,\ne.mp4,Brawl,g2,,yesterday\n"
    )
    result = take_in(workspace)
    clips = clips_of(workspace, result.batch_ids[0])
    assert {path: clip.label for path, clip in clips.items()} == {
        "fight/a.mp4": "Fight", "NonFight/b.mp4": "NonFight", "camera1/c.mp4": "NonFight", "Fight/d.mp4": "NonFight", "e.mp4": None,
    }  # fmt: skip
    described = clips["camera1/c.mp4"]
    assert (described.source_group, described.camera_id, described.recorded_at) == (
        "g1",
        "cam 1",
        "2026-01-01T03:00:00",
    )
    assert clips["fight/a.mp4"].source_group == clips["fight/a.mp4"].clip_id
    assert len(result.notices) == 2
    assert "Brawl" in result.notices[0]


def test_where_labels_are_required_a_clip_without_one_is_refused_until_it_brings_one(
    new_workspace: Callable[..., Workspace],
) -> None:
    workspace = new_workspace(**{"validation.require_label": True})
    inbox = workspace.inbox
    (inbox / "a.mp4").write_bytes(b"a")
    (inbox / "copy of a.mp4").write_bytes(b"a")
    (inbox / "Fight").mkdir()
    (inbox / "Fight" / "b.mp4").write_bytes(b"b")
    (inbox / "b.mp4").write_bytes(b"b")  # its copy brings the label
    first = take_in(workspace)
    assert (first.claimed, first.duplicates, first.quarantined) == (1, 1, {"unlabelled": 2})
    (entry,) = (one for one in quarantine.entries(workspace) if one["reason"] == "unlabelled")
    assert "drop it again with one" in entry["message"]
    assert (workspace.quarantined(entry["clip_id"]) / entry["original"]).read_bytes() == b"a"

    (inbox / "b again.mp4").write_bytes(b"b")  # known, so that it needs no label
    (inbox / "Fight").mkdir(exist_ok=True)
    (inbox / "Fight" / "a.mp4").write_bytes(b"a")
    second = take_in(workspace)
    assert (second.claimed, second.duplicates, second.quarantined) == (1, 1, {})
    assert clips_of(workspace, second.batch_ids[0])["Fight/a.mp4"].label == "Fight"


def test_where_labels_are_required_a_label_given_to_the_refused_clip_counts(
    new_workspace: Callable[..., Workspace],
) -> None:
    workspace = new_workspace(**{"validation.require_label": True})
    (workspace.inbox / "a.mp4").write_bytes(b"a")
    take_in(workspace)
    (entry,) = quarantine.entries(workspace)
    assert "brings it back" in "\n".join(labels.run(workspace, entry["clip_id"], "Fight", by="reviewer").lines())
    (workspace.inbox / "a.mp4").write_bytes(b"a")
    assert take_in(workspace).claimed == 1
    told = explain.run(workspace, workspace.params(), entry["clip_id"])
    assert told.status == "claimed, not validated yet"
    assert effective_labels(workspace)[entry["clip_id"]] == ("Fight", "label")


def test_a_labels_csv_in_a_subfolder_speaks_of_its_own_files(workspace: Workspace) -> None:
    folder = workspace.inbox / "upload 7"
    folder.mkdir()
    (folder / "x.mp4").write_bytes(b"x")
    (folder / "labels.csv").write_text("path,label\nx.mp4,Fight\n")
    (clip,) = clips_of(workspace, take_in(workspace).batch_ids[0]).values()
    assert clip.label == "Fight"


def test_of_a_labels_csv_too_large_to_be_read_ingest_and_status_say_what_to_do_and_its_clips_wait_for_that(
    workspace: Workspace,
) -> None:
    for path in ("big/a.mp4", "big/low/b.mp4", "other/c.mp4"):
        (workspace.inbox / path).parent.mkdir(parents=True, exist_ok=True)
        (workspace.inbox / path).write_text(path)
    (workspace.inbox / "big" / "low" / "labels.csv").write_text("path,label\nb.mp4,Fight\n")
    (workspace.inbox / "other" / "labels.csv").write_text("path,label\nc.mp4,Fight\n")
    table = workspace.inbox / "big" / "labels.csv"
    table.write_text("path,label\na.mp4,NonFight\n" + f"{'x' * 150}.mp4,Fight\n" * 60_000)
    told = (
        "A run reads at most 100,000 rows and 8 MB of labels.csv files, so there was no room for big/labels.csv, and the clips beside "
        "and below wait (2 files): remove rows that match no file, or split that file into one in each folder."
    )
    foreseen = ingest.run(workspace, workspace.params(), night=NIGHT, dry_run=True)
    first = take_in(workspace)
    assert first.notices == foreseen.notices == [told]
    assert (first.claimed, first.left, foreseen.claimed, foreseen.left) == (1, 2, 1, 2)
    shown = status.run(workspace)
    assert (shown.inbox, shown.unfinished) == (2, [told])
    assert f"PROBLEM     {told}" in shown.lines()
    table.write_text("path,label\na.mp4,NonFight\n")
    assert (take_in(workspace).claimed, status.run(workspace).unfinished) == (2, [])
    given = {
        clip.source_path: clip.label
        for one in batches.chosen_batches(workspace, None)
        for clip in batches.read_manifest(one).clips
    }
    assert given == {"big/a.mp4": "NonFight", "big/low/b.mp4": "Fight", "other/c.mp4": "Fight"}


def test_a_labels_csv_of_too_many_rows_takes_no_room_from_that_of_another_folder(workspace: Workspace) -> None:
    for name, rows, characters in (("many", 100_001, 60), ("other", 10_000, 300)):
        (workspace.inbox / name).mkdir()
        (workspace.inbox / name / "a.mp4").write_text(name)
        (workspace.inbox / name / "labels.csv").write_text(
            "path,label\na.mp4,Fight\n" + f"{'x' * characters},\n" * rows
        )
    first = take_in(workspace)
    assert (first.claimed, first.left) == (1, 1)
    assert [notice for notice in first.notices if "no room for many/labels.csv, and" in notice]


def test_rows_of_labels_csv_go_with_their_files_and_the_others_wait(workspace: Workspace) -> None:
    table = workspace.inbox / "labels.csv"
    table.write_text('path,label,note\na.mp4,Fight,"x, y"\nb.mp4,NonFight,later\n')
    (workspace.inbox / "a.mp4").write_bytes(b"first")
    take_in(workspace)
    assert table.read_text() == "path,label,note\nb.mp4,NonFight,later\n"
    (workspace.inbox / "a.mp4").write_bytes(b"another clip of the same name")
    (workspace.inbox / "b.mp4").write_bytes(b"second")
    clips = clips_of(workspace, take_in(workspace).batch_ids[0])
    assert {path: clip.label for path, clip in clips.items()} == {"a.mp4": None, "b.mp4": "NonFight"}
    assert not table.exists()


def test_rows_without_a_file_and_folders_that_are_no_label_are_named(workspace: Workspace) -> None:
    rows = ["Fight/a.mp4", *(f"missing{number}.mp4" for number in range(6)), "b.mp4", "upload.part"]
    (workspace.inbox / "labels.csv").write_text("path,label\n" + "".join(f"{row},Fight\n" for row in rows))
    for name in (
        "a.mp4",
        "b.mp4",
        "upload.part",
        "Fights/c.mp4",
        "Fights/d.mp4",
        "fight/cam 1/e.mp4",
        "Sideways/f.mp4",
    ):
        (workspace.inbox / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace.inbox / name).write_bytes(name.encode())
    unfinished, folders, rows_lost = take_in(workspace).notices
    assert "upload.part" in unfinished
    assert "Fight/a.mp4, missing0.mp4, missing1.mp4, missing2.mp4, missing3.mp4 and 2 more;" in rows_lost
    assert "Fights/ (2), Sideways/ (1); labels are NonFight, Fight." in folders


@pytest.mark.parametrize("folder", ["", "upload 7"])
def test_rows_that_come_after_their_clips_are_told_and_the_named_command_labels_them(
    workspace: Workspace, folder: str
) -> None:
    drop = workspace.inbox / folder
    drop.mkdir(exist_ok=True)
    for name in ("a.mp4", "b.mp4"):
        (drop / name).write_bytes(name.encode())
    (batch_id,) = take_in(workspace).batch_ids
    (drop / "labels.csv").write_text(
        "path,label,source_group\na.mp4,Fight,incident\nb.mp4,,incident\nc.mp4,NonFight,incident\n"
    )
    dry = ingest.run(workspace, workspace.params(), night=NIGHT, dry_run=True)
    notices = take_in(workspace, date(2026, 1, 2)).notices
    assert dry.notices == notices
    waiting, late = notices
    assert f"match no file yet: {Path(folder) / 'c.mp4'};" in waiting
    assert (
        f"2 rows of {Path(folder) / 'labels.csv'} came after the clips, which were taken without (batch {batch_id})"
        in late
    )
    assert "gives 1 of them the label; their source groups cannot be changed any more" in late
    command = shlex.split(late.split("`")[1].replace("NAME", "ana"))
    done = CliRunner().invoke(app, [*command[1:], "--workspace", str(workspace.root)])
    assert done.exit_code == 0, done.output
    said = {clip.source_path: clip.clip_id for clip in batches.read_manifest(workspace.batch(batch_id)).clips}
    assert effective_labels(workspace) == {said[str(Path(folder) / "a.mp4")]: ("Fight", "label")}
    assert "the label" not in take_in(workspace, date(2026, 1, 3)).notices[1]


def test_rows_that_a_killed_run_left_behind_do_not_label_a_later_clip(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace.inbox / "labels.csv").write_text("path,label\na.mp4,Fight\n")
    (workspace.inbox / "a.mp4").write_bytes(b"first")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ingest.inbox, "spend", killed)
        with pytest.raises(KeyboardInterrupt):
            take_in(workspace)
    (workspace.inbox / "a.mp4").write_bytes(b"another clip of the same name")
    batch = workspace.batch(take_in(workspace).batch_ids[0])
    assert sorted(str(clip.label) for clip in batches.read_manifest(batch).clips) == ["Fight", "None"]
    assert not (workspace.inbox / "labels.csv").exists()


def test_files_that_are_still_written_wait_for_the_next_run(new_workspace: Callable[..., Workspace]) -> None:
    workspace = new_workspace(**{"ingest.settle_s": 3600})
    for name in ("young.mp4", "upload.mp4.part", ".hidden.mp4", "x.tmp"):
        (workspace.inbox / name).write_bytes(name.encode())
    result = take_in(workspace)
    assert (result.batch_ids, result.left) == ([], 3)
    assert len(list(workspace.inbox.iterdir())) == 5
    (notice,) = result.notices
    assert notice.startswith("3 files are left for the next run, perhaps still being written")
    assert notice.endswith("3600 s: ingest.settle_s): upload.mp4.part, x.tmp, young.mp4.")


def test_a_new_workspace_gives_an_upload_that_stalls_half_a_minute(new_workspace: Callable[..., Workspace]) -> None:
    workspace = new_workspace(**{"ingest.settle_s": load_params(SHIPPED).ingest.settle_s})
    clip = workspace.inbox / "a.mp4"
    clip.write_bytes(b"the first half")
    stalled = clip.stat().st_ctime + 25
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest.inbox.time, "time", lambda: stalled)
        assert take_in(workspace).claimed == 0
        patch.setattr(ingest.inbox.time, "time", lambda: stalled + 10)
        assert take_in(workspace).claimed == 1


def test_the_same_clips_on_the_same_night_give_the_same_batch(new_workspace: Callable[..., Workspace]) -> None:
    one, other = new_workspace("one"), new_workspace("other")
    for workspace in (one, other):
        for name in ("a", "b"):
            (workspace.inbox / f"{name}.mp4").write_bytes(name.encode())
    first, second = take_in(one), take_in(other)
    assert first.batch_ids == second.batch_ids
    assert one.batch(first.batch_ids[0]).manifest.read_bytes() == other.batch(first.batch_ids[0]).manifest.read_bytes()


def test_a_duplicate_is_noted_and_its_bytes_are_kept_once(workspace: Workspace) -> None:
    (workspace.inbox / "a.mp4").write_bytes(b"same")
    (workspace.inbox / "b.mp4").write_bytes(b"same")
    assert (take_in(workspace).claimed, len(list(quarantine.entries(workspace)))) == (1, 1)
    (workspace.inbox / "c.mp4").write_bytes(b"same")
    result = take_in(workspace, date(2026, 1, 2))
    assert (result.batch_ids, result.duplicates, result.quarantined) == ([], 1, {})
    assert status.run(workspace).quarantine == {}
    (entry,) = quarantine.entries(workspace)
    assert (entry["reason"], entry["original"], len(entry["occurrences"])) == ("duplicate", None, 2)
    assert list(workspace.inbox.iterdir()) == [workspace.inbox / ".gitkeep"]


def test_a_duplicate_brings_a_label_to_a_clip_that_had_none(workspace: Workspace) -> None:
    (workspace.inbox / "a.mp4").write_bytes(b"same")
    take_in(workspace)
    (workspace.inbox / "Fight").mkdir()
    (workspace.inbox / "Fight" / "a.mp4").write_bytes(b"same")
    commits = git.run(workspace, "rev-list", "--count", "HEAD")
    assert take_in(workspace, date(2026, 1, 2)).notices == []
    ((label, source),) = effective_labels(workspace).values()
    assert (label, source) == ("Fight", "inbox")
    assert git.committed(workspace, workspace.labels_file) == workspace.labels_file.read_bytes().strip()
    take_in(workspace, date(2026, 1, 3))
    assert git.run(workspace, "rev-list", "--count", "HEAD") == str(int(commits) + 1)


def test_a_label_that_a_duplicate_brings_while_git_is_on_no_branch_is_kept_and_committed_later(
    workspace: Workspace,
) -> None:
    for folder in ("", "Fight"):
        (workspace.inbox / folder).mkdir(exist_ok=True)
        (workspace.inbox / folder / "a.mp4").write_bytes(b"same")
        git.run(workspace, "checkout", "--quiet", "--detach")
        result = take_in(workspace)
    (notice,) = result.notices
    assert "is on no branch" in notice
    git.run(workspace, "switch", "--quiet", "main")
    assert take_in(workspace).notices == []
    assert b",Fight,ingest," in git.committed(workspace, workspace.labels_file)


def test_a_duplicate_with_another_label_is_told_and_changes_nothing(workspace: Workspace) -> None:
    for label in ("Fight", "NonFight"):
        (workspace.inbox / label).mkdir()
        (workspace.inbox / label / "a.mp4").write_bytes(b"same")
        result = take_in(workspace)
    (notice,) = result.notices
    (clip_id,) = effective_labels(workspace)
    assert (
        f"is labelled Fight: nothing was changed; if NonFight is right, run `violence-ops label {clip_id} NonFight"
        in notice
    )


@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
def test_copies_of_one_night_that_contradict_each_other_leave_the_label_to_a_person(
    workspace: Workspace, known: bool
) -> None:
    if known:
        (workspace.inbox / "a.mp4").write_bytes(b"same")
        take_in(workspace)
    for label in ("Fight", "NonFight"):
        (workspace.inbox / label).mkdir()
        (workspace.inbox / label / "a.mp4").write_bytes(b"same")
    result = take_in(workspace)
    assert effective_labels(workspace) == {}
    (notice,) = [notice for notice in result.notices if "same bytes" in notice]
    assert notice.startswith(
        "Fight/a.mp4 says Fight and NonFight/a.mp4 says NonFight of the same bytes: neither counts"
    )
    (clip_id,) = (entry["clip_id"] for entry in quarantine.entries(workspace))
    assert f"`violence-ops label {clip_id} LABEL --by NAME`" in notice
    labels.run(workspace, clip_id, "NonFight", "ada")
    assert effective_labels(workspace) == {clip_id: ("NonFight", "label")}


def test_a_source_group_that_comes_later_is_told_and_changes_nothing(workspace: Workspace) -> None:
    (workspace.inbox / "a.mp4").write_bytes(b"same")
    (batch_id,) = take_in(workspace).batch_ids
    (clip,) = batches.read_manifest(workspace.batch(batch_id)).clips
    for group in ("", "gate-7"):
        (workspace.inbox / "a.mp4").write_bytes(b"same")
        (workspace.inbox / "labels.csv").write_text(f"path,label,source_group\na.mp4,Fight,{group}\n")
        told = take_in(workspace, date(2026, 1, 2)).notices
        assert [notice for notice in told if "source group" in notice] == (
            [f"a.mp4 names source group gate-7 and clip {clip.clip_id} was taken in as one of {clip.clip_id}: nothing was changed."]
            if group else []
        )  # fmt: skip


def test_of_copies_that_arrive_together_the_row_of_any_counts_for_the_clip(workspace: Workspace) -> None:
    for name in ("copy.avi", "syn_0000_0000.avi", "third.avi"):
        (workspace.inbox / name).write_bytes(b"same")
    (workspace.inbox / "labels.csv").write_text(
        "path,label,source_group,camera_id,recorded_at\n"
        "syn_0000_0000.avi,Fight,syn-000,cam 1,2026-01-01T03:00:00\nthird.avi,,syn-999,cam 2,\n"
    )
    result = take_in(workspace)
    clip = clips_of(workspace, result.batch_ids[0])["copy.avi"]
    assert (clip.label, clip.source_group, clip.camera_id, clip.recorded_at) == (
        "Fight", "syn-000", "cam 1", "2026-01-01T03:00:00",
    )  # fmt: skip
    assert result.notices == [
        f"third.avi names source group syn-999 and clip {clip.clip_id} was taken in as one of syn-000: nothing was changed."
    ]
    with open_catalog(workspace) as catalog:
        assert catalog.find([clip.clip_id])[clip.clip_id].source_group == "syn-000"


def test_copies_that_are_refused_for_want_of_a_label_keep_the_group_that_any_of_them_brought(
    new_workspace: Callable[..., Workspace],
) -> None:
    workspace = new_workspace(**{"validation.require_label": True})
    for name in ("a.avi", "copy.avi"):
        (workspace.inbox / name).write_bytes(b"same")
    (workspace.inbox / "labels.csv").write_text("path,source_group\na.avi,syn-000\n")
    assert take_in(workspace).quarantined == {"unlabelled": 2}
    assert [entry["source_group"] for entry in quarantine.entries(workspace)] == ["syn-000"]


def test_the_source_group_of_a_copy_that_is_known_already_is_no_news(workspace: Workspace) -> None:
    for _ in range(2):
        (workspace.inbox / "a.mp4").write_bytes(b"same")
        (workspace.inbox / "labels.csv").write_text("path,label,source_group\na.mp4,Fight,gate-7\n")
        result = take_in(workspace)
    assert result.notices == []
    assert [label for label, _ in effective_labels(workspace).values()] == ["Fight"]


def test_a_backlog_becomes_batches_of_max_clips_in_one_run(new_workspace: Callable[..., Workspace]) -> None:
    workspace = new_workspace(**{"ingest.max_clips": 2})
    for name in "abcde":
        (workspace.inbox / f"{name}.mp4").write_bytes(name.encode())
    (workspace.inbox / "labels.csv").write_text("path,label\n" + "".join(f"{name}.mp4,Fight\n" for name in "abcde"))
    (workspace.inbox / "copy_of_a.mp4").write_bytes(b"a")
    result = take_in(workspace)
    assert (result.claimed, result.duplicates, result.left, len(result.batch_ids)) == (5, 1, 0, 3)
    clips = [clip for batch_id in result.batch_ids for clip in clips_of(workspace, batch_id).values()]
    assert sorted((clip.source_path, clip.label) for clip in clips) == [(f"{name}.mp4", "Fight") for name in "abcde"]
    assert [path.name for path in workspace.inbox.iterdir()] == [".gitkeep"]
    assert take_in(workspace).batch_ids == []


def test_a_table_that_the_run_itself_shortened_keeps_nothing_of_a_backlog_waiting(
    new_workspace: Callable[..., Workspace],
) -> None:
    workspace = new_workspace(**{"ingest.max_clips": 2, "ingest.settle_s": 1.5})
    for name in "abcde":
        (workspace.inbox / f"{name}.mp4").write_bytes(name.encode())
    (workspace.inbox / "labels.csv").write_text("path,label\n" + "".join(f"{name}.mp4,Fight\n" for name in "abcde"))
    time.sleep(1.6)
    assert ingest.run(workspace, workspace.params(), night=NIGHT, dry_run=True).claimed == 5
    result = take_in(workspace)
    assert (result.claimed, result.left, len(result.batch_ids)) == (5, 0, 3)
    assert {label for label, _ in effective_labels(workspace).values()} == {"Fight"}


def test_shards_cover_the_batch_once(new_workspace: Callable[..., Workspace]) -> None:
    workspace = new_workspace(**{"ingest.shard_size": 2})
    for name in "abcde":
        (workspace.inbox / f"{name}.mp4").write_bytes(name.encode())
    (batch_id,) = take_in(workspace).batch_ids
    shards = ingest.shards(workspace, workspace.params(), batch_id)
    assert [len(shard) for shard in shards] == [2, 2, 1]
    assert sorted(clip_id for shard in shards for clip_id in shard) == [
        clip.clip_id for clip in batches.read_manifest(workspace.batch(batch_id)).clips
    ]


def test_a_shard_of_large_files_holds_fewer_of_them(new_workspace: Callable[..., Workspace]) -> None:
    workspace = new_workspace(**{"ingest.shard_size": 4})
    for number, size in enumerate([300, 300, 300, 3000, 10, 10, 10, 10, 10]):
        (workspace.inbox / f"{number}.mp4").write_bytes(number.to_bytes(1) * (size << 10))
    (batch_id,) = take_in(workspace).batch_ids
    sizes = {clip.clip_id: clip.size_bytes / 2**20 for clip in batches.read_manifest(workspace.batch(batch_id)).clips}
    shards = ingest.shards(workspace, workspace.params({"ingest.shard_size_mb": 1.0}), batch_id)
    assert [clip_id for shard in shards for clip_id in shard] == list(sizes)
    assert all(len(shard) == 1 or sum(sizes[clip_id] for clip_id in shard) <= 1 for shard in shards)
    assert max(map(len, shards)) <= 4
    assert len(shards) < len(sizes)
    assert [len(shard) for shard in ingest.shards(workspace, workspace.params(), batch_id)] == [4, 4, 1]


def test_a_dry_run_takes_nothing_and_says_what_a_run_would_do(workspace: Workspace) -> None:
    (workspace.inbox / "known.mp4").write_bytes(b"known")
    take_in(workspace)
    files = {
        "new.mp4": b"new",
        "new again.mp4": b"new",
        "known again.mp4": b"known",
        "odd\\name.mp4": b"odd",
        "c.part": b"",
    }
    for name, content in files.items():
        (workspace.inbox / name).write_bytes(content)
    (workspace.inbox / "link.mp4").symlink_to("/etc/passwd")
    os.mkfifo(workspace.inbox / "pipe.mp4")
    before = sorted(path.name for path in workspace.inbox.iterdir())
    found = ingest.run(workspace, workspace.params(), night=date(2026, 1, 2), dry_run=True)
    assert sorted(path.name for path in workspace.inbox.iterdir()) == before
    assert list(quarantine.entries(workspace)) == []
    said = list(found.lines())
    assert said[:4] == [
        "would claim  1 new clip",
        "duplicates   2 files would be noted and removed: the bytes are kept already",
        "quarantine   2 not_a_regular_file, 1 unsafe_name",
        "would leave  1",
    ]
    assert any("known again.mp4 of the known clip known.mp4, new.mp4 of new again.mp4." in line for line in said)
    assert [(one["path"], one["of"], one["known"]) for one in found.to_dict()["duplicate_of"]] == [
        ("known again.mp4", "known.mp4", True), ("new.mp4", "new again.mp4", False),
    ]  # fmt: skip
    done = take_in(workspace, date(2026, 1, 2))
    for figure in ("claimed", "duplicates", "quarantined", "left"):
        assert getattr(done, figure) == getattr(found, figure), figure


def test_a_dry_run_counts_a_backlog_that_needs_several_batches(new_workspace: Callable[..., Workspace]) -> None:
    workspace = new_workspace(**{"ingest.max_clips": 2})
    for name in "abc":
        (workspace.inbox / name).write_bytes(name.encode())
    found = ingest.run(workspace, workspace.params(), night=NIGHT, dry_run=True)
    assert (found.claimed, found.left) == (3, 0)


def test_a_dry_run_counts_files_of_a_closed_folder_as_left(workspace: Workspace, close: Callable[[Path], None]) -> None:
    for name in ("closed/a.mp4", "b.mp4"):
        (workspace.inbox / name).parent.mkdir(exist_ok=True)
        (workspace.inbox / name).write_bytes(name.encode())
    close(workspace.inbox / "closed")
    found = ingest.run(workspace, workspace.params(), night=NIGHT, dry_run=True)
    assert (found.claimed, found.left) == (1, 1)


def test_without_its_catalog_it_refuses_and_loses_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace.inbox / "a.mp4").write_bytes(b"a")
    monkeypatch.setenv("VIOLENCE_OPS_CATALOG_URL", "postgresql+psycopg2://u@127.0.0.1:9/none")
    with pytest.raises(ServiceUnavailable):
        take_in(Workspace.open(workspace.root))
    monkeypatch.delenv("VIOLENCE_OPS_CATALOG_URL")
    assert take_in(Workspace.open(workspace.root)).claimed == 1


def test_a_lost_catalog_is_made_again_from_the_workspace(workspace: Workspace) -> None:
    (workspace.inbox / "Fight").mkdir()
    (workspace.inbox / "Fight" / "a.mp4").write_bytes(b"a")
    (workspace.inbox / "..b.mp4").write_bytes(b"b")
    take_in(workspace)
    with open_catalog(workspace) as catalog:
        before = catalog.counts()
        rebuild(workspace)
        assert catalog.counts() == before
    for path in workspace.root.glob("catalog.db*"):
        path.unlink()
    (workspace.inbox / "again.mp4").write_bytes(b"a")
    assert take_in(workspace).duplicates == 1


def test_a_lost_catalog_is_rebuilt_once_by_however_many_open_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace.inbox / "a.mp4").write_bytes(b"a")
    batch_ids = take_in(workspace).batch_ids
    for path in workspace.root.glob("catalog.db*"):
        path.unlink()
    rebuilt, real = [], Catalog.rebuild

    def slowly(*arguments: object) -> None:
        rebuilt.append(arguments)
        time.sleep(0.3)
        real(*arguments)  # type: ignore[arg-type]

    def opened(_: int) -> list[str]:
        with open_catalog(workspace) as catalog:
            return catalog.batches()

    monkeypatch.setattr(Catalog, "rebuild", slowly)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(opened, range(4))) == [batch_ids] * 4
    assert len(rebuilt) == 1


def test_a_rebuild_while_a_run_is_not_finished_does_not_let_the_same_bytes_in_twice(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace.inbox / "a.mp4").write_bytes(b"a")
    real = Catalog.open_batch

    def rebuilt_just_before(catalog: Catalog, *arguments: object) -> None:
        rebuild(workspace)
        real(catalog, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Catalog, "open_batch", rebuilt_just_before)
    assert take_in(workspace).claimed == 1
    (workspace.inbox / "again.mp4").write_bytes(b"a")
    assert take_in(workspace, date(2026, 1, 2)).duplicates == 1


def unreadable(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, code: int = errno.EIO) -> None:
    """Files that begin with `bad` give a read error."""
    read = intake.sha256_file

    def fail(path: Path) -> str:
        if path.read_bytes().startswith(b"bad"):
            raise OSError(code, os.strerror(code), str(path))
        return read(path)

    monkeypatch.setattr(intake, "sha256_file", fail)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE])
def test_a_file_that_gives_a_read_error_is_refused_and_stops_no_other(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    unreadable(workspace, monkeypatch, code)
    for night in (1, 2):  # under the same name, and not known to be the same bytes
        (workspace.inbox / "one.mp4").write_bytes(b"bad %d" % night)
        (workspace.inbox / "good.mp4").write_bytes(b"good %d" % night)
        result = take_in(workspace, date(2026, 1, night))
        assert (result.claimed, result.quarantined, result.left) == (1, {"unreadable": 1}, 0)
    entries = list(quarantine.entries(workspace))
    assert {one["message"] for one in entries} == {
        f"one.mp4 cannot be read ({os.strerror(code)}): look at its disk, then drop it again, from where it came from or from the "
        "quarantine."
    }
    kept = {(workspace.quarantined(one["clip_id"]) / one["original"]).read_bytes() for one in entries}
    assert kept == {b"bad 1", b"bad 2"}
    assert list(workspace.claims.iterdir()) == []


def test_a_file_that_cannot_even_be_looked_at_is_not_lost(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace.inbox / "stale.mp4").write_bytes(b"stale")
    number = (workspace.inbox / "stale.mp4").lstat().st_ino
    look = {name: getattr(os, name) for name in ("stat", "lstat")}

    def fail(name: str, path: str, *arguments: object, **how: object) -> os.stat_result:
        found: os.stat_result = look[name](path, *arguments, **how)
        if found.st_ino == number and "/claims/" in str(path):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return found

    with monkeypatch.context() as patched:
        for name in look:
            patched.setattr(os, name, partial(fail, name))
        take_in(workspace)
    kept = [path for path in workspace.root.rglob("*") if path.is_file() and path.read_bytes() == b"stale"]
    assert kept


def test_a_file_that_cannot_even_be_copied_to_be_ours_is_refused(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: Path, target: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(source))

    monkeypatch.setattr(shutil, "copyfile", fail)
    (tmp_path / "theirs.mp4").write_bytes(b"theirs")
    os.link(tmp_path / "theirs.mp4", workspace.inbox / "theirs.mp4")
    (workspace.inbox / "good.mp4").write_bytes(b"good")
    result = take_in(workspace)
    assert (result.claimed, result.quarantined) == (1, {"unreadable": 1})


def test_a_copy_of_what_has_another_name_has_no_wider_mode(workspace: Workspace, tmp_path: Path) -> None:
    for name, mode in (("closed", 0o400), ("group", 0o640), ("open", 0o666)):
        theirs = tmp_path / name
        theirs.write_bytes(name.encode())
        theirs.chmod(mode)
        os.link(theirs, workspace.inbox / f"{name}.mp4")
    batch = workspace.batch(take_in(workspace).batch_ids[0])
    kept = {path.read_bytes(): path.stat().st_mode & 0o777 for path in batch.videos.iterdir()}
    assert kept == {b"closed": 0o600, b"group": 0o640, b"open": 0o644}


def test_one_that_cannot_even_be_put_into_quarantine_waits_in_the_claim_and_is_told(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreadable(workspace, monkeypatch)
    put = quarantine.put

    def fail(*arguments: Any, original: Path | None, **options: Any) -> None:
        if original and original.read_bytes().startswith(b"bad"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(original))
        put(*arguments, original=original, **options)

    (workspace.inbox / "bad.mp4").write_bytes(b"bad")
    (workspace.inbox / "good.mp4").write_bytes(b"good")
    (workspace.inbox / "again.mp4").write_bytes(b"good")
    with monkeypatch.context() as patch:
        patch.setattr(quarantine, "put", fail)
        first = take_in(workspace)
        assert (first.claimed, first.duplicates, first.quarantined, first.left) == (1, 1, {}, 1)
        (notice,) = first.notices
        assert notice.startswith(
            "bad.mp4 can be neither read nor put into quarantine (Input/output error) and stays in "
        )
        (workspace.inbox / "new.mp4").write_bytes(b"new")
        second = take_in(workspace, date(2026, 1, 2))
        assert (second.claimed, second.duplicates, second.left, second.notices) == (1, 0, 1, first.notices)
        assert status.run(workspace).inbox == 1
        (waiting,) = workspace.claims.glob("*/files/*")
        assert waiting.read_bytes() == b"bad"
    third = take_in(workspace, date(2026, 1, 3))
    assert (third.batch_ids, third.quarantined, third.left) == ([], {"unreadable": 1}, 0)
    assert list(workspace.claims.iterdir()) == []


def test_one_that_waits_in_the_claim_may_be_taken_away_by_hand(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreadable(workspace, monkeypatch)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (workspace.inbox / "bad.mp4").write_bytes(b"bad")
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", fail)
        take_in(workspace)
    (waiting,) = workspace.claims.glob("*/files/*")
    waiting.unlink()
    result = take_in(workspace, date(2026, 1, 2))
    assert (result.quarantined, result.left) == ({}, 0)
    assert list(workspace.claims.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_of_our_own_refuses_no_clip(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    with monkeypatch.context() as patch:
        unreadable(workspace, patch, code)
        (workspace.inbox / "bad.mp4").write_bytes(b"bad luck")
        with pytest.raises(OSError, match=os.strerror(code)):
            take_in(workspace)
    assert list(quarantine.entries(workspace)) == []
    assert take_in(workspace, date(2026, 1, 2)).claimed == 1


def test_a_file_that_is_too_large_is_refused_without_being_read_or_copied_and_stops_no_other(
    new_workspace: Callable[..., Workspace], tmp_path: Path
) -> None:
    workspace = new_workspace(**{"validation.max_size_mb": 1})
    theirs = tmp_path / "theirs.mp4"
    theirs.touch()
    os.truncate(theirs, 10 << 40)  # holes only: no disk could hold a copy
    os.link(theirs, workspace.inbox / "theirs.mp4")
    (workspace.inbox / "good.mp4").write_bytes(b"good")
    assert ingest.run(workspace, workspace.params(), night=NIGHT, dry_run=True).quarantined == {"too_large": 1}
    result = take_in(workspace)
    assert (result.claimed, result.quarantined, result.left) == (1, {"too_large": 1}, 0)
    (entry,) = quarantine.entries(workspace)
    assert "theirs.mp4 has 10485760.0 MB" in entry["message"]
    assert "validation.max_size_mb allows 1" in entry["message"]
    assert (workspace.quarantined(entry["clip_id"]) / entry["original"]).samefile(theirs)
    assert explain.run(workspace, workspace.params(), entry["clip_id"]).to_dict()["refusal"]["reason"] == "too_large"
    assert status.run(workspace).quarantine == {"too_large": 1}
    assert list(workspace.claims.iterdir()) == []


def test_a_file_that_was_too_large_is_a_clip_once_it_is_allowed(new_workspace: Callable[..., Workspace]) -> None:
    workspace = new_workspace(**{"validation.max_size_mb": 1})
    for params, expected in ((workspace.params(), 0), (workspace.params({"validation.max_size_mb": 4}), 1)):
        (workspace.inbox / "long.mp4").write_bytes(bytes(3 << 20))
        assert ingest.run(workspace, params, night=NIGHT).claimed == expected


def test_a_file_that_is_too_large_and_may_not_be_linked_is_moved_into_the_quarantine_also_by_a_killed_run(
    new_workspace: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = new_workspace(**{"validation.max_size_mb": 1})
    link = os.link

    def protected(source: Path, *arguments: Any, **options: Any) -> None:
        if source.stat().st_size > 1 << 20:  # another user's, with fs.protected_hardlinks
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(source))
        link(source, *arguments, **options)

    monkeypatch.setattr(os, "link", protected)
    rename = Path.rename

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    def before_the_move(path: Path, target: Path) -> Path:
        if target.parent.parent == workspace.quarantine:
            raise KeyboardInterrupt
        return rename(path, target)

    (workspace.inbox / "theirs.mp4").write_bytes(bytes(2 << 20))
    for owner, name, put in ((Path, "rename", before_the_move), (Catalog, "record", killed)):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, put)
            with pytest.raises(KeyboardInterrupt):
                take_in(workspace)
    take_in(workspace)
    (entry,) = quarantine.entries(workspace)
    assert (workspace.quarantined(entry["clip_id"]) / entry["original"]).stat().st_size == 2 << 20
    assert status.run(workspace).quarantine == {"too_large": 1}
    assert list(workspace.claims.iterdir()) == []


def test_a_claim_that_the_disk_has_no_room_for_keeps_no_later_one_waiting(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        unreadable(workspace, patch, errno.ENOSPC)
        (workspace.inbox / "bad.mp4").write_bytes(b"bad luck")
        with pytest.raises(OSError, match=r"bad\.mp4 \(taken to "):
            take_in(workspace)
        (workspace.inbox / "good.mp4").write_bytes(b"good")
        with pytest.raises(OSError, match=r"bad\.mp4 \(taken to "):
            take_in(workspace, date(2026, 1, 2))
    (batch_id,) = batches.open_batch_ids(workspace)
    assert list(clips_of(workspace, batch_id)) == ["good.mp4"]
    assert take_in(workspace, date(2026, 1, 3)).claimed == 1
