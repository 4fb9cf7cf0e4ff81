"""`violence-ops doctor`: what could keep this machine or workspace from working, each fault with its remedy."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Final

from violence_ops import services, started_with, versioning_remote
from violence_ops.catalog import Catalog, is_unborn
from violence_ops.deployment import FAILURE, RELEASE, Occasion, is_gpu_work_elsewhere
from violence_ops.errors import NoGpu, ServiceUnavailable, UserError, WorkspaceError
from violence_ops.stages.nightly import extract_poses
from violence_ops.stages.releasing import notify
from violence_ops.stages.upkeep import alert
from violence_ops.store import releases
from violence_ops.wording import counted
from violence_ops.workspace import Workspace

_LEAST_DISK_GIB: Final = 5.0
_LEAST_MEMORY_GIB: Final = 4.0
_LONGEST_WAIT_H: Final = 1
_UNFORESEEN: Final = (
    "fix what it names; if that is memory, free some (`nvidia-smi` lists what uses a GPU's), then check again"
)
_ON_WORKERS: Final = (
    "no GPU here, but Celery's workers of the queue gpu find the poses: ask there too, with "
    "`docker compose -f docker/compose.yaml exec worker-gpu violence-ops doctor`, or where docker/without-gpu.yaml is in use with "
    "`docker compose -f docker/compose.yaml -f docker/without-gpu.yaml exec worker-processor violence-ops doctor`"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `remedy` says what to do about a fault."""

    what: str
    found: str
    ok: bool
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class DoctorResult:
    """All findings; `healthy` if none is a fault."""

    findings: list[Finding]

    @property
    def healthy(self) -> bool:
        return all(finding.ok for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        return {"healthy": self.healthy, "findings": [asdict(finding) for finding in self.findings]}

    def lines(self) -> Iterator[str]:
        width = max(len(finding.what) for finding in self.findings)
        for finding in self.findings:
            remedy = "" if finding.ok else f"  ->  {finding.remedy}"
            yield f"{'ok   ' if finding.ok else 'FAULT'}  {finding.what:<{width}}  {finding.found}{remedy}"


def run(workspace: Path | None = None) -> DoctorResult:
    """Look at this machine and, if there is one, at the workspace; changes nothing and raises nothing."""
    findings = [_python(), _packages(), _ffmpeg(), _device(), _git(), _memory()]
    try:
        opened = Workspace.open(workspace)
        findings += [
            _writable(opened),
            _params(opened),
            _poses(opened),
            _disk(opened.root),
            _sizes(opened),
            _catalog(opened),
        ]
        findings += [_remote(opened), _champion(opened), *_told(opened), *_services(opened)]
    except UserError as error:
        findings += [_weights(), _disk(Path.cwd()), Finding("workspace", "none here", workspace is None, str(error))]
    return DoctorResult(findings)


def _python() -> Finding:
    remedy = "install Python 3.11 and run `make setup`"
    return Finding("Python", platform.python_version(), sys.version_info[:2] == (3, 11), remedy)


def _packages() -> Finding:
    """Every package that pyproject.toml pins to one version is installed in that version."""
    pinned = [
        line.partition(";")[0].strip()
        for line in requires("violence-ops") or ()
        if "==" in line and "extra" not in line
    ]
    wrong = []
    for requirement in pinned:
        name, _, wanted = requirement.partition("==")
        try:
            installed = version(name).partition("+")[0]
        except PackageNotFoundError:
            installed = "missing"
        if installed != wanted:
            wrong.append(f"{name} {installed} instead of {wanted}")
    return Finding("packages", ", ".join(wrong) or ", ".join(pinned), not wrong, "run `make setup`")


def _ffmpeg() -> Finding:
    import av

    versions = {name: ".".join(map(str, number)) for name, number in av.library_versions.items()}
    decoders = [name for name in ("h264", "hevc", "mpeg4", "mjpeg") if name not in av.codecs_available]
    found = f"PyAV {av.__version__}, libavcodec {versions['libavcodec']}"
    found += f", without {', '.join(decoders)}" if decoders else ""
    return Finding("FFmpeg", found, not decoders, "reinstall PyAV's wheel (`make setup`), which brings FFmpeg")


def _device() -> Finding:
    import torch

    def look() -> str:
        facts = torch.cuda.get_device_properties(0)
        return f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, torch {torch.__version__}"

    if torch.cuda.is_available():
        return _finding("GPU", look)
    idle = shutil.which("nvidia-smi") is not None
    remedy = "torch cannot use this machine's GPU: update its driver, or reinstall torch (`make setup`)"
    return Finding("GPU", f"none, {os.cpu_count()} CPU cores, torch {torch.__version__}", not idle, remedy)


def _weights() -> Finding:
    from violence_ops.stages.poses import weights

    return _finding("pose weights", lambda: "{path}, sha256 {sha256:.12}".format(**weights.path()))


def _git() -> Finding:
    program = shutil.which("git")
    if program is None:
        return Finding("git", "missing", False, "install it (Debian: git)")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return Finding("git", f"{done.stdout.strip()}, DVC {version('dvc')}", done.returncode == 0, "reinstall git")


def _memory() -> Finding:
    import psutil

    free = psutil.virtual_memory().available / 2**30
    return Finding("memory", f"{free:.1f} GiB free", free >= _LEAST_MEMORY_GIB, f"free {_LEAST_MEMORY_GIB:.0f} GiB")


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / 2**30
    remedy = f"a night needs room for its clips: free {_LEAST_DISK_GIB:.0f} GiB on the disk of {folder}"
    return Finding("disk", f"{free:.1f} GiB free at {folder}", free >= _LEAST_DISK_GIB, remedy)


def _sizes(workspace: Workspace) -> Finding:
    """What grows, the largest first; one that takes less than a megabyte is left out."""
    sizes = {str(folder.relative_to(workspace.root)): _size(folder) >> 20 for folder in workspace.growing}
    largest = sorted((item for item in sizes.items() if item[1]), key=lambda item: -item[1])
    found = ", ".join(f"{name} {megabytes:,} MB" for name, megabytes in largest)
    return Finding("sizes", found or "less than 1 MB each", True)


def _size(folder: Path) -> int:
    """The bytes of the disk that the files below a folder take; links are not followed."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # removed meanwhile
                total += os.lstat(os.path.join(path, name)).st_blocks * 512
    return total


def _writable(workspace: Workspace) -> Finding:
    folders = (
        workspace.root, workspace.inbox, workspace.work, workspace.data, workspace.batches, workspace.quarantine, workspace.reports,
    )  # fmt: skip
    closed = [str(folder) for folder in folders if folder.exists() and not os.access(folder, os.W_OK | os.X_OK)]
    found = f"no right to write to {', '.join(closed)}" if closed else f"{workspace.root} may be written"
    return Finding(
        "workspace", found, not closed, "give the user that runs violence-ops that right, or mount it for writing"
    )


def _catalog(workspace: Workspace) -> Finding:
    def look() -> str:
        if is_unborn(workspace.catalog_url):
            return "not made yet"
        with Catalog(workspace.catalog_url) as catalog:
            counts = catalog.counts()
        return f"{counted(sum(counts['status'].values()), 'clip')} in {counted(sum(counts['batches'].values()), 'batch', 'batches')}"

    return _finding("catalog", look)


def _params(workspace: Workspace) -> Finding:
    def look() -> str:
        schedule = workspace.params().schedule
        return f"valid, {schedule.nightly} {schedule.timezone} is the nightly schedule"

    return _finding("params.yaml", look)


def _poses(workspace: Workspace) -> Finding:
    """Open what the night finds people with, as `extract-poses` does; only its files if the GPU is another worker's."""

    def look() -> str:
        params = workspace.params().pose
        name = extract_poses.source_name(params)
        try:
            source = extract_poses.open_source(params)
        except NoGpu:
            if not is_gpu_work_elsewhere():
                raise
            return f"{name}, sha256 {extract_poses.source_sha256(params):.12}, {_ON_WORKERS}"
        return f"{name} on {source.device}, sha256 {source.sha256:.12}"

    return _finding("poses", look)


def _remote(workspace: Workspace) -> Finding:
    return _finding("DVC remote", lambda: versioning_remote.reached(workspace))


def _told(workspace: Workspace) -> Iterator[Finding]:
    yield _finding("told of releases", lambda: _told_by(workspace, RELEASE, notify.receivers(workspace)))
    yield _finding("told of failures", lambda: _told_by(workspace, FAILURE, alert.receivers(workspace)))


def _told_by(workspace: Workspace, occasion: Occasion, receivers: list[notify.Receiver]) -> str:
    """Who is told, by the Airflow that `up` has started if it runs, else by this process's settings.

    Raises WorkspaceError if both have settings and these differ, or Airflow's are not known.
    """
    here = ", ".join(receiver.name for receiver in receivers) or "nobody"
    if workspace.deployment.airflow_url or not services.inspect(workspace).alive:
        return here
    theirs, own = started_with.noted(workspace, occasion), started_with.own(occasion)
    if theirs == own:
        return here
    again = "run `violence-ops down` and `violence-ops up` in a shell that has the right ones"
    if theirs is None:
        raise WorkspaceError(f"An earlier version started Airflow, so its settings are not known: {again}.")
    names = {"webhook": occasion.variables[0], "hook": occasion.variables[2]}
    there = ", ".join(name for name, variable in names.items() if variable in theirs) or "nobody"
    if own:
        raise WorkspaceError(
            f"The running Airflow, by the settings that it was started with, tells {there}, and this shell has others ({here}): {again}."
        )
    return f"{there} by the running Airflow, nobody by this shell's settings"


def _champion(workspace: Workspace) -> Finding:
    return _finding("champion", lambda: f"{releases.champion(workspace) or 'none'}, in the ledger as in MLflow")


def _services(workspace: Workspace) -> Iterator[Finding]:
    if workspace.deployment.airflow_url:
        yield _finding("Airflow", lambda: _airflow(workspace, "its services"))
        yield _finding("queues", lambda: _queues(workspace))
        return
    try:
        state = services.inspect(workspace)
    except UserError as error:
        yield Finding("services", "not usable", False, str(error))
        return
    remedy = f"run `violence-ops up` again; the logs are in {workspace.services}"
    if state.addresses is None and not state.dead:
        yield Finding("services", "not running", True)
        return
    for name in services.NAMES:
        yield Finding(name, "running" if name in state.alive else "dead", name in state.alive, remedy)
    if state.is_up:
        yield _finding("Airflow", lambda: _airflow(workspace, str(workspace.services)))
        yield _finding("queues", lambda: _queues(workspace))


def _airflow(workspace: Workspace, logs: str) -> str:
    with services.watched_api(workspace) as api:
        sick = [name for name, status in api.health().items() if status != "healthy"]
        broken = list(api.import_errors())
    if sick or broken:
        raise UserError(f"not healthy: {', '.join(sick + broken)}; see the logs of {logs}.")
    return f"healthy at {api.address}"


def _queues(workspace: Workspace) -> str:
    """How many tasks run and wait. Raises ServiceUnavailable for a queue from which nobody takes any.

    That tasks wait for hours is no fault while others of their queue run: its workers are busy.
    """
    with services.watched_api(workspace) as api:
        tasks = api.tasks_in("queued", "running")
    waiting = [task for task in tasks if task["state"] == "queued"]
    busy = {task["queue"] for task in tasks if task["state"] == "running"}
    latest = datetime.now(UTC) - timedelta(hours=_LONGEST_WAIT_H)
    stuck = Counter(
        task["queue"]
        for task in waiting
        if task["queue"] not in busy and datetime.fromisoformat(task["queued_when"]) < latest
    )
    if stuck:
        queues = ", ".join(f"{queue} ({counted(count, 'task')})" for queue, count in sorted(stuck.items()))
        raise ServiceUnavailable(
            f"for more than {_LONGEST_WAIT_H} h, tasks have waited in queues of which none runs: {queues}; start a worker for each, or if "
            f"one is there, clear these tasks at {api.address}, as they were lost on their way to it."
        )
    return f"{counted(len(tasks) - len(waiting), 'task')} running, {len(waiting)} waiting"


def _finding(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, look(), True)
    except UserError as error:
        return Finding(what, "not usable", False, str(error))
    except Exception as error:  # a full GPU, or whatever else a library meets
        first = str(error).strip().partition("\n")[0]
        return Finding(what, f"{type(error).__name__}: {first}", False, _UNFORESEEN)
