"""Operators learn of a task that failed for good, by a webhook or a program, and Airflow never suffers from it."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-home-"))

from violence_ops import webhook
from violence_ops.errors import ServiceUnavailable
from violence_ops.stages.upkeep import doctor
from violence_ops.workspace import Workspace

SECRET = "s3cret-of-the-pager"
BATCH = "2026-01-31-0a1b2c3d"


@pytest.fixture
def inside(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace that is the one of this process's environment, as in a task."""
    from violence_ops import orchestration

    monkeypatch.setenv("VIOLENCE_OPS_WORKSPACE", str(workspace.root))
    monkeypatch.setattr(webhook, "PAUSES_S", ())
    orchestration.params.cache_clear()
    yield workspace
    orchestration.params.cache_clear()  # of this workspace


@pytest.fixture
def posted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[dict[str, str], bytes]]]:
    """What a real HTTP server, the webhook of alerts, was sent."""
    received: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(({key.lower(): value for key, value in self.headers.items()}, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("VIOLENCE_OPS_ALERT_WEBHOOK_URL", f"http://127.0.0.1:{server.server_port}/pager?token=t0ken")
    monkeypatch.setenv("VIOLENCE_OPS_ALERT_WEBHOOK_SECRET", SECRET)
    yield received
    server.shutdown()
    server.server_close()


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file to which a program, the command hook of alerts, writes what it is told."""
    program, taken = tmp_path / "page", tmp_path / "taken.jsonl"
    program.write_text(f"#!{sys.executable}\nimport sys\nopen({str(taken)!r}, 'a').write(sys.stdin.read())\n")
    program.chmod(0o755)
    monkeypatch.setenv("VIOLENCE_OPS_ALERT_HOOK_COMMAND", json.dumps([str(program)]))
    return taken


def _context(error: BaseException | None, **op_kwargs: Any) -> dict[str, Any]:
    task = SimpleNamespace(dag_id="nightly_ingestion", task_id="seal", run_id="manual__1", map_index=3, try_number=8)
    return {"ti": task, "task": SimpleNamespace(op_kwargs=op_kwargs)} | ({"exception": error} if error else {})


def _fails_for_good(context: dict[str, Any]) -> None:
    """What Airflow calls of a task that is not tried again."""
    from violence_ops.orchestration import default_args

    for callback in default_args()["on_failure_callback"]:
        callback(context)


def test_webhook_and_program_are_told_what_failed_where_and_why_signed_and_once(
    inside: Workspace, posted: list[tuple[dict[str, str], bytes]], page: Path
) -> None:
    _fails_for_good(_context(ServiceUnavailable("MLflow is away: start it."), batch_id=BATCH))
    ((headers, body),) = posted
    told = json.loads(body)
    assert told.pop("at")
    assert told == {
        "event": "task_failed", "workspace": str(inside.root), "dag": "nightly_ingestion", "task": "seal", "run": "manual__1",
        "map_index": 3, "batch_id": BATCH, "clips": None, "tries": 8, "error": "MLflow is away: start it.",
    }  # fmt: skip
    assert (
        headers["x-violence-ops-signature"] == f"sha256={hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}"
    )
    assert headers["x-violence-ops-delivery"]
    (line,) = page.read_text().splitlines()
    assert json.loads(line) == json.loads(body)


def test_a_try_that_is_followed_by_another_tells_nobody(
    inside: Workspace, posted: list[tuple[dict[str, str], bytes]], page: Path
) -> None:
    from violence_ops.orchestration import default_args

    default_args()["on_retry_callback"](_context(ServiceUnavailable("MLflow is away.")))
    assert not posted
    assert not page.exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no such thing\udcff"), "ValueError: no such thing\udcff"),
        (OSError("at postgresql://user:s3cret@db/catalog"), "OSError: at postgresql://db/catalog"),
        (None, "Its process ended without an error of its own"),
    ],
    ids=["unforeseen", "with a password", "killed"],
)
def test_a_failure_of_any_kind_is_told_and_no_password_with_it(
    inside: Workspace, page: Path, error: BaseException | None, said: str
) -> None:
    shard = {"batch_id": BATCH, "clip_ids": ["a" * 20, "b" * 20]}
    _fails_for_good(_context(error, shard=shard))
    told = json.loads(page.read_text())
    assert told["error"].startswith(said)
    assert (told["batch_id"], told["clips"]) == (BATCH, 2)


def test_a_run_that_failed_is_told_of_for_a_task_that_was_killed_tells_nothing(inside: Workspace, page: Path) -> None:
    from violence_ops.orchestration import alert_of_run

    alert_of_run({"dag": SimpleNamespace(dag_id="retraining"), "run_id": "manual__1", "reason": "task_failure"})
    told = json.loads(page.read_text())
    assert (told["event"], told["dag"], told["run"], told["task"]) == ("run_failed", "retraining", "manual__1", None)
    assert "task_failure" in told["error"]


def test_what_the_dag_processor_knows_of_a_task_that_died_is_enough(inside: Workspace, page: Path) -> None:
    """Its arguments are not rendered there: what they will be, and nothing that can be looked into."""
    _fails_for_good(_context(None, shard=object(), batch_id=object()))
    _fails_for_good(_context(None) | {"task": None})
    told = [json.loads(line) for line in page.read_text().splitlines()]
    assert [(one["task"], one["batch_id"], one["clips"]) for one in told] == [("seal", None, None)] * 2


def test_a_receiver_that_is_down_keeps_no_other_from_being_told_and_is_in_the_log(
    inside: Workspace, page: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VIOLENCE_OPS_ALERT_WEBHOOK_URL", "http://127.0.0.1:9/t0ken")
    monkeypatch.setenv("VIOLENCE_OPS_ALERT_WEBHOOK_SECRET", SECRET)
    with caplog.at_level(logging.INFO):
        _fails_for_good(_context(ValueError("why")))
    assert len(page.read_text().splitlines()) == 1
    assert any("The webhook at 127.0.0.1 did not take the failure" in line for line in caplog.messages)
    assert not [secret for secret in ("t0ken", SECRET) if secret in caplog.text]


@pytest.mark.parametrize(
    ("setting", "value", "fault"),
    [
        ("HOOK_COMMAND", "page me", "VIOLENCE_OPS_ALERT_HOOK_COMMAND"),
        ("WEBHOOK_URL", "https://pager.example/x", "VIOLENCE_OPS_ALERT_WEBHOOK_SECRET"),
    ],
)
def test_one_that_is_set_up_wrongly_is_a_fault_for_doctor_and_a_line_in_the_log_of_the_task(
    inside: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, setting: str, value: str,
    fault: str,
) -> None:  # fmt: skip
    monkeypatch.setenv(f"VIOLENCE_OPS_ALERT_{setting}", value)
    (found,) = [one for one in doctor.run(inside.root).findings if one.what == "told of failures"]
    assert not found.ok
    assert fault in found.remedy
    _fails_for_good(_context(ValueError("why")))
    assert any("Nobody was told" in line and fault in line for line in caplog.messages)


def test_doctor_says_who_is_told_of_failures(inside: Workspace, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> list[str]:
        return [one.found for one in doctor.run(inside.root).findings if one.what == "told of failures"]

    assert told() == ["hook"]
    monkeypatch.delenv("VIOLENCE_OPS_ALERT_HOOK_COMMAND")
    assert told() == ["nobody"]


def test_without_a_workspace_the_log_says_that_nobody_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from violence_ops.orchestration import alert_operators

    monkeypatch.setenv("VIOLENCE_OPS_WORKSPACE", str(tmp_path / "gone"))
    alert_operators(_context(ValueError("why")))
    assert any("Nobody was told" in line for line in caplog.messages)
