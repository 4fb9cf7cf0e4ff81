"""Telling another program on this machine what happened: one run of it, the event as a JSON line on its input.

The command is a list of arguments and reaches no shell. It comes from the environment alone: params.yaml travels with the workspace's
git, and whoever may change a threshold there may not run programs here. Of this process's environment, with its passwords, the program
sees only what every program needs. What it prints may be as secret as its own settings, so it goes to a private file and into no message.
"""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final

from violence_ops import processes
from violence_ops.deployment import RELEASE, Occasion, bare_environment
from violence_ops.errors import ServiceUnavailable, UsageError
from violence_ops.files import atomic_path

TIMEOUT_S: Final = 60.0
"""What one delivery may take, unless the hook has a limit of its own."""
KEPT: Final = 65536
"""Bytes of the output's end that are kept."""
_PATIENCE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Hook:
    """A program with its arguments, and the file that holds what its last run printed."""

    name: ClassVar[str] = "hook"
    arguments: tuple[str, ...] = field(repr=False)
    log: Path
    occasion: Occasion = RELEASE
    timeout_s: float | None = None

    @classmethod
    def parse(cls, text: str, log: Path, occasion: Occasion = RELEASE, timeout_s: float | None = None) -> Hook:
        """The command of a JSON list. Raises UsageError unless it names a program, by its whole path, that can be run."""
        setting = f"{occasion.settings}_HOOK_COMMAND"
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, list) or not found or not all(isinstance(word, str) for word in found):
            raise UsageError(f'{setting} is no list of arguments: write it as JSON, ["/path/of/program", "argument"].')
        if problem := _problem(Path(found[0])):
            raise UsageError(f"{setting} names {found[0]!r}, {problem}.")
        return cls(tuple(found), log, occasion, timeout_s)

    def deliver(self, delivery: str, body: bytes) -> None:
        """Run the program with `body` and a line's end on its input; it ends within its limit, with all it started, or is killed.

        Exit status 0 is success, anything else a ServiceUnavailable, and so is output that cannot be kept.
        """
        program, limit_s = Path(self.arguments[0]).name, self.timeout_s or TIMEOUT_S
        try:
            ended = processes.run(
                self.arguments, body + b"\n", environment=bare_environment() | {"VIOLENCE_OPS_DELIVERY": delivery},
                timeout_s=limit_s, keep=KEPT, patience_s=_PATIENCE_S,
            )  # fmt: skip
        except OSError as error:
            raise ServiceUnavailable(f"The command hook {program} could not be started ({error.strerror}).") from None
        problem = f"no end after {limit_s:g} s" if ended.status is None else f"exit status {ended.status}"
        try:
            with atomic_path(self.log, mode=0o600) as file:
                file.write_bytes(ended.output)
        except OSError as error:
            raise ServiceUnavailable(
                f"The output of the command hook {program} ({problem}) cannot be kept in {self.log} ({error.strerror}): make room or "
                f"get the right to write there{self.occasion.afterwards}."
            ) from None
        if ended.status != 0:
            raise ServiceUnavailable(
                f"The command hook {program} did not take {self.occasion.told} ({problem}, output in {self.log}): "
                f"fix it{self.occasion.afterwards}."
            )


def _problem(program: Path) -> str | None:
    """Why a program cannot be run, and what to do; None if it can."""
    if not program.is_absolute():
        return "which is no whole path: write it from / on"
    if not program.exists():
        return "which is not there: put the program there, or give the path where it is"
    if not program.is_file():
        return "which is no file: give the path of the program"
    if not os.access(program, os.X_OK):
        return f"which may not be executed: `chmod +x {shlex.quote(str(program))}`"
    return None
