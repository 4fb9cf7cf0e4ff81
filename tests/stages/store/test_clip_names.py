"""How a clip may be named, by every command in the same way."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from violence_ops.cli.program import app
from violence_ops.errors import UsageError
from violence_ops.folders import clip_id_of
from violence_ops.stages.nightly import ingest
from violence_ops.store import clip_names, tombstones
from violence_ops.workspace import Workspace


def drop(workspace: Workspace, night: int, **files: str) -> list[str]:
    """Ingest files `folder__name="content"`; returns their clip ids."""

    for name, content in files.items():
        path = workspace.inbox / f"{name.replace('__', '/')}.mp4"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    ingest.run(workspace, workspace.params(), night=date(2026, 1, night))
    return [clip_id_of(hashlib.sha256(content.encode()).hexdigest()) for content in files.values()]


def bury(workspace: Workspace, clip_id: str) -> None:
    tombstones.write(
        workspace,
        {"clip_id": clip_id, "by": "ada", "at": "2026-02-02T10:00:00+00:00", "reason": "he asked", "models": []},
    )


def test_an_id_its_beginning_and_the_path_or_its_end_name_a_clip(workspace: Workspace) -> None:
    one, _ = drop(workspace, 1, Fight__one="1", NonFight__two="2")
    for name in (one, one[:4], "Fight/one.mp4", "one.mp4"):
        assert clip_names.clip_id(workspace, name) == one


def test_a_name_that_is_no_text_names_its_clip_as_it_was_and_as_it_is_shown(workspace: Workspace) -> None:
    (workspace.inbox / os.fsdecode(b"caf\xe9.mp4")).write_text("1")
    drop(workspace, 1)
    one = clip_id_of(hashlib.sha256(b"1").hexdigest())
    for name in (os.fsdecode(b"caf\xe9.mp4"), r"caf\xe9.mp4"):
        assert clip_names.clip_id(workspace, name) == one
    with pytest.raises(UsageError, match="No clip of this workspace is called"):
        clip_names.clip_id(workspace, os.fsdecode(b"\xff.mp4"))


def test_the_path_of_a_copy_names_the_clip_that_was_there_first(workspace: Workspace) -> None:
    (one,) = drop(workspace, 1, Fight__one="1")
    drop(workspace, 2, NonFight__copy="1")
    assert clip_names.clip_id(workspace, "NonFight/copy.mp4") == clip_names.clip_id(workspace, "copy.mp4") == one


def test_a_whole_path_is_not_confused_with_the_end_of_another(workspace: Workspace) -> None:
    top, below = drop(workspace, 1, one="1", Fight__one="2")
    assert clip_names.clip_id(workspace, "one.mp4") == top
    assert clip_names.clip_id(workspace, "Fight/one.mp4") == below


def test_of_several_at_most_five_are_listed_with_ids_and_batches(workspace: Workspace) -> None:
    ids = [drop(workspace, night, Fight__one=str(night))[0] for night in range(1, 8)]
    with pytest.raises(UsageError) as refusal:
        clip_names.clip_id(workspace, "one.mp4")
    text = str(refusal.value)
    assert "and more" in text
    assert sum(clip_id in text for clip_id in ids) == text.count("(batch 2026-01-0") == 5


def test_a_name_of_nothing_is_said_to_be_so_and_how_clips_are_named(workspace: Workspace) -> None:
    drop(workspace, 1, Fight__one="1")
    for name in ("0a1", "0a1b", "f" * 20, "two.mp4", "ne.mp4", "%", "", "../../etc/passwd", "x\n"):
        with pytest.raises(
            UsageError, match=r"^No clip of this workspace is called .*, or the path under which it arr"
        ):
            clip_names.clip_id(workspace, name)


def test_a_forgotten_clip_is_found_by_its_id_and_only_its_tombstone_is_told(workspace: Workspace) -> None:
    gone = "ab" * 10
    bury(workspace, gone)
    assert clip_names.find(workspace, "abab").status == clip_names.FORGOTTEN
    with pytest.raises(UsageError, match=f"Clip {gone} was forgotten on 2026-02-02.* by ada: he asked"):
        clip_names.clip_id(workspace, gone)


def call(workspace: Workspace, *arguments: str) -> Any:
    """What a command prints: its JSON, or the sentence with which it refuses."""
    done = CliRunner().invoke(app, [*arguments, "--workspace", str(workspace.root), "--json"])
    return json.loads(done.stdout) if done.stdout else " ".join(done.output.split())


def test_every_command_takes_every_name(workspace: Workspace, open_batch: Callable[..., list[Any]]) -> None:
    clip_id = open_batch(workspace, clips=2)[1].clip_id
    for name in ("night/clip1.mp4", "clip1.mp4", clip_id[:6]):
        assert call(workspace, "explain", name)["clip_id"] == clip_id
        assert call(workspace, "lineage", name)["clip_id"] == clip_id
        assert call(workspace, "forget", name, "--dry-run")["clip_id"] == clip_id
    assert call(workspace, "label", "clip1.mp4", "Fight", "--by", "ada") == {
        "labelled": 0,
        "unchanged": 1,
        "unusable": [],
        "waiting": {},
        "in_holdout": 0,
    }
    failed = call(workspace, "overlay", "no such clip", "clip1.mp4")["failed"]
    assert list(failed) == ["no such clip", clip_id]  # it has no tracks yet
    refused = [call(workspace, verb, "no such clip") for verb in ("explain", "lineage", "forget")]
    refused += [call(workspace, "label", "no such clip", "Fight", "--by", "ada"), failed["no such clip"]]
    assert all("the path under which it arrived" in sentence for sentence in refused)


def test_explain_says_of_a_forgotten_clip_who_forgot_it_and_when(workspace: Workspace, tmp_path: Path) -> None:
    bury(workspace, "ab" * 10)
    told = call(workspace, "explain", "abab")
    assert (told["by"], told["at"][:10]) == ("ada", "2026-02-02")
    assert "There is no picture" in call(workspace, "explain", "abab", "--image", str(tmp_path / "a.png"))
