import os
from pathlib import Path

import pytest

from violence_ops.errors import UserError
from violence_ops.stages.workers import outcomes, worker_count

TASKS = """
import os, pathlib, signal, time
from violence_ops.errors import UserError

def work(common, item):
    mark = pathlib.Path(common["folder"]) / item
    if item == "hangs":
        time.sleep(60)
    if item == "dies" or (item == "dies once" and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "refuses":
        raise UserError("no such thing: mend it.")
    if item == "is wrong":
        raise ZeroDivisionError
    print("noise on stdout")
    return {"item": item, "pid": os.getpid()}
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "tasks_of_this_test.py").write_text(TASKS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    def run(*items: str, workers: int = 2):
        target = "tasks_of_this_test:work"
        return {
            found.item: found
            for found in outcomes(target, {"folder": str(tmp_path)}, dict.fromkeys(items, 2.0), workers=workers)
        }

    return run


def test_one_that_hangs_and_one_that_dies_do_not_harm_the_others(work):
    found = work("a", "hangs", "b", "dies", "c", "dies once")
    assert {item: outcome.failure for item, outcome in found.items()} == {
        "a": None, "b": None, "c": None, "hangs": "timeout", "dies": "killed", "dies once": None,
    }  # fmt: skip
    assert found["c"].value["item"] == "c"


def test_a_child_works_on_many_items_and_is_gone_afterwards(work):
    pids = {outcome.value["pid"] for outcome in work(*"abcdef", workers=1).values()}
    assert len(pids) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(pids.pop(), 0)


def test_a_refusal_is_passed_on_as_it_is(work):
    with pytest.raises(UserError, match="no such thing: mend it"):
        work("refuses")


def test_a_defect_of_the_program_is_not_taken_for_a_bad_item(work, capfd):
    with pytest.raises(RuntimeError, match="failed on is wrong"):
        work("is wrong")
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_no_more_processes_than_there_is_work_for():
    assert worker_count(8, 3) == 3
    assert worker_count(0, 1) == 1
    assert 1 <= worker_count(0, 1000) <= len(os.sched_getaffinity(0))
