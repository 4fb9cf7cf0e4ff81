"""Freeze clips for evaluation: whole source groups, copied, versioned and never changed or trained on again."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NotRequired

import pyarrow as pa
from typing_extensions import TypedDict

from violence_ops import git, versioning
from violence_ops.errors import UsageError, UserError, WorkspaceError
from violence_ops.evaluation.policy import MIN_GROUPS
from violence_ops.evaluation.records import HoldoutFacts
from violence_ops.files import (
    load_table,
    read_json,
    sha256_file,
    sync_folder,
    temporary_beside,
    write_json,
    write_table,
)
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params
from violence_ops.recognition import split
from violence_ops.recognition.split import Member, Support
from violence_ops.records import CLIPS_SCHEMA, LABELS, ClipRecord, as_tracks
from violence_ops.store import trained_on
from violence_ops.store.frozen import clips_of, held_out
from violence_ops.store.labelled import Labelled, in_bundles, labelled_clips, members, track_rows
from violence_ops.store.labels import relabelled
from violence_ops.store.releases import open_registry
from violence_ops.wording import counted
from violence_ops.workspace import Workspace, version_order

_PURPOSE: Final = "holdout"
TABLES: Final = ("clips.parquet", "tracks.parquet")


class _Facts(TypedDict):
    """What is read of holdout.json."""

    revision: str
    groups: list[str]
    clips: dict[str, int]
    batches: list[str]
    sha256: dict[str, str]
    replaces: NotRequired[list[str]]


@dataclass(frozen=True, slots=True)
class HoldoutResult(Jsonable):
    """A frozen holdout: its source groups, its clips by label, and `revision`, a hash over its tables."""

    version: str
    revision: str
    groups: tuple[str, ...]
    clips: dict[str, int]


def freeze(
    workspace: Workspace, params: Params, *, share: float | None = None, version: str | None = None
) -> HoldoutResult:
    """Freeze about `share` of the labelled clips, in whole source groups, as holdout `version` (default: the next of v1, v2, …).

    The same clips and `holdout.seed` give the same groups. A further version holds the groups of all earlier ones, with the
    labels of now, and about `share` of the clips of groups that no model and no dataset has seen. Without a `share` it is
    `holdout.share`, and more where that is too little for the gate (`choose`). Raises UserError if both labels cannot be on both
    sides or it would hold what the newest holds, UsageError if the version exists or the share is no share, WorkspaceError if git
    is on no branch or data is not pulled, ServiceUnavailable if MLflow, which knows what models were trained on, cannot be
    reached; nothing is frozen then.
    """
    if share is not None and not 0 < share < 1:
        raise UsageError(f"--share is {share:g} but must be between 0 and 1.")
    with workspace.lock("holdout"):
        git.check_branch(workspace)
        name = version or next_version(workspace)
        folder = workspace.holdout(name)
        if folder.exists():
            raise UsageError(f"Holdout {name} exists and is never changed: choose another --version.")
        if (known := workspace.holdout_versions()) and version_order(name) < version_order(known[-1]):
            raise UsageError(f"{name} would count as older than {known[-1]}: choose a --version that sorts after it.")
        workspace.check_pulled()
        chosen = choose(workspace, params, labelled_clips(workspace), share)
        return _freeze(workspace, params, name, chosen, share)


def ensure(workspace: Workspace, params: Params) -> HoldoutResult | None:
    """The newest holdout, or what `due` finds, frozen now; None if there is none.

    Raises UserError as `freeze` does, also if there is one whose data is not pulled.
    """
    with workspace.lock("holdout"):
        newest = [publish(workspace, version) for version in workspace.holdout_versions()[-1:]]
        if not _may_be_due(workspace, params):
            return newest[0] if newest else None
        git.check_branch(workspace)
        workspace.check_pulled()
        if chosen := due(workspace, params, labelled_clips(workspace)):
            return _freeze(workspace, params, next_version(workspace), chosen, None)
        return newest[0]


def due(workspace: Workspace, params: Params, clips: Sequence[Labelled]) -> list[Labelled]:
    """Those of `clips` that `ensure` would freeze now, if `holdout.auto_freeze` is set; none if there is nothing to freeze.

    A first holdout; or, if the newest lacks what the gate wants, that one with what unseen groups can bring. Trained on, they
    could never bring it, and no candidate could be released. Raises UserError as `freeze` does for a first one.
    """
    if not _may_be_due(workspace, params):
        return []
    versions = workspace.holdout_versions()
    if not versions:
        return choose(workspace, params, clips)
    try:
        seen, kept, free = _unseen(workspace, params, clips)
    except WorkspaceError:  # what a lost model has seen nobody knows; `freeze` says so
        return []
    held = members(one.clip for one in clips if one.clip.source_group in kept)
    new = _completing(params, clips, held, free, is_trained=bool(seen))
    chosen = _of_groups(workspace, params, clips, kept | _groups(new), seen)
    is_nearer = _shortfall(params, (one.clip for one in chosen)) < _shortfall(params, clips_of(workspace, versions[-1]))
    return chosen if is_nearer else []


def _may_be_due(workspace: Workspace, params: Params) -> bool:
    """Whether there is no holdout, or the newest lacks what the gate wants and the next version's name would come after its name."""
    versions = workspace.holdout_versions()
    if not params.holdout.auto_freeze or not versions:
        return params.holdout.auto_freeze
    follows = version_order(next_version(workspace)) > version_order(versions[-1])
    is_short = _shortfall(params, clips_of(workspace, versions[-1])) > 0
    return is_short and follows and not versioning.inside_experiment(workspace)


