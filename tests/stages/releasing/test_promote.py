"""A release needs a passed report and a person; it is in the ledger before it happens, and can be undone."""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from violence_ops import git, ledger, versioning
from violence_ops.errors import RefusedByGate, ServiceUnavailable, UsageError, WorkspaceError
from violence_ops.params import Params
from violence_ops.registry import Registry
from violence_ops.stages.learning import predict
from violence_ops.stages.nightly import score
from violence_ops.stages.provenance import lineage
from violence_ops.stages.releasing import approval, evaluate, gate, ledger_log, promote, reinstate, rollback, shadow
from violence_ops.stages.upkeep import doctor, status
from violence_ops.store import releases
from violence_ops.workspace import Workspace

Judge = Callable[..., str]


@pytest.fixture
def passed(released: Workspace, params: Params, registry: Registry, write_evaluation: Judge) -> Workspace:
    """Version 1 is champion by the ledger; version 2 has passed the gate against it."""
    gate.run(released, params, report=write_evaluation("1"))
    promote.run(released, params, approved_by="admin")
    gate.run(released, params, report=write_evaluation("2", "1"))
    return released


def _promote(workspace: Workspace) -> list[str]:
    return [sys.executable, "-m", "violence_ops.cli", "promote", "--approve", "--workspace", str(workspace.root)]


def _events(workspace: Workspace) -> list[tuple[str, str | None]]:
    return [(entry.event, entry.payload.get("phase")) for entry in ledger.read(workspace)]


def test_the_champion_moves_with_intent_and_outcome_in_the_ledger(
    passed: Workspace, params: Params, registry: Registry
) -> None:
    result = promote.run(passed, params, approved_by="release-manager", expected_champion="1")
    assert (result.version, result.previous, result.moved) == ("2", "1", True)
    assert registry.alias("champion") == "2"
    assert _events(passed)[-3:] == [("approval", None), ("promotion", "intent"), ("promotion", "done")]
    assert {entry.actor for entry in ledger.read(passed)[-3:]} == {"release-manager"}
    status = subprocess.run(
        ["git", "status", "--porcelain", "releases"], cwd=passed.root, capture_output=True, text=True, check=True
    )
    assert status.stdout == ""


