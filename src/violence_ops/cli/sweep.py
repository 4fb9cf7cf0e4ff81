"""Verbs of looking for better settings of a training."""

from __future__ import annotations

from typing import Annotated

import typer

from violence_ops.cli.common import (
    LEARNING,
    JsonOption,
    SetOption,
    WorkspaceOption,
    app,
    open_workspace,
    progress_bar,
    show,
)


@app.command()
def sweep(
    trials: Annotated[int, typer.Option(min=1, help="How many settings are tried, each a whole training.")] = 20,
    seed: Annotated[int, typer.Option(help="What the settings that are tried depend on.")] = 0,
    workspace: WorkspaceOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for better rates and regularisation of a network with Optuna: nested MLflow runs, nothing is registered."""
    from violence_ops.stages.learning import sweep as stage

    opened, params = open_workspace(workspace, settings, LEARNING)
    with progress_bar() as progress:
        result = stage.run(opened, params, trials=trials, seed=seed, progress=progress)
    show(result, as_json)
