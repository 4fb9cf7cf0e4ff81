import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from violence_ops.capacity import free_memory, free_processors
from violence_ops.errors import UserError
from violence_ops.workers import outcomes, worker_count

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
    if item == "dies in company":
        company = mark.with_name("company")
        while not mark.exists() and not company.exists():
            time.sleep(0.01)
        mark.touch()
        if company.exists():
            os.kill(os.getpid(), signal.SIGKILL)
    if item == "company":
        mark.touch()
        time.sleep(2)
        mark.unlink()
    if item == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "refuses":
        raise UserError("no such thing: mend it.")
    if item == "is wrong":
        raise ZeroDivisionError
    print("noise on stdout")
    return {"item": item, "pid": os.getpid()}
"""


@pytest.fixture
def work_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "tasks_of_this_test.py").write_text(TASKS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    def run(limits_s: dict[str, float], workers: int):
        return outcomes("tasks_of_this_test:work", {"folder": str(tmp_path)}, limits_s, workers=workers)

    return run


@pytest.fixture
def work(work_on):
    def run(*items: str, workers: int = 2):
        return {
            found.item: found for found in work_on({item: 2.0 if item == "hangs" else 60.0 for item in items}, workers)
        }

    return run


def test_one_that_hangs_and_one_that_dies_do_not_harm_the_others(work):
    found = work("a", "hangs", "b", "dies", "c", "dies once", "crashes")
    assert {item: outcome.failure for item, outcome in found.items()} == {
        "a": None, "b": None, "c": None, "hangs": "timeout", "dies": "killed", "dies once": None, "crashes": "crashed",
    }  # fmt: skip
    assert found["c"].value["item"] == "c"


def test_one_that_dies_beside_others_is_tried_again_when_they_are_done(work):
    found = work("dies in company", "company")
    assert {item: outcome.failure for item, outcome in found.items()} == {"company": None, "dies in company": None}
    assert list(found) == ["company", "dies in company"]


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


def test_no_more_processes_than_memory_has_room_for(monkeypatch):
    monkeypatch.setattr("violence_ops.workers.free_memory", lambda: 10 << 30)
    monkeypatch.setattr("violence_ops.workers.free_processors", lambda: 16)
    assert [worker_count(0, 1000, memory << 30) for memory in (1, 4, 20)] == [10, 2, 1]


def test_a_few_long_clips_are_worked_on_at_once_and_a_few_short_ones_are_not(monkeypatch):
    monkeypatch.setattr("violence_ops.workers.free_memory", lambda: 64 << 30)
    monkeypatch.setattr("violence_ops.workers.free_processors", lambda: 16)
    assert [worker_count(0, items, seconds=2.0 * items) for items in (1, 7, 8, 40)] == [1, 1, 2, 10]
    assert [worker_count(0, items, seconds=3600.0 * items) for items in (1, 2, 7, 40)] == [1, 2, 7, 16]
    assert worker_count(3, 7, seconds=7 * 3600.0) == 3


def test_a_container_s_limits_are_kept_to(tmp_path):
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text(f"{3 << 30}\n")
    (tmp_path / "memory.current").write_text(f"{1 << 30}\n")
    assert free_processors(tmp_path) == 1
    assert 0 < free_memory(tmp_path) <= 2 << 30
    for name in ("cpu.max", "memory.max"):
        (tmp_path / name).write_text("max 100000\n" if name == "cpu.max" else "max\n")
    assert 1 <= free_processors(tmp_path) <= len(os.sched_getaffinity(0))
    assert free_memory(tmp_path) > 0


def test_files_that_a_container_has_read_take_no_memory_from_further_processes(tmp_path, monkeypatch):
    memory = type("Memory", (), {"available": 64 << 30})
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    (tmp_path / "memory.max").write_text(f"{8 << 30}\n")
    (tmp_path / "memory.current").write_text(f"{7 << 30}\n")
    stat = {
        "anon": 1 << 30,
        "file": 5 << 30,
        "inactive_file": 3 << 30,
        "active_file": 1 << 30,
        "slab_reclaimable": 1 << 30,
    }
    (tmp_path / "memory.stat").write_text("".join(f"{name} {size}\n" for name, size in stat.items()))
    assert free_memory(tmp_path) == 6 << 30
    (tmp_path / "memory.stat").write_text(f"anon {7 << 30}\n")
    assert free_memory(tmp_path) == 1 << 30


def test_processors_that_others_use_are_not_free():
    processors = len(os.sched_getaffinity(0))
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * processors)]
    try:
        time.sleep(0.5)
        assert free_processors() == 1
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_each_item_has_a_limit_of_its_own(work_on):
    found = {one.item: one.failure for one in work_on({"a": 30.0, "hangs": 0.5}, workers=1)}
    assert found == {"a": None, "hangs": "timeout"}
