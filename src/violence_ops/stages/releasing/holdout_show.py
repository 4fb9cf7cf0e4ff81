"""`holdout show`: what a frozen holdout holds, and whether the gate can judge by it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from violence_ops import versioning
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params
from violence_ops.stages.releasing import holdout
from violence_ops.store import frozen
from violence_ops.store.labels import relabelled
from violence_ops.wording import counted
from violence_ops.workspace import Workspace


@dataclass(frozen=True, slots=True)
class HoldoutShown(Jsonable):
    """A holdout version: when it was `frozen_at` (ISO 8601; None: this git has not its tag), its clips by label, its source groups
    and batches, what it `lacks` for the gate (clips by label, and `groups`), and what makes it stale: a `newer` version, or clips
    that are `relabelled` since. `versions` are all that there are, oldest first."""

    version: str
    revision: str
    frozen_at: str | None
    clips: dict[str, int]
    groups: tuple[str, ...]
    batches: tuple[str, ...]
    lacks: dict[str, int]
    newer: str | None
    relabelled: tuple[str, ...]
    versions: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """What a person reads."""
        yield f"holdout   {self.version}, revision {self.revision}; frozen {self.frozen_at or 'at a time that this git does not know'}"
        yield f"versions  {', '.join(self.versions)}"
        clips = " and ".join(f"{number} {label}" for label, number in self.clips.items())
        where = f"{counted(len(self.groups), 'source group')} in {counted(len(self.batches), 'batch', 'batches')}"
        yield f"clips     {clips} of {where}"
        yield f"gate      {self._gate()}"
        yield f"stale     {'; '.join(self._stale()) or 'no'}"

    def _gate(self) -> str:
        if not self.lacks:
            return "enough clips and source groups (gate.min_clips)"
        missing = [
            counted(number, "source group" if name == "groups" else f"{name} clip")
            for name, number in self.lacks.items()
        ]
        return f"too small for a verdict, it lacks {', '.join(missing)}: bring labelled clips of new source groups"

    def _stale(self) -> Iterator[str]:
        if self.newer:
            yield f"{self.newer} is newer"
        if self.relabelled:
            said = counted(len(self.relabelled), "clip has", "clips have")
            yield f"{said} another label by now: freeze another with `violence-ops holdout freeze`"


def run(workspace: Workspace, params: Params, version: str | None = None) -> HoldoutShown:
    """Look at a holdout version (default: the newest) and change nothing.

    Raises UsageError if there is none of that name; WorkspaceError if there is none at all, it is damaged, or the data of one is
    not pulled.
    """
    name, versions = holdout.named(workspace, version), workspace.holdout_versions()
    facts, clips = holdout.read_facts(workspace, name), list(frozen.clips_of(workspace, name))
    return HoldoutShown(
        version=name,
        revision=facts["revision"],
        frozen_at=versioning.tagged_at(workspace, f"holdout/{name}"),
        clips=facts["clips"],
        groups=tuple(facts["groups"]),
        batches=tuple(facts["batches"]),
        lacks=holdout.lacks(params, clips),
        newer=versions[-1] if versions[-1] != name else None,
        relabelled=relabelled(workspace, {clip.clip_id: clip.label for clip in clips}),
        versions=tuple(versions),
    )
