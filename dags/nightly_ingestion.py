"""
### The night: what was dropped into the inbox becomes one sealed, versioned batch

| task | what it does |
|---|---|
| **ingest** | claims the inbox as it is now, also if an old run is cleared, as batches of `ingest.max_clips` at most; every file exactly once, known bytes and unusable files go to quarantine |
| **validate** | decodes every clip of a shard in a process that can be killed; bad ones go to quarantine |
| **checkpoint** | a batch's clips table must meet the expectations (Great Expectations); the data docs show the result |
| **passed** | the shards of the batches that do go on; **all_passed** fails the run where one does not |
| **extract_poses** | finds the people in every frame (RTMO); one shard at a time on the device |
| **annotate** | follows them and ranks who is most involved |
| **score** | the champion judges every clip, once there is a champion; all shards have the one that the first shard found. Then the overlays that are asked for are drawn |
| **seal** | checks a batch's poses, tracks and predictions, merges, versions with DVC and a git tag, announces it |
| **enough_labels** | if no batch was sealed: have people labelled enough clips since the last training? Then it announces *labels* |

Every task can be run again at any time: what is done already is skipped, and the sealed batch is the same, byte for byte.
A night with nothing to do ends green with everything after *ingest* skipped, unless there are enough labels. A run also goes on with
all that earlier ones left open: files that were claimed, batches that lack a shard or are half sealed. A batch that fails an
expectation or cannot be read stays open without stopping others: fix the cause, and the next night finishes it, or clear its checkpoint or seal. Until
then every night ends as failed.

Trigger it by hand for a night of your choice (field *night*). While `violence-ops night` is at work, tasks wait for its end.
"""

from datetime import date, timedelta

from airflow.sdk import CronTriggerTimetable, Param, TriggerRule, dag, task, task_group
from airflow.sdk.exceptions import AirflowSkipException

from violence_ops.orchestration import (
    BATCHES,
    GPU,
    LABELS,
    OF_BATCH,
    SHARD,
    VERSIONING,
    late_alert,
    night_of,
    night_stage,
    open_shards,
    params,
    stage,
    usual,
)


@dag(
    # a new workspace waits for its first night: no run for the one that has passed
    schedule=CronTriggerTimetable(
        params().schedule.nightly, timezone=params().schedule.timezone, run_immediately=timedelta(0)
    ),
    # a run takes up all open batches, so no two may run at once; a backfill would not keep to the limit
    max_active_runs=1,
    allowed_run_types=["scheduled", "manual"],  # type: ignore[list-item]  # the enum has no public name
    deadline=late_alert(),
    **usual(__doc__, "data"),
    params={"night": Param(None, type=["null", "string"], format="date", description="Default: the run's own date.")},
)
def nightly_ingestion():
    @task
    def ingest(params, dag_run):
        night_stage("nightly.ingest", night=date.fromisoformat(params["night"] or night_of(dag_run)))
        return open_shards()

    @task(**SHARD)
    def validate(shard):
        night_stage("nightly.validate", **shard)

    # a shard that failed stops its own batch alone: the checkpoint of that one says which clips were not judged
    @task(trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS)
    def batches(shards):
        return sorted({shard["batch_id"] for shard in shards})

    @task(**OF_BATCH)
    def checkpoint(batch_id):
        night_stage("nightly.validate.checkpoint", batch_id=batch_id)
        # a night that is run again as a whole is judged by the champion of now
        night_stage("nightly.score.unpin_champion", batch_id=batch_id)
        return batch_id

    @task(trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS)
    def passed(shards, batch_ids):
        going_on = set(batch_ids)
        return [shard for shard in shards if shard["batch_id"] in going_on]

    @task
    def all_passed():
        """A leaf: otherwise a run with a failed shard or a stopped batch would look successful."""

    @task_group
    def shard(shard):
        @task(**GPU, **SHARD)
        def extract_poses(shard):
            night_stage("nightly.extract_poses", **shard)

        @task(**SHARD)
        def annotate(shard):
            night_stage("nightly.annotate", **shard)

        @task(**SHARD)
        def score(shard):
            night_stage("nightly.score", **shard)

        # by name, so that alerts and the grid can tell which
        extract_poses(shard=shard) >> annotate(shard=shard) >> score(shard=shard)

    # the same here: sealing the batch of a shard that failed says what is missing
    @task(outlets=[BATCHES], trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS, **OF_BATCH, **VERSIONING)
    def seal(batch_id, outlet_events):
        night_stage("nightly.seal", batch_id=batch_id)
        outlet_events[BATCHES].extra = {"batches": [batch_id]}
        return batch_id

    @task(outlets=[LABELS], trigger_rule=TriggerRule.ALL_DONE)
    def enough_labels(sealed):
        # the sealing of a batch announces what starts a retraining anyway
        if list(sealed or ()) or not stage("learning.worth_training")["yes"]:
            raise AirflowSkipException("This night has sealed a batch, or too few labels are new.")

    shards = ingest()
    batch_ids = batches(shards)
    validated = validate.expand(shard=shards)
    validated >> batch_ids
    checked = checkpoint.expand(batch_id=batch_ids)
    going_on = passed(shards, checked)
    to_seal = batches.override(task_id="to_seal")(going_on)
    sealed = seal.expand(batch_id=to_seal)
    shard.expand(shard=going_on) >> sealed
    enough_labels(sealed)
    [validated, checked, sealed] >> all_passed()


nightly_ingestion()
