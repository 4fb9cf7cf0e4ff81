"""
### Rollback: put the previous champion back

A form for the release manager: say why, confirm, trigger. The alias *champion* moves back to the version before, and the ledger
records who did it, when and why.
"""

from airflow.sdk import Param, dag, task

from violence_ops.orchestration import VERSIONING, default_args, stage


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=1,
    default_args=default_args(),
    doc_md=__doc__,
    tags=["model"],
    params={
        "reason": Param(None, type="string", minLength=10, description="Why; it is written to the ledger."),
        "confirm": Param(False, type="boolean", const=True, description="Yes, put the previous champion back."),
    },
)
def rollback():
    @task
    def champion():
        return stage("rollback.live")

    @task(**VERSIONING)
    def rollback(live, params, dag_run):
        # naming the version makes a retry a no-op instead of a second step back
        return stage("rollback", by=dag_run.triggering_user_name, reason=params["reason"], expected_champion=live)

    rollback(champion())


rollback()
