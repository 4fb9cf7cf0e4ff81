"""Shadow mode: a candidate judges the nights that the champion judges, and nothing follows from it.

The alias `shadow` names the version. It works on sealed batches, after the night: a night neither waits for it nor fails with it,
and what it says lies outside the batch, in the cache, where no other stage looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from violence_ops.errors import ServiceUnavailable, UsageError, UserError, WorkspaceError
from violence_ops.evaluation import shadow as engine
from violence_ops.evaluation.judgement import prediction
from violence_ops.evaluation.records import Prediction, ShadowComparison
from violence_ops.files import fingerprint, load_table, read_fingerprint, write_table
from violence_ops.folders import Batch
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params
from violence_ops.records import PREDICTIONS_SCHEMA, ClipRecord
from violence_ops.store import batches, pictures, releases, trained_on
from violence_ops.store.batches import Progress
from violence_ops.store.labels import effective_labels
from violence_ops.store.models import load_version
from violence_ops.wording import counted
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    from violence_ops.recognition.package import Package

_NONE: Final = "No version is in shadow: `violence-ops shadow start VERSION` puts one there."


@dataclass(frozen=True, slots=True)
class ShadowResult(Jsonable):
    """The version in shadow (None: there is none), the batches and clips that it has judged now, and how many `older` nights were
    left alone with a batch of which it has said nothing; `note` is the sentence to say where it was not to judge any."""

    version: str | None
    batches: int = 0
    clips: int = 0
    older: int = 0
    note: str | None = None

    def lines(self) -> list[str]:
        """What a person reads."""
        if self.note:
            return [self.note]
        if self.version is None:
            return [_NONE]
        lines = [
            f"Version {self.version} is in shadow; it has judged {counted(self.clips, 'clip')} of {counted(self.batches, 'batch', 'batches')} now."
        ]
        if self.older:
            left = counted(self.older, "older night was", "older nights were")
            lines.append(f"{left} left alone: `violence-ops shadow run --all` looks at all nights.")
        return lines


@dataclass(frozen=True, slots=True)
class _Learnt:
    """What a version was trained and tuned on: clip_ids and source groups."""

    clip_ids: frozenset[str]
    groups: frozenset[str]

    def among(self, clips: list[ClipRecord]) -> set[str]:
        """Those of the clips whose scene the version knows."""
        return {one.clip_id for one in clips if one.clip_id in self.clip_ids or one.source_group in self.groups}


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """Where a version in shadow and the champion disagreed."""

    found: ShadowComparison

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-able values."""
        return self.found.to_dict()

    def lines(self) -> list[str]:
        """What a person reads."""
        rows = [
            f"{clip.clip_id}  {clip.batch_id}  champion {clip.champion.verdict} {clip.champion.probability:.2f}, "
            f"shadow {clip.shadow.verdict} {clip.shadow.probability:.2f}, label {clip.label or 'none'}"
            for clip in self.found.disagreements
        ]
        return [engine.sentence(self.found), *rows]


def start(workspace: Workspace, version: str | None = None) -> ShadowResult:
    """Put a version (default: the candidate) in shadow, instead of the one there. Raises UserError if there is none such, or
    it is the champion."""
    with workspace.lock("release"):
        registry = releases.open_registry(workspace)
        chosen = version or registry.alias(releases.CANDIDATE)
        if chosen is None:
            raise WorkspaceError("There is no candidate to put in shadow: run `violence-ops train` first.")
        registry.version(chosen)
        if chosen == releases.agreed_champion(registry, releases.check_ledger(workspace)):
            raise UsageError(f"Version {chosen} is the champion, which judges every night anyway: name another one.")
        registry.set_alias(releases.SHADOW, chosen, registry.alias(releases.SHADOW))
    return ShadowResult(
        chosen, note=f"Version {chosen} is in shadow: `violence-ops shadow run` lets it judge the newest sealed nights."
    )


def stop(workspace: Workspace) -> ShadowResult:
    """Take the version out of shadow; what it said stays."""
    with workspace.lock("release"):
        registry = releases.open_registry(workspace)
        version = registry.alias(releases.SHADOW)
        registry.set_alias(releases.SHADOW, None, version)
    return ShadowResult(None, note=version and f"Version {version} is no longer in shadow; what it said stays.")


def run(workspace: Workspace, params: Params, *, whole: bool = False, progress: Progress | None = None) -> ShadowResult:
    """Let the version in shadow judge the batches that another champion has judged and it has not: those of the newest
    `shadow.nights` sealed nights, or with `whole` of all. Nothing if there is no such version.

    Raises ServiceUnavailable if MLflow cannot be reached, UserError if the version's package is damaged; the batches that are
    done stay.
    """
    registry = releases.open_registry(workspace)
    version = registry.alias(releases.SHADOW)
    if version is None:
        return ShadowResult(None)
    if version == releases.champion(workspace):
        return ShadowResult(version, note=f"Version {version} is champion now: nothing to shadow.")
    chosen, older = _chosen(workspace, None if whole else params.shadow.nights)
    left = len({batch.night for batch in older if not workspace.shadow(version, batch.batch_id).is_file()})
    due = [batch for batch in chosen if _is_due(workspace, batch, version)]
    done = 0
    with workspace.lock("shadow"):  # nobody else writes there
        for left_by_a_kill in workspace.shadows.glob("*/.*.tmp"):
            left_by_a_kill.unlink()
        if not due:
            return ShadowResult(version, older=left)
        package = load_version(workspace, version)
        for number, batch in enumerate(due, start=1):
            done += _judge(workspace, params, batch, version, package)
            if progress:
                progress("shadow", number, len(due))
    return ShadowResult(version, len(due), done, left)


