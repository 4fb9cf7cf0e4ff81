"""Two ingestion processes on one inbox, and an ingestion that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from violence_ops.stages.nightly import ingest
from violence_ops.store import batches, claims
from violence_ops.store.index import open_catalog
from violence_ops.workspace import Workspace

RUN = """
import sys, json
from datetime import date
from pathlib import Path
from violence_ops.stages.nightly import ingest
from violence_ops.workspace import Workspace
workspace = Workspace.open(Path(sys.argv[1]))
print(json.dumps(ingest.run(workspace, workspace.params(), night=date(2026, 1, 1)).to_dict()))
"""
NIGHT = date(2026, 1, 1)


def fill(workspace: Workspace, count: int) -> set[bytes]:
    contents = {b"clip %d " % number * 50 for number in range(count)}
    for number, content in enumerate(sorted(contents)):
        folder = workspace.inbox / ("Fight" if number % 2 else "NonFight")
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.mp4").write_bytes(content)
    return contents


def start(workspace: Workspace) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", RUN, str(workspace.root)], stdout=subprocess.PIPE, text=True)


def taken(workspace: Workspace) -> list[bytes]:
    return [video.read_bytes() for video in workspace.work.glob("*/videos/*")]


def test_two_processes_claim_every_file_of_an_inbox_of_500_once(workspace: Workspace) -> None:
    contents = fill(workspace, 500)
    results = [json.loads(process.communicate()[0]) for process in [start(workspace), start(workspace)]]
    assert sum(result["claimed"] for result in results) == 500
    assert sum(result["duplicates"] for result in results) == 0
    files = taken(workspace)
    assert len(files) == 500
    assert set(files) == contents
    manifests = [batches.read_manifest(workspace.batch(name)) for name in batches.open_batch_ids(workspace)]
    ids = [clip.clip_id for manifest in manifests for clip in manifest.clips]
    assert len(ids) == len(set(ids)) == 500
    assert list(workspace.claims.iterdir()) == []


def test_a_claim_is_not_removed_while_another_run_looks_for_abandoned_ones(workspace: Workspace) -> None:
    with open_catalog(workspace) as catalog, claims.held(workspace, "2026-01-01", catalog) as (own, _):
        done = threading.Thread(target=own.release, args=(workspace,))
        with workspace.lock("claims"):
            done.start()
            done.join(0.3)
            assert own.folder.is_dir()
        done.join()
    assert list(workspace.claims.iterdir()) == []


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.15, 0.3, 0.6], ids=lambda delay: f"{delay:g}s")
def test_an_ingestion_killed_at_any_moment_and_run_again_makes_the_same_batch(
    new_workspace: Callable[..., Workspace], delay: float
) -> None:
    undisturbed, disturbed = new_workspace("undisturbed"), new_workspace("disturbed")
    for workspace in (undisturbed, disturbed):
        fill(workspace, 200)
        (workspace.inbox / "copy.mp4").write_bytes((workspace.inbox / "Fight" / "1.mp4").read_bytes())
    expected = ingest.run(undisturbed, undisturbed.params(), night=NIGHT)
    process = start(disturbed)
    while process.poll() is None and not any(disturbed.work.glob("claims/*/plan.json")):
        time.sleep(0.002)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    ingest.run(disturbed, disturbed.params(), night=NIGHT)
    assert tree(disturbed.work / expected.batch_ids[0]) == tree(undisturbed.work / expected.batch_ids[0])
    assert batches.open_batch_ids(disturbed) == expected.batch_ids
    assert tree(disturbed.quarantine) == tree(undisturbed.quarantine)
    assert list(disturbed.claims.iterdir()) == []


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
