"""MLflow as `violence-ops up` starts it: other users of the machine may look, and change nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from violence_ops import services
from violence_ops.registry import EXPERIMENT, Registry
from violence_ops.registry_server import user_of
from violence_ops.workspace import Workspace

ASK = """
import http.client, os, sys
"".encode("idna")
os.setuid(int(sys.argv[1]))
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[2]))
connection.request(sys.argv[3], sys.argv[4], sys.stdin.buffer.read(), {"content-type": "application/json"})
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"""
NOBODY = 65534
API = "/api/2.0/mlflow"


@pytest.fixture
def mlflow(workspace: Workspace) -> Iterator[str]:
    """The address of a workspace's own MLflow, which runs."""
    workspace.services.mkdir(exist_ok=True)
    addresses = services.Addresses("", f"http://{services.HOST}:{services._free_port(0)}")
    try:
        services._start_mlflow(workspace, addresses)
        services._await(workspace, "MLflow", lambda: httpx.get(f"{addresses.mlflow}/health").is_success)
        yield addresses.mlflow
    finally:
        services.down(workspace)


@pytest.fixture
def ask(mlflow: str) -> Callable[..., tuple[int, str]]:
    """Ask MLflow as another user; the status and the text of its answer."""
    if os.geteuid():
        pytest.skip("only root can be another user")

    def asked(method: str, path: str, content: object = "", user: int = NOBODY) -> tuple[int, str]:
        command = [sys.executable, "-c", ASK, str(user), mlflow.rpartition(":")[2], method, path]
        said = subprocess.run(command, input=json.dumps(content).encode(), capture_output=True, check=True).stdout
        status, _, text = said.decode().partition(" ")
        return int(status), text

    return asked


@pytest.mark.slow
def test_another_user_sees_runs_and_files_and_changes_nothing(
    workspace: Workspace, mlflow: str, ask: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "note.txt").write_text("hello")
    registry = Registry(mlflow, workspace.mlflow_artifacts)
    run = registry.create_run("mine", {}, EXPERIMENT)
    run.log_files(tmp_path / "notes", "notes")
    file = next(workspace.mlflow_artifacts.rglob("note.txt"))
    place = f"{API}-artifacts/artifacts/{file.relative_to(workspace.mlflow_artifacts)}"

    status, text = ask("POST", f"{API}/runs/search", {"experiment_ids": ["1"]})
    assert (status, json.loads(text)["runs"][0]["info"]["run_id"]) == (200, run.run_id)
    assert ask("GET", f"/get-artifact?run_uuid={run.run_id}&path=notes/note.txt") == (200, "hello\n")
    elsewhere = {"name": "theirs", "artifact_location": str(tmp_path)}
    for method, path, content in (
        ("PUT", place, "evil"), ("DELETE", place, ""), ("POST", f"{API}/experiments/create", elsewhere),
        ("POST", f"{API}/runs/set-tag", {"run_id": run.run_id, "key": "by", "value": "nobody"}),
        ("POST", f"{API}/registered-models/create", {"name": "search"}),
        ("POST", f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run.run_id}&path=x", "evil"),
    ):  # fmt: skip
        status, text = ask(method, path, content)
        assert (status, "Only the user that runs this MLflow" in text) == (403, True), path
    assert file.read_text() == "hello"
    assert ask("POST", f"{API}/experiments/create", elsewhere, user=0)[0] == 200


def test_whose_connection_it_is_counts_only_while_it_stands() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.connect(server.getsockname())
        accepted, address = server.accept()
        with accepted:
            scope = {"client": address, "server": accepted.getsockname()}
            assert user_of(scope) == os.geteuid()
            assert user_of({"client": ("127.0.0.1", 1), "server": accepted.getsockname()}) is None
            client.close()
            deadline = time.monotonic() + 10
            while user_of(scope) is not None:
                assert time.monotonic() < deadline
