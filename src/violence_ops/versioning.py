"""The data of a workspace under DVC; with `versioning_erase`, `versioning_experiment` and `versioning_remote` all that speaks to it.

One writer at a time: whatever changes the repository holds the workspace's lock `versioning`. Uploads hold `push` instead, with each
other, so that nobody waits for one but who erases: that holds `push` alone, and takes it before `versioning`.
"""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from violence_ops import drop_folder, git
from violence_ops.deployment import has_password, without_password
from violence_ops.errors import ServiceUnavailable, UsageError, WorkspaceError
from violence_ops.files import atomic_path, write_text
from violence_ops.folders import Batch
from violence_ops.params import Params
from violence_ops.workspace import Workspace

_WAIT_S: Final = 120.0
_REMOTE: Final = "default"

_INBOX: Final = {".gitignore": "/inbox/", ".dvcignore": "/inbox/**/.[!.]*"}
"""What is said of the inbox. Uploaders write to it: with the folder itself ignored, neither git heeds a .gitignore in it nor DVC
a pipeline. Of hidden files there DVC sees none, as ingestion does not (`drop_folder.is_hidden`)."""
# DVC looks for .dvc files in no folder that git ignores, and takes `data/batches/` itself to match `data/batches/*`
GITIGNORE: Final = f"""\
{_INBOX[".gitignore"]}
/work/
/quarantine/
/data/batches/[0-9]*/
/data/holdout/[!.]*/
/data/dataset
/catalog.db*
/mlflow.db*
/mlartifacts/
/overlays/
/reports/*/report.html
/gx/uncommitted/
/.airflow/
/.services/
/.cache/
/.remote/
"""
DVCIGNORE: Final = f"""\
{_INBOX[".dvcignore"]}
/work
/quarantine
/reports
/releases
/gx
/mlartifacts
/overlays
/.airflow
/.services
/.cache
/.remote
"""
_TRACKED: Final = (
    "dvc.yaml", "dvc.lock", "params.yaml", "data/progress", "data/labels.csv", "data/.gitignore", "reports", "gx", *_INBOX,
)  # fmt: skip


def init(workspace: Workspace, *, remote_url: str | None = None, remote_endpoint: str | None = None) -> None:
    """Make the folder a git + DVC repository with a default remote. Does nothing to what is there already.

    `remote_url` is anything DVC knows (`s3://bucket/path`); `remote_endpoint` the address of an S3-compatible service.
    Raises UsageError if one of them holds a password, or another git repository tracks files in the folder.
    """
    if any(has_password(address) for address in (remote_url, remote_endpoint) if address):
        raise UsageError(
            "The remote's address holds a user or a password, and git would keep it: leave both out, give them with `violence-ops dvc "
            f"remote modify --local {_REMOTE} password PASSWORD` (likewise `user`, and over HTTP `auth basic`), which git does not see, "
            "and run `chmod 600 .dvc/config.local`."
        )
    with workspace.lock("versioning"):
        if not (workspace.root / ".git").exists():
            _refuse_foreign_repository(workspace.root)
            git.run(workspace, "init", "--quiet")
        _write_if_missing(workspace.root / ".gitignore", GITIGNORE)
        _write_if_missing(workspace.root / ".dvcignore", DVCIGNORE)
        _keep_out_of_the_inbox(workspace)
        # it empties .dvc first: what a killed run began may go, but not the cache, or the settings that a clone has from git
        is_begun = not (workspace.root / ".dvc" / "tmp").is_dir() and not git.has_commits(workspace)
        if is_begun or not (workspace.root / ".dvc" / "config").is_file():
            _init_dvc(workspace.root)
        _configure_dvc(workspace, remote_url, remote_endpoint)


def default_remote(workspace: Workspace) -> str | None:
    """The address of the default remote, and of its service if one is set, without a password; None if there is none."""
    from dvc.config import Config

    settings = Config(str(workspace.root / ".dvc")).get("remote", {}).get(_REMOTE, {})
    return without_password(" at ".join(settings[name] for name in ("url", "endpointurl") if name in settings)) or None


def add_batch(workspace: Workspace, batch: Batch) -> str:
    """Put a sealed batch under version control: `dvc add`, git commit, tag `batch/<id>`, push to the default remote.

    Returns that commit. Can be repeated after a crash. Raises ServiceUnavailable if the remote cannot be reached, WorkspaceError
    if git is on no branch.
    """
    return add_and_push(workspace, batch.sealed, f"Batch {batch.batch_id}", f"batch/{batch.batch_id}")


def versioned_batches(workspace: Workspace) -> set[str]:
    """The batches for which `add_batch` has finished."""
    return {tag.removeprefix("batch/") for tag in git.run(workspace, "tag", "--list", "batch/*").splitlines()}


