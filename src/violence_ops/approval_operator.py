"""The task of Airflow that asks a person whether to release. Imported by every parse of a DAG file, so nothing heavy is imported."""

from __future__ import annotations

import logging
import shlex
import time
from typing import Any, Final, NoReturn

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput
from airflow.sdk.execution_time.comms import CreateHITLDetailPayload

from violence_ops.errors import ServiceUnavailable
from violence_ops.orchestration import stage

log = logging.getLogger(__name__)

APPROVE: Final = "Approve"
REJECT: Final = "Reject"
_ANEW: Final = "trigger gated_evaluation, which asks anew"
_PATIENCE_S: Final = 300.0
_PAUSE_S: Final = 10.0


# not Airflow's ApprovalOperator: that one's answer is lost when it is a no, and the ledger wants it
class ApprovalOperator(HITLOperator):
    """Asks about a report as the ledger knows it, and writes the answer there: everybody who may edit a run can change XComs.

    What was asked about waits with the task, not in an XCom.
    """

    def __init__(self, *, evaluation: str, **settings: Any) -> None:
        """`evaluation` is the task whose result names the report; `settings` are those of a HITLOperator without its texts."""
        super().__init__(subject="Release the candidate?", options=[APPROVE, REJECT], defaults=REJECT, **settings)
        self.evaluation = evaluation

    def execute(self, context: Any) -> NoReturn:
        """Ask. Raises TaskAwaitingInput; AirflowFailException if Airflow shows another question, that of an earlier try."""
        question = stage("releasing.approval.ask", report=context["ti"].xcom_pull(self.evaluation)["report"])
        self.subject, self.body = question["subject"], question["body"]
        try:
            super().execute(context)
        except TaskAwaitingInput as waits:
            if self._is_shown(context["ti"].id):
                waits.kwargs = {"report": question["report"], "digest": question["digest"]}
                raise
        # of a task that was cleared or retried Airflow goes on showing the first question, to those whom it named
        raise AirflowFailException(f"This task has asked another question before: {_ANEW}.")

    def execute_complete(
        self, context: Any, event: dict[str, Any], report: str | None = None, digest: str | None = None
    ) -> Any:
        """Write the answer to the ledger; no answer in time is a refusal by nobody. Raises AirflowFailException, which says what to
        do, if it cannot be written for five minutes: a retry would ask again, and Airflow forgets the answer that it has."""
        answer = super().execute_complete(context, event)
        if digest is None:
            raise AirflowFailException(f"An earlier version of violence-ops asked this: {_ANEW}.")
        asked, person = {"report": report, "digest": digest}, answer["responded_by_user"]
        if not person:
            return _written("lapse", asked, said="That nobody answered", todo=_ANEW)
        asked |= {"by": person["name"]}
        options = f"--report {report} --by {shlex.quote(person['name'])}"
        if answer["chosen_options"] == [APPROVE]:
            todo = f"run `violence-ops promote --approve {options}`"
            return _written("approve", asked, said=f"The approval by {person['name']}", todo=todo)
        reason = " ".join((answer["params_input"].get("reason") or "").split()) or "refused in Airflow"
        todo = f"run `violence-ops refuse {options} --reason {shlex.quote(reason)}`"
        return _written("refuse", asked | {"reason": reason}, said=f"The refusal by {person['name']}", todo=todo)

    def _is_shown(self, ti_id: Any) -> bool:
        """Whether Airflow shows this question to these people. It answers a question that is there already with that one."""
        from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

        texts: dict[str, Any] = {"options": self.options, "subject": self.subject, "body": self.body}
        shown: Any = SUPERVISOR_COMMS.send(CreateHITLDetailPayload(ti_id=ti_id, params={}, assigned_users=[], **texts))
        people = [user.name for user in shown.assigned_users or ()]
        wanted = [user["name"] for user in self.assigned_users or ()]
        return (shown.subject, shown.body, people) == (self.subject, self.body, wanted)


def _written(decision: str, facts: dict[str, Any], *, said: str, todo: str) -> Any:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return stage(f"releasing.approval.{decision}", **facts)
        except (ServiceUnavailable, OSError) as error:
            problem = f"{said} could not be written to the ledger ({error})"
            if time.monotonic() > deadline:
                raise AirflowFailException(f"{problem}: mend that, and {todo}.") from error
        log.warning("%s: trying again.", problem)
        time.sleep(_PAUSE_S)
