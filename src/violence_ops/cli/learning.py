"""Verbs of learning: what to judge on, what to train on, training, and judging."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
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
from violence_ops.stages.learning.pretrain import MIN_CLIPS

holdout_app = typer.Typer(help="The clips that models are judged on.", no_args_is_help=True)
app.add_typer(holdout_app, name="holdout")


@holdout_app.command("freeze")
def holdout_freeze(
    workspace: WorkspaceOption = None,
    share: Annotated[
        float | None,
        typer.Option(
            help="Share of the clips, in whole source groups; default: holdout.share, and more where that is too few clips for the gate."
        ),
    ] = None,
    version: Annotated[str | None, typer.Option(help="Its name; default: the next of v1, v2, …")] = None,
    as_json: JsonOption = False,
) -> None:
    """Freeze a share of the clips, in whole source groups, for evaluation; nothing of them is ever trained on."""
    from violence_ops.stages.releasing import holdout as stage

    opened, params = open_workspace(workspace)
    show(stage.freeze(opened, params, share=share, version=version), as_json)


@holdout_app.command("show")
def holdout_show(
    version: Annotated[str | None, typer.Argument(help="A holdout version; default: the newest.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a holdout holds, whether that is enough for the gate, and whether it is stale; which versions there are."""
    from violence_ops.stages.releasing import holdout_show as stage

    opened, params = open_workspace(workspace)
    show(stage.run(opened, params, version), as_json)


def _learning_command(verb: str, help_text: str, sections: Sequence[str]) -> None:
    def command(workspace: WorkspaceOption = None, settings: SetOption = None, as_json: JsonOption = False) -> None:
        from importlib import import_module

        stage = import_module(f"violence_ops.stages.learning.{verb}")
        opened, params = open_workspace(workspace, settings, sections)
        with progress_bar() as progress:
            result = stage.run(opened, params, progress=progress)
        show(result, as_json)

    app.command(verb, help=help_text)(command)


_learning_command("assemble", "Make the training set from the sealed batches and their labels.", LEARNING[:3])
_learning_command("train", "Train a candidate and register it.", LEARNING)


@app.command()
def pretrain(
    out: Annotated[Path, typer.Argument(help="The .safetensors to write, for train.start.")],
    clips: Annotated[
        int, typer.Option(min=MIN_CLIPS, help="Synthetic clips to train on; half a second each to look at.")
    ] = 1500,
    validation: Annotated[int, typer.Option(min=MIN_CLIPS, help="Further clips, which choose the epoch.")] = 200,
    seed: Annotated[int, typer.Option(help="What the clips that are drawn depend on.")] = 0,
    workspace: WorkspaceOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a start for `train` on synthetic clips, as the pose weights in use find people in them; it goes on from train.start."""
    from violence_ops.stages.learning import pretrain as stage

    _, params = open_workspace(workspace, settings)
    with progress_bar() as progress:
        result = stage.run(params, out=out, clips=clips, validation=validation, seed=seed, progress=progress)
    show(result, as_json)


@app.command()
def evaluate(
    workspace: WorkspaceOption = None,
    candidate: Annotated[str | None, typer.Option(help="A model version; default: the alias `candidate`.")] = None,
    holdout: Annotated[str | None, typer.Option(help="A holdout version; default: the newest.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Judge again even if the report is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Judge the candidate and the champion on the same frozen clips and write the report."""
    from violence_ops.stages.releasing import evaluate as stage

    opened, params = open_workspace(workspace)
    with progress_bar() as progress:
        result = stage.run(opened, params, candidate=candidate, holdout=holdout, force=force, progress=progress)
    show(result, as_json)
