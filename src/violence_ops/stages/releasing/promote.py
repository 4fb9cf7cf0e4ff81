"""Releasing a candidate: `champion` is moved to the version of a report that the gate passed and a person approved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from violence_ops.errors import RefusedByGate, UsageError
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params
from violence_ops.registry import PACKAGE_TAG, Registry
from violence_ops.stages.releasing import approval, notify, reports
from violence_ops.store import releases
from violence_ops.workspace import Workspace


@dataclass(frozen=True, slots=True)
class PromoteResult(Jsonable):
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

    def lines(self) -> list[str]:
        """What a person reads."""
        before = f"after version {self.previous}" if self.previous else "the first one"
        if self.dry_run:
            return [f"Version {self.version} would become champion ({before})."]
        if not self.moved:
            return [f"Version {self.version} is the champion already."]
        told = [self.untold] if self.untold else []
        return [f"Version {self.version} is the champion now ({before}), approved by {self.approved_by}.", *told]


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

    Without `approved_by` the ledger must hold the approval (`approval.approve`) already, and names who gave it. Raises RefusedByGate if
    the gate did not pass that very report under the policy of `params`, `approved_by` is no approver, another one has refused it,
    another package was judged than is registered, the holdout went stale since, or the champion is not the one that the report
    compares with (or not `expected_champion`, where given); LedgerBroken if the ledger does not verify; WorkspaceError if the
    alias was moved by hand. Nothing moves then. A second run is a no-op, also after a crash in the middle of the first.
    """
    notify.receivers(workspace)  # refuses one that is set up wrongly before anything moves
    with workspace.lock("release"):
        registry = releases.open_registry(workspace)
        chosen = reports.find(workspace, report)
        entries = releases.check_ledger(workspace)
        # a rollback that was cut off counts in what follows
        if not dry_run and (closed := releases.recover(workspace, registry, entries)):
            entries = [*entries, closed]
        approved_by = approved_by or approval.approver(entries, chosen)
        approval.check_approver(params, approved_by)
        approval.check_verdict(entries, params, chosen)
        approval.check_refusals(entries, chosen, approved_by)
        version, previous = chosen.evaluation.candidate.version, chosen.evaluation.champion_version
        current = releases.agreed_champion(registry, entries)
        moves = current != version
        if moves:
            _check_champion(chosen, current, previous, expected_champion)
            _check_package(registry, chosen)
            reports.check_holdout(workspace, chosen, RefusedByGate)  # an approval may be days younger than the verdict
        if moves and not dry_run:
            decision = approval.decide(workspace, entries, chosen, "approval", approved_by)
            package = chosen.evaluation.candidate.package
            facts = {"report": chosen.files.name, "digest": chosen.digest, "approval": decision.seq, "package": package}
            releases.move(
                workspace, registry, event="promotion", actor=approved_by, to=version, expected=previous, facts=facts
            )
    return PromoteResult(
        version=version, previous=previous, approved_by=approved_by, report=chosen.files.name,
        moved=moves and not dry_run, dry_run=dry_run, untold=None if dry_run else notify.run(workspace).problem,
    )  # fmt: skip


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