def read(workspace: Workspace, version: str) -> HoldoutResult:
    """What is known of a holdout version. Raises UsageError if there is none of that name."""
    if not (workspace.holdout(version) / "holdout.json").is_file():
        raise _missing(version)
    content = read_facts(workspace, version)
    return HoldoutResult(version, content["revision"], tuple(content["groups"]), content["clips"])


def read_facts(workspace: Workspace, version: str) -> dict[str, Any]:
    """The `holdout.json` of a version that there is. Raises WorkspaceError if it is damaged, or its revision is not that of its
    tables' hashes."""
    folder = workspace.holdout(version)
    path, remedy = folder / "holdout.json", _remedy(folder)
    facts = read_json(path, remedy, _Facts)
    if facts["revision"] != _revision(facts["sha256"]):
        raise WorkspaceError(f"{path} is damaged (its revision is not that of its tables): {remedy}.")
    return facts


def open_frozen(workspace: Workspace, version: str | None) -> tuple[HoldoutFacts, list[ClipRecord], pa.Table]:
    """A holdout version (default: the newest) to judge models on: its facts, its clips, and the rows of their tracks.

    Raises UsageError if there is none of that name; WorkspaceError if there is none at all, its tables are not those that were
    frozen, or it has no clip or one without a label.
    """
    name = named(workspace, version)
    folder, content = workspace.holdout(name), read_facts(workspace, name)
    for table in TABLES:
        if not (folder / table).is_file() or sha256_file(folder / table) != content["sha256"][table]:
            raise WorkspaceError(f"{folder / table} is not what was frozen: {_remedy(folder)}.")
    clips = list(clips_of(workspace, name))
    if not clips:
        raise WorkspaceError(
            f"Holdout {name} holds no clip: freeze another one with `violence-ops holdout freeze` once there are labelled clips."
        )
    for clip in clips:
        if clip.label is None:
            raise WorkspaceError(
                f"Clip {clip.clip_id} of holdout {name} has no label: freeze another one with `violence-ops holdout freeze`."
            )
    facts = HoldoutFacts(version=name, revision=content["revision"], batches=tuple(content["batches"]))
    return facts, clips, load_table(folder / "tracks.parquet")


def named(workspace: Workspace, version: str | None) -> str:
    """That version (default: the newest). Raises UsageError if there is none of that name, WorkspaceError if there is none at all."""
    versions = workspace.holdout_versions()
    name = version or (versions[-1] if versions else None)
    if name is None or name not in versions:
        raise _missing(name)
    return name


def _missing(version: str | None) -> UserError:
    if version:
        return UsageError(f"There is no holdout {version}: `violence-ops status` lists those there are.")
    return WorkspaceError("There is no holdout yet: make one with `violence-ops holdout freeze`.")


def _remedy(folder: Path) -> str:
    return f"restore it with `violence-ops dvc checkout {folder}.dvc`"


