"""`status` and `doctor`: what they say of a workspace, and that every fault comes with a remedy."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from typer.testing import CliRunner

from violence_ops import processes, services, started_with, versioning_remote
from violence_ops.cli.program import app
from violence_ops.deployment import FAILURE, RELEASE
from violence_ops.errors import ServiceUnavailable, WorkspaceError
from violence_ops.files import write_json
from violence_ops.records import ClipRecord
from violence_ops.stages.nightly import extract_poses, ingest, intake, night, validate
from violence_ops.stages.upkeep import doctor, init, status
from violence_ops.store import index
from violence_ops.workspace import Workspace


def test_status_of_an_empty_workspace(workspace: Workspace) -> None:
    result = status.run(workspace)
    assert (result.sealed, result.open, result.champion, result.services) == ([], [], None, {})
    assert any("not running" in line for line in result.lines())


def test_status_counts_the_files_that_wait_in_the_inbox(workspace: Workspace) -> None:
    assert status.run(workspace).inbox == 0
    for name in ("Fight/a.mp4", "b.mp4", "c.mp4.part", "labels.csv"):
        path = workspace.inbox / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("path\n")
    result = status.run(workspace)
    assert result.inbox == result.to_dict()["inbox"] == 3
    assert "inbox       3 files wait" in list(result.lines())


def test_status_counts_batches_and_quarantine(workspace: Workspace, clip_folder: Path) -> None:
    shutil.copytree(clip_folder, workspace.inbox / "Fight")
    (workspace.inbox / "link.mp4").symlink_to("/etc/passwd")
    (batch_id,) = ingest.run(workspace, workspace.params(), night=date(2026, 1, 31)).batch_ids
    result = status.run(workspace)
    assert result.open == [batch_id]
    assert result.quarantine == {"not_a_regular_file": 1}
    before = result.to_dict()
    index.rebuild(workspace)
    assert status.run(workspace).to_dict() == before


def test_status_counts_what_a_killed_run_has_taken_out_of_the_inbox(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("a.mp4", "b.mp4"):
        (workspace.inbox / name).write_text(name)
    with monkeypatch.context() as patch:
        patch.setattr(intake, "decide", killed)
        with pytest.raises(KeyboardInterrupt):
            ingest.run(workspace, workspace.params(), night=date(2026, 1, 31))
    (workspace.inbox / "c.mp4").write_text("c")
    assert status.run(workspace).inbox == 3
    ingest.run(workspace, workspace.params(), night=date(2026, 2, 1))
    assert status.run(workspace).inbox == 0


def test_status_names_a_claim_that_cannot_be_read(workspace: Workspace) -> None:
    plan = workspace.claims / "2026-01-31-ab" / "plan.json"
    plan.parent.mkdir(parents=True)
    plan.write_text("{")
    (problem,) = [line for line in status.run(workspace).lines() if line.startswith("PROBLEM")]
    assert f"{plan} is damaged" in problem


def test_status_names_a_batch_whose_sealing_was_not_finished(workspace: Workspace) -> None:
    (workspace.inbox / "junk.mp4").write_text("no video")
    (batch_id,) = night.run(workspace, workspace.params(), night=date(2026, 1, 31)).batches
    assert not any(line.startswith("PROBLEM") for line in status.run(workspace).lines())
    subprocess.run(["git", "-C", workspace.root, "tag", "--delete", f"batch/{batch_id}"], check=True)
    (sentence,) = status.run(workspace).unfinished
    assert f"PROBLEM     {sentence}" in list(status.run(workspace).lines())
    remedy = shlex.split(re.findall("`violence-ops (.+?)`", sentence)[0])
    assert CliRunner().invoke(app, [*remedy, "--workspace", str(workspace.root)]).exit_code == 0
    assert status.run(workspace).unfinished == []


def test_status_says_on_one_line_what_became_of_the_newest_batch(
    workspace: Workspace, clip_folder: Path, seal_whole: Callable[..., list[ClipRecord]]
) -> None:
    def line() -> str:
        (found,) = [line for line in status.run(workspace).lines() if line.startswith("last batch")]
        return found

    assert line() == "last batch  none"
    seal_whole(workspace, clips=4, night="2026-01-30")
    assert line() == "last batch  2026-01-30-00000000: sealed, 4 accepted"
    shutil.copy(clip_folder / "clip0.mp4", workspace.inbox)
    (workspace.inbox / "junk.mp4").write_text("no video")
    (batch_id,) = ingest.run(workspace, workspace.params(), night=date(2026, 1, 31)).batch_ids
    assert line() == f"last batch  {batch_id}: open, 2 claimed"
    validate.run(workspace, workspace.params())
    assert line() == f"last batch  {batch_id}: open, 1 accepted, 1 quarantined (unreadable)"
    seal_whole(workspace, clips=4, night="2026-01-31", seed=1)
    assert batch_id in line()  # of one night the one that is not done
    done = CliRunner().invoke(app, ["status", "--json", "--workspace", str(workspace.root)])
    wanted = {
        "batch_id": batch_id,
        "state": "open",
        "clips": {"accepted": 1, "quarantined": 1},
        "refused": {"unreadable": 1},
    }
    assert json.loads(done.stdout)["last_batch"] == wanted
    workspace.batch(batch_id).manifest.write_text("{")
    assert line() == f"last batch  {batch_id}: open, clips not known"


def test_status_sums_over_the_batches_of_the_last_night(
    workspace: Workspace, clip_folder: Path, seal_whole: Callable[..., list[ClipRecord]]
) -> None:
    def line() -> str:
        return next((line for line in status.run(workspace).lines() if line.startswith("last night")), "")

    assert line() == ""
    seal_whole(workspace, clips=4, night="2026-01-30")
    assert line() == "last night  2026-01-30: 1 batch, 4 accepted, 0 quarantined"
    for seed in (1, 2):
        seal_whole(workspace, clips=4, night="2026-01-31", seed=seed)
    (workspace.inbox / "junk.mp4").write_text("no video")
    (batch_id,) = ingest.run(workspace, workspace.params(), night=date(2026, 1, 31)).batch_ids
    validate.run(workspace, workspace.params())
    assert line() == "last night  2026-01-31: 3 batches (1 open), 8 accepted, 1 quarantined (1 unreadable)"
    assert status.run(workspace).to_dict()["last_night"] == {
        "night": "2026-01-31",
        "batches": 3,
        "open": 1,
        "unknown": 0,
        "clips": {"accepted": 8, "quarantined": 1},
        "refused": {"unreadable": 1},
    }
    workspace.batch(batch_id).manifest.write_text("{")
    assert line().endswith("3 batches (1 open), 8 accepted, 0 quarantined; clips of 1 batch not known")


def test_status_names_the_newest_batches_and_says_how_many_there_are_before(
    workspace: Workspace, seal_tracks: Callable[..., list[ClipRecord]]
) -> None:
    nights = [f"2026-01-{day:02}" for day in range(1, 8)]
    ids = [seal_tracks(workspace, clips=1, night=night)[0].batch_id for night in nights]
    (workspace.inbox / "a.mp4").write_text("a")
    (opened,) = ingest.run(workspace, workspace.params(), night=date(2026, 1, 31)).batch_ids
    (line,) = [line for line in status.run(workspace).lines() if line.startswith("batches")]
    newest = ", ".join(reversed(ids[2:]))
    more = "and 2 before, which `violence-ops status --json` lists"
    assert line == f"batches     7 sealed ({newest} {more}), 1 open ({opened})"
    assert status.run(workspace).to_dict()["sealed"] == ids


def test_of_several_batches_of_one_night_the_one_that_was_sealed_last_is_the_newest(
    workspace: Workspace, seal_whole: Callable[..., list[ClipRecord]]
) -> None:
    for seed, sealed_at in ((1, "2026-02-01T02:30:00+00:00"), (2, "2026-02-01T02:10:00+00:00")):
        batch = workspace.batch(seal_whole(workspace, clips=4, seed=seed)[0].batch_id)
        content = json.loads(batch.manifest.read_text())
        write_json(batch.manifest, content | {"run": content["run"] | {"sealed_at": sealed_at}})
    newest = status.run(workspace).last_batch
    assert newest is not None
    assert newest.batch_id == "2026-01-31-00000001"
    assert status.run(workspace).sealed == ["2026-01-31-00000002", "2026-01-31-00000001"]
    assert "batches     2 sealed (2026-01-31-00000001, 2026-01-31-00000002), 0 open" in list(
        status.run(workspace).lines()
    )


def test_the_exit_code_of_status_is_what_its_help_says(workspace: Workspace) -> None:
    def exit_code() -> int:
        return CliRunner().invoke(app, ["status", "--workspace", str(workspace.root)]).exit_code

    said = " ".join(CliRunner().invoke(app, ["status", "--help"], env={"COLUMNS": "200"}).stdout.split())
    assert "Exit code 1 if it is not known for certain which version is champion, or git is on no branch." in said
    assert exit_code() == 0  # though there is nothing that could be released
    subprocess.run(["git", "-C", workspace.root, "checkout", "--quiet", "--detach"], check=True)
    assert exit_code() == 1
    subprocess.run(["git", "-C", workspace.root, "checkout", "--quiet", "-"], check=True)
    (workspace.root / "mlflow.db").write_text("garbage" * 1000)
    assert exit_code() == 1


def test_a_healthy_machine_has_no_fault(workspace: Workspace) -> None:
    result = doctor.run(workspace.root)
    assert [finding for finding in result.findings if not finding.ok] == []


def test_doctor_says_which_folders_have_grown(workspace: Workspace) -> None:
    for path, megabytes in (
        (workspace.quarantine / "a" / "original.mp4", 2),
        (workspace.mlflow_artifacts / "1" / "model", 3),
    ):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * (megabytes << 20))
    (sizes,) = [finding for finding in doctor.run(workspace.root).findings if finding.what == "sizes"]
    assert sizes.found == "mlartifacts 3 MB, quarantine 2 MB"


def test_doctor_names_the_bad_key_of_params(workspace: Workspace) -> None:
    workspace.params_file.write_text(
        workspace.params_file.read_text("utf-8").replace("shard_size:", "shard_sise:"), "utf-8"
    )
    result = doctor.run(workspace.root)
    assert not result.healthy
    assert any("ingest.shard_sise" in line for line in result.lines())


def test_doctor_names_a_family_that_cannot_be_trained_before_any_night(workspace: Workspace) -> None:
    text = workspace.params_file.read_text("utf-8")
    workspace.params_file.write_text(text.replace("family: stgcnpp ", "family: stgcn "), "utf-8")
    assert any("train.family is 'stgcn'" in line for line in doctor.run(workspace.root).lines())


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ({"pose.weights": "rtmo_m"}, "`violence-ops weights pull`"),
        ({"pose.device": "cuda"}, "set pose.device to cpu"),
        ({"pose.source": "topdown"}, "set pose.detector and pose.keypoints"),
        ({"pose.backend": "onnxruntime", "pose.precision": "int8"}, "or another pose.backend"),
    ],
    ids=["weights not pulled", "no GPU", "no models", "no such precision"],
)
def test_doctor_finds_what_would_keep_the_night_from_looking_at_a_clip(
    new_workspace: Callable[..., Workspace], setting: dict[str, str], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    workspace = new_workspace(**setting)
    (fault,) = [finding for finding in doctor.run(workspace.root).findings if not finding.ok]
    assert fault.what == "poses"
    assert remedy in fault.remedy


def test_a_full_gpu_is_a_fault_with_a_remedy_and_no_traceback(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.\nSee the documentation.")

    monkeypatch.setattr(extract_poses, "open_source", full)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", full)
    faults = [finding for finding in doctor.run(workspace.root).findings if not finding.ok]
    assert [(fault.what, fault.found) for fault in faults] == [
        (what, "OutOfMemoryError: CUDA out of memory. Tried to allocate 20 MiB.") for what in ("GPU", "poses")
    ]
    assert all("`nvidia-smi`" in fault.remedy for fault in faults)


@pytest.mark.parametrize(
    ("environment", "fault"),
    [
        ({"AIRFLOW__CORE__EXECUTOR": "CeleryExecutor"}, None),
        ({"AIRFLOW__CORE__EXECUTOR": "CeleryExecutor", "VIOLENCE_OPS_DEVICE": "cuda"}, "pose.device to cpu"),
        ({"AIRFLOW__CORE__EXECUTOR": "CeleryExecutor", "VIOLENCE_OPS_DEVICE": "cpu"}, "pose.device to cpu"),
        ({"AIRFLOW__CORE__EXECUTOR": "LocalExecutor"}, "pose.device to cpu"),
    ],
    ids=["controller", "GPU worker", "worker without a GPU", "one machine"],
)
def test_a_gpu_that_only_the_workers_for_poses_have_is_no_fault_elsewhere(
    new_workspace: Callable[..., Workspace],
    environment: dict[str, str],
    fault: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    workspace = new_workspace(**{"pose.device": "cuda"})
    (poses,) = [finding for finding in doctor.run(workspace.root).findings if finding.what == "poses"]
    assert poses.ok == (fault is None)
    assert (fault or "") in poses.remedy
    assert fault or "workers of the queue gpu find the poses: ask there too" in poses.found
    assert fault or all(
        f" exec {worker} violence-ops doctor" in poses.found for worker in ("worker-gpu", "worker-processor")
    )


def test_a_controller_whose_weights_are_not_there_has_a_fault_of_its_own(
    new_workspace: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    workspace = new_workspace(**{"pose.device": "cuda", "pose.weights": "rtmo_m"})
    (fault,) = [finding for finding in doctor.run(workspace.root).findings if not finding.ok]
    assert "`violence-ops weights pull`" in fault.remedy


def test_doctor_finds_a_remote_that_is_gone_or_does_not_answer_and_does_not_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versioning_remote, "_REACH_S", 2.0)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    (tmp_path / "nas").mkdir()
    init.run(tmp_path / "far", remote_url=str(tmp_path / "nas" / "dvc"))
    assert doctor.run(tmp_path / "far").healthy
    (tmp_path / "nas").rmdir()
    assert "DVC remote" in {finding.what for finding in doctor.run(tmp_path / "far").findings if not finding.ok}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        init.run(tmp_path / "silent", remote_url="s3://store/x", remote_endpoint=address)
        (fault,) = [finding for finding in doctor.run(tmp_path / "silent").findings if not finding.ok]
    assert "s3://store/x cannot be reached (no answer within 2 s)" in fault.remedy


def test_doctor_shows_no_password_of_a_remote(tmp_path: Path) -> None:
    """As an earlier version wrote it down."""
    init.run(tmp_path / "w", remote_url="https://127.0.0.1:9/dvc")
    config = tmp_path / "w" / ".dvc" / "config"
    config.write_text(config.read_text().replace("https://", "https://bob:hunter2@"))
    (fault,) = [finding for finding in doctor.run(tmp_path / "w").findings if not finding.ok]
    assert "https://127.0.0.1:9/dvc cannot be reached" in fault.remedy
    assert "hunter2" not in str(fault)


def test_a_workspace_that_may_not_be_written_is_a_fault_and_is_said_by_status(
    workspace: Workspace, close: Callable[[Path], None]
) -> None:
    status.run(workspace)
    for journal in workspace.root.glob("catalog.db-*"):
        journal.unlink()
    close(workspace.root)
    faults = {finding.what: finding for finding in doctor.run(workspace.root).findings if not finding.ok}
    assert faults.keys() >= {"workspace", "catalog"}
    assert str(workspace.root) in faults["workspace"].found
    with pytest.raises(ServiceUnavailable, match="get the right to write there"):
        status.run(workspace)


@pytest.mark.parametrize(
    ("file", "what", "remedy"),
    [
        ("catalog.db", "catalog", "`violence-ops catalog rebuild`"),
        ("mlflow.db", "champion", "backup"),
        (".services/addresses.json", "services", "`violence-ops up`"),
    ],
)
def test_doctor_finds_a_damaged_file(workspace: Workspace, file: str, what: str, remedy: str) -> None:
    (workspace.root / file).parent.mkdir(exist_ok=True)
    (workspace.root / file).write_text("garbage" * 1000)
    (fault, *_) = [
        finding for finding in doctor.run(workspace.root).findings if not finding.ok and finding.what == what
    ]
    assert remedy in fault.remedy


def test_doctor_makes_no_catalog_and_no_registry(workspace: Workspace) -> None:
    assert doctor.run(workspace.root).healthy
    assert not list(workspace.root.glob("*.db*"))


def test_doctor_without_a_workspace_says_how_to_make_one(tmp_path: Path) -> None:
    result = doctor.run(tmp_path)
    assert not result.healthy
    assert any("violence-ops init" in line for line in result.lines())


def test_a_service_that_died_is_seen(workspace: Workspace) -> None:
    for name in services.NAMES:
        processes.start(workspace.services, name, ["true"], {"PATH": "/bin:/usr/bin"})
    while any(service.is_alive for service in processes.recorded(workspace.services, services.NAMES)):
        time.sleep(0.05)
    assert set(services.inspect(workspace).dead) == set(services.NAMES)
    assert not doctor.run(workspace.root).healthy
    assert set(status.run(workspace).services) == set(services.NAMES)
    services.down(workspace)
    assert services.inspect(workspace).dead == ()


@pytest.mark.parametrize(("what", "begin"), [("releases", ""), ("failures", "ALERT_")])
def test_doctor_asks_the_settings_that_airflow_was_started_with_and_not_only_its_own_shells(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, what: str, begin: str
) -> None:
    def told() -> tuple[bool, str]:
        (one,) = [one for one in doctor.run(workspace.root).findings if one.what == f"told of {what}"]
        return one.ok, one.found if one.ok else one.remedy

    def set_webhook(secret: str) -> None:
        monkeypatch.setenv(f"VIOLENCE_OPS_{begin}WEBHOOK_URL", "https://pager.example/t0ken")
        monkeypatch.setenv(f"VIOLENCE_OPS_{begin}WEBHOOK_SECRET", secret)

    processes.start(workspace.services, "scheduler", ["sleep", "600"], {"PATH": "/bin:/usr/bin"})
    try:
        assert "An earlier version started Airflow" in told()[1]
        started_with.note(workspace, RELEASE, FAILURE)  # as `up` does
        assert told() == (True, "nobody")
        set_webhook("s3cret")
        assert not told()[0]
        assert "tells nobody, and this shell has others (webhook): run `violence-ops down` and" in told()[1]
        started_with.note(workspace, RELEASE, FAILURE)
        assert told() == (True, "webhook")
        set_webhook("another")
        assert "tells webhook, and this shell has others (webhook)" in told()[1]
        for name in ("URL", "SECRET"):
            monkeypatch.delenv(f"VIOLENCE_OPS_{begin}WEBHOOK_{name}")
        assert told() == (True, "webhook by the running Airflow, nobody by this shell's settings")
        noted = workspace.service_settings
        assert noted.stat().st_mode & 0o777 == 0o600
        assert not {one for one in ("t0ken", "s3cret") if one in noted.read_text()}
    finally:
        services.down(workspace)
    assert told() == (True, "nobody")


def test_asking_airflow_that_is_not_up_says_how_to_start_it(workspace: Workspace) -> None:
    with pytest.raises(ServiceUnavailable, match="violence-ops up"):
        services.api(workspace)


class _Airflow(BaseHTTPRequestHandler):
    """What Airflow's REST API would say of one run of `nightly_ingestion`, to whoever has the password."""

    tasks: ClassVar[list[dict[str, str]]] = []

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = asked == {"username": "admin", "password": "hunter2"}
        self._answer({"access_token": "t"}, 201 if known else 401)

    def do_GET(self) -> None:
        runs = [{"state": "failed", "run_after": "2026-11-23T02:00:00Z"}] if "nightly_ingestion" in self.path else []
        said = {"dag_runs": runs, "import_errors": [], "total_entries": len(runs)}
        if "/dags/~/dagRuns/~/taskInstances?state=queued&state=running&" in self.path:
            said = {"task_instances": self.tasks, "total_entries": len(self.tasks)}
        if "/hitlDetails?response_received=false&" in self.path:
            asked = {"subject": "Release version 2?", "task_instance": {"dag_run_id": "manual__1"}}
            said = {"hitl_details": [asked], "total_entries": 1}
        self._answer({"scheduler": {"status": "healthy"}} if self.path.endswith("monitor/health") else said, 200)

    def _answer(self, content: object, code: int) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture
