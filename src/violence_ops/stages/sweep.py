"""`sweep`: Optuna looks for better values of `train` on the assembled dataset; every trial is a nested MLflow run.

Nothing is registered and no params.yaml is changed: the result says which settings to train a candidate with.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from violence_ops.errors import ServiceUnavailable, UserError
from violence_ops.params import Params
from violence_ops.registry import Registry, Run
from violence_ops.stages import train
from violence_ops.stages.batches import Progress
from violence_ops.stages.dataset import Dataset
from violence_ops.stages.releases import open_registry
from violence_ops.wording import counted
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    import optuna

_LOSS_SHARE: Final = 1e-3
"""Of validation loss in a trial's value: it decides between trials of the same F1."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """The best trial's settings and figures on validation, the command that trains it, and where the parent run is."""

    trials: int
    failed: int
    best_trial: int
    best: dict[str, Any]
    val_f1: float
    val_loss: float
    command: str
    run_id: str
    run_url: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"Trial {self.best_trial} of {self.trials} is the best: validation F1 {self.val_f1:.3f}, loss {self.val_loss:.3f}"
            + (f"; {counted(self.failed, 'trial')} failed." if self.failed else "."),
            f"Train it: {self.command}",
            f"Run: {self.run_url}",
        ]


def run(
    workspace: Workspace, params: Params, *, trials: int, seed: int = 0, progress: Progress | None = None
) -> SweepResult:
    """Try `trials` settings, each a whole training; the best has the highest validation F1, of equals the lowest loss.

    A trial whose loss diverges counts as failed. Raises ParamsError if the family has no network, whose settings these are, or
    cannot be trained as params.yaml has it; WorkspaceError if there is no dataset or it was assembled with other settings;
    ServiceUnavailable, naming the best settings until then, if MLflow cannot be reached; UserError if every trial fails.
    """
    import optuna

    from violence_ops.recognition import families

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    families.check_sweep(params.train, params.windows)
    dataset = Dataset.read(workspace, params)
    registry = open_registry(workspace)
    registry.check()
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    tags = {
        "dataset_revision": dataset.revision,
        "family": params.train.family,
        "sweep": f"{counted(trials, 'trial')}, seed {seed}",
        "trained_in": families.precision(params.train, params.windows),
    }
    search = _Search(registry, dataset, params, tags, study, _one_off(params, workspace.params()))
    try:
        with registry.start_run(f"sweep {params.train.family} {dataset.revision[:8]}", tags) as parent:
            for number in range(trials):
                search.attempt(parent)
                if progress:
                    progress("sweep", number + 1, trials)
            if not search.figures:
                raise UserError(
                    f"No trial of {trials} could be trained: look at the runs' tag `failure`, {parent.url}."
                )
            best, settings, f1, loss = search.best()
            parent.log_params({"best": settings | {"trial": best}})
            parent.log_metrics([{"best_f1": f1, "best_loss": loss}])
    except ServiceUnavailable as error:
        raise search.ended_by(error) from error
    failed = trials - len(search.figures)
    return SweepResult(
        trials, failed, best, settings, round(f1, 4), round(loss, 4), search.command(settings), parent.run_id, parent.url
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Search:
    """What is looked for and on what; the settings by which `params` differs from params.yaml; and the validation F1 and loss of
    every trial that was trained, by its number."""

    registry: Registry
    dataset: Dataset
    params: Params
    tags: dict[str, str]
    study: optuna.Study
    one_off: dict[str, Any]
    figures: dict[int, tuple[float, float]] = field(default_factory=dict)

    def attempt(self, parent: Run) -> None:
        """Train the settings that Optuna asks for, and tell it the outcome. Raises ServiceUnavailable, telling nothing."""
        import optuna

        trial = self.study.ask()
        try:
            self._train(parent, trial.number, _changed(self.params, trial))
        except ServiceUnavailable:
            raise
        except UserError:
            self.figures.pop(trial.number, None)
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(trial, _value(*self.figures[trial.number]))

    def best(self) -> tuple[int, dict[str, Any], float, float]:
        """The best trial, its settings, and its F1 and loss."""
        number = max(self.figures, key=lambda one: _value(*self.figures[one]))
        return number, self.study.trials[number].params, *self.figures[number]

    def command(self, settings: dict[str, Any]) -> str:
        """What trains with the settings of a trial."""
        chosen = self.one_off | {f"train.{name}": value for name, value in settings.items()}
        said = (f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in chosen.items())
        return " ".join(["violence-ops train", *(f"-S {shlex.quote(one)}" for one in said)])

    def ended_by(self, error: ServiceUnavailable) -> ServiceUnavailable:
        """The error that ends the search, with what was found until then: it is nowhere else."""
        if not self.figures:
            return error
        number, settings, f1, loss = self.best()
        return ServiceUnavailable(
            f"{str(error).removesuffix('.')}; of {counted(len(self.figures), 'trial')} trained until then trial {number} is the best "
            f"(validation F1 {f1:.3f}, loss {loss:.3f}), and `{self.command(settings)}` trains it."
        )

    def _train(self, parent: Run, number: int, changed: Params) -> None:
        """Train with changed settings and log the nested run. Raises UserError if the loss diverges."""
        nested = self.tags | {"mlflow.parentRunId": parent.run_id, "trial": str(number)}
        with self.registry.start_run(f"trial {number}", nested) as run:
            run.log_params(changed.model_dump(include={"train", "windows"}))
            train.log_dataset(run, self.dataset)
            try:
                trained = train.fit(changed, self.dataset, None, None)
            except UserError as error:
                run.set_tag("failure", str(error))
                raise
            best = trained.history[trained.best_epoch - 1]
            # first: MLflow may be lost by now
            self.figures[number] = (best.val.f1, best.val_loss)
            train.log_curves(run, trained)


def _value(f1: float, loss: float) -> float:
    return f1 - _LOSS_SHARE * loss


def _one_off(params: Params, usual: Params) -> dict[str, Any]:
    """The settings by which `params` is not params.yaml, by their names."""
    now, then = (one.model_dump(mode="json") for one in (params, usual))
    return {
        f"{section}.{name}": value
        for section, values in now.items()
        for name, value in values.items()
        if value != then[section][name]
    }


def _changed(params: Params, trial: optuna.Trial) -> Params:
    """The settings of a trial: rates, up to ten times or a tenth of the present one, and regularisation of SPEC 9; the network's
    size stays."""
    rate = params.train.learning_rate
    found = {
        "learning_rate": trial.suggest_float("learning_rate", rate / 10, rate * 10, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-5, 1e-2, log=True),
        "dropout": trial.suggest_float("dropout", 0.1, 0.7),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
        "mixup": trial.suggest_float("mixup", 0.0, 1.0),
        "schedule": trial.suggest_categorical("schedule", ["step", "cosine"]),
    }
    return params.model_copy(update={"train": params.train.model_copy(update=found)})
