"""
### Gated evaluation: is the candidate better than what is live, and may it be released?

Started by the asset *candidate*. Candidate and champion are judged on the same frozen clips (**evaluate**), and the **gate** applies
its policy (`gate:` in params.yaml). If it passes, a release manager is asked (**approve**, see *Required Actions*); no answer within
`gate.approval_timeout_h` means no. The answer goes into the ledger at once. **promote** makes the candidate the champion if the ledger
holds an approval, in the name of the person who gave it.
**outcome** says what became of the candidate and why; a refused candidate is a green run with *promote* skipped. With `gate.mode`
`dry_run` nobody is asked and nothing moves.

Every run keeps to the candidate of its asset event (the newest, if a person made the event) and to its own report, so several may
wait for an answer. The champion is moved only if it is still the one that the report compares with.
"""

import logging
from datetime import timedelta

from airflow.sdk import Param, TriggerRule, dag, task
from airflow.sdk.exceptions import AirflowSkipException

from violence_ops.approval_operator import ApprovalOperator
from violence_ops.orchestration import CANDIDATE, GPU, VERSIONING, params, stage, usual

log = logging.getLogger(__name__)


@dag(
    schedule=[CANDIDATE],
    params={
        "candidate": Param(
            None,
            type=["null", "string"],
            pattern="^[0-9]+$",
            title="Candidate",
            description="A model version; default: that of the asset event, else the alias `candidate`.",
        )
    },
    **usual(__doc__, "model"),
)
def gated_evaluation():
    @task(**GPU)
    def evaluate(params, triggering_asset_events):
        events = triggering_asset_events[CANDIDATE] if triggering_asset_events else []
        trained = events[-1].extra.get("model_version") if events else None
        return stage("releasing.evaluate", candidate=params["candidate"] or trained)

    @task.branch
    def gate(evaluation, ti):
        verdict = stage("releasing.gate", report=evaluation["report"])
        ti.xcom_push("verdict", verdict)
        return "approve" if verdict["verdict"] == "pass" and verdict["mode"] != "dry_run" else None

    approve = ApprovalOperator(
        task_id="approve",
        evaluation="evaluate",
        # a text that may be missing: the form lets nobody answer while one that must be there is empty
        params={
            "reason": Param(
                None, type=["null", "string"], title="If you reject: why", description="Goes to the ledger."
            )
        },
        execution_timeout=None,  # else Airflow takes it for the time a person has
        response_timeout=timedelta(hours=params().gate.approval_timeout_h),
        assigned_users=[{"id": name, "name": name} for name in params().gate.approvers],
    )

    @task(**VERSIONING)
    def promote(evaluation, decision):
        if decision and decision["decision"] != "approval":
            raise AirflowSkipException("The candidate was not approved.")
        return stage("releasing.promote", report=evaluation["report"])

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def outcome(promotion, ti):
        verdict, decision = ti.xcom_pull("gate", key="verdict"), ti.xcom_pull("approve")
        if promotion:
            said = f"Version {promotion['version']} is champion, approved by {promotion['approved_by']}."
            said += f" {promotion['untold']}" if promotion["untold"] else ""
        elif not decision:
            dry = " in a dry run, which releases nothing" if verdict["mode"] == "dry_run" else ""
            said = f"The gate says {verdict['verdict']}{dry}: {' '.join(verdict['reasons'])}"
        elif decision["decision"] == "settled":
            said = decision["reason"]
        else:
            said = f"Refused by {decision['by']}: {decision['reason']}"
        log.info(said)
        return said

    evaluation = evaluate()
    gate(evaluation) >> approve
    outcome(promote(evaluation, approve.output))


gated_evaluation()
