"""Pictures of the pages for docs/, from a workspace whose services are up: `python tools/screenshots.py WORKSPACE docs`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from violence_ops import services
from violence_ops.airflow_api import AirflowApi
from violence_ops.stages.releasing import reports
from violence_ops.store import releases
from violence_ops.workspace import Workspace

_CHROMIUM = "/usr/bin/chromium"
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
]


def main(root: Path, out: Path) -> None:
    """Sign in to Airflow and take a finished night, the newest question to a release manager, the MLflow run page and the report."""
    workspace = Workspace.open(root)
    addresses = services.inspect(workspace).addresses
    assert addresses, "run `violence-ops up` first"
    password = json.loads(services.password_file(workspace).read_text())["admin"]
    api = services.api(workspace)
    night = api.runs("nightly_ingestion")[-1]["dag_run_id"]
    asked = [run["dag_run_id"] for run in api.runs("gated_evaluation") if was_asked(api, run["dag_run_id"])][-1]
    registry = releases.open_registry(workspace)
    run_url = registry.run_url(registry.version(registry.alias("candidate") or "1").run_id)
    report = reports.find(workspace, None).files.page
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        page.goto(f"{addresses.airflow}/auth/login", wait_until="networkidle")
        page.fill('input[name="username"]', "admin")
        page.fill('input[name="password"]', password)
        page.keyboard.press("Enter")
        page.wait_for_timeout(4000)
        take(page, f"{addresses.airflow}/dags/nightly_ingestion/runs/{night}", out / "airflow-grid.png", 8000)
        take(
            page,
            f"{addresses.airflow}/dags/gated_evaluation/runs/{asked}/tasks/approve/required_actions",
            out / "approval.png",
            6000,
        )
        # without the assistant that MLflow opens on the right
        take(page, run_url, out / "mlflow-run.png", 9000, width=1105)
        take(page, report.as_uri(), out / "report.png", 1000)
        browser.close()


def was_asked(api: AirflowApi, run_id: str) -> bool:
    """Whether an evaluation came to the question to a release manager."""
    states = {task["task_id"]: task["state"] for task in api.tasks("gated_evaluation", run_id)}
    return states["approve"] == "success"


def take(page: Page, address: str, path: Path, wait_ms: int, width: int | None = None) -> None:
    """Open an address, let it draw, and keep what is seen (its left `width` px)."""
    page.goto(address)
    page.wait_for_timeout(wait_ms)
    page.screenshot(path=path, clip={"x": 0, "y": 0, "width": width or 1500, "height": 900})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
