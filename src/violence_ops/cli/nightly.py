"""The night's verbs, from the inbox to a sealed batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from violence_ops.cli.common import (
    BATCH,
    BatchOption,
    DryRunOption,
    JsonOption,
    Result,
    SetOption,
    WorkspaceOption,
    app,
    batch_called,
    open_workspace,
    progress_bar,
    show,
    stderr,
)
from violence_ops.errors import InputUnusable, UsageError, UserError
from violence_ops.records import TRANSIENT
from violence_ops.wording import harmless
from violence_ops.workspace import Workspace


def night_date(value: str | None, zone: ZoneInfo) -> date:
    if value is None:
        return datetime.now(zone).date()
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise UsageError(f"{value!r} is no date: write --night YYYY-MM-DD.") from None


# the night


@app.command()
def ingest(
    workspace: WorkspaceOption = None,
    night: Annotated[
        str | None,
        typer.Option(help="The night the batch belongs to, YYYY-MM-DD; default: today in schedule.timezone."),
    ] = None,
    dry_run: DryRunOption = False,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Claim what lies in the inbox as a new batch; every file exactly once."""
    from violence_ops.stages.nightly import ingest as stage

    opened, params = open_workspace(workspace, settings)
    with progress_bar() as progress:
        result = stage.run(
            opened, params, night=night_date(night, params.schedule.zone), dry_run=dry_run, progress=progress
        )
    show(result, as_json)


def _batch_command(verb: str, module: str, help_text: str) -> None:
    """A stage that works on one batch or on every open one."""

    def command(
        workspace: WorkspaceOption = None,
        batch: BatchOption = None,
        settings: SetOption = None,
        as_json: JsonOption = False,
    ) -> None:
        from importlib import import_module

        stage = import_module(f"violence_ops.stages.nightly.{module}")
        opened, params = open_workspace(workspace, settings)
        chosen = batch_called(opened, batch)
        idle = _is_idle(opened, chosen)
        with progress_bar() as progress:
            result = stage.run(opened, params, batch_id=chosen, progress=progress)
        _show(result, as_json, idle)

    app.command(verb, help=help_text)(command)


def _is_idle(workspace: Workspace, batch_id: str | None) -> bool:
    from violence_ops.store import batches

    return batch_id is None and not batches.open_batch_ids(workspace)


def _show(result: Result, as_json: bool, is_idle: bool) -> None:
    """The result, or for people that there was nothing to do."""
    if is_idle and not as_json:
        print("No batch is open.")
    else:
        show(result, as_json)


@app.command()
def validate(
    workspace: WorkspaceOption = None,
    batch: BatchOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every clip of a batch by decoding it; bad ones go to quarantine, and the table must meet expectations."""
    from violence_ops import versioning
    from violence_ops.stages.nightly import validate as stage

    opened, params = open_workspace(workspace, settings)
    chosen = batch_called(opened, batch)
    idle = _is_idle(opened, chosen)
    with progress_bar() as progress:
        result = stage.run(opened, params, batch_id=chosen, progress=progress)
    _show(result, as_json, idle)
    if result.quarantined and not result.accepted and not versioning.inside_repro(opened):
        raise _all_in_quarantine([result.quarantined])
    stage.checkpoint(opened, params, batch_id=chosen)


_batch_command("extract-poses", "extract_poses", "Find the people in every frame (RTMO, or what pose.source names).")
_batch_command("annotate", "annotate", "Follow the people and rank who is most involved.")
_batch_command("score", "score", "Let the champion judge every clip; draw the overlays that are asked for.")


@app.command()
def seal(
    workspace: WorkspaceOption = None,
    batch: BatchOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check and version a finished batch, and tell Airflow, if it is up."""
    from violence_ops.stages.nightly import announce
    from violence_ops.stages.nightly import seal as stage

    opened, params = open_workspace(workspace, settings)
    chosen, before, sealed = batch_called(opened, batch), opened.sealed_batches(), []
    try:
        with progress_bar() as progress:
            result = stage.run(opened, params, batch_id=chosen, progress=progress)
        sealed = result.batch_ids
    finally:  # those before the one that ended in an error too
        sealed = sealed or [one.batch_id for one in opened.sealed_batches() if one not in before]
        untold = announce.run(opened, sealed)
        if untold:
            stderr.print(untold, markup=False, soft_wrap=True)
    _show(result, as_json, not result.batch_ids)


@app.command()
def night(
    workspace: WorkspaceOption = None,
    night: Annotated[str | None, typer.Option(help="YYYY-MM-DD; default: today in schedule.timezone.")] = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """The whole night without Airflow: ingest, then validate to seal for every open batch; also finish interrupted sealings, and let a
    version in shadow judge.

    A batch that does not meet the expectations, or cannot be read, stays open and stops no other; the exit code is then 1. It is 4 if
    no clip of any new batch was usable.
    """
    from violence_ops.stages.nightly import night as stage

    opened, params = open_workspace(workspace, settings)
    with progress_bar() as progress:
        result = stage.run(opened, params, night=night_date(night, params.schedule.zone), progress=progress)
    show(result, as_json)
    if result.shadow_problem:
        said = f"The version in shadow has not judged this night: {result.shadow_problem}"
        stderr.print(harmless(said), markup=False, soft_wrap=True)
    if result.airflow_problem:
        stderr.print(harmless(result.airflow_problem), markup=False, soft_wrap=True)
    new = [verbs for batch_id, verbs in result.batches.items() if "validate" in verbs or batch_id in result.stopped]
    unusable = bool(new) and all("validate" in verbs and not verbs["validate"]["accepted"] for verbs in new)
    if result.stopped:
        raise (InputUnusable if unusable else UserError)("\n".join(result.stopped.values()))
    if unusable:
        raise _all_in_quarantine([verbs["validate"]["quarantined"] for verbs in new])


def _all_in_quarantine(reasons: Iterable[Mapping[str, int]]) -> InputUnusable:
    count = sum(sum(one.values()) for one in reasons)
    return InputUnusable(
        f"No clip was usable, {count} in quarantine: `violence-ops status --quarantine` lists them, `violence-ops explain CLIP` says why."
    )


@app.command()
def retry(
    workspace: WorkspaceOption = None,
    reason: Annotated[str, typer.Option(help=f"Why they were refused: one of {', '.join(TRANSIENT)}.")] = "timeout",
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take clips out of quarantine that were not refused for their bytes, to be judged again the next night."""
    from violence_ops.stages.nightly import retry as stage

    opened = Workspace.open(workspace)
    show(stage.run(opened, reason=reason, dry_run=dry_run), as_json)


@app.command()
def repair(
    batch: Annotated[str, typer.Argument(help=f"{BATCH[0].upper()}{BATCH[1:]}.")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Repair a batch where no stage can, as `check` asks for it: an open one whose batch.json is lost goes back to the inbox with all
    that is known of its clips; of another, the clips that an earlier batch has too are taken out."""
    from violence_ops.stages.upkeep import repair as stage
    from violence_ops.store import batch_names

    opened = Workspace.open(workspace)
    show(stage.run(opened, batch_names.find(opened, batch)), as_json)


@app.command()
def costs(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """What looking for the poses of each batch and clip took: processor seconds, on a GPU seconds of its calls.

    Decoding and opening the network are not counted. Of OpenVINO's own threads the duration counts, which on a busy machine
    is more than their processor time.
    """
    from violence_ops.stages.inspection import costs as stage

    opened = Workspace.open(workspace)
    show(stage.run(opened), as_json)
