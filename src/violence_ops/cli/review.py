"""Verbs of review by people, and of the dataset for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from violence_ops.cli.common import (
    ByOption,
    JsonOption,
    SetOption,
    WorkspaceOption,
    app,
    open_workspace,
    progress_bar,
    show,
)
from violence_ops.workspace import Workspace

review_app = typer.Typer(
    help="Let people look at doubtful clips, and take their answers as labels.", no_args_is_help=True
)
app.add_typer(review_app, name="review")


@review_app.command("export")
def review_export(
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    form: Annotated[
        Literal["label-studio", "cvat"], typer.Option("--format", help="The tool that people will use.")
    ] = "label-studio",
    confidence: Annotated[
        float, typer.Option(help="Clips that the model is less sure of than this are doubtful, 0.5 to 1.")
    ] = 0.65,
    limit: Annotated[int, typer.Option(min=1, help="Clips at most; the most doubtful first.")] = 100,
    overlays: Annotated[bool, typer.Option(help="With each clip its overlay video.")] = True,
    again: Annotated[bool, typer.Option("--again", help="Also clips that a person has labelled already.")] = False,
    address: Annotated[
        str | None,
        typer.Option(help="Where Label Studio finds the folder's files; default: its local file serving."),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a folder of clips to be looked at: the model is unsure, sees nobody, contradicts the label, or candidate and champion disagree."""
    from violence_ops.stages.labelling import review as stage

    opened, params = open_workspace(workspace)
    with progress_bar() as progress:
        result = stage.run(
            opened, params, out, format=form, confidence=confidence, limit=limit, overlays=overlays, again=again, address=address,
            progress=progress,
        )  # fmt: skip
    show(result, as_json)


@review_app.command("import")
def review_import(
    source: Annotated[
        Path, typer.Argument(help="Label Studio's JSON export, CVAT's XML or ZIP, or a folder of such files.")
    ],
    workspace: WorkspaceOption = None,
    by: ByOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take people's answers as a new version of the labels; they win over the folders'."""
    from violence_ops.stages.labelling import review_import as stage

    opened = Workspace.open(workspace)
    show(stage.run(opened, source, by=by), as_json)


@review_app.command("log")
def review_log(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """The versions of the labels: who gave them, when, and how many."""
    from violence_ops.stages.labelling import review_import as stage

    opened = Workspace.open(workspace)
    show(stage.log(opened), as_json)


dataset_app = typer.Typer(help="The assembled dataset for other tools.", no_args_is_help=True)
app.add_typer(dataset_app, name="dataset")


@dataset_app.command("export")
def dataset_export(
    out: Annotated[Path, typer.Argument(help="A folder.")],
    form: Annotated[
        Literal["posedataset", "clips"],
        typer.Option("--format", help="Windows and a configuration, or whole clips alone."),
    ] = "posedataset",
    workspace: WorkspaceOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the dataset for MMAction2's PoseDataset: its windows, with a configuration that its tools train with, or whole clips."""
    from violence_ops.stages.learning import dataset_export as stage

    opened, params = open_workspace(workspace, settings)
    show(stage.whole_clips(opened, out) if form == "clips" else stage.run(opened, params, out), as_json)
