"""Releasing a candidate: a person's approval of a passed report, then `champion` is moved, each in the ledger."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from violence_ops import ledger
from violence_ops.errors import RefusedByGate, UsageError
from violence_ops.params import Params
from violence_ops.registry import PACKAGE_TAG, Registry
from violence_ops.stages import gate, notify, releases, reports
from violence_ops.stages.inbox import printable
from violence_ops.stages.who import explained
from violence_ops.workspace import Workspace

_DECISIONS = ("approval", "refusal")
_NOBODY = "nobody"  # who refuses when no answer comes in time


@dataclass(frozen=True, slots=True)
class PromoteResult:
    """`version` is the champion now (with dry_run: would be); moved is False if it was already, or nothing was to change.

    `untold` is why a receiver was not told, if there is one and it was not.
    """

    version: str
    previous: str | None
    approved_by: str
    report: str
    moved: bool
    dry_run: bool
    untold: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-able values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """What a person reads."""
        before = f"after version {self.previous}" if self.previous else "the first one"
        if self.dry_run:
            return [f"Version {self.version} would become champion ({before})."]
        if not self.moved:
            return [f"Version {self.version} is the champion already."]
        told = [self.untold] if self.untold else []
        return [f"Version {self.version} is the champion now ({before}), approved by {self.approved_by}.", *told]


@dataclass(frozen=True, slots=True)
class DecisionResult:
    """A person's decision on a report (`approval` or `refusal`, the latter with a reason), and the line of the ledger that holds it."""

    report: str
    decision: str
    by: str
    seq: int
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-able values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """What a person reads."""
        return [f"{self.decision.capitalize()} of {self.report} by {self.by}: line {self.seq} of the ledger."]


def approve(workspace: Workspace, params: Params, report: Path | str | None = None, *, by: str) -> DecisionResult:
    """Write a person's approval of a report (default: the newest) to the ledger, once; `run` then releases it.

    Raises RefusedByGate if the gate did not pass that very report, the person is no approver, or another one has refused it.
    """
    with workspace.lock("release"):
        chosen = reports.find(workspace, report)
        _check_verdict(workspace, params, chosen, by)
        _check_approver(params, by)
        return _decide(workspace, chosen, "approval", by, {})


def refuse(
    workspace: Workspace, params: Params, report: Path | str | None = None, *, by: str, reason: str
) -> DecisionResult:
    """Write a person's refusal of a report (default: the newest) to the ledger, once.

    Raises RefusedByGate if the person is no approver, UsageError without a reason.
    """
    reason = explained(reason, "A refusal needs a reason: it is written to the ledger.")
    _check_approver(params, by)
    with workspace.lock("release"):
        return _decide(workspace, reports.find(workspace, report), "refusal", by, {"reason": reason})


def lapse(workspace: Workspace, params: Params, report: Path | str | None = None) -> DecisionResult:
    """Write to the ledger, once, that nobody answered in time, which is a refusal."""
    with workspace.lock("release"):
        reason = f"nobody answered within {params.gate.approval_timeout_h:g} h"
        return _decide(workspace, reports.find(workspace, report), "refusal", _NOBODY, {"reason": reason})


def run(
    workspace: Workspace,
    params: Params,
    *,
    report: Path | str | None = None,
    approved_by: str | None = None,
    expected_champion: str | None = None,
    dry_run: bool = False,
) -> PromoteResult:
    """Make the candidate of a report (default: the newest) the champion.

    Without `approved_by` the ledger must hold the approval (`approve`) already, and names who gave it. Raises RefusedByGate if
    the gate did not pass that very report under the policy of `params`, `approved_by` is no approver, another one has refused it,
    another package was judged than is registered, the holdout went stale since, or the champion is not the one that the report
    compares with (or not `expected_champion`, where given); LedgerBroken if the ledger does not verify; WorkspaceError if the alias was moved by hand. Nothing moves then. A second run is a no-op, also after a crash in the
    middle of the first.
    """
    notify.receivers(workspace)  # refuses one that is set up wrongly before anything moves
    with workspace.lock("release"):
        registry = releases.open_registry(workspace)
        chosen = reports.find(workspace, report)
        approved_by = approved_by or _approver(workspace, chosen)
        _check_verdict(workspace, params, chosen, approved_by)
        _check_approver(params, approved_by)
        if not dry_run:
            releases.recover(workspace, registry)
        version, previous = chosen.evaluation.candidate.version, chosen.evaluation.champion_version
        current = releases.agreed_champion(workspace, registry)
        moves = current != version
        if moves:
            _check_champion(chosen, current, previous, expected_champion)
            _check_package(registry, chosen)
            reports.check_holdout(workspace, chosen, RefusedByGate)  # an approval may be days younger than the verdict
        if moves and not dry_run:
            decision = _decide(workspace, chosen, "approval", approved_by, {})
            package = chosen.evaluation.candidate.package
            facts = {"report": chosen.files.name, "digest": chosen.digest, "approval": decision.seq, "package": package}
            releases.move(
                workspace, registry, event="promotion", actor=approved_by, to=version, expected=previous, facts=facts
            )
    return PromoteResult(
        version=version, previous=previous, approved_by=approved_by, report=chosen.files.name,
        moved=moves and not dry_run, dry_run=dry_run, untold=None if dry_run else notify.run(workspace).problem,
    )  # fmt: skip


