"""What this installation is connected with: facts that no workspace carries from machine to machine."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field, fields
from typing import Final
from urllib.parse import urlsplit

from violence_ops.errors import NoGpu, UsageError

AIRFLOW_PORT: Final = 8080
MLFLOW_PORT: Final = 5000
"""Where the pages of a workspace's Airflow and MLflow are, unless another port is asked for or this one is taken."""
_OF_EVERY_PROGRAM: Final = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER")
_OF_PYTHON: Final = ("LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV")
_OF_NUMERICS: Final = ("MKL_", "OMP_", "OPENBLAS_")
"""How these names begin: numbers of threads, and kinds of processor, on which a result's last digits depend."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """Facts of this installation that are no tunables: addresses, read from `VIOLENCE_OPS_*` environment variables."""

    catalog_url: str | None = field(default=None, repr=False)
    mlflow_uri: str | None = field(default=None, repr=False)
    airflow_url: str | None = field(default=None, repr=False)
    remote_url: str | None = field(default=None, repr=False)
    code_revision: str | None = None
    device: str | None = None
    webhook_url: str | None = field(default=None, repr=False)
    webhook_secret: str | None = field(default=None, repr=False)
    hook_command: str | None = field(default=None, repr=False)
    alert_webhook_url: str | None = field(default=None, repr=False)
    alert_webhook_secret: str | None = field(default=None, repr=False)
    alert_hook_command: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls) -> Deployment:
        """Read `VIOLENCE_OPS_` and the field's name in capitals; unset or empty means the workspace's own default, or none."""
        return cls(**{each.name: os.environ.get(f"VIOLENCE_OPS_{each.name.upper()}") or None for each in fields(cls)})


@dataclass(frozen=True, slots=True)
class Occasion:
    """Why webhooks and hooks are called: how the names of its settings begin, what they are told, and what to do once one of
    them that did not take it works again."""

    settings: str
    told: str
    afterwards: str = ""

    @property
    def variables(self) -> tuple[str, str, str]:
        """The environment variables of its settings."""
        return f"{self.settings}_WEBHOOK_URL", f"{self.settings}_WEBHOOK_SECRET", f"{self.settings}_HOOK_COMMAND"


RELEASE: Final = Occasion("VIOLENCE_OPS", "the change of champion", ", then run `violence-ops ledger notify`")
FAILURE: Final = Occasion("VIOLENCE_OPS_ALERT", "the failure")


def bare_environment(*, python: bool = False) -> dict[str, str]:
    """Of this process's environment, with its passwords and addresses, what every program needs; with `python` also what this
    installation finds its modules and libraries by, and what sets those that compute."""

    def is_needed(name: str) -> bool:
        return name in _OF_EVERY_PROGRAM or (python and (name in _OF_PYTHON or name.startswith(_OF_NUMERICS)))

    return {name: value for name, value in os.environ.items() if is_needed(name)}


def python_module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module with this installation's Python.

    With `-P` it finds no module in the folder it is started from, as `-m` alone would: that may be the inbox, where strangers
    put files.
    """
    return [sys.executable, "-P", "-m", name, *arguments]


def compute_device(wanted: str = "auto") -> str:
    """`cuda` or `cpu`; `auto` is `$VIOLENCE_OPS_DEVICE`, else the GPU if this process sees one.

    Raises NoGpu if the GPU is asked for and there is none, UsageError if the environment names another device.
    """
    import torch

    asked = (Deployment.from_environment().device or "auto") if wanted == "auto" else wanted
    if asked not in ("auto", "cpu", "cuda"):
        raise UsageError(f"VIOLENCE_OPS_DEVICE is {asked!r}: write cpu or cuda, or leave it unset.")
    seen = asked != "cpu" and torch.cuda.is_available()
    if asked == "cuda" and not seen:
        raise NoGpu(
            "A GPU was asked for, but this process sees none: look at `nvidia-smi`, CUDA_VISIBLE_DEVICES and the container's devices, or "
            f"set {'VIOLENCE_OPS_DEVICE' if wanted == 'auto' else 'pose.device'} to cpu."
        )
    return "cuda" if seen else "cpu"


def is_gpu_work_elsewhere() -> bool:
    """Whether Airflow hands the tasks of the queue gpu to Celery's workers, of which this process has not the environment.

    Only the environment tells: docker/compose.yaml sets the executor for every service, and of a worker of that queue its image,
    or docker/without-gpu.yaml, the device.
    """
    is_that_worker = Deployment.from_environment().device is not None
    return os.environ.get("AIRFLOW__CORE__EXECUTOR") == "CeleryExecutor" and not is_that_worker


def is_http(address: str) -> bool:
    """Whether an address has the form http(s)://HOST, perhaps with a port and a path."""
    try:
        parts = urlsplit(address)
        host = (parts.hostname or "").encode("idna")
        return parts.scheme in ("http", "https") and bool(host) and parts.port != 0
    except ValueError:  # an open bracket, a port that is no number, a host that cannot be looked up
        return False


def has_password(address: str) -> bool:
    """Whether an address holds what signs somebody in: a password, or over HTTP also a user's name alone, which may be a token."""
    user, sign, _ = address.partition("://")[2].partition("/")[0].rpartition("@")
    return bool(sign) and (":" in user or address.startswith("http"))


def without_password(text: str) -> str:
    """A text to be shown, without the user and the password of the addresses in it."""
    return re.sub(r"://[^/\s]*@", "://", text)