def batch_revision(workspace: Workspace, batch_id: str) -> str:
    """The commit that `add_batch` made of a batch."""
    return git.run(workspace, "rev-parse", f"batch/{batch_id}^{{commit}}")


def is_tagged(workspace: Workspace, tag: str) -> bool:
    """Whether `add_and_push` has finished with this tag."""
    return bool(git.run(workspace, "tag", "--list", tag))


def tagged_at(workspace: Workspace, tag: str) -> str | None:
    """When the commit of a tag was made, ISO 8601; None if there is no such tag here."""
    return git.run(workspace, "for-each-ref", "--format=%(creatordate:iso-strict)", f"refs/tags/{tag}") or None


def commit_stage(workspace: Workspace, names: Iterable[str], message: str, params: Params | None = None) -> str:
    """Record stages of dvc.yaml whose commands were run outside `dvc repro`, then commit what they left to git.

    Afterwards `status` has nothing to say of them. A stage that never ran, or one before it, stays as it is to DVC.
    Inside `dvc repro` nothing is done: DVC records the stage itself. Returns the revision.
    If the stages ran with other `params` than params.yaml's, which DVC would record, it is told nothing of them.
    Raises WorkspaceError if git is on no branch.
    """
    if inside_repro(workspace):
        return git.revision(workspace)
    with repository(workspace) as repo:
        git.check_branch(workspace)
        for name in names if params in (None, workspace.params()) else ():
            if name == "ingest":
                _refuse_special_files(workspace)
            target = f"{workspace.dvc_file}:{name}"
            stages = translated(workspace, lambda target=target: repo.stage.collect(target))
            if all(item.exists for stage in stages for item in (*stage.deps, *stage.outs)):
                translated(workspace, lambda target=target: repo.commit(target=target, force=True))
        git.commit_paths(workspace, [workspace.root / path for path in _TRACKED], message)
    return git.revision(workspace)


def push_stage(workspace: Workspace, name: str) -> None:
    """Send what `commit_stage` recorded of a stage of dvc.yaml to the default remote; a no-op if it is there.

    Inside `dvc repro` nothing is done: DVC has not recorded the stage yet. Raises ServiceUnavailable if the remote cannot be reached.
    """
    if not inside_repro(workspace):
        _push(workspace, f"{workspace.dvc_file}:{name}")


def status(workspace: Workspace) -> dict[str, Any]:
    """What `dvc repro` would redo, and data that is not what was recorded: empty when all is in order."""
    with repository(workspace) as repo:
        _refuse_special_files(workspace)
        found = translated(workspace, repo.status)
    # DVC names a stage by its file's path as seen from the current folder
    return {name.rpartition("/")[2].removeprefix("dvc.yaml:"): changes for name, changes in found.items()}


def inside_repro(workspace: Workspace) -> bool:
    """Whether this process is the command of a stage that `dvc repro` runs in this workspace."""
    root = os.environ.get("DVC_ROOT")
    return bool(os.environ.get("DVC_STAGE") and root and Path(root).resolve() == workspace.root)


def inside_experiment(workspace: Workspace) -> bool:
    """Whether this process is the command of a stage that `dvc exp run` runs in this workspace."""
    return inside_repro(workspace) and bool(os.environ.get("DVC_EXP_NAME"))


# what the siblings share


@contextmanager
def repository(workspace: Workspace) -> Iterator[Any]:
    """The opened DVC repository, with the workspace's writer lock held."""
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.WARNING)
    with workspace.lock("versioning"):
        if git.run(workspace, "branch", "--show-current") and _keep_out_of_the_inbox(workspace):
            # at once: what is changed and not committed stands in the way of `git pull` and `git switch`
            paths = [workspace.root / name for name in _INBOX]
            git.commit_paths(workspace, paths, "The inbox is nobody's but the uploaders'")
        with Repo(str(workspace.root)) as repo:
            yield repo


def translated(workspace: Workspace, action: Any) -> Any:
    """Run a DVC operation, waiting for another DVC process, with DVC's errors turned into ours.

    Raises ServiceUnavailable if the remote, the disk or the other process does not allow it, WorkspaceError if DVC refuses.
    """
    from botocore.exceptions import BotoCoreError
    from dvc.exceptions import DvcException, UploadError
    from dvc.lock import LockError

    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            return action()
        except LockError as error:
            if time.monotonic() > deadline:
                raise ServiceUnavailable(
                    f"Another DVC process has kept {workspace.root} for {_WAIT_S:.0f} s ({error}): let it end, then run this again."
                ) from error
            time.sleep(0.5)
        except UploadError as error:
            raise ServiceUnavailable(
                f"The DVC remote did not take all of the data ({error}): run this again."
            ) from error
        except DvcException as error:
            raise WorkspaceError(f"DVC refused in {workspace.root}: {error}.") from error
        except (OSError, BotoCoreError) as error:  # of an S3 remote that does not answer, DVC lets the latter through
            raise ServiceUnavailable(
                f"DVC could not read or send data ({error}): look at the disk and the remote, then run this again."
            ) from error


