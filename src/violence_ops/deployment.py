"""What this installation is connected with: facts that no workspace carries from machine to machine."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields


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
