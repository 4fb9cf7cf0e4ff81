"""What a registered model was trained and tuned on: `training.json`, which travels in its package."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from violence_ops.errors import WorkspaceError
from violence_ops.files import read_json
from violence_ops.store.releases import open_registry
from violence_ops.workspace import Workspace

_NAME: Final = "training.json"
_REMEDY: Final = "remove {}, and it is fetched again"


def read(workspace: Workspace, version: str) -> dict[str, Any]:
    """`dataset_revision` and `clips`: clip_id, source_group, perceptual_hash and, since they are recorded, batch_id, label,
    label_source and side (`train` or `val`).

    Raises UserError for an unknown version, WorkspaceError if it does not say, ServiceUnavailable if MLflow cannot be reached.
    """
    found = find(workspace, version)
    if found is None:
        raise WorkspaceError(f"Version {version} does not say which clips it was trained on: train a new one.")
    return found


def find(workspace: Workspace, version: str) -> dict[str, Any] | None:
    """The same, without fetching the rest of its package; None if the version does not say."""
    package = workspace.model_package(version)
    with open_registry(workspace).package_file(version, _NAME, package) as path:
        if path is None:
            return None
        here = path.parent == package
        return read_json(path, _REMEDY.format(package) if here else "restore MLflow's artifact store, or train again")


def find_kept(workspace: Workspace, version: str) -> dict[str, Any] | None:
    """The same; None too if the artifact store has lost its package, so that it can judge nothing."""
    try:
        return find(workspace, version)
    except WorkspaceError:
        return None


def of_package(package: Path) -> dict[str, Any] | None:
    """The same of a package that was downloaded."""
    path = package / _NAME
    return read_json(path, _REMEDY.format(package)) if path.is_file() else None