def _approver(workspace: Workspace, chosen: reports.Report) -> str:
    """Who has approved an evaluation, as the ledger's last decision on it says."""
    decisions = [entry for entry in releases.check_ledger(workspace) if entry.event in _DECISIONS]
    last = next((one for one in reversed(decisions) if one.payload.get("digest") == chosen.digest), None)
    if last is None or last.event != "approval":
        raise RefusedByGate(
            f"The ledger holds no approval of {chosen.files.name}: an approver gives it in Airflow, or with `violence-ops promote "
            "--approve --by NAME`."
        )
    return last.actor


def _check_verdict(workspace: Workspace, params: Params, chosen: reports.Report, by: str) -> None:
    """The ledger, not the file beside the report, says what the gate and, since then, people decided."""
    name, entries = chosen.files.name, releases.check_ledger(workspace)
    judged = gate.latest(entries, name)
    if judged is None:
        raise RefusedByGate(f"The gate has not judged {name} yet: run `violence-ops gate`.")
    found = judged.payload
    if found["digest"] != chosen.digest:
        raise RefusedByGate(
            f"{name} is not the evaluation that the gate judged, it was changed since: run `violence-ops evaluate --force` and "
            "`violence-ops gate` again."
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
    if releases.was_rolled_back(entries, found["candidate"], since=_first_judged(entries, chosen.digest)):
        raise RefusedByGate(
            f"Version {found['candidate']} was rolled back after the gate had judged {name}: to release it again, run "
            "`violence-ops evaluate --force` and `violence-ops gate` first."
        )
    if refused := _refused_by_another(entries, chosen.digest, by):
        raise RefusedByGate(
            f"{refused.actor} refused {name} (line {refused.seq} of the ledger: {printable(refused.payload['reason'])}), which only they can "
            "take back: to ask again, run `violence-ops evaluate --force` and `violence-ops gate` first."
        )


def _first_judged(entries: list[ledger.Entry], digest: str) -> int:
    """The line of the first verdict on an evaluation: a later one, under another policy, takes no rollback away."""
    return min(entry.seq for entry in entries if entry.event == "verdict" and entry.payload.get("digest") == digest)


def _refused_by_another(entries: list[ledger.Entry], digest: str, by: str) -> ledger.Entry | None:
    """The last refusal of an evaluation by a person other than `by` who has not approved it later.

    By the evaluation's digest: a new verdict on the same one, under whatever policy, takes no refusal away.
    """
    decisions = {
        entry.actor: entry for entry in entries if entry.event in _DECISIONS and entry.payload.get("digest") == digest
    }
    standing = [e for actor, e in decisions.items() if e.event == "refusal" and actor not in (by, _NOBODY)]
    return max(standing, key=lambda entry: entry.seq, default=None)


def _check_approver(params: Params, by: str) -> None:
    if by not in params.gate.approvers:
        names = ", ".join(params.gate.approvers) or "nobody"
        raise RefusedByGate(f"{by} may not decide on a release: gate.approvers in params.yaml names {names}.")


def _check_champion(
    chosen: reports.Report, current: str | None, judged_against: str | None, expected: str | None
) -> None:
    if expected is not None and expected != judged_against:
        raise UsageError(
            f"{chosen.files.name} compares with champion {judged_against or 'none'}, not {expected}: name the report that is meant."
        )
    if current != judged_against:
        raise RefusedByGate(
            f"The champion is version {current or 'none'} by now, but {chosen.files.name} was made against "
            f"{judged_against or 'none'}: run `violence-ops evaluate` and `violence-ops gate` again."
        )


def _check_package(registry: Registry, chosen: reports.Report) -> None:
    """What was judged is what is released."""
    candidate = chosen.evaluation.candidate
    registered = registry.tags(candidate.version).get(PACKAGE_TAG)
    if candidate.package is None or registered not in (None, candidate.package):
        raise RefusedByGate(
            f"{chosen.files.name} does not say that the package of version {candidate.version} was judged as it is registered: run "
            "`violence-ops evaluate --force` and `violence-ops gate` first."
        )


def _decide(
    workspace: Workspace, chosen: reports.Report, decision: ledger.Event, by: str, facts: dict[str, Any]
) -> DecisionResult:
    """Write it unless the last one on this report says the same."""
    payload = {
        "report": chosen.files.name,
        "digest": chosen.digest,
        "candidate": chosen.evaluation.candidate.version,
    } | facts
    earlier = [
        entry
        for entry in releases.check_ledger(workspace)
        if entry.event in _DECISIONS and entry.payload.get("report") == chosen.files.name
    ]
    last = earlier[-1] if earlier else None
    if last is None or (last.event, last.actor, last.payload) != (decision, by, payload):
        last = releases.record(workspace, actor=by, event=decision, payload=payload)
    return DecisionResult(chosen.files.name, decision, by, last.seq, last.payload.get("reason"))
