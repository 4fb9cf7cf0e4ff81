"""`violence-ops init DIR`: make a workspace, a git + DVC repository of its own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import RoundTripRepresenter

from violence_ops import git, versioning, versioning_remote
from violence_ops.deployment import Deployment
from violence_ops.errors import ParamsError, ServiceUnavailable, UsageError
from violence_ops.files import write_text
from violence_ops.jsonable import Jsonable
from violence_ops.params import TEMPLATE, load_params, read_sections, shipped_params
from violence_ops.stages.releasing import holdout
from violence_ops.stages.upkeep import pipeline_file
from violence_ops.store import labels_file
from violence_ops.wording import counted
from violence_ops.workspace import Workspace


@dataclass(frozen=True, slots=True)
class InitResult(Jsonable):
    """`created` is False if the folder was a workspace already; `added` are parameters that its params.yaml lacked. `remote` is
    where DVC sends the data; if that changed, `old_remote` is where it went so far, and `unsent` how many batches it lacks, or may lack if
    it did not answer. `other_stages` are those of a dvc.yaml changed by a person that are not as in this version."""

    workspace: str
    created: bool
    revision: str
    added: tuple[str, ...] = ()
    remote: str = ""
    old_remote: str | None = None
    unsent: int = 0
    other_stages: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"workspace  {self.workspace}, {'new' if self.created else 'was there already'}"
        yield f"revision   {self.revision}"
        yield f"remote     {self.remote}"
        if self.added:
            yield f"added      {', '.join(self.added)} (to params.yaml)"
        if self.old_remote:
            yield f"The data goes to {self.remote} from now on; what was sent to {self.old_remote} stays there, where `forget` does not reach it."
        if self.unsent:
            yield f"{counted(self.unsent, 'batch that was', 'batches that were')} sealed before {'is' if self.unsent == 1 else 'are'} not there: in the workspace, `violence-ops dvc push` sends what it lacks."
        if self.other_stages:
            yield f"dvc.yaml was changed by a person, so it was left as it is: {', '.join(self.other_stages)} {'is' if len(self.other_stages) == 1 else 'are'} not as in {TEMPLATE / 'dvc.yaml'}; take over what you have not meant."


def run(
    directory: Path,
    *,
    remote_url: str | None = None,
    remote_endpoint: str | None = None,
    params_overrides: dict[str, Any] | None = None,
) -> InitResult:
    """Make `directory` a workspace, or complete one: what is missing is added, and nothing that is there changes but the remote,
    if another is given, and the dvc.yaml of an earlier version. All of it is committed to git.

    `remote_url` is where DVC pushes the data to (default `$VIOLENCE_OPS_REMOTE_URL`, else `.remote` in the workspace);
    `remote_endpoint` the address of an S3-compatible service. `params_overrides` (`{"train.epochs": 5}`) are written into
    the new workspace's params.yaml. Raises UsageError if the folder holds something else, ParamsError for a bad override,
    WorkspaceError if there is something to commit and git is on no branch.
    """
    workspace = Workspace(Path(directory).absolute().resolve())
    known = (workspace.root / ".dvc").is_dir() and (workspace.params_file.is_file() or workspace.progress.is_dir())
    unfinished = (workspace.work / "locks" / "init.lock").exists()
    if not known and not unfinished and workspace.root.exists() and any(workspace.root.iterdir()):
        raise UsageError(f"{workspace.root} is not empty and is no workspace: choose a new or an empty folder.")
    shipped_params(params_overrides)
    with workspace.lock("init"):
        before = versioning.default_remote(workspace)
        wanted = remote_url or Deployment.from_environment().remote_url
        versioning.init(workspace, remote_url=wanted, remote_endpoint=remote_endpoint)
        remote = versioning.default_remote(workspace) or "none"
        added = _write_files(workspace, params_overrides or {})
        pipeline = (TEMPLATE / "dvc.yaml").read_text("utf-8")
        other_stages = pipeline_file.bring_up_to_date(workspace.dvc_file, pipeline)
        created = not git.has_commits(workspace)
        if created:
            git.commit(workspace, _first_commit(workspace), "New workspace", ignored=True)
        else:
            _commit_changes(workspace, added, remote, pipeline)
    has_moved = not created and before not in (None, remote)
    return InitResult(
        str(workspace.root),
        created,
        git.revision(workspace),
        added,
        remote,
        before if has_moved else None,
        _unsent(workspace) if has_moved else 0,
        other_stages,
    )


def _unsent(workspace: Workspace) -> int:
    """How many sealed batches the remote lacks; all, if it does not say."""
    try:
        return len(versioning_remote.lacking(workspace))
    except ServiceUnavailable:
        return len(versioning.versioned_batches(workspace))


def _commit_changes(workspace: Workspace, added: tuple[str, ...], remote: str, pipeline: str) -> None:
    """Commit the parameters that were added, and where the data goes and the `pipeline` of this version, also if a killed run or a
    person has only written it."""
    changes = {workspace.params_file: f"Parameters that came later: {', '.join(added)}"} if added else {}
    written = {workspace.root / ".dvc" / "config": f"The data is sent to {remote}"}
    if workspace.dvc_file.read_bytes() == pipeline.encode():
        written[workspace.dvc_file] = "The stages of this version"
    for path, message in written.items():
        if git.committed(workspace, path) != path.read_bytes().strip():
            changes[path] = message
    if changes:
        git.commit(workspace, changes, "; ".join(changes.values()))


def _write_files(workspace: Workspace, overrides: dict[str, Any]) -> tuple[str, ...]:
    """Write what is missing; give the parameters that a params.yaml of an older version lacked."""
    for folder in (workspace.inbox, workspace.batches, workspace.progress, workspace.quarantine, workspace.reports):
        folder.mkdir(parents=True, exist_ok=True)
    first_texts = {
        workspace.inbox / ".gitkeep": "",
        workspace.labels_file: labels_file.HEADER,
        workspace.dvc_file: (TEMPLATE / "dvc.yaml").read_text("utf-8"),
        workspace.params_file: (TEMPLATE / "params.yaml").read_text("utf-8"),
    }
    for path, content in first_texts.items():
        if not path.exists():
            write_text(path, content)
    if not (workspace.progress / "holdout.json").exists():
        holdout.record_versions(workspace)
    if overrides:
        load_params(workspace.params_file, overrides)
    with _edited(workspace.params_file) as content:
        added = _complete(content, _yaml().load(first_texts[workspace.params_file]))
        for key, value in overrides.items():
            section, _, name = key.partition(".")
            content[section][name] = value
    load_params(workspace.params_file)
    return added


class _Representer(RoundTripRepresenter):
    """Writes `null` as a person does; of its own, because DVC writes its files with the one of ruamel.yaml in the same process."""


_Representer.add_representer(type(None), lambda own, _: own.represent_scalar("tag:yaml.org,2002:null", "null"))


def _yaml() -> YAML:
    """Reads and writes YAML as a person wrote it."""
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.width, yaml.preserve_quotes = 4096, True
    return yaml


@contextmanager
def _edited(path: Path) -> Iterator[Any]:
    """A YAML file's content, to be changed; written back with its comments if it was. Raises ParamsError if it is no YAML."""
    read_sections(path)  # what it takes and the reader below does not are keys that come twice
    yaml = _yaml()
    try:
        content = yaml.load(path.read_text("utf-8"))
    except YAMLError as error:
        problem = str(getattr(error, "problem", error)).splitlines()[0]
        raise ParamsError(f"{path} holds something twice ({problem}): remove one of them.") from None
    before = copy.deepcopy(content)
    yield content
    if content != before:
        out = StringIO()
        yaml.dump(content, out)
        write_text(path, out.getvalue())


def _complete(content: Any, shipped: Any) -> tuple[str, ...]:
    """Add the parameters that `content` lacks, with their comments, each after the one it follows in `shipped`."""
    added = []
    for section, parameters in shipped.items():
        own = content.setdefault(section, CommentedMap())
        if not isinstance(own, CommentedMap):
            continue  # no section at all, as load_params will say
        before = None
        for name, value in parameters.items():
            if name not in own:
                own.insert(list(own).index(before) + 1 if before else 0, name, value)
                own.ca.items.update({name: comment} if (comment := parameters.ca.items.get(name)) else {})
                added.append(f"{section}.{name}")
            before = name
    return tuple(added)


def _first_commit(workspace: Workspace) -> list[Path]:
    names = (".gitignore", ".dvcignore", ".dvc/.gitignore", ".dvc/config", "inbox/.gitkeep", "params.yaml", "dvc.yaml",
             "data/progress/holdout.json")  # fmt: skip
    return [*(workspace.root / name for name in names), workspace.labels_file]
