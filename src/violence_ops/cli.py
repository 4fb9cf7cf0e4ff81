"""The command line: parse, call a stage, print. Results go to stdout, progress and errors to stderr.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 refused by the gate; 4 input unusable; 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, Protocol

import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typer.core import TyperGroup

from violence_ops import __version__
from violence_ops.errors import InputUnusable, RefusedByGate, UsageError, UserError
from violence_ops.params import Params
from violence_ops.workspace import Workspace


class _Group(TyperGroup):
    """Turns errors that a user can act on into one sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            _fail("Interrupted.", 130)


app = typer.Typer(
    name="violence-ops",
    cls=_Group,
    help="From nightly CCTV clips to a released violence classifier.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
stderr = Console(stderr=True)

WorkspaceOption = Annotated[
    Path | None, typer.Option("--workspace", "-w", help="The workspace; default: the one around the current folder.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", "-S", metavar="KEY=VALUE", help="A parameter that wins over params.yaml.")
]
BatchOption = Annotated[str | None, typer.Option("--batch", "-b", help="One batch; default: every open one.")]
ByOption = Annotated[
    str | None, typer.Option("--by", envvar="VIOLENCE_OPS_USER", help="Who does this; it is written to the ledger.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and change nothing.")]


class Result(Protocol):
    """What every stage returns."""

    def to_dict(self) -> dict[str, Any]: ...


def main() -> None:
    """Entry point of `violence-ops`."""
    app()


def _fail(message: str, code: int) -> NoReturn:
    if "--json" in sys.argv:
        print(json.dumps({"error": message, "exit_code": code}))
    stderr.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)


def _open(workspace: Path | None, settings: Sequence[str] | None = None) -> tuple[Workspace, Params]:
    opened = Workspace.open(workspace)
    overrides = {}
    for setting in settings or ():
        key, separator, value = setting.partition("=")
        if not separator:
            raise UsageError(f"{setting!r} is no setting: write --set SECTION.KEY=VALUE.")
        overrides[key] = yaml.safe_load(value)
    return opened, opened.params(overrides)


def _print(result: Result | dict[str, Any], as_json: bool, *, names: bool = False) -> None:
    """Print a result for people or as JSON; `names` says that its keys are names, to be printed as they are."""
    content = result if isinstance(result, dict) else result.to_dict()
    lines = getattr(result, "lines", None)
    if as_json:
        print(json.dumps(content, indent=2, default=str, ensure_ascii=False))
    else:
        print("\n".join(lines() if lines else _plain(content, names)))


def _plain(content: dict[str, Any], names: bool) -> Iterator[str]:
    width = max((len(key) for key in content), default=0)
    for key, value in content.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {count}" for name, count in value.items()) or "none"
        elif isinstance(value, (list, tuple)):
            value = ", ".join(map(str, value)) or "none"
        yield f"{key if names else key.replace('_', ' '):<{width}}  {'none' if value is None else value}"


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on stderr, fed by `(what, done, total)`."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True) as bars:
        task = bars.add_task("starting", total=None)

        def advance(what: str, done: int, total: int) -> None:
            bars.update(task, description=what, completed=done, total=total)

        yield advance


def _lines_of_stdin() -> list[Path]:
    paths = [Path(line.rstrip("\n")) for line in sys.stdin if line.strip()]
    if not paths:
        raise UsageError("Nothing was read from stdin: give paths, a line each.")
    return paths


def _night(value: str | None) -> date:
    if value is None:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise UsageError(f"{value!r} is no date: write --night YYYY-MM-DD.") from None


# a workspace and its services


