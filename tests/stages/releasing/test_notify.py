"""Another system learns of every change of champion, signed, once, and cannot stop a release."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from violence_ops import webhook
from violence_ops.errors import UsageError
from violence_ops.params import Params
from violence_ops.registry import Registry
from violence_ops.stages.releasing import gate, ledger_log, notify, promote, rollback
from violence_ops.workspace import Workspace

Judge = Callable[..., str]
SECRET = "s3cret-of-the-receiver"


class _Server(HTTPServer):
    """A real receiver: keeps what came, and answers with the next of `answers` (200 when there is none)."""

    received: list[tuple[dict[str, str], bytes]]
    answers: list[int]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(({key.lower(): value for key, value in self.headers.items()}, body))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.received, server.answers = [], []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("VIOLENCE_OPS_WEBHOOK_URL", f"http://127.0.0.1:{server.server_port}/releases?token=t0ken")
    monkeypatch.setenv("VIOLENCE_OPS_WEBHOOK_SECRET", SECRET)
    monkeypatch.setattr(webhook, "PAUSES_S", (0.0, 0.0, 0.0))
    yield server
    server.shutdown()
    server.server_close()


def _release(workspace: Workspace, params: Params, report: str) -> promote.PromoteResult:
    gate.run(workspace, params, report=report)
    return promote.run(workspace, params, report=report, approved_by="admin")


def test_a_release_and_a_rollback_are_each_told_once_and_signed(
    released: Workspace, params: Params, write_evaluation: Judge, receiver: _Server
) -> None:
    workspace = Workspace(released.root)
    _release(workspace, params, write_evaluation("1"))
    _release(workspace, params, write_evaluation("2", "1"))
    promote.run(workspace, params, approved_by="admin")  # a second time: nothing moves, nothing is told
    rollback.run(workspace, by="ada", reason="false alarms at the door")
    told = [json.loads(body) for _, body in receiver.received]
    assert [(one["event"], one["from"], one["to"], one["by"]) for one in told] == [
        ("promotion", None, "1", "admin"),
        ("promotion", "1", "2", "admin"),
        ("rollback", "2", "1", "ada"),
    ]
    assert told[1]["report"] == "2-vs-1"
    assert told[2]["reason"] == "false alarms at the door"
    for headers, body in receiver.received:
        wanted = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        assert headers["x-violence-ops-signature"] == f"sha256={wanted}"
    assert len({headers["x-violence-ops-delivery"] for headers, _ in receiver.received}) == 3


def test_a_receiver_that_is_down_stops_no_release_and_is_told_later(
    released: Workspace, params: Params, registry: Registry, write_evaluation: Judge, receiver: _Server
) -> None:
    workspace = Workspace(released.root)
    receiver.answers = [500, 503, 429, 502]
    result = _release(workspace, params, write_evaluation("1"))
    assert (registry.alias("champion"), result.moved) == ("1", True)
    assert len(receiver.received) == 4
    said = "\n".join(result.lines())
    assert "ledger notify" in said
    everywhere = said + workspace.ledger.read_text() + workspace.told("webhook").read_text()
    log = subprocess.run(["git", "log", "-p"], cwd=workspace.root, capture_output=True, text=True, check=True).stdout
    assert not {one for one in (SECRET, "t0ken") if one in everywhere + log + repr(workspace.deployment)}
    assert notify.run(workspace).told == {"webhook": [4]}
    assert json.loads(receiver.received[-1][1])["to"] == "1"
    assert notify.run(workspace).told == {"webhook": []}


@pytest.mark.parametrize("answer", [404, 302], ids=["gone", "redirect"])
def test_what_a_retry_cannot_mend_is_tried_once_and_a_redirect_is_not_followed(
    released: Workspace, params: Params, write_evaluation: Judge, receiver: _Server, answer: int
) -> None:
    receiver.answers = [answer]
    result = _release(Workspace(released.root), params, write_evaluation("1"))
    assert f"status {answer}" in (result.untold or "")
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    ("url", "secret", "says"),
    [("https://example.org/x", "", "WEBHOOK_SECRET"), ("ftp://example.org", SECRET, "no address"), ("nonsense", SECRET, "no address")],
    ids=["unsigned", "ftp", "nonsense"],
)  # fmt: skip
def test_a_webhook_that_is_set_up_wrongly_is_said_before_anything_moves(
    released: Workspace, params: Params, registry: Registry, write_evaluation: Judge, monkeypatch: pytest.MonkeyPatch,
    url: str, secret: str, says: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("VIOLENCE_OPS_WEBHOOK_URL", url)
    monkeypatch.setenv("VIOLENCE_OPS_WEBHOOK_SECRET", secret)
    with pytest.raises(UsageError, match=says):
        _release(Workspace(released.root), params, write_evaluation("1"))
    assert registry.alias("champion") is None


def test_an_answer_without_an_end_is_taken_at_its_status() -> None:
    """A receiver does not decide how long a release takes."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nx")
                over.wait()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            webhook.Webhook(f"http://127.0.0.1:{listening.getsockname()[1]}/", SECRET).deliver("1", b"{}")
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize("written", ["https://[t0ken", "https://h:t0ken/", "https://h:99999/t0ken", "https:///t0ken"])
def test_an_address_that_is_none_is_refused_by_its_variable_without_being_shown(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setenv("VIOLENCE_OPS_WEBHOOK_URL", written)
    monkeypatch.setenv("VIOLENCE_OPS_WEBHOOK_SECRET", SECRET)
    with pytest.raises(UsageError, match="VIOLENCE_OPS_WEBHOOK_URL is no address") as refusal:
        notify.receivers(Workspace(workspace.root))
    assert "t0ken" not in str(refusal.value)


@pytest.mark.parametrize(
    ("variable", "value", "fault"),
    [
        ("ALL_PROXY", "socks5://me:t0ken@127.0.0.1:1080", "ImportError"),
        ("ALL_PROXY", "ftp://me:t0ken@proxy", "ValueError"),
        ("SSL_CERT_FILE", "/no/t0ken.pem", "FileNotFoundError"),
    ],
    ids=["socks", "ftp", "certificates"],
)
def test_a_proxy_or_certificates_that_cannot_be_used_stop_no_release_and_are_said(
    released: Workspace, params: Params, registry: Registry, write_evaluation: Judge, receiver: _Server,
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, fault: str,
) -> None:  # fmt: skip
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    workspace = Workspace(released.root)
    with monkeypatch.context() as patch:
        patch.setenv(variable, value)
        result = _release(workspace, params, write_evaluation("1"))
        assert (registry.alias("champion"), result.moved) == ("1", True)
        assert f"did not take the change of champion ({fault}, by the environment's proxy" in (result.untold or "")
        assert fault in notify.state(workspace)["webhook"]
        assert "t0ken" not in (result.untold or "") + workspace.told("webhook").read_text()
        assert ledger_log.verify(workspace).champion == "1"
    assert receiver.received == []
    assert notify.run(workspace).told == {"webhook": [4]}


def test_what_was_told_and_cannot_be_written_down_stops_no_release_and_is_said(
    released: Workspace, params: Params, registry: Registry, write_evaluation: Judge, receiver: _Server
) -> None:
    workspace = Workspace(released.root)
    workspace.told("webhook").mkdir(parents=True)  # as unwritable as on a full disk
    result = _release(workspace, params, write_evaluation("1"))
    assert (registry.alias("champion"), result.moved) == ("1", True)
    assert "What the webhook was told cannot be written down (Is a directory)" in (result.untold or "")
    workspace.told("webhook").rmdir()
    assert notify.run(workspace).told == {"webhook": [4]}
    assert len(receiver.received) == 1
