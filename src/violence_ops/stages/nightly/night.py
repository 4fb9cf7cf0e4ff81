"""A whole night without Airflow, from the inbox to sealed batches, and the version in shadow."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Final

from violence_ops.errors import ExpectationsFailed, UserError, WorkspaceError
from violence_ops.params import Params
from violence_ops.stages.nightly import annotate, announce, extract_poses, ingest, score, seal, validate
from violence_ops.stages.releasing import shadow
from violence_ops.store import batches
from violence_ops.store.batches import Progress
from violence_ops.workspace import Workspace

_log = logging.getLogger(__name__)

_BUSY: Final = (
    "Another night is at work on the open batches (a task of nightly_ingestion in Airflow, or `violence-ops night`): wait for its end, "
    "then run this again if anything is left."
)


@dataclass(frozen=True, slots=True)
class NightResult:
    """What each verb said: `ingest` and `shadow` of the night, the others a batch; `stopped` says why a batch is not done,
    `airflow_problem` why Airflow was not told of the sealed ones."""

    ingest: dict[str, Any]
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)
    shadow: dict[str, Any] | None = None
    shadow_problem: str | None = None
    airflow_problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-able values."""
        return {
            "ingest": self.ingest, "batches": self.batches, "stopped": self.stopped, "shadow": self.shadow,
            "shadow_problem": self.shadow_problem, "airflow_problem": self.airflow_problem,
        }  # fmt: skip

    def lines(self) -> Iterator[str]:
        """What a person reads."""
        # a night is never a dry run
        yield _line("ingest", {key: value for key, value in self.ingest.items() if key not in ("notices", "dry_run")})
        yield from (f"{'notice':<13}  {sentence}" for sentence in self.ingest["notices"])
        for batch_id, found in self.batches.items():
            yield f"batch {batch_id}{' was stopped' if batch_id in self.stopped else ''}"
            yield from (f"  {_line(verb, result)}" for verb, result in found.items())
        if self.shadow:
            yield _line("shadow", self.shadow)


def run(workspace: Workspace, params: Params, *, night: date, progress: Progress | None = None) -> NightResult:
    """Ingest, then bring every open batch to its end, and those of any night whose sealing was not finished.

    One that has to stop stops no other; the shadow stops nothing. A running Airflow is told of what was sealed. Raises
    ServiceUnavailable if an outside system cannot be reached; the next run goes on there. Raises WorkspaceError while another night is
    at work on the batches; tasks of Airflow's wait for the end of this one.
    """
    sealed: list[str] = []
    try:
        with workspace.lock("night", busy=_BUSY):
            result = _run(workspace, params, night, sealed, progress)
    except BaseException:
        if problem := announce.run(workspace, sealed):  # no later night names them again
            _log.warning(problem)
        raise
    return replace(result, airflow_problem=announce.run(workspace, sealed))


def _run(
    workspace: Workspace, params: Params, night: date, sealed: list[str], progress: Progress | None
) -> NightResult:
    """The night; `sealed` gets the batches that were sealed, also if it ends in an error."""
    taken = ingest.run(workspace, params, night=night, progress=progress).to_dict()
    found: dict[str, dict[str, Any]] = {}
    stopped = {}
    half_sealed = [batch.batch_id for batch in seal.half_sealed(workspace)]
    for batch_id in [*batches.open_batch_ids(workspace), *half_sealed]:
        found[batch_id] = {}
        try:
            for verb, result in _steps(workspace, params, batch_id, progress):
                found[batch_id][verb] = result
            sealed.append(batch_id)
        except (ExpectationsFailed, WorkspaceError) as error:
            stopped[batch_id] = str(error)
    try:
        judged, problem = shadow.run(workspace, params, progress=progress).to_dict(), None
    except UserError as error:
        judged, problem = None, str(error)
    return NightResult(taken, found, stopped, judged, problem)


def _steps(
    workspace: Workspace, params: Params, batch_id: str, progress: Progress | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    if not workspace.batch(batch_id).is_sealed:
        yield "validate", validate.run(workspace, params, batch_id=batch_id, progress=progress).to_dict()
        validate.checkpoint(workspace, params, batch_id=batch_id)
        for verb, stage in {"extract-poses": extract_poses, "annotate": annotate, "score": score}.items():
            yield verb, stage.run(workspace, params, batch_id=batch_id, progress=progress).to_dict()
    yield "seal", seal.run(workspace, params, batch_id=batch_id, progress=progress).to_dict()


def _line(verb: str, result: dict[str, Any]) -> str:
    """The facts that say something, on one line."""
    said = [
        f"{name.replace('_', ' ')} {_text(value)}" for name, value in result.items() if value not in (None, [], {}, ())
    ]
    return f"{verb:<13}  {', '.join(said)}"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {_text(one)}" for name, one in value.items()) + ")"
    return " ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)
