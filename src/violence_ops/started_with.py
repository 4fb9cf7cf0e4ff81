"""Which settings of webhooks and hooks `up` has given to Airflow, which keeps them until `down`: as digests, as they may be secrets."""

from __future__ import annotations

import json
import os

from violence_ops.deployment import Occasion
from violence_ops.files import atomic_path, fingerprint, read_json
from violence_ops.workspace import Workspace


def note(workspace: Workspace, *occasions: Occasion) -> None:
    """Write down this process's settings, in a file that only its owner can read."""
    with atomic_path(workspace.service_settings, 0o600) as file:
        file.write_text(json.dumps({name: one for each in occasions for name, one in own(each).items()}), "utf-8")


def noted(workspace: Workspace, occasion: Occasion) -> dict[str, str] | None:
    """The settings with which Airflow was started, by variable; None if an earlier version has started it."""
    file = workspace.service_settings
    if not file.is_file():
        return None
    content = read_json(file, "run `violence-ops down` and `violence-ops up`, which write another")
    return {name: str(content[name]) for name in occasion.variables if name in content}


def own(occasion: Occasion) -> dict[str, str]:
    """The settings of this process, by variable."""
    return {name: fingerprint(value) for name in occasion.variables if (value := os.environ.get(name))}
