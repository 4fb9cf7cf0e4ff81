"""Verbs that ask where a model, a clip or a batch comes from, forget a clip, and watch for drift."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from violence_ops.cli.common import (
    BATCH,
    CLIP,
    ByOption,
    DryRunOption,
    JsonOption,
    SetOption,
    WorkspaceOption,
    app,
    batch_called,
    open_workspace,
    progress_bar,
    show,
)
from violence_ops.errors import WorkspaceError
from violence_ops.workspace import Workspace


@app.command()
def drift(
    workspace: WorkspaceOption = None,
    batch: Annotated[
        str | None, typer.Option("--batch", "-b", help=f"A sealed batch ({BATCH}); default: the newest.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Also write the nights compared with the champion as one HTML page.")
    ] = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Does a night look like what the champion was trained on? Poses, tracks and probabilities, quantity by quantity.

    Exit code 1 if there is no champion yet.
    """
    from violence_ops.stages.releasing import drift as stage

    opened, params = open_workspace(workspace, settings)
    result = stage.run(opened, params, batch_id=batch_called(opened, batch))
    if result.report is None:
        raise WorkspaceError("There is no champion to compare a night with: train a candidate and promote it first.")
    show(result, as_json)
    if html is not None:
        stage.write_page(opened, html)


@app.command()
def lineage(
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|CLIP|BATCH",
            help=f"A model's version, `champion` or `candidate`; a batch's id or its beginning. {CLIP}",
        ),
    ],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """What made a model; which models saw a clip or a batch, and what would have to be redone without it."""
    from violence_ops.stages.provenance import lineage as stage

    opened = Workspace.open(workspace)
    show(stage.run(opened, name), as_json)


@app.command()
def forget(
    clip: Annotated[str, typer.Argument(help=CLIP)],
    workspace: WorkspaceOption = None,
    by: ByOption = None,
    reason: Annotated[
        str | None, typer.Option(help="Why; it is kept for good, so it must not tell who is in the clip.")
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove a person's clip from batch, tables, stores and dataset; list the models trained on it. A tombstone stays."""
    from violence_ops.stages.provenance import forget as stage
    from violence_ops.store import clip_names

    opened, params = open_workspace(workspace)
    clip_id = clip_names.find(opened, clip).clip_id
    with progress_bar() as progress:
        result = stage.run(opened, params, clip_id, by=by, reason=reason, dry_run=dry_run, progress=progress)
    show(result, as_json)
