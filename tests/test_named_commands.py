"""Every `violence-ops …` that a message, a DAG or the docs name exists, with the options that they give it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from violence_ops.cli.program import app

ROOT = Path(__file__).parents[1]
QUOTED = re.compile(r"`violence-ops ([^`]+)`")
TYPED = re.compile(r"^(?:\$ | *cmd: )?violence-ops ([^\n#]+)", re.MULTILINE)
PROGRAM: Any = typer.main.get_command(app)
FILLED_IN = "{}"
"""Stands in a message for what is known when it is said."""


def named(path: Path) -> Iterator[str]:
    """What follows `violence-ops` in the strings of a Python file, or in the prose and the examples of another."""
    text = path.read_text()
    if path.suffix == ".py":
        for said in strings(text):
            yield from QUOTED.findall(said)
        return
    yield from QUOTED.findall(text)
    for example in text.split("```")[1::2] if path.suffix == ".md" else [text]:
        yield from TYPED.findall(example)


def strings(code: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else FILLED_IN for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def fault(words: list[str]) -> str | None:
    """Why the command line has no such command; None if it has."""
    command = PROGRAM
    rest = list(words)
    while hasattr(command, "commands") and rest and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
    if hasattr(command, "commands") and not (command.invoke_without_command and not rest):
        return None if not rest or FILLED_IN in rest[0] or rest[0] == "--help" else f"no command {rest[0]}"
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    if "ignore_unknown_options" in command.context_settings:  # handed on to DVC or Airflow
        return None
    given = (re.match(r"--?[a-zA-Z][\w-]*", word) for word in rest)
    return next((f"no option {one[0]}" for one in given if one and one[0] not in known), None)


def test_every_command_that_is_named_exists() -> None:
    files = [
        *(path for folder in ("src", "dags") for path in (ROOT / folder).rglob("*.py")),
        *(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "params.yaml", ROOT / "dvc.yaml",
    ]  # fmt: skip
    found = [(path.relative_to(ROOT), said, fault(said.split())) for path in files for said in named(path)]
    assert len(found) > 300
    assert [one for one in found if one[2]] == []
