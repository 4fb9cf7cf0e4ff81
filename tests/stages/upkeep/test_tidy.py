"""`tidy`: what months of nights leave behind goes, and nothing else does."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlflow.tracking import MlflowClient
from typer.testing import CliRunner

from violence_ops import git, services, versioning
from violence_ops.cli.program import app
from violence_ops.files import write_text
from violence_ops.records import ClipRecord
from violence_ops.registry import MODEL
from violence_ops.stages.inspection import explain
from violence_ops.stages.learning import assemble
from violence_ops.stages.learning.dataset import Dataset
from violence_ops.stages.releasing import shadow
from violence_ops.stages.upkeep import tidy
from violence_ops.store import batches, index, quarantine, releases
from violence_ops.store.labels_file import record
from violence_ops.workspace import Workspace

OLD_S = 100 * 86400
OLD_RUNS = (
    ("drift", "2026-01-01", "asset_triggered"), ("drift", "2026-01-02", "asset_triggered"), ("drift", "2026-01-03", "asset_triggered"),
    ("drift", "2026-01-04", "manual"), ("shadow", "2026-01-01", "asset_triggered"), ("rollback", "2026-01-01", "manual"),
)  # fmt: skip


def written(path: Path, *, old: bool) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a line\n")
    if old:
        os.utime(path, (time.time() - OLD_S,) * 2)
    return path


def test_what_is_old_goes_with_its_folders_and_what_is_new_or_of_value_stays(workspace: Workspace) -> None:
    results, pages = workspace.check_results
    gone = [
        written(workspace.airflow_logs / "dag_id=drift" / "run_id=1" / "attempt=1.log", old=True),
        written(results / "clips" / "night 1" / "x.json", old=True),
        written(pages / "clips" / "night 1" / "x.html", old=True),
    ]
    kept = [
        written(workspace.airflow_logs / "dag_id=drift" / "run_id=2" / "attempt=1.log", old=False),
        written(results / ".ge_store_backend_id", old=True),
        written(pages.parent / "index.html", old=True),
        written(workspace.reports / "1-vs-none" / "report.html", old=True),
        written(workspace.inbox / "one.mp4", old=True),
    ]
    planned = tidy.run(workspace, days=90, dry_run=True)
    assert (planned.task_logs, planned.checks, planned.airflow_runs) == (1, 2, 0)
    assert all(path.is_file() for path in gone)

    found = tidy.run(workspace, days=90)
    assert (found.task_logs, found.checks) == (1, 2)
    assert not any(path.parent.exists() for path in gone)
    assert all(path.is_file() for path in kept)
    assert tidy.run(workspace, days=90).task_logs == 0


def test_a_link_among_the_logs_is_not_followed(workspace: Workspace, tmp_path: Path) -> None:
    elsewhere = written(tmp_path / "elsewhere" / "precious.log", old=True)
    workspace.airflow_logs.mkdir(parents=True)
    (workspace.airflow_logs / "latest").symlink_to(elsewhere.parent)
    (workspace.airflow_logs / "latest.log").symlink_to(elsewhere)
    tidy.run(workspace, days=90)
    assert elsewhere.is_file()


def test_of_a_long_log_the_end_stays_and_its_service_goes_on_writing_to_it(workspace: Workspace) -> None:
    workspace.services.mkdir(parents=True, exist_ok=True)
    log = workspace.services / "scheduler.log"
    with log.open("ab") as service:
        service.write(b"old\n" * (3 << 20) + b"last line\n")
        service.flush()
        done = CliRunner().invoke(app, ["tidy", "--workspace", str(workspace.root), "--json"])
        service.write(b"next line\n")
    assert json.loads(done.stdout)["service_logs"] == 1
    assert log.stat().st_size < 2 << 20
    assert log.read_bytes().endswith(b"last line\nnext line\n")


def test_gits_objects_are_packed_and_nothing_of_its_history_is_lost(workspace: Workspace) -> None:
    for number in range(30):
        write_text(workspace.labels_file, "one line of many\n" * 200 + f"{number}\n")
        git.commit(workspace, [workspace.labels_file], f"Labels {number}")
    head = git.revision(workspace)
    git.run(
        workspace, "reset", "--quiet", "--hard", "HEAD~1"
    )  # by mistake: only git's log of what HEAD was knows it now
    loose = git.loose_objects(workspace)

    planned = tidy.run(workspace, days=90, dry_run=True)
    assert (planned.git_objects, planned.git_megabytes) == (loose, None)
    assert git.loose_objects(workspace) == loose

    found = tidy.run(workspace, days=90)
    assert found.git_objects == loose
    assert found.git_megabytes
    assert found.git_megabytes > 0
    assert git.loose_objects(workspace) == 0
    git.run(workspace, "fsck", "--strict")
    assert git.content_at(workspace, head, "data/labels.csv").endswith(b"\n29")
    assert tidy.run(workspace, days=90).git_objects == 0


def test_what_is_committed_while_git_is_packed_is_there_afterwards(workspace: Workspace) -> None:
    def commit(number: int) -> str:
        path = workspace.progress / f"night-{number}.json"
        write_text(path, f"{number}\n")
        return git.commit(workspace, [path], f"Night {number}")

    with ThreadPoolExecutor(2) as pool:
        commits = pool.submit(lambda: [commit(number) for number in range(20)])
        while not commits.done():
            tidy.run(workspace, days=90)
    assert git.run(workspace, "rev-list", "--max-count=20", "HEAD").splitlines() == commits.result()[::-1]
    git.run(workspace, "fsck", "--strict")


def test_of_old_models_only_the_packages_that_an_alias_names_stay_in_the_cache(
    released: Workspace, release: Callable[[Workspace, str], None]
) -> None:
    registry = releases.open_registry(released)
    release(released, "2")
    for version in "123":
        package = registry.download(version, released.model_package(version))
        os.utime(package, (time.time() - OLD_S,) * 2)
    assert tidy.run(released, days=90, dry_run=True).packages.count == 2
    assert tidy.run(released, days=90).packages.count == 2
    assert list(released.model_packages.iterdir()) == [released.model_package("2")]
    again = registry.download("1", released.model_package("1"))
    assert (again / "network.txt").read_text() == "version 1"


def test_what_old_versions_said_in_shadow_goes_unless_an_alias_names_them(
    released: Workspace, release: Callable[[Workspace, str], None]
) -> None:
    release(released, "1")
    shadow.start(released, "2")
    said = {version: released.shadow(version, "2026-01-01-00000000") for version in "123"}
    for file in said.values():
        os.utime(written(file, old=True).parent, (time.time() - OLD_S,) * 2)
    new = written(released.shadow("9", "2026-01-01-00000000"), old=False)
    assert tidy.run(released, days=90, dry_run=True).shadows.count == 1
    assert said["3"].is_file()
    done = CliRunner().invoke(app, ["tidy", "--workspace", str(released.root)])
    assert (
        "Removed: 1 shadow record, 0.0 MB (of versions no longer in shadow; put there again, they judge" in done.stdout
    )
    assert [file.is_file() for file in (*said.values(), new)] == [True, True, False, True]
    assert len(list(released.shadows.iterdir())) == 3


def test_old_lock_files_of_sealed_batches_go_but_for_one_that_somebody_holds(
    workspace: Workspace, seal_tracks: Callable[..., list[ClipRecord]]
) -> None:
    sealed = [workspace.batch(seal_tracks(workspace, clips=2, seed=seed)[0].batch_id) for seed in range(4)]
    free, held, new, half_sealed = sealed
    half_sealed.open.mkdir(parents=True)
    names = [batches.lock_of(batch) for batch in (*sealed, workspace.batch("2026-01-31-0000beef"))]
    for name in names:
        written(workspace.lock_file(name), old=name != batches.lock_of(new))
    with batches.locked(workspace, held, shared=True):
        assert tidy.run(workspace, days=90, dry_run=True).locks == 2
        assert tidy.run(workspace, days=90).locks == 1
    assert [workspace.lock_file(name).exists() for name in names] == [False, True, True, True, True]
    with batches.locked(workspace, free):
        assert workspace.lock_file(batches.lock_of(free)).exists()
    done = CliRunner().invoke(app, ["tidy", "--workspace", str(workspace.root)])
    assert "Removed: 1 lock file of sealed batches." in done.stdout.splitlines()


def refused(workspace: Workspace, number: int, reason: str, night: str) -> Path:
    """Refuse a clip; returns the original as the quarantine keeps it."""
    dropped = written(workspace.inbox / f"{number}.mp4", old=False)
    clip = ClipRecord(
        clip_id=f"{number:020x}", sha256=f"{number:064x}", batch_id="", source_path=f"{number}.mp4", status="quarantined",
        reason=reason, source_group="g",
    )  # fmt: skip
    quarantine.put(workspace, clip, night=night, message="It cannot be used.", original=dropped, suffix=".mp4")
    return workspace.quarantined(clip.clip_id) / "original.mp4"


def test_refused_clips_go_when_that_is_asked_for_and_explain_still_says_why_they_were_refused(
    workspace: Workspace,
) -> None:
    gone = refused(workspace, 1, "truncated", "2026-01-01")
    kept = [
        refused(workspace, 2, "truncated", datetime.now(UTC).date().isoformat()),
        refused(workspace, 3, "unlabelled", "2026-01-01"),
    ]
    index.rebuild(workspace)
    assert tidy.run(workspace, days=30).originals is None
    planned = tidy.run(workspace, days=30, refused_days=30, dry_run=True).originals
    assert planned
    assert planned.count == 1
    assert gone.is_file()

    assert tidy.run(workspace, days=30, refused_days=30).originals == planned
    assert not gone.exists()
    assert all(path.is_file() for path in kept)
    said = "\n".join(explain.run(workspace, workspace.params(), f"{1:020x}").lines())
    assert "refused  truncated: It cannot be used." in said
    assert f"removed from quarantine on {datetime.now(UTC).date()}" in said
    again = tidy.run(workspace, days=30, refused_days=30).originals
    assert again
    assert again.count == 0


def objects(workspace: Workspace) -> int:
    """How many files DVC's cache and the remote hold."""
    folders = (workspace.root / ".dvc" / "cache" / "files", workspace.remote)
    return sum(path.is_file() for folder in folders for path in folder.rglob("*"))


