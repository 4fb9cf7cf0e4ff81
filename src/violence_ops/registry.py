"""MLflow: experiments, registered models and their aliases. With the other `registry_*` all that speaks to it.

An address is an MLflow server (`http://…`) or a database (`sqlite:///…`, with artifacts in a folder). Every call is bounded
in time; if MLflow cannot be reached, ServiceUnavailable says so.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self
from urllib.parse import urlsplit

from violence_ops import __version__, registry_database, registry_request
from violence_ops.deployment import is_http, without_password
from violence_ops.errors import ServiceUnavailable, UsageError, UserError, WorkspaceError
from violence_ops.files import folder_sha256
from violence_ops.registry_run import Run

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

MODEL: Final = "violence-detector"
EXPERIMENT: Final = "violence-detector"
POSE_EXPERIMENT: Final = "pose-weights"
PACKAGE_TAG: Final = "package_sha256"
"""Tag of a version: the SHA-256 of its package. Those of before November 2026 have none."""
_SOURCE: Final = {"mlflow.source.name": f"violence-ops {__version__}", "mlflow.source.type": "LOCAL"}
_REACH_S: Final = 5.0
_PAGE: Final = 1000
"""Versions that MLflow is asked for at once."""
_SETTINGS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
_DATABASE: Final = "sqlite:///"
_OUTDATED: Final = "out-of-date database schema"
_LOADER: Final = Path(__file__).with_name("registry_model.py")


@dataclass(frozen=True, slots=True)
class Version:
    """A registered model version."""

    version: str
    run_id: str
    tags: Mapping[str, str]


class Registry:
    """Runs and versions of the model `violence-detector`."""

    def __init__(self, uri: str, artifacts: Path | None) -> None:
        """`artifacts` is the folder of the files if MLflow runs on this machine; a remote server keeps its own.

        None leaves them to the server. Raises UsageError if the address is neither a server nor a SQLite file.
        """
        if not _is_address(uri):
            raise UsageError(
                "VIOLENCE_OPS_MLFLOW_URI is no address of MLflow: write http(s)://HOST:PORT or sqlite:///FILE."
            )
        os.environ.update({key: value for key, value in _SETTINGS.items() if key not in os.environ})
        self.uri = uri.rstrip("/")
        self._artifacts = artifacts

    @classmethod
    def at(cls, uri: str) -> Self:
        """MLflow at an address that belongs to no workspace. Raises UsageError if it is neither a server nor a SQLite file."""
        if not _is_address(uri):
            raise UsageError(
                "What --tracking names is no address of MLflow: give http(s)://HOST:PORT or sqlite:///FILE."
            )
        _, _, file = uri.partition(_DATABASE)
        return cls(uri, Path(file).parent / "mlartifacts" if file else None)

    def check(self) -> None:
        """Raise ServiceUnavailable unless MLflow answers."""
        with self._reached() as client:
            client.search_registered_models(max_results=1)

    @contextmanager
    def start_run(self, name: str, tags: Mapping[str, str]) -> Iterator[Run]:
        """A run of the project's experiment; it ends as FINISHED, as FAILED if the block raises an error, as KILLED if interrupted."""
        with self._reached() as client:
            run = self._create(client, name, tags, EXPERIMENT)
            try:
                yield run
            except BaseException as error:
                self.end_run(run.run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
                raise
            run.set_status("FINISHED")

    def create_run(self, name: str, tags: Mapping[str, str], experiment: str) -> Run:
        """A run that lasts until its status is set, perhaps by another process."""
        with self._reached() as client:
            return self._create(client, name, tags, experiment)

    @contextmanager
    def run(self, run_id: str) -> Iterator[Run]:
        """A run to log more to; it stays as it is afterwards. Raises UserError if MLflow does not know it."""
        with self._reached() as client:
            found = client.get_run(run_id)
            yield Run(run_id, self._url(found.info.experiment_id, run_id), client)

    def has_run(self, run_id: str) -> bool:
        """Whether MLflow has a run, and nobody has deleted it."""
        from mlflow.exceptions import MlflowException

        with self._reached() as client:
            try:
                return bool(client.get_run(run_id).info.lifecycle_stage == "active")
            except MlflowException as error:
                if _says_missing(error):
                    return False
                raise

    def end_run(self, run_id: str, status: Literal["FAILED", "KILLED"]) -> None:
        """Say how a run ended, if MLflow can still be told and has it."""
        with suppress(UserError, OSError), self._reached() as client:
            client.set_terminated(run_id, status)

    def register(
        self, run_id: str, package: Path, tags: Mapping[str, str], description: str = "", *, example: bool = True
    ) -> str:
        """Log the package folder as a pyfunc model of the run, then register it; returns the version.

        The version comes into being only after all its files have arrived, with their SHA-256 as a tag. It has no alias yet. A model
        that refuses tables of tracks, because it looks at pictures, has no `example`. Raises UserError if the model cannot answer the
        one it has.
        """
        with self._reached() as client:
            import mlflow

            model: dict[str, Any] = {
                "python_model": str(_LOADER), "artifacts": {"package": str(package)}, "signature": registry_request.signature(),
                "input_example": registry_request.request() if example else None,
                # not this project: it is on no package index, so whoever took its name there would be installed
                "pip_requirements": [],
            }  # fmt: skip
            if example:
                # here: what comes back from a store is code that another may have put there
                with tempfile.TemporaryDirectory() as folder:
                    mlflow.pyfunc.save_model(f"{folder}/model", **model)
                    registry_request.try_out(mlflow.pyfunc.load_model(f"{folder}/model"))
            with mlflow.start_run(run_id=run_id):
                logged = mlflow.pyfunc.log_model(name="model", **model)
            with _quiet_race():
                client.create_registered_model(MODEL)
            made = client.create_model_version(
                MODEL, logged.model_uri, run_id, tags={**tags, PACKAGE_TAG: folder_sha256(package)}, description=description, model_id=logged.model_id,
                await_creation_for=60,
            )  # fmt: skip
            return str(made.version)

    def alias(self, name: str) -> str | None:
        """The version that an alias (`candidate`, `champion`) points to."""
        if self._is_unborn:
            return None
        from mlflow.exceptions import MlflowException

        with self._reached() as client:
            try:
                return str(client.get_model_version_by_alias(MODEL, name).version)
            except MlflowException as error:
                if _says_missing(error):
                    return None
                raise

    def set_alias(self, name: str, version: str | None, expected: str | None) -> None:
        """Point an alias to a version (None removes it) if it still points to `expected`: compare-and-swap.

        The caller holds the workspace's lock `release`, as MLflow has no such operation itself.
        Raises WorkspaceError if it points elsewhere by now.
        """
        if (current := self.alias(name)) != expected:
            raise WorkspaceError(
                f"The {name} is version {current or 'none'} by now, not {expected or 'none'}: evaluate again against it."
            )
        with self._reached() as client:
            if version is not None:
                client.set_registered_model_alias(MODEL, name, version)
            elif current is not None:
                client.delete_registered_model_alias(MODEL, name)

    def versions(self) -> list[Version]:
        """All versions, oldest first; none if nothing was ever registered."""
        if self._is_unborn:
            return []
        with self._reached() as client:
            return [_version(one) for one in _all_versions(client)]

    def find(self, version: str) -> Version | None:
        """One version; None if there is none of that number, or not any more."""
        if self._is_unborn:
            return None
        from mlflow.exceptions import MlflowException

        with self._reached() as client:
            try:
                return _version(client.get_model_version(MODEL, version))
            except MlflowException as error:
                if _says_missing(error):
                    return None
                raise

    def version(self, version: str) -> Version:
        """One version. Raises UsageError if there is none of that number."""
        found = self.find(version)
        if found is None:
            known = ", ".join(one.version for one in self.versions()) or "none"
            raise UsageError(f"{MODEL} has no version {version}; its versions: {known}.")
        return found

    def tags(self, version: str) -> dict[str, str]:
        """The tags of a version."""
        return dict(self.version(version).tags)

    def set_tag(self, version: str, key: str, value: str) -> None:
        """Add or replace a tag of a version."""
        with self._reached() as client:
            client.set_model_version_tag(MODEL, version, key, value)

    def log_report(self, version: str, folder: Path, metrics: Mapping[str, float]) -> None:
        """Add an evaluation's files and figures to the run that made a version."""
        run_id = self.version(version).run_id
        with self._reached() as client:
            run = Run(run_id, "", client)
            run.log_metrics([metrics])
            run.log_files(folder, f"evaluation/{folder.name}")

    def download(self, version: str, into: Path, sha256: str | None = None) -> Path:
        """Fetch the package folder of a version into `into`, which appears only when it is complete; returns it.

        The package has this SHA-256 (default: that of its tag; a version without one is not checked): a folder that is there and
        has another is fetched again. Raises WorkspaceError if the artifact store has lost the package, or holds another.
        """
        sha256 = sha256 or self.version(version).tags.get(PACKAGE_TAG)
        if _is_package(into, sha256):
            with suppress(OSError):  # another user's
                os.utime(into)  # how `tidy` knows what is still in use
            return into
        self.version(version)
        into.parent.mkdir(parents=True, exist_ok=True)
        with self._reached(), tempfile.TemporaryDirectory(dir=into.parent, prefix=".download-") as temporary:
            import mlflow

            fetched = mlflow.artifacts.download_artifacts(
                artifact_uri=f"models:/{MODEL}/{version}", dst_path=temporary, tracking_uri=self.uri
            )
            packages = list((Path(fetched) / "artifacts").glob("*"))
            if len(packages) != 1:
                raise _lost(version)
            (package,) = packages
            if sha256 and (found := folder_sha256(package)) != sha256:
                raise WorkspaceError(
                    f"The package of model version {version} in MLflow's artifact store was exchanged or is damaged (its SHA-256 is "
                    f"{found[:12]}…, not {sha256[:12]}…): restore the store, or roll back."
                )
            with suppress(FileNotFoundError):
                into.rename(Path(temporary) / "another")
            try:
                package.rename(into)
            except OSError:
                # another process was faster
                if not into.is_dir():
                    raise
        return into

    @contextmanager
    def package_file(self, version: str, name: str, package: Path) -> Iterator[Path | None]:
        """One file of a version's package, fetched without the others; of `package` if `download` has put that there.

        None if the package has no file of that name. A fetched one is gone after the block; alone, it cannot be checked against
        the package's SHA-256. Raises UserError for an unknown version, WorkspaceError if the artifact store has lost the package.
        """
        if _is_package(package, self.version(version).tags.get(PACKAGE_TAG)):
            yield package / name if (package / name).is_file() else None
            return
        with tempfile.TemporaryDirectory() as temporary:
            yield self._fetch_file(version, name, temporary)

    def _fetch_file(self, version: str, name: str, into: str) -> Path | None:
        with self._reached() as client:
            from mlflow.artifacts import download_artifacts, list_artifacts

            # where it lies, asked once: each use of `models:/…` asks the database again
            model = client.get_model_version_download_uri(MODEL, version)
            packages = list_artifacts(artifact_uri=f"{model}/artifacts", tracking_uri=self.uri)
            if len(packages) != 1:
                raise _lost(version)
            package = f"{model}/artifacts/{Path(packages[0].path).name}"
            files = list_artifacts(artifact_uri=package, tracking_uri=self.uri)
            if name not in (Path(one.path).name for one in files):
                return None
            return Path(download_artifacts(artifact_uri=f"{package}/{name}", dst_path=into, tracking_uri=self.uri))

    def run_url(self, run_id: str) -> str:
        """Where a browser shows a run, if MLflow is a server."""
        with self._reached() as client:
            return self._url(client.get_run(run_id).info.experiment_id, run_id)

    @property
    def _shown(self) -> str:
        """The address as it may be printed."""
        return without_password(self.uri)

    @property
    def _is_server(self) -> bool:
        return urlsplit(self.uri).scheme in ("http", "https")

    @property
    def _is_unborn(self) -> bool:
        """Whether nothing was ever written to the database: asking it would cost seconds to make its tables."""
        return self._file is not None and not self._file.exists()

    @property
    def _file(self) -> Path | None:
        """The database, if MLflow is no server."""
        _, _, file = self.uri.partition(_DATABASE)
        return Path(file) if file else None

    def _url(self, experiment_id: str, run_id: str) -> str:
        if self._is_server:
            return f"{self._shown}/#/experiments/{experiment_id}/runs/{run_id}"
        return f"{self._shown} run {run_id}"

    def _create(self, client: MlflowClient, name: str, tags: Mapping[str, str], experiment: str) -> Run:
        run = client.create_run(self._experiment(client, experiment), tags=_SOURCE | dict(tags), run_name=name)
        return Run(run.info.run_id, self._url(run.info.experiment_id, run.info.run_id), client)

    def _experiment(self, client: MlflowClient, name: str) -> str:
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        host = urlsplit(self.uri).hostname
        local = not self._is_server or host in ("127.0.0.1", "localhost", "::1")
        place = self._artifacts.resolve().as_uri() if local and self._artifacts else None
        with _quiet_race():
            return str(client.create_experiment(name, place))
        return str(client.get_experiment_by_name(name).experiment_id)

    def _knock(self) -> None:
        """Raise ServiceUnavailable if nothing listens at the server's address, before MLflow's own long retries."""
        if not self._is_server:
            return
        parts = urlsplit(self.uri)
        address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        try:
            socket.create_connection(address, timeout=_REACH_S).close()
        except OSError as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: Exception) -> ServiceUnavailable:
        reason = _reason(error)[:200]
        fault = "cannot be reached", "start it with `violence-ops up`, or correct VIOLENCE_OPS_MLFLOW_URI"
        if not self._is_server:
            fault = "cannot be used", "see that the file is sound and may be written, or bring it back from a backup"
        if _OUTDATED in reason:
            return ServiceUnavailable(
                f"The tables of MLflow at {self._shown} are of another version of MLflow than this one: run `violence-ops up`, which keeps a "
                "copy of a workspace's database and upgrades it; of any other, keep a copy and run `mlflow db upgrade ADDRESS`."
            )
        return ServiceUnavailable(f"MLflow at {self._shown} {fault[0]} ({reason}): {fault[1]}, then run this again.")

    @contextmanager
    def _reached(self) -> Iterator[MlflowClient]:
        """The client, with MLflow's and the network's failures told as ServiceUnavailable.

        Without their cause, whose text may hold the address with its password: Airflow writes causes to its log.
        """
        self._knock()
        import mlflow
        import requests
        import sqlalchemy.exc
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        try:
            if self._file and self._artifacts:
                registry_database.follow(self._file, self._artifacts)
            yield MlflowClient(self.uri, self.uri)
        except (
            requests.exceptions.ConnectionError,
            requests.exceptions.Timeout,
            sqlalchemy.exc.DatabaseError,
            sqlite3.DatabaseError,
        ) as error:
            raise self._unavailable(error) from None
        except MlflowException as error:
            if error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"):
                raise self._unavailable(error) from None
            raise UserError(f"MLflow at {self._shown} refused: {_reason(error)}") from None


