"""`sweep`: Optuna looks for better values of `train` on the assembled dataset; every trial is a nested MLflow run.

Nothing is registered and no params.yaml is changed: the result says which settings to train a candidate with.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from violence_ops.errors import UserError
from violence_ops.params import Params
from violence_ops.registry import Registry, Run
from violence_ops.stages import train
from violence_ops.stages.batches import Progress
from violence_ops.stages.releases import open_registry
from violence_ops.stages.train import Dataset
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    import optuna

    from violence_ops.recognition.train import Trained

_LOSS_SHARE: Final = 1e-3
"""Of validation loss in a trial's value: it decides between trials of the same F1."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """The best trial's settings and figures on validation, and where the parent run is."""

    trials: int
    failed: int
    best_trial: int
    best: dict[str, Any]
    val_f1: float
    val_loss: float
    run_id: str
    run_url: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        settings = " ".join(f"-S train.{name}={value}" for name, value in self.best.items())
        return [
            f"Trial {self.best_trial} of {self.trials} is the best: validation F1 {self.val_f1:.3f}, loss {self.val_loss:.3f}"
            + (f"; {self.failed} trials failed." if self.failed else "."),
            f"Train it: violence-ops train {settings}",
            f"Run: {self.run_url}",
        ]


def run(
    workspace: Workspace, params: Params, *, trials: int, seed: int = 0, progress: Progress | None = None
) -> SweepResult:
    """Try `trials` settings, each a whole training; the best has the highest validation F1, of equals the lowest loss.

    A trial whose loss diverges counts as failed. Raises ParamsError if the family has no network, whose settings these are, or
    cannot be trained as params.yaml has it; WorkspaceError if there is no dataset or it was assembled with other `windows`;
    ServiceUnavailable if MLflow cannot be reached; UserError if every trial fails.
    """
    import optuna

    from violence_ops.recognition import families

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    families.check_sweep(params.train, params.windows)
    dataset = Dataset.read(workspace, params.windows)
    registry = open_registry(workspace)
    registry.check()
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    figures: dict[int, tuple[float, float]] = {}
    tags = {
        "dataset_revision": dataset.revision,
        "family": params.train.family,
        "sweep": f"{trials} trials, seed {seed}",
    }
    with registry.start_run(f"sweep {params.train.family} {dataset.revision[:8]}", tags) as parent:
        for number in range(trials):
            trial = study.ask()
            changed = _changed(params, trial)
            try:
                trained = _trial(registry, parent, number, changed, dataset, tags)
            except UserError:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                best = trained.history[trained.best_epoch - 1]
                figures[trial.number] = (best.val.f1, best.val_loss)
                study.tell(trial, best.val.f1 - _LOSS_SHARE * best.val_loss)
            if progress:
                progress("sweep", number + 1, trials)
        if not figures:
            raise UserError(f"None of {trials} trials could be trained: look at the runs' tag `failure`, {parent.url}.")
        f1, loss = figures[study.best_trial.number]
        parent.log_params({"best": study.best_params | {"trial": study.best_trial.number}})
        parent.log_metrics([{"best_f1": f1, "best_loss": loss}])
    return SweepResult(
        trials, trials - len(figures), study.best_trial.number, study.best_params, round(f1, 4), round(loss, 4), parent.run_id, parent.url
    )  # fmt: skip


def _changed(params: Params, trial: optuna.Trial) -> Params:
    """The settings of a trial: rates and regularisation of SPEC 9; the network's size stays."""
    found = {
        "learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-5, 1e-2, log=True),
        "dropout": trial.suggest_float("dropout", 0.1, 0.7),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
        "mixup": trial.suggest_float("mixup", 0.0, 1.0),
        "schedule": trial.suggest_categorical("schedule", ["step", "cosine"]),
    }
    return params.model_copy(update={"train": params.train.model_copy(update=found)})


def _trial(
    registry: Registry, parent: Run, number: int, changed: Params, dataset: Dataset, tags: dict[str, str]
) -> Trained:
    """Train with changed settings and log the nested run. Raises UserError if the loss diverges."""
    nested = tags | {"mlflow.parentRunId": parent.run_id, "trial": str(number)}
    with registry.start_run(f"trial {number}", nested) as run:
        run.log_params(changed.model_dump(include={"train", "windows"}))
        train.log_dataset(run, dataset)
        try:
            trained = train.fit(changed, dataset, None, None)
        except UserError as error:
            run.set_tag("failure", str(error))
            raise
        train.log_curves(run, trained)
        return trained
