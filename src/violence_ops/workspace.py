"""Where things lie in a workspace, and locks.

A workspace is a git + DVC repository of its own; every path in it is named here and nowhere else.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final, Self

from typing_extensions import TypedDict

from violence_ops.deployment import Deployment
from violence_ops.errors import UsageError, WorkspaceError
from violence_ops.files import fingerprint, read_json, write_json
from violence_ops.folders import Batch, ReportFolder, check_clip_id
from violence_ops.params import Params, load_params

_BATCH_ID: Final = re.compile(r"\d{4}-\d{2}-\d{2}-[0-9a-f]{8}")
_REPORT: Final = re.compile(r"[0-9]+-vs-([0-9]+|none)")
_REVIEW: Final = re.compile(r"[0-9a-f]{12}")
_PARAMS: Final = "params.yaml"
_DVC: Final = ".dvc"


class _Progress(TypedDict, total=False):
    report: str
    revision: str
    dataset_revision: str
    model_version: str


def version_order(name: str) -> list[int | str]:
    """What versions are sorted by: `v2` comes before `v10`."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", name)]


def _named() -> Path | None:
    """The workspace that the environment names."""
    name = os.environ.get("VIOLENCE_OPS_WORKSPACE")
    return Path(name) if name else None


def _is_at(path: Path, opened: IO[str]) -> bool:
    """Whether an open file is still the one at that path."""
    try:
        return os.path.samestat(os.fstat(opened.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _is_one(folder: Path) -> bool:
    return (folder / _PARAMS).is_file() and (folder / _DVC).is_dir()


@dataclass(frozen=True)
class Workspace:
    """The paths of one workspace. `root` is absolute."""

    root: Path

    @classmethod
    def open(cls, root: Path | None = None) -> Workspace:
        """The workspace at `root`, else `$VIOLENCE_OPS_WORKSPACE`, else the nearest one at or above the current folder.

        Raises UsageError if there is none, or as `around`.
        """
        named = root or _named()
        folder = named.resolve() if named else Path.cwd()
        found = (cls(folder) if _is_one(folder) else None) if named else cls.around(folder)
        if found is None:
            raise UsageError(
                f"{folder} is not a workspace: run `violence-ops init DIR` to make one, then pass --workspace DIR or work inside it."
            )
        return found

    @classmethod
    def around(cls, folder: Path) -> Self | None:
        """The nearest workspace at or above an absolute folder without links in it, None if there is none.

        What its settings name, git and DVC run. So unless `$VIOLENCE_OPS_WORKSPACE` names it, raises UsageError if it lies in the
        inbox of another, or if another user, but for root, owns it or what makes it one.
        """
        found = [cls(each) for each in (folder, *folder.parents) if _is_one(each)]
        if not found:
            return None
        nearest, *outer = found
        if (named := _named()) and named.resolve() == nearest.root:
            return nearest
        why = f"is not used, as git and DVC would run what it names: if you trust {nearest.root}, name it by VIOLENCE_OPS_WORKSPACE."
        for other in outer:
            if nearest.root.is_relative_to(other.inbox):
                raise UsageError(f"The workspace {nearest.root} was put into the inbox of {other.root} and {why}")
        for path in (nearest.root, *(nearest.root / name for name in (_PARAMS, _DVC, ".git"))):
            if os.path.lexists(path) and path.lstat().st_uid not in (0, os.geteuid()):
                raise UsageError(f"{path} belongs to another user, so the workspace {why}")
        return nearest

    @cached_property
    def deployment(self) -> Deployment:
        return Deployment.from_environment()

    def params(self, overrides: dict[str, Any] | None = None) -> Params:
        """The workspace's `params.yaml`."""
        return load_params(self.params_file, overrides)

    # files at the top
    @property
    def params_file(self) -> Path:
        return self.root / _PARAMS

    @property
    def dvc_file(self) -> Path:
        return self.root / "dvc.yaml"

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine"

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def claims(self) -> Path:
        """Files taken out of the inbox by an ingestion run that has not finished sorting them."""
        return self.work / "claims"

    @property
    def retrying(self) -> Path:
        """Where `retry` puts files together before the inbox gets them at once."""
        return self.work / "retry"

    @property
    def repairing(self) -> Path:
        """Where `repair` puts a batch whose list is lost, until its clips are in the inbox."""
        return self.work / "repair"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def batches(self) -> Path:
        return self.data / "batches"

    @property
    def holdouts(self) -> Path:
        return self.data / "holdout"

    @property
    def dataset(self) -> Path:
        return self.data / "dataset"

    @property
    def labels_file(self) -> Path:
        """Labels that arrived after their clip (store/labels_file.py). The last line of a clip counts."""
        return self.data / "labels.csv"

    @property
    def progress(self) -> Path:
        return self.data / "progress"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def annotations_page(self) -> Path:
        """Where `analyze` writes what is in the annotations, unless it is told another place. It names clips: not for git."""
        return self.cache / "annotations.html"

    @property
    def ledger(self) -> Path:
        return self.root / "releases" / "ledger.jsonl"

    @property
    def ledger_pending(self) -> Path:
        """The hash of the line that was written to the ledger last, before it was."""
        return self.work / "ledger.last"

    def told(self, receiver: str) -> Path:
        """`{"told": seq, "problem": why or null}`: up to which line of the ledger a receiver (`webhook`, `hook`) was told."""
        return self.services / f"{receiver}.json"

    @property
    def gx(self) -> Path:
        return self.root / "gx"

    def suite(self, name: str) -> Path:
        """What Great Expectations checks of a table: ours, and what people added."""
        return self.gx / "expectations" / f"{name}.json"

    @property
    def data_docs(self) -> Path:
        return self.gx / "uncommitted" / "data_docs" / "local_site" / "index.html"

    @property
    def data_docs_styles(self) -> Path:
        """The style sheet that Great Expectations puts into its pages."""
        return self.gx / "plugins" / "custom_data_docs" / "styles" / "data_docs_custom_styles.css"

    @property
    def check_results(self) -> tuple[Path, Path]:
        """What Great Expectations keeps of every check, and the pages that it made of them."""
        uncommitted = self.gx / "uncommitted"
        return uncommitted / "validations", uncommitted / "data_docs" / "local_site" / "validations"

    @property
    def trainings(self) -> Path:
        """A folder per training that was not registered yet."""
        return self.cache / "training"

    @property
    def cache(self) -> Path:
        """Can be deleted at any time: downloaded model packages, exported engines."""
        return self.root / ".cache"

    @property
    def experiment(self) -> Path:
        """The copy of the workspace in which an experiment runs; gone when it ends."""
        return self.cache / "experiment"

    @property
    def airflow_home(self) -> Path:
        return self.root / ".airflow"

    @property
    def airflow_database(self) -> Path:
        return self.airflow_home / "airflow.db"

    @property
    def airflow_logs(self) -> Path:
        """Of every task, and of the reading of DAG files."""
        return self.airflow_home / "logs"

    @property
    def services(self) -> Path:
        """Process records and logs of what `violence-ops up` started."""
        return self.root / ".services"

    @property
    def service_addresses(self) -> Path:
        """`{"airflow": URL, "mlflow": URL}` from `violence-ops up` to `down`."""
        return self.services / "addresses.json"

    @property
    def service_settings(self) -> Path:
        """Digests of the settings that the running Airflow was started with."""
        return self.services / "settings.json"

    @property
    def demo_marker(self) -> Path:
        """There if a demo made this workspace, and so may replace it."""
        return self.services / "demo"

    @property
    def remote(self) -> Path:
        """The default DVC remote; `VIOLENCE_OPS_REMOTE_URL` names another."""
        return self.root / ".remote"

    @property
    def catalog_url(self) -> str:
        return self.deployment.catalog_url or f"sqlite:///{self.root / 'catalog.db'}"

    @property
    def mlflow_database(self) -> str:
        """What MLflow keeps its records in, with a server or without."""
        return f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def mlflow_uri(self) -> str:
        """The deployment's MLflow, else the server that `violence-ops up` started, else the database itself."""
        if self.deployment.mlflow_uri:
            return self.deployment.mlflow_uri
        if self.service_addresses.is_file():
            return str(read_json(self.service_addresses, "remove it and run `violence-ops up`")["mlflow"])
        return self.mlflow_database

    @property
    def mlflow_artifacts(self) -> Path:
        return self.root / "mlartifacts"

    @property
    def growing(self) -> tuple[Path, ...]:
        """The folders that grow with every night, label or model (docs/nights.md); the batches' files are in DVC's cache too."""
        dvc_cache = self.root / ".dvc" / "cache"
        made = (self.mlflow_artifacts, self.quarantine, self.work, self.overlays, self.reports)
        return (dvc_cache, self.remote, self.root / ".git", *made, self.cache, self.airflow_home)

    # one batch
    def batch(self, batch_id: str) -> Batch:
        """The paths of a batch, sealed or not. Raises UsageError if the id has not the form of one."""
        if not _BATCH_ID.fullmatch(batch_id):
            raise UsageError(
                f"{batch_id!r} is not a batch id: write it like 2026-01-31-0a1b2c3d; `violence-ops status --json` lists them."
            )
        return Batch(batch_id, self.work / batch_id, self.batches / batch_id)

    def sealed_batches(self) -> list[Batch]:
        """The sealed batches by night; those of one night in no order that says anything."""
        folders = self.batches.iterdir() if self.batches.is_dir() else ()
        return [
            self.batch(folder.name)
            for folder in sorted(folders)
            if folder.is_dir() and _BATCH_ID.fullmatch(folder.name)
        ]

    def sealed_elsewhere(self) -> list[Batch]:
        """Batches of which this checkout has DVC's pointer and not the data, oldest first."""
        names = sorted(path.stem for path in self.batches.glob("*.dvc") if _BATCH_ID.fullmatch(path.stem))
        return [batch for batch in map(self.batch, names) if not batch.is_sealed]

    def check_pulled(self) -> None:
        """Raises WorkspaceError, naming them, if the data of sealed batches is not in this checkout."""
        if away := [batch.batch_id for batch in self.sealed_elsewhere()]:
            raise WorkspaceError(
                f"The data of sealed batch {', '.join(away)} is not pulled: run `violence-ops dvc pull` first."
            )

    def quarantined(self, clip_id: str) -> Path:
        """The folder of a quarantined clip: the original file and `reason.json`."""
        return self.quarantine / check_clip_id(clip_id)

    @property
    def overlays(self) -> Path:
        return self.root / "overlays"

    def overlay(self, clip_id: str, suffix: str, report: str | None = None) -> Path:
        """A clip's overlay video: a view that can be made again at any time, and so no part of its batch. With `report` the
        one that shows what that report's candidate said."""
        folder = self.overlays / self.report(report).name if report else self.overlays
        return folder / f"{check_clip_id(clip_id)}{suffix}"

    def holdout(self, version: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", version) or version.startswith("."):
            raise UsageError(f"{version!r} is not a holdout version: use letters, digits, '.', '_' and '-'.")
        return self.holdouts / version

    def holdout_versions(self) -> list[str]:
        """The frozen holdout versions, oldest first (`v1`, `v2`, …, `v10`).

        Raises WorkspaceError if the data of one is not in this checkout: a holdout that is overlooked would be trained on.
        """
        if away := self.holdouts_elsewhere():
            raise WorkspaceError(
                f"The data of holdout {', '.join(away)} is not pulled: run `violence-ops dvc pull` first."
            )
        folders = self.holdouts.iterdir() if self.holdouts.is_dir() else ()
        names = [folder.name for folder in folders if folder.is_dir() and not folder.name.startswith(".")]
        return sorted(names, key=version_order)

    def holdouts_elsewhere(self) -> list[str]:
        """Holdout versions of which this checkout has DVC's pointer and not the data, oldest first."""
        names = (path.stem for path in self.holdouts.glob("[!.]*.dvc"))
        return sorted((name for name in names if not (self.holdouts / name).is_dir()), key=version_order)

    @property
    def drift_reports(self) -> Path:
        """How the clips of sealed batches differ from what the champion was trained on."""
        return self.reports / "drift"

    def drift_report(self, batch_id: str) -> Path:
        return self.drift_reports / f"{self.batch(batch_id).batch_id}.json"

    def drift_reference(self, version: str) -> Path:
        """What a model was trained on, clip by clip, as drift is measured; kept because it never changes."""
        return self.drift_references / f"{fingerprint(self.mlflow_uri, version)[:16]}.json"

    @property
    def drift_references(self) -> Path:
        return self.cache / "drift"

    def sealing(self, batch_id: str) -> Path:
        """Where a batch is put together before it becomes the sealed one."""
        return self.work / "sealing" / batch_id

    @property
    def tombstones(self) -> Path:
        """What is left of forgotten clips: a JSON file each, without personal data."""
        return self.data / "forgotten"

    def tombstone(self, clip_id: str) -> Path:
        return self.tombstones / f"{check_clip_id(clip_id)}.json"

    def review(self, review_id: str) -> Path:
        """What was asked in one export for people. Raises UsageError if the id has not the form of one."""
        if not _REVIEW.fullmatch(review_id):
            raise UsageError(
                f"{review_id[:80]!r} is not a review's id: it has 12 hex digits; `data/reviews/` holds them."
            )
        return self.reviews / f"{review_id}.json"

    @property
    def reviews(self) -> Path:
        return self.data / "reviews"

    # one evaluation, one model
    def report_folders(self) -> list[ReportFolder]:
        """The evaluations that there are, finished or not, by name."""
        found = sorted(self.reports.glob("*-vs-*"))
        return [ReportFolder(folder.name, folder) for folder in found if _REPORT.fullmatch(folder.name)]

    def report(self, name: str) -> ReportFolder:
        """The files of one evaluation, called `<candidate>-vs-<champion>`. Raises UsageError if the name is none of an evaluation."""
        if not _REPORT.fullmatch(name):
            raise UsageError(f"{name!r} is not an evaluation's name: write it like 2-vs-1; `reports/` holds them.")
        return ReportFolder(name, self.reports / name)

    def model_package(self, version: str) -> Path:
        """Where a registered version's package is kept once it was downloaded."""
        return self.model_packages / fingerprint(self.mlflow_uri, version)[:16]

    @property
    def model_packages(self) -> Path:
        return self.cache / "models"

    def shadow(self, version: str, batch_id: str) -> Path:
        """What a version said of a batch's clips without effect; it can be made again at any time."""
        return self.shadows_of(version) / f"{batch_id}.parquet"

    def shadows_of(self, version: str) -> Path:
        """The folder of all that a version said without effect."""
        return self.shadows / fingerprint(self.mlflow_uri, version)[:16]

    @property
    def shadows(self) -> Path:
        return self.cache / "shadow"

    @property
    def thumbnails(self) -> Path:
        return self.overlays / "thumbnails"

    def thumbnail(self, clip_id: str) -> Path:
        """A clip's small picture for reports; it can be made again at any time."""
        return self.thumbnails / f"{check_clip_id(clip_id)}.jpg"

    # progress that dvc.yaml tracks
    def write_progress(self, stage: str, content: Mapping[str, Any]) -> Path:
        """Record what a stage has done, for `dvc status`; the same work must give the same bytes."""
        path = self.progress / f"{stage}.json"
        write_json(path, content)
        return path

    def write_metrics(self, stage: str, figures: Mapping[str, float | str]) -> Path:
        """Record the figures of a stage that `dvc metrics` and `dvc exp show` compare; the same rule holds."""
        return self.write_progress(f"{stage}-metrics", figures)

    def read_progress(self, stage: str) -> dict[str, Any]:
        """What `write_progress` recorded; empty if the stage never ran."""
        path = self.progress / f"{stage}.json"
        return read_json(path, f"remove it and run `violence-ops {stage}` again", _Progress) if path.is_file() else {}

    @contextmanager
    def lock(
        self, name: str, *, shared: bool = False, waiting: str | None = None, busy: str | None = None
    ) -> Iterator[int]:
        """Wait for, then hold, a lock of this workspace, alone or with others that share it; `waiting` is printed if it must wait.

        With `busy` it does not wait: WorkspaceError, with that sentence.

        Yields the descriptor that holds it, to be handed to a child that may outlive this process; the system frees the lock when
        all who have that are dead.
        """
        path = self.lock_file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        while True:
            with path.open("a+") as handle:  # NFS lets nobody share a lock on what cannot be read
                try:
                    fcntl.flock(handle, kind | fcntl.LOCK_NB)
                except BlockingIOError:
                    if busy:
                        raise WorkspaceError(busy) from None
                    if waiting:
                        print(waiting, flush=True)
                    fcntl.flock(handle, kind)
                if _is_at(path, handle):  # else `drop_lock` took it away meanwhile: it keeps nobody out
                    yield handle.fileno()
                    return

    def lock_file(self, name: str) -> Path:
        """Where a lock is, once somebody has held it."""
        return self.work / "locks" / f"{name}.lock"

    def drop_lock(self, name: str) -> bool:
        """Remove the file of a lock, unless somebody holds it; who wants the lock again makes another. Returns whether it was removed."""
        try:
            with self.lock(name, busy="It is held."):
                self.lock_file(name).unlink()
        except (WorkspaceError, OSError):  # or it is another user's
            return False
        return True
