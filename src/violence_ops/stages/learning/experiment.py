"""`violence-ops dvc exp run`: learn with other settings, as an experiment of DVC that leaves the workspace as it is."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Collection, Sequence
from typing import Final

from violence_ops import git, versioning_experiment
from violence_ops.errors import UsageError
from violence_ops.store import tombstones
from violence_ops.store.releases import CANDIDATE, open_registry
from violence_ops.workspace import Workspace

LEARNING: Final = ("assemble", "train")
"""The stages that an experiment may run: the others take clips in, judge and release, for which there is one workspace."""
_MORE_OR_LATER: Final = ("queue", "run_all", "pipeline", "all_pipelines", "downstream", "recursive")


def run(workspace: Workspace, arguments: Sequence[str]) -> int:
    """Run, apply or save an experiment, by a command line of DVC's; returns its exit status.

    An experiment runs in a copy of the workspace, with the workspace's MLflow: its model is a version without an alias, until it
    is applied. Raises UsageError if it asks for more than learning, would freeze the first holdout, or one is applied that began
    elsewhere; WorkspaceError or ServiceUnavailable if the copy cannot be made.
    """
    options = versioning_experiment.asked(arguments)
    assert options
    if options.cmd != "run":
        status = versioning_experiment.run_here(workspace, arguments, options)
        if status == 0 and options.cmd == "apply":
            _make_candidate(workspace)
        return status
    _check(workspace, options)
    command = [one for one in arguments if one != "--temp"] + ["--single-item", *([] if options.targets else LEARNING)]
    forgotten = _forgotten(workspace)
    with versioning_experiment.copied(workspace) as copy:
        before = _trained(copy.workspace)
        status = copy.run(command, {**os.environ, "VIOLENCE_OPS_MLFLOW_URI": workspace.mlflow_uri})
        with workspace.lock("forget"):  # so that what is forgotten from now on finds the experiment
            _reopen(workspace, _forgotten(workspace) - forgotten)
            copy.hand_over()
        trained = _trained(copy.workspace)
    if status == 0:
        print("The workspace is as it was; `violence-ops dvc exp show -A` lists its experiments.")
    if trained not in (None, before):
        print(f"Its model is version {trained}: `violence-ops evaluate --candidate {trained}` judges it.")
    return status


def is_one(arguments: Sequence[str]) -> bool:
    """Whether `run` must be asked for what a command line of DVC's wants."""
    return versioning_experiment.asked(arguments) is not None


def _check(workspace: Workspace, options: Namespace) -> None:
    others = [f"--{name.replace('_', '-')}" for name in _MORE_OR_LATER if getattr(options, name)]
    others += [target for target in options.targets if target not in LEARNING]
    if others:
        raise UsageError(
            f"An experiment runs {' and '.join(LEARNING)}, at once and nothing else: leave {' '.join(others)} out; "
            "`violence-ops dvc repro` runs every stage."
        )
    assembles = not options.targets or "assemble" in options.targets
    if assembles and workspace.params().holdout.auto_freeze and not workspace.holdout_versions():
        raise UsageError(
            "An experiment freezes no holdout, and there is none yet: run `violence-ops holdout freeze` first, or set "
            "holdout.auto_freeze to false in params.yaml."
        )


def _trained(workspace: Workspace) -> str | None:
    """The version that was trained last."""
    return workspace.read_progress("train").get("model_version")


def _make_candidate(workspace: Workspace) -> None:
    """Give the alias to the version of the experiment that was applied."""
    if version := _trained(workspace):
        registry = open_registry(workspace)
        with workspace.lock("release"):
            registry.set_alias(CANDIDATE, version, registry.alias(CANDIDATE))


def _forgotten(workspace: Workspace) -> set[str]:
    """The clips of which nothing is left but their tombstones."""
    return {one for one in tombstones.all_of(workspace) if tombstones.is_finished(workspace, one)}


def _reopen(workspace: Workspace, clip_ids: Collection[str]) -> None:
    """Have clips forgotten once more, which the experiment may have brought back: it began with them."""
    for clip_id in sorted(clip_ids):
        tombstones.write(workspace, tombstones.read(workspace, clip_id) | {"done": False})
        git.commit(workspace, [workspace.tombstone(clip_id)], f"Clip {clip_id} may be in an experiment")
        print(
            f"Clip {clip_id} was forgotten while the experiment ran: `violence-ops forget {clip_id}` takes it out of that too."
        )
