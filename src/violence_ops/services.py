"""Airflow and MLflow on embedded defaults: loopback, SQLite, every file inside the workspace."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import socket
import sqlite3
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx

from violence_ops import processes, registry_database, started_with
from violence_ops.airflow_api import AirflowApi
from violence_ops.deployment import FAILURE, RELEASE, python_module, without_password
from violence_ops.errors import ServiceUnavailable, WorkspaceError
from violence_ops.files import atomic_path, read_json, write_json
from violence_ops.workspace import Workspace

_log = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"
_USER: Final = re.compile(r"[^\s,:|]+")
POOLS: Final = {
    "gpu": "one model on the device at a time",
    "versioning": "one task that moves data with DVC at a time",
}
DAGS: Final = ("nightly_ingestion", "retraining", "gated_evaluation", "rollback", "drift", "shadow")
# The API server reads the logs from disk; the log servers of the others would listen on every network interface.
_AIRFLOW: Final = {
    "scheduler": ("--skip-serve-logs",),
    "api-server": (),
    "dag-processor": (),
    "triggerer": ("--skip-serve-logs",),
}
NAMES: Final = ("mlflow", *_AIRFLOW)
_HISTORY: Final = (
    "dag_run", "task_instance", "task_instance_history", "task_reschedule", "xcom", "log", "job", "trigger", "asset_event",
    "callback", "import_error", "revoked_token",
)  # fmt: skip
"""Tables of Airflow's database that grow with every run."""
_OLD_RUNS: Final = """
    SELECT COUNT(*) FROM dag_run LEFT JOIN
        (SELECT dag_id, MAX(start_date) AS last FROM dag_run WHERE run_type != 'manual' GROUP BY dag_id) AS kept
        ON dag_run.dag_id = kept.dag_id AND dag_run.start_date = kept.last
    WHERE dag_run.start_date < ? AND kept.last IS NULL
"""
"""Counts what `airflow db clean` takes for old: not the last run of a DAG that nobody started by hand."""

_START_LIMIT_S: Final = 240.0
_STOP_PATIENCE_S: Final = 8.0
_PARALLELISM: Final = 4
_KEYS: Final = "keys.json"
_SECRETS_REMEDY: Final = "run `violence-ops down`, remove it and run `violence-ops up`, which makes other passwords"

# Every task is forked from one process that has imported these: 15 s once instead of in every task.
_PRELOAD: Final = (
    "airflow.sdk.execution_time.task_runner",
    "airflow.executors.local_executor",
    "violence_ops.workspace",
    "violence_ops.pose.openmmlab",
    "violence_ops.recognition.package",
    "great_expectations",
    "mlflow",
    "dvc.repo",
    "cv2",
    "sqlalchemy",
)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the pages are."""

    airflow: str
    mlflow: str


@dataclass(frozen=True, slots=True)
class State:
    """What is running. `alive` and `dead` name services that were started and not stopped."""

    addresses: Addresses | None
    alive: tuple[str, ...]
    dead: tuple[str, ...]

    @property
    def is_up(self) -> bool:
        return self.addresses is not None and set(self.alive) == set(NAMES)


def inspect(workspace: Workspace) -> State:
    """Which services of the workspace are alive, and where."""
    services = processes.recorded(workspace.services, NAMES)
    alive = tuple(service.name for service in services if service.is_alive)
    dead = tuple(service.name for service in services if service.name not in alive)
    file, remedy = workspace.service_addresses, "remove it and run `violence-ops up`"
    addresses = read_json(file, remedy).to(lambda content: Addresses(**content)) if file.is_file() else None
    return State(addresses, alive, dead)


def up(workspace: Workspace, *, airflow_port: int, mlflow_port: int) -> Addresses:
    """Start MLflow and Airflow and wait until they are healthy; nothing happens if they run already.

    A port that is taken is replaced by a free one; 0 always takes a free one.
    Raises ServiceUnavailable, with the end of the log, if a service does not start.
    """
    with workspace.lock("services"):
        state = inspect(workspace)
        if state.is_up and state.addresses:
            return state.addresses
        _stop(workspace)
        addresses = Addresses(f"http://{HOST}:{_free_port(airflow_port)}", f"http://{HOST}:{_free_port(mlflow_port)}")
        try:
            _start(workspace, addresses)
        except BaseException:
            _stop(workspace)
            raise
        return addresses


def down(workspace: Workspace) -> int:
    """End what `up` started, and everything that it started; returns how many processes there were."""
    with workspace.lock("services"):
        return _stop(workspace)


def users(workspace: Workspace) -> dict[str, str]:
    """Who may sign in to the workspace's own Airflow, with the role of its simple auth manager: `admin`, and the approvers.

    But for a name that Airflow, which lists its users as `name:role,name:role`, would read as something else.
    """
    approvers = workspace.params().gate.approvers
    return {name: "op" for name in approvers if _USER.fullmatch(name)} | {"admin": "admin"}


def password_file(workspace: Workspace) -> Path:
    """The generated passwords of Airflow's users (mode 600)."""
    return workspace.services / "passwords.json"


