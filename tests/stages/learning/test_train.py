"""Training as a stage: runs, versions, the alias `candidate`, and when training again is worth while."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from violence_ops import versioning
from violence_ops.cli.program import app
from violence_ops.errors import ParamsError, ServiceUnavailable, UsageError, UserError, WorkspaceError
from violence_ops.files import fingerprint, write_json
from violence_ops.recognition import families
from violence_ops.recognition import train as training
from violence_ops.records import LABELS, ClipRecord
from violence_ops.stages.learning import assemble, train, worth_training
from violence_ops.stages.learning.dataset import Dataset
from violence_ops.stages.provenance import lineage
from violence_ops.stages.releasing import holdout
from violence_ops.store import labels_file
from violence_ops.store.releases import open_registry
from violence_ops.workspace import Workspace

Seal = Callable[..., list[ClipRecord]]


def test_without_a_dataset_it_says_what_to_run(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="holds no dataset: run `violence-ops assemble` first"):
        train.run(workspace, workspace.params())


@pytest.mark.parametrize(
    ("clips", "per_group", "label", "why"),
    [
        (6, 3, lambda i: None, "No sealed batch holds a labelled clip"),
        (6, 3, lambda i: "Fight", "label clips of the other class too"),
        (6, 3, lambda i: ("Fight", "NonFight")[i % 2], "Only 3 "),
        (12, 12, lambda i: ("Fight", "NonFight")[i % 2], "No holdout can be frozen"),
        (12, 3, lambda i: ("Fight", "NonFight")[i % 2], None),
    ],
    ids=["none", "one class", "few", "one group", "enough"],
)
def test_training_is_not_worth_while_where_assembling_would_refuse(
    workspace: Workspace, seal_tracks: Seal, clips: int, per_group: int, label: Callable[[int], str], why: str | None
) -> None:
    seal_tracks(workspace, clips=clips, per_group=per_group, labels=label)
    worth = worth_training.run(workspace, workspace.params())
    assert bool(worth) == (why is None)
    assert (why or "Nothing was trained yet") in worth.reason
    if why:
        with pytest.raises(UserError, match=why):
            assemble.run(workspace, workspace.params())


def test_a_dataset_of_which_a_part_is_another_is_not_trained_on(workspace: Workspace, seal_tracks: Seal) -> None:
    seal_tracks(workspace)
    assemble.run(workspace, workspace.params())
    shutil.copyfile(workspace.dataset / "val.parquet", workspace.root / "other")
    (workspace.root / "other").replace(workspace.dataset / "train.parquet")  # as if assembling had been killed half-way
    with pytest.raises(
        WorkspaceError, match=r"train.parquet is not what split.json describes: run `violence-ops assemble`"
    ):
        train.run(workspace, workspace.params())
    workspace.write_progress("train", {"dataset_revision": "x"})
    assert "run `violence-ops assemble` again" in worth_training.run(workspace, workspace.params()).reason


@pytest.mark.parametrize(
    ("command", "setting", "was", "value"),
    [
        ("train", "windows.persons", "3", 2),
        ("train", "dataset.validation_share", "0.25", 0.4),
        ("sweep", "holdout.seed", "7", 8),
        ("dataset export", "windows.frames_per_second", "None", 2),
    ],
)
def test_a_dataset_assembled_with_other_settings_is_refused_until_it_is_assembled_with_them(
    workspace: Workspace, seal_tracks: Seal, command: str, setting: str, was: str, value: float
) -> None:
    seal_tracks(workspace)
    assemble.run(workspace, workspace.params())
    arguments = [*command.split(), "--workspace", str(workspace.root), "-S", f"{setting}={value}"]
    arguments += [str(workspace.root / "out")] * (command == "dataset export")
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert f"was assembled with {setting}={was}, not {setting}={value}" in done.stderr
    assert done.stderr.endswith(": run `violence-ops assemble` with the same settings.\n")
    changed = workspace.params({setting: value})
    assemble.run(workspace, changed)
    assert Dataset.read(workspace, changed).split[setting.partition(".")[2]] == value
    with pytest.raises(WorkspaceError, match=f"{setting}={value}"):
        Dataset.read(workspace, workspace.params())


@pytest.mark.parametrize("command", ["assemble", "train", "sweep"])
def test_a_setting_that_a_verb_does_not_look_at_is_refused(workspace: Workspace, command: str) -> None:
    done = CliRunner().invoke(app, [command, "--workspace", str(workspace.root), "-S", "pose.weights=rtmo-s"])
    assert done.exit_code == UsageError.exit_code
    assert "pose.weights would change nothing: this command looks at windows, dataset, holdout" in done.stderr


@pytest.mark.parametrize("rate", [None, 10.0], ids=["as found", "10 a second"])
def test_of_a_dataset_that_does_not_say_its_rate_the_steps_of_its_skeletons_do(
    workspace: Workspace, seal_tracks: Seal, rate: float | None
) -> None:
    seal_tracks(workspace)  # 15 frames a second
    params = workspace.params({"windows.frames_per_second": rate})
    assemble.run(workspace, params)
    path = workspace.dataset / "split.json"
    split = json.loads(path.read_text())
    del split["frames_per_second"]
    write_json(path, split)
    Dataset.read(workspace, params)
    for other in {None, 5.0, 10.0} - {rate}:
        with pytest.raises(WorkspaceError, match=r"was assembled with windows\.frames_per_second="):
            Dataset.read(workspace, workspace.params({"windows.frames_per_second": other}))


@pytest.mark.parametrize("family", ["feature_line", "feature_forest"])
def test_a_family_without_a_network_has_nothing_to_sweep(workspace: Workspace, seal_tracks: Seal, family: str) -> None:
    seal_tracks(workspace)
    assemble.run(workspace, workspace.params())
    done = CliRunner().invoke(app, ["sweep", "--workspace", str(workspace.root), "-S", f"train.family={family}"])
    assert done.exit_code == ParamsError.exit_code
    assert f"train.family {family} has no network, so there is nothing to sweep" in done.stderr
    assert not list(workspace.root.glob("mlflow.db"))


@pytest.mark.parametrize(
    "damage",
    [
        {"sha256": {}}, {"sha256": "x"}, {"sha256": ["x"]}, {"sha256": None}, {"sha256": {"train.parquet": 7}},
        {"revision": ["x"]}, {"revision": "ab" * 16}, {"clips": "x"}, {"clips": {"train": 7}}, {"labels_version": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_a_split_of_the_wrong_kind_is_one_sentence(workspace: Workspace, damage: dict[str, object]) -> None:
    hashes = dict.fromkeys(assemble.TABLES, "ab" * 32)
    good = {"revision": fingerprint(hashes), "clips": {"train": {}, "val": {}}, "sha256": hashes}
    path = workspace.dataset / "split.json"
    write_json(path, good)
    with pytest.raises(WorkspaceError, match=r"train\.parquet is not what split\.json describes"):
        train.run(workspace, workspace.params())
    write_json(path, good | damage)
    with pytest.raises(WorkspaceError, match=r"split\.json is damaged \(.*\): run `violence-ops assemble` again"):
        train.run(workspace, workspace.params())


@pytest.mark.slow
def test_every_training_is_a_run_and_a_version_and_the_newest_is_the_candidate(
    small_workspace: Callable[..., Workspace], seal_tracks: Seal
) -> None:
    workspace = small_workspace(**{"train.epochs": 2})
    params = workspace.params()
    assert not worth_training.run(workspace, params)
    seal_tracks(workspace)
    assert worth_training.run(workspace, params).reason.startswith("Nothing was trained yet")
    frozen = holdout.ensure(workspace, params)
    assert frozen is not None
    revision = assemble.run(workspace, params).revision
    epochs: list[tuple[int, int]] = []
    first = train.run(workspace, params, progress=lambda what, done, total: epochs.append((done, total)))
    assert epochs == [(1, 2), (2, 2)]
    assert not worth_training.run(workspace, params)
    second = train.run(workspace, params)

    assert (first.model_version, second.model_version) == ("1", "2")
    assert first.run_id != second.run_id
    assert first.metrics == second.metrics
    registry = open_registry(workspace)
    assert registry.alias("candidate") == "2"
    assert registry.alias("champion") is None
    tags = registry.tags("2")
    assert tags["dataset_revision"] == revision == workspace.read_progress("train")["dataset_revision"]
    assert (tags["holdout"], tags["holdout_revision"]) == ("v1", frozen.revision)
    assert tags["labels_version"] == "0"
    assert all(tags[name] for name in ("code_revision", "workspace_revision", "params_digest", "threshold"))
    assert tags["trained_in"] == families.precision(params.train, params.windows)
    assert "pose_weights" not in tags  # the batches do not say

    folder = registry.download("2", workspace.model_package("2"))
    training = json.loads((folder / "training.json").read_text())
    assert training["dataset_revision"] == revision
    assert not {row["source_group"] for row in training["clips"]} & set(frozen.groups)
    _check_run(registry.uri, second.run_id)

    seal_tracks(workspace, seed=1)
    worth = worth_training.run(workspace, params)
    assert worth
    assert "24 labelled clips are new" in worth.reason
    assert not worth_training.run(workspace, workspace.params({"train.min_new_clips": 25}))


@pytest.mark.slow
def test_a_training_says_how_many_clips_were_labelled_since_its_dataset_was_assembled(
    small_workspace: Callable[..., Workspace], seal_tracks: Seal
) -> None:
    workspace = small_workspace(**{"train.family": "feature_line", "holdout.auto_freeze": False})
    records = seal_tracks(workspace)
    assemble.run(workspace, workspace.params())
    first = train.run(workspace, workspace.params())
    assert (first.not_assembled, any("labelled since" in line for line in first.lines())) == (0, False)
    labels_file.record(workspace, {one.clip_id: LABELS[one.label == LABELS[0]] for one in records[:2]}, "ada")
    second = train.run(workspace, workspace.params())
    assert second.to_dict()["not_assembled"] == 2
    advice = "2 clips have been labelled since the dataset was assembled: `violence-ops assemble`, then train again."
    assert second.lines()[-1] == advice
    assemble.run(workspace, workspace.params())
    assert worth_training.not_assembled(workspace, workspace.params(), Dataset.read(workspace)) == 0


@pytest.mark.slow
def test_a_training_with_settings_of_its_own_leaves_git_clean_and_says_what_became_of_the_candidate(
    small_workspace: Callable[..., Workspace], seal_tracks: Seal
) -> None:
    workspace = small_workspace(**{"train.family": "feature_line", "holdout.auto_freeze": False})
    seal_tracks(workspace)
    assemble.run(workspace, workspace.params())
    git = ["git", "-C", str(workspace.root), "status", "--short"]
    before = subprocess.run(git, capture_output=True, check=True).stdout

    def command(*arguments: str) -> str:
        program = [sys.executable, "-m", "violence_ops.cli", "train", "--workspace", str(workspace.root), *arguments]
        done = subprocess.run(program, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr.strip() == ""
        assert subprocess.run(git, capture_output=True, check=True).stdout == before
        return done.stdout

    first = command()
    assert "this version, before it none\n" in first
    assert "params.yaml" not in first
    assert not re.search(r"\d\.\d{4}", first), "figures are rounded for people"
    second = command("-S", "train.seed=5")
    assert "this version, before it version 1\n" in second
    assert "the next `violence-ops dvc repro` trains with those again and takes the alias.\n" in second
    third = json.loads(command("-S", "train.seed=6", "--json"))
    assert (third["candidate"], third["candidate_before"], third["one_off"]) == ("3", "2", True)
    assert len(str(third["metrics"]["val_loss"])) > 6
    assert "train" in versioning.status(workspace)


@pytest.mark.slow
def test_a_training_is_seen_in_mlflow_while_it_goes_on_and_goes_on_in_its_run_after_a_kill(
    small_workspace: Callable[..., Workspace], seal_tracks: Seal
) -> None:
    from mlflow.entities import Run, ViewType
    from mlflow.tracking import MlflowClient

    workspace = small_workspace(**{"train.epochs": 3, "holdout.auto_freeze": False})
    params, client = workspace.params(), MlflowClient(workspace.mlflow_uri)
    seal_tracks(workspace)
    assemble.run(workspace, params)

    def runs() -> list[Run]:
        ids = [one.experiment_id for one in client.search_experiments(view_type=ViewType.ACTIVE_ONLY)]
        return list(client.search_runs(ids, order_by=["attributes.start_time"]))

    def steps(run: Run) -> list[int]:
        return [one.step for one in client.get_metric_history(run.info.run_id, "val_f1")]

    def stop_after_2(error: BaseException) -> Callable[[str, int, int], None]:
        def progress(what: str, done: int, total: int) -> None:
            seen = runs()[-1]
            assert (seen.info.status, steps(seen)) == ("RUNNING", list(range(1, done + 1)))
            assert seen.data.params["train.epochs"] == "3"
            assert seen.inputs.dataset_inputs
            if done == 2:
                raise error

        return progress

    with pytest.raises(KeyboardInterrupt):
        train.run(workspace, params, progress=stop_after_2(KeyboardInterrupt()))
    (killed,) = runs()
    assert (killed.info.status, steps(killed)) == ("KILLED", [1, 2])

    made = train.run(workspace, params)
    (run,) = runs()
    assert made.run_id == run.info.run_id == killed.info.run_id
    assert (run.info.status, steps(run)) == ("FINISHED", [1, 2, 3])
    assert run.info.start_time == killed.info.start_time

    with pytest.raises(RuntimeError, match="out of memory"):
        train.run(workspace, params, progress=stop_after_2(RuntimeError("out of memory")))
    assert [one.info.status for one in runs()] == ["FINISHED", "FAILED"]
    client.delete_run(runs()[-1].info.run_id)
    again = train.run(workspace, params)  # goes on after the second epoch, in a run of its own
    assert sorted(steps(client.get_run(again.run_id))) == [1, 2, 3]


@pytest.mark.slow
def test_the_run_of_a_training_that_is_not_gone_on_with_ends_as_killed(
    small_workspace: Callable[..., Workspace], seal_tracks: Seal, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = small_workspace(**{"train.epochs": 1, "train.family": "feature_line", "holdout.auto_freeze": False})
    seal_tracks(workspace)
    assemble.run(workspace, workspace.params())
    with monkeypatch.context() as patch:
        patch.setattr(open_registry(workspace).__class__, "end_run", lambda *_: None)  # a kill leaves nobody to say it
        with pytest.raises(KeyboardInterrupt):
            train.run(workspace, workspace.params(), progress=_interrupt)
    registry = open_registry(workspace)
    (left,) = (workspace.cache / "training").glob("*/run.json")
    run_id = json.loads(left.read_text())["run_id"]
    made = train.run(workspace, workspace.params({"train.seed": 5}))
    assert made.run_id != run_id
    with registry.run(run_id) as run:
        assert run.client.get_run(run_id).info.status == "KILLED"


@pytest.mark.slow
def test_another_training_costs_one_that_was_cut_off_nothing(
    small_workspace: Callable[..., Workspace], seal_tracks: Seal
) -> None:
    workspace = small_workspace(**{"train.epochs": 2, "holdout.auto_freeze": False})
    seal_tracks(workspace)
    assemble.run(workspace, workspace.params())
    with pytest.raises(KeyboardInterrupt):
        train.run(workspace, workspace.params(), progress=_interrupt)
    (left,) = (workspace.cache / "training").glob("*/run.json")
    run_id = json.loads(left.read_text())["run_id"]
    train.run(workspace, workspace.params({"train.mixup": 0.4}))
    seen: list[int] = []
    made = train.run(workspace, workspace.params(), progress=lambda what, done, total: seen.append(done))
    assert seen == [2], "it began anew"
    assert made.run_id == run_id


@pytest.mark.slow
def test_dvc_is_not_told_that_a_model_came_from_a_dataset_that_was_assembled_during_its_training(
    small_workspace: Callable[..., Workspace], seal_tracks: Seal
) -> None:
    workspace = small_workspace(**{"train.epochs": 1, "holdout.auto_freeze": False})
    seal_tracks(workspace)
    before = assemble.run(workspace, workspace.params()).revision

    def assemble_more(what: str, done: int, total: int) -> None:
        seal_tracks(workspace, seed=1)
        assemble.run(workspace, workspace.params())

    made = train.run(workspace, workspace.params(), progress=assemble_more)
    assert made.dataset_revision == before
    assert "train" in versioning.status(workspace)
    assert worth_training.run(workspace, workspace.params()).reason.endswith("was assembled and not trained on.")
    train.run(workspace, workspace.params())
    assert "train" not in versioning.status(workspace)


def _interrupt(what: str, done: int, total: int) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_what_a_machine_of_another_precision_left_unregistered_is_trained_again(
    small_workspace: Callable[..., Workspace], seal_tracks: Seal, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = small_workspace(**{"train.epochs": 1})
    params = workspace.params()
    seal_tracks(workspace)
    holdout.ensure(workspace, params)
    assemble.run(workspace, params)

    def lost(*_: object) -> None:
        raise ServiceUnavailable("MLflow is gone.")

    monkeypatch.setattr(training, "_computes_bf16", lambda: True)
    with monkeypatch.context() as patch:
        patch.setattr(train, "_register", lost)
        with pytest.raises(ServiceUnavailable):
            train.run(workspace, params)
    monkeypatch.setattr(training, "_computes_bf16", lambda: False)
    version = train.run(workspace, params).model_version
    registry = open_registry(workspace)
    assert registry.tags(version)["trained_in"] == "fp32"
    card = registry.download(version, workspace.model_package(version)) / "MODEL_CARD.md"
    assert "| trained_in | fp32 |" in card.read_text()


@pytest.mark.slow
def test_what_the_clips_were_made_with_is_logged_whatever_params_yaml_says_now(
    new_workspace: Callable[..., Workspace], seal_whole: Seal
) -> None:
    from mlflow.tracking import MlflowClient

    workspace = new_workspace(**{"train.family": "feature_line", "holdout.auto_freeze": False})
    first = workspace.batch(seal_whole(workspace, clips=24)[0].batch_id)
    now = workspace.params({"pose.score_threshold": 0.9, "tracking.buffer_s": 9.0, "involvement.preset": "accuracy"})

    def made() -> tuple[dict[str, str], dict[str, str]]:
        """Tags and parameters of a new version and its run."""
        assemble.run(workspace, now)
        found = train.run(workspace, now)
        model = lineage.run(workspace, found.model_version)
        tags = open_registry(workspace).tags(found.model_version)
        assert isinstance(model, lineage.ModelLineage)
        assert model.facts["pose_weights"] == tags["pose_weights"]
        return tags, MlflowClient(workspace.mlflow_uri).get_run(found.run_id).data.params

    tags, logged = made()
    assert tags["pose_weights"] == "ab" * 32
    assert tags["start"] == "none", "of this family nothing begins with a start, whatever train.start is"
    names = ("pose.score_threshold", "tracking.buffer_s", "involvement.preset")
    assert [logged[name] for name in names] == ["0.2", "2.0", "fighters"]

    second = workspace.batch(seal_whole(workspace, clips=12, seed=1, night="2026-02-01")[0].batch_id)
    facts = json.loads(second.manifest.read_text())
    facts["params"]["involvement"]["preset"] = "prevention"
    del facts["params"]["tracking"]
    write_json(second.manifest, facts | {"pose_weights": {"name": "rtmo-s", "sha256": "cd" * 32}})
    tags, logged = made()
    homes = Dataset.read(workspace).both.column("batch_id").to_pylist()
    clips = [homes.count(batch.batch_id) for batch in (first, second)]
    assert clips == [24, 12]
    assert tags["pose_weights"] == f"mixed: {'ab' * 32} (24 clips), {'cd' * 32} (12 clips)"
    assert [logged[name] for name in names] == [
        "0.2", "mixed: 2.0 (24 clips), not recorded (12 clips)", "mixed: fighters (24 clips), prevention (12 clips)",
    ]  # fmt: skip


def _check_run(uri: str, run_id: str) -> None:
    """What a data scientist looks for in a run."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.epochs"] == "2"
    assert "tracking.high_score" not in run.data.params
    assert {"train_loss", "val_f1", "val_precision", "val_recall", "val_accuracy"} <= run.data.metrics.keys()
    assert [metric.step for metric in client.get_metric_history(run_id, "val_f1")] == [1, 2]
    assert {one.path for one in client.list_artifacts(run_id, "plots")} == {
        f"plots/{name}.png" for name in ("calibration", "confusion_matrix", "curves", "ranking", "threshold")
    }