def choose(
    workspace: Workspace, params: Params, clips: Sequence[Labelled], share: float | None = None
) -> list[Labelled]:
    """The clips that `freeze` would hold out of these. Raises UserError as it does.

    Where `holdout.share` (if no other share is asked for) gives less than the gate wants, further groups are held out, up to half
    of the clips of each label; before anything was trained, only if that is enough.
    """
    seen, kept, free = _unseen(workspace, params, clips)
    bundles = split.choose(free, share or params.holdout.share, params.holdout.seed, _PURPOSE)
    if share is None:
        held = members(one.clip for one in clips if one.clip.source_group in kept | _groups(bundles))
        rest = [bundle for bundle in free if bundle not in bundles]
        bundles += _completing(params, clips, held, rest, is_trained=bool(seen))
    new = _groups(bundles)
    chosen = _of_groups(workspace, params, clips, kept | new, seen)
    if (kept or seen) and not new and _holds_already(workspace, chosen):
        raise UserError(
            "No further holdout can be frozen: labels have not changed, and too few source groups are unused by models and holdouts. "
            "Add labelled clips of at least two new groups, and freeze before training on them."
        )
    for label in LABELS:
        inside, all_of_it = (sum(one.label == label for one in some) for some in (chosen, clips))
        if not all_of_it:
            raise UserError(
                f"No holdout can be frozen: no clip in a sealed batch is labelled {label}; bring or label clips of at least two source "
                "groups per label."
            )
        if not 0 < inside < all_of_it:
            groups_now = len(in_bundles((one.clip for one in clips), params))
            raise UserError(
                f"No holdout can be frozen: of {counted(all_of_it, f'labelled {label} clip')} in sealed batches {inside} would be held out, "
                f"but both sides need some; bring clips of at least two source groups per label ({counted(groups_now, 'group')} now)."
            )
    return chosen


