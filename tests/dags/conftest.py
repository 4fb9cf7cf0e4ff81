"""The DAG files, read as Airflow reads them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

# before anything imports airflow, which would make itself a home in the user's
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-home-"))

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def params_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that a DAG file needs of a workspace to be read: its params.yaml."""
    folder = tmp_path_factory.mktemp("workspace")
    shipped = (ROOT / "params.yaml").read_text("utf-8")
    (folder / "params.yaml").write_text(shipped.replace("timezone: UTC", "timezone: Europe/Berlin"), "utf-8")
    return folder


@pytest.fixture(scope="session")
def dags(params_folder: Path) -> dict[str, Any]:
    """The DAGs by id; every file must be readable, and use no pool that `up` does not make."""
    from airflow.dag_processing.dagbag import DagBag

    from violence_ops.services import POOLS

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIOLENCE_OPS_WORKSPACE", str(params_folder))
        bag = DagBag(ROOT / "dags", known_pools={*POOLS, "default_pool"})
    assert bag.import_errors == {}
    return dict(bag.dags)
