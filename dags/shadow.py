"""
### Shadow: a candidate judges the night that the champion has judged, and nothing follows from it

Started by the asset *batches*, beside retraining, so that a night neither waits for it nor fails with it. Does nothing unless a version
is in shadow (`violence-ops shadow start`). `violence-ops shadow` and the candidate's report show where the two disagreed.
"""

from airflow.sdk import dag, task

from violence_ops.orchestration import BATCHES, GPU, stage, usual


@dag(
    schedule=[BATCHES],
    max_active_runs=1,
    **usual(__doc__, "model"),
)
def shadow():
    @task(**GPU)
    def score():
        stage("releasing.shadow")

    score()


shadow()
