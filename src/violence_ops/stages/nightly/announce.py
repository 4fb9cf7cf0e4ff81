"""Tell Airflow of batches that were sealed outside it, so that what waits for sealed batches starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from violence_ops import services
from violence_ops.errors import UserError
from violence_ops.workspace import Workspace

BATCHES: Final = "batches"
"""The asset's name, as orchestration.py has it, which nothing outside Airflow can import."""


def run(workspace: Workspace, batch_ids: Sequence[str]) -> str | None:
    """Record an update of the asset *batches* for each; returns why not, in a sentence, or None.

    Nobody is told where no Airflow runs the nights (`up` has not started one, `$VIOLENCE_OPS_AIRFLOW_URL` names none): the next
    night under one looks whether a retraining is worth while.
    """
    if not batch_ids or not (workspace.deployment.airflow_url or services.inspect(workspace).addresses):
        return None
    try:
        with services.watched_api(workspace) as api:
            for batch_id in batch_ids:
                api.update_asset(BATCHES, {"batches": [batch_id]})
    except UserError as error:
        return f"Airflow was not told of the sealed batches, trigger `retraining`, `drift` and `shadow` there: {error}"
    return None
