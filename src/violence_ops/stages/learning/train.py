"""Train a candidate on the assembled dataset, log the run to MLflow, and register it under the alias `candidate`.

The run begins before the training and is told of each epoch. What was trained is kept until it is registered, so that a retry after MLflow
was lost does not train again; a model version comes into being only with all its files, and the alias moves last.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from violence_ops import git, versioning
from violence_ops.code_revision import code_revision
from violence_ops.deployment import compute_device
from violence_ops.files import fingerprint, read_json, write_json
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params
from violence_ops.registry import MODEL, Registry, Run
from violence_ops.stages.learning import assemble, live_run, training_tables
from violence_ops.stages.learning.dataset import Dataset
from violence_ops.stages.learning.worth_training import not_assembled
from violence_ops.stages.releasing import holdout
from violence_ops.store import batches, pictures
from violence_ops.store.batches import Progress
from violence_ops.store.releases import CANDIDATE, open_registry
from violence_ops.wording import counted
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    from violence_ops.recognition.train import Epoch, Trained

_ANNOTATED: Final = ("pose", "tracking", "involvement")
"""Sections that the clips' tracks were made with, before they were sealed: what params.yaml says now is of no matter."""
_LEARNT: Final = ("windows", "dataset", "holdout", "train")
_NOT_RECORDED: Final = "not recorded"
_KEPT: Final = 3
"""So many trainings that were cut off wait for being gone on with."""


@dataclass(frozen=True, slots=True)
class TrainResult(Jsonable):
    """The registered version, its run, and the metrics of the kept epoch on validation. `candidate` is the version that the alias
    points to (of an experiment: as before), `candidate_before` the one until then; `one_off` says that the settings are not those of
    params.yaml; `not_assembled` counts the clips that got a label, or another one, since the dataset was assembled."""

    model_version: str
    run_id: str
    run_url: str
    dataset_revision: str
    metrics: dict[str, float]
    candidate: str | None
    candidate_before: str | None
    one_off: bool
    not_assembled: int = 0

    def lines(self) -> list[str]:
        """For people."""
        figures = [
            f"{name.removeprefix('val_').replace('_', ' ')} {round(value, 3)}" for name, value in self.metrics.items()
        ]
        rows = {
            "model version": self.model_version,
            "candidate": self._alias(),
            "run": self.run_url,
            "dataset": self.dataset_revision,
            "on validation": ", ".join(figures),
        }
        notes = []
        if self.not_assembled:
            clips = counted(self.not_assembled, "clip has", "clips have")
            notes.append(
                f"{clips} been labelled since the dataset was assembled: `violence-ops assemble`, then train again."
            )
        if self.one_off:
            notes.append(
                "Its settings are not those of params.yaml: the next `violence-ops dvc repro` trains with those again and takes the alias."
            )
        return [*(f"{name:<13}  {value}" for name, value in rows.items()), *notes]

    def _alias(self) -> str:
        before = f"version {self.candidate_before}" if self.candidate_before else "none"
        return f"this version, before it {before}" if self.candidate == self.model_version else f"{before}, as before"


