"""Two real models, trained and registered, judged on one frozen holdout: from evaluation to release."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from violence_ops import ledger, versioning
from violence_ops.errors import UserError, WorkspaceError
from violence_ops.files import folder_sha256, sha256_file, write_json, write_table
from violence_ops.params import Params
from violence_ops.records import CLIPS_SCHEMA, LABELS, ClipRecord
from violence_ops.registry import PACKAGE_TAG
from violence_ops.stages.labelling import labels
from violence_ops.stages.learning import assemble, train
from violence_ops.stages.releasing import evaluate, gate, holdout, promote
from violence_ops.store import releases
from violence_ops.store.models import load_version
from violence_ops.workspace import Workspace

QUICK = {
    "train.epochs": 6, "train.min_epochs": 2, "train.base_channels": 16, "dataset.min_clips_per_label": 2, "gate.min_clips": 4,
    "gate.min_f1": 0.0, "gate.min_recall": 0.0, "gate.min_specificity": 0.0, "gate.min_auc": 0.0, "gate.max_slice_loss": 1.0, "gate.max_ece": 1.0, "gate.resamples": 500,
    "gate.max_interval_loss": 1.0, "gate.max_latency_ms": 100000.0,
}  # fmt: skip


def _untimed(path) -> dict[str, object]:  # type: ignore[no-untyped-def]
    content = json.loads(path.read_text("utf-8"))
    del content["timings"]
    return content


def test_without_a_candidate_it_says_what_to_run(released: Workspace, params: Params) -> None:
    with pytest.raises(WorkspaceError, match="violence-ops train"):
        evaluate.run(released, params)


def test_without_a_holdout_it_says_what_to_run(released: Workspace, params: Params) -> None:
    with pytest.raises(WorkspaceError, match="holdout freeze"):
        evaluate.run(released, params, candidate="1")


@pytest.fixture
def frozen(
    workspace: Workspace, registry_template: Path, params: Params, seal_tracks: Callable[..., object]
) -> Workspace:
    """Registered versions and a holdout of sealed clips."""
    seal_tracks(workspace)
    holdout.freeze(workspace, params)
    shutil.copy(registry_template, workspace.root / "mlflow.db")
    return workspace


def test_a_held_out_clip_without_a_label_is_refused_not_guessed(frozen: Workspace, params: Params) -> None:
    clips = pq.read_table(frozen.holdout("v1") / "clips.parquet")
    unlabelled = clips.set_column(
        clips.schema.get_field_index("label"), "label", pa.nulls(len(clips), clips.schema.field("label").type)
    )
    _replace_clips(frozen, unlabelled)
    with pytest.raises(WorkspaceError, match="has no label: freeze another"):
        evaluate.run(frozen, params, candidate="1")


def _replace_clips(workspace: Workspace, clips: pa.Table) -> None:
    """Another clips table in holdout v1, as if it had been frozen so."""
    folder = workspace.holdout("v1")
    tracks = pq.read_table(folder / "tracks.parquet")
    shutil.rmtree(folder)
    holdout.write_frozen(folder, "v1", clips, tracks, {})


def test_a_holdout_with_another_table_than_was_frozen_is_refused(frozen: Workspace, params: Params) -> None:
    table, facts = (frozen.holdout("v1") / name for name in ("clips.parquet", "holdout.json"))
    table.unlink()  # it may be a link into DVC's cache
    write_table(table, CLIPS_SCHEMA.empty_table())
    with pytest.raises(
        WorkspaceError, match=r"clips\.parquet is not what was frozen: restore it with `violence-ops dvc checkout"
    ):
        evaluate.run(frozen, params, candidate="1")
    content = json.loads(facts.read_text("utf-8"))
    content["sha256"]["clips.parquet"] = sha256_file(table)
    for hashes in ({}, content["sha256"]):
        write_json(facts, content | {"sha256": hashes})
        with pytest.raises(
            WorkspaceError, match=r"holdout\.json is damaged .*: restore it with `violence-ops dvc checkout"
        ):
            evaluate.run(frozen, params, candidate="1")


def test_an_empty_holdout_is_said(released: Workspace, params: Params, seal_tracks: Callable[..., object]) -> None:
    seal_tracks(released)
    package = released.model_package("1")
    with pytest.MonkeyPatch.context() as patch:  # the registry's versions are empty: they were trained on nothing
        patch.setattr(holdout, "_seen", lambda _: set())
        holdout.freeze(released, params)
    assert not package.exists()
    _replace_clips(released, CLIPS_SCHEMA.empty_table())
    with pytest.raises(WorkspaceError, match="Holdout v1 holds no clip: freeze another one"):
        evaluate.run(released, params, candidate="1")


def test_a_damaged_model_is_said_and_nothing_is_judged_or_moved(
    released: Workspace, params: Params, seal_tracks: Callable[..., list[ClipRecord]],
    release: Callable[[Workspace, str], None],
) -> None:  # fmt: skip
    seal_tracks(released)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(holdout, "_seen", lambda _: set())
        holdout.freeze(released, params)
    release(released, "1")
    before = ledger.read(released)
    package = released.model_package("1")
    package.mkdir(parents=True)
    (package / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"package of model version 1 is damaged: delete .* downloaded again"):
        evaluate.run(released, params, candidate="1")
    assert not released.reports.exists() or not any(released.reports.rglob("evaluation.json"))
    with pytest.raises(UserError, match="no usable model package"):
        load_version(released, "1")
    assert ledger.read(released) == before


@pytest.mark.slow
def test_a_first_and_a_second_model_are_evaluated_judged_and_released(
    new_workspace: Callable[..., Workspace], seal_tracks: Callable[..., object]
) -> None:
    workspace = new_workspace("first", **QUICK)
    params = workspace.params()
    seal_tracks(workspace, clips=48, labels=lambda i: LABELS[i % 2])
    holdout.freeze(workspace, params)
    assemble.run(workspace, params)
    train.run(workspace, params)
    registry = releases.open_registry(workspace)

    first = evaluate.run(workspace, params)
    assert (first.report, first.reused) == ("1-vs-none", False)
    assert registry.tags("1")["report"] == "1-vs-none"
    files = workspace.report("1-vs-none")
    before, page = files.evaluation.read_bytes(), files.page.read_bytes()
    assert evaluate.run(workspace, params).reused
    assert (files.evaluation.read_bytes(), files.page.read_bytes()) == (before, page)
    figures = _untimed(files.evaluation)
    edited = json.loads(before)
    edited["candidate"]["metrics"]["f1"] = 0.123
    write_json(files.evaluation, edited)
    with pytest.raises(WorkspaceError, match="clips do not give"):
        evaluate.run(workspace, params)
    assert not evaluate.run(workspace, params, force=True).reused
    assert _untimed(files.evaluation) == figures
    assert figures["checks"]["candidate"] == {"clip_ids": [], "source_groups": [], "near_duplicates": []}

    assert gate.run(workspace, params).verdict == "pass"
    promote.run(workspace, params, approved_by="admin")
    assert registry.alias("champion") == "1"

    again = params.model_copy(update={"train": params.train.model_copy(update={"seed": 1})})
    train.run(workspace, again)
    second = evaluate.run(workspace, params)
    assert second.report == "2-vs-1"
    content = _untimed(workspace.report("2-vs-1").evaluation)
    assert content["champion"]["holdout_revision"] == content["candidate"]["holdout_revision"]
    assert all(clip["champion"] for clip in content["clips"])
    result = gate.run(workspace, params)
    assert result.champion == "1"
    assert [entry.event for entry in ledger.read(workspace)][-1] == "verdict"
    assert not {"evaluate", "gate"} & set(versioning.status(workspace))

    _a_stale_holdout_is_undecided(workspace, params)
    _leaking_training_data_is_refused(workspace, params)
    _a_changed_holdout_is_refused(workspace, params)


def _a_stale_holdout_is_undecided(workspace: Workspace, params: Params) -> None:
    clip = holdout.held_out(workspace)[0]
    labels.run(workspace, clip.clip_id, "NonFight" if clip.label == "Fight" else "Fight", by="ada")
    stale = "Holdout v1 is stale, 1 of its clips has another label by now"
    assert any(line.startswith(stale) for line in evaluate.run(workspace, params).lines())
    verdict = gate.run(workspace, params)
    assert any("1 of its clips has another label by now" in reason for reason in verdict.reasons)
    # the ledger is for good, so that it names no clip that may have to be forgotten
    assert clip.clip_id not in workspace.ledger.read_text() + Path(verdict.report).with_name("gate.json").read_text()
    labels.run(workspace, clip.clip_id, clip.label or "", by="ada")


def _leaking_training_data_is_refused(workspace: Workspace, params: Params) -> None:
    path = workspace.model_package("2") / "training.json"
    held = holdout.held_out(workspace)[0]
    content = json.loads(path.read_text("utf-8"))
    content["clips"].append({"clip_id": held.clip_id, "source_group": held.source_group, "perceptual_hash": None})
    path.write_text(json.dumps(content))
    releases.open_registry(workspace).set_tag(
        "2", PACKAGE_TAG, folder_sha256(path.parent)
    )  # as if it had been registered so
    evaluate.run(workspace, params, force=True)
    result = gate.run(workspace, params)
    assert result.verdict == "refuse"
    assert any("shares 1 clip and 1 source group with the holdout" in reason for reason in result.reasons)


def _a_changed_holdout_is_refused(workspace: Workspace, params: Params) -> None:
    table = workspace.holdout("v1") / "clips.parquet"
    content = table.read_bytes()
    table.unlink()
    table.write_bytes(content + b"x")
    with pytest.raises(UserError, match="not what was frozen"):
        evaluate.run(workspace, params)