@app.command()
def init(
    directory: Path,
    remote: Annotated[
        str | None, typer.Option(help="DVC remote, e.g. s3://bucket/path; default: a folder in the workspace.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="Address of an S3-compatible service.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a workspace: a git and DVC repository with params.yaml, dvc.yaml and an inbox."""
    from violence_ops.stages import init as stage

    _print(stage.run(directory, remote_url=remote, remote_endpoint=endpoint), as_json)


@app.command()
def up(
    workspace: WorkspaceOption = None,
    airflow_port: Annotated[int, typer.Option(help="Port of the Airflow page; the next free one if taken.")] = 8080,
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow page; the next free one if taken.")] = 5000,
    as_json: JsonOption = False,
) -> None:
    """Start Airflow and MLflow on loopback and print their addresses."""
    from violence_ops.stages import services as stage

    opened, _ = _open(workspace)
    with stderr.status("starting Airflow and MLflow"):
        result = stage.up(opened, airflow_port=airflow_port, mlflow_port=mlflow_port)
    _print(result, as_json)


@app.command()
def down(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Stop what `up` started; no process stays behind."""
    from violence_ops.stages import services as stage

    opened = Workspace.open(workspace)
    with stderr.status("stopping"):
        result = stage.down(opened)
    _print(result, as_json)


@app.command()
def status(
    workspace: WorkspaceOption = None,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="List the clips that wait for a label.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Batches, quarantine, labels, models and services at a glance."""
    from violence_ops.stages import status as stage

    opened, _ = _open(workspace)
    _print(stage.run(opened, unlabelled=unlabelled), as_json)


@app.command()
def doctor(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Check this machine and workspace; each fault comes with its remedy."""
    from violence_ops.stages import doctor as stage

    result = stage.run(workspace)
    _print(result, as_json)
    if not result.healthy:
        raise typer.Exit(1)


@app.command()
def demo(
    directory: Annotated[
        Path, typer.Argument(help="Where the demo's workspace is made; an earlier one is replaced.")
    ] = Path("demo-workspace"),
    clips: Annotated[Path | None, typer.Option(help="A folder of real clips: labels.csv or <Label>/ folders.")] = None,
    stop: Annotated[bool, typer.Option("--stop", help="Stop Airflow and MLflow at the end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Two nights end to end under a real Airflow: ingestion, training, gate, approval, release."""
    from violence_ops import demo as face

    result = face.run(directory, clips=clips, stop=stop)
    _print(result, as_json)
    if result.broken:
        raise UserError(f"The demo did not keep {len(result.broken)} of its promises: {'; '.join(result.broken)}.")


# the night


@app.command()
def ingest(
    workspace: WorkspaceOption = None,
    night: Annotated[
        str | None, typer.Option(help="The night the batch belongs to, YYYY-MM-DD; default: today, UTC.")
    ] = None,
    dry_run: DryRunOption = False,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Claim what lies in the inbox as a new batch; every file exactly once."""
    from violence_ops.stages import ingest as stage

    opened, params = _open(workspace, settings)
    with _progress() as progress:
        result = stage.run(opened, params, night=_night(night), dry_run=dry_run, progress=progress)
    _print(result, as_json)


def _batch_command(verb: str, module: str, help_text: str) -> None:
    """A stage that works on one batch or on every open one."""

    def command(
        workspace: WorkspaceOption = None,
        batch: BatchOption = None,
        settings: SetOption = None,
        as_json: JsonOption = False,
    ) -> None:
        from importlib import import_module

        stage = import_module(f"violence_ops.stages.{module}")
        opened, params = _open(workspace, settings)
        with _progress() as progress:
            result = stage.run(opened, params, batch_id=batch, progress=progress)
        _print(result, as_json)

    app.command(verb, help=help_text)(command)


@app.command()
def validate(
    workspace: WorkspaceOption = None,
    batch: BatchOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every clip of a batch by decoding it; bad ones go to quarantine, and the table must meet expectations."""
    from violence_ops.stages import validate as stage

    opened, params = _open(workspace, settings)
    with _progress() as progress:
        result = stage.run(opened, params, batch_id=batch, progress=progress)
    stage.checkpoint(opened, params, batch_id=batch)
    _print(result, as_json)
    if result.quarantined and not result.accepted:
        raise InputUnusable(
            f"All {sum(result.quarantined.values())} clips are in quarantine: `violence-ops explain CLIP` says why."
        )


_batch_command("extract-poses", "extract_poses", "Find the people in every frame (RTMO).")
_batch_command("annotate", "annotate", "Follow the people and rank who is most involved.")
_batch_command("score", "score", "Let the champion judge every clip.")
_batch_command("seal", "seal", "Check, version and announce a finished batch.")


@app.command()
def night(
    workspace: WorkspaceOption = None,
    night: Annotated[str | None, typer.Option(help="YYYY-MM-DD; default: today, UTC.")] = None,
    settings: SetOption = None,
) -> None:
    """The whole night without Airflow: ingest, validate, extract-poses, annotate, score, seal."""
    from violence_ops.stages import annotate, extract_poses, ingest, score, seal
    from violence_ops.stages import validate as validation

    opened, params = _open(workspace, settings)
    with _progress() as progress:
        print(f"ingest  {ingest.run(opened, params, night=_night(night), progress=progress).to_dict()}")
        print(f"validate  {validation.run(opened, params, batch_id=None, progress=progress).to_dict()}")
        validation.checkpoint(opened, params, batch_id=None)
        for stage in (extract_poses, annotate, score, seal):
            result = stage.run(opened, params, batch_id=None, progress=progress)
            print(f"{stage.__name__.rpartition('.')[2]}  {result.to_dict()}")


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

    opened, params = _open(workspace)
    _print(stage.freeze(opened, params, share=share, version=version), as_json)


def _learning_command(verb: str, help_text: str) -> None:
    def command(workspace: WorkspaceOption = None, settings: SetOption = None, as_json: JsonOption = False) -> None:
        from importlib import import_module

        stage = import_module(f"violence_ops.stages.{verb}")
        opened, params = _open(workspace, settings)
        with _progress() as progress:
            result = stage.run(opened, params, progress=progress)
        _print(result, as_json)

    app.command(verb, help=help_text)(command)


_learning_command("assemble", "Make the training set from the sealed batches and their labels.")
_learning_command("train", "Train a candidate and register it.")


@app.command()
def pretrain(
    out: Annotated[Path, typer.Argument(help="The .safetensors to write, for train.start.")],
    clips: Annotated[int, typer.Option(min=8, help="Synthetic clips to train on; they are never drawn.")] = 1500,
    measured: Annotated[
        int, typer.Option(min=8, help="Clips that are drawn, to measure what the pose weights do.")
    ] = 80,
    seed: int = 0,
    workspace: WorkspaceOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a start for `train` on synthetic skeletons as coarse as the pose weights in use find them."""
    from violence_ops.stages import pretrain as stage

    _, params = _open(workspace, settings)
    with _progress() as progress:
        result = stage.run(params, out=out, clips=clips, measured=measured, seed=seed, progress=progress)
    _print(result, as_json)


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

    opened, params = _open(workspace)
    with _progress() as progress:
        result = stage.run(opened, params, candidate=candidate, holdout=holdout, force=force, progress=progress)
    _print(result, as_json)


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

    opened, params = _open(workspace)
    result = stage.run(opened, params, report=report)
    _print(result, as_json)
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

    opened, params = _open(workspace)
    if not by:
        raise UsageError("A release needs a name: pass --by NAME or set VIOLENCE_OPS_USER.")
    if not approve and not dry_run:
        raise UsageError("A release needs an approval: read the report, then pass --approve.")
    _print(stage.run(opened, params, report=report, approved_by=by, dry_run=dry_run), as_json)


@app.command()
def rollback(
    reason: Annotated[str, typer.Option(help="Why; it is written to the ledger.")],
    workspace: WorkspaceOption = None,
    by: ByOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put the previous champion back."""
    from violence_ops.stages import rollback as stage

    opened, params = _open(workspace)
    if not by:
        raise UsageError("A rollback needs a name: pass --by NAME or set VIOLENCE_OPS_USER.")
    _print(stage.run(opened, params, by=by, reason=reason, dry_run=dry_run), as_json)


# looking and asking


@app.command()
def explain(
    clip: Annotated[str, typer.Argument(help="A clip id.")],
    workspace: WorkspaceOption = None,
    image: Annotated[
        Path | None, typer.Option(help="Also write a picture here: best frame, regions, tracks, components.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Why a clip was refused, who was ranked first and why, what the classifier saw."""
    from violence_ops.stages import explain as stage

    opened, params = _open(workspace)
    _print(stage.run(opened, params, clip, image=image), as_json)


@app.command()
def overlay(
    clip: Annotated[str, typer.Argument(help="A clip id.")],
    workspace: WorkspaceOption = None,
    regions: Annotated[bool, typer.Option("--regions", help="Draw the five regions.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a video with skeletons, ids, ranks and verdicts drawn over the clip."""
    from violence_ops.stages import overlay as stage

    opened, params = _open(workspace)
    _print(stage.run(opened, params, clip, regions=regions), as_json)


@app.command()
def label(
    clip: Annotated[str | None, typer.Argument(help="A clip id.")] = None,
    value: Annotated[str | None, typer.Argument(metavar="LABEL", help="Fight or NonFight.")] = None,
    file: Annotated[Path | None, typer.Option("--from", help="A CSV with clip_id,label or path,label.")] = None,
    workspace: WorkspaceOption = None,
    by: ByOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give clips a label; it wins over the folder's and enters the next dataset."""
    from violence_ops.stages import labels as stage

    opened, _ = _open(workspace)
    if file is not None and clip is None:
        _print(stage.import_file(opened, file, by=by), as_json)
    elif clip and value and file is None:
        _print(stage.run(opened, clip, value, by=by), as_json)
    else:
        raise UsageError("Say which clip: `violence-ops label CLIP Fight`, or `violence-ops label --from labels.csv`.")


@app.command()
def predict(
    sources: Annotated[
        list[Path], typer.Argument(help="Video files or folders; `-` reads their paths from stdin, a line each.")
    ],
    workspace: WorkspaceOption = None,
    settings: SetOption = None,
) -> None:
    """Let the champion judge videos that are in no batch; a JSON line each."""
    from violence_ops.stages import predict as stage

    opened, params = _open(workspace, settings)
    named = [path for source in sources for path in (_lines_of_stdin() if str(source) == "-" else [source])]
    with _progress() as progress:
        for row in stage.run(opened, params, named, progress=progress):
            print(json.dumps(row, ensure_ascii=False), flush=True)


@app.command()
def synth(
    directory: Path,
    clips: Annotated[int, typer.Option(min=1, help="How many.")] = 40,
    seed: int = 0,
    groups: Annotated[
        int, typer.Option(min=1, help="Source groups: clips of one share scene, camera and people.")
    ] = 10,
    unlabelled: Annotated[int, typer.Option(min=0, help="How many of them come without a label.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Make labelled synthetic clips with ground truth, ready to drop into an inbox."""
    from violence_ops.stages import synth as stage

    with stderr.status(f"making {clips + unlabelled} clips"):
        result = stage.run(directory, clips=clips, seed=seed, groups=groups, unlabelled=unlabelled)
    _print(result, as_json)


weights_app = typer.Typer(help="The pose model's weights.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")


@weights_app.command("list")
def weights_list(as_json: JsonOption = False) -> None:
    """Which weights are there, with size, hash and licence."""
    from violence_ops.stages import weights as stage

    _print(stage.available(), as_json, names=True)


@weights_app.command("train")
def weights_train(
    out: Annotated[Path, typer.Argument(help="The .safetensors to write; an interrupted training goes on.")],
    steps: Annotated[int, typer.Option(min=1, help="Training iterations in all.")] = 20_000,
    start: Annotated[str, typer.Option(help="Weights to start from, or `none`.")] = "rtmo_small",
    clips: Annotated[
        Path | None, typer.Option(help="A folder of real clips; part of the pictures are frames of them.")
    ] = None,
    device: str = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Train the small RTMO on synthetic images; its progress is in `OUT.run/log.jsonl`."""
    from violence_ops.stages import weights as stage

    begin = None if start == "none" else start
    with stderr.status(f"training for {steps} steps"):
        result = stage.train(out, steps=steps, start=begin, clips=clips, device=device)
    _print(result, as_json)


@weights_app.command("evaluate")
def weights_evaluate(
    name: Annotated[str, typer.Argument(help="A shipped name or a .safetensors file.")] = "rtmo_small",
    clips: Annotated[int, typer.Option(min=1, help="Held-out synthetic scenes, two frames each.")] = 150,
    as_json: JsonOption = False,
) -> None:
    """Average precision and recall on synthetic scenes that no training has seen."""
    from violence_ops.stages import weights as stage

    _print(stage.evaluate(name, clips=clips), as_json)


catalog_app = typer.Typer(help="The index over all batches.", no_args_is_help=True)
app.add_typer(catalog_app, name="catalog")


@catalog_app.command("rebuild")
def catalog_rebuild(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Make the catalog again from the batches and the quarantine."""
    from violence_ops.stages import status as stage

    _print(stage.rebuild_catalog(Workspace.open(workspace)), as_json)


ledger_app = typer.Typer(help="Who released what and when.", no_args_is_help=True)
app.add_typer(ledger_app, name="ledger")


@ledger_app.command("show")
def ledger_show(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Every verdict, approval, promotion and rollback."""
    from violence_ops.stages import rollback as stage

    _print(stage.history(Workspace.open(workspace)), as_json)


@ledger_app.command("verify")
def ledger_verify(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Check the hash chain of the ledger."""
    from violence_ops.stages import rollback as stage

    _print(stage.verify_ledger(Workspace.open(workspace)), as_json)


@app.command(
    "dvc", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def dvc_command(context: typer.Context) -> None:
    """DVC itself, e.g. `violence-ops dvc repro`, with this installation's programs on its path."""
    folder = str(Path(sys.executable).parent)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"
    os.execv(sys.executable, [sys.executable, "-m", "dvc", *context.args])


@app.command(
    "airflow", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def airflow_command(context: typer.Context) -> None:
    """Airflow's own command line on the running workspace, e.g. `violence-ops airflow backfill create …`."""
    from violence_ops.stages import services as stage

    environment = stage.airflow_environment(Workspace.open())
    os.execve(sys.executable, [sys.executable, "-m", "airflow", *context.args], environment)


@app.command()
def version() -> None:
    """The version of violence-ops."""
    print(__version__)


if __name__ == "__main__":
    main()