def test_dataset_versions_go_but_for_those_of_the_newest_models_of_aliases_and_the_present_one(
    workspace: Workspace, seal_tracks: Callable[..., list[ClipRecord]], release: Callable[[Workspace, str], None]
) -> None:
    clip = seal_tracks(workspace)[0]
    record(workspace, {clip.clip_id: clip.label or "Fight"}, "ann")
    registry = releases.open_registry(workspace)
    registry.check()
    client = MlflowClient(workspace.mlflow_uri, workspace.mlflow_uri)
    client.create_registered_model(MODEL)
    workspace.write_progress("seal", {})
    made = []
    for number in range(4):
        revision = assemble.run(workspace, workspace.params()).revision
        made.append((revision, git.revision(workspace)))
        row = pq.read_table(workspace.dataset / "train.parquet").to_pylist()[number]
        record(workspace, {row["clip_id"]: "Fight" if row["label"] == "NonFight" else "NonFight"}, "ann")
        if number < 3:
            client.create_model_version(MODEL, source=workspace.root.as_uri(), tags={"dataset_revision": revision})
    release(workspace, "1")
    assert len({revision for revision, _ in made}) == 4
    before = objects(workspace)

    planned = tidy.run(workspace, days=90, newest_datasets=1, dry_run=True).datasets
    assert planned
    assert planned.count == 1
    assert objects(workspace) == before
    assert tidy.run(workspace, days=90, newest_datasets=1).datasets == planned
    assert objects(workspace) < before
    again = tidy.run(workspace, days=90, newest_datasets=1).datasets
    assert again
    assert again.count == 0

    dataset_of = [stored_dataset(workspace, commit) for _, commit in made]
    there = [place.is_file() for place in dataset_of]
    assert there == [True, False, True, True]
    shutil.rmtree(workspace.root / ".dvc" / "cache")
    shutil.rmtree(workspace.dataset)
    with versioning.repository(workspace) as repo:
        repo.pull()
    assert Dataset.read(workspace).revision == made[3][0]