def run(
    workspace: Workspace, params: Params, *, family: str | None = None, progress: Progress | None = None
) -> TrainResult:
    """Train, log and register: a new run and a new model version every time it is called. That of an experiment has no alias.

    What it leaves to git is committed, but inside `dvc repro`.

    Raises ServiceUnavailable if MLflow cannot be reached (nothing is registered; a retry goes on from what was trained),
    WorkspaceError if there is no dataset or it was assembled with other settings, UserError if the loss diverges.
    """
    if family:
        params = params.model_copy(update={"train": params.train.model_copy(update={"family": family})})
    with workspace.lock("train"):
        dataset = Dataset.read(workspace, params)  # not before: another training may have taken hours
        registry = open_registry(workspace)
        registry.check()
        facts = _facts(workspace, params, dataset)
        is_experiment = versioning.inside_experiment(workspace)
        newer = 0 if is_experiment else not_assembled(workspace, params, dataset)
        trained = _trained(workspace, registry, params, dataset, facts, progress)
        run_id, version = _register(registry, params, dataset, trained, facts)
        with workspace.lock("release"):
            before = registry.alias(CANDIDATE)
            if not is_experiment:
                registry.set_alias(CANDIDATE, version, before)
        record = read_json(trained / "record.json", _remedy(trained))
        progress_of = {"dataset_revision": dataset.revision, "params": facts["params_digest"], "model_version": version}
        workspace.write_progress("train", progress_of)
        workspace.write_metrics("train", record["metrics"])
        # those are of another model, and `dvc exp show` would take them for this one's
        workspace.write_metrics("evaluate", {})
        with assemble.locked(workspace):
            # DVC would record the dataset that is there now as the one that was trained on
            known = ["train"] if dataset.is_there_still() else []
            versioning.commit_stage(workspace, known, f"Candidate {version}", params)
        # last: until then a retry finds what was trained
        shutil.rmtree(trained)
    return TrainResult(
        version, run_id, registry.run_url(run_id), dataset.revision, record["metrics"],
        candidate=before if is_experiment else version, candidate_before=before, one_off=params != workspace.params(),
        not_assembled=newer,
    )  # fmt: skip


def _facts(workspace: Workspace, params: Params, dataset: Dataset) -> dict[str, str]:
    """What every model version is tagged with."""
    from violence_ops.recognition import families

    versions = workspace.holdout_versions()
    precision = families.precision(params.train, params.windows)
    weights = _annotated_with(dataset).get("pose_weights", {}).get("sha256")
    return {
        "dataset_revision": dataset.revision,
        # the newest version of data/labels.csv that a clip of the dataset has its label from
        "labels_version": str(dataset.split.get("labels_version", 0)),
        "code_revision": code_revision(),
        "workspace_revision": git.revision(workspace),
        **({"pose_weights": weights} if weights else {}),
        "params_digest": fingerprint(params.train.model_dump(), params.windows.model_dump()),
        "holdout": versions[-1] if versions else "none",
        "holdout_revision": holdout.read(workspace, versions[-1]).revision if versions else "none",
        "family": params.train.family,
        "start": _start(params),
        **({"trained_in": precision} if precision else {}),
    }


def _annotated_with(dataset: Dataset) -> dict[str, Any]:
    """What `batch.json` of the dataset's batches records: `pose_weights`, and the sections of `_ANNOTATED`.

    Where they differ, a value is `mixed: A (120 clips), B (30 clips)`. What none of them records is not there.
    """
    counts = Counter(dataset.both.column("batch_id").to_pylist())
    recorded: list[tuple[dict[str, Any], int]] = []
    for batch_id, clips in sorted(counts.items()):
        batch = dataset.workspace.batch(batch_id)
        # a machine that only trains may have the dataset and not its batches
        facts = batches.read_manifest(batch).facts if batch.is_sealed else {}
        known = dict(facts.get("params", {})) | {"pose_weights": facts.get("pose_weights", {})}
        recorded.append(({name: known[name] for name in ("pose_weights", *_ANNOTATED) if name in known}, clips))
    return _in_all(recorded)


def _in_all(recorded: Sequence[tuple[Any, int]]) -> Any:
    """What some batches record of one thing, each with its number of clips; mappings key by key."""
    if any(isinstance(value, Mapping) for value, _ in recorded):
        mappings = [(value if isinstance(value, Mapping) else {}, clips) for value, clips in recorded]
        keys = sorted({key for value, _ in mappings for key in value})
        return {key: _in_all([(value.get(key, _NOT_RECORDED), clips) for value, clips in mappings]) for key in keys}
    counts: Counter[str] = Counter()
    for value, clips in recorded:
        counts[str(value)] += clips
    if len(counts) == 1:
        return recorded[0][0]
    return "mixed: " + ", ".join(f"{value} ({counted(clips, 'clip')})" for value, clips in counts.most_common())


def _start(params: Params) -> str:
    """What the networks begin with: `none`, or the start's name and hash."""
    from violence_ops.recognition import families

    start = families.begins_with(params.train, params.windows)
    return f"{start.name} sha256:{start.sha256}" if start else "none"