def deployed(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """The workspace in a container beside an Airflow that another container runs."""
    listening = HTTPServer(("127.0.0.1", 0), _Airflow)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    write_json(tmp_path / "passwords.json", {"admin": "hunter2"})
    monkeypatch.setenv("VIOLENCE_OPS_AIRFLOW_URL", f"http://127.0.0.1:{listening.server_port}")
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE", str(tmp_path / "passwords.json"))
    yield Workspace.open(workspace.root)
    listening.shutdown()
    listening.server_close()


def test_status_and_doctor_see_the_airflow_of_another_container(deployed: Workspace, tmp_path: Path) -> None:
    seen = status.run(deployed)
    assert seen.services["Airflow"] == deployed.deployment.airflow_url
    assert seen.runs == {"nightly_ingestion": "failed, 2026-11-23T02:00:00Z"}
    assert "question    Release version 2? (Airflow, manual__1)" in list(seen.lines())
    assert [one.found for one in doctor.run(deployed.root).findings if one.what == "Airflow"] == [
        f"healthy at {deployed.deployment.airflow_url}"
    ]
    for content, said in (
        ({"admin": "wrong"}, "refuses the password of admin"),
        (None, "names no file with the passwords"),
    ):
        (tmp_path / "passwords.json").unlink()
        if content:
            write_json(tmp_path / "passwords.json", content)
        assert said in status.run(deployed).runs["Airflow"]
        assert any(said in one.remedy for one in doctor.run(deployed.root).findings if not one.ok)
    with pytest.raises(ServiceUnavailable, match="violence-ops up"):
        services.api(deployed)  # what `up` starts is never another Airflow


@pytest.mark.parametrize("fault", ["none", "no passwords", "wrong password", "no answer", "no address"])
def test_the_password_in_the_address_of_airflow_is_never_said(
    deployed: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    address = str(deployed.deployment.airflow_url)
    if fault == "no passwords":
        (tmp_path / "passwords.json").unlink()
    elif fault == "wrong password":
        write_json(tmp_path / "passwords.json", {"admin": "wrong"})
    elif fault in ("no answer", "no address"):
        address = f"http://127.0.0.1:{1 if fault == 'no answer' else 'port'}"
    monkeypatch.setenv("VIOLENCE_OPS_AIRFLOW_URL", address.replace("//", "//bob:s3cret@"))
    seen = Workspace.open(deployed.root)
    said = f"{seen.deployment} {status.run(seen)} {doctor.run(seen.root)}"
    assert address in said
    assert not re.search("bob|s3cret", said)


def test_doctor_finds_tasks_that_no_worker_takes_and_not_those_that_wait_for_a_busy_one(
    deployed: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def task(state: str, queue: str, hours: float) -> dict[str, str]:
        when = datetime.now(UTC) - timedelta(hours=hours)
        return {"state": state, "queue": queue, "queued_when": when.isoformat().replace("+00:00", "Z")}

    def queues(*tasks: dict[str, str]) -> tuple[bool, str]:
        monkeypatch.setattr(_Airflow, "tasks", list(tasks))
        (one,) = [one for one in doctor.run(deployed.root).findings if one.what == "queues"]
        return one.ok, one.found if one.ok else one.remedy

    assert queues() == (True, "0 tasks running, 0 waiting")
    new, old, lost = task("queued", "cpu", 0.9), task("queued", "cpu", 5.0), task("queued", "gpu", 2.0)
    assert queues(new, old, task("running", "cpu", 3.0)) == (True, "1 task running, 2 waiting")
    ok, said = queues(new, old, lost, lost, task("running", "cpu", 3.0))
    assert not ok
    assert "more than 1 h, tasks have waited in queues of which none runs: gpu (2 tasks); start a worker" in said
    assert f"clear these tasks at {deployed.deployment.airflow_url}" in said
    assert "cpu (1 task), gpu (1 task);" in queues(new, old, lost)[1]


def test_a_port_that_is_taken_is_replaced() -> None:
    with socket.socket() as taken:
        taken.bind((services.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert services._free_port(port) != port


def test_airflow_inherits_no_setting_of_another_airflow(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "True")
    monkeypatch.setenv("AIRFLOW_CONN_PRODUCTION", "postgresql://elsewhere")
    environment = services.airflow_environment(
        workspace, services.Addresses("http://127.0.0.1:1", "http://127.0.0.1:2")
    )
    assert environment["AIRFLOW__CORE__LOAD_EXAMPLES"] == "False"
    assert "AIRFLOW_CONN_PRODUCTION" not in environment
    assert (workspace.services / "keys.json").stat().st_mode & 0o777 == 0o600


def test_a_wrong_dags_folder_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIOLENCE_OPS_DAGS", str(tmp_path))
    with pytest.raises(WorkspaceError, match="VIOLENCE_OPS_DAGS"):
        services.dags_folder()


def test_status_lists_the_clips_in_quarantine_with_reason_night_and_path(workspace: Workspace) -> None:
    (workspace.inbox / "yard").mkdir()
    (workspace.inbox / "yard" / "junk.mp4").write_text("no video")
    done = CliRunner().invoke(app, ["night", "--night", "2026-01-31", "--workspace", str(workspace.root)])
    assert "`violence-ops status --quarantine` lists them" in done.stderr
    listed = CliRunner().invoke(app, ["status", "--quarantine", "--workspace", str(workspace.root)]).stdout.splitlines()
    assert re.fullmatch(r"[0-9a-f]{20}  unreadable  2026-01-31  yard/junk\.mp4", listed[0])
    assert listed[1:] == ["1 clip is in quarantine: `violence-ops explain CLIP` says why."]
    (refused,) = status.run(workspace, refused=True).to_dict()["refused"]
    assert refused == {
        "clip_id": listed[0][:20], "reason": "unreadable", "night": "2026-01-31", "source_path": "yard/junk.mp4",
    }  # fmt: skip
    assert any("1 unreadable; `violence-ops status --quarantine`" in line for line in status.run(workspace).lines())
