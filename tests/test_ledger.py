"""The ledger keeps who released what, and says so when somebody changed it."""

import hashlib
import json
import multiprocessing
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from violence_ops import ledger
from violence_ops.workspace import Workspace

VERDICT = {"report": "1-vs-none", "digest": "d1", "candidate": "1", "verdict": "pass", "mode": "enabled", "reasons": []}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def _fill(workspace: Workspace, count: int) -> None:
    for number in range(count):
        ledger.append(workspace, actor="ada", event="verdict", payload=VERDICT | {"candidate": str(number)})


def test_what_was_appended_is_read_back_in_order(workspace: Workspace) -> None:
    ledger.append(workspace, actor="ada", event="approval", payload={"report": "schön\nzwei Zeilen"})
    ledger.append(workspace, actor="gate", event="verdict", payload=VERDICT)
    entries = ledger.read(workspace)
    assert [(entry.seq, entry.actor, entry.event) for entry in entries] == [
        (1, "ada", "approval"),
        (2, "gate", "verdict"),
    ]
    assert entries[0].payload["report"] == "schön\nzwei Zeilen"
    assert entries[1].prev_hash == entries[0].hash
    assert ledger.verify(workspace) == []


def test_an_empty_ledger_is_sound(workspace: Workspace) -> None:
    assert ledger.read(workspace) == []


@pytest.mark.parametrize(
    ("mutilate", "line"),
    [
        pytest.param(lambda lines: [lines[0], lines[1].replace("ada", "eve"), lines[2]], 2, id="changed"),
        pytest.param(lambda lines: [lines[0], lines[2]], 2, id="removed"),
        pytest.param(lambda lines: [lines[0], lines[2], lines[1]], 2, id="swapped"),
        pytest.param(lambda lines: [lines[1], lines[2]], 1, id="first-removed"),
        pytest.param(lambda lines: [*lines, "not json"], 4, id="garbage"),
    ],
)
def test_a_broken_chain_is_named_by_its_line_and_refuses_more(workspace: Workspace, mutilate, line: int) -> None:  # type: ignore[no-untyped-def]
    _fill(workspace, 3)
    lines = workspace.ledger.read_text("utf-8").splitlines()
    broken = "\n".join(mutilate(lines)) + "\n"
    workspace.ledger.write_text(broken, "utf-8")
    with pytest.raises(ledger.LedgerBroken, match=rf"releases/ledger.jsonl line {line} "):
        ledger.append(workspace, actor="ada", event="verdict", payload={})
    assert workspace.ledger.read_text("utf-8") == broken


def _hashed(line: dict[str, Any]) -> dict[str, Any]:
    """The line with the hash that it should have."""
    body = {key: value for key, value in line.items() if key != "hash"}
    return body | {"hash": hashlib.sha256(ledger.canonical(body)).hexdigest()}


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param({"event": "promotion", "payload": {"to": "2"}}, id="promotion-without-phase"),
        pytest.param({"event": "rollback", "payload": {"to": "2", "phase": "done"}}, id="rollback-from-nowhere"),
        pytest.param({"event": "reinstatement", "payload": {}}, id="reinstatement-of-nothing"),
        pytest.param({"event": "verdict", "payload": {"report": "1-vs-none"}}, id="verdict-without-verdict"),
        pytest.param({"event": "refusal", "payload": {"report": "1-vs-none"}}, id="refusal-without-reason"),
        pytest.param({"event": "coup", "payload": {"to": "2"}}, id="unknown-event"),
        pytest.param({"payload": ["1"]}, id="payload-is-a-list"),
    ],
)
def test_a_line_that_says_too_little_of_its_event_is_no_entry_whatever_its_hash(
    workspace: Workspace, forged: dict[str, Any]
) -> None:
    _fill(workspace, 1)
    line = _hashed(json.loads(workspace.ledger.read_text("utf-8")) | forged)
    workspace.ledger.write_text(json.dumps(line) + "\n", "utf-8")
    (problem,) = ledger.verify(workspace)
    assert "line 1 is no ledger entry: restore the file from git" in problem


def test_a_line_with_a_character_that_cannot_be_written_is_no_entry(workspace: Workspace) -> None:
    _fill(workspace, 1)
    workspace.ledger.write_text(workspace.ledger.read_text("utf-8").replace("ada", "\\ud800"), "utf-8")
    assert "line 1 is no ledger entry" in ledger.verify(workspace)[0]


def test_a_rehashed_forgery_still_breaks_the_next_link(workspace: Workspace) -> None:
    _fill(workspace, 2)
    first, second = map(json.loads, workspace.ledger.read_text("utf-8").splitlines())
    first = _hashed(first | {"payload": VERDICT | {"candidate": "forged"}})
    workspace.ledger.write_text(json.dumps(first) + "\n" + json.dumps(second) + "\n", "utf-8")
    assert "line 2 does not continue" in ledger.verify(workspace)[0]


@given(kept=st.integers(min_value=1, max_value=200))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_torn_last_line_is_refused_with_its_remedy(workspace: Workspace, kept: int) -> None:
    workspace.ledger.unlink(missing_ok=True)
    _fill(workspace, 2)
    whole = workspace.ledger.read_bytes()
    first = whole.index(b"\n") + 1
    workspace.ledger.write_bytes(whole[: min(first + kept, len(whole) - 1)])
    with pytest.raises(ledger.LedgerBroken, match=r"line 2 is cut off.*delete that last line"):
        ledger.read(workspace)
    workspace.ledger.write_bytes(whole[:first])
    assert len(ledger.read(workspace)) == 1


def test_two_processes_append_at_once_without_losing_a_line(workspace: Workspace) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_fill, args=(workspace, 20)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(ledger.read(workspace)) == 60


def test_a_full_disk_leaves_no_half_line(workspace: Workspace) -> None:
    ledger.append(workspace, actor="gate", event="verdict", payload=VERDICT)
    before = workspace.ledger.read_bytes()
    ignored, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (len(before) + 100, limits[1])
    )  # as on a full disk, a part of a write lands
    try:
        with pytest.raises(OSError, match="No space left"):
            ledger.append(workspace, actor="gate", event="verdict", payload=VERDICT | {"report": "2-vs-1"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert workspace.ledger.read_bytes() == before
    ledger.append(workspace, actor="gate", event="verdict", payload=VERDICT | {"report": "2-vs-1"})
    assert [entry.payload["report"] for entry in ledger.read(workspace)] == ["1-vs-none", "2-vs-1"]
