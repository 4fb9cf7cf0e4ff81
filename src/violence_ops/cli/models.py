"""Verbs of learning and releasing, and of the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from violence_ops.cli.common import (
    ByOption,
    DryRunOption,
    JsonOption,
    SetOption,
    WorkspaceOption,
    app,
    open_workspace,
    progress_bar,
    show,
)
from violence_ops.errors import RefusedByGate, ServiceUnavailable, UsageError
from violence_ops.workspace import Workspace

# learning


holdout_app = typer.Typer(help="The clips that models are judged on.", no_args_is_help=True)
app.add_typer(holdout_app, name="holdout")


@holdout_app.command("freeze")
def holdout_freeze(
    workspace: WorkspaceOption = None,
    share: Annotated[float | None, typer.Option(help="Share of the source groups; default: holdout.share.")] = None,
    version: Annotated[str | None, typer.Option(help="Its name; default: the next of v1, v2, …")] = None,
    as_json: JsonOption = False,
) -> None:
    """Freeze a share of the source groups for evaluation; nothing of them is ever trained on."""
    from violence_ops.stages import holdout as stage

    opened, params = open_workspace(workspace)
    show(stage.freeze(opened, params, share=share, version=version), as_json)


def _learning_command(verb: str, help_text: str) -> None:
    def command(workspace: WorkspaceOption = None, settings: SetOption = None, as_json: JsonOption = False) -> None:
        from importlib import import_module

        stage = import_module(f"violence_ops.stages.{verb}")
        opened, params = open_workspace(workspace, settings)
        with progress_bar() as progress:
            result = stage.run(opened, params, progress=progress)
        show(result, as_json)

    app.command(verb, help=help_text)(command)


_learning_command("assemble", "Make the training set from the sealed batches and their labels.")
_learning_command("train", "Train a candidate and register it.")


@app.command()
def pretrain(
    out: Annotated[Path, typer.Argument(help="The .safetensors to write, for train.start.")],
    clips: Annotated[
        int, typer.Option(min=8, help="Synthetic clips to train on; half a second each to look at.")
    ] = 1500,
    validation: Annotated[int, typer.Option(min=8, help="Further clips, which choose the epoch.")] = 200,
    seed: Annotated[int, typer.Option(help="What the clips that are drawn depend on.")] = 0,
    workspace: WorkspaceOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a start for `train` on synthetic clips, as the pose weights in use find people in them."""
    from violence_ops.stages import pretrain as stage

    _, params = open_workspace(workspace, settings)
    with progress_bar() as progress:
        result = stage.run(params, out=out, clips=clips, validation=validation, seed=seed, progress=progress)
    show(result, as_json)


@app.command()
def evaluate(
    workspace: WorkspaceOption = None,
    candidate: Annotated[str | None, typer.Option(help="A model version; default: the alias `candidate`.")] = None,
    holdout: Annotated[str | None, typer.Option(help="A holdout version; default: the newest.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Judge again although the report is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Judge the candidate and the champion on the same frozen clips and write the report."""
    from violence_ops.stages import evaluate as stage

    opened, params = open_workspace(workspace)
    with progress_bar() as progress:
        result = stage.run(opened, params, candidate=candidate, holdout=holdout, force=force, progress=progress)
    show(result, as_json)


ReportOption = Annotated[Path | None, typer.Option(help="An evaluation's folder; default: the newest.")]


@app.command()
def gate(
    workspace: WorkspaceOption = None,
    report: ReportOption = None,
    verdict_only: Annotated[
        bool, typer.Option("--verdict-only", help="Exit with 0 whatever the verdict: for `dvc repro`.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say whether the candidate may be released. Exit code 3 if not."""
    from violence_ops.stages import gate as stage

    opened, params = open_workspace(workspace)
    result = stage.run(opened, params, report=report)
    show(result, as_json)
    if result.verdict != "pass" and not verdict_only:
        raise RefusedByGate(f"The gate says {result.verdict}: {' '.join(result.reasons)}")


@app.command()
def promote(
    workspace: WorkspaceOption = None,
    approve: Annotated[
        bool, typer.Option("--approve", help="Approve the release as the person named by --by.")
    ] = False,
    by: ByOption = None,
    report: ReportOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make the approved candidate the champion."""
    from violence_ops.stages import promote as stage
    from violence_ops.stages.who import named

    opened, params = open_workspace(workspace)
    by = named(by)
    if not approve and not dry_run:
        raise UsageError("A release needs an approval: read the report, then pass --approve.")
    show(stage.run(opened, params, report=report, approved_by=by, dry_run=dry_run), as_json)


@app.command()
def refuse(
    reason: Annotated[str, typer.Option(help="Why; it is written to the ledger.")],
    workspace: WorkspaceOption = None,
    by: ByOption = None,
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Refuse to release a candidate. Binds the other approvers until who refused approves, or it is evaluated again."""
    from violence_ops.stages import promote as stage
    from violence_ops.stages.who import named

    opened, params = open_workspace(workspace)
    show(stage.refuse(opened, params, report, by=named(by), reason=reason), as_json)


@app.command()
def rollback(
    reason: Annotated[str, typer.Option(help="Why; it is written to the ledger.")],
    workspace: WorkspaceOption = None,
    by: ByOption = None,
    version: Annotated[
        str | None,
        typer.Option("--from", help="The version to take back; default: the champion when the command starts."),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put the previous champion back. Anybody may, at once and without an approval; the ledger keeps who did."""
    from violence_ops.stages import rollback as stage
    from violence_ops.stages.who import named

    opened, params = open_workspace(workspace)
    by = named(by)
    # read before the lock is waited for: of two people who roll back at once, the second goes no release further back
    expected = version or stage.live(opened, params)
    show(stage.run(opened, params, by=by, reason=reason, expected_champion=expected, dry_run=dry_run), as_json)


ledger_app = typer.Typer(help="Who released what and when.", no_args_is_help=True)
app.add_typer(ledger_app, name="ledger")


@ledger_app.command("show")
def ledger_show(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Every verdict, approval, promotion and rollback."""
    from violence_ops.stages import rollback as stage

    show(stage.history(Workspace.open(workspace)), as_json)


@ledger_app.command("verify")
def ledger_verify(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Check the hash chain of the ledger, its end against git, and its champion against MLflow's."""
    from violence_ops.stages import rollback as stage

    show(stage.verify_ledger(Workspace.open(workspace)), as_json)


@ledger_app.command("reinstate")
def ledger_reinstate(workspace: WorkspaceOption = None, by: ByOption = None, as_json: JsonOption = False) -> None:
    """Point MLflow's alias `champion` to the ledger's champion again, after somebody moved it by hand."""
    from violence_ops.stages import reinstate as stage

    opened, params = open_workspace(workspace)
    show(stage.run(opened, params, by=by), as_json)


@ledger_app.command("notify")
def ledger_notify(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Tell the webhook ($VIOLENCE_OPS_WEBHOOK_URL) and the hook ($VIOLENCE_OPS_HOOK_COMMAND) of changes not taken yet."""
    from violence_ops.stages import notify as stage

    result = stage.run(Workspace.open(workspace))
    show(result, as_json)
    if result.problem:
        raise ServiceUnavailable(result.problem)