def api(workspace: Workspace, username: str = "admin") -> AirflowApi:
    """A client that signs in to the workspace's own Airflow.

    Raises ServiceUnavailable if that is not up, also if another program listens at its address, which gets no password.
    """
    addresses = inspect(workspace).addresses
    if addresses is None or not _listens(workspace, "api-server", addresses.airflow):
        raise ServiceUnavailable(f"Airflow of {workspace.root} is not running: start it with `violence-ops up`.")
    return AirflowApi(addresses.airflow, username, read_json(password_file(workspace), _SECRETS_REMEDY)[username])


def watched_api(workspace: Workspace) -> AirflowApi:
    """The same for the Airflow that runs the workspace's nights: the deployment's (`$VIOLENCE_OPS_AIRFLOW_URL`), else its own.

    The deployment's password is in the file that Airflow's environment names: docker/init.sh writes it, and every container of the
    stack has it. Raises WorkspaceError if it is not here.
    """
    url = workspace.deployment.airflow_url
    if not url:
        return api(workspace)
    name = "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"
    file = Path(os.environ.get(name, ""))
    if not file.is_file():
        raise WorkspaceError(
            f"{name} names no file with the passwords of Airflow at {without_password(url)}: run this in one of Airflow's containers."
        )
    return AirflowApi(url, "admin", str(read_json(file, "start `airflow-init` again, which writes it")["admin"]))


def make_database(workspace: Workspace, environment: dict[str, str]) -> None:
    """Make Airflow's database, or bring an older one up to date. Raises ServiceUnavailable with the reason if that fails."""
    _airflow_db(workspace, environment, ["migrate"], "be made")


def clean_database(workspace: Workspace, before: datetime) -> None:
    """Remove from Airflow's database what belongs to runs from before that time, except each DAG's last run that nobody started
    by hand.

    Raises ServiceUnavailable with the reason if that fails.
    """
    environment = airflow_environment(workspace, inspect(workspace).addresses or Addresses(f"http://{HOST}:0", ""))
    options = [
        "--clean-before-timestamp",
        before.isoformat(),
        "--tables",
        ",".join(_HISTORY),
        "--skip-archive",
        "--yes",
    ]
    _airflow_db(workspace, environment, ["clean", *options, "--error-on-cleanup-failure"], "be cleaned")


def old_runs(workspace: Workspace, before: datetime) -> int:
    """How many runs `clean_database` removes; 0 if the workspace has no Airflow database of its own."""
    if not workspace.airflow_database.is_file():
        return 0
    with closing(sqlite3.connect(f"file:{workspace.airflow_database}?mode=ro", uri=True)) as database:
        (count,) = database.execute(_OLD_RUNS, [before.strftime("%Y-%m-%d %H:%M:%S.%f")]).fetchone()
    return int(count)


def dags_folder() -> Path:
    """`$VIOLENCE_OPS_DAGS`, else the `dags/` of the checkout that this package is installed from."""
    chosen = os.environ.get("VIOLENCE_OPS_DAGS")
    folder = Path(chosen) if chosen else Path(__file__).parents[2] / "dags"
    if not (folder / f"{DAGS[0]}.py").is_file():
        raise WorkspaceError(f"{folder} holds no DAG files: set VIOLENCE_OPS_DAGS to the project's dags folder.")
    return folder.resolve()


