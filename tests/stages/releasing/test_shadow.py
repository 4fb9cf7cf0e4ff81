"""A version in shadow judges the champion's nights; nothing follows from it, and nothing fails with it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from violence_ops.errors import UsageError, UserError, WorkspaceError
from violence_ops.evaluation.records import Prediction
from violence_ops.evaluation.shadow import comparison, disagreements, night, sentence
from violence_ops.files import sha256_file, write_table
from violence_ops.folders import Batch
from violence_ops.params import Params
from violence_ops.recognition.predict import predict_clip
from violence_ops.records import PREDICTIONS_SCHEMA, ClipRecord
from violence_ops.stages.learning import assemble, train
from violence_ops.stages.nightly import night as whole_night
from violence_ops.stages.releasing import reports, shadow
from violence_ops.store import batches
from violence_ops.store.models import load_version
from violence_ops.workspace import Workspace

Seal = Callable[..., list[ClipRecord]]


@pytest.fixture
def two_models(
    small_workspace: Callable[..., Workspace], seal_tracks: Seal, release: Callable[[Workspace, str], None]
) -> tuple[Workspace, Batch]:
    """Version 1 is champion and has judged a sealed night; version 2 is the candidate."""
    workspace = small_workspace(**{"train.epochs": 2, "train.learning_rate": 0.03})
    params = workspace.params()
    seal_tracks(workspace)
    assemble.run(workspace, params)
    train.run(workspace, params)
    release(workspace, "1")
    train.run(workspace, params.model_copy(update={"train": params.train.model_copy(update={"seed": 1})}))
    records = seal_tracks(workspace, clips=6, seed=5, night="2026-02-01")
    batch, package = workspace.batch(records[0].batch_id), load_version(workspace, "1")
    rows = [predict_clip(package, batches.read_tracks(batch, clip)).to_table("1") for clip in records]
    write_table(batch.table("predictions"), pa.concat_tables(rows))
    write_table(workspace.sealed_batches()[0].table("predictions"), PREDICTIONS_SCHEMA.empty_table())
    return workspace, batch


@pytest.mark.slow
def test_it_judges_a_champions_night_once_beside_it_and_says_where_they_differ(
    two_models: tuple[Workspace, Batch],
) -> None:
    workspace, batch = two_models
    params = workspace.params()
    assert shadow.run(workspace, params).version is None
    with pytest.raises(WorkspaceError, match="No version is in shadow"):
        shadow.show(workspace)
    assert shadow.start(workspace).version == "2"
    before = {path: sha256_file(path) for path in batch.sealed.iterdir() if path.is_file()}
    first = shadow.run(workspace, params)
    assert (first.version, first.batches, first.clips) == ("2", 1, 6)  # the night without a champion is left out
    predictions = batch.table("predictions")
    whole = predictions.read_bytes()
    predictions.write_bytes(b"")  # of what is judged nothing is read again
    assert shadow.run(workspace, params).clips == 0
    predictions.write_bytes(whole)
    assert {path: sha256_file(path) for path in batch.sealed.iterdir() if path.is_file()} == before
    own = pq.read_table(workspace.shadow("2", batch.batch_id))
    assert (own.schema.names, set(own["model_version"].to_pylist())) == (PREDICTIONS_SCHEMA.names, {"2"})
    found = shadow.show(workspace).found
    assert [(one.batch_id, one.clips) for one in found.nights] == [(batch.batch_id, 6)]
    assert found.differ == len(found.disagreements)
    status = subprocess.run(
        ["git", "status", "--porcelain", ".cache"], cwd=workspace.root, capture_output=True, check=True
    )
    assert status.stdout == b""
    assert shadow.stop(workspace).lines() == ["Version 2 is no longer in shadow; what it said stays."]
    assert shadow.stop(workspace).lines() == shadow.run(workspace, params).lines()
    assert shadow.run(workspace, params).version is None
    assert shadow.show(workspace, "2").found == found

    with pytest.raises(UsageError, match="is the champion"):
        shadow.start(workspace, "1")
    with pytest.raises(UserError, match="no version 9"):
        shadow.start(workspace, "9")
    _a_damaged_package_fails_the_shadow_and_not_the_night(workspace)


def test_a_damaged_table_fails_the_shadow_and_not_the_night(
    released: Workspace, release: Callable[[Workspace, str], None], seal_whole: Seal
) -> None:
    release(released, "1")
    shadow.start(released, "2")
    predictions = released.batch(seal_whole(released, clips=2, judged_by="1")[0].batch_id).table("predictions")
    predictions.write_bytes(predictions.read_bytes()[:-20])
    found = whole_night.run(released, released.params(), night=date(2026, 2, 1))
    assert found.shadow is None
    assert f"{predictions} is damaged" in (found.shadow_problem or "")


def test_nights_before_the_newest_are_left_alone_unread_unless_all_are_asked_for(
    released: Workspace, params: Params, release: Callable[[Workspace, str], None], seal_whole: Seal
) -> None:
    few = params.model_copy(update={"shadow": params.shadow.model_copy(update={"nights": 2})})
    release(released, "1")
    shadow.start(released, "2")
    old = [
        seal_whole(released, clips=2, seed=seed, night=day, judged_by="1")
        for seed, day in enumerate(("2026-01-01", "2026-01-02", "2026-01-02", "2026-01-03"))
    ]
    for seed, day in enumerate(("2026-02-01", "2026-02-01", "2026-02-02"), start=4):  # of no champion
        seal_whole(released, clips=2, seed=seed, night=day)
    _right_in_shadow(released, old[3], "2")
    damaged = released.batch(old[0][0].batch_id).table("predictions")
    damaged.write_bytes(damaged.read_bytes()[:-20])
    found = shadow.run(released, few)
    assert (found.batches, found.older) == (0, 2)
    assert found.lines()[1:] == ["2 older nights were left alone: `violence-ops shadow run --all` looks at all nights."]
    assert " of 2 clips of 1 night, 2026-01-03 (" in shadow.show(released).lines()[0]
    with pytest.raises(WorkspaceError, match="is damaged"):
        shadow.run(released, few, whole=True)
    with pytest.raises(WorkspaceError, match="is damaged"):
        shadow.run(released, params)


def test_what_a_kill_left_half_written_goes_with_the_next_run(
    released: Workspace, release: Callable[[Workspace, str], None]
) -> None:
    release(released, "1")
    shadow.start(released, "2")
    whole = released.shadow("3", "2026-02-01-00000005")
    write_table(whole, PREDICTIONS_SCHEMA.empty_table())
    left = whole.with_name(f".{whole.name}.x1y2z3.tmp")
    left.write_bytes(b"PAR1 and no end")
    shadow.run(released, released.params())
    assert (left.exists(), whole.exists()) == (False, True)


def test_what_it_says_of_a_start_and_of_a_version_that_became_champion(
    released: Workspace, params: Params, release: Callable[[Workspace, str], None], seal_whole: Seal
) -> None:
    release(released, "1")
    assert shadow.start(released, "2").lines() == [
        "Version 2 is in shadow: `violence-ops shadow run` lets it judge the newest sealed nights."
    ]
    seal_whole(released, clips=2, judged_by="1")
    release(released, "2")
    found = shadow.run(released, params)
    assert (found.version, found.batches) == ("2", 0)
    assert found.lines() == ["Version 2 is champion now: nothing to shadow."]


def _right_in_shadow(workspace: Workspace, clips: list[ClipRecord], version: str) -> None:
    """Let a version have said in shadow, of one batch, what the clips' labels say."""
    batch = workspace.batch(clips[0].batch_id)
    labels = {clip.clip_id: clip.label for clip in clips}
    rows = [
        row | {"model_version": version, "clip_probability": float(labels[row["clip_id"]] == "Fight"), "verdict": labels[row["clip_id"]]}
        for row in pq.read_table(batch.table("predictions")).to_pylist()
    ]  # fmt: skip
    write_table(workspace.shadow(version, batch.batch_id), pa.Table.from_pylist(rows, PREDICTIONS_SCHEMA))


