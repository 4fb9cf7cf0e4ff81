"""A person's answer to "release this candidate?": the question about a report, and the answer's line in the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from violence_ops import ledger
from violence_ops.errors import RefusedByGate
from violence_ops.evaluation import policy
from violence_ops.evaluation.report import headline
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params
from violence_ops.stages.releasing import gate, reports
from violence_ops.store import releases
from violence_ops.who import explained
from violence_ops.wording import printable
from violence_ops.workspace import Workspace

NOBODY: Final = "nobody"
"""Who refuses when no answer comes in time."""


@dataclass(frozen=True, slots=True)
class Question(Jsonable):
    """What an approver is asked about a report; `digest` is that of the evaluation that it speaks of."""

    report: str
    digest: str
    subject: str
    body: str


@dataclass(frozen=True, slots=True)
class DecisionResult(Jsonable):
    """A person's decision on a report (`approval` or `refusal`, the latter with a reason), and the line of the ledger that holds it.

    `settled`: another line of the ledger, by whom and why, has left nothing to decide.
    """

    report: str
    decision: str
    by: str
    seq: int
    reason: str | None = None

    def lines(self) -> list[str]:
        """What a person reads."""
        return [f"{self.decision.capitalize()} of {self.report} by {self.by}: line {self.seq} of the ledger."]


def ask(workspace: Workspace, params: Params, report: Path | str | None = None) -> Question:
    """The question about a report (default: the newest) that the gate passed. Raises RefusedByGate if it did not."""
    chosen = reports.find(workspace, report)
    entries = releases.entries(workspace)
    check_verdict(entries, params, chosen)
    verdict = policy.judge(chosen.evaluation, params.gate)
    notices = gate.wear(workspace, entries, chosen.evaluation)
    said = "\n".join(f"- {sentence}" for sentence in (*verdict.reasons, *notices))
    return Question(
        report=chosen.files.name,
        digest=chosen.digest,
        subject=f"Release version {chosen.evaluation.candidate.version}?",
        body=f"{headline(chosen.evaluation, verdict)}\n\n{said}\n\nRead the report first: `{chosen.files.page}` (evaluation {chosen.digest[:12]}).",
    )


def approve(
    workspace: Workspace, params: Params, report: Path | str | None = None, *, by: str, digest: str | None = None
) -> DecisionResult:
    """Write a person's approval of a report (default: the newest) to the ledger, once; `promote` then releases it.

    Raises RefusedByGate if the gate did not pass that very report, the person is no approver, another one has refused it, or it
    is no longer the evaluation `digest` that was asked about. An answer to such a question that comes too late is not written:
    the version was released or taken back meanwhile, or another person has refused it.
    """
    check_approver(params, by)
    with workspace.lock("release"):
        entries = releases.check_ledger(workspace)
        if digest and (line := _moved(entries, digest) or _refused_by_another(entries, digest, by)):
            return _settled(line)
        chosen = _asked_about(workspace, report, digest)
        check_verdict(entries, params, chosen)
        check_refusals(entries, chosen, by)
        return decide(workspace, entries, chosen, "approval", by)


def refuse(
    workspace: Workspace,
    params: Params,
    report: Path | str | None = None,
    *,
    by: str,
    reason: str,
    digest: str | None = None,
) -> DecisionResult:
    """Write a person's refusal of a report (default: the newest) to the ledger, once.

    Raises RefusedByGate if the person is no approver, the gate has not judged that very report, its candidate is the champion
    already, or it is no longer the evaluation `digest` that was asked about; UsageError without a reason. An answer to such a
    question is not written if the version was released or taken back meanwhile.
    """
    reason = explained(reason, "A refusal needs a reason: it is written to the ledger.")
    check_approver(params, by)
    with workspace.lock("release"):
        entries = releases.check_ledger(workspace)
        if digest and (line := _moved(entries, digest)):
            return _settled(line)
        chosen = _asked_about(workspace, report, digest)
        _check_open(entries, chosen)
        return decide(workspace, entries, chosen, "refusal", by, reason=reason)


def lapse(
    workspace: Workspace, params: Params, report: Path | str | None = None, *, digest: str | None = None
) -> DecisionResult:
    """Write to the ledger, once, that nobody answered in time, which is a refusal: of the evaluation `digest`, where that was asked
    about, also if it was made again meanwhile. It is not written if a person has decided, or the version was released or taken
    back, while the question was open."""
    facts = {"reason": f"nobody answered within {params.gate.approval_timeout_h:g} h"} | (
        {"digest": digest} if digest else {}
    )
    with workspace.lock("release"):
        entries = releases.check_ledger(workspace)
        if digest and (line := _moved(entries, digest) or _decided_by_a_person(entries, digest)):
            return _settled(line)
        return decide(workspace, entries, reports.find(workspace, report), "refusal", NOBODY, **facts)


def _asked_about(workspace: Workspace, report: Path | str | None, digest: str | None) -> reports.Report:
    """The report, if it still holds the evaluation that a person was asked about. Raises RefusedByGate otherwise."""
    chosen = reports.find(workspace, report)
    if digest not in (None, chosen.digest):
        raise RefusedByGate(
            f"{chosen.files.name} was made again after this question was asked, so the answer counts for nothing: trigger "
            "gated_evaluation, or read it and run `violence-ops promote --approve --by NAME`."
        )
    return chosen


def approver(entries: list[ledger.Entry], chosen: reports.Report) -> str:
    """Who has approved an evaluation, as the ledger's last decision on it says."""
    decisions = [entry for entry in entries if entry.event in releases.DECISIONS]
    last = next((one for one in reversed(decisions) if one.payload.get("digest") == chosen.digest), None)
    if last is None or last.event != "approval":
        raise RefusedByGate(
            f"The ledger holds no approval of {chosen.files.name}: an approver gives it in Airflow, or with `violence-ops promote "
            "--approve --by NAME`."
        )
    return last.actor


