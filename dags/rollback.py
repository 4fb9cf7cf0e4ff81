"""
### Rollback: put the previous champion, or an earlier one, back

A form for the release manager: say why, confirm, trigger. The alias *champion* moves back to the version before, or to the earlier
champion that *to* names and to no other; *none* leaves no champion. The ledger records who did it, when and why. A run rolls back
once: cleared, it does nothing, and to go further back trigger another.
"""

from airflow.sdk import Param, dag, task

from violence_ops.orchestration import VERSIONING, stage, usual


@dag(
    schedule=None,
    max_active_runs=1,
    **usual(__doc__, "model"),
    params={
        "reason": Param(None, type="string", pattern=r"\S", description="Why; it is written to the ledger."),
        "to": Param(
            None,
            type=["null", "string"],
            pattern="^([0-9]+|none)$",
            title="To version",
            description="An earlier champion to go back to, or `none`; default: the latest that is still in MLflow.",
        ),
        # of one choice, because Airflow's form draws no field for a `const`
        "confirm": Param(
            None, type="string", enum=["yes, roll back"], title="Confirm", description="Choose it to confirm."
        ),
    },
)
def rollback():
    @task
    def champion():
        return stage("releasing.rollback.live")

    @task(**VERSIONING)
    def rollback(live, params, dag_run):
        # the version refuses a rollback that a promotion was faster than, the run makes a retry or a cleared run a no-op
        by, reason, to = dag_run.triggering_user_name, params["reason"], params["to"]
        return stage("releasing.rollback", by=by, reason=reason, expected_champion=live, to=to, run_id=dag_run.run_id)

    rollback(champion())


rollback()
