"""`retry`: clips that were refused for no fault of their bytes get another chance, and none is ever lost or in two batches."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from violence_ops.cli.program import app
from violence_ops.errors import ExpectationsFailed, ServiceUnavailable, UsageError, WorkspaceError
from violence_ops.stages.nightly import ingest, retry, seal, validate
from violence_ops.stages.provenance import forget
from violence_ops.stages.upkeep import status
from violence_ops.store import batches, index, quarantine
from violence_ops.store.index import open_catalog
from violence_ops.workspace import Workspace

NIGHT = date(2026, 1, 1)
BUSY = {"validation.timeout_s": 0.001, "validation.seconds_per_video_second": 0.0}
FACTS = {
    "label": "Fight",
    "source_group": 'shop, "7"',
    "camera_id": "door",
    "recorded_at": "2026-01-01T03:00:00+00:00",
}


def take_in(workspace: Workspace) -> ingest.IngestResult:
    return ingest.run(workspace, workspace.params(), night=NIGHT)


def call(workspace: Workspace, *arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments, "--workspace", str(workspace.root)])
    assert done.exit_code == 0, done.output
    return done.stdout


def known(workspace: Workspace, clip_id: str) -> tuple[str, str | None, str | None]:
    with open_catalog(workspace) as catalog:
        clip = catalog.find([clip_id])[clip_id]
    return clip.status, clip.reason, clip.batch_id


@pytest.fixture
def refused(workspace: Workspace, clip_folder: Path) -> dict[str, Any]:
    """The `reason.json` of a clip that ran out of time; its batch, which has no other, is open."""
    shutil.copy(clip_folder / "clip0.mp4", workspace.inbox / "one.mp4")
    (workspace.inbox / "labels.csv").write_text(
        'path,label,source_group,camera_id,recorded_at\none.mp4,Fight,"shop, ""7""",door,2026-01-01T03:00:00+00:00\n'
    )
    take_in(workspace)
    assert validate.run(workspace, workspace.params(BUSY)).quarantined == {"timeout": 1}
    (entry,) = quarantine.entries(workspace)
    return entry


def test_in_an_open_batch_the_verdict_is_taken_back(workspace: Workspace, refused: dict[str, Any]) -> None:
    assert retry.run(workspace, reason="timeout", dry_run=True).batch == [refused["clip_id"]]
    assert "`violence-ops retry --reason timeout`" in call(workspace, "explain", "one.mp4")
    said = call(workspace, "retry")
    assert "0 clips refused for timeout went back to the inbox, 1 to their open batch." in said
    assert "`violence-ops night`, or the next run of nightly_ingestion in Airflow" in said
    assert retry.run(workspace, reason="timeout").batch == []
    assert validate.run(workspace, workspace.params()).accepted == 1
    assert known(workspace, refused["clip_id"]) == ("accepted", None, refused["batch_id"])
    assert (
        retry.run(workspace, reason="timeout").to_dict()
        == retry.RetryResult("timeout", [], [], [], [], dry_run=False).to_dict()
    )


