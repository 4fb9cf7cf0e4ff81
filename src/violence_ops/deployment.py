"""What this installation is connected with: facts that no workspace carries from machine to machine."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from urllib.parse import urlsplit

from violence_ops.errors import NoGpu, UsageError


@dataclass(frozen=True, slots=True)
class Deployment:
    """Facts of this installation that are no tunables: addresses, read from `VIOLENCE_OPS_*` environment variables."""

    catalog_url: str | None = field(default=None, repr=False)
    mlflow_uri: str | None = field(default=None, repr=False)
    remote_url: str | None = field(default=None, repr=False)
    user: str | None = None
    code_revision: str | None = None
    device: str | None = None
    webhook_url: str | None = field(default=None, repr=False)
    webhook_secret: str | None = field(default=None, repr=False)
    hook_command: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls) -> Deployment:
        """Read `VIOLENCE_OPS_` and the field's name in capitals; unset or empty means the workspace's own default, or none."""
        return cls(**{each.name: os.environ.get(f"VIOLENCE_OPS_{each.name.upper()}") or None for each in fields(cls)})


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
            "This process sees no GPU, and it is to use one: look at `nvidia-smi`, CUDA_VISIBLE_DEVICES and the container's devices, or "
            f"set {'VIOLENCE_OPS_DEVICE' if wanted == 'auto' else 'pose.device'} to cpu."
        )
    return "cuda" if seen else "cpu"


def is_gpu_work_elsewhere() -> bool:
    """Whether Airflow hands the tasks of the queue gpu to Celery's workers, of which this process has not the environment.

    Only the environment tells: docker/compose.yaml sets the executor for every service, and its image the device of a GPU worker.
    """
    is_gpu_worker = Deployment.from_environment().device == "cuda"
    return os.environ.get("AIRFLOW__CORE__EXECUTOR") == "CeleryExecutor" and not is_gpu_worker


def is_http(address: str) -> bool:
    """Whether an address has the form http(s)://HOST, perhaps with a port and a path."""
    try:
        parts = urlsplit(address)
        host = (parts.hostname or "").encode("idna")
        return parts.scheme in ("http", "https") and bool(host) and parts.port != 0
    except ValueError:  # an open bracket, a port that is no number, a host that cannot be looked up
        return False
