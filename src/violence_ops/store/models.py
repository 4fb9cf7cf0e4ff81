"""Registered models, as whoever judges with one loads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from violence_ops import ledger
from violence_ops.errors import UserError
from violence_ops.store import releases
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    from violence_ops.recognition.package import Package


def load_version(workspace: Workspace, version: str) -> Package:
    """A registered model, downloaded once; its package is the one that was released, or else registered.

    Raises ServiceUnavailable if MLflow cannot be reached, UserError if the package is damaged or another one.
    """
    from violence_ops.recognition import package

    released = releases.released_package(ledger.read(workspace), version)
    folder = releases.open_registry(workspace).download(version, workspace.model_package(version), released)
    try:
        return package.load(folder)
    except UserError as error:
        raise UserError(
            f"The package of model version {version} is damaged: delete {folder}, so that it is downloaded again; if it is damaged in "
            f"MLflow too, restore its artifact store, or roll back. ({error})"
        ) from None
