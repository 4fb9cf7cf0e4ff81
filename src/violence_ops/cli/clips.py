"""Verbs that look at clips, label them, judge them and make them; and the catalog of them all."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from violence_ops.cli.common import (
    BATCH,
    CLIP,
    ByOption,
    JsonOption,
    SetOption,
    WorkspaceOption,
    app,
    batch_called,
    open_workspace,
    progress_bar,
    show,
    stderr,
)
from violence_ops.errors import UsageError
from violence_ops.wording import counted, harmless
from violence_ops.workspace import Workspace


def _lines_of_stdin() -> list[Path]:
    paths = [Path(os.fsdecode(line.rstrip(b"\n"))) for line in sys.stdin.buffer if line.strip()]
    if not paths:
        raise UsageError("Nothing was read from stdin: give one a line.")
    return paths


# looking and asking


@app.command()
def explain(
    clip: Annotated[str, typer.Argument(help=CLIP)],
    workspace: WorkspaceOption = None,
    image: Annotated[
        Path | None, typer.Option(help="Also write a picture here: best frame, regions, tracks, components.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Why a clip was refused, who was ranked first and why, what the classifier saw."""
    from violence_ops.stages.inspection import explain as stage
    from violence_ops.store import clip_names

    opened, params = open_workspace(workspace)
    show(stage.run(opened, params, clip_names.find(opened, clip).clip_id, image=image), as_json)


@app.command()
def overlay(
    clips: Annotated[
        list[str] | None, typer.Argument(help=f"{CLIP} `-` reads them from stdin, a line each.", show_default=False)
    ] = None,
    workspace: WorkspaceOption = None,
    batch: Annotated[
        str | None, typer.Option("--batch", "-b", help=f"All accepted clips of this batch ({BATCH}).")
    ] = None,
    failures: Annotated[
        bool, typer.Option("--failures", help="All clips that the candidate of an evaluation got wrong.")
    ] = False,
    report: Annotated[str | None, typer.Option(help="With --failures: which evaluation; default: the newest.")] = None,
    regions: Annotated[bool, typer.Option("--regions", help="Draw the five regions.")] = False,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write videos with skeletons, ids, ranks and verdicts drawn over the clips, several at once.

    A clip that fails is one sentence and does not stop the others; the exit code is then 1.
    """
    from violence_ops.stages.inspection import overlays as stage
    from violence_ops.stages.inspection import overlays_of_failures

    if [bool(clips), batch is not None, failures].count(True) != 1 or (report and not failures):
        raise UsageError(
            "Say which clips: `violence-ops overlay CLIP ...`, `--batch BATCH` or `--failures [--report NAME]`."
        )
    opened, params = open_workspace(workspace, settings)
    chosen = batch_called(opened, batch)
    with progress_bar() as progress:
        if chosen is not None:
            result = stage.of_batch(opened, params, chosen, regions=regions, progress=progress)
        elif failures:
            result = overlays_of_failures.run(opened, params, report, regions=regions, progress=progress)
        else:
            named = [str(line) for clip in clips or () for line in (_lines_of_stdin() if clip == "-" else [clip])]
            result = stage.of_names(opened, params, named, regions=regions, progress=progress)
    show(result, as_json)
    if result.failed:
        raise typer.Exit(1)


@app.command()
def label(
    clip: Annotated[str | None, typer.Argument(help=CLIP)] = None,
    value: Annotated[str | None, typer.Argument(metavar="LABEL", help="Fight or NonFight.")] = None,
    file: Annotated[Path | None, typer.Option("--from", help="A CSV with clip_id,label or path,label.")] = None,
    workspace: WorkspaceOption = None,
    by: ByOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give clips a label; it wins over the folder's and enters the next dataset."""
    from violence_ops.stages.labelling import labels as stage
    from violence_ops.store import clip_names

    opened = Workspace.open(workspace)
    if file is not None and clip is None:
        show(stage.import_file(opened, file, by=by), as_json)
    elif clip and value and file is None:
        show(stage.run(opened, clip_names.clip_id(opened, clip), value, by=by), as_json)
    else:
        wrong = "Say which label" if clip and file is None else "Give a clip or a file" if clip else "Say which clip"
        raise UsageError(
            f"{wrong}: `violence-ops label CLIP Fight --by NAME` (or NonFight), or `violence-ops label --from answers.csv --by NAME`."
        )


@app.command()
def predict(
    sources: Annotated[
        list[Path], typer.Argument(help="Video files or folders; `-` reads their paths from stdin, a line each.")
    ],
    as_csv: Annotated[bool, typer.Option("--csv", help="A CSV row per window.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON line per video: the default.")] = False,
    model: Annotated[str | None, typer.Option(help="A model version; default: the champion.")] = None,
    workspace: WorkspaceOption = None,
    settings: SetOption = None,
) -> None:
    """Let a model judge videos that are in no batch; a JSON line each, with the scores of its windows.

    A video that cannot be used has a line with the reason and stops no other; the exit code is 4 if none could be judged.
    """
    from violence_ops.stages.learning import predict as stage

    if as_csv and as_json:
        raise UsageError("Choose one form: --csv or --json.")
    opened, params = open_workspace(workspace, settings)
    named = [source for source in sources if str(source) != "-"]
    listed = _lines_of_stdin() if len(named) < len(sources) else []
    table = csv.DictWriter(sys.stdout, stage.COLUMNS, lineterminator="\n")
    with progress_bar() as progress:
        rows = stage.run(opened, params, named, listed=listed, version=model, progress=progress)
        for number, row in enumerate(rows):
            if not as_csv:
                print(harmless(json.dumps(row, ensure_ascii=False)), flush=True)
                continue
            if number == 0:
                table.writeheader()
            table.writerows(stage.by_window(row))
            sys.stdout.flush()


@app.command()
def synth(
    directory: Annotated[Path, typer.Argument(help="The folder to make; it gets the clips, labels.csv and the truth.")],
    clips: Annotated[int, typer.Option(min=1, help="How many.")] = 40,
    seed: Annotated[int, typer.Option(help="What scenes, people and motions depend on.")] = 0,
    groups: Annotated[
        int,
        typer.Option(
            min=1, help="Source groups: clips of one share scene, camera and people; at most one for two clips."
        ),
    ] = 10,
    unlabelled: Annotated[int, typer.Option(min=0, help="How many further ones come without a label.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Make labelled synthetic clips with ground truth, ready to drop into an inbox."""
    from violence_ops.stages.upkeep import synth as stage

    with stderr.status(f"making {counted(clips + unlabelled, 'clip')}"):
        result = stage.run(directory, clips=clips, seed=seed, groups=groups, unlabelled=unlabelled)
    show(result, as_json)


catalog_app = typer.Typer(help="The index over all batches.", no_args_is_help=True)
app.add_typer(catalog_app, name="catalog")


@catalog_app.command("rebuild")
def catalog_rebuild(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Make the catalog again from the batches and the quarantine."""
    from violence_ops.store import index as stage

    result = stage.rebuild(Workspace.open(workspace))
    if result.set_aside:
        message = f"The catalog was damaged; it is kept as {result.set_aside}."
        stderr.print(message, markup=False, highlight=False, soft_wrap=True)
    show(result, as_json)
