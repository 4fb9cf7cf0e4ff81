"""Labels that arrive later."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from violence_ops.errors import UsageError
from violence_ops.records import ClipRecord
from violence_ops.stages.labelling import labels, review_import
from violence_ops.stages.nightly import ingest
from violence_ops.stages.releasing import holdout
from violence_ops.store import batches, frozen, index, labels_file, tombstones
from violence_ops.store.index import open_catalog
from violence_ops.store.labels import effective_labels
from violence_ops.workspace import Workspace


@pytest.fixture
def clips(workspace: Workspace) -> list[str]:
    for name in ("a", "b", "c"):
        (workspace.inbox / f"{name}.mp4").write_bytes(name.encode())
    (workspace.inbox / "labels.csv").write_text("path,label\na.mp4,Fight\n")
    (batch_id,) = ingest.run(workspace, workspace.params(), night=date(2026, 1, 1)).batch_ids
    found = batches.read_manifest(workspace.batch(batch_id)).clips
    return [clip.clip_id for clip in sorted(found, key=lambda clip: clip.source_path)]


def test_the_last_label_counts_and_wins_over_that_of_the_inbox(workspace: Workspace, clips: list[str]) -> None:
    a, b, _ = clips
    assert effective_labels(workspace) == {a: ("Fight", "inbox")}
    labels.run(workspace, b, "fight", by="reviewer")
    labels.run(workspace, b, "NonFight", by="reviewer")
    assert labels.run(workspace, a, "NonFight", by="reviewer").labelled == 1
    assert labels.run(workspace, a, "NonFight", by="reviewer").to_dict() == {
        "labelled": 0,
        "unchanged": 1,
        "unusable": (),
        "waiting": {},
        "in_holdout": 0,
    }
    assert effective_labels(workspace) == {a: ("NonFight", "label"), b: ("NonFight", "label")}
    with open_catalog(workspace) as catalog:
        assert catalog.find([b])[b].label == "NonFight"


def test_a_label_that_makes_a_frozen_holdout_stale_says_so_and_what_to_do(
    workspace: Workspace, seal_tracks: Callable[..., list[ClipRecord]]
) -> None:
    seal_tracks(workspace)
    index.rebuild(workspace)
    holdout.freeze(workspace, workspace.params())
    held = next(clip for clip in frozen.held_out(workspace) if clip.label == "Fight")
    result = labels.run(workspace, held.clip_id, "NonFight", by="reviewer")
    assert (result.labelled, result.to_dict()["in_holdout"]) == (1, 1)
    assert re.search(r"frozen holdout.*: 1; .*`violence-ops holdout freeze`", "\n".join(result.lines()))
    again = labels.run(workspace, held.clip_id, "NonFight", by="reviewer")
    assert (again.in_holdout, "\n".join(again.lines()).count("holdout")) == (0, 0)


@pytest.mark.parametrize("column", ["clip_id", "path"])
def test_labels_come_from_a_file(workspace: Workspace, clips: list[str], tmp_path: Path, column: str) -> None:
    keys = clips if column == "clip_id" else ["a.mp4", "b.mp4", "c.mp4"]
    (tmp_path / "review.csv").write_text(f"{column},label\n{keys[1]},Fight\n{keys[2]},NonFight\n")
    assert labels.import_file(workspace, tmp_path / "review.csv", by="reviewer").labelled == 2
    assert effective_labels(workspace)[clips[2]] == ("NonFight", "label")


@pytest.mark.parametrize(
    "text", ["clip_id,label\n{b},Brawl\n", "clip_id,label\n{b},Fight\nxyz,Fight\n", "clip,label\n{b},Fight\n", "path,label\nnone.mp4,Fight\n"],
    ids=["label", "clip", "columns", "path"],
)  # fmt: skip
def test_a_file_with_a_mistake_changes_nothing(
    workspace: Workspace, clips: list[str], tmp_path: Path, text: str
) -> None:
    before = workspace.labels_file.read_bytes()
    (tmp_path / "review.csv").write_text(text.format(b=clips[1]))
    with pytest.raises(UsageError):
        labels.import_file(workspace, tmp_path / "review.csv", by="reviewer")
    assert workspace.labels_file.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "clip_id,label\n{b},Fight\n{a},Fight\n\n{b8},NonFight\n",
            "line 2 says Fight and line 5 says NonFight of clip {b};",
        ),
        ("clip_id,label\n{b},Fight\n0000,Fight\n", "review.csv line 3: No clip of this workspace is called '0000'"),
        ("clip_id,label\n,Fight\n", "review.csv line 2: it names no clip: write the clip's id"),
        ("{b},Fight\n", "review.csv does not name its columns: make clip_id,label or path,label its first line."),
        ("", "review.csv does not name its columns"),
    ],
    ids=["contradiction", "unknown", "empty cell", "no first line", "empty"],
)
def test_a_mistake_in_a_file_is_told_with_its_line(
    workspace: Workspace, clips: list[str], tmp_path: Path, text: str, said: str
) -> None:
    a, b, _ = clips
    before = workspace.labels_file.read_bytes()
    (tmp_path / "review.csv").write_text(text.format(a=a, b=b, b8=b[:8]))
    with pytest.raises(UsageError, match=re.escape(said.format(b=b))):
        labels.import_file(workspace, tmp_path / "review.csv", by="reviewer")
    assert workspace.labels_file.read_bytes() == before


def test_a_path_that_no_clip_has_may_be_one_of_a_forgotten_clip(
    workspace: Workspace, clips: list[str], tmp_path: Path
) -> None:
    (tmp_path / "review.csv").write_text("path,label\ngone.mp4,Fight\n")
    said = "review.csv line 2: no clip came from 'gone.mp4': write the clip's id"
    for forgotten in (False, True):
        if forgotten:
            tombstones.write(workspace, {"clip_id": "0" * 20})
            said = "review.csv line 2: no clip came from 'gone.mp4', or it was forgotten (delete the line then): write"
        with pytest.raises(UsageError, match=re.escape(said)):
            labels.import_file(workspace, tmp_path / "review.csv", by="reviewer")


def recurring(workspace: Workspace, clips: list[str]) -> str:
    """A second clip that came as a.mp4, a night later."""
    (workspace.inbox / "a.mp4").write_bytes(b"another night")
    (batch_id,) = ingest.run(workspace, workspace.params(), night=date(2026, 1, 2)).batch_ids
    (clip,) = batches.read_manifest(workspace.batch(batch_id)).clips
    return clip.clip_id


def test_a_line_whose_path_came_twice_is_refused_with_both_clips(
    workspace: Workspace, clips: list[str], tmp_path: Path
) -> None:
    newer = recurring(workspace, clips)
    (tmp_path / "review.csv").write_text("path,label\nb.mp4,Fight\na.mp4,NonFight\n")
    with pytest.raises(
        UsageError, match=rf"review.csv line 3: 'a.mp4' may be clip {clips[0]} .*; clip {newer} .*a.mp4"
    ):
        labels.import_file(workspace, tmp_path / "review.csv", by="reviewer")
    assert effective_labels(workspace) == {clips[0]: ("Fight", "inbox")}
    (tmp_path / "review.csv").write_text(f"clip_id,path,label\n{clips[0]},a.mp4,NonFight\n")
    labels.import_file(workspace, tmp_path / "review.csv", by="reviewer")
    assert labels_file.later_labels(workspace) == {clips[0]: "NonFight"}


def test_lines_may_be_shorter_than_a_first_line_that_names_a_million_columns(
    workspace: Workspace, clips: list[str], tmp_path: Path
) -> None:
    head = ",".join(["clip_id", "label", *map(str, range(1_000_000)), "path"])
    (tmp_path / "wide.csv").write_text("\n".join([head, *[f"{clips[0]},NonFight"] * 10_000]))
    result = labels.import_file(workspace, tmp_path / "wide.csv", by="reviewer")
    assert (result.labelled, result.unchanged) == (1, 0)


def test_a_late_row_of_the_inbox_is_about_the_newest_clip_of_its_path(workspace: Workspace, clips: list[str]) -> None:
    newer = recurring(workspace, clips)
    (workspace.inbox / "labels.csv").write_text("path,label\na.mp4,NonFight\n")
    labels.import_file(workspace, workspace.inbox / "labels.csv", by="reviewer")
    assert labels_file.later_labels(workspace) == {newer: "NonFight"}


def test_a_file_may_name_clips_by_their_first_digits_and_say_the_same_twice(
    workspace: Workspace, clips: list[str], tmp_path: Path
) -> None:
    _, b, c = clips
    (tmp_path / "review.csv").write_text(f"clip_id,path,label\n{b[:4]},,Fight\n{b},,fight\n,c.mp4,NonFight\n")
    assert labels.import_file(workspace, tmp_path / "review.csv", by="reviewer").labelled == 2
    assert labels_file.later_labels(workspace) == {b: "Fight", c: "NonFight"}


def test_a_file_that_cannot_be_read_is_named_with_the_reason(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.csv does not exist: name a CSV file with the columns label and"):
        labels.import_file(workspace, tmp_path / "none.csv", by="reviewer")
    with pytest.raises(UsageError, match=r"cannot be read \(Is a directory\): name a CSV file\.$"):
        labels.import_file(workspace, tmp_path, by="reviewer")
    (tmp_path / "table.xls").write_bytes(b"\xd0\xcf")
    with pytest.raises(UsageError, match="cannot be read as CSV in UTF-8"):
        labels.import_file(workspace, tmp_path / "table.xls", by="reviewer")


@pytest.mark.parametrize("nobody", [None, "", "  "])
def test_without_a_name_nothing_is_labelled(
    workspace: Workspace, clips: list[str], tmp_path: Path, nobody: str | None
) -> None:
    (tmp_path / "review.csv").write_text(f"clip_id,label\n{clips[1]},Fight\n")
    for refused in (
        lambda: labels.run(workspace, clips[1], "Fight", by=nobody),
        lambda: labels.import_file(workspace, tmp_path / "review.csv", by=nobody),
        lambda: review_import.run(workspace, tmp_path, by=nobody),
    ):
        with pytest.raises(UsageError, match="needs a name: pass --by NAME or set VIOLENCE_OPS_USER"):
            refused()
    assert effective_labels(workspace) == {clips[0]: ("Fight", "inbox")}


def refuse(workspace: Workspace, clip_id: str, reason: str) -> None:
    """As `validate` does."""
    with open_catalog(workspace) as catalog:
        batch_id = catalog.find([clip_id])[clip_id].batch_id
        assert batch_id
        (clip,) = (clip for clip in batches.read_manifest(workspace.batch(batch_id)).clips if clip.clip_id == clip_id)
        catalog.record([clip.with_(status="quarantined", reason=reason)], batch_id)


def test_a_clip_that_was_refused_for_its_bytes_gets_no_label_and_one_that_may_come_back_does(
    workspace: Workspace, clips: list[str], tmp_path: Path
) -> None:
    a, b, c = clips
    refuse(workspace, b, "truncated")
    refuse(workspace, c, "timeout")
    with pytest.raises(UsageError, match=f"no dataset will ever hold it: `violence-ops explain {b}` says why"):
        labels.run(workspace, b, "Fight", by="reviewer")
    (tmp_path / "review.csv").write_text(f"clip_id,label\n{a},NonFight\n{b},Fight\n{c},Fight\n")
    result = labels.import_file(workspace, tmp_path / "review.csv", by="reviewer")
    assert (result.labelled, result.unchanged, result.unusable) == (2, 0, (b,))
    assert f"unusable   1: no label was given to {b}, refused for" in "\n".join(result.lines())
    assert labels_file.later_labels(workspace) == {a: "NonFight", c: "Fight"}


def test_an_open_batch_that_cannot_be_read_hides_no_other_ones_labels(
    workspace: Workspace, clips: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = effective_labels(workspace)
    (workspace.inbox / "d.mp4").write_bytes(b"d")
    (batch_id,) = ingest.run(workspace, workspace.params(), night=date(2026, 1, 9)).batch_ids
    workspace.batch(batch_id).manifest.write_text("{")
    assert effective_labels(workspace) == before != {}
    assert f"Labels that came with batch {batch_id} are not counted" in caplog.text


def test_a_clip_that_is_not_there_is_refused(workspace: Workspace, clips: list[str]) -> None:
    with pytest.raises(UsageError, match="No clip"):
        labels.run(workspace, "0" * 20, "Fight", by="reviewer")