def _completing(
    params: Params, clips: Sequence[Labelled], held: Sequence[Member], free: Sequence[list[Member]], *, is_trained: bool
) -> list[list[Member]]:
    """What of `free` brings `held` nearer to what the gate wants."""
    wanted = _wanted(params)
    labels = Counter(one.label for one in clips)
    # two bundles of each label are the least that a first dataset can be split of
    taken = split.complete(
        held, free, wanted, {label: labels[label] // 2 for label in LABELS},
        left=0 if is_trained else 2, seed=params.holdout.seed, purpose=_PURPOSE,
    )  # fmt: skip
    reached = not wanted.missing([*held, *(member for bundle in taken for member in bundle)])
    return taken if is_trained or reached else []


def _wanted(params: Params) -> Support:
    return Support(params.gate.min_clips, MIN_GROUPS)


def _shortfall(params: Params, clips: Iterable[ClipRecord]) -> int:
    return sum(lacks(params, clips).values())


def lacks(params: Params, clips: Iterable[ClipRecord]) -> dict[str, int]:
    """How many clips of each label and how many source `groups` the gate wants more than these; empty if they are enough."""
    return _wanted(params).lacks(members(clips))


def _groups(bundles: Sequence[list[Member]]) -> set[str]:
    return {member.source_group for bundle in bundles for member in bundle}


def _unseen(
    workspace: Workspace, params: Params, clips: Sequence[Labelled]
) -> tuple[set[str], set[str], list[list[Member]]]:
    """What `_seen` says, the groups of all holdouts, and the bundles of these clips that have nothing of either."""
    seen, kept = _seen(workspace), {clip.source_group for clip in held_out(workspace)}
    bundles = in_bundles((one.clip for one in clips), params)
    free = [
        one for one in bundles if not any({m.clip_id, m.source_group} & seen or m.source_group in kept for m in one)
    ]
    return seen, kept, free


def _of_groups(
    workspace: Workspace, params: Params, clips: Sequence[Labelled], groups: set[str], seen: set[str]
) -> list[Labelled]:
    """The clips of these groups, without those that no version holds yet and that look nearly like what a model has seen."""
    wanted = [one for one in clips if one.clip.source_group in groups]
    trained = [one.clip for one in clips if {one.clip.clip_id, one.clip.source_group} & seen]
    frozen = {clip.clip_id for clip in held_out(workspace)}
    new = [one.clip for one in wanted if one.clip.clip_id not in frozen]
    alike = split.near_duplicates(members(new), members(trained), params.dataset.near_duplicate_bits)
    return [one for one in wanted if one.clip.clip_id not in alike]


def _holds_already(workspace: Workspace, chosen: Sequence[Labelled]) -> bool:
    """Whether the newest version holds these clips and no others, with these labels."""
    newest = workspace.holdout_versions()[-1:]
    frozen = {clip.clip_id: clip.label for version in newest for clip in clips_of(workspace, version)}
    return frozen == {one.clip.clip_id: one.label for one in chosen}


def _seen(workspace: Workspace) -> set[str]:
    """Clip ids and source groups in the present dataset, or in what any registered model was trained and tuned on, if it says so.

    Raises WorkspaceError if the artifact store has lost a model's package.
    """
    seen: set[str] = set()
    names = ("clip_id", "source_group")
    for one in open_registry(workspace).versions():
        record = trained_on.find(workspace, one.version) or {"clips": []}
        seen.update(row[key] for row in record["clips"] for key in names)
    for side in ("train.parquet", "val.parquet"):
        if (table := workspace.dataset / side).is_file():
            columns = load_table(table, columns=names).columns
            seen.update(value for column in columns for value in column.to_pylist())
    return seen


def _freeze(
    workspace: Workspace, params: Params, version: str, chosen: Sequence[Labelled], share: float | None
) -> HoldoutResult:
    clips = pa.Table.from_pylist([one.clip.to_dict() for one in chosen], CLIPS_SCHEMA)
    rows = {one.clip.clip_id: table for one, table in track_rows(chosen)}
    tracks = pa.concat_tables([as_tracks(rows[name]) for name in sorted(rows)])
    facts = {"share": share or params.holdout.share, "seed": params.holdout.seed}
    write_frozen(workspace.holdout(version), version, clips, tracks, facts)
    return publish(workspace, version)


def write_frozen(folder: Path, version: str, clips: pa.Table, tracks: pa.Table, facts: Mapping[str, Any]) -> None:
    """Write a holdout's tables and holdout.json, which says `facts` too, beside their place; then move them there at once."""
    temporary = temporary_beside(folder)
    temporary.mkdir(parents=True)
    try:
        for name, table in zip(TABLES, (clips, tracks), strict=True):
            write_table(temporary / name, table)
        hashes = {name: sha256_file(temporary / name) for name in TABLES}
        rows = clips.select(["source_group", "label", "batch_id"]).to_pylist()
        content = {
            "version": version, "revision": _revision(hashes),
            "groups": sorted({row["source_group"] for row in rows}),
            "clips": dict(sorted(Counter(row["label"] for row in rows).items())),
            "batches": sorted({row["batch_id"] for row in rows}),
            "rows": {"clips.parquet": len(clips), "tracks.parquet": len(tracks)}, "sha256": hashes,
        }  # fmt: skip
        write_json(temporary / "holdout.json", {**facts, **content})
        temporary.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _revision(hashes: Mapping[str, str]) -> str:
    return "".join(hashes[name][:16] for name in TABLES)


def publish(workspace: Workspace, version: str) -> HoldoutResult:
    """Put the holdout under version control, unless a run before this one has, or this is the copy of an experiment."""
    folder, tag = workspace.holdout(version), f"holdout/{version}"
    record_versions(workspace)
    if not versioning.is_tagged(workspace, tag) and not versioning.inside_experiment(workspace):
        git.commit(workspace, [workspace.progress / "holdout.json"], f"Holdout {version} is frozen")
        versioning.add_and_push(workspace, folder, f"Holdout {version}", tag)
    return read(workspace, version)


def record_versions(workspace: Workspace) -> None:
    """Write down which holdouts there are, and which of their clips have another label by now than they were frozen with, for
    the stages of dvc.yaml that depend on it."""
    versions = {name: read(workspace, name).revision for name in workspace.holdout_versions()}
    corrected = relabelled(workspace, {clip.clip_id: clip.label for clip in held_out(workspace)})
    workspace.write_progress("holdout", {"versions": versions} | ({"relabelled": corrected} if corrected else {}))


def next_version(workspace: Workspace) -> str:
    """The name of the next version; one whose later versions took its place is not used again."""
    numbers = [int(name[1:]) for name in workspace.holdout_versions() if re.fullmatch(r"v[0-9]+", name)]
    return f"v{max(numbers, default=0) + 1}"
