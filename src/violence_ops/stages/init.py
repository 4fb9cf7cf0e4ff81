"""`violence-ops init DIR`: make a workspace, a git + DVC repository of its own."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from violence_ops import versioning
from violence_ops.deployment import Deployment
from violence_ops.errors import UsageError
from violence_ops.files import write_text
from violence_ops.params import load_params
from violence_ops.stages import holdout, labels_file
from violence_ops.workspace import Workspace


@dataclass(frozen=True, slots=True)
class InitResult:
    """`created` is False if the folder was a workspace already."""

    workspace: str
    created: bool
    revision: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def run(
    directory: Path,
    *,
    remote_url: str | None = None,
    remote_endpoint: str | None = None,
    params_overrides: dict[str, Any] | None = None,
) -> InitResult:
    """Make `directory` a workspace, or complete one.

    `remote_url` is where DVC pushes the data to (default `$VIOLENCE_OPS_REMOTE_URL`, else `.remote` in the workspace);
    `remote_endpoint` the address of an S3-compatible service. `params_overrides` (`{"train.epochs": 5}`) are written into
    the new workspace's params.yaml. Raises UsageError if the folder holds something else, ParamsError for a bad override.
    """
    workspace = Workspace(Path(directory).absolute().resolve())
    known = (workspace.root / ".dvc").is_dir() and workspace.params_file.is_file()
    unfinished = (workspace.work / "locks" / "init.lock").exists()
    if not known and not unfinished and workspace.root.exists() and any(workspace.root.iterdir()):
        raise UsageError(f"{workspace.root} is not empty and is no workspace: choose a new or an empty folder.")
    with as_file(files("violence_ops") / "template" / "params.yaml") as shipped:
        load_params(shipped, params_overrides)
    with workspace.lock("init"):
        remote = remote_url or Deployment.from_environment().remote_url
        versioning.init(workspace, remote_url=remote, remote_endpoint=remote_endpoint)
        _write_files(workspace, params_overrides or {})
        created = not versioning.has_commits(workspace)
        if created:
            versioning.git_commit(workspace, _first_commit(workspace), "New workspace")
    return InitResult(str(workspace.root), created, versioning.revision(workspace))


def _write_files(workspace: Workspace, overrides: dict[str, Any]) -> None:
    for folder in (workspace.inbox, workspace.batches, workspace.progress, workspace.quarantine, workspace.reports):
        folder.mkdir(parents=True, exist_ok=True)
    template = files("violence_ops") / "template"
    first_texts = {
        workspace.inbox / ".gitkeep": "",
        workspace.labels_file: labels_file.HEADER,
        workspace.dvc_file: (template / "dvc.yaml").read_text("utf-8"),
        workspace.params_file: (template / "params.yaml").read_text("utf-8"),
    }
    for path, content in first_texts.items():
        if not path.exists():
            write_text(path, content)
    if not (workspace.progress / "holdout.json").exists():
        holdout.record_versions(workspace)
    if overrides:
        load_params(workspace.params_file, overrides)
        _override(workspace.params_file, overrides)


def _override(params_file: Path, overrides: dict[str, Any]) -> None:
    """Set keys in params.yaml and keep its comments."""
    from io import StringIO

    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 4096, True
    content = yaml.load(params_file.read_text("utf-8"))
    for key, value in overrides.items():
        section, _, name = key.partition(".")
        content[section][name] = value
    out = StringIO()
    yaml.dump(content, out)
    write_text(params_file, out.getvalue())


def _first_commit(workspace: Workspace) -> list[Path]:
    names = (".gitignore", ".dvcignore", ".dvc/.gitignore", ".dvc/config", "inbox/.gitkeep", "params.yaml", "dvc.yaml",
             "data/progress/holdout.json")  # fmt: skip
    return [*(workspace.root / name for name in names), workspace.labels_file]
