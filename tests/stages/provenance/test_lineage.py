"""Lineage both ways, from what is recorded: models to clips, clips and batches to models and to what a deletion redoes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from violence_ops.errors import UsageError, WorkspaceError
from violence_ops.files import write_table
from violence_ops.records import CLIPS_SCHEMA, ClipRecord
from violence_ops.registry import Registry
from violence_ops.stages.labelling import labels
from violence_ops.stages.learning import assemble as assembling
from violence_ops.stages.learning import train as training
from violence_ops.stages.provenance import lineage, traces
from violence_ops.stages.releasing import evaluate, holdout
from violence_ops.store import batches, tombstones
from violence_ops.workspace import Workspace

Seal = Callable[..., list[ClipRecord]]
Trained = Callable[..., None]


@pytest.fixture
def history(
    released: Workspace,
    registry: Registry,
    seal_whole: Seal,
    trained: Trained,
    release: Callable[[Workspace, str], None],
) -> Workspace:
    """Two batches; model 1 was trained on the first without its holdout, model 2 (champion) on both, model 3 does not say."""
    first = seal_whole(released, clips=24, seed=1)
    for version in ("1", "2", "3"):
        released.model_package(version).mkdir(parents=True)
    holdout.freeze(released, released.params(), share=0.3)
    held = {clip.clip_id for clip in holdout.held_out(released)}
    second = seal_whole(released, clips=12, seed=2, night="2026-02-01", judged_by="1")
    usable = [clip for clip in first if clip.clip_id not in held]
    trained(released, "1", usable, "a" * 32)
    trained(released, "2", [*usable, *second], "b" * 32)
    for version, revision in (("1", "a" * 32), ("2", "b" * 32)):
        registry.set_tag(version, "dataset_revision", revision)
        registry.set_tag(version, "code_revision", f"code of {version}")
    release(released, "2")
    return released


def held_out(workspace: Workspace) -> str:
    return min(clip.clip_id for clip in holdout.held_out(workspace))


def test_a_model_names_its_clips_with_batch_label_source_and_side_and_its_batches_with_weights_and_code(
    history: Workspace,
) -> None:
    found = lineage.run(history, "champion")
    assert isinstance(found, lineage.ModelLineage)
    assert (found.version, found.aliases, found.dataset_revision) == ("2", ("champion",), "b" * 32)
    assert found.facts["code_revision"] == "code of 2"
    assert [batch["clips"] for batch in found.batches] == [24 - len(holdout.held_out(history)), 12]
    assert {batch["code_revision"] for batch in found.batches} == {"c0de"}
    assert {batch["pose_weights"]["name"] for batch in found.batches} == {"rtmo_small"}
    assert {row["side"] for row in found.clips} == {"train", "val"}
    assert {row["label_source"] for row in found.clips} == {"inbox"}
    assert not {row["clip_id"] for row in found.clips} & {clip.clip_id for clip in holdout.held_out(history)}
    text = "\n".join(found.lines())
    assert all(row["clip_id"] in text for row in found.clips)


def test_a_clip_names_the_models_that_saw_it_and_what_its_deletion_redoes(
    history: Workspace, write_evaluation: Callable[..., str]
) -> None:
    for label in ("Fight", "NonFight"):  # one of them is what it was called already
        labels.run(history, found_in_second(history), label, "ann")
    clip = lineage.run(history, found_in_second(history))
    assert isinstance(clip, lineage.ClipLineage)
    assert (clip.label, clip.label_source, clip.labelled_by) == ("NonFight", "label", "ann")
    assert "label        NonFight (from label, by ann on 20" in "\n".join(clip.lines())
    assert [use["version"] for use in clip.trained] == ["2"]
    assert clip.trained[0]["label_source"] == "inbox"  # as it was then
    assert clip.scored == ("1",)
    assert (clip.redo.models, clip.redo.silent_models) == (("2",), ("3",))
    assert clip.redo.dataset_revisions == ("b" * 32,)
    assert clip.redo.rows == {"clips": 1, "poses": 72, "tracks": 72, "predictions": 1}
    assert clip.redo.holdouts == ()

    kept = lineage.run(history, held_out(history))
    assert isinstance(kept, lineage.ClipLineage)
    assert (kept.trained, kept.judged, kept.redo.holdouts) == ((), (), ("v1",))
    assert kept.labelled_by is None
    name = write_evaluation("2", "1")
    path = history.report(name).evaluation
    path.write_text(path.read_text().replace(f"{0:020x}", held_out(history)))
    judged = lineage.run(history, held_out(history))
    assert (judged.judged, judged.redo.evaluations) == (("1", "2"), ("2-vs-1",))


def test_what_models_were_trained_on_is_found_without_a_copy_of_their_packages(
    history: Workspace, registry: Registry, trained: Trained, seal_whole: Seal, tmp_path: Path
) -> None:
    clips = seal_whole(history, clips=2, seed=3, night="2026-02-02")
    trained(history, "4", clips, "c" * 32)
    package = tmp_path / "package"
    history.model_package("4").rename(package)
    (package / "model.safetensors").write_bytes(b"not to be copied")
    with registry.start_run("two of one dataset", {}) as run:
        made = [registry.register(run.run_id, package, {"dataset_revision": "c" * 32}, example=False) for _ in range(2)]
    assert made == ["4", "5"]
    found = traces.find(history, [clips[0].clip_id])
    assert [(model.version, model.dataset_revision) for model in found.models] == [("4", "c" * 32), ("5", "c" * 32)]
    assert [[row["clip_id"] for row in model.clips] for model in found.models] == [[clips[0].clip_id]] * 2
    assert found.silent_models == ("3",)
    assert not any(history.model_package(version).exists() for version in made)


def test_a_later_model_tells_of_a_dataset_what_the_first_does_not_say(
    history: Workspace, registry: Registry, trained: Trained
) -> None:
    clip = batches.accepted_clips(history.sealed_batches()[0])[0]
    trained(history, "3", [clip], "c" * 32)
    (history.model_package("1") / "training.json").unlink()
    for version in ("1", "3"):
        registry.set_tag(version, "dataset_revision", "c" * 32)
    found = traces.find(history, [clip.clip_id])
    assert [model.version for model in found.models if model.dataset_revision == "c" * 32] == ["3"]
    assert "1" in found.silent_models


def found_in_second(workspace: Workspace) -> str:
    batch = workspace.sealed_batches()[-1]
    return min(path.stem for path in batch.videos.iterdir())


def test_a_batch_names_its_models_and_how_many_of_its_clips_each_saw(history: Workspace) -> None:
    first, second = (batch.batch_id for batch in history.sealed_batches())
    found = lineage.run(history, second[:12])
    assert isinstance(found, lineage.BatchLineage)
    assert (found.batch_id, found.statuses, found.scored) == (second, {"accepted": 12}, ("1",))
    assert [(use["version"], use["clips"]) for use in found.trained] == [("2", 12)]
    assert found.redo.rows["poses"] == 12 * 72
    both = lineage.run(history, first)
    assert [use["version"] for use in both.trained] == ["1", "2"]
    assert both.redo.holdouts == ("v1",)


def test_of_a_batch_without_an_accepted_clip_it_says_that_nothing_saw_it(history: Workspace) -> None:
    batch = history.sealed_batches()[1]
    rows = [clip.to_dict() | {"status": "quarantined", "reason": "too_dark"} for clip in batches.read_clips(batch)]
    write_table(batch.table("clips"), pa.Table.from_pylist(rows, CLIPS_SCHEMA))
    found = lineage.run(history, batch.batch_id)
    assert isinstance(found, lineage.BatchLineage)
    assert (found.statuses, found.trained, found.judged) == ({"quarantined": 12}, (), ())
    assert (found.redo.models, found.redo.holdouts, found.redo.dataset_revisions) == ((), (), ())


def test_a_batch_whose_data_is_not_pulled_is_not_said_to_have_trained_nothing(history: Workspace) -> None:
    batch = history.sealed_batches()[0]
    shutil.move(batch.sealed, history.root / "elsewhere")
    (history.batches / f"{batch.batch_id}.dvc").touch()
    with pytest.raises(
        WorkspaceError, match=f"sealed batch {batch.batch_id} is not pulled: run `violence-ops dvc pull`"
    ):
        lineage.run(history, batch.batch_id)


def test_a_model_of_before_batches_were_recorded_gets_them_from_the_catalog(
    history: Workspace, registry: Registry
) -> None:
    import json

    path = history.model_package("2") / "training.json"
    record = json.loads(path.read_text())
    old = [{key: row[key] for key in ("clip_id", "source_group", "perceptual_hash")} for row in record["clips"]]
    path.write_text(json.dumps(record | {"clips": old}))
    found = lineage.run(history, "2")
    assert {row["batch_id"] for row in found.clips} == {batch.batch_id for batch in history.sealed_batches()}
    assert "label not recorded" in "\n".join(found.lines())


@pytest.mark.parametrize("name", ["9", "0a1b", "2026-03", "no such thing", "../etc"])
def test_an_unknown_name_is_one_sentence(history: Workspace, name: str) -> None:
    with pytest.raises(UsageError, match=r"^[^\n]*or the path under which it arrived[^\n]*\.$"):
        lineage.run(history, name)
    with pytest.raises(WorkspaceError, match="There is no candidate yet"):
        lineage.run(history, "candidate")


def test_an_ambiguous_name_lists_what_it_may_be(history: Workspace) -> None:
    with pytest.raises(
        UsageError, match=r"'2026-' may be batch 2026-01-31-\S+; batch 2026-02-01-\S+: write more of it"
    ):
        lineage.run(history, "2026-")


def test_a_forgotten_clip_answers_with_its_tombstone(history: Workspace) -> None:
    clip_id = "f" * 20
    content = {
        "clip_id": clip_id,
        "sha256": "f" * 64,
        "by": "ann",
        "at": "2026-03-01",
        "reason": "asked",
        "models": ["2"],
    }
    tombstones.write(history, content)
    found = lineage.run(history, clip_id[:8])
    assert next(iter(found.lines())) == f"clip {clip_id} was forgotten on 2026-03-01 by ann: asked"
    assert found.to_dict()["models"] == ["2"]


@pytest.mark.slow
def test_what_training_and_evaluating_record_is_enough(workspace: Workspace, seal_whole: Seal) -> None:
    params = workspace.params({"train.epochs": 1, "train.min_epochs": 0, "gate.resamples": 100})
    records = {clip.clip_id: clip for clip in seal_whole(workspace, clips=24, seed=1)}
    assembling.run(workspace, params)
    training.run(workspace, params)
    evaluate.run(workspace, params)
    model = lineage.run(workspace, "candidate")
    assert isinstance(model, lineage.ModelLineage)
    assert {row["clip_id"]: row["label"] for row in model.clips} == {
        row["clip_id"]: records[row["clip_id"]].label for row in model.clips
    }
    assert {row["batch_id"] for row in model.clips} == {workspace.sealed_batches()[0].batch_id}
    assert model.judged == {"report": "1-vs-none", "holdout": "v1", "clips": len(holdout.held_out(workspace))}
    assert model.facts.keys() >= {"code_revision", "pose_weights", "holdout_revision", "workspace_revision"}
    clip = lineage.run(workspace, model.clips[0]["clip_id"])
    assert isinstance(clip, lineage.ClipLineage)
    assert [use["version"] for use in clip.trained] == ["1"]
    assert clip.redo.dataset_revisions == (model.dataset_revision,)
    kept = lineage.run(workspace, held_out(workspace))
    assert isinstance(kept, lineage.ClipLineage)
    assert kept.judged == ("1",)