@pytest.fixture
def in_shadow(released: Workspace, seal_whole: Seal) -> tuple[Workspace, list[ClipRecord]]:
    """A night of 12 clips (4 groups of 3), all of them Fight to champion 1, and version 2 in shadow right on each."""
    clips = seal_whole(released, clips=12, judged_by="1", surely=True)
    _right_in_shadow(released, clips, "2")
    return released, clips


def test_clips_whose_source_group_it_was_trained_on_do_not_count(
    in_shadow: tuple[Workspace, list[ClipRecord]], trained: Callable[..., None], write_evaluation: Callable[..., str]
) -> None:
    workspace, clips = in_shadow
    trained(workspace, "2", [next(clip for clip in clips if clip.source_group == "s0g01")])
    rest = [clip for clip in clips if clip.source_group != "s0g01"]
    calm = sum(clip.label == "NonFight" for clip in rest)
    found = shadow.show(workspace, "2").found
    assert (found.clips, found.left_out, found.differ) == (9, 3, calm)
    assert (found.labelled, found.shadow_right) == (calm, calm)
    assert {clip.clip_id for clip in found.disagreements} == {clip.clip_id for clip in rest if clip.label == "NonFight"}
    said = "Left out: 3 clips of source groups that it was trained on."
    assert shadow.show(workspace, "2").lines()[0].endswith(said)
    files = workspace.report(write_evaluation("2", "1"))
    reports.write_page(workspace, files, reports.read(files).evaluation, workspace.params())
    assert said in files.page.read_text()

    trained(workspace, "2", clips)
    assert shadow.show(workspace, "2").lines() == [
        "Version 2 has judged no clip in shadow that a champion has judged, too, and that is new to it. "
        "Left out: 12 clips of source groups that it was trained on."
    ]


