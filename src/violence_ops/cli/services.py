"""Verbs that make a workspace, start and stop its services, and look at its state."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from violence_ops import __version__
from violence_ops.cli.common import JsonOption, WorkspaceOption, app, open_workspace, show, stderr
from violence_ops.deployment import AIRFLOW_PORT, MLFLOW_PORT, python_module
from violence_ops.errors import UserError
from violence_ops.workspace import Workspace


def _say_version(is_asked_for: bool) -> None:
    if is_asked_for:
        print(__version__)
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Print the version and end.")
    ] = False,
) -> None:
    """From nightly CCTV clips to a released violence classifier."""


# a workspace and its services


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="The workspace's folder; it may exist.")],
    remote: Annotated[
        str | None, typer.Option(help="DVC remote, e.g. s3://bucket/path; default: a folder in the workspace.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="Address of an S3-compatible service.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a workspace: a git and DVC repository with params.yaml, dvc.yaml and an inbox.

    On a workspace of an earlier version it adds the parameters that its params.yaml lacks, with their comments.
    """
    from violence_ops.stages.upkeep import init as stage

    show(stage.run(directory, remote_url=remote, remote_endpoint=endpoint), as_json)


@app.command()
def up(
    workspace: WorkspaceOption = None,
    airflow_port: Annotated[
        int, typer.Option(help="Port of the Airflow page; another free one if it is taken.")
    ] = AIRFLOW_PORT,
    mlflow_port: Annotated[
        int, typer.Option(help="Port of the MLflow page; another free one if it is taken.")
    ] = MLFLOW_PORT,
    as_json: JsonOption = False,
) -> None:
    """Start Airflow and MLflow on loopback and print their addresses."""
    from violence_ops.stages.upkeep import services as stage

    opened, _ = open_workspace(workspace)
    with stderr.status("starting Airflow and MLflow"):
        result = stage.up(opened, airflow_port=airflow_port, mlflow_port=mlflow_port)
    show(result, as_json)


@app.command()
def down(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Stop what `up` started; no process stays behind."""
    from violence_ops.stages.upkeep import services as stage

    opened = Workspace.open(workspace)
    with stderr.status("stopping"):
        result = stage.down(opened)
    show(result, as_json)


@app.command()
def tidy(
    days: Annotated[int, typer.Option(min=1, help="What is older is removed.")] = 90,
    refused: Annotated[
        int | None,
        typer.Option("--quarantine", metavar="DAYS", min=1, help="Delete refused clips older than that, for good."),
    ] = None,
    datasets: Annotated[
        int | None,
        typer.Option(
            "--datasets", metavar="N", min=1, help="Erase dataset versions but for those of the newest N models."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove old runs and logs of Airflow, old checks of Great Expectations, all but the end of long service logs, cached packages
    and shadow verdicts of old models that no alias names, and lock files of sealed batches; pack git.

    Clips, tables, models, reports and the ledger stay. Airflow may be running; have cron do it every week.
    """
    from violence_ops.stages.upkeep import tidy as stage

    opened = Workspace.open(workspace)
    result = stage.run(opened, days=days, refused_days=refused, newest_datasets=datasets, dry_run=dry_run)
    show(result, as_json)


@app.command()
def status(
    workspace: WorkspaceOption = None,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="List the clips that wait for a label.")] = False,
    quarantine: Annotated[
        bool,
        typer.Option("--quarantine", help="List the clips in quarantine: id, reason, night and path in the inbox."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Batches, quarantine, labels, models and services at a glance. Exit code 1 if it is not known for certain which version is
    champion, or git is on no branch."""
    from violence_ops.stages.upkeep import status as stage

    opened = Workspace.open(workspace)
    result = stage.run(opened, unlabelled=unlabelled, refused=quarantine)
    show(result, as_json)
    if result.problems:
        raise typer.Exit(1)


@app.command()
def doctor(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Check this machine and workspace; each fault comes with its remedy."""
    from violence_ops.stages.upkeep import doctor as stage

    result = stage.run(workspace)
    show(result, as_json)
    if not result.healthy:
        raise typer.Exit(1)


@app.command()
def demo(
    directory: Annotated[
        Path, typer.Argument(help="Where the demo's workspace is made; an earlier one is replaced.")
    ] = Path("demo-workspace"),
    clips: Annotated[
        Path | None,
        typer.Option(
            help="A folder of real clips, with a labels.csv or in Fight/ and NonFight/ folders; of at least 6 source groups."
        ),
    ] = None,
    stop: Annotated[bool, typer.Option("--stop", help="Stop Airflow and MLflow at the end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Two nights end to end under a real Airflow: ingestion, training, gate, approval, release."""
    from violence_ops import demo as face

    result = face.run(directory, clips=clips, stop=stop)
    show(result, as_json)
    if result.broken:
        raise UserError(f"The demo did not keep {len(result.broken)} of its promises: {'; '.join(result.broken)}.")


@app.command(
    "dvc", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def dvc_command(context: typer.Context) -> None:
    """DVC itself, e.g. `violence-ops dvc repro`, with this installation's programs on its path.

    Outside every workspace it works on $VIOLENCE_OPS_WORKSPACE, within an inbox on the workspace around it. `exp run` runs in a copy of
    the workspace, which stays as it is.
    """
    from violence_ops.stages.learning import experiment

    if os.environ.get("VIOLENCE_OPS_WORKSPACE") and not _in_a_repository():
        os.environ["VIOLENCE_OPS_WORKSPACE"] = str(Workspace.open().root)
        os.chdir(os.environ["VIOLENCE_OPS_WORKSPACE"])
    folder = str(Path(sys.executable).parent)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"
    if experiment.is_one(context.args):
        raise typer.Exit(experiment.run(Workspace.around(Path.cwd()) or Workspace.open(), context.args))
    around = Workspace.around(Path.cwd())
    if around and Path.cwd().is_relative_to(around.inbox):
        os.chdir(around.root)  # DVC would take the settings and the pipeline of a `.dvc` that somebody put there
    os.execv(sys.executable, python_module("dvc", *context.args))


def _in_a_repository() -> bool:
    return any((folder / ".dvc").is_dir() for folder in (Path.cwd(), *Path.cwd().parents))


@app.command(
    "airflow", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def airflow_command(context: typer.Context) -> None:
    """Airflow's own command line on the running workspace, e.g. `violence-ops airflow dags list`."""
    from violence_ops.stages.upkeep import services as stage

    if {"-h", "--help"}.intersection(context.args):
        raise typer.Exit(stage.airflow_help(context.args))
    environment = stage.airflow_environment(Workspace.open())
    os.execve(sys.executable, python_module("airflow", *context.args), environment)


@app.command()
def version(as_json: JsonOption = False) -> None:
    """The version of violence-ops."""
    print(json.dumps({"version": __version__}) if as_json else __version__)
