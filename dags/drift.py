"""
### Drift: does the night look like what the champion was trained on?

Started by the asset *batches*, so that a night neither waits for it nor fails with it. **compare** measures poses, tracks and
probabilities of the new batches against the champion's training clips (`reports/drift/`, `violence-ops drift --html`). With
`drift.trigger` on, a night that drifted goes on to **ask**, which announces the asset *drift*: retraining then starts as soon as a
single labelled clip is new, without waiting for `train.min_new_clips`.
"""

from airflow.sdk import dag, task

from violence_ops.orchestration import BATCHES, DRIFT, VERSIONING, stage, usual


@dag(
    schedule=[BATCHES],
    max_active_runs=1,
    **usual(__doc__, "model"),
)
def drift():
    @task.short_circuit(**VERSIONING)
    def compare(triggering_asset_events):
        events = triggering_asset_events[BATCHES] if triggering_asset_events else []
        batch_ids = [batch_id for event in events for batch_id in event.extra.get("batches", ())] or [None]
        found = [stage("releasing.drift", batch_id=batch_id) for batch_id in batch_ids]
        return [one["batch_id"] for one in found if one["retrain"]]

    @task(outlets=[DRIFT])
    def ask(drifted, outlet_events):
        outlet_events[DRIFT].extra = {"batches": drifted}

    ask(compare())


drift()
