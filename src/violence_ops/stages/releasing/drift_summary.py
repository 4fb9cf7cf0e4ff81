"""The nights that were compared with what a model was trained on, for pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from violence_ops.files import read_json
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    from violence_ops.evaluation.drift import DriftReport

_SHOWN: Final = 30
"""So many of the newest nights make a page."""


def drift_summary(workspace: Workspace, version: str) -> list[DriftReport]:
    """The newest comparisons with what a model was trained on, oldest first; for the page of an evaluation."""
    from violence_ops.evaluation.drift import DriftReport

    paths = sorted(workspace.drift_reports.glob("*.json"), reverse=True) if workspace.drift_reports.is_dir() else []
    found: list[DriftReport] = []
    for path in paths:
        content = read_json(path, "run `violence-ops drift` again, or remove it", DriftReport)
        if content["model_version"] == version and len(found) < _SHOWN:
            found.append(DriftReport.from_dict(content))
    return found[::-1]
