"""Airflow and MLflow of a workspace: the passwords go to them and to no program that was faster to take their port."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from violence_ops import processes, services
from violence_ops.errors import ServiceUnavailable
from violence_ops.files import write_json
from violence_ops.stages.upkeep import services as stage
from violence_ops.workspace import Workspace

LISTENS = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); time.sleep(99)"
IN_A_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LISTENS!r}])"


class Impostor(http.server.HTTPServer):
    """Says that it is well, and keeps what is sent to it."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Answer)
        self.got: list[bytes] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(http.server.BaseHTTPRequestHandler):
    server: Impostor

    def log_message(self, *_: object) -> None:
        """No noise."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"scheduler": {"status": "healthy"}}')

    def do_POST(self) -> None:
        self.server.got.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(500)
        self.end_headers()


@pytest.fixture
def squat() -> Iterator[Callable[..., Impostor]]:
    """Let another program listen at a port, or at any."""
    taken: list[Impostor] = []

    def listen(port: int = 0) -> Impostor:
        taken.append(Impostor(port))
        return taken[-1]

    yield listen
    for one in taken:
        one.shutdown()
        one.server_close()


@pytest.mark.parametrize(
    ("does", "says"),
    [("", "ended while starting"), ("import time; time.sleep(99)", "in vain")],
    ids=["ended", "silent"],
)
def test_a_program_that_takes_the_ports_while_airflow_starts_gets_no_password(
    workspace: Workspace, squat: Callable[..., Impostor], monkeypatch: pytest.MonkeyPatch, does: str, says: str
) -> None:
    impostors: list[Impostor] = []

    def migrate(_: Workspace, environment: dict[str, str]) -> None:
        for key in ("AIRFLOW__API__PORT", "VIOLENCE_OPS_MLFLOW_URI"):
            impostors.append(squat(int(environment[key].rpartition(":")[2])))

    real = processes.start
    monkeypatch.setattr(services, "_START_LIMIT_S", 2.0)
    monkeypatch.setattr(services, "make_database", migrate)
    monkeypatch.setattr(
        processes, "start", lambda folder, name, _, env: real(folder, name, [sys.executable, "-c", does], env)
    )
    with pytest.raises(ServiceUnavailable, match=says):
        services.up(workspace, airflow_port=0, mlflow_port=0)
    assert [one.got for one in impostors] == [[], []]


def test_every_approver_has_a_password_of_their_own_and_keeps_it(new_workspace: Callable[..., Workspace]) -> None:
    def signs_in(workspace: Workspace) -> dict[str, str]:
        given = services._secret(workspace, "passwords.json", tuple(services.users(workspace)))
        assert services.password_file(workspace).stat().st_mode & 0o077 == 0
        assert json.loads(services.password_file(workspace).read_text()) == given
        return given

    first = new_workspace("one", **{"gate.approvers": ["ann", "bo@site.example"]})
    assert services.users(first) == {"ann": "op", "bo@site.example": "op", "admin": "admin"}
    before = signs_in(first)
    assert len(set(before.values())) == 3
    params = first.params_file.read_text()
    first.params_file.write_text(params.replace("bo@site.example", "cy"))
    after = signs_in(first)
    assert {name: after[name] for name in ("ann", "admin")} == {name: before[name] for name in ("ann", "admin")}
    assert after["cy"] not in before.values()


@pytest.mark.parametrize("name", ["ann:admin", "ann,eve", "Ada Lovelace", ""])
def test_a_name_that_airflow_would_read_as_something_else_approves_on_the_command_line_alone(
    new_workspace: Callable[..., Workspace], name: str
) -> None:
    assert services.users(new_workspace("one", **{"gate.approvers": [name]})) == {"admin": "admin"}


def started(workspace: Workspace, program: str) -> int:
    """Start it as the API server; the port that it says."""
    processes.start(workspace.services, "api-server", [sys.executable, "-c", program], {})
    while not (said := (workspace.services / "api-server.log").read_text().strip()):
        time.sleep(0.05)
    return int(said)


@pytest.mark.parametrize("program", [LISTENS, IN_A_CHILD], ids=["itself", "child"])
def test_who_listens_is_told_by_its_process(workspace: Workspace, squat: Callable[..., Impostor], program: str) -> None:
    password = {"admin": "s3cret"}
    try:
        address = f"http://127.0.0.1:{started(workspace, program)}"
        services.password_file(workspace).write_text(json.dumps(password))
        workspace.service_addresses.write_text(json.dumps({"airflow": address, "mlflow": ""}))
        assert services.api(workspace).address == address
        workspace.service_addresses.write_text(json.dumps({"airflow": squat().address, "mlflow": ""}))
        with pytest.raises(ServiceUnavailable, match="violence-ops up"):
            services.api(workspace)
    finally:
        services.down(workspace)


def test_an_address_that_a_dead_airflow_left_gets_no_password(
    workspace: Workspace, squat: Callable[..., Impostor]
) -> None:
    """As after a restart of the machine."""
    workspace.services.mkdir(exist_ok=True)
    services.password_file(workspace).write_text(json.dumps({"admin": "s3cret"}))
    workspace.service_addresses.write_text(json.dumps({"airflow": squat().address, "mlflow": ""}))
    with pytest.raises(ServiceUnavailable, match="is not running"):
        services.api(workspace)


def airflow(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "violence_ops.cli", "airflow", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def test_airflows_help_needs_no_workspace_and_other_commands_do(tmp_path: Path) -> None:
    done = airflow("dags", "list", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: airflow dags list")
    refused = airflow("dags", "list", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"{tmp_path} is not a workspace")


@pytest.mark.slow
def test_a_list_of_airflows_is_that_list_alone_and_what_really_fails_is_said(workspace: Workspace) -> None:
    write_json(workspace.service_addresses, {"airflow": "http://127.0.0.1:1", "mlflow": workspace.mlflow_database})
    services.make_database(workspace, stage.airflow_environment(workspace))
    found = airflow("dags", "list", "--output", "json", cwd=workspace.root)
    assert json.loads(found.stdout) == []
    refused = airflow("dags", "show-dependencies", cwd=workspace.root)
    assert refused.returncode == 1
    assert refused.stderr.rstrip().endswith("Install the graphviz python package to fix this error.")
