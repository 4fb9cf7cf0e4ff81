"""Verbs of shadow mode."""

from __future__ import annotations

from typing import Annotated

import typer

from violence_ops.cli.common import JsonOption, WorkspaceOption, app, open_workspace, progress_bar, show
from violence_ops.workspace import Workspace

shadow_app = typer.Typer(
    help="A candidate judges the champion's nights without effect; alone, it shows where they disagreed."
)
app.add_typer(shadow_app, name="shadow", invoke_without_command=True)


@shadow_app.callback(invoke_without_command=True)
def compare(
    context: typer.Context,
    workspace: WorkspaceOption = None,
    version: Annotated[str | None, typer.Option(help="A model version; default: the one in shadow.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Where the version in shadow and the champion disagreed."""
    if context.invoked_subcommand is None:
        from violence_ops.stages.releasing import shadow as stage

        show(stage.show(Workspace.open(workspace), version), as_json)


@shadow_app.command()
def start(
    version: Annotated[str | None, typer.Argument(help="A model version; default: the candidate.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a version in shadow, instead of the one there."""
    from violence_ops.stages.releasing import shadow as stage

    show(stage.start(Workspace.open(workspace), version), as_json)


@shadow_app.command()
def stop(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Take the version out of shadow; what it said stays."""
    from violence_ops.stages.releasing import shadow as stage

    show(stage.stop(Workspace.open(workspace)), as_json)


@shadow_app.command()
def run(
    workspace: WorkspaceOption = None,
    whole: Annotated[bool, typer.Option("--all", help="Look at all sealed nights, not at the newest alone.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Judge what the version in shadow has not judged yet of the newest sealed nights, `shadow.nights` of them (Airflow does so after every night)."""
    from violence_ops.stages.releasing import shadow as stage

    opened, params = open_workspace(workspace)
    with progress_bar() as progress:
        result = stage.run(opened, params, whole=whole, progress=progress)
    show(result, as_json)