def _trained(
    workspace: Workspace,
    registry: Registry,
    params: Params,
    dataset: Dataset,
    facts: dict[str, str],
    progress: Progress | None,
) -> Path:
    """The folder with what training gave: `package/`, `plots/`, `tables/`, `environment/`, `record.json`, and the id of its run.

    Trains unless a lost attempt left it; a training that was killed goes on after its last epoch, with its run.
    """
    home = workspace.trainings
    names = ("params_digest", "start", "code_revision", "trained_in")
    mark = fingerprint(compute_device(), *(facts.get(name) for name in names))
    folder = home / f"{dataset.revision[:16]}-{mark[:16]}"
    epochs = folder.with_name(f"{folder.name}-epochs")
    if folder.is_dir():
        return folder
    _clear(home, registry, dataset, epochs)
    epochs.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".fit-", dir=home))
    with _run(registry, epochs, params, dataset, facts) as (run, tell):
        _log_beginning(run, params, dataset)
        trained = fit(
            params, dataset, epochs / "training.pt", progress, lambda epoch: tell(epoch.epoch, _metrics(epoch))
        )
        _write(temporary, trained, dataset, facts)
    shutil.copy(epochs / live_run.FILE, temporary)
    temporary.rename(folder)
    shutil.rmtree(epochs)
    return folder


def _clear(home: Path, registry: Registry, dataset: Dataset, epochs: Path) -> None:
    """End the runs of trainings that were cut off or could not be registered, and remove what they left, but for the newest ones
    on this dataset: another one-off training must not cost those that are tried again."""
    others = [path for path in home.glob("*") if path != epochs]
    for other in others:
        live_run.abandon(registry, other)
    may_go_on = [path for path in others if path.name.startswith(f"{dataset.revision[:16]}-")]
    kept = sorted(may_go_on, key=lambda path: path.stat().st_mtime_ns)[-_KEPT:]
    for other in set(others) - set(kept):
        shutil.rmtree(other)


@contextmanager
def _run(
    registry: Registry, folder: Path, params: Params, dataset: Dataset, facts: dict[str, str]
) -> Iterator[tuple[Run, live_run.Tell]]:
    """The run that the folder names, or else a new one, and what tells it of epochs."""
    from violence_ops.recognition import ensemble
    from violence_ops.recognition.model import Settings

    asked = list(params.train.streams)
    chosen = ensemble.streams(Settings.of(params.train, params.windows)) == asked  # else the family has its own
    name = " ".join([facts["family"], *(["+".join(asked)] if chosen else []), dataset.revision[:8]])
    run_id = live_run.begun(registry, folder, name, facts | {"mlflow.source.git.commit": facts["code_revision"]})
    with live_run.running(registry, run_id) as tell, registry.run(run_id) as run:
        yield run, tell


def fit(
    params: Params,
    dataset: Dataset,
    checkpoint: Path | None,
    progress: Progress | None,
    tell: Callable[[Epoch], None] | None = None,
) -> Trained:
    """Train on the dataset, going on from `checkpoint` if it is there. Nothing is registered; `tell` is told of each epoch.

    Raises WorkspaceError if the dataset was assembled anew meanwhile, or the family looks at pictures and a clip's video is missing.
    """
    from violence_ops.recognition import families

    skeletons = pictures.attached(dataset.workspace, params, dataset.both, dataset.skeletons(), progress)

    def side(table: pa.Table) -> list[Any]:
        return [skeletons[clip_id] for clip_id in table.column("clip_id").to_pylist()]

    most = families.most_epochs(params.train, params.windows)

    def on_epoch(epoch: Epoch) -> None:
        if tell:
            tell(epoch)
        if progress:
            progress("train", epoch.epoch, most)

    sides = side(dataset.train), side(dataset.val)
    return families.fit(*sides, dataset.labels, params.train, params.windows, on_epoch, checkpoint)


