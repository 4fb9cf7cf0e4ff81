"""The gate: judge the newest evaluation by the policy in `params.yaml`, and write the verdict to the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from violence_ops import git, ledger, versioning
from violence_ops.errors import UserError, WorkspaceError
from violence_ops.evaluation.records import Evaluation, Outcome, Verdict
from violence_ops.evaluation.report import headline
from violence_ops.files import fingerprint, write_json
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params
from violence_ops.stages.releasing import reports
from violence_ops.store import releases
from violence_ops.workspace import Workspace

_WORN: Final = 10
"""Candidates judged on one holdout, from which on people are told: each equal one has its chance to pass."""


@dataclass(frozen=True, slots=True)
class GateResult(Jsonable):
    """The verdict: `pass`, `refuse` or `undecided`, the sentences that made it, and `notices`, which decide nothing. `report`
    is the page to read."""

    verdict: Outcome
    mode: str
    reasons: list[str]
    headline: str
    candidate: str
    champion: str | None
    report: str
    notices: list[str]

    def lines(self) -> list[str]:
        """What a person reads."""
        said = (f"- {sentence}" for sentence in (*self.reasons, *self.notices))
        return [self.headline, *said, f"Report: {self.report}"]


def run(workspace: Workspace, params: Params, *, report: Path | str | None = None) -> GateResult:
    """Judge an evaluation (default: the newest): `gate.json` and the page beside it, and one ledger line per new verdict.

    A verdict other than `pass` is a result, not an error. It moves nothing: `promote` does, after an approval. Raises
    WorkspaceError if it was evaluated by other settings, its holdout went stale since, or git is on no branch, LedgerBroken if
    the ledger does not verify; nothing is written then.
    """
    chosen = reports.find(workspace, report)
    releases.entries(workspace)  # one that does not verify is told before anything is written
    git.check_branch(workspace)
    _check_settings(chosen, params)
    reports.check_holdout(workspace, chosen, WorkspaceError)
    verdict = reports.write_page(workspace, chosen.files, chosen.evaluation, params)
    found = chosen.evaluation.difference
    difference = found.to_dict() if found else None
    write_json(chosen.files.gate, {"evaluation": chosen.digest, "difference": difference, **verdict.to_dict()})
    payload = _payload(chosen, verdict) | {"policy": policy_digest(params)}
    with workspace.lock("release"):
        entries = releases.check_ledger(workspace)
        last = latest(entries, chosen.files.name)
        if last is None or last.payload != payload:
            entries.append(releases.record(workspace, actor="gate", event="verdict", payload=payload))
    workspace.write_progress("gate", {"report": chosen.files.name, "verdict": verdict.verdict, "mode": verdict.mode})
    message = f"Gate: {chosen.files.name} {verdict.verdict}"
    versioning.commit_stage(workspace, ["gate"], message, params)
    # inside `dvc repro` the line above leaves everything to DVC, which knows nothing of the reports
    git.commit(workspace, [chosen.files.folder], message)
    evaluation = chosen.evaluation
    return GateResult(
        verdict=verdict.verdict,
        mode=verdict.mode,
        reasons=verdict.reasons,
        headline=headline(evaluation, verdict),
        candidate=evaluation.candidate.version,
        champion=evaluation.champion_version,
        report=str(chosen.files.page),
        notices=list(wear(workspace, entries, evaluation)),
    )


def wear(workspace: Workspace, entries: list[ledger.Entry], evaluation: Evaluation) -> Iterator[str]:
    """That a holdout has judged many candidates: the best of many equal ones looks better than it is."""
    verdicts = (entry.payload for entry in entries if entry.event == "verdict")
    gated = {found["candidate"] for found in verdicts if found.get("holdout") == _holdout(evaluation)}
    judged = gated.union(_judged_on(workspace, {clip.clip_id for clip in evaluation.clips}))
    if len(judged) >= _WORN:
        yield (
            f"This holdout, or one with most of its clips, has judged {len(judged)} candidates, and one in about twenty of those "
            "that are no better passes by chance: bring labelled clips of new source groups, and freeze another, of which half is "
            "new, with `violence-ops holdout freeze`."
        )


def _judged_on(workspace: Workspace, clip_ids: set[str]) -> Iterator[str]:
    """The candidates of the evaluations that saw more than half of these clips, whether the gate was asked or not."""
    for folder in workspace.report_folders():
        try:
            found = reports.read(folder).evaluation
        except (UserError, OSError):
            continue  # it can judge nothing either
        if 2 * sum(clip.clip_id in clip_ids for clip in found.clips) > len(clip_ids):
            yield found.candidate.version


def latest(entries: list[ledger.Entry], report: str) -> ledger.Entry | None:
    """The last verdict that the ledger holds for a report."""
    found = [entry for entry in entries if entry.event == "verdict" and entry.payload.get("report") == report]
    return found[-1] if found else None


def policy_digest(params: Params) -> str:
    """A hash of what a verdict depends on in `gate:`; who may approve it, and for how long, is asked when it is released."""
    return fingerprint(params.gate.model_dump(exclude={"approvers", "approval_timeout_h"}))


def _check_settings(chosen: reports.Report, params: Params) -> None:
    """The interval was made by settings of the policy, and a narrow one passes more."""
    found, wanted = chosen.evaluation.difference, params.gate
    if found and (found.confidence, found.resamples) != (wanted.confidence, wanted.resamples):
        raise WorkspaceError(
            f"{chosen.files.name} was evaluated with gate.confidence {found.confidence:g} and gate.resamples {found.resamples}, but "
            f"params.yaml says {wanted.confidence:g} and {wanted.resamples}: run `violence-ops evaluate` again."
        )


def _payload(chosen: reports.Report, verdict: Verdict) -> dict[str, Any]:
    evaluation = chosen.evaluation
    return {
        "report": chosen.files.name,
        "digest": chosen.digest,
        "candidate": evaluation.candidate.version,
        "champion": evaluation.champion_version,
        "holdout": _holdout(evaluation),
        "verdict": verdict.verdict,
        "mode": verdict.mode,
        "reasons": verdict.reasons,
    }


def _holdout(evaluation: Evaluation) -> str:
    """A holdout as the ledger names it."""
    return f"{evaluation.holdout.version} {evaluation.holdout.revision}"
