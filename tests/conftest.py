"""Fixtures shared by all tests: real parts only, in temporary folders."""

from __future__ import annotations

import os

os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DVC_NO_ANALYTICS="1", GX_ANALYTICS_ENABLED="False")

from collections.abc import Callable
from pathlib import Path

import pytest

from violence_ops.stages import init
from violence_ops.workspace import Workspace


@pytest.fixture(autouse=True)
def _no_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see the defaults whatever the shell that started them has set."""
    for name in [name for name in os.environ if name.startswith("VIOLENCE_OPS_") or name in ("DVC_STAGE", "DVC_ROOT")]:
        monkeypatch.delenv(name)


@pytest.fixture
def new_workspace(tmp_path: Path) -> Callable[..., Workspace]:
    """Make a real workspace (git + DVC) in a temporary folder; files of its inbox count as complete at once."""

    def make(name: str = "workspace", **overrides: object) -> Workspace:
        init.run(tmp_path / name, params_overrides={"ingest.settle_s": 0} | overrides)
        return Workspace.open(tmp_path / name)

    return make


@pytest.fixture
def workspace(new_workspace: Callable[..., Workspace]) -> Workspace:
    """A real, empty workspace."""
    return new_workspace()
