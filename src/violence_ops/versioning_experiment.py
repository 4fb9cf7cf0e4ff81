"""DVC's experiments beside a workspace that goes on: `dvc exp run` detaches HEAD, stashes and resets the files of where it runs,
and what others commit there meanwhile leaves the branch. So it runs in a copy.

The copy is a clone that has DVC's cache in common with the workspace, so that no data is stored twice. What DVC keeps of an
experiment is fetched into the workspace's git, where `dvc exp show` finds it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from violence_ops.errors import UsageError
from violence_ops.versioning import _dvc, _git, _translated, check_branch, revision
from violence_ops.workspace import Workspace

_MORE_OR_LATER: Final = ("queue", "run_all", "pipeline", "all_pipelines", "downstream", "recursive")
_SAID_OF_THE_COPY: Final = "have been applied to your workspace"


def asked(arguments: Sequence[str]) -> Namespace | None:
    """The options of a command line of DVC's that runs or applies an experiment or saves one; None of any other.

    `cmd` is `run`, `apply` or `save`.
    """
    if not {"exp", "experiments"}.intersection(arguments):
        return None
    from dvc.cli.parser import get_main_parser
    from dvc.commands.experiments.apply import CmdExperimentsApply
    from dvc.commands.experiments.run import CmdExperimentsRun
    from dvc.commands.experiments.save import CmdExperimentsSave
    from dvc.exceptions import DvcException

    try:
        options: Namespace = get_main_parser().parse_args(list(arguments))
    except DvcException:  # DVC says so itself
        return None
    return options if options.func in (CmdExperimentsRun, CmdExperimentsApply, CmdExperimentsSave) else None


def run(workspace: Workspace, arguments: Sequence[str], stages: Collection[str], environment: Mapping[str, str]) -> int:
    """`dvc exp run …` in a copy of the workspace; returns DVC's exit status.

    It runs those of `stages` that are named, all if none is, and none before them. Raises UsageError if it asks for others.
    """
    options = asked(arguments)
    assert options
    others = [f"--{name.replace('_', '-')}" for name in _MORE_OR_LATER if getattr(options, name)]
    others += [target for target in options.targets if target not in stages]
    if others:
        raise UsageError(
            f"An experiment runs {' and '.join(stages)}, at once and nothing else: leave {' '.join(others)} out; "
            "`violence-ops dvc repro` runs every stage."
        )
    added = ["--single-item", *([] if options.targets else stages)]
    command = [sys.executable, "-m", "dvc", *(one for one in arguments if one != "--temp"), *added]
    with _copy(workspace) as copy:
        status = _run(command, copy.root, {**environment, "VIOLENCE_OPS_WORKSPACE": str(copy.root)})
        _fetch(copy, workspace, revision(copy))
    return status


def run_here(workspace: Workspace, arguments: Sequence[str]) -> int:
    """`dvc exp apply` and `dvc exp save`, which take a moment, while nobody else writes; returns DVC's exit status.

    Raises UsageError if an experiment is applied that began at another commit than the present one, because all that came
    after that commit would be taken back; WorkspaceError if git is on no branch.
    """
    options = asked(arguments)
    assert options
    with workspace.lock("versioning"):
        check_branch(workspace)
        if options.cmd == "apply" and not _begins_here(workspace, options.experiment):
            raise UsageError(
                f"{options.experiment} is no experiment that began at the workspace's present commit, and to apply it would take "
                "back what came after: write its settings, which `violence-ops dvc exp show -A` tells, into params.yaml."
            )
        return subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=workspace.root, check=False).returncode


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> int:
    """Run DVC and print what it says, but for what is not true where it runs in a copy."""
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if _SAID_OF_THE_COPY not in line:
                print(line, end="", flush=True)
    return process.returncode


@contextmanager
def _copy(workspace: Workspace) -> Iterator[Workspace]:
    """The workspace as it is now, with the changes that are not committed, until the block ends."""
    copy = Workspace(workspace.experiment)
    with workspace.lock("experiment"):
        shutil.rmtree(copy.root, ignore_errors=True)  # of a run that was killed
        try:
            _clone(workspace, copy)
            _share(workspace, copy)
            yield copy
        finally:
            shutil.rmtree(copy.root, ignore_errors=True)


def _clone(workspace: Workspace, copy: Workspace) -> None:
    with workspace.lock("versioning"):
        _git(workspace, "clone", "--quiet", "--shared", "--no-tags", str(workspace.root), str(copy.root))
        changed = _git(workspace, "diff", "--name-only", "--no-renames", "-z", "HEAD").split("\0")
        new = _git(workspace, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
        for name in filter(None, changed + new):
            source, target = workspace.root / name, copy.root / name
            target.unlink(missing_ok=True)
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
    _fetch(workspace, copy, revision(copy))  # so that DVC refuses a name that is taken


def _share(workspace: Workspace, copy: Workspace) -> None:
    """Give the copy the data, and in common with the workspace DVC's cache, the models' files and the locks."""
    settings = Path(".dvc", "config.local")
    if (workspace.root / settings).is_file():
        shutil.copy2(workspace.root / settings, copy.root / settings)
    with _dvc(workspace) as repo:
        cache = repo.cache.local_cache_dir
    with _dvc(copy) as repo, repo.config.edit("local") as config:
        config["cache"]["dir"] = cache
    with _dvc(copy) as repo:
        _translated(copy, lambda: repo.checkout(allow_missing=True))
    locks = copy.work / "locks"
    shutil.rmtree(locks)
    for own, shared in ((locks, workspace.work / "locks"), (copy.mlflow_artifacts, workspace.mlflow_artifacts)):
        shared.mkdir(parents=True, exist_ok=True)
        own.symlink_to(shared)


def _begins_here(workspace: Workspace, experiment: str) -> bool:
    """Whether an experiment, by its name or its commit, began at the commit that the workspace stands on."""
    begun = _git(workspace, "for-each-ref", "--format=%(refname:lstrip=4) %(objectname)", _kept(revision(workspace)))
    return any(
        experiment == name or commit.startswith(experiment) for name, commit in map(str.split, begun.splitlines())
    )


def _fetch(source: Workspace, into: Workspace, commit: str) -> None:
    """Fetch the experiments that began at a commit."""
    kept = _kept(commit)
    _git(into, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", str(source.root), f"+{kept}/*:{kept}/*")


def _kept(commit: str) -> str:
    """Where DVC keeps the experiments that began at a commit."""
    return f"refs/exps/{commit[:2]}/{commit[2:]}"
