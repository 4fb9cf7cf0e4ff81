"""Telling another program on this machine that the champion changed: one run of it, the change as a JSON line on its input.

The command is a list of arguments and reaches no shell. It comes from the environment alone: params.yaml travels with the workspace's
git, and whoever may change a threshold there may not run programs here. Of this process's environment, with its passwords, the program
sees only what every program needs. What it prints may be as secret as its own settings, so it goes to a private file and into no message.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final

from violence_ops import processes
from violence_ops.deployment import bare_environment
from violence_ops.errors import ServiceUnavailable, UsageError
from violence_ops.files import atomic_path

TIMEOUT_S: Final = 60.0
"""What one delivery may take."""
KEPT: Final = 65536
"""Bytes of the output's end that are kept."""
_PATIENCE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Hook:
    """A program with its arguments, and the file that holds what its last run printed."""

    name: ClassVar[str] = "hook"
    arguments: tuple[str, ...] = field(repr=False)
    log: Path

    @classmethod
    def parse(cls, text: str, log: Path) -> Hook:
        """The command of a JSON list. Raises UsageError unless it names a program, by its whole path, that can be run."""
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, list) or not found or not all(isinstance(word, str) for word in found):
            raise UsageError(
                'VIOLENCE_OPS_HOOK_COMMAND is no list of arguments: write it as JSON, ["/path/of/program", "argument"].'
            )
        program = Path(found[0])
        if not program.is_absolute() or not program.is_file() or not os.access(program, os.X_OK):
            raise UsageError(
                f"VIOLENCE_OPS_HOOK_COMMAND names {found[0]!r}, which is no program that can be run: give its whole path."
            )
        return cls(tuple(found), log)

    def deliver(self, delivery: str, body: bytes) -> None:
        """Run the program with `body` and a line's end on its input; it ends within TIMEOUT_S, with all it started, or is killed.

        Exit status 0 is success, anything else a ServiceUnavailable, and so is output that cannot be kept.
        """
        program = Path(self.arguments[0]).name
        try:
            ended = processes.run(
                self.arguments, body + b"\n", environment=bare_environment() | {"VIOLENCE_OPS_DELIVERY": delivery},
                timeout_s=TIMEOUT_S, keep=KEPT, patience_s=_PATIENCE_S,
            )  # fmt: skip
        except OSError as error:
            raise ServiceUnavailable(f"The command hook {program} could not be started ({error.strerror}).") from None
        problem = f"no end after {TIMEOUT_S:g} s" if ended.status is None else f"exit status {ended.status}"
        try:
            with atomic_path(self.log, mode=0o600) as file:
                file.write_bytes(ended.output)
        except OSError as error:
            raise ServiceUnavailable(
                f"The output of the command hook {program} ({problem}) cannot be kept in {self.log} ({error.strerror}): make room or "
                "get the right to write there, then run `violence-ops ledger notify`, which runs it again."
            ) from None
        if ended.status != 0:
            raise ServiceUnavailable(
                f"The command hook {program} did not take the change of champion ({problem}, output in {self.log}): fix it, then "
                "run `violence-ops ledger notify`."
            )