def show(workspace: Workspace, version: str | None = None) -> ComparisonResult:
    """Where a version (default: the one in shadow) and the champion disagreed. Raises WorkspaceError if there is nothing, UsageError
    for a version that does not exist."""
    registry = releases.open_registry(workspace)
    in_shadow = registry.alias(releases.SHADOW)
    chosen = version or in_shadow
    if chosen is None:
        raise WorkspaceError(_NONE)
    found = compare(workspace, chosen)
    if found is None:
        registry.version(chosen)  # one that there is not cannot be asked to judge
        commands = "`violence-ops shadow run`"
        if chosen != in_shadow:
            commands = f"`violence-ops shadow start {chosen}` and {commands}"
        why = f"run {commands}, with `--all` if the newest nights had no champion"
        if not any(_is_judged(batch, chosen) for batch in reversed(workspace.sealed_batches())):
            why = "no sealed batch holds verdicts of a champion to compare with; the next night with a champion brings them"
        raise WorkspaceError(f"Version {chosen} has judged nothing in shadow yet: {why}.")
    return ComparisonResult(found)


def compare(workspace: Workspace, version: str) -> ShadowComparison | None:
    """What a version said in shadow beside the champions of the same batches; None if it was never in shadow.

    Of the clips that it has learnt from, and of others of their source groups, nothing is counted: there it knows the answers.
    """
    judged = [
        batch
        for batch in workspace.sealed_batches()
        if workspace.shadow(version, batch.batch_id).is_file() and _is_judged(batch, version)
    ]
    if not judged:
        return None
    known = {clip_id: label for clip_id, (label, _) in effective_labels(workspace).items()}
    learnt = _learnt(workspace, version)
    nights, differing = [], []
    for batch in judged:
        champion = _predictions(batch.table("predictions"))
        own = _predictions(workspace.shadow(version, batch.batch_id))
        clips = batches.accepted_clips(batch)
        left_out = learnt.among(clips) if learnt else set()
        nights.append(engine.night(batch.batch_id, champion, own, left_out))
        new = [clip for clip in clips if clip.clip_id not in left_out]
        differing += engine.disagreements(new, known, champion, own)
    return engine.comparison(version, nights, differing, training_known=learnt is not None)


def _learnt(workspace: Workspace, version: str) -> _Learnt | None:
    """What a version says that it was trained on; None if it does not say, or is gone."""
    try:
        # the copy that has judged needs no MLflow
        package = workspace.model_package(version)
        record = trained_on.of_package(package) or trained_on.find(workspace, version)
    except ServiceUnavailable:
        raise
    except UserError:  # a page about it can be written all the same
        return None
    if record is None:
        return None
    rows = record["clips"]
    return _Learnt(frozenset(row["clip_id"] for row in rows), frozenset(row["source_group"] for row in rows))


def _chosen(workspace: Workspace, nights: int | None) -> tuple[list[Batch], list[Batch]]:
    """The sealed batches of so many newest nights (None: of all), and the older ones."""
    sealed = workspace.sealed_batches()
    dates = sorted({batch.night for batch in sealed})
    newest = set(dates if nights is None else dates[-nights:])
    return [batch for batch in sealed if batch.night in newest], [
        batch for batch in sealed if batch.night not in newest
    ]


def _is_due(workspace: Workspace, batch: Batch, version: str) -> bool:
    is_done = read_fingerprint(workspace.shadow(version, batch.batch_id)) == _mark(batch, version)
    return not is_done and _is_judged(batch, version)


def _is_judged(batch: Batch, version: str) -> bool:
    """Whether a batch holds verdicts to compare a version's with: those of a champion, and not its own."""
    judges = load_table(batch.table("predictions"), columns=["model_version"]).column("model_version")
    return bool(set(pc.unique(judges).to_pylist()) - {version})


def _mark(batch: Batch, version: str) -> str:
    """What the rows are made from; a batch whose tracks change (`forget`) says so in its manifest."""
    return fingerprint(batch.batch_id, batches.read_manifest(batch).facts.get("tables", {}).get("tracks"), version)


def _judge(workspace: Workspace, params: Params, batch: Batch, version: str, package: Package) -> int:
    """Write what the version says of one batch; returns how many clips it judged."""
    from violence_ops.recognition.predict import predict_clip
    from violence_ops.video.sandbox import Sandbox

    clips = batches.accepted_clips(batch)
    with Sandbox(params.validation) as sandbox:
        found = [
            predict_clip(package, tracks, pictures.of_clip(batch, clip, sandbox))
            for clip, tracks in batches.tracks_by_clip(batch, clips)
        ]
    write_table(
        workspace.shadow(version, batch.batch_id),
        pa.concat_tables([PREDICTIONS_SCHEMA.empty_table(), *(one.to_table(version) for one in found)]),
        _mark(batch, version),
    )
    return len(clips)


def _predictions(path: Path) -> dict[str, Prediction]:
    """The verdict on each clip of a predictions table."""
    rows = load_table(path, columns=["clip_id", "clip_probability", "verdict"]).to_pylist()
    return {row["clip_id"]: prediction(row["clip_probability"], row["verdict"]) for row in rows}
