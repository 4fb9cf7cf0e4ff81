"""Verbs of releasing: the gate, people's decisions, taking a release back, and the ledger of all that."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from violence_ops.cli.common import ByOption, DryRunOption, JsonOption, WorkspaceOption, app, open_workspace, show
from violence_ops.errors import RefusedByGate, ServiceUnavailable, UsageError
from violence_ops.workspace import Workspace

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
    from violence_ops.stages.releasing import gate as stage

    opened, params = open_workspace(workspace)
    result = stage.run(opened, params, report=report)
    show(result, as_json)
    if result.verdict != "pass" and not verdict_only:
        raise RefusedByGate(f"The gate says {result.verdict}, so version {result.candidate} cannot be released.")


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
    from violence_ops.stages.releasing import promote as stage
    from violence_ops.who import named

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
    """Refuse to release a candidate. No other approver can release it until the person who refused approves, or it is evaluated again."""
    from violence_ops.stages.releasing import approval as stage
    from violence_ops.who import named

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
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="An earlier champion to go back to, or none: no champion. Default: the latest earlier one that is still in MLflow.",
        ),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put the previous champion, or an earlier one, back. Anybody may do this at once, without an approval; the ledger records who did."""
    from violence_ops.stages.releasing import rollback as stage
    from violence_ops.who import named

    opened = Workspace.open(workspace)
    by = named(by)
    # read before the lock is waited for: of two people who roll back at once, the second goes no release further back
    expected = version or stage.live(opened)
    show(stage.run(opened, by=by, reason=reason, expected_champion=expected, to=to, dry_run=dry_run), as_json)


ledger_app = typer.Typer(help="Who released what and when.", no_args_is_help=True)
app.add_typer(ledger_app, name="ledger")


@ledger_app.command("show")
def ledger_show(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Every verdict, approval, promotion and rollback."""
    from violence_ops.stages.releasing import ledger_log as stage

    show(stage.show(Workspace.open(workspace)), as_json)


@ledger_app.command("verify")
def ledger_verify(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Check the hash chain of the ledger, its end against git, and its champion against MLflow's."""
    from violence_ops.stages.releasing import ledger_log as stage

    show(stage.verify(Workspace.open(workspace)), as_json)


@ledger_app.command("reinstate")
def ledger_reinstate(workspace: WorkspaceOption = None, by: ByOption = None, as_json: JsonOption = False) -> None:
    """Point MLflow's alias `champion` to the ledger's champion again, after somebody moved it by hand."""
    from violence_ops.stages.releasing import reinstate as stage

    show(stage.run(Workspace.open(workspace), by=by), as_json)


@ledger_app.command("notify")
def ledger_notify(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Tell the webhook ($VIOLENCE_OPS_WEBHOOK_URL) and the hook ($VIOLENCE_OPS_HOOK_COMMAND) of changes that they have not taken yet."""
    from violence_ops.stages.releasing import notify as stage

    result = stage.run(Workspace.open(workspace))
    show(result, as_json)
    if result.problem:
        raise ServiceUnavailable(result.problem)
