"""The MLflow run of a training: begun before the first epoch, told of each one as it ends, and ended as the training ends.

A file beside the checkpoint names the run, so that a training that goes on after a kill, or that could not be registered, goes on
with the same one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from violence_ops.errors import UserError
from violence_ops.files import read_json, write_json
from violence_ops.registry import EXPERIMENT, Registry

FILE: Final = "run.json"
_log = logging.getLogger(__name__)

Tell = Callable[[int, Mapping[str, float]], None]
"""Takes an epoch's number, from 1, and its figures."""


def begun(registry: Registry, folder: Path, name: str, tags: Mapping[str, str]) -> str:
    """The id of the run that `folder` names, RUNNING again; of a new one if it names none, or one that MLflow has not any more.

    Raises ServiceUnavailable if MLflow cannot be reached.
    """
    known = _named(folder)
    if known and registry.has_run(known):
        with registry.run(known) as run:
            run.set_status("RUNNING")
        return known
    run_id = registry.create_run(name, tags, EXPERIMENT).run_id
    write_json(folder / FILE, {"run_id": run_id})
    return run_id


@contextmanager
def running(registry: Registry, run_id: str) -> Iterator[Tell]:
    """Gives what tells MLflow of an epoch. The run ends as FAILED if the block raises an error, as KILLED if it is interrupted.

    If MLflow is lost, the block goes on and MLflow is told of no more epochs: what it misses is logged at the end.
    """
    lost = False

    def tell(epoch: int, figures: Mapping[str, float]) -> None:
        nonlocal lost
        try:
            if not lost:
                with registry.run(run_id) as run:
                    run.log_curves([(epoch, figures)])
        except UserError as error:
            lost = True
            _log.warning("%s The training goes on; what MLflow misses is logged at its end.", error)

    try:
        yield tell
    except BaseException as error:
        registry.end_run(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise


def abandon(registry: Registry, folder: Path) -> None:
    """The training in `folder` is not gone on with: its run ends as KILLED, if MLflow has it."""
    if known := _named(folder):
        registry.end_run(known, "KILLED")


def _named(folder: Path) -> str | None:
    file = folder / FILE
    return str(read_json(file, f"remove {folder}, and it is trained again")["run_id"]) if file.is_file() else None