def _all_versions(client: MlflowClient) -> Iterator[Any]:
    """Every version, oldest first, however many pages they fill."""
    token: str | None = ""
    while token is not None:
        page = client.search_model_versions(f"name='{MODEL}'", _PAGE, ["version_number ASC"], token or None)
        yield from page
        token = page.token or None


def _is_package(folder: Path, sha256: str | None) -> bool:
    """Whether a folder is there and is the package of this SHA-256, if that is known."""
    return folder.is_dir() and sha256 in (None, folder_sha256(folder))


def _lost(version: str) -> WorkspaceError:
    return WorkspaceError(
        f"Version {version} of {MODEL} has no package in MLflow's artifact store: restore the store, or train again."
    )


def _is_address(uri: str) -> bool:
    return is_http(uri) or (uri.startswith(_DATABASE) and len(uri.rstrip("/")) > len(_DATABASE))


def _reason(error: Exception) -> str:
    """The first line of what an error says."""
    return without_password((str(error).splitlines() or [type(error).__name__])[0])


def _version(found: Any) -> Version:
    return Version(str(found.version), str(found.run_id or ""), dict(found.tags))


def _says_missing(error: Any) -> bool:
    # an unknown alias is INVALID_PARAMETER_VALUE in MLflow 3
    return error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@contextmanager
def _quiet_race() -> Iterator[None]:
    """Somebody else has made the same thing: as good."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