def test_of_a_version_that_does_not_say_what_it_was_trained_on_the_comparison_says_so(
    in_shadow: tuple[Workspace, list[ClipRecord]],
) -> None:
    workspace, _ = in_shadow
    workspace.model_package("2").mkdir(parents=True)
    found = shadow.show(workspace, "2").found
    assert (found.clips, found.left_out) == (12, 0)
    assert sentence(found).endswith(" Which clips it was trained on is not known: they may be among these.")


def test_a_night_that_the_version_judged_as_champion_is_not_compared_with_itself(
    released: Workspace, release: Callable[[Workspace, str], None], seal_whole: Seal, trained: Callable[..., None]
) -> None:
    own = seal_whole(released, clips=6, judged_by="2")
    trained(released, "2", [])
    release(released, "1")
    shadow.start(released, "2")
    assert shadow.run(released, released.params()).batches == 0
    _right_in_shadow(released, own, "2")  # as versions of before November 2026 did
    with pytest.raises(WorkspaceError, match="no sealed batch holds verdicts of a champion to compare with"):
        shadow.show(released)
    other = seal_whole(released, clips=6, seed=1, night="2026-02-01", judged_by="1")
    _right_in_shadow(released, other, "2")
    assert [night.batch_id for night in shadow.show(released).found.nights] == [other[0].batch_id]


def _a_damaged_package_fails_the_shadow_and_not_the_night(workspace: Workspace) -> None:
    params = workspace.params()
    for batch in workspace.sealed_batches():  # as if `seal` had been here
        subprocess.run(["git", "tag", f"batch/{batch.batch_id}"], cwd=workspace.root, check=True)
    shadow.start(workspace, "2")
    workspace.shadow("2", "2026-02-01-00000005").unlink()
    shutil.rmtree(workspace.model_package("2"))
    for weights in workspace.mlflow_artifacts.rglob("model.safetensors"):
        weights.write_bytes(b"damaged")
    with pytest.raises(UserError, match="was exchanged or is damaged"):
        shadow.run(workspace, params)
    command = [sys.executable, "-m", "violence_ops.cli", "night", "--workspace", str(workspace.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "The version in shadow has not judged this night" in done.stderr


def test_why_nothing_was_judged_in_shadow_is_said_as_it_is(
    released: Workspace, params: Params, seal_whole: Seal
) -> None:
    with pytest.raises(UserError, match=r"no version 99; its versions: 1, 2, 3\.$"):
        shadow.start(released, "99")
    seal_whole(released, clips=2)
    shadow.start(released, "3")
    assert shadow.run(released, params).batches == 0
    with pytest.raises(
        WorkspaceError, match=r"no sealed batch holds verdicts of a champion .* the next night with a cha"
    ):
        shadow.show(released)
    seal_whole(released, clips=2, seed=1, night="2026-02-01", judged_by="1")
    with pytest.raises(
        WorkspaceError, match="Version 3 has judged nothing in shadow yet: run `violence-ops shadow run`"
    ):
        shadow.show(released)
    with pytest.raises(WorkspaceError, match="run `violence-ops shadow start 2` and `violence-ops shadow run`"):
        shadow.show(released, "2")


def _says(probability: float) -> Prediction:
    return Prediction(probability=probability, verdict="Fight" if probability > 0.5 else "NonFight", confidence=0.9)


def test_disagreements_are_counted_listed_by_distance_and_held_against_labels() -> None:
    clips = [
        ClipRecord(
            clip_id=name, sha256="a" * 64, batch_id="2026-02-01-00000005", source_path=f"{name}.mp4", source_group="g"
        )
        for name in "abcd"
    ]
    champion = {"a": _says(0.9), "b": _says(0.4), "c": _says(0.2)}
    own = {"a": _says(0.1), "b": _says(0.6), "c": _says(0.1), "d": _says(0.9)}  # d was new to the champion
    counted = night("2026-02-01-00000005", champion, own)
    assert (counted.clips, counted.differ, counted.champion_fights, counted.shadow_fights) == (3, 2, 1, 1)
    found = comparison("2", [counted], disagreements(clips, {"a": "Fight", "c": "Fight"}, champion, own))
    assert [clip.clip_id for clip in found.disagreements] == ["a", "b"]
    assert (found.labelled, found.shadow_right) == (1, 0)
    assert sentence(found) == (
        "In shadow, version 2 gave the champion's verdict on 1 of 3 clips of 1 night, 2026-02-01 (33%); it said Fight 1 time, the champion "
        "1 time. Of the clips they differ on 1 has a label: the shadow is right on 0."
    )
