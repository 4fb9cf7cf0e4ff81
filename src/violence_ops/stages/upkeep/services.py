"""`violence-ops up` and `down`: Airflow and MLflow of a workspace."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from violence_ops import services
from violence_ops.airflow_api import AirflowApi
from violence_ops.errors import WorkspaceError
from violence_ops.jsonable import Jsonable
from violence_ops.workspace import Workspace

_NOT_SAID: Final = "ignore:Could not import graphviz:UserWarning"
"""Airflow puts this warning before every list of DAGs; `dags show`, which needs graphviz, still fails for want of it."""


@dataclass(frozen=True, slots=True)
class UpResult(Jsonable):
    """Where the pages are. `password_file` holds the passwords of `users` and can be read by its owner only."""

    airflow_url: str
    mlflow_url: str
    users: list[str]
    password_file: str
    seconds: float

    def lines(self) -> Iterator[str]:
        yield f"Airflow    {self.airflow_url}   (users: {', '.join(self.users)}; passwords: {self.password_file})"
        yield f"MLflow     {self.mlflow_url}"


@dataclass(frozen=True, slots=True)
class DownResult(Jsonable):
    """How many processes were ended."""

    stopped: int


def up(workspace: Workspace, *, airflow_port: int, mlflow_port: int) -> UpResult:
    """Start Airflow and MLflow on loopback; they stay up after this command. See `services.up`."""
    started = time.monotonic()
    addresses = services.up(workspace, airflow_port=airflow_port, mlflow_port=mlflow_port)
    seconds = round(time.monotonic() - started, 1)
    password_file = str(services.password_file(workspace))
    return UpResult(addresses.airflow, addresses.mlflow, sorted(services.users(workspace)), password_file, seconds)


def down(workspace: Workspace) -> DownResult:
    """Stop them; no process stays behind."""
    return DownResult(services.down(workspace))


def airflow_environment(workspace: Workspace) -> dict[str, str]:
    """The environment in which Airflow's own command line works on this workspace. Raises WorkspaceError if it is not up."""
    addresses = services.inspect(workspace).addresses
    if addresses is None:
        raise WorkspaceError(f"Airflow is not running for {workspace.root}: start it with `violence-ops up`.")
    environment = services.airflow_environment(workspace, addresses)
    silenced = filter(None, (environment.get("PYTHONWARNINGS"), _NOT_SAID))
    return environment | {"PYTHONWARNINGS": ",".join(silenced)}


def airflow_help(arguments: Sequence[str]) -> int:
    """Let Airflow's own command line say how it is used, also where no workspace is; returns its exit code."""
    return services.airflow_help(arguments)


def api(workspace: Workspace, username: str = "admin") -> AirflowApi:
    """A client that is signed in to the running Airflow as one of its users."""
    return services.api(workspace, username)
