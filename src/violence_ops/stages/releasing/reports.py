"""What evaluate, gate and promote share: which report is meant, and its evaluation with the digest that names its bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from violence_ops.errors import UsageError, UserError, WorkspaceError
from violence_ops.evaluation import judgement, policy, report
from violence_ops.evaluation.records import Evaluation, Verdict
from violence_ops.files import write_text
from violence_ops.folders import ReportFolder
from violence_ops.params import Params
from violence_ops.stages.releasing import shadow, thumbnails
from violence_ops.stages.releasing.drift_summary import drift_summary
from violence_ops.store.labels import relabelled
from violence_ops.workspace import Workspace, version_order


@dataclass(frozen=True, slots=True)
class Report:
    """An evaluation as it lies on disk; digest is the SHA-256 of `evaluation.json`."""

    files: ReportFolder
    evaluation: Evaluation
    digest: str


def find(workspace: Workspace, chosen: Path | str | None) -> Report:
    """The report of that name or folder, else the newest. Raises a UserError if there is none, it is unreadable, or its figures
    are not those that its clips give."""
    name = Path(chosen).name if chosen else workspace.read_progress("evaluate").get("report")
    if name is None:
        raise WorkspaceError("There is no evaluation yet: run `violence-ops evaluate` first.")
    if chosen and len(Path(chosen).parts) > 1 and not _is_report(workspace, Path(chosen)):
        raise UsageError(f"{chosen} is not in {workspace.reports}: name one of the folders there.")
    files = workspace.report(name)
    if chosen and not files.evaluation.is_file():
        raise UsageError(
            f"There is no evaluation {name}: `reports/` holds those that there are, `violence-ops evaluate` makes one."
        )
    return read_checked(files)


def read_checked(files: ReportFolder) -> Report:
    """Read `evaluation.json`, and count again. Raises WorkspaceError as `read` does, or if a figure does not follow from the clips."""
    found = read(files)
    if not judgement.follows(found.evaluation):
        raise WorkspaceError(
            f"reports/{files.name}/{files.evaluation.name} holds figures that its clips do not give, so it was changed or made by an "
            f"older version: make it again with `violence-ops evaluate --force --candidate {found.evaluation.candidate.version}`."
        )
    return found


def read(files: ReportFolder) -> Report:
    """Read `evaluation.json`. Raises WorkspaceError if it is not there or not readable."""
    if not files.evaluation.is_file():
        raise WorkspaceError(f"There is no evaluation {files.name}: run `violence-ops evaluate` first.")
    content = files.evaluation.read_bytes()
    evaluation = Evaluation.from_json(content, f"reports/{files.name}/{files.evaluation.name}")
    return Report(files, evaluation, hashlib.sha256(content).hexdigest())


def as_of_now(workspace: Workspace, evaluation: Evaluation) -> Evaluation:
    """The evaluation with what has happened to its holdout since that was frozen."""
    own = evaluation.holdout.version
    newest = max([own, *workspace.holdout_versions()], key=version_order)
    corrected = relabelled(workspace, {clip.clip_id: clip.label for clip in evaluation.clips})
    stale = {"newer_holdout": newest if newest != own else None, "relabelled": corrected}
    return evaluation.model_copy(update={"checks": evaluation.checks.model_copy(update=stale)})


def check_holdout(workspace: Workspace, chosen: Report, refusal: type[UserError]) -> None:
    """Raise `refusal` if the report does not say what its holdout is by now: older than another, or with corrected labels."""
    before, now = chosen.evaluation.checks, as_of_now(workspace, chosen.evaluation).checks
    if now == before:
        return
    version, candidate = chosen.evaluation.holdout.version, chosen.evaluation.candidate.version
    newer = now.newer_holdout != before.newer_holdout
    change = (
        f"Holdout {now.newer_holdout or version} became the newest"
        if newer
        else f"Labels in holdout {version} were corrected"
    )
    first = "`violence-ops holdout freeze`, then " if now.relabelled and not newer else ""
    raise refusal(
        f"{change} after {chosen.files.name} was made: run {first}`violence-ops evaluate --candidate {candidate}` and "
        "`violence-ops gate` again."
    )


def write_page(
    workspace: Workspace, files: ReportFolder, evaluation: Evaluation, params: Params, *, pictures: bool = True
) -> Verdict:
    """Write `report.html` with what the gate's present policy makes of the evaluation; returns that verdict."""
    verdict = policy.judge(evaluation, params.gate)
    found = thumbnails.data_uris(workspace, params, report.pictured(evaluation)) if pictures else {}
    shadowed = shadow.compare(workspace, evaluation.candidate.version)
    nights = drift_summary(workspace, evaluation.champion.version) if evaluation.champion else []
    write_text(files.page, report.render(evaluation, verdict, params.gate, found, shadowed, nights))
    return verdict


def _is_report(workspace: Workspace, chosen: Path) -> bool:
    """Whether a path, seen from the current folder or from the workspace, names a folder of `reports/`."""
    seen = (chosen.resolve(), (workspace.root / chosen).resolve())
    return any(path.parent == workspace.reports.resolve() for path in seen)
