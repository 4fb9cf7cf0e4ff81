"""`sweep`: Optuna looks for better values of `train` on the assembled dataset; every trial is a nested MLflow run, and the first
has the present settings, so that what is found is never worse than these.

Nothing is registered and no params.yaml is changed: the result says which settings to train a candidate with.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from violence_ops.errors import ServiceUnavailable, UserError
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params
from violence_ops.registry import Registry, Run
from violence_ops.stages.learning import train
from violence_ops.stages.learning.dataset import Dataset
from violence_ops.store.batches import Progress
from violence_ops.store.releases import open_registry
from violence_ops.wording import counted
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

_PRESENT: Final = 0
"""The trial of the present settings."""
_LOSS_SHARE: Final = 1e-3
"""Of validation loss in a trial's value: it decides between trials of the same F1."""


@dataclass(frozen=True, slots=True)
class SweepResult(Jsonable):
    """The best trial's settings and figures on validation, those of the present settings (None if these could not be trained), the
    command that trains the best, and where the parent run is."""

    trials: int
    failed: int
    best_trial: int
    best: dict[str, Any]
    val_f1: float
    val_loss: float
    present_f1: float | None
    present_loss: float | None
    command: str
    run_id: str
    run_url: str

    def lines(self) -> list[str]:
        """For people."""
        figures = f"validation F1 {self.val_f1:.3f}, loss {self.val_loss:.3f}"
        failed = f"{counted(self.failed, 'trial')} of {self.trials} failed." if self.failed else ""
        if self.best_trial == _PRESENT:
            best = f"None of {counted(self.trials, 'trial')} is better than the present settings: {figures}."
        else:
            best = f"Trial {self.best_trial} of {self.trials} is the best: {figures}; the present settings {self._present()}."
        return [
            " ".join([best, failed]).strip(),
            f"Train it: {self.command}",
            f"Run: {self.run_url}",
        ]

    def _present(self) -> str:
        if self.present_f1 is None:
            return "could not be trained"
        return f"have F1 {self.present_f1:.3f}, loss {self.present_loss:.3f}"


def run(
    workspace: Workspace, params: Params, *, trials: int, seed: int = 0, progress: Progress | None = None
) -> SweepResult:
    """Try `trials` settings, the present ones first, each a whole training; the best has the highest validation F1, of equals the
    lowest loss.

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
    ranges = _ranges(params)
    study.enqueue_trial(_inside(ranges, params))
    search = _Search(registry, dataset, params, tags, study, ranges, _one_off(params, workspace.params()))
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
    present = search.figures.get(_PRESENT)
    return SweepResult(
        trials, trials - len(search.figures), best, settings, round(f1, 4), round(loss, 4),
        present_f1=round(present[0], 4) if present else None, present_loss=round(present[1], 4) if present else None,
        command=search.command(settings), run_id=parent.run_id, run_url=parent.url,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Search:
    """What is looked for, where and on what; the settings by which `params` differs from params.yaml; and the validation F1 and
    loss of every trial that was trained, by its number."""

    registry: Registry
    dataset: Dataset
    params: Params
    tags: dict[str, str]
    study: optuna.Study
    ranges: dict[str, BaseDistribution]
    one_off: dict[str, Any]
    figures: dict[int, tuple[float, float]] = field(default_factory=dict)

    def attempt(self, parent: Run) -> None:
        """Train the settings that Optuna asks for, and tell it the outcome. Raises ServiceUnavailable, telling nothing."""
        import optuna

        trial = self.study.ask(self.ranges)
        try:
            self._train(parent, trial.number, self._settings(trial.number))
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
        return number, self._settings(number), *self.figures[number]

    def _settings(self, number: int) -> dict[str, Any]:
        """Those of a trial. Optuna may hold the present ones to lie elsewhere: at the edge of what it searches."""
        return _present(self.ranges, self.params) if number == _PRESENT else self.study.trials[number].params

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

    def _train(self, parent: Run, number: int, settings: dict[str, Any]) -> None:
        """Train with these settings and log the nested run. Raises UserError if the loss diverges."""
        changed = self.params.model_copy(update={"train": self.params.train.model_copy(update=settings)})
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


def _ranges(params: Params) -> dict[str, BaseDistribution]:
    """What is searched: rates, up to ten times or a tenth of the present one, and regularisation of SPEC 9; the network's size
    stays."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    rate = params.train.learning_rate
    return {
        "learning_rate": FloatDistribution(rate / 10, rate * 10, log=True),
        "weight_decay": FloatDistribution(1e-5, 1e-2, log=True),
        "dropout": FloatDistribution(0.1, 0.7),
        "label_smoothing": FloatDistribution(0.0, 0.2),
        "mixup": FloatDistribution(0.0, 1.0),
        "schedule": CategoricalDistribution(["step", "cosine"]),
    }


def _present(ranges: Mapping[str, BaseDistribution], params: Params) -> dict[str, Any]:
    return {name: getattr(params.train, name) for name in ranges}


def _inside(ranges: Mapping[str, BaseDistribution], params: Params) -> dict[str, Any]:
    """The present settings, those beyond their range at its edge."""
    from optuna.distributions import FloatDistribution

    found = _present(ranges, params)
    for name, one in ranges.items():
        if isinstance(one, FloatDistribution):
            found[name] = min(max(found[name], one.low), one.high)
    return found
