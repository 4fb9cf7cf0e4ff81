"""What is written to one MLflow run: parameters, curves, files. `registry` makes and finds runs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


@dataclass(frozen=True, slots=True)
class Run:
    """An MLflow run that is being written."""

    run_id: str
    url: str
    client: MlflowClient

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log nested parameters under dotted names; what the run has already stays."""
        from mlflow.entities import Param

        known = self.client.get_run(self.run_id).data.params
        entities = [Param(key, str(value)[:6000]) for key, value in sorted(_flat(params)) if key not in known]
        for start in range(0, len(entities), 100):
            self.client.log_batch(self.run_id, params=entities[start : start + 100])

    def log_metrics(self, series: Sequence[Mapping[str, float]], first_step: int = 1) -> None:
        """Log one mapping of metrics per step."""
        self.log_curves(list(enumerate(series, first_step)))

    def log_curves(self, points: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Log the metrics of some steps."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entities = [Metric(key, float(value), now, step) for step, metrics in points for key, value in metrics.items()]
        for start in range(0, len(entities), 1000):
            self.client.log_batch(self.run_id, metrics=entities[start : start + 1000])

    def steps(self, metric: str) -> set[int]:
        """The steps of which the run has a metric."""
        return {one.step for one in self.client.get_metric_history(self.run_id, metric)}

    def log_dataset(self, name: str, revision: str, source: str, profile: Mapping[str, Any]) -> None:
        """Log the dataset revision as an input of the run."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        # MLflow keeps at most 36 characters of a digest
        dataset = Dataset(name, revision[:32], "local", json.dumps({"path": source}), profile=json.dumps(dict(profile)))
        tags = [InputTag("mlflow.data.context", "training"), InputTag("revision", revision)]
        self.client.log_inputs(self.run_id, [DatasetInput(dataset, tags)])

    def set_tag(self, key: str, value: str) -> None:
        """Add a tag to the run."""
        self.client.set_tag(self.run_id, key, value)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Add or replace tags of the run."""
        from mlflow.entities import RunTag

        self.client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def set_status(self, status: Literal["RUNNING", "FINISHED", "FAILED"]) -> None:
        """Say how far the run is."""
        if status == "RUNNING":
            self.client.update_run(self.run_id, status)
        else:
            self.client.set_terminated(self.run_id, status)

    def log_files(self, folder: Path, into: str) -> None:
        """Log all files of a folder as artifacts."""
        self.client.log_artifacts(self.run_id, str(folder), into)

    def log_file(self, path: Path, into: str) -> None:
        """Log one file as an artifact."""
        self.client.log_artifact(self.run_id, str(path), into)


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
