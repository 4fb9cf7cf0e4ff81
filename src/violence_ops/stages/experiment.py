"""`violence-ops dvc exp run`: learn with other settings, as an experiment of DVC that leaves the workspace as it is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from violence_ops import versioning_experiment
from violence_ops.workspace import Workspace

LEARNING: Final = ("assemble", "train")
"""The stages that an experiment may run: the others take clips in, judge and release, for which there is one workspace."""


def run(workspace: Workspace, arguments: Sequence[str]) -> int:
    """Run, apply or save an experiment, by a command line of DVC's; returns its exit status.

    An experiment runs in a copy of the workspace, with the workspace's MLflow. Raises UsageError if it asks for more than
    learning, or one is applied that began elsewhere; WorkspaceError or ServiceUnavailable if the copy cannot be made.
    """
    options = versioning_experiment.asked(arguments)
    if options is None or options.cmd != "run":
        return versioning_experiment.run_here(workspace, arguments)
    environment = {**os.environ, "VIOLENCE_OPS_MLFLOW_URI": workspace.mlflow_uri}
    status = versioning_experiment.run(workspace, arguments, LEARNING, environment)
    if status == 0:
        print("The workspace is as it was; `violence-ops dvc exp show` lists its experiments, MLflow has their models.")
    return status


def is_one(arguments: Sequence[str]) -> bool:
    """Whether `run` must be asked for what a command line of DVC's wants."""
    return versioning_experiment.asked(arguments) is not None