def airflow_environment(workspace: Workspace, addresses: Addresses) -> dict[str, str]:
    """The environment of every Airflow process: nothing of another Airflow on this machine is inherited."""
    keys = _secret(workspace, _KEYS, ("fernet", "jwt", "session"))
    port = addresses.airflow.rpartition(":")[2]
    settings = {
        "CORE__DAGS_FOLDER": str(dags_folder()),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": str(_PARALLELISM),
        "CORE__MAX_MAP_LENGTH": "10000",
        "CORE__TASK_SUCCESS_OVERTIME": "60",  # seconds for the callbacks of a task that has ended: alerts (stages/upkeep/alert.py)
        "CORE__EXECUTION_API_SERVER_URL": f"{addresses.airflow}/execution/",
        "CORE__FERNET_KEY": urlsafe_b64encode(bytes.fromhex(keys["fernet"])).decode(),
        "CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{role}" for user, role in users(workspace).items()),
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(password_file(workspace)),
        "API__HOST": HOST,
        "API__PORT": port,
        "API__BASE_URL": addresses.airflow,
        "API__WORKERS": "1",
        "API__SECRET_KEY": keys["session"],
        "API_AUTH__JWT_SECRET": keys["jwt"],
        # the scheduler looks every quarter of a second, not every second, for what can run next
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.25",
        "SCHEDULER__MP_START_METHOD": "forkserver",
        "SCHEDULER__MP_FORKSERVER_PRELOAD": ",".join(_PRELOAD),
        # its small server also makes the scheduler start the process that tasks are forked from at once
        "SCHEDULER__ENABLE_HEALTH_CHECK": "True",
        "SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_HOST": HOST,
        "SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(_free_port(0)),
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",
        "DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "300",  # it sends the alerts of runs, and of tasks that were killed
        "DAG_PROCESSOR__REFRESH_INTERVAL": "60",
        "DAG_PROCESSOR__PARSING_PROCESSES": "1",
    }
    return (
        _without_another_airflow()
        | {f"AIRFLOW__{key}": value for key, value in settings.items()}
        | _shared_environment()
        | {
            "AIRFLOW_HOME": str(workspace.airflow_home),
            "VIOLENCE_OPS_WORKSPACE": str(workspace.root),
            "VIOLENCE_OPS_MLFLOW_URI": addresses.mlflow,
        }
    )


def airflow_help(arguments: Sequence[str]) -> int:
    """Let Airflow's command line say how it is used, which needs no workspace; returns its exit code."""
    with TemporaryDirectory() as home:  # it makes a folder for its logs all the same
        environment = _without_another_airflow() | _shared_environment() | {"AIRFLOW_HOME": home}
        return subprocess.run(python_module("airflow", *arguments), env=environment, check=False).returncode


def _without_another_airflow() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}


