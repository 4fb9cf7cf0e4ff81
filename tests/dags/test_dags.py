"""What the DAG files say: their tasks, their order, where they run, and that reading them is cheap."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from contextlib import nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from violence_ops.errors import ServiceUnavailable

ROOT = Path(__file__).parents[2]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))

_IMPORT_ALL = """
import sys, time
import airflow.sdk, airflow.providers.standard.operators.hitl
from pathlib import Path
before = set(sys.modules)
started = time.process_time()
for file in sorted(Path("dags").glob("*.py")):
    exec(compile(file.read_text(), str(file), "exec"), {"__name__": file.stem, "__doc__": ""})
print(time.process_time() - started)
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""


def test_all_dags_are_there(dags: dict[str, Any]) -> None:
    from violence_ops.services import DAGS

    assert set(dags) == set(DAGS)


def test_reading_all_dag_files_costs_less_than_a_second_and_loads_nothing_heavy(params_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_ALL],
        cwd=ROOT,
        env=os.environ | {"VIOLENCE_OPS_WORKSPACE": str(params_folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, loaded = done.stdout.strip().splitlines()[-2:]
    assert float(seconds) < 1
    assert {"pyarrow", "pandas", "torch", "mlflow", "cv2", "great_expectations", "dvc"}.isdisjoint(loaded.split())


@pytest.mark.parametrize(
    "dag_id", ["nightly_ingestion", "retraining", "gated_evaluation", "rollback", "drift", "shadow"]
)
def test_every_dag_explains_itself_and_retries_with_back_off(dags: dict[str, Any], dag_id: str) -> None:
    from violence_ops.orchestration import OnceMoreAfterTimeout

    dag = dags[dag_id]
    assert dag.doc_md.strip().startswith(f"### {dag.description}\n")
    assert dag.catchup is False
    for task in dag.tasks:
        assert task.retries == PARAMS["schedule"]["retries"]
        assert task.retry_exponential_backoff
        assert task.max_retry_delay == timedelta(seconds=PARAMS["schedule"]["max_retry_delay_s"])
        assert task.retry_policy == OnceMoreAfterTimeout(task.retries)
        assert task.has_on_failure_callback


@pytest.mark.parametrize("name", ["extract_poses", "annotate", "score"])
def test_a_task_of_a_shard_knows_it_by_name_for_alerts_and_the_grid(dags: dict[str, Any], name: str) -> None:
    task = dags["nightly_ingestion"].get_task(f"shard.{name}")
    assert list(task.op_kwargs) == ["shard"]
    for clip_ids, said in (["a", "b"], "2026-01-31-0a from a"), ([], "2026-01-31-0a from no clip"):
        given = SimpleNamespace(op_kwargs={"shard": {"batch_id": "2026-01-31-0a", "clip_ids": clip_ids}})
        assert task.dag.get_template_env().from_string(task.map_index_template).render(task=given) == said


def test_a_run_that_fails_is_told_of(dags: dict[str, Any]) -> None:
    from violence_ops.orchestration import alert_of_run

    told_of = {dag_id for dag_id, dag in dags.items() if dag.on_failure_callback == alert_of_run}
    assert told_of == set(dags)


def test_the_shipped_retries_outlast_an_outage_of_half_an_hour(dags: dict[str, Any]) -> None:
    task = dags["nightly_ingestion"].get_task("seal")
    assert task.retry_exponential_backoff == 2
    waits = [min(task.max_retry_delay, task.retry_delay * 2**tried) for tried in range(task.retries)]
    assert sum(waits, timedelta()) >= timedelta(minutes=30)


def test_no_two_nights_run_at_once_not_even_in_a_backfill(dags: dict[str, Any]) -> None:
    night = dags["nightly_ingestion"]
    assert night.max_active_runs == 1
    assert night.allowed_run_types == {"scheduled", "manual"}


def test_a_task_that_hangs_is_ended_but_waiting_for_a_person_is_not(dags: dict[str, Any]) -> None:
    limit = timedelta(hours=PARAMS["schedule"]["task_timeout_h"])
    limits = {f"{dag_id}.{task.task_id}": task.execution_timeout for dag_id, dag in dags.items() for task in dag.tasks}
    assert limits.pop("gated_evaluation.approve") is None
    assert set(limits.values()) == {limit}


def test_a_shard_goes_from_poses_to_score_on_its_own(dags: dict[str, Any]) -> None:
    dag = dags["nightly_ingestion"]
    per_batch = {"batches", "checkpoint", "passed", "all_passed", "to_seal", "seal"}
    per_shard = {"validate", "shard.extract_poses", "shard.annotate", "shard.score"}
    assert set(dag.task_ids) == {"ingest", "enough_labels"} | per_batch | per_shard
    assert dag.get_task("batches").upstream_task_ids >= {"validate"}
    assert dag.get_task("checkpoint").upstream_task_ids == {"batches"}
    mapped_over = {"passed"}
    assert dag.get_task("shard.annotate").upstream_task_ids - mapped_over == {"shard.extract_poses"}
    assert dag.get_task("shard.score").upstream_task_ids - mapped_over == {"shard.annotate"}
    assert dag.get_task("seal").upstream_task_ids >= {"shard.score"}


def test_a_shard_that_fails_stops_no_other_batch_and_fails_the_run(dags: dict[str, Any]) -> None:
    dag = dags["nightly_ingestion"]
    for task_id in ("batches", "passed", "seal"):
        assert dag.get_task(task_id).trigger_rule == "all_done_min_one_success"
    assert dag.get_task("all_passed").upstream_task_ids == {"validate", "checkpoint", "seal"}
    assert dag.get_task("all_passed").trigger_rule == "all_success"


def test_models_run_on_the_gpu_queue_one_at_a_time(dags: dict[str, Any]) -> None:
    on_gpu = {
        f"{dag_id}.{task.task_id}"
        for dag_id, dag in dags.items()
        for task in dag.tasks
        if (task.queue, task.pool) == ("gpu", "gpu")
    }
    assert on_gpu == {
        "nightly_ingestion.shard.extract_poses",
        "retraining.train",
        "gated_evaluation.evaluate",
        "shadow.score",
    }


def test_what_moves_data_with_dvc_runs_one_at_a_time(dags: dict[str, Any]) -> None:
    writers = {
        f"{dag_id}.{task.task_id}" for dag_id, dag in dags.items() for task in dag.tasks if task.pool == "versioning"
    }
    assert writers == {
        "nightly_ingestion.seal",
        "retraining.assemble",
        "gated_evaluation.promote",
        "rollback.rollback",
        "drift.compare",
    }


def test_the_night_is_scheduled_by_params_and_the_local_clock_and_starts_with_the_next_one(
    dags: dict[str, Any],
) -> None:
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.timetables.base import TimeRestriction

    dag = DagSerialization.from_dict(DagSerialization.to_dict(dags["nightly_ingestion"]))
    assert dag.timetable.summary == PARAMS["schedule"]["nightly"]
    nothing_yet = TimeRestriction(earliest=None, latest=None, catchup=False)
    first = dag.timetable.next_dagrun_info(last_automated_data_interval=None, restriction=nothing_yet)
    assert first is not None
    assert first.run_after > datetime.now(first.run_after.tzinfo)
    here = first.run_after.astimezone(ZoneInfo("Europe/Berlin"))  # of the workspace of these tests
    assert (here.hour, here.minute) == (2, 0)
    assert dags["nightly_ingestion"].max_active_runs == 1


def test_assets_chain_the_dags(dags: dict[str, Any]) -> None:
    made_by = {
        asset.name: f"{dag.dag_id}.{task.task_id}"
        for dag in dags.values()
        for task in dag.tasks
        for asset in task.outlets
    }
    assert made_by == {
        "batches": "nightly_ingestion.seal",
        "labels": "nightly_ingestion.enough_labels",
        "candidate": "retraining.train",
        "drift": "drift.ask",
    }
    for dag_id, asset in (("drift", "batches"), ("shadow", "batches"), ("gated_evaluation", "candidate")):
        assert [each.name for each in dags[dag_id].timetable.asset_condition.objects] == [asset]
    either = dags["retraining"].timetable.asset_condition
    assert type(either).__name__ == "AssetAny"
    assert {each.name for each in either.objects} == {"batches", "drift", "labels"}


@pytest.mark.parametrize(
    ("sealed", "worth_while", "announced"),
    [([], True, True), (None, True, True), ([], False, False), (["b"], True, False)],
)
def test_only_a_night_that_seals_no_batch_announces_labels_and_only_if_enough_are_new(
    dags: dict[str, Any], monkeypatch: pytest.MonkeyPatch, sealed: list[str] | None, worth_while: bool, announced: bool
) -> None:
    task = dags["nightly_ingestion"].get_task("enough_labels")
    assert (task.upstream_task_ids, task.trigger_rule) == ({"seal"}, "all_done")
    enough_labels = task.python_callable
    monkeypatch.setitem(
        enough_labels.__globals__, "stage", lambda name: {"learning.worth_training": {"yes": worth_while}}[name]
    )
    with nullcontext() if announced else pytest.raises(AirflowSkipException):
        enough_labels(sealed)


@pytest.mark.parametrize(("started_by", "drifted"), [("batches", False), ("drift", True), (None, False)])
def test_retraining_after_drift_waits_for_no_more_than_one_new_clip(
    dags: dict[str, Any], monkeypatch: pytest.MonkeyPatch, started_by: str | None, drifted: bool
) -> None:
    from airflow.sdk import Asset

    enough_new, asked = dags["retraining"].get_task("enough_new").python_callable, []
    monkeypatch.setitem(
        enough_new.__globals__, "stage", lambda name, **arguments: asked.append(arguments) or {"yes": True}
    )
    assert enough_new({"anyway": False}, {Asset(started_by): []} if started_by else {})
    assert asked == [{"drifted": drifted}]


def test_a_person_may_have_a_model_trained_though_no_clip_is_new(
    dags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    enough_new = dags["retraining"].get_task("enough_new").python_callable
    monkeypatch.setitem(enough_new.__globals__, "stage", lambda *_, **__: {"yes": False})
    assert (enough_new({"anyway": True}, {}), enough_new({"anyway": False}, {})) == (True, False)


def test_a_person_may_name_the_candidate_that_is_judged(dags: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk import Asset

    evaluate = dags["gated_evaluation"].get_task("evaluate").python_callable
    monkeypatch.setitem(evaluate.__globals__, "stage", lambda _, candidate: candidate)
    event = {Asset("candidate"): [SimpleNamespace(extra={"model_version": "3"})]}
    assert evaluate({"candidate": "2"}, {}) == "2"
    assert evaluate({"candidate": None}, event) == "3"
    assert evaluate({"candidate": None}, {}) is None


def test_only_a_night_has_a_deadline(dags: dict[str, Any]) -> None:
    (alert,) = dags["nightly_ingestion"].deadline
    assert alert.interval == timedelta(hours=PARAMS["schedule"]["late_after_h"])
    assert {dag_id for dag_id, dag in dags.items() if dag.deadline} == {"nightly_ingestion"}


def test_every_new_batch_is_compared_and_only_those_that_ask_go_on(
    dags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk import Asset

    compare = dags["drift"].get_task("compare").python_callable
    monkeypatch.setitem(
        compare.__globals__, "stage", lambda _, batch_id: {"batch_id": batch_id, "retrain": batch_id == "b"}
    )
    events = {
        Asset("batches"): [SimpleNamespace(extra={"batches": ["a", "b"]}), SimpleNamespace(extra={"batches": ["c"]})]
    }
    assert compare(events) == ["b"]
    assert compare({}) == []


@pytest.mark.parametrize(
    ("dag_id", "task_id", "params", "asset", "newest"),
    [
        ("gated_evaluation", "evaluate", [{"candidate": None}], "candidate", {"candidate": None}),
        ("drift", "compare", [], "batches", {"batch_id": None}),
    ],
)
def test_an_event_that_a_person_made_in_airflow_stands_for_the_newest(
    dags: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    dag_id: str,
    task_id: str,
    params: list[dict[str, None]],
    asset: str,
    newest: dict[str, None],
) -> None:
    from airflow.sdk import Asset

    task, asked = dags[dag_id].get_task(task_id).python_callable, []
    monkeypatch.setitem(task.__globals__, "stage", lambda _, **arguments: asked.append(arguments) or {"retrain": False})
    task(*params, {Asset(asset): [SimpleNamespace(extra={"from_rest_api": True})]})
    assert asked == [newest]


def test_only_approvers_are_asked_and_silence_is_a_no(dags: dict[str, Any]) -> None:
    approve = dags["gated_evaluation"].get_task("approve")
    assert [user["id"] for user in approve.assigned_users] == PARAMS["gate"]["approvers"]
    assert approve.defaults == ["Reject"]
    assert approve.response_timeout == timedelta(hours=PARAMS["gate"]["approval_timeout_h"])


def test_the_question_is_the_stage_s_and_what_it_is_about_waits_with_the_task(
    dags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.standard.operators import hitl
    from airflow.sdk.exceptions import TaskAwaitingInput

    approve, written = copy.deepcopy(dags["gated_evaluation"].get_task("approve")), {}
    question = {"report": "7-vs-2", "digest": "d" * 64, "subject": "Release version 7?", "body": "Better by 0.1."}
    asked: list[Any] = []
    execute = type(approve).execute.__wrapped__  # without Airflow's guard against calls outside a task
    monkeypatch.setitem(
        execute.__globals__, "stage", lambda name, **arguments: asked.append((name, arguments)) or question
    )
    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **detail: written.update(detail))
    shown = [True, False]
    monkeypatch.setattr(type(approve), "_is_shown", lambda *_: shown.pop(0))
    run = _Run(evaluate={"report": "7-vs-2"})
    run.id = "one"
    with pytest.raises(TaskAwaitingInput) as waits:
        execute(approve, {"ti": run, "task_instance": run})
    assert asked == [("releasing.approval.ask", {"report": "7-vs-2"})]
    assert (written["subject"], written["body"]) == ("Release version 7?", "Better by 0.1.")
    assert waits.value.kwargs == {"report": "7-vs-2", "digest": "d" * 64}
    with pytest.raises(AirflowFailException, match="trigger gated_evaluation"):
        execute(approve, {"ti": run, "task_instance": run})


def test_an_answer_needs_no_reason_in_the_form(dags: dict[str, Any]) -> None:
    reason = dags["gated_evaluation"].get_task("approve").params.get_param("reason")
    assert "null" in reason.schema["type"]
    assert reason.resolve() is None


class _Run:
    """What the tasks of gated_evaluation ask of their task instance."""

    def __init__(self, **pushed: Any) -> None:
        self.pushed = pushed

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value

    def xcom_pull(self, task_id: str, key: str = "") -> Any:
        return self.pushed.get(key or task_id)


@pytest.mark.parametrize(
    ("mode", "verdict", "asked"),
    [
        ("enabled", "pass", "approve"),
        ("enabled", "refuse", None),
        ("dry_run", "pass", None),
        ("dry_run", "refuse", None),
    ],
)
def test_a_person_is_asked_only_after_a_pass_that_counts_and_outcome_names_a_dry_run(
    dags: dict[str, Any], monkeypatch: pytest.MonkeyPatch, mode: str, verdict: str, asked: str | None
) -> None:
    gate, outcome = (dags["gated_evaluation"].get_task(name).python_callable for name in ("gate", "outcome"))
    judged = {"verdict": verdict, "mode": mode, "reasons": ["F1 is 0.9."]}
    monkeypatch.setitem(gate.__globals__, "stage", lambda name, **arguments: judged)
    run = _Run()
    assert gate({"report": "1-vs-none"}, run) == asked
    if asked is None:
        said = outcome(None, run)
        assert said.startswith(f"The gate says {verdict}")
        assert ("dry run, which releases nothing" in said) == (mode == "dry_run")


def test_outcome_says_who_was_not_told_of_a_release(dags: dict[str, Any]) -> None:
    outcome = dags["gated_evaluation"].get_task("outcome").python_callable
    promotion = {"version": "2", "approved_by": "ann", "untold": "The command hook tell did not take it."}
    said = outcome(promotion, _Run(verdict={}))
    assert said == "Version 2 is champion, approved by ann. The command hook tell did not take it."


WHY = "it misses every fall"
YES = "yes, roll back"


@pytest.mark.parametrize(
    ("filled_in", "fits"),
    [
        ({"reason": WHY, "confirm": YES}, True),
        ({"reason": "bad", "confirm": YES}, True),
        ({"reason": " ", "confirm": YES}, False),
        ({"reason": WHY, "confirm": None}, False),
        ({"reason": None, "confirm": YES}, False),
        ({"reason": WHY, "confirm": YES, "to": "1"}, True),
        ({"reason": WHY, "confirm": YES, "to": "none"}, True),
        ({"reason": WHY, "confirm": YES, "to": "the first"}, False),
    ],
)
def test_a_rollback_asks_for_a_reason_and_a_confirmation_and_may_name_a_version(
    dags: dict[str, Any], filled_in: dict[str, Any], fits: bool
) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    form = copy.deepcopy(dags["rollback"].params)
    with nullcontext() if fits else pytest.raises(ParamValidationError):
        form.update(filled_in)
        form.validate()


def test_airflow_s_form_draws_every_field_of_every_dag(dags: dict[str, Any]) -> None:
    hidden = [
        f"{dag_id}.{name}"
        for dag_id, dag in dags.items()
        for form in (dag.params, *(task.params for task in dag.tasks))
        for name, param in form.items()
        if "const" in form.get_param(name).schema
    ]
    assert hidden == []


@pytest.mark.parametrize("to", [None, "1"])
def test_a_rollback_names_its_run_who_triggered_it_and_the_version_that_was_asked_for(
    dags: dict[str, Any], monkeypatch: pytest.MonkeyPatch, to: str | None
) -> None:
    rollback, called = dags["rollback"].get_task("rollback").python_callable, []
    monkeypatch.setitem(rollback.__globals__, "stage", lambda name, **arguments: called.append((name, arguments)))
    form = copy.deepcopy(dags["rollback"].params)
    form.update({"reason": WHY, "confirm": YES} | ({"to": to} if to else {}))
    rollback("3", form.dump(), SimpleNamespace(run_id="manual__1", triggering_user_name="ann"))
    asked = {"by": "ann", "reason": WHY, "expected_champion": "3", "to": to, "run_id": "manual__1"}
    assert called == [("releasing.rollback", asked)]


@pytest.mark.parametrize(
    ("option", "user", "written"),
    [
        ("Approve", "ann", ("releasing.approval.approve", {"report": "2-vs-1", "digest": "d", "by": "ann"})),
        (
            "Reject",
            "ann",
            ("releasing.approval.refuse", {"report": "2-vs-1", "digest": "d", "by": "ann", "reason": "not sure"}),
        ),
        ("Reject", None, ("releasing.approval.lapse", {"report": "2-vs-1", "digest": "d"})),
    ],
    ids=["a yes", "a no", "silence"],
)
def test_the_operator_that_asked_writes_the_answer_down(
    dags: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    user: str | None,
    written: tuple[str, dict[str, str]],
) -> None:
    approve, called = copy.deepcopy(dags["gated_evaluation"].get_task("approve")), []
    wrote = type(approve).execute_complete.__globals__
    monkeypatch.setitem(wrote, "stage", lambda name, **arguments: called.append((name, arguments)))
    event = {
        "chosen_options": [option], "params_input": {"reason": "not sure"}, "responded_at": datetime(2026, 1, 1),
        "responded_by_user": user and {"id": user, "name": user},
    }  # fmt: skip
    approve.execute_complete({"ti": _Run(evaluate={"report": "9-vs-1"})}, event, report="2-vs-1", digest="d")
    assert called == [written]


@pytest.mark.parametrize(
    ("option", "user", "todo"),
    [
        ("Approve", "ann", "and run `violence-ops promote --approve --report 2-vs-1 --by ann`"),
        ("Reject", "ann b", "and run `violence-ops refuse --report 2-vs-1 --by 'ann b' --reason 'not sure'`"),
        ("Reject", None, "and trigger gated_evaluation"),
    ],
    ids=["a yes", "a no", "silence"],
)
@pytest.mark.parametrize("outage", [ServiceUnavailable("a lock"), OSError(28, "No space left on device")])
def test_an_answer_outlasts_an_outage_and_one_that_cannot_be_written_says_what_to_do(
    dags: dict[str, Any], monkeypatch: pytest.MonkeyPatch, option: str, user: str | None, todo: str, outage: Exception
) -> None:
    approve, outages = copy.deepcopy(dags["gated_evaluation"].get_task("approve")), [outage] * 2
    wrote = type(approve).execute_complete.__globals__

    def write(name: str, **arguments: Any) -> str:
        if outages:
            raise outages.pop()
        return name

    monkeypatch.setitem(wrote, "stage", write)
    monkeypatch.setitem(wrote, "_PAUSE_S", 0.0)
    event = {
        "chosen_options": [option], "params_input": {"reason": "not sure"}, "responded_at": datetime(2026, 1, 1),
        "responded_by_user": user and {"id": user, "name": user},
    }  # fmt: skip
    asked = {"report": "2-vs-1", "digest": "d"}
    assert approve.execute_complete({}, event, **asked).startswith("releasing.approval.")
    outages += [outage] * 2
    monkeypatch.setitem(wrote, "_PATIENCE_S", -1.0)
    with pytest.raises(AirflowFailException) as told:
        approve.execute_complete({}, event, **asked)
    assert f"could not be written to the ledger ({outage}): mend that, {todo}" in str(told.value)


def test_an_answer_to_a_question_of_an_earlier_version_is_for_nothing(dags: dict[str, Any]) -> None:
    approve = copy.deepcopy(dags["gated_evaluation"].get_task("approve"))
    event = {
        "chosen_options": ["Approve"], "params_input": {}, "responded_at": datetime(2026, 1, 1),
        "responded_by_user": {"id": "ann", "name": "ann"},
    }  # fmt: skip
    with pytest.raises(AirflowFailException, match="earlier version"):
        approve.execute_complete({}, event)


def test_a_no_skips_the_release_and_a_yes_is_looked_up_in_the_ledger(
    dags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    promote, outcome = (dags["gated_evaluation"].get_task(name).python_callable for name in ("promote", "outcome"))
    called: list[Any] = []
    monkeypatch.setitem(promote.__globals__, "stage", lambda name, **arguments: called.append((name, arguments)))
    refusal = {"decision": "refusal", "by": "ann", "reason": "not sure"}
    with pytest.raises(AirflowSkipException):
        promote({"report": "2-vs-1"}, refusal)
    assert outcome(None, _Run(verdict={}, approve=refusal)) == "Refused by ann: not sure"
    settled = {"decision": "settled", "by": "ann", "reason": "Settled elsewhere by ann."}
    with pytest.raises(AirflowSkipException):
        promote({"report": "2-vs-1"}, settled)
    assert outcome(None, _Run(verdict={}, approve=settled)) == "Settled elsewhere by ann."
    # what the XCom says of a yes, and by whom, counts for nothing; it is missing if somebody marks the task as a success
    for claimed in ({"decision": "approval", "by": "eve"}, None):
        promote({"report": "2-vs-1"}, claimed)
    assert called == [("releasing.promote", {"report": "2-vs-1"})] * 2