def stored_dataset(workspace: Workspace, commit: str) -> Path:
    """Where the remote has the list of files of the dataset that a commit names."""
    (oid,) = re.findall(r"md5: ([0-9a-f]{32}\.dir)", git.run(workspace, "show", f"{commit}:dvc.lock"))
    return workspace.remote / "files" / "md5" / oid[:2] / oid[2:]


@pytest.mark.slow
def test_as_many_old_runs_as_promised_leave_airflows_database_and_the_last_one_of_a_dag_stays(
    workspace: Workspace,
) -> None:
    environment = services.airflow_environment(workspace, services.Addresses("http://127.0.0.1:0", ""))
    workspace.services.mkdir(parents=True, exist_ok=True)
    services.make_database(workspace, environment)
    with closing(sqlite3.connect(workspace.airflow_database)) as database:
        columns = {row[1]: row for row in database.execute("PRAGMA table_info(dag_run)")}
        needed = {name: 0 for name, row in columns.items() if row[3] and row[4] is None and name != "id"}
        for dag_id, day, run_type in OLD_RUNS:
            facts = needed | {
                "dag_id": dag_id, "run_id": f"{dag_id} {day}", "start_date": f"{day} 02:00:00.000000", "run_type": run_type,
                "logical_date": f"{day} 02:00:00.000000", "run_after": f"{day} 02:00:00.000000", "state": "success",
            }  # fmt: skip
            marks = ", ".join("?" * len(facts))
            database.execute(f"INSERT INTO dag_run ({', '.join(facts)}) VALUES ({marks})", list(facts.values()))
        database.commit()
    assert tidy.run(workspace, days=30, dry_run=True).airflow_runs == 4
    assert tidy.run(workspace, days=30).airflow_runs == 4
    with closing(sqlite3.connect(workspace.airflow_database)) as database:
        left = database.execute("SELECT run_id FROM dag_run ORDER BY run_id").fetchall()
    assert left == [("drift 2026-01-03",), ("shadow 2026-01-01",)]
    assert tidy.run(workspace, days=30, dry_run=True).airflow_runs == 0
