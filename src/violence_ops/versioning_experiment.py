"""DVC's experiments beside a workspace that goes on: `dvc exp run` detaches HEAD, stashes and resets the files of where it runs,
and what others commit there meanwhile leaves the branch. So it runs in a copy.

The copy is a clone that has DVC's cache and the models' files in common with the workspace, so that no data is stored twice; its
locks are its own. What DVC keeps of an experiment is fetched into the workspace's git, where `dvc exp show` finds it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from violence_ops import git
from violence_ops.deployment import python_module
from violence_ops.errors import UsageError
from violence_ops.processes import Service, end
from violence_ops.versioning import repository, translated
from violence_ops.workspace import Workspace

_SAID_OF_THE_COPY: Final = "have been applied to your workspace"
_MOST_NEW_MIB: Final = 100
_PATIENCE_S: Final = 2.0
_UPLOAD_PACK: Final = "--upload-pack=git -c safe.directory=* upload-pack"
"""What gives out a workspace's commits to a copy and back: a process of its own, which does not know the settings of the other."""
_MISUSED: Final = 254  # what DVC's own command line ends with


def asked(arguments: Sequence[str]) -> Namespace | None:
    """The options of a command line of DVC's that runs or applies an experiment or saves one; None of any other.

    `cmd` is `run`, `apply` or `save`. Ends the program, after DVC has said why, if DVC does not understand the command line.
    """
    if not {"exp", "experiments"}.intersection(arguments):
        return None
    from dvc.cli import DvcParserError
    from dvc.cli.parser import get_main_parser
    from dvc.commands.experiments.apply import CmdExperimentsApply
    from dvc.commands.experiments.run import CmdExperimentsRun
    from dvc.commands.experiments.save import CmdExperimentsSave

    try:
        options: Namespace = get_main_parser().parse_args(list(arguments))
    except DvcParserError:
        raise SystemExit(_MISUSED) from None
    return options if options.func in (CmdExperimentsRun, CmdExperimentsApply, CmdExperimentsSave) else None


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of a workspace for one experiment. It is there as long as somebody has `lock`, a file's descriptor, open."""

    of: Workspace
    workspace: Workspace
    lock: int

    def run(self, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run a command line of DVC's here and print what it says, but for what is not true of a copy; returns its exit status.

        Nothing that it started outlives the call; the descriptor keeps the copy if this process is killed outright.
        """
        command = python_module("dvc", *arguments)
        environment = {**_author(self.of), **environment, "VIOLENCE_OPS_WORKSPACE": str(self.workspace.root)}
        with subprocess.Popen(
            command, cwd=self.workspace.root, env=environment, stdout=subprocess.PIPE, text=True, errors="replace",
            start_new_session=True, pass_fds=[self.lock],
        ) as process:  # fmt: skip
            service = Service.of("dvc", process.pid)
            try:
                assert process.stdout
                for line in process.stdout:
                    if _SAID_OF_THE_COPY not in line:
                        print(line, end="", flush=True)
                return process.wait()
            finally:
                end([service], within=self.workspace.root, patience_s=_PATIENCE_S)

    def hand_over(self) -> None:
        """Give the workspace the experiments that were made here."""
        _fetch(self.workspace, self.of, git.revision(self.workspace))


@contextmanager
def copied(workspace: Workspace) -> Iterator[Copy]:
    """The workspace as it is now, with the changes that are not committed, until the block ends or the program is told to end.

    One at a time: another one is waited for, and told of. Raises UsageError if files that git neither has nor ignores are large.
    """
    copy = Workspace(workspace.experiment)
    waiting = "Another experiment runs in this workspace; this one begins when it has ended."
    with _told_to_end(), workspace.lock("experiment", waiting=waiting) as lock:
        shutil.rmtree(copy.root, ignore_errors=True)  # of a run that was killed
        try:
            _clone(workspace, copy)
            _share(workspace, copy)
            yield Copy(workspace, copy, lock)
        finally:
            shutil.rmtree(copy.root, ignore_errors=True)


def run_here(workspace: Workspace, arguments: Sequence[str], options: Namespace) -> int:
    """`dvc exp apply` and `dvc exp save`, which take a moment, while nobody else writes; returns DVC's exit status.

    `options` are what `asked` found. Raises UsageError if an experiment is applied that began at another commit than the present
    one, because all that came after that commit would be taken back; WorkspaceError if git is on no branch.
    """
    with workspace.lock("versioning"):
        git.check_branch(workspace)
        if options.cmd == "apply" and not _begins_here(workspace, options.experiment):
            raise UsageError(
                f"{options.experiment} is not an experiment that began at the workspace's present commit, so applying it would undo what "
                "came after: copy its settings, which `violence-ops dvc exp show -A` shows, into params.yaml."
            )
        command = python_module("dvc", *arguments)
        environment = {**_author(workspace), **os.environ}
        return subprocess.run(command, cwd=workspace.root, env=environment, check=False).returncode


@contextmanager
def _told_to_end() -> Iterator[None]:
    """Let a signal that ends a program at once end it as an error does, so that it cleans up."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _author(workspace: Workspace) -> dict[str, str]:
    """Who commits, for git's environment: a copy has not the workspace's own settings, and DVC commits for nobody unnamed."""
    found: dict[str, str] = {}
    for what, default in git.AUTHOR.items():
        command = ["git", "-C", str(workspace.root), "config", "--default", default, f"user.{what}"]
        name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        found |= {f"GIT_{role}_{what.upper()}": name for role in ("AUTHOR", "COMMITTER")}
    return found


def _clone(workspace: Workspace, copy: Workspace) -> None:
    with workspace.lock("versioning"):
        new = _listed(workspace, "ls-files", "--others", "--exclude-standard", "-z")
        _refuse_large(workspace, new)
        git.run(
            workspace, "clone", "--quiet", "--shared", "--no-tags", _UPLOAD_PACK, str(workspace.root), str(copy.root)
        )
        for name in _listed(workspace, "diff", "--name-only", "--no-renames", "-z", "HEAD"):
            _bring(workspace, copy, name)
    for name in new:
        _bring(workspace, copy, name)
    _fetch(workspace, copy, git.revision(copy))  # so that DVC refuses a name that is taken


def _listed(workspace: Workspace, *arguments: str) -> list[str]:
    """The files that a command of git's lists with `-z`; a name need be no UTF-8."""
    return [os.fsdecode(name) for name in git.run_bytes(workspace, *arguments).split(b"\0") if name]


def _refuse_large(workspace: Workspace, new: Sequence[str]) -> None:
    sizes: Counter[str] = Counter()
    for name in new:
        with suppress(FileNotFoundError):
            sizes[Path(name).parts[0]] += (workspace.root / name).lstat().st_size
    if sizes.total() > _MOST_NEW_MIB << 20:
        ((largest, size),) = sizes.most_common(1)
        raise UsageError(
            f"An experiment copies what git neither has nor ignores, {_MOST_NEW_MIB} MiB at most, and {largest} alone is {size >> 20} MiB: "
            "name it in .gitignore or put it elsewhere."
        )


def _bring(workspace: Workspace, copy: Workspace, name: str) -> None:
    """Make a file of the copy what it is in the workspace: a link stays one, and what is gone goes."""
    source, target = workspace.root / name, copy.root / name
    if source.is_symlink() or source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        with suppress(FileNotFoundError):  # it has just gone
            shutil.copy2(source, target, follow_symlinks=False)
    elif not source.exists():
        target.unlink(missing_ok=True)


def _share(workspace: Workspace, copy: Workspace) -> None:
    """Give the copy the data, and in common with the workspace DVC's cache and the models' files."""
    settings = Path(".dvc", "config.local")
    if (workspace.root / settings).is_file():
        shutil.copy2(workspace.root / settings, copy.root / settings)
    with repository(workspace) as repo:
        cache = repo.cache.local_cache_dir
    with repository(copy) as repo, repo.config.edit("local") as config:
        config["cache"]["dir"] = cache
    with repository(copy) as repo:
        translated(copy, lambda: repo.checkout(allow_missing=True))
    workspace.mlflow_artifacts.mkdir(exist_ok=True)
    copy.mlflow_artifacts.symlink_to(workspace.mlflow_artifacts)


def _begins_here(workspace: Workspace, experiment: str) -> bool:
    """Whether an experiment, by its name or its commit, began at the commit that the workspace stands on."""
    begun = git.run(
        workspace, "for-each-ref", "--format=%(refname:lstrip=4) %(objectname)", _kept(git.revision(workspace))
    )
    return any(
        experiment == name or commit.startswith(experiment) for name, commit in map(str.split, begun.splitlines())
    )


def _fetch(source: Workspace, into: Workspace, commit: str) -> None:
    """Fetch the experiments that began at a commit."""
    kept = _kept(commit)
    with into.lock("versioning"):
        command = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", _UPLOAD_PACK]
        git.run(into, *command, str(source.root), f"+{kept}/*:{kept}/*")


def _kept(commit: str) -> str:
    """Where DVC keeps the experiments that began at a commit."""
    return f"refs/exps/{commit[:2]}/{commit[2:]}"
