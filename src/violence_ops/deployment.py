"""What this installation is connected with: facts that no workspace carries from machine to machine."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Deployment:
    """Facts of this installation that are no tunables: addresses, read from `VIOLENCE_OPS_*` environment variables."""

    catalog_url: str | None = None
    mlflow_uri: str | None = None
    remote_url: str | None = None
    user: str | None = None
    webhook_url: str | None = field(default=None, repr=False)
    webhook_secret: str | None = field(default=None, repr=False)
    hook_command: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls) -> Deployment:
        """Read `VIOLENCE_OPS_` and the field's name in capitals; unset or empty means the workspace's own default, or none."""
        return cls(**{each.name: os.environ.get(f"VIOLENCE_OPS_{each.name.upper()}") or None for each in fields(cls)})


def is_http(address: str) -> bool:
    """Whether an address has the form http(s)://HOST, perhaps with a port and a path."""
    try:
        parts = urlsplit(address)
        host = (parts.hostname or "").encode("idna")
        return parts.scheme in ("http", "https") and bool(host) and parts.port != 0
    except ValueError:  # an open bracket, a port that is no number, a host that cannot be looked up
        return False