def test_a_verdict_that_is_taken_back_while_a_validation_reads_it_is_given_anew(
    workspace: Workspace, refused: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = validate.load_table

    def read_and_retry(path: Path) -> object:
        table = read(path)
        assert retry.run(workspace, reason="timeout").batch == [refused["clip_id"]]
        return table

    with monkeypatch.context() as patched:
        patched.setattr(validate, "load_table", read_and_retry)
        assert validate.run(workspace, workspace.params(BUSY)).quarantined == {"timeout": 1}
    assert validate.run(workspace, workspace.params()).accepted == 1


@pytest.mark.slow  # sealing loads Great Expectations
def test_a_clip_taken_back_between_validation_and_poses_keeps_its_batch_open_until_it_is_judged(
    workspace: Workspace,
    refused: dict[str, Any],
    write_annotations: Callable[[Workspace, str], None],
) -> None:
    batch_id, params = refused["batch_id"], workspace.params()
    assert retry.run(workspace, reason="timeout").batch == [refused["clip_id"]]
    with pytest.raises(WorkspaceError, match=r"1 clip of batch .* must be validated: run `violence-ops validate`"):
        seal.run(workspace, params)
    assert validate.run(workspace, params, batch_id=batch_id).accepted == 1
    write_annotations(workspace, batch_id)
    assert seal.run(workspace, params).clips == 1
    assert known(workspace, refused["clip_id"]) == ("accepted", None, batch_id)


@pytest.mark.slow  # sealing loads Great Expectations
def test_a_night_under_way_is_sealed_as_it_is_and_the_clip_goes_to_the_inbox_then(
    workspace: Workspace,
    refused: dict[str, Any],
    clip_folder: Path,
    write_annotations: Callable[[Workspace, str], None],
) -> None:
    seal.run(workspace, workspace.params())
    retry.run(workspace, reason="timeout")
    shutil.copy(clip_folder / "clip1.mp4", workspace.inbox / "two.mp4")
    (batch_id,) = take_in(workspace).batch_ids
    again = refused["clip_id"]
    (other,) = {clip.clip_id for clip in batches.read_manifest(workspace.batch(batch_id)).clips} - {again}
    assert validate.run(workspace, workspace.params(BUSY), clip_ids=[again]).quarantined == {"timeout": 1}
    assert validate.run(workspace, workspace.params(), clip_ids=[other]).accepted == 1
    assert retry.run(workspace, reason="timeout", dry_run=True).batch == [again]
    write_annotations(workspace, batch_id)

    said = call(workspace, "retry")
    assert "0 clips refused for timeout went back to the inbox, 0 to their open batch." in said
    assert "1 waits in quarantine because of a night that is under way: once it is sealed, `violence-ops retry" in said
    assert seal.run(workspace, workspace.params()).batch_ids == [batch_id]
    found = retry.run(workspace, reason="timeout")
    assert (found.inbox, found.waiting) == ([again], [])


def test_a_clip_taken_back_after_its_shard_was_validated_is_judged_by_the_checkpoint(
    workspace: Workspace, refused: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate.expectations, "check_clips", lambda *_: None)
    assert retry.run(workspace, reason="timeout").batch == [refused["clip_id"]]
    validate.checkpoint(workspace, workspace.params())
    assert known(workspace, refused["clip_id"]) == ("accepted", None, refused["batch_id"])


@pytest.mark.parametrize(("stops", "place"), [(False, "waiting"), (True, "batch")], ids=["passed", "stopped"])
def test_from_its_checkpoint_on_a_batch_is_left_alone_also_before_there_are_poses_unless_it_stops_there(
    workspace: Workspace, refused: dict[str, Any], monkeypatch: pytest.MonkeyPatch, stops: bool, place: str
) -> None:
    meanwhile = []

    def check(*_: object) -> None:
        meanwhile.extend(retry.run(workspace, reason="timeout").waiting)
        if stops:
            raise ExpectationsFailed("Too many clips are in quarantine.")

    monkeypatch.setattr(validate.expectations, "check_clips", check)
    with pytest.raises(ExpectationsFailed) if stops else nullcontext():
        validate.checkpoint(workspace, workspace.params(BUSY))
    assert meanwhile == [refused["clip_id"]]
    found = retry.run(workspace, reason="timeout")
    assert {name: getattr(found, name) for name in ("inbox", "batch", "waiting")} == {
        "inbox": [],
        "batch": [],
        "waiting": [],
        place: [refused["clip_id"]],
    }


def test_a_clip_of_a_batch_that_could_not_be_sent_is_not_lost(workspace: Workspace, refused: dict[str, Any]) -> None:
    shutil.rmtree(workspace.remote)
    workspace.remote.write_text("a file where the remote was")
    with pytest.raises(ServiceUnavailable):
        seal.run(workspace, workspace.params())
    found = retry.run(workspace, reason="timeout")
    assert (found.inbox, found.waiting, found.kept) == ([], [refused["clip_id"]], [])
    workspace.remote.unlink()
    workspace.remote.mkdir()
    seal.run(workspace, workspace.params())
    assert retry.run(workspace, reason="timeout").inbox == [refused["clip_id"]]


def test_a_clip_whose_refusal_is_sealed_stays_and_that_is_said(
    workspace: Workspace, refused: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As versions of before November 2026 sealed a batch."""
    with monkeypatch.context() as patched:
        for module in ("stages.nightly.seal", "catalog"):
            patched.setattr(f"violence_ops.{module}.TRANSIENT", ())
        seal.run(workspace, workspace.params())
    found = retry.run(workspace, reason="timeout")
    assert (found.inbox, found.waiting, found.kept) == ([], [], [refused["clip_id"]])
    assert found.lines()[-1] == "1 stay in quarantine: a batch was sealed with their refusal in it."


def test_a_sealed_batch_does_without_it_and_another_takes_it_with_all_it_came_with(
    workspace: Workspace, refused: dict[str, Any], clip_folder: Path
) -> None:
    clip_id = refused["clip_id"]
    seal.run(workspace, workspace.params())
    assert known(workspace, clip_id) == ("quarantined", "timeout", None)
    index.rebuild(workspace)
    assert known(workspace, clip_id) == ("quarantined", "timeout", None)
    assert (status.run(workspace).inbox, status.run(workspace).again) == (0, 0)
    assert retry.run(workspace, reason="timeout").inbox == [clip_id]
    assert retry.run(workspace, reason="timeout").inbox == []
    (found,) = workspace.inbox.glob("*/*.mp4")
    assert f"waits as {found.relative_to(workspace.root)} for the next night" in call(workspace, "explain", "one.mp4")
    assert (status.run(workspace).inbox, status.run(workspace).again) == (1, 1)
    assert "quarantine  1 timeout, of which 1 waits in the inbox again" in call(workspace, "status")
    assert found.read_bytes() == (clip_folder / "clip0.mp4").read_bytes()

    again = take_in(workspace)  # of the same night, so that it is the same clips as before
    assert (again.claimed, again.quarantined) == (1, {})
    assert again.batch_ids != [refused["batch_id"]]
    assert "claimed, not validated yet" in call(workspace, "explain", "one.mp4")
    assert (status.run(workspace).inbox, status.run(workspace).again, status.run(workspace).quarantine) == (0, 0, {})
    assert validate.run(workspace, workspace.params()).accepted == 1
    (clip,) = batches.accepted_clips(workspace.batch(again.batch_ids[0]))
    assert {name: getattr(clip, name) for name in FACTS} == FACTS
    index.rebuild(workspace)
    assert known(workspace, clip_id) == ("accepted", None, again.batch_ids[0])
    assert call(workspace, "explain", "one.mp4").startswith(f"Clip {clip_id}: accepted")


def _killed_at(module: Any, name: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends where it calls the function."""
    with monkeypatch.context() as patched:
        patched.setattr(module, name, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            retry.run(workspace, reason="timeout")


def test_a_night_of_which_every_clip_ran_out_of_time_is_said_to_have_refused_them(
    workspace: Workspace, refused: dict[str, Any]
) -> None:
    seal.run(workspace, workspace.params())
    batch_id = refused["batch_id"]
    assert f"last batch  {batch_id}: sealed, 1 quarantined (timeout)" in call(workspace, "status")
    last = status.run(workspace).last_batch
    assert last is not None
    assert (last.clips, last.refused) == ({"quarantined": 1}, {"timeout": 1})
    retry.run(workspace, reason="timeout")
    assert f"last batch  {batch_id}: sealed, 1 quarantined (timeout)" in call(workspace, "status")


def test_killed_between_inbox_and_quarantine_it_finishes_and_the_clip_comes_once(
    workspace: Workspace, refused: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seal.run(workspace, workspace.params())
    _killed_at(quarantine, "release", workspace, monkeypatch)
    assert retry.run(workspace, reason="timeout").inbox == [refused["clip_id"]]
    assert len(list(workspace.inbox.rglob("*.mp4"))) == 1
    again = take_in(workspace)
    assert (again.claimed, again.duplicates) == (1, 0)


def test_what_waits_in_the_inbox_is_forgotten_with_its_clip(
    released: Workspace, refused: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seal.run(released, released.params())
    _killed_at(retry, "write_text", released, monkeypatch)
    assert len(list(released.work.rglob("*.mp4"))) == 1
    forget.run(released, released.params(), refused["clip_id"], by="ann", reason="the person asked")
    assert list(released.root.rglob("*.mp4")) == []
    assert retry.run(released, reason="timeout").inbox == []
    assert not released.retrying.exists()


def test_a_file_in_the_inbox_that_is_only_called_so_does_not_take_the_originals_place(
    workspace: Workspace, refused: dict[str, Any]
) -> None:
    seal.run(workspace, workspace.params())
    foreign = workspace.inbox / "again-0" / f"{refused['clip_id']}.mp4"
    foreign.parent.mkdir()
    foreign.write_bytes(b"another clip")
    link = workspace.inbox / "again-1" / foreign.name
    link.parent.mkdir()
    link.symlink_to(workspace.quarantined(refused["clip_id"]) / refused["original"])
    retry.run(workspace, reason="timeout")
    again = take_in(workspace)
    assert (again.claimed, again.quarantined) == (2, {"not_a_regular_file": 1})


def test_a_file_with_a_hostile_name_comes_back_under_a_proper_one(workspace: Workspace) -> None:
    (workspace.inbox / "=a\n\\b.mp4").write_bytes(b"a clip")
    assert take_in(workspace).quarantined == {"unsafe_name": 1}
    assert len(retry.run(workspace, reason="unsafe_name").inbox) == 1
    assert take_in(workspace).claimed == 1


def test_of_the_clips_refused_for_want_of_a_label_only_those_come_back_that_have_one_by_now(
    new_workspace: Callable[..., Workspace],
) -> None:
    workspace = new_workspace(**{"validation.require_label": True})
    for name in ("a", "b"):
        (workspace.inbox / f"{name}.mp4").write_bytes(name.encode())
    assert take_in(workspace).quarantined == {"unlabelled": 2}
    labelled, other = (entry["clip_id"] for entry in quarantine.entries(workspace))
    assert f"`violence-ops label {labelled} LABEL --by NAME`, then" in call(workspace, "explain", labelled)
    said = call(workspace, "label", labelled, "Fight", "--by", "ada")
    assert "1 in quarantine: `violence-ops retry --reason unlabelled` brings it back" in said
    said = call(workspace, "explain", labelled)
    assert "label    Fight (from label, by ada, " in said
    assert "again    `violence-ops retry --reason unlabelled`" in said

    found = retry.run(workspace, reason="unlabelled")
    assert (found.inbox, found.unlabelled) == ([labelled], [other])
    assert f"1 has no label yet and would be refused again, such as {other}:" in found.lines()[-1]
    assert "quarantine" not in call(workspace, "label", labelled, "NonFight", "--by", "ada"), "it is in the inbox"
    taken = take_in(workspace)
    assert (taken.claimed, taken.notices) == (1, []), "its folder's name is ours and no label that is wrong"
    assert [path.name for path in workspace.inbox.iterdir()] == [".gitkeep"]
    workspace.params_file.write_text(
        workspace.params_file.read_text().replace("require_label: true", "require_label: false")
    )
    assert retry.run(workspace, reason="unlabelled").inbox == [other], "nobody asks for a label any more"


def test_a_reason_in_the_bytes_is_for_good(workspace: Workspace) -> None:
    with pytest.raises(UsageError) as refusal:
        retry.run(workspace, reason="decode_error")
    assert "'decode_error' would be refused again: give one of timeout, unlabelled, unsafe_name with" in str(
        refusal.value
    )
