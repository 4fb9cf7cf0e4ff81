"""Dataset versions that nobody is likely to train with again: every `assemble` with a new label stores one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import IO

from violence_ops import git, versioning_erase
from violence_ops.stages.learning import assemble
from violence_ops.store import releases
from violence_ops.workspace import Workspace

_TRAINING = "A training is under way, and no model names its dataset yet: run this again when it has ended."
_BUSY = "An experiment runs in this workspace, and nothing names its dataset yet: run this again when it has ended."


def erase(workspace: Workspace, newest: int, *, dry_run: bool = False) -> versioning_erase.Erased:
    """Delete dataset versions from DVC's cache and the default remote, but for the present one and those that the `newest` model
    versions, the champion, the candidate and the version in shadow were trained on.

    Git goes on naming the others, and every model its clips, but they cannot be checked out any more. Can be repeated after a
    crash. Raises WorkspaceError, deleting nothing, if an experiment or a training runs or it is not certain which version is champion,
    ServiceUnavailable if MLflow cannot be reached.
    """
    with (
        workspace.lock("train", busy=_TRAINING), workspace.lock("experiment", busy=_BUSY), assemble.locked(workspace)
    ):  # fmt: skip
        kept = _present(workspace) | _of_models(workspace, newest)
        return versioning_erase.erase(workspace, {"dvc.lock"}, _is_none_of(kept), dry_run=dry_run)


def _present(workspace: Workspace) -> set[str]:
    """The revisions of the dataset as it is, and as it was committed last: `dvc repro` leaves that to the next commit."""
    progress = workspace.progress / "assemble.json"
    committed = json.loads(git.committed(workspace, progress) or b"{}")
    return {found["revision"] for found in (workspace.read_progress("assemble"), committed) if "revision" in found}


def _of_models(workspace: Workspace, newest: int) -> set[str]:
    registry = releases.open_registry(workspace)
    named = {releases.champion(workspace), *(registry.alias(name) for name in (releases.CANDIDATE, releases.SHADOW))}
    versions = registry.versions()
    kept = [*versions[-newest:], *(one for one in versions if one.version in named)]
    return {one.tags["dataset_revision"] for one in kept if "dataset_revision" in one.tags}


def _is_none_of(kept: set[str]) -> versioning_erase.Holds:
    """Whether a file is that of a dataset of another revision."""

    def holds(name: str, opened: Callable[[], IO[bytes]] | None) -> bool | None:
        if name != "split.json" or opened is None:
            return False
        with opened() as file:
            try:
                return json.load(file)["revision"] not in kept
            except (ValueError, KeyError, TypeError):
                return None

    return holds
