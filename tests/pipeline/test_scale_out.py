"""A night over Celery workers, PostgreSQL and Redis: the commands and the environment of docker/compose.yaml on loopback, without
its containers. MinIO and the images are what is left out."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from violence_ops.airflow_api import AirflowApi
from violence_ops.errors import ServiceUnavailable, UserError
from violence_ops.stages.upkeep import init, synth
from violence_ops.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text("utf-8"))
SECRETS = {
    "POSTGRES_PASSWORD": "pg-secret", "REDIS_PASSWORD": "redis-secret", "MINIO_ROOT_USER": "m", "MINIO_ROOT_PASSWORD": "minio-secret",
    "AIRFLOW_FERNET_KEY": "Hf0Yk3zqvUo2l3bVh0tLQ8b2w5o5oQ4bq1m9wq3b0Vw=", "AIRFLOW_JWT_SECRET": "jwt-secret-of-more-than-64-bytes-" * 2,
    "AIRFLOW_SESSION_SECRET": "session-secret", "AIRFLOW_ADMIN_PASSWORD": "admin-secret",
    "AIRFLOW_RELEASE_MANAGER_PASSWORD": "release-secret", "GPU_SLOTS": "1",
}  # fmt: skip
_SMALL = {"ingest.settle_s": 0, "ingest.shard_size": 2, "expectations.min_clips": 1, "schedule.retry_delay_s": 1.0}
_LIMIT_S = 300.0


@dataclass
class Site:
    """The services of compose.yaml, each a process with what it is given there; names of containers become ports on loopback."""

    folder: Path
    postgresql: str
    ports: dict[str, int]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    def environment(self, service: str) -> dict[str, str]:
        given = COMPOSE["services"][service].get("environment") or {}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        own = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "AIRFLOW_HOME": str(self.folder / "airflow"),
        }
        # two workers of one machine each serve their logs
        own["AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT"] = str(free_port())
        return inherited | own | {name: self.here(str(value)) for name, value in given.items()}

    def here(self, text: str) -> str:
        """A text of compose.yaml with the secrets filled in, and the containers' addresses and folders as they are here."""
        text = re.sub(r"\$\{([A-Z_]+)(?::\?|-[^}]*)?\}", lambda name: SECRETS.get(name[1], ""), text).replace("$$", "$")
        for old, new in (
            (r"violence-ops:pg-secret@postgres/", f"{self.postgresql}/"),
            (r"redis-server -", f"redis-server - --port {self.ports['redis']} --bind 127.0.0.1"),
            (r"\bredis:6379", f"127.0.0.1:{self.ports['redis']}"),
            (r"\bmlflow:5000", f"127.0.0.1:{self.ports['mlflow']}"), (r"(api-server|localhost):8080", f"127.0.0.1:{self.ports['airflow']}"),
            (r"^/(airflow|workspace|mlflow)\b", rf"{self.folder}/\1"), (r"^/app\b", str(ROOT)),
            (r"^0\.0\.0\.0$", "127.0.0.1"), (r"^5000$", str(self.ports["mlflow"])), (r"^8080$", str(self.ports["airflow"])),
            (r"^docker/", f"{ROOT}/docker/"),
        ):  # fmt: skip
            text = re.sub(old, new, text)
        return text

    def start(self, service: str, *more: str) -> None:
        asked = COMPOSE["services"][service]
        command = [self.here(word) for word in [*asked.get("entrypoint", ()), *asked["command"]]]
        log = (self.folder / f"{service}.log").open("ab")
        self.running[service] = subprocess.Popen(
            [*command, *more], cwd=self.folder / service, env=self.environment(service), stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip

    def stop(self, service: str) -> None:
        """End a service as `docker compose stop` does; what it leaves behind is killed."""
        process = self.running.pop(service)
        started = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
        for one in started:
            with suppress(psutil.NoSuchProcess):
                one.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(what: str, is_so: Callable[[], Any], limit_s: float = 120.0) -> Any:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        try:
            if found := is_so():
                return found
        except (httpx.HTTPError, ServiceUnavailable, UserError):
            pass
        time.sleep(0.5)
    raise AssertionError(f"{what}: not within {limit_s:g} s")


@pytest.fixture
def site(tmp_path: Path, postgresql: str) -> Iterator[Site]:
    if not shutil.which("redis-server"):
        pytest.skip("no redis-server")
    address = postgresql.removeprefix("postgresql+psycopg2://").partition("/")[0]
    for name in ("airflow", "catalog", "mlflow"):
        subprocess.run(["createdb", "--maintenance-db", f"postgresql://{address}/postgres", name], check=True)
    for service in COMPOSE["services"].keys() | {"airflow"}:
        (tmp_path / service).mkdir()
    made = Site(tmp_path, address, {name: free_port() for name in ("redis", "mlflow", "airflow")})
    init.run(made.workspace, params_overrides=_SMALL)
    with ExitStack() as stack:
        stack.callback(lambda: [made.stop(service) for service in reversed(list(made.running))])
        made.start("redis")
        made.start("mlflow")
        until("MLflow", lambda: httpx.get(f"http://127.0.0.1:{made.ports['mlflow']}/health").is_success)
        subprocess.run(
            [ROOT / COMPOSE["services"]["airflow-init"]["command"][0]],
            cwd=tmp_path,
            env=made.environment("airflow-init"),
            check=True,
        )
        for service in ("api-server", "scheduler", "dag-processor", "triggerer"):
            made.start(service)
        yield made


def test_a_night_over_celery_waits_for_its_gpu_worker_and_outlives_redis(site: Site) -> None:
    workspace = Workspace.open(site.workspace)
    synth.run(workspace.inbox, 4, seed=3, groups=4, with_truth=False, duration_s=1.5)
    site.start("worker-cpu", "--celery-hostname", "cpu@%h")
    with AirflowApi(f"http://127.0.0.1:{site.ports['airflow']}", "admin", SECRETS["AIRFLOW_ADMIN_PASSWORD"]) as api:
        until("the DAGs", lambda: "nightly_ingestion" in api.dag_ids())
        assert api.import_errors() == {}
        assert api.pools()["gpu"] == 1
        run_id = api.trigger("nightly_ingestion", {"night": "2026-01-31"})

        def waiting() -> list[dict[str, Any]]:
            return [
                task
                for task in api.tasks("nightly_ingestion", run_id)
                if task["queue"] == "gpu" and task["state"] == "queued"
            ]

        assert until("a task for the GPU worker", waiting, _LIMIT_S)
        site.stop("redis")
        site.start("redis")
        site.start("worker-gpu", "--celery-hostname", "gpu@%h")
        assert api.wait("nightly_ingestion", run_id, timeout_s=_LIMIT_S) == "success"
        tasks = api.tasks("nightly_ingestion", run_id)
        assert {task["queue"] for task in tasks} == {"cpu", "gpu"}
        assert all(task["try_number"] == 1 for task in tasks if task["queue"] == "gpu" and task["state"] == "success")
    assert len(list((site.workspace / "data" / "batches").glob("*.dvc"))) == 1
    assert not (site.workspace / "catalog.db").exists()
    assert secrets_in_logs(site) == []


def secrets_in_logs(site: Site) -> list[str]:
    """The logs in which a secret is written out."""
    kept = [secret for name, secret in SECRETS.items() if name.endswith(("PASSWORD", "SECRET", "KEY"))]
    logs = [*site.folder.glob("*.log"), *(site.folder / "airflow" / "logs").rglob("*.log")]
    return [str(log) for log in logs if any(secret.encode() in log.read_bytes() for secret in kept)]
