"""What every verb shares: the program, its common options, how results, progress and errors are printed."""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, NoReturn, Protocol

import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typer.core import TyperGroup

from violence_ops.errors import UsageError, UserError
from violence_ops.params import Params, read_yaml
from violence_ops.wording import harmless
from violence_ops.workspace import Workspace

_REMEDIES: Final = {errno.ENOSPC: "free some space on that disk", errno.EDQUOT: "free some of your quota"}
"""What helps against faults of a disk, which every command may meet; against others, another place."""


class _Group(TyperGroup):
    """Turns errors that a user can act on into one sentence and an exit code."""

    has_shown_json: ClassVar[bool] = False
    """Whether stdout has its one JSON document: a refusal after it goes to stderr alone."""

    def invoke(self, ctx: Any) -> Any:
        _print_anything()
        try:
            return super().invoke(ctx)
        except UserError as error:
            _fail(str(error), error.exit_code)
        except OSError as error:
            if error.errno is None or isinstance(error, ConnectionError):
                raise
            where = f"{error.filename2 or error.filename}: " if error.filename else ""
            remedy = _REMEDIES.get(error.errno, "choose another place or get the right to this one")
            _fail(f"{where}{error.strerror}; {remedy}, then run the command again.", 1)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # a second one ends the end, as the first would
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

CLIP: Final = "A clip's id, 4 or more of its first digits, or the path under which it arrived."
WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        help="The workspace; default: $VIOLENCE_OPS_WORKSPACE, else the one around the current folder.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", "-S", metavar="KEY=VALUE", help="A parameter that wins over params.yaml.")
]
BATCH: Final = "a batch's id, or the beginning of it"
BatchOption = Annotated[
    str | None, typer.Option("--batch", "-b", help=f"One batch ({BATCH}); default: every open one.")
]
ByOption = Annotated[
    str | None,
    typer.Option(
        "--by",
        envvar="VIOLENCE_OPS_USER",
        help="Who does this: needed, here or in $VIOLENCE_OPS_USER; the name is kept with what is done: in the ledger, with the label, or on the tombstone.",
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and change nothing.")]


def _print_anything() -> None:
    """Let stdout take any text, also the name of a file that is no UTF-8.

    What its encoding has no bytes for is written as JSON escapes it (`\\udce9` is the byte e9): from JSON that was read,
    `os.fsencode` makes the name again.
    """
    codecs.register_error("as-json", _as_json)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="as-json")


def _as_json(fault: UnicodeError) -> tuple[str, int]:
    assert isinstance(fault, UnicodeEncodeError)
    return json.dumps(fault.object[fault.start : fault.end])[1:-1], fault.end


class Result(Protocol):
    """What every stage returns."""

    def to_dict(self) -> dict[str, Any]: ...


def _fail(message: str, code: int) -> NoReturn:
    if "--json" in sys.argv and not _Group.has_shown_json:
        print(json.dumps({"error": message, "exit_code": code}))
    stderr.print(harmless(message), style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)


def open_workspace(
    workspace: Path | None, settings: Sequence[str] | None = None, sections: Sequence[str] = ()
) -> tuple[Workspace, Params]:
    """The workspace, and its parameters with these settings, which must be of these `sections` if any are named."""
    opened = Workspace.open(workspace)
    overrides = {}
    for setting in settings or ():
        key, separator, value = setting.partition("=")
        if not separator:
            raise UsageError(f"{setting!r} is no setting: write --set SECTION.KEY=VALUE.")
        try:
            overrides[key] = read_yaml(value)
        except (yaml.YAMLError, ValueError):
            raise UsageError(f"{setting!r} is no setting: {value!r} is not readable as YAML.") from None
    params = opened.params(overrides)
    if others := [key for key in overrides if sections and key.partition(".")[0] not in sections]:
        raise UsageError(f"{', '.join(others)} would change nothing: this command looks at {', '.join(sections)}.")
    return opened, params


LEARNING: Final = ("windows", "dataset", "holdout", "train", "validation")
"""Sections of params.yaml that a training depends on; the last one as far as it looks at pictures."""


def batch_called(workspace: Workspace, name: str | None) -> str | None:
    """The id of the batch that is called so, if any is named."""
    from violence_ops.store import batch_names

    return None if name is None else batch_names.find(workspace, name)


def show(result: Result | dict[str, Any], as_json: bool) -> None:
    """Print a result for people or as JSON."""
    content = result if isinstance(result, dict) else result.to_dict()
    lines = getattr(result, "lines", None)
    if as_json:
        print(harmless(json.dumps(content, indent=2, default=str, ensure_ascii=False)))
        _Group.has_shown_json = True
    else:
        for line in lines() if lines else _plain(content):
            print(harmless(line, kept="\t"))


def _plain(content: dict[str, Any]) -> Iterator[str]:
    width = max((len(key) for key in content), default=0)
    for key, value in content.items():
        if isinstance(value, dict):
            counts = all(isinstance(one, int) for one in value.values())
            value = ", ".join(f"{one} {name}" if counts else f"{name} {one}" for name, one in value.items()) or "none"
        elif isinstance(value, (list, tuple)):
            value = ", ".join(map(str, value)) or "none"
        yield f"{key.replace('_', ' '):<{width}}  {'none' if value is None else value}"


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on stderr, fed by `(what, done, total)`; nothing where that is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_interactive) as bars:
        task = bars.add_task("starting", total=None)

        def advance(what: str, done: int, total: int) -> None:
            bars.update(task, description=what, completed=done, total=total)

        yield advance