def _write(folder: Path, trained: Trained, dataset: Dataset, facts: dict[str, str]) -> None:
    from violence_ops.recognition import package, plots

    counts = {"training clips": len(dataset.train), "validation clips": len(dataset.val)}
    package.save(trained, folder / "package", facts | counts)
    write_json(folder / "package" / "training.json", {"dataset_revision": dataset.revision, "clips": dataset.members()})
    plots.save_all(trained, folder / "plots")
    further = training_tables.write(folder, trained, dataset.val)
    best = trained.history[trained.best_epoch - 1]
    record = {
        "attempt": uuid.uuid4().hex,
        "epochs": [_metrics(epoch) for epoch in trained.history],
        "metrics": {"best_epoch": best.epoch, "epochs": len(trained.history), "threshold": trained.threshold}
        | _scores(best)
        | further,
        "class_weights": trained.class_weights,
    }
    write_json(folder / "record.json", record)


def _metrics(epoch: Epoch) -> dict[str, float]:
    return {
        "train_loss": epoch.train_loss,
        "learning_rate": epoch.learning_rate,
        "val_threshold": epoch.val.threshold,
    } | _scores(epoch)


def _remedy(folder: Path) -> str:
    return f"remove {folder}, and it is trained again"


def _scores(epoch: Epoch) -> dict[str, float]:
    names = ("f1", "precision", "recall", "accuracy")
    return {"val_loss": epoch.val_loss} | {f"val_{name}": getattr(epoch.val, name) for name in names}


def _register(
    registry: Registry, params: Params, dataset: Dataset, folder: Path, facts: dict[str, str]
) -> tuple[str, str]:
    """Log the run and register its model, unless an attempt that was cut off did so; returns run id and version."""
    record = read_json(folder / "record.json", _remedy(folder))
    for known in registry.versions():
        if known.tags.get("attempt") == record["attempt"]:
            return known.run_id, known.version
    tags = facts | {"attempt": record["attempt"], "threshold": str(record["metrics"]["threshold"])}
    description = (
        f"{facts['family']} on dataset {dataset.revision[:12]}: validation F1 {record['metrics']['val_f1']:.3f} "
        f"at threshold {record['metrics']['threshold']}."
    )
    with _run(registry, folder, params, dataset, facts) as (run, _):
        run.set_tags(tags | {"mlflow.note.content": description})
        _log(run, params, dataset, record)
        for part in ("plots", "tables", "environment"):
            run.log_files(folder / part, part)
        example = pictures.wanted(params) is None
        version = registry.register(run.run_id, folder / "package", tags, description, example=example)
        run.set_tag("model_version", version)
        run.set_status("FINISHED")
        return run.run_id, version


def _log_beginning(run: Run, params: Params, dataset: Dataset) -> None:
    annotated = {name: value for name, value in _annotated_with(dataset).items() if name in _ANNOTATED}
    run.log_params(annotated | params.model_dump(include=set(_LEARNT)))
    log_dataset(run, dataset)


def _log(run: Run, params: Params, dataset: Dataset, record: dict[str, Any]) -> None:
    """Log what the training gave, and of the rest what the run does not have."""
    _log_beginning(run, params, dataset)
    run.log_params({"class_weight": dict(zip(("NonFight", "Fight"), record["class_weights"], strict=True))})
    told = run.steps("val_f1")
    run.log_curves([(step, epoch) for step, epoch in enumerate(record["epochs"], start=1) if step not in told])
    run.log_metrics([_kept(record["metrics"])])


def log_dataset(run: Run, dataset: Dataset) -> None:
    """Log the dataset as the run's input."""
    counts = {"train": len(dataset.train), "val": len(dataset.val)} | dataset.split["clips"]
    run.log_dataset(f"{MODEL}-dataset", dataset.revision, str(dataset.folder), counts)


def log_curves(run: Run, trained: Trained) -> None:
    """Log the figures of every epoch, and of the kept one."""
    run.log_metrics([_metrics(epoch) for epoch in trained.history])
    run.log_metrics([_kept(_scores(trained.history[trained.best_epoch - 1]))])


def _kept(metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"best_{name.removeprefix('val_')}": value for name, value in metrics.items() if name.startswith("val_")}
