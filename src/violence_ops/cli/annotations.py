"""Verbs that look at all annotations at once: are they whole, and what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from violence_ops.cli.common import (
    BATCH,
    JsonOption,
    SetOption,
    WorkspaceOption,
    app,
    batch_called,
    open_workspace,
    progress_bar,
    show,
)


@app.command()
def check(
    workspace: WorkspaceOption = None,
    batch: Annotated[
        str | None, typer.Option("--batch", "-b", help=f"One batch ({BATCH}); default: all, sealed and open.")
    ] = None,
    content: Annotated[
        bool, typer.Option("--content", help="Read every sealed video's bytes, not only its size.")
    ] = False,
    as_sealed: Annotated[
        bool,
        typer.Option("--as-sealed", help="Accept that sealed batches were made with other parameters or weights."),
    ] = False,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find videos, annotations and overlays that are missing, orphaned, stale or damaged; each with the command that repairs it.

    Exit code 0 when all is in order, 3 when not. Nothing is changed.
    """
    from violence_ops.stages.inspection import check as stage

    opened, params = open_workspace(workspace, settings)
    chosen = batch_called(opened, batch)
    with progress_bar() as progress:
        result = stage.run(opened, params, batch_id=chosen, content=content, as_sealed=as_sealed, progress=progress)
    show(result, as_json)
    if not result.clean:
        raise typer.Exit(3)


@app.command()
def analyze(
    workspace: WorkspaceOption = None,
    batch: Annotated[
        list[str] | None,
        typer.Option("--batch", "-b", help=f"A batch ({BATCH}); can be given several times; default: all."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The page; default: .cache/annotations.html.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write an HTML page with what is in the annotations: persons, tracks, scores, involvement by label, where people are."""
    from violence_ops.stages.inspection import analyze as stage
    from violence_ops.store import batch_names

    opened, params = open_workspace(workspace)
    chosen = [batch_names.find(opened, name) for name in batch or ()]
    with progress_bar() as progress:
        result = stage.run(opened, params, batch_ids=chosen, out=out, progress=progress)
    show(result, as_json)
