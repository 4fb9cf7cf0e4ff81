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
    @task(**VERSIONING)
    def rollback(params, dag_run):
        return stage("rollback", by=dag_run.triggering_user_name, reason=params["reason"])

    rollback()


rollback()