def _shared_environment() -> dict[str, str]:
    """Programs of this installation first on the path, no module from the current folder, no telemetry, and two threads for a
    task of many."""
    return {
        "PYTHONSAFEPATH": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DVC_NO_ANALYTICS": "1",
        "GX_ANALYTICS_ENABLED": "False",
        "OMP_NUM_THREADS": str(min(2, os.cpu_count() or 1)),
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def _start(workspace: Workspace, addresses: Addresses) -> None:
    _secret(workspace, password_file(workspace).name, tuple(users(workspace)))
    _start_mlflow(workspace, addresses)
    environment = airflow_environment(workspace, addresses)
    make_database(workspace, environment)
    for name, options in _AIRFLOW.items():
        processes.start(workspace.services, name, python_module("airflow", name, *options), environment)
    started_with.note(workspace, RELEASE, FAILURE)
    write_json(workspace.service_addresses, asdict(addresses))
    _await_health(workspace, addresses)


def _start_mlflow(workspace: Workspace, addresses: Addresses) -> None:
    database = Path(workspace.mlflow_database.removeprefix("sqlite:///"))
    if copy := registry_database.upgrade(database):
        _log.warning("MLflow's database was upgraded to this version of MLflow; %s is as it was before.", copy)
    registry_database.follow(database, workspace.mlflow_artifacts)
    where = HOST, addresses.mlflow.rpartition(":")[2], workspace.mlflow_database, str(workspace.mlflow_artifacts)
    command = python_module("violence_ops.registry_server", *where)
    environment = dict(os.environ) | _shared_environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    processes.start(workspace.services, "mlflow", command, environment)


def _airflow_db(workspace: Workspace, environment: dict[str, str], command: Sequence[str], what: str) -> None:
    done = subprocess.run(
        python_module("airflow", "db", *command),
        cwd=workspace.services,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_START_LIMIT_S,
        check=False,
    )
    if done.returncode:
        end = "\n".join((done.stdout + done.stderr).splitlines()[-5:])
        raise ServiceUnavailable(f"Airflow's database in {workspace.airflow_home} could not {what}: {end}")


def _await_health(workspace: Workspace, addresses: Addresses) -> None:
    def answers(name: str, address: str, path: str) -> bool:
        return _listens(workspace, name, address) and httpx.get(f"{address}/{path}", trust_env=False).is_success

    _await(workspace, "MLflow", lambda: answers("mlflow", addresses.mlflow, "health"))
    _await(workspace, "Airflow's API server", lambda: answers("api-server", addresses.airflow, "api/v2/monitor/health"))
    client = api(workspace)
    for name, description in POOLS.items():
        client.create_pool(name, 1, description)
    _await(workspace, "the DAGs", lambda: set(DAGS) <= set(client.dag_ids()) or _refuse_broken_dags(client))
    _await(workspace, "Airflow's scheduler", lambda: client.health().get("scheduler") == "healthy")


def _await(workspace: Workspace, what: str, is_ready: Callable[[], bool]) -> None:
    limit = time.monotonic() + _START_LIMIT_S
    while True:
        # first: what answers in place of a service that has ended is another program
        for name in inspect(workspace).dead:
            end = processes.last_lines(workspace.services, name)
            raise ServiceUnavailable(f"{name} ended while starting; the end of {workspace.services / name}.log: {end}")
        with suppress(httpx.TransportError, ServiceUnavailable):
            if is_ready():
                return
        if time.monotonic() > limit:
            raise ServiceUnavailable(
                f"Waited {_START_LIMIT_S:.0f} s for {what} in vain: the logs are in {workspace.services}."
            )
        time.sleep(0.25)


def _listens(workspace: Workspace, name: str, address: str) -> bool:
    """Whether it is this service of the workspace that listens at an address, and not a program that was faster to take the port."""
    port = int(address.rpartition(":")[2])
    services = processes.recorded(workspace.services, [name])
    return any(service.is_alive and service.listens(port, workspace.root) for service in services)


def _refuse_broken_dags(client: AirflowApi) -> bool:
    for file, trace in client.import_errors().items():
        raise WorkspaceError(f"{file} cannot be read as a DAG: {trace.strip().splitlines()[-1]}")
    return False


def _stop(workspace: Workspace) -> int:
    services = processes.recorded(workspace.services, NAMES)
    count = processes.stop(workspace.services, services, workspace=workspace.root, patience_s=_STOP_PATIENCE_S)
    workspace.service_addresses.unlink(missing_ok=True)
    return count


def _secret(workspace: Workspace, name: str, keys: Sequence[str]) -> dict[str, str]:
    """Random secrets in a file that only its owner can read, each made once."""
    file = workspace.services / name
    known = dict(read_json(file, _SECRETS_REMEDY)) if file.is_file() else {}
    if missing := [key for key in keys if key not in known]:
        known |= {key: secrets.token_hex(32 if name == _KEYS else 12) for key in missing}
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file, 0o600) as temporary:
            temporary.write_text(json.dumps(known), "utf-8")
    return known


def _free_port(wanted: int) -> int:
    """`wanted` if nobody listens there, else a free port of the system's choice."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind((HOST, port))
                return int(probe.getsockname()[1])
    raise ServiceUnavailable(f"{HOST} has no free port.")