def add_and_push(workspace: Workspace, path: Path, message: str, tag: str | None, *, moved: bool = False) -> str:
    """`dvc add`, git commit, push, and the tag; one that is there stays where it is unless it is to be `moved`.

    Returns the commit of the pointer as it is now.
    """
    pointer = path.with_name(f"{path.name}.dvc")
    with repository(workspace) as repo:
        git.check_branch(workspace)
        translated(workspace, lambda: repo.add(str(path)))
        git.commit_paths(workspace, [pointer], message)
        commit = git.run(workspace, "rev-list", "--max-count=1", "HEAD", "--", str(pointer.relative_to(workspace.root)))
    _push(workspace, str(pointer))
    # last: the tag says that all of it is done; others may have committed meanwhile
    if tag:
        with workspace.lock("versioning"):
            if moved or not is_tagged(workspace, tag):
                git.run(workspace, "tag", "--force", tag, commit)
    return commit


# the pieces


def _push(workspace: Workspace, target: str) -> None:
    """Send the data that a pointer or a stage names now, without the writer's lock and DVC's own: an upload may take hours.

    Objects have names after their content and are in the remote at once or not at all, so that two uploads do each other no harm.
    """
    from dvc.exceptions import UploadError
    from dvc.repo import Repo

    def send() -> None:
        if failed := repo.cloud.push(set().union(*used.values())).failed:
            raise UploadError(len(failed))

    with workspace.lock("push", shared=True):
        # what to send is asked under the lock: what was erased before is not sent again
        with repository(workspace) as repo:
            used = translated(workspace, lambda: repo.index.used_objs([target], push=True))
        with Repo(str(workspace.root)) as repo:
            translated(workspace, send)


def _refuse_special_files(workspace: Workspace) -> None:
    """DVC reads all of the inbox that is not hidden; a FIFO in it would hang it, and a link would lead it outside."""
    for folder, inner, names in os.walk(workspace.inbox):
        inner[:] = [name for name in inner if not drop_folder.is_hidden(name)]
        for name in names:
            if drop_folder.is_hidden(name):
                continue
            path = os.path.join(folder, name)
            if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
                raise WorkspaceError(f"{path!r} is not a regular file: `violence-ops ingest` puts it into quarantine.")


def _refuse_foreign_repository(root: Path) -> None:
    tracked = subprocess.run(["git", "-C", str(root), "ls-files", "."], capture_output=True, text=True, check=False)
    if tracked.returncode == 0 and tracked.stdout:
        raise UsageError(f"{root} belongs to another git repository, which tracks files in it: choose another folder.")


def _keep_out_of_the_inbox(workspace: Workspace) -> bool:
    """Write what is said of the inbox where it is missing, in workspaces that an earlier version made; returns whether it was."""
    missing = False
    for name, line in _INBOX.items():
        path = workspace.root / name
        content = path.read_bytes() if path.is_file() else b""
        if line.encode() not in content.splitlines():
            with atomic_path(path) as temporary:
                temporary.write_bytes(content + f"\n{line}\n".encode())
            missing = True
    return missing


def _write_if_missing(path: Path, content: str) -> None:
    if not path.exists():
        write_text(path, content)


def _init_dvc(root: Path) -> None:
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.WARNING)
    Repo.init(str(root), force=(root / ".dvc").exists()).close()


def _configure_dvc(workspace: Workspace, remote_url: str | None, endpoint: str | None) -> None:
    from dvc.repo import Repo

    with Repo(str(workspace.root)) as repo, repo.config.edit("repo") as config:
        config["core"] |= {"analytics": False, "check_update": False, "autostage": False, "remote": _REMOTE}
        # not "reflink" first: where that is unsupported, DVC then takes the copies in the workspace for reflinks
        config["cache"] |= {"type": ["hardlink", "copy"]}
        if remote_url or _REMOTE not in config["remote"]:
            workspace.remote.mkdir(exist_ok=True)
            own = not remote_url or Path(remote_url).resolve() == workspace.remote.resolve()
            # DVC takes a relative path from the current folder and writes it down as seen from .dvc
            config["remote"][_REMOTE] = {"url": os.path.relpath(workspace.remote) if own else remote_url} | (
                {"endpointurl": endpoint} if endpoint else {}
            )