def check_verdict(entries: list[ledger.Entry], params: Params, chosen: reports.Report) -> None:
    """Raise RefusedByGate unless the ledger, not the file beside the report, says that the gate passed it under the policy of `params`."""
    name = chosen.files.name
    judged = gate.latest(entries, name)
    if judged is None:
        raise RefusedByGate(f"The gate has not judged {name} yet: run `violence-ops gate`.")
    found = judged.payload
    if found["digest"] != chosen.digest:
        raise RefusedByGate(
            f"{name} was made again or changed since the gate judged it: read it, then run `violence-ops gate` (and first "
            "`violence-ops evaluate --force`, if nobody has evaluated it since)."
        )
    if found["verdict"] != "pass":
        reasons = " ".join(found["reasons"])
        raise RefusedByGate(f"The gate's verdict on {name} is {found['verdict']}, so it cannot be released. {reasons}")
    if found["mode"] == "dry_run":
        raise RefusedByGate(
            f"The gate judged {name} in a dry run, which releases nothing: set gate.mode to enabled and run `violence-ops gate`."
        )
    if found.get("policy") != gate.policy_digest(params):
        raise RefusedByGate(
            f"The gate judged {name} by another policy than `gate:` in params.yaml is now: run `violence-ops gate` again."
        )
    if releases.taken_back(entries, found["candidate"], since=_first_judged(entries, chosen.digest)):
        raise RefusedByGate(
            f"Version {found['candidate']} was rolled back after the gate had judged {name}: to release it again, run "
            "`violence-ops evaluate --force` and `violence-ops gate` first."
        )


def check_refusals(entries: list[ledger.Entry], chosen: reports.Report, by: str) -> None:
    """Raise RefusedByGate if a person other than `by` has refused the evaluation, and not approved it later."""
    name = chosen.files.name
    if refused := _refused_by_another(entries, chosen.digest, by):
        raise RefusedByGate(
            f"{refused.actor} refused {name} (line {refused.seq} of the ledger: {printable(refused.payload['reason'])}), which only they can "
            "take back: to ask again, run `violence-ops evaluate --force` and `violence-ops gate` first."
        )


