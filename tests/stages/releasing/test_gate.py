"""The gate judges a report once, writes the verdict where it cannot be changed unseen, and moves nothing."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

from violence_ops import ledger
from violence_ops.errors import UsageError, WorkspaceError
from violence_ops.files import write_json
from violence_ops.params import Params
from violence_ops.registry import Registry
from violence_ops.stages.releasing import gate, reports
from violence_ops.workspace import Workspace

Judge = Callable[..., str]


def _with_gate(params: Params, **changes: object) -> Params:
    return params.model_copy(update={"gate": params.gate.model_copy(update=changes)})


def test_a_good_first_model_passes_and_the_verdict_lies_beside_the_report(
    released: Workspace, params: Params, write_evaluation: Judge
) -> None:
    result = gate.run(released, params, report=write_evaluation("1"))
    assert (result.verdict, result.candidate, result.champion) == ("pass", "1", None)
    assert json.loads(released.report("1-vs-none").gate.read_text())["verdict"] == "pass"
    assert released.report("1-vs-none").page.is_file()
    assert [entry.payload["verdict"] for entry in ledger.read(released)] == ["pass"]


def test_a_refused_model_is_a_result_with_reasons_and_no_alias_moves(
    released: Workspace, params: Params, registry: Registry, write_evaluation: Judge
) -> None:
    registry.set_alias("champion", "1", None)
    result = gate.run(released, params, report=write_evaluation("2", "1", wrong=14))
    assert result.verdict == "refuse"
    assert any("floor" in reason for reason in result.reasons)
    assert registry.alias("champion") == "1"


def test_a_refusal_is_one_json_document_on_stdout_and_a_sentence_on_stderr(
    released: Workspace, registry: Registry, write_evaluation: Judge
) -> None:
    registry.set_alias("champion", "1", None)
    write_evaluation("2", "1", wrong=14)
    command = [sys.executable, "-m", "violence_ops.cli", "gate", "--json", "--workspace", str(released.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert json.loads(done.stdout)["verdict"] == "refuse"
    assert done.stderr == "The gate says refuse, so version 2 cannot be released.\n"


def test_a_holdout_that_has_judged_many_candidates_is_told(
    released: Workspace, params: Params, write_evaluation: Judge
) -> None:
    results = [gate.run(released, params, report=write_evaluation(str(number))) for number in range(1, 11)]
    assert not any(result.notices for result in results[:9])
    assert "has judged 10 candidates" in results[9].notices[0]
    assert results[9].verdict == "pass"


def test_candidates_that_were_evaluated_and_never_gated_wear_a_holdout_too(
    released: Workspace, params: Params, write_evaluation: Judge
) -> None:
    for number in range(2, 10):
        write_evaluation(str(number))
    write_evaluation("9", "1")  # once more, against another champion
    _on_other_clips(released, write_evaluation("50"))
    for name, content in (("60-vs-none", "garbage"), ("61-vs-none", '{"clips": 7}'), ("copy-vs-2", "{}")):
        (released.reports / name).mkdir()
        (released.reports / name / "evaluation.json").write_text(content)
    (released.reports / "62-vs-none").write_text("a file")
    assert gate.run(released, params, report=write_evaluation("10")).notices == []
    (notice,) = gate.run(released, params, report=write_evaluation("11")).notices
    assert notice.startswith("This holdout, or one with most of its clips, has judged 10 candidates")
    shutil.rmtree(released.report("10-vs-none").folder)
    assert gate.run(released, params).notices == [notice], "the ledger knows it still"


def test_a_holdout_with_a_corrected_label_or_a_few_more_clips_is_as_worn(
    released: Workspace, params: Params, write_evaluation: Judge
) -> None:
    for number in range(1, 10):
        files = released.report(write_evaluation(str(number)))
        content = json.loads(files.evaluation.read_text())
        content["holdout"] = {"version": "v0", "revision": "cd" * 16, "batches": []}
        content["clips"] = content["clips"][: 12 + number % 2]
        write_json(files.evaluation, content)
    assert gate.run(released, params, report=write_evaluation("10")).notices == []
    for number in range(2, 10, 2):
        write_evaluation(str(number))
    (notice,) = gate.run(released, params, report="10-vs-none").notices
    assert "has judged 10 candidates" in notice


def _on_other_clips(workspace: Workspace, name: str) -> None:
    path = workspace.report(name).evaluation
    content = json.loads(path.read_text())
    for clip in content["clips"]:
        clip["clip_id"] = clip["clip_id"][::-1].replace("0", "f")
    write_json(path, content)


def test_the_same_report_gets_the_same_verdict_and_no_second_line(
    released: Workspace, params: Params, write_evaluation: Judge
) -> None:
    name = write_evaluation("1")
    first = gate.run(released, params, report=name)
    before = {path: path.read_bytes() for path in released.report(name).folder.iterdir()}
    assert gate.run(released, params) == first
    assert {path: path.read_bytes() for path in released.report(name).folder.iterdir()} == before
    assert len(ledger.read(released)) == 1


def test_another_policy_gives_another_line(released: Workspace, params: Params, write_evaluation: Judge) -> None:
    name = write_evaluation("1", wrong=4)
    assert gate.run(released, params, report=name).verdict == "pass"
    assert gate.run(released, _with_gate(params, min_f1=0.99), report=name).verdict == "refuse"
    assert gate.run(released, params, report=name).verdict == "pass"
    assert len(ledger.read(released)) == 3


def test_an_interval_made_by_other_settings_than_the_policys_is_not_judged(
    released: Workspace, params: Params, write_evaluation: Judge
) -> None:
    write_evaluation("2", "1")
    for changed in ({"confidence": 0.5}, {"resamples": 100}):
        with pytest.raises(
            WorkspaceError, match=r"2-vs-1 was evaluated with gate\.confidence .*run `violence-ops evaluate` again"
        ):
            gate.run(released, _with_gate(params, **changed))
    assert ledger.read(released) == []


@pytest.mark.parametrize(
    ("what", "change"),
    [
        (
            "corrected",
            "Labels in holdout v1 were corrected after 2-vs-1 was made: run `violence-ops holdout freeze`, then `violence-ops",
        ),
        ("newer", "Holdout v2 became the newest after 2-vs-1 was made: run `violence-ops"),
    ],
)
def test_an_evaluation_whose_holdout_went_stale_since_is_not_judged(
    released: Workspace,
    params: Params,
    write_evaluation: Judge,
    go_stale: Callable[[Workspace, str], None],
    what: str,
    change: str,
) -> None:
    name = write_evaluation("2", "1")
    go_stale(released, what)
    remedy = "evaluate --candidate 2` and `violence-ops gate` again"
    with pytest.raises(WorkspaceError, match=f"{change} {remedy}"):
        gate.run(released, params)
    assert ledger.read(released) == []
    files = released.report(name)
    write_json(files.evaluation, reports.as_of_now(released, reports.read(files).evaluation).to_dict())
    assert gate.run(released, params).verdict == "undecided"


def test_a_dry_run_is_recorded_as_one(released: Workspace, params: Params, write_evaluation: Judge) -> None:
    result = gate.run(released, _with_gate(params, mode="dry_run"), report=write_evaluation("1"))
    assert (result.verdict, result.mode) == ("pass", "dry_run")
    assert ledger.read(released)[0].payload["mode"] == "dry_run"


@pytest.mark.parametrize("form", ["{}", "reports/{}", "ROOT/reports/{}"], ids=["name", "relative", "absolute"])
def test_a_report_is_found_by_name_or_folder(
    released: Workspace, params: Params, write_evaluation: Judge, form: str
) -> None:
    chosen = form.format(write_evaluation("1")).replace("ROOT", str(released.root))
    assert gate.run(released, params, report=chosen).verdict == "pass"


@pytest.mark.parametrize("name", ["../../etc/passwd", "/tmp/1-vs-none", "nonsense"])
def test_a_report_outside_the_workspace_is_refused(released: Workspace, params: Params, name: str) -> None:
    with pytest.raises(UsageError):
        gate.run(released, params, report=name)


def test_without_an_evaluation_it_says_what_to_run(released: Workspace, params: Params) -> None:
    with pytest.raises(WorkspaceError, match="violence-ops evaluate"):
        gate.run(released, params)


def test_afterwards_dvc_has_nothing_to_redo_for_the_gate(
    released: Workspace, params: Params, write_evaluation: Judge
) -> None:
    from violence_ops import versioning

    gate.run(released, params, report=write_evaluation("1"))
    assert "gate" not in versioning.status(released)
