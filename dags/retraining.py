"""
### Retraining: new sealed batches become a candidate

Started by the asset *batches*, by *drift*, or, in a night without a batch, by *labels*. When enough labelled clips are new since the
last training (`train.min_new_clips`; one after drift), the training set is assembled from all sealed batches (whole source groups,
nothing of a holdout), a model is trained, and its version is registered as *candidate*. Otherwise the run ends green with the rest
skipped. Trigger it by hand with *Train anyway* after a change to `train:` in params.yaml.
"""

from airflow.sdk import Param, dag, task

from violence_ops.orchestration import (
    BATCHES,
    CANDIDATE,
    DRIFT,
    GPU,
    LABELS,
    VERSIONING,
    stage,
    usual,
)


@dag(
    schedule=(BATCHES | DRIFT | LABELS),
    max_active_runs=1,
    params={"anyway": Param(False, type="boolean", title="Train anyway", description="Also if too few clips are new.")},
    **usual(__doc__, "model"),
)
def retraining():
    @task.short_circuit
    def enough_new(params, triggering_asset_events):
        drifted = any(asset.name == DRIFT.name for asset in triggering_asset_events or ())
        return params["anyway"] or stage("learning.worth_training", drifted=drifted)["yes"]

    @task(**VERSIONING)
    def assemble():
        stage("learning.assemble")

    @task(outlets=[CANDIDATE], **GPU)
    def train(outlet_events):
        trained = stage("learning.train")
        outlet_events[CANDIDATE].extra = {key: trained[key] for key in ("model_version", "run_id")}

    enough_new() >> assemble() >> train()


retraining()