def _check_open(entries: list[ledger.Entry], chosen: reports.Report) -> None:
    """Raise RefusedByGate where there is nothing to refuse: the candidate is live, or nobody could have released it yet."""
    version = chosen.evaluation.candidate.version
    if releases.last_champion(entries) == version:
        raise RefusedByGate(
            f"Version {version} is champion already: take it back with `violence-ops rollback --by NAME --reason …`."
        )
    if not _verdicts(entries, chosen.digest):
        raise RefusedByGate(f"The gate has not judged {chosen.files.name} yet: run `violence-ops gate` first.")


def _settled(line: ledger.Entry) -> DecisionResult:
    """What is said to an answer that a line of the ledger has left nothing to decide."""
    said = (
        f"Settled elsewhere by {line.actor} (line {line.seq} of the ledger): {line.event}, {releases.described(line)}."
    )
    return DecisionResult(line.payload.get("report", ""), "settled", line.actor, line.seq, said)


def _moved(entries: list[ledger.Entry], digest: str) -> ledger.Entry | None:
    """The movement by which the version of an evaluation became champion, or ceased to be after that was judged."""
    judged = _verdicts(entries, digest)
    if not judged:
        return None
    version = judged[0].payload["candidate"]
    if releases.last_champion(entries) == version:
        return releases.last_movement(entries)
    return releases.taken_back(entries, version, since=judged[0].seq)


def _decided_by_a_person(entries: list[ledger.Entry], digest: str) -> ledger.Entry | None:
    """The last decision on an evaluation that somebody has made."""
    decisions = (entry for entry in reversed(entries) if entry.event in releases.DECISIONS and entry.actor != NOBODY)
    return next((entry for entry in decisions if entry.payload.get("digest") == digest), None)


def _verdicts(entries: list[ledger.Entry], digest: str) -> list[ledger.Entry]:
    """The verdicts on an evaluation, oldest first."""
    return [entry for entry in entries if entry.event == "verdict" and entry.payload.get("digest") == digest]


def _first_judged(entries: list[ledger.Entry], digest: str) -> int:
    """The line of the first verdict on an evaluation: a later one, under another policy, takes no rollback away."""
    return _verdicts(entries, digest)[0].seq


def _refused_by_another(entries: list[ledger.Entry], digest: str, by: str) -> ledger.Entry | None:
    """The last refusal of an evaluation by a person other than `by` who has not approved it later.

    By the evaluation's digest: a new verdict on the same one, under whatever policy, takes no refusal away.
    """
    decisions = {
        entry.actor: entry
        for entry in entries
        if entry.event in releases.DECISIONS and entry.payload.get("digest") == digest
    }
    standing = [e for actor, e in decisions.items() if e.event == "refusal" and actor not in (by, NOBODY)]
    return max(standing, key=lambda entry: entry.seq, default=None)


def check_approver(params: Params, by: str) -> None:
    """Raise RefusedByGate unless gate.approvers names the person."""
    if by not in params.gate.approvers:
        names = ", ".join(params.gate.approvers) or "nobody"
        raise RefusedByGate(f"{by} may not decide on a release: gate.approvers in params.yaml names {names}.")


def decide(
    workspace: Workspace,
    entries: list[ledger.Entry],
    chosen: reports.Report,
    decision: ledger.Event,
    by: str,
    **facts: str,
) -> DecisionResult:
    """Write it, with further facts, unless the last one on this report says the same. The caller holds the lock `release`, under which
    the ledger's `entries` were read."""
    payload = {
        "report": chosen.files.name,
        "digest": chosen.digest,
        "candidate": chosen.evaluation.candidate.version,
    } | facts
    earlier = [
        entry
        for entry in entries
        if entry.event in releases.DECISIONS and entry.payload.get("report") == chosen.files.name
    ]
    last = earlier[-1] if earlier else None
    if last is None or (last.event, last.actor, last.payload) != (decision, by, payload):
        last = releases.record(workspace, actor=by, event=decision, payload=payload)
    return DecisionResult(chosen.files.name, decision, by, last.seq, last.payload.get("reason"))
