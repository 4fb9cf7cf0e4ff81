"""A holdout without a clip: a new version in the place of every version that holds it. The others stay as they were frozen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from violence_ops import git, versioning_erase
from violence_ops.files import load_table
from violence_ops.records import LABELS
from violence_ops.stages.provenance import traces
from violence_ops.stages.releasing import holdout
from violence_ops.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Replaced:
    """The versions that went, the one in their place (None if no clip was left), and sentences about it."""

    old: tuple[str, ...]
    version: str | None
    notices: tuple[str, ...]


def replace(workspace: Workspace, clip_id: str) -> Replaced | None:
    """Freeze the newest version that holds the clip anew, without it, then remove all that hold it; None if none does.

    Killed half-way, it goes on with the version that it made. The caller holds the lock `holdout`.
    """
    old = traces.holdouts_with(workspace, [clip_id])
    if not old:
        return None
    version = _made_before(workspace, old[-1]) or _freeze_without(workspace, old, clip_id)
    if version:
        holdout.publish(workspace, version)
    for name in old:
        versioning_erase.remove(workspace, workspace.holdout(name), f"Holdout {name} gives way to {version or 'none'}")
    holdout.record_versions(workspace)
    git.commit(workspace, [workspace.progress / "holdout.json"], f"Holdout without clip {clip_id}")
    return Replaced(old, version, tuple(_notices(workspace, version)))


def _made_before(workspace: Workspace, name: str) -> str | None:
    """The version that took the place of `name` in a run that was killed."""
    for version in workspace.holdout_versions():
        if name in holdout.read_facts(workspace, version).get("replaces", ()):
            return version
    return None


def _freeze_without(workspace: Workspace, old: Sequence[str], clip_id: str) -> str | None:
    newest = workspace.holdout(old[-1])
    clips, tracks = (
        table.filter(pc.not_equal(table.column("clip_id"), clip_id))
        for table in (load_table(newest / name) for name in ("clips.parquet", "tracks.parquet"))
    )
    if not len(clips):
        return None
    version = holdout.next_version(workspace)
    kept = {key: value for key, value in holdout.read_facts(workspace, old[-1]).items() if key in ("share", "seed")}
    holdout.write_frozen(workspace.holdout(version), version, clips, tracks, kept | {"replaces": list(old)})
    return version


def _notices(workspace: Workspace, version: str | None) -> Iterator[str]:
    if version is None:
        yield "No clip was left to judge models by: freeze another holdout with `violence-ops holdout freeze`."
    elif missing := set(LABELS) - holdout.read_facts(workspace, version)["clips"].keys():
        yield f"Holdout {version} has no {missing.pop()} clip left: freeze another with `violence-ops holdout freeze`."