def test_each_decision_and_each_release_checks_the_ledger_once(
    passed: Workspace, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[Workspace] = []
    real = releases.check_ledger
    monkeypatch.setattr(releases, "check_ledger", lambda workspace: checked.append(workspace) or real(workspace))

    def checks(act: Callable[[], object]) -> int:
        checked.clear()
        act()
        return len(checked)

    assert checks(lambda: approval.ask(passed, params)) == 1
    assert checks(lambda: approval.refuse(passed, params, by="admin", reason="not yet")) == 1
    assert checks(lambda: approval.approve(passed, params, by="admin")) == 1
    assert checks(lambda: promote.run(passed, params)) == 1
    assert checks(lambda: rollback.run(passed, by="op", reason="misses falls")) == 1
    assert checks(lambda: reinstate.run(passed, by="op")) == 1
    assert checks(lambda: ledger_log.verify(passed)) == 1


def test_status_names_who_waits_for_an_approval_until_somebody_decides(
    released: Workspace, params: Params, write_evaluation: Judge
) -> None:
    def awaiting() -> list[str]:
        result = status.run(released)
        lines = [line for line in result.lines() if line.startswith("approval")]
        assert len(lines) == len(result.to_dict()["awaiting"])
        return lines

    write_evaluation("1")
    assert awaiting() == []  # not gated yet
    dry = params.model_copy(update={"gate": params.gate.model_copy(update={"mode": "dry_run"})})
    gate.run(released, dry, report="1-vs-none")
    assert awaiting() == []
    gate.run(released, params, report="1-vs-none")
    (line,) = awaiting()
    command = "violence-ops promote --report 1-vs-none --approve --by NAME"
    assert line == f"approval    candidate 1 passed the gate and waits for an approval: `{command}`"
    gate.run(released, params, report=write_evaluation("2"))
    assert len(awaiting()) == 2
    approval.refuse(released, params, "2-vs-none", by="admin", reason="false alarms at the door")
    assert awaiting() == [line]
    gate.run(released, params, report=write_evaluation("3"))
    assert len(awaiting()) == 2
    promote.run(released, params, report="1-vs-none", approved_by="admin")
    assert awaiting() == []  # the other one was compared with no champion


def test_status_says_what_gate_and_people_made_of_the_newest_candidate_and_what_to_do_next(
    passed: Workspace, params: Params, write_evaluation: Judge
) -> None:
    passed.write_progress("train", {"model_version": "2"})

    def stands() -> tuple[str, list[str]]:
        result = status.run(passed)
        lines = list(result.lines())
        (models,) = [line for line in lines if line.startswith("models")]
        assert result.to_dict()["candidate_standing"]["said"] in models
        return models.partition("newest candidate ")[2], [line for line in lines if line.startswith("candidate")]

    assert stands() == ("2: passed the gate", [])
    approval.refuse(passed, params, by="admin", reason="alarms at the door")
    anew = "run `violence-ops evaluate --force` and `violence-ops gate`"
    assert stands() == ("2: refused by admin", ["candidate   alarms at the door", f"candidate   to ask again: {anew}"])
    promote.run(passed, params, approved_by="admin")
    assert stands() == ("2: released by admin", [])
    rollback.run(passed, by="op", reason="misses falls")
    assert stands() == (
        "2: rolled back by op", ["candidate   misses falls", f"candidate   to release it again: {anew}"],
    )  # fmt: skip
    strict = params.model_copy(update={"gate": params.gate.model_copy(update={"min_clips": 50})})
    gate.run(passed, strict, report=write_evaluation("2", "1", p95_ms=10.0))
    said, (why,) = stands()
    assert said == "2: undecided"
    assert "50 of each label" in why
    assert "the next retraining holds out what is missing" in why


def test_status_names_the_version_in_shadow(passed: Workspace, params: Params) -> None:
    assert status.run(passed).in_shadow is None
    shadow.start(passed, "3")
    assert status.run(passed).to_dict()["in_shadow"] == "3"
    assert any(line.startswith("shadow      version 3 ") for line in status.run(passed).lines())
    shadow.stop(passed)
    assert not any(line.startswith("shadow") for line in status.run(passed).lines())


def test_a_second_run_is_a_no_op(passed: Workspace, params: Params) -> None:
    promote.run(passed, params, approved_by="admin")
    before = passed.ledger.read_bytes()
    assert promote.run(passed, params, approved_by="admin").moved is False
    assert passed.ledger.read_bytes() == before


def test_a_pass_under_another_policy_releases_nothing_but_who_may_approve_can_change(
    passed: Workspace, params: Params, registry: Registry
) -> None:
    def changed(**gate_params: object) -> Params:
        return params.model_copy(update={"gate": params.gate.model_copy(update=gate_params)})

    with pytest.raises(RefusedByGate, match="another policy"):
        promote.run(passed, changed(min_f1=0.7), approved_by="admin")
    assert registry.alias("champion") == "1"
    assert promote.run(passed, changed(approvers=("grace",)), approved_by="grace").moved


@pytest.mark.parametrize("what", ["corrected", "newer"])
def test_a_pass_on_a_holdout_that_went_stale_since_releases_nothing(
    passed: Workspace, params: Params, registry: Registry, go_stale: Callable[[Workspace, str], None], what: str
) -> None:
    go_stale(passed, what)
    for dry_run in (True, False):
        with pytest.raises(
            RefusedByGate, match=r"after 2-vs-1 was made: run .*`violence-ops evaluate --candidate 2` and"
        ):
            promote.run(passed, params, approved_by="admin", dry_run=dry_run)
    assert registry.alias("champion") == "1"
    assert _events(passed)[-1] == ("verdict", None)


def test_a_second_run_is_a_no_op_though_the_holdout_went_stale_after_the_release(
    passed: Workspace, params: Params, go_stale: Callable[[Workspace, str], None]
) -> None:
    promote.run(passed, params, approved_by="admin")
    go_stale(passed, "corrected")
    assert promote.run(passed, params, approved_by="admin").moved is False


def test_a_dry_run_changes_nothing(passed: Workspace, params: Params, registry: Registry) -> None:
    before = passed.ledger.read_bytes()
    result = promote.run(passed, params, approved_by="admin", dry_run=True)
    assert (result.version, result.moved) == ("2", False)
    assert (registry.alias("champion"), passed.ledger.read_bytes()) == ("1", before)


def test_whoever_is_no_approver_is_refused(passed: Workspace, params: Params, registry: Registry) -> None:
    before = passed.ledger.read_bytes()
    done = subprocess.run([*_promote(passed), "--by", "eve"], capture_output=True, text=True, check=False)
    assert done.returncode == RefusedByGate.exit_code
    assert (
        done.stderr == "eve may not decide on a release: gate.approvers in params.yaml names admin, release-manager.\n"
    )
    assert (registry.alias("champion"), passed.ledger.read_bytes()) == ("1", before)


def test_whoever_is_no_approver_hears_that_first(passed: Workspace, params: Params, write_evaluation: Judge) -> None:
    write_evaluation("2", "1", p95_ms=10.0)
    for decide in (
        lambda by: promote.run(passed, params, approved_by=by), lambda by: approval.approve(passed, params, by=by),
    ):  # fmt: skip
        with pytest.raises(RefusedByGate, match="bob may not decide"):
            decide("bob")
        with pytest.raises(
            RefusedByGate, match="changed since the gate judged it: read it, then run `violence-ops gate`"
        ):
            decide("admin")
    gate.run(passed, params)
    assert promote.run(passed, params, approved_by="admin").moved


def test_a_refused_candidate_is_never_released(
    passed: Workspace, params: Params, registry: Registry, write_evaluation: Judge
) -> None:
    gate.run(passed, params, report=write_evaluation("3", "1", wrong=14))
    with pytest.raises(RefusedByGate, match=r"verdict on 3-vs-1 is refuse.*floor"):
        promote.run(passed, params, approved_by="admin")
    assert registry.alias("champion") == "1"


def test_a_report_that_the_gate_has_not_judged_is_refused(
    passed: Workspace, params: Params, write_evaluation: Judge
) -> None:
    write_evaluation("3", "1")
    with pytest.raises(RefusedByGate, match="has not judged 3-vs-1"):
        promote.run(passed, params, approved_by="admin")


def test_the_package_that_was_judged_is_the_one_released_and_the_one_that_judges(
    passed: Workspace, params: Params, registry: Registry, package_sha256: Callable[[str], str]
) -> None:
    registry.set_tag("2", "package_sha256", "ab" * 32)
    with pytest.raises(
        RefusedByGate, match=r"package of version 2 was judged as it is registered: run .*evaluate --force"
    ):
        promote.run(passed, params, approved_by="admin")
    assert registry.alias("champion") == "1"
    registry.set_tag("2", "package_sha256", package_sha256("2"))
    promote.run(passed, params, approved_by="admin")
    entries = ledger.read(passed)
    assert releases.released_package(entries, "2") == entries[-1].payload["package"] == package_sha256("2")


def test_an_evaluation_that_does_not_say_which_package_it_judged_releases_nothing(
    passed: Workspace, params: Params, registry: Registry
) -> None:
    path = passed.report("2-vs-1").evaluation
    content = json.loads(path.read_text())
    del content["candidate"]["package"]  # as it was written before November 2026
    path.write_text(json.dumps(content))
    gate.run(passed, params)
    with pytest.raises(RefusedByGate, match="evaluate --force"):
        promote.run(passed, params, approved_by="admin")
    assert registry.alias("champion") == "1"


def test_a_report_changed_after_the_verdict_is_refused(passed: Workspace, params: Params) -> None:
    path = passed.report("2-vs-1").evaluation
    content = json.loads(path.read_text())
    content["timings"]["candidate"]["p95_ms"] = 1.0  # a measurement: nothing to count again
    path.write_text(json.dumps(content))
    with pytest.raises(RefusedByGate, match=r"changed since the gate judged it: .*run `violence-ops gate`"):
        promote.run(passed, params, approved_by="admin")


def _figure(content: Any, value: float) -> None:
    content["candidate"]["metrics"] |= {"f1": value, "recall": value}


def _slice(content: Any, value: float) -> None:
    content["slices"][0]["candidate"]["fn"] = int(value)


def _interval(content: Any, value: float) -> None:
    content["difference"]["by_group"]["lower"] = value


def _clips_gone(content: Any, _: float) -> None:
    content["clips"] = content["clips"][2:]


def _no_champion(content: Any, _: float) -> None:
    for clip in content["clips"]:
        clip["champion"] = None


@pytest.mark.parametrize("edit", [_figure, _slice, _interval, _clips_gone, _no_champion])
def test_figures_that_do_not_follow_from_the_clips_are_judged_by_nobody(
    passed: Workspace, params: Params, write_evaluation: Judge, edit: Callable[[Any, float], None]
) -> None:
    path = passed.report(write_evaluation("3", "1", wrong=14)).evaluation
    content = json.loads(path.read_text())
    edit(content, 0.97)
    path.write_text(json.dumps(content))
    before = passed.ledger.read_bytes()
    for act in (lambda: gate.run(passed, params), lambda: promote.run(passed, params, approved_by="admin")):
        with pytest.raises(
            WorkspaceError, match=r"reports/3-vs-1/evaluation.json .* clips do not give.*--force --candidate 3"
        ):
            act()
    assert passed.ledger.read_bytes() == before


def test_a_dry_run_verdict_releases_nothing(passed: Workspace, params: Params) -> None:
    trial = params.model_copy(update={"gate": params.gate.model_copy(update={"mode": "dry_run"})})
    gate.run(passed, trial)
    with pytest.raises(RefusedByGate, match="dry run"):
        promote.run(passed, trial, approved_by="admin")


def test_a_disabled_gate_still_needs_an_approver(
    passed: Workspace, params: Params, registry: Registry, write_evaluation: Judge
) -> None:
    off = params.model_copy(update={"gate": params.gate.model_copy(update={"mode": "disabled"})})
    gate.run(passed, off, report=write_evaluation("3", "1", wrong=14))
    with pytest.raises(RefusedByGate, match="may not"):
        promote.run(passed, off, approved_by="eve")
    assert promote.run(passed, off, approved_by="admin").moved
    assert registry.alias("champion") == "3"


def test_a_champion_that_changed_since_the_report_stops_the_release(
    passed: Workspace, params: Params, registry: Registry, write_evaluation: Judge
) -> None:
    gate.run(passed, params, report=write_evaluation("3", "1"))
    promote.run(passed, params, report="2-vs-1", approved_by="admin")
    with pytest.raises(RefusedByGate, match="champion is version 2 by now"):
        promote.run(passed, params, report="3-vs-1", approved_by="admin")
    with pytest.raises(UsageError):
        promote.run(passed, params, report="3-vs-1", approved_by="admin", expected_champion="2")
    assert registry.alias("champion") == "2"


def test_a_broken_ledger_stops_the_release(passed: Workspace, params: Params, registry: Registry) -> None:
    content = passed.ledger.read_text()
    passed.ledger.write_text(content.replace("admin", "adnin", 1))
    with pytest.raises(ledger.LedgerBroken):
        promote.run(passed, params, approved_by="admin")
    with pytest.raises(ledger.LedgerBroken):
        ledger_log.verify(passed)
    assert registry.alias("champion") == "1"


@pytest.mark.parametrize("committed", [False, True], ids=["cut", "cut-and-committed"])
def test_a_tail_that_was_cut_off_is_noticed_though_the_chain_holds_and_can_be_put_back(
    passed: Workspace, params: Params, registry: Registry, committed: bool
) -> None:
    whole = passed.ledger.read_bytes()
    passed.ledger.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    if committed:
        subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qam", "cut"], cwd=passed.root, check=True)  # fmt: skip
    assert ledger.verify(passed) == []
    with pytest.raises(ledger.LedgerBroken, match="cut off") as broken:
        ledger_log.verify(passed)
    for act in (
        lambda: promote.run(passed, params, report="1-vs-none", approved_by="admin"),
        lambda: rollback.run(passed, by="ada", reason="r"),
    ):
        with pytest.raises(ledger.LedgerBroken):
            act()
    remedy = str(broken.value).split("`")[1]
    subprocess.run(remedy.split(), cwd=passed.root, check=True)
    assert passed.ledger.read_bytes() == whole
    assert ledger_log.verify(passed).entries == len(whole.splitlines())
    assert registry.alias("champion") == "1"


def test_verify_says_what_is_wrong_in_one_sentence_and_fails(passed: Workspace) -> None:
    lines = passed.ledger.read_text().splitlines(keepends=True)
    for broken, says in (
        ([lines[0].replace("gate", "ada", 1), *lines[1:]], "line 1 was changed after it was written"),
        ([*lines[:1], *lines[2:]], "so a line was removed or added before it"),
        (lines[:-1], "some were cut off"),
        ([], "some were cut off"),
        ([*lines[:-1], lines[-1][:40]], "is cut off, as a crash while writing leaves it"),
    ):
        passed.ledger.write_text("".join(broken))
        command = [sys.executable, "-m", "violence_ops.cli", "ledger", "verify", "--workspace", str(passed.root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert says in done.stderr
        assert "Traceback" not in done.stderr


def test_a_rollback_written_by_hand_before_any_promotion_is_one_sentence(workspace: Workspace) -> None:
    ledger.append(workspace, actor="eve", event="rollback", payload={"from": "2", "to": "1", "phase": "done"})
    commands = (["ledger", "verify"], ["ledger", "show"], ["rollback", "--by", "ada", "--reason", "r"], ["status"])
    for command in commands:
        whole = [sys.executable, "-m", "violence_ops.cli", *command, "--workspace", str(workspace.root)]
        done = subprocess.run(whole, capture_output=True, text=True, check=False)
        assert done.returncode == 1, command
        assert "releases/ledger.jsonl line 1 rolls back although no earlier champion was there" in (
            done.stdout + done.stderr
        )
        assert "Traceback" not in done.stderr
        assert done.stderr.count("\n") <= 1


@pytest.mark.parametrize("left", [-1, 0], ids=["cut", "emptied"])
def test_a_tail_that_was_cut_off_stops_the_gate_and_is_told_by_status_and_history(
    passed: Workspace, params: Params, left: int
) -> None:
    lines = passed.ledger.read_bytes().splitlines(keepends=True)
    passed.ledger.write_bytes(b"".join(lines[:left]))
    before = passed.ledger.read_bytes()
    for act in (lambda: gate.run(passed, params), lambda: ledger_log.show(passed)):
        with pytest.raises(ledger.LedgerBroken, match="cut off"):
            act()
    assert passed.ledger.read_bytes() == before
    command = [sys.executable, "-m", "violence_ops.cli", "status", "--workspace", str(passed.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "champion not known" in done.stdout
    assert "PROBLEM     releases/ledger.jsonl ends before lines that were committed" in done.stdout


def _forge(workspace: Workspace) -> None:
    """A promotion with a right hash, as somebody with an editor and this source could add it."""
    last = ledger.read(workspace)[-1]
    body = {
        "seq": last.seq + 1, "at": last.at, "actor": "admin", "event": "promotion", "prev_hash": last.hash,
        "payload": {"from": "1", "to": "3", "phase": "done", "report": "3-vs-1"},
    }  # fmt: skip
    digest = hashlib.sha256(ledger.canonical(body)).hexdigest()
    with workspace.ledger.open("ab") as file:
        file.write(ledger.canonical(body | {"hash": digest}) + b"\n")


def test_a_line_that_somebody_added_with_a_right_hash_is_told_and_never_committed(
    passed: Workspace, params: Params, write_evaluation: Judge
) -> None:
    whole = passed.ledger.read_bytes()
    _forge(passed)
    assert ledger.verify(passed) == []
    for act in (
        lambda: ledger_log.verify(passed),
        lambda: ledger_log.show(passed),
        lambda: gate.run(passed, params, report=write_evaluation("3", "1")),
        lambda: promote.run(passed, params, report="2-vs-1", approved_by="admin"),
        lambda: approval.refuse(passed, params, by="admin", reason="r"),
        lambda: rollback.run(passed, by="ada", reason="r"),
    ):
        with pytest.raises(
            ledger.LedgerBroken, match=r"line 6 \(promotion by admin\) is not committed.*take it out"
        ) as said:
            act()
    assert status.run(passed).problems == [str(said.value)]
    versioning.commit_stage(passed, [], "Any other stage")
    assert b'"to":"3"' not in git.committed(passed, passed.ledger)
    remedy = str(said.value).split("`")[1]
    subprocess.run(remedy.split(), cwd=passed.root, check=True)
    assert passed.ledger.read_bytes() == whole
    assert ledger_log.verify(passed).entries == 5


def test_a_line_that_a_crash_kept_from_git_is_known_as_our_own_and_committed_with_the_next(
    passed: Workspace, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(git, "commit_paths", _die)
        with pytest.raises(KeyboardInterrupt):
            approval.refuse(passed, params, by="admin", reason="r")
    assert ledger_log.verify(passed).entries == 6
    assert len(git.committed(passed, passed.ledger).splitlines()) == 5
    assert promote.run(passed, params, approved_by="admin").moved
    assert git.committed(passed, passed.ledger) == passed.ledger.read_bytes().strip()


def _die(*_: object) -> None:
    raise KeyboardInterrupt


def _crash_at(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Die as kill -9 would: right before or right after the alias moves, with nothing cleaned up."""
    original = Registry.set_alias

    def dying(self: Registry, name: str, version: str | None, expected: str | None) -> None:
        if where == "after":
            original(self, name, version, expected)
        monkeypatch.setattr(releases, "recover", lambda *_: None)
        raise KeyboardInterrupt

    monkeypatch.setattr(Registry, "set_alias", dying)


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_crash_around_the_alias_is_recovered_by_a_rerun(
    passed: Workspace, params: Params, registry: Registry, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    with monkeypatch.context() as patch:
        _crash_at(patch, where)
        with pytest.raises(KeyboardInterrupt):
            promote.run(passed, params, approved_by="admin")
    assert _events(passed)[-1] == ("promotion", "intent")
    result = promote.run(passed, params, approved_by="admin")
    assert registry.alias("champion") == "2"
    assert result.moved is (where == "before")
    assert _events(passed)[-1] == ("promotion", "done")
    assert ledger.champions(ledger.read(passed)) == ["1", "2"]


def test_a_lost_mlflow_is_said_and_nothing_moves(
    passed: Workspace, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = passed.ledger.read_bytes()
    monkeypatch.setenv("VIOLENCE_OPS_MLFLOW_URI", "http://127.0.0.1:9")
    alone = Workspace(passed.root)
    with pytest.raises(ServiceUnavailable):
        promote.run(alone, params, approved_by="admin")
    assert passed.ledger.read_bytes() == before
    seen = status.run(alone)
    assert (seen.champion, "cannot be reached" in seen.problems[0]) == ("1", True)
    assert "was not compared: MLflow" in ledger_log.verify(alone).lines()[1]


@pytest.mark.slow
def test_of_two_releases_at_once_one_wins(
    passed: Workspace, params: Params, registry: Registry, write_evaluation: Judge
) -> None:
    gate.run(passed, params, report=write_evaluation("3", "1"))
    racers = [
        subprocess.Popen(
            [*_promote(passed), "--by", "admin", "--report", f"reports/{name}"], stderr=subprocess.PIPE, text=True
        )
        for name in ("2-vs-1", "3-vs-1")
    ]
    said = {racer.communicate(timeout=300)[1]: racer.returncode for racer in racers}
    assert sorted(said.values()) == [0, 3]
    champion = registry.alias("champion")
    (refusal,) = [text for text, code in said.items() if code]
    assert refusal.startswith(f"The champion is version {champion} by now, but")
    assert champion == ledger.champions(ledger.read(passed))[-1]


def _refuse(
    workspace: Workspace, by: str, reason: str = "too many alarms at the door"
) -> subprocess.CompletedProcess[str]:
    command = ["refuse", "--by", by, "--reason", reason, "--workspace", str(workspace.root)]
    return subprocess.run(
        [sys.executable, "-m", "violence_ops.cli", *command], capture_output=True, text=True, check=False
    )


def test_an_approver_refuses_from_the_command_line_once_and_anybody_else_may_not(
    passed: Workspace, params: Params, registry: Registry
) -> None:
    before = passed.ledger.read_bytes()
    for by, reason, code, says in (("eve", "r", 3, "eve may not decide"), ("admin", " ", 2, "needs a reason")):
        done = _refuse(passed, by, reason)
        assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert passed.ledger.read_bytes() == before
    first = _refuse(passed, "release-manager")
    assert first.stdout == "Refusal of 2-vs-1 by release-manager: line 6 of the ledger.\n", first.stderr
    assert _refuse(passed, "release-manager").stdout == first.stdout
    last = ledger.read(passed)[-1]
    assert (last.seq, last.event, last.payload["reason"]) == (6, "refusal", "too many alarms at the door")
    with pytest.raises(RefusedByGate, match="only they can take back"):
        promote.run(passed, params, approved_by="admin")
    assert registry.alias("champion") == "1"


def test_what_is_live_or_was_never_judged_cannot_be_refused(
    passed: Workspace, params: Params, write_evaluation: Judge
) -> None:
    promote.run(passed, params, approved_by="admin")
    before = passed.ledger.read_bytes()
    done = _refuse(passed, "admin")
    assert done.returncode == 3
    says = "Version 2 is champion already: take it back with `violence-ops rollback --by NAME --reason …`.\n"
    assert done.stderr == says
    write_evaluation("3", "2")
    done = _refuse(passed, "admin")
    assert (done.returncode, done.stderr) == (3, "The gate has not judged 3-vs-2 yet: run `violence-ops gate` first.\n")
    assert passed.ledger.read_bytes() == before
    gate.run(passed, params, report="3-vs-2")
    assert _refuse(passed, "admin").returncode == 0


def test_a_release_that_names_nobody_needs_an_approval_in_the_ledger_that_still_stands(
    passed: Workspace, params: Params, registry: Registry
) -> None:
    def refused() -> bool:
        with pytest.raises(RefusedByGate, match="holds no approval of 2-vs-1"):
            promote.run(passed, params)
        return registry.alias("champion") == "1"

    assert refused()
    with pytest.raises(RefusedByGate, match="eve may not decide"):
        approval.approve(passed, params, by="eve")
    assert refused()
    approval.approve(passed, params, by="admin")
    approval.refuse(passed, params, by="admin", reason="on second thoughts")
    assert refused()
    decision = approval.approve(passed, params, by="admin")
    assert approval.approve(passed, params, by="admin") == decision
    result = promote.run(passed, params)
    assert (result.moved, result.approved_by) == (True, "admin")
    done = [entry for entry in ledger.read(passed) if entry.event == "promotion"][-1]
    assert (done.actor, done.payload["approval"]) == ("admin", decision.seq)
    assert not promote.run(passed, params).moved


def test_a_report_that_the_gate_did_not_pass_cannot_be_approved(
    passed: Workspace, params: Params, write_evaluation: Judge
) -> None:
    write_evaluation("3", "1")
    with pytest.raises(RefusedByGate, match="has not judged"):
        approval.approve(passed, params, "3-vs-1", by="admin")


def test_an_answer_counts_for_the_evaluation_that_was_asked_about_and_no_other(
    passed: Workspace, params: Params, write_evaluation: Judge
) -> None:
    question = approval.ask(passed, params)
    assert (question.report, question.subject) == ("2-vs-1", "Release version 2?")
    headline, *reasons, last = [line for line in question.body.splitlines() if line]
    assert headline.startswith("Candidate 2 ")
    assert reasons
    assert all(reason.startswith("- ") for reason in reasons)
    page = passed.report("2-vs-1").page
    assert last == f"Read the report first: `{page}` (evaluation {question.digest[:12]})."
    gate.run(passed, params, report=write_evaluation("2", "1", p95_ms=10.0))
    for answer in (
        lambda: approval.approve(passed, params, "2-vs-1", by="admin", digest=question.digest),
        lambda: approval.refuse(passed, params, "2-vs-1", by="admin", reason="not sure", digest=question.digest),
    ):
        with pytest.raises(RefusedByGate, match="2-vs-1 was made again after this question was asked"):
            answer()
    now = approval.ask(passed, params)
    assert approval.lapse(passed, params, "2-vs-1", digest=question.digest).by == "nobody"
    assert ledger.read(passed)[-1].payload["digest"] == question.digest != now.digest
    assert approval.approve(passed, params, now.report, by="admin", digest=now.digest).decision == "approval"


@pytest.mark.parametrize("answer", ["approve", "refuse", "lapse"])
def test_an_answer_to_a_question_that_was_settled_elsewhere_changes_nothing_and_says_by_whom(
    passed: Workspace, params: Params, answer: str
) -> None:
    asked = {"report": "2-vs-1", "digest": approval.ask(passed, params).digest}

    def say() -> approval.DecisionResult:
        before = passed.ledger.read_bytes()
        given = {"by": "admin"} if answer != "lapse" else {}
        given |= {"reason": "not sure"} if answer == "refuse" else {}
        said: approval.DecisionResult = getattr(approval, answer)(passed, params, **asked, **given)
        assert passed.ledger.read_bytes() == before
        return said

    promote.run(passed, params, approved_by="release-manager")
    said = say()
    assert (said.decision, said.by, said.seq) == ("settled", "release-manager", 8)
    assert (
        said.reason == "Settled elsewhere by release-manager (line 8 of the ledger): promotion, champion 1 to 2, done."
    )
    rollback.run(passed, by="op", reason="false alarms")
    taken_back = "Settled elsewhere by op (line 10 of the ledger): rollback, champion 2 to 1, done: false alarms."
    assert say().reason == taken_back


def test_an_approval_after_another_person_s_refusal_is_told_of_it_and_silence_is_no_answer_then(
    passed: Workspace, params: Params
) -> None:
    asked = {"report": "2-vs-1", "digest": approval.ask(passed, params).digest}
    approval.refuse(passed, params, by="release-manager", reason="alarms at the door")
    refused = "Settled elsewhere by release-manager (line 6 of the ledger): refusal, 2-vs-1 alarms at the door."
    assert approval.approve(passed, params, **asked, by="admin").reason == refused
    assert approval.lapse(passed, params, **asked).reason == refused
    assert approval.approve(passed, params, **asked, by="release-manager").decision == "approval"


def test_nobody_is_asked_about_a_report_that_the_gate_did_not_pass(
    passed: Workspace, params: Params, write_evaluation: Judge
) -> None:
    write_evaluation("3", "1")
    with pytest.raises(RefusedByGate, match="has not judged"):
        approval.ask(passed, params, "3-vs-1")


def test_a_refusal_binds_the_others_until_who_refused_approves_or_it_is_judged_again(
    passed: Workspace, params: Params, registry: Registry, write_evaluation: Judge
) -> None:
    approval.refuse(passed, params, by="release-manager", reason="too many alarms at the door")
    with pytest.raises(
        RefusedByGate, match=r"^release-manager refused 2-vs-1 .*too many alarms at the door.*ask again"
    ):
        promote.run(passed, params, approved_by="admin")
    assert registry.alias("champion") == "1"
    assert promote.run(passed, params, approved_by="release-manager").moved
    gate.run(passed, params, report=write_evaluation("3", "2"))
    approval.refuse(passed, params, by="release-manager", reason="not now")
    gate.run(passed, params, report=write_evaluation("3", "2", p95_ms=10.0))
    assert promote.run(passed, params, approved_by="admin").moved


def test_a_refusal_outlives_a_new_verdict_on_the_same_evaluation(
    passed: Workspace, params: Params, registry: Registry
) -> None:
    approval.refuse(passed, params, by="release-manager", reason="too many alarms at the door")
    other = params.model_copy(update={"gate": params.gate.model_copy(update={"min_f1": 0.01})})
    gate.run(passed, other)
    gate.run(passed, params)
    with pytest.raises(RefusedByGate, match="only they can take back"):
        promote.run(passed, params, approved_by="admin")
    assert registry.alias("champion") == "1"


def test_an_approver_who_answers_late_may_still_release_what_nobody_refused(passed: Workspace, params: Params) -> None:
    approval.lapse(passed, params)
    assert promote.run(passed, params, approved_by="admin").moved


def test_a_rollback_brings_the_previous_champion_back(passed: Workspace, params: Params, registry: Registry) -> None:
    promote.run(passed, params, approved_by="admin")
    result = rollback.run(passed, by="ada", reason="false alarms", expected_champion="2")
    assert (result.version, result.rolled_back, result.moved) == ("1", "2", True)
    assert registry.alias("champion") == "1"
    last = ledger.read(passed)[-1]
    assert (last.actor, last.event, last.payload["reason"], last.payload["phase"]) == (
        "ada",
        "rollback",
        "false alarms",
        "done",
    )
    again = rollback.run(passed, by="ada", reason="false alarms", expected_champion="2")
    assert (again.version, again.moved) == ("1", False)


def test_a_rolled_back_version_needs_a_new_verdict(
    passed: Workspace, params: Params, registry: Registry, write_evaluation: Judge
) -> None:
    promote.run(passed, params, approved_by="admin")
    rollback.run(passed, by="ada", reason="false alarms")
    with pytest.raises(RefusedByGate, match="was rolled back"):
        promote.run(passed, params, approved_by="admin")
    gate.run(passed, params, report=write_evaluation("2", "1", p95_ms=10.0))
    assert promote.run(passed, params, approved_by="admin").moved
    assert registry.alias("champion") == "2"


def test_a_verdict_under_another_policy_takes_no_rollback_away(
    passed: Workspace, params: Params, registry: Registry
) -> None:
    promote.run(passed, params, approved_by="admin")
    rollback.run(passed, by="ada", reason="false alarms")
    changed = params.model_copy(update={"gate": params.gate.model_copy(update={"min_f1": 0.7})})
    assert gate.run(passed, changed).verdict == "pass"
    with pytest.raises(RefusedByGate, match=r"Version 2 was rolled back .*evaluate --force"):
        promote.run(passed, changed, approved_by="admin")
    assert registry.alias("champion") == "1"


def _release_2_and_3(passed: Workspace, params: Params, write_evaluation: Judge) -> None:
    promote.run(passed, params, approved_by="admin")
    gate.run(passed, params, report=write_evaluation("3", "2"))
    promote.run(passed, params, approved_by="admin")


def test_rollbacks_go_back_release_by_release_and_stop_at_the_first(
    passed: Workspace, params: Params, registry: Registry, write_evaluation: Judge
) -> None:
    _release_2_and_3(passed, params, write_evaluation)
    assert rollback.run(passed, by="ada", reason="r").version == "2"
    assert rollback.run(passed, by="ada", reason="r").version == "1"
    with pytest.raises(WorkspaceError, match="first champion"):
        rollback.run(passed, by="ada", reason="r")
    assert registry.alias("champion") == "1"


def test_a_run_of_airflow_that_is_cleared_rolls_nothing_back_again(
    passed: Workspace, params: Params, registry: Registry, write_evaluation: Judge
) -> None:
    _release_2_and_3(passed, params, write_evaluation)
    results = []
    for run_id in ("first", "first", "second", "first"):
        live = rollback.live(passed)  # as the task before asks anew
        results.append(rollback.run(passed, by="ada", reason="r", expected_champion=live, run_id=run_id))
    assert [(one.rolled_back, one.version, one.moved) for one in results] == [
        ("3", "2", True), ("3", "2", False), ("2", "1", True), ("3", "2", False),
    ]  # fmt: skip
    assert registry.alias("champion") == "1"


def _rollback(workspace: Workspace, *options: str) -> list[str]:
    command = ["rollback", "--by", "ada", "--reason", "r", *options]
    return [sys.executable, "-m", "violence_ops.cli", *command, "--workspace", str(workspace.root)]


def _waits_for_the_lock(pid: int) -> bool:
    return any(file.path.endswith("release.lock") for file in psutil.Process(pid).open_files())


@pytest.mark.slow
def test_two_people_who_roll_back_at_once_go_one_release_back(
    passed: Workspace, params: Params, registry: Registry, write_evaluation: Judge
) -> None:
    _release_2_and_3(passed, params, write_evaluation)
    with passed.lock("release"):
        racers = [subprocess.Popen(_rollback(passed), stdout=subprocess.PIPE, text=True) for _ in range(2)]
        while not all(_waits_for_the_lock(racer.pid) for racer in racers):
            assert all(racer.poll() is None for racer in racers)
            time.sleep(0.1)
    said = sorted(racer.communicate(timeout=300)[0] for racer in racers)
    assert [racer.returncode for racer in racers] == [0, 0]
    assert said == [
        "Version 2 is the champion again; version 3 is rolled back.\n",
        "Version 3 was rolled back to 2 already: nothing moved.\n",
    ]
    assert registry.alias("champion") == "2"


def test_a_rollback_that_names_its_version_is_refused_where_another_is_champion(
    passed: Workspace, registry: Registry
) -> None:
    done = subprocess.run(_rollback(passed, "--from", "3"), capture_output=True, text=True, check=False)
    assert (done.returncode, registry.alias("champion")) == (1, "1")
    assert done.stderr == "The champion is version 1, not 3: nothing was rolled back.\n"


def test_where_nothing_was_released_a_rollback_says_so(workspace: Workspace, params: Params) -> None:
    with pytest.raises(WorkspaceError, match="There is no champion"):
        rollback.run(workspace, by="ada", reason="r")


def test_a_rollback_after_a_crash_goes_one_step_only(
    passed: Workspace, params: Params, registry: Registry, write_evaluation: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    _release_2_and_3(passed, params, write_evaluation)
    with monkeypatch.context() as patch:
        _crash_at(patch, "after")
        with pytest.raises(KeyboardInterrupt):
            rollback.run(passed, by="ada", reason="r")
    assert rollback.run(passed, by="ada", reason="r").version == "2"
    assert registry.alias("champion") == "2"


def test_an_alias_moved_by_hand_is_noticed(passed: Workspace, params: Params, registry: Registry) -> None:
    promote.run(passed, params, approved_by="admin")
    registry.set_alias("champion", "3", "2")
    before = passed.ledger.read_bytes()
    for act in (
        lambda: rollback.run(passed, by="ada", reason="r"),
        lambda: promote.run(passed, params, approved_by="admin"),
        lambda: evaluate.run(passed, params, candidate="3"),
        lambda: score.run(passed, params),
        lambda: next(predict.run(passed, params, [passed.params_file])),
        lambda: shadow.start(passed, "3"),
        lambda: lineage.run(passed, "champion"),
        lambda: ledger_log.verify(passed),
    ):
        with pytest.raises(
            WorkspaceError, match=r"champion points to version 3 but the ledger's champion is 2: .* by hand"
        ):
            act()
    assert passed.ledger.read_bytes() == before
    seen = status.run(passed)
    assert (seen.champion, "by hand" in seen.problems[0]) == (None, True)
    assert any("by hand" in finding.remedy for finding in doctor.run(passed.root).findings if not finding.ok)

    command = ["ledger", "reinstate", "--by", "ada", "--workspace", str(passed.root)]
    done = subprocess.run(
        [sys.executable, "-m", "violence_ops.cli", *command], capture_output=True, text=True, check=False
    )
    assert done.stdout == "MLflow's alias champion points to version 2 again, no more to version 3.\n", done.stderr
    assert (registry.alias("champion"), releases.champion(passed)) == ("2", "2")
    assert "ada  reinstatement  alias put back from 3 to 2" in ledger_log.show(passed).lines()[-1]
    assert ledger_log.verify(passed).champion == status.run(passed).champion == "2"
    assert rollback.run(passed, by="ada", reason="r").version == "1"


def test_an_alias_that_is_where_the_ledger_says_needs_no_line(passed: Workspace, params: Params) -> None:
    before = passed.ledger.read_bytes()
    assert "nothing to put back" in reinstate.run(passed, by="ada").lines()[0]
    assert passed.ledger.read_bytes() == before


def test_a_rollback_that_a_crash_cut_off_is_not_undone_by_the_approval_of_before(
    passed: Workspace, params: Params, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote.run(passed, params, approved_by="admin")
    with monkeypatch.context() as patch:
        _crash_at(patch, "after")
        with pytest.raises(KeyboardInterrupt):
            rollback.run(passed, by="ada", reason="false alarms")
    with pytest.raises(RefusedByGate, match="rolled back"):
        promote.run(passed, params, approved_by="admin")
    assert registry.alias("champion") == ledger_log.verify(passed).champion == "1"


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_release_that_a_crash_left_half_done_is_no_alias_moved_by_hand(
    passed: Workspace, params: Params, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    with monkeypatch.context() as patch:
        _crash_at(patch, where)
        with pytest.raises(KeyboardInterrupt):
            promote.run(passed, params, approved_by="admin")
    assert releases.champion(passed) == {"before": "1", "after": "2"}[where]


@pytest.mark.parametrize(("by", "reason"), [("", "r"), ("ada", " ")], ids=["nobody", "no-reason"])
def test_a_rollback_names_a_person_and_a_reason(passed: Workspace, params: Params, by: str, reason: str) -> None:
    with pytest.raises(UsageError):
        rollback.run(passed, by=by, reason=reason)


def test_the_history_reads_like_a_log(passed: Workspace, params: Params) -> None:
    promote.run(passed, params, approved_by="admin")
    rollback.run(passed, by="ada", reason="false alarms")
    lines = ledger_log.show(passed).lines()
    assert "ada  rollback  champion 2 to 1, done: false alarms" in lines[-1]
    assert ledger_log.verify(passed).entries == len(lines)


def test_a_reason_cannot_look_like_further_lines_of_the_ledger(passed: Workspace, params: Params) -> None:
    reason = "worse\n   9  2026-11-22T08:00:00+00:00  release-manager  approval  2-vs-1\x1b[8m"
    approval.refuse(passed, params, by="admin", reason=reason)
    shown = ledger_log.show(passed).lines()
    assert len(shown) == len(ledger.read(passed))
    assert ledger.read(passed)[-1].payload["reason"] == reason
    subject = subprocess.run(
        ["git", "log", "-1", "--format=%B"], cwd=passed.root, capture_output=True, text=True, check=True
    ).stdout.strip()
    for line in (shown[-1], subject):
        assert line.isprintable()
        assert r"worse\x0a   9" in line
    with pytest.raises(RefusedByGate) as refused:
        promote.run(passed, params, approved_by="release-manager")
    assert str(refused.value).isprintable()
