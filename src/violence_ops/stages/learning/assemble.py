"""Make the training set: labelled clips of the sealed batches without the holdout, split by source group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from violence_ops import versioning
from violence_ops.errors import ServiceUnavailable, UserError
from violence_ops.files import fingerprint, sha256_file, write_json, write_table
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params
from violence_ops.recognition.split import choose, near_duplicates
from violence_ops.records import LABELS
from violence_ops.stages.releasing import holdout
from violence_ops.store import tombstones
from violence_ops.store.batches import Progress
from violence_ops.store.frozen import held_out
from violence_ops.store.labelled import Labelled, in_bundles, labelled_clips, members, tracks_of
from violence_ops.wording import counted
from violence_ops.workspace import Workspace

_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()), ("label", pa.string()), ("label_source", pa.string()), ("label_version", pa.int32()),
        ("source_group", pa.string()), ("batch_id", pa.string()), ("camera_id", pa.string()), ("width", pa.int32()), ("height", pa.int32()),
        ("fps", pa.float64()), ("frame_count", pa.int32()), ("perceptual_hash", pa.string()),
    ]
)  # fmt: skip
TABLES = ("train.parquet", "val.parquet", "skeletons.parquet")
"""The tables that the revision is a hash over."""
_NOTICEABLE: Final = 0.1
"""Share of the labelled clips that is worth a sentence if near-duplicates cost it."""


@dataclass(frozen=True, slots=True)
class AssembleResult(Jsonable):
    """The dataset: its revision (a hash over its tables), clips per side and clips by label; labelled clips left out: those of
    source groups of a holdout, and others that are near-duplicates of these."""

    revision: str
    train: int
    val: int
    labels: dict[str, int]
    held_out: int
    near_duplicates: int
    notices: list[str]


def run(workspace: Workspace, params: Params, *, progress: Progress | None = None) -> AssembleResult:
    """Write `data/dataset`, after freezing a holdout if one is due (`holdout.due`): train and val tables, split.json and the skeletons.

    The same sealed batches, labels, holdouts and params give the same bytes. One run at a time; the others wait. Raises
    UserError, saying what is missing, if there is no labelled clip, only one label, too few clips of one, nothing outside
    the holdout, or if the data of a holdout or of a sealed batch is not pulled; ServiceUnavailable if the DVC remote cannot be
    reached (the dataset is committed then; run again to send it).
    """
    with locked(workspace):
        return make(workspace, params, progress=progress)


@contextmanager
def locked(workspace: Workspace) -> Iterator[None]:
    """Hold the dataset alone, from reading what it is made of until it is written and recorded."""
    with workspace.lock("dataset"):
        yield


def make(workspace: Workspace, params: Params, *, progress: Progress | None = None) -> AssembleResult:
    """What `run` does, for a caller that holds the dataset (`locked`). Raises UserError as it does."""
    from violence_ops.recognition.skeleton import to_table

    content = _read(workspace, params, progress)
    train, val = content.train, content.val
    workspace.dataset.mkdir(parents=True, exist_ok=True)
    for name, side in (("train.parquet", train), ("val.parquet", val)):
        write_table(workspace.dataset / name, pa.Table.from_pylist([_row(one) for one in side], _SCHEMA))
    # what earlier versions wrote too; `dataset export` makes it
    (workspace.dataset / "pose_dataset.pkl").unlink(missing_ok=True)
    # last: as long as a table has a forgotten clip, `forget` makes all of it anew
    write_table(workspace.dataset / "skeletons.parquet", to_table(content.skeletons))
    hashes = {name: sha256_file(workspace.dataset / name) for name in TABLES}
    revision = fingerprint(hashes)
    result = AssembleResult(
        revision,
        len(train),
        len(val),
        dict(sorted(Counter(one.label for one in (*train, *val)).items())),
        content.held_out,
        content.near_duplicates,
        _notices(content, params),
    )
    _write_split(workspace, params, result, train, val, hashes)
    workspace.write_progress("assemble", result.to_dict())
    versioning.commit_stage(workspace, ["assemble"], f"Dataset {revision[:12]}", params)
    versioning.push_stage(workspace, "assemble")
    return result


@dataclass(frozen=True, slots=True)
class _Content:
    """What a dataset is made of, and how many labelled clips are left out as of a holdout's source groups or as near-duplicates."""

    train: list[Labelled]
    val: list[Labelled]
    skeletons: list[Any]
    held_out: int
    near_duplicates: int


def _read(workspace: Workspace, params: Params, progress: Progress | None) -> _Content:
    """Read the content, and read it again if a clip was forgotten meanwhile. A later one waits for the dataset in `forget`."""
    workspace.check_pulled()
    while True:
        forgotten = tombstones.all_of(workspace)
        clips = labelled_clips(workspace)
        _rehearse(workspace, params, clips)  # a holdout is for good: none is frozen that leaves no dataset
        holdout.ensure(workspace, params)
        usable = trainable(workspace, params, clips)
        _check(clips, usable, params)
        train, val = _split(usable, params)
        skeletons = _skeletons(usable, params, progress)
        if tombstones.all_of(workspace) == forgotten:
            groups = {clip.source_group for clip in held_out(workspace)}
            of_holdout = sum(one.clip.source_group in groups for one in clips)
            return _Content(train, val, skeletons, of_holdout, len(clips) - len(usable) - of_holdout)


def _notices(content: _Content, params: Params) -> list[str]:
    alike = content.near_duplicates
    labelled = len(content.train) + len(content.val) + content.held_out + alike
    if alike < _NOTICEABLE * labelled:
        return []
    return [
        f"{alike} of {labelled} labelled clips are left out only because they look nearly like clips of the holdout: if these are other "
        f"scenes of the same fixed cameras, lower dataset.near_duplicate_bits ({params.dataset.near_duplicate_bits})."
    ]


def baked_in(params: Params) -> dict[str, Any]:
    """The settings that decide what is in a dataset, by name; the others are for whoever trains on it."""
    return {
        "windows.persons": params.windows.persons,
        "windows.frames_per_second": params.windows.frames_per_second,
        "dataset.validation_share": params.dataset.validation_share,
        "dataset.near_duplicate_bits": params.dataset.near_duplicate_bits,
        "holdout.seed": params.holdout.seed,
    }


def obstacle(workspace: Workspace, params: Params, clips: Sequence[Labelled]) -> str | None:
    """Why `run` would refuse these labelled clips, in a sentence; None if it would not. Writes nothing. Raises ServiceUnavailable
    as `run`."""
    try:
        workspace.check_pulled()
        _rehearse(workspace, params, clips)
    except ServiceUnavailable:
        raise  # it says nothing of the clips
    except UserError as error:
        return str(error)
    return None


def _rehearse(workspace: Workspace, params: Params, clips: Sequence[Labelled]) -> None:
    """Choose the holdout, if one is to be frozen, and both sides of these labelled clips, writing nothing. Raises UserError as `run`."""
    usable = trainable(workspace, params, clips)
    _check(clips, usable, params)
    if held := {one.clip.clip_id for one in holdout.due(workspace, params, clips)}:
        usable = [one for one in usable if one.clip.clip_id not in held]
        _check(clips, usable, params)
    _split(usable, params)


def trainable(workspace: Workspace, params: Params, clips: Sequence[Labelled]) -> list[Labelled]:
    """Those of `clips` that share no source group with any holdout version, and are no near-duplicate of a clip of such a group.

    A clip's own hash decides: chains of near-duplicates join nearly all clips of a fixed camera in time.
    """
    frozen = held_out(workspace)
    groups = {clip.source_group for clip in frozen}
    free = [one for one in clips if one.clip.source_group not in groups]
    # the next holdout version holds what came to these groups later
    later = (one.clip for one in clips if one.clip.source_group in groups)
    alike = near_duplicates(
        members(one.clip for one in free), members([*frozen, *later]), params.dataset.near_duplicate_bits
    )
    return [one for one in free if one.clip.clip_id not in alike]


def _check(clips: Sequence[Labelled], usable: Sequence[Labelled], params: Params) -> None:
    if not clips:
        raise UserError(
            "No sealed batch holds a labelled clip: label some (`violence-ops label`, or Fight/ and NonFight/ folders in the inbox)."
        )
    if not usable:
        raise UserError(
            f"All labelled clips ({len(clips)}) belong to source groups of the holdout or look nearly like its clips: bring labelled clips of other source groups."
        )
    counts = Counter(one.label for one in usable)
    if len(counts) < len(LABELS):
        (only,) = counts
        raise UserError(f"All clips to train on ({len(usable)}) are {only}: label clips of the other class too.")
    label, least = min(counts.items(), key=lambda item: item[1])
    if least < params.dataset.min_clips_per_label:
        raise UserError(
            f"Only {counted(least, f'{label} clip')} to train on, dataset.min_clips_per_label asks for {params.dataset.min_clips_per_label}: "
            "label more clips, or lower it."
        )


def _split(usable: Sequence[Labelled], params: Params) -> tuple[list[Labelled], list[Labelled]]:
    bundles = in_bundles((one.clip for one in usable), params)
    chosen = choose(bundles, params.dataset.validation_share, params.holdout.seed, "validation")
    names = {member.clip_id for family in chosen for member in family}
    train = [one for one in usable if one.clip.clip_id not in names]
    val = [one for one in usable if one.clip.clip_id in names]
    for label in LABELS:
        if not all(any(one.label == label for one in side) for side in (train, val)):
            raise UserError(
                f"{label} clips cannot be on both sides of the split into training and validation, which keeps source groups, and "
                f"near-duplicates (dataset.near_duplicate_bits), together: bring {label} clips of at least two source groups outside the holdout."
            )
    return train, val


def _skeletons(usable: Sequence[Labelled], params: Params, progress: Progress | None) -> list[Any]:
    from violence_ops.recognition.skeleton import from_tracks

    found = []
    for done, tracks in enumerate(tracks_of(usable), start=1):
        found.append(from_tracks(tracks, params.windows.persons, params.windows.frames_per_second))
        if progress:
            progress("assemble", done, len(usable))
    return sorted(found, key=lambda skeleton: skeleton.clip_id)


def _row(one: Labelled) -> dict[str, Any]:
    facts = one.clip.to_dict() | {
        "label_source": one.source,
        "label_version": one.version,
        "batch_id": one.batch.batch_id,
    }
    return {name: facts[name] for name in _SCHEMA.names}


def _write_split(
    workspace: Workspace,
    params: Params,
    result: AssembleResult,
    train: list[Labelled],
    val: list[Labelled],
    hashes: dict[str, str],
) -> None:
    write_json(
        workspace.dataset / "split.json",
        {
            "revision": result.revision,
            "groups": {name: sorted({one.clip.source_group for one in side}) for name, side in (("train", train), ("val", val))},
            "clips": {name: dict(sorted(Counter(one.label for one in side).items())) for name, side in (("train", train), ("val", val))},
            "batches": sorted({one.batch.batch_id for one in (*train, *val)}),
            "holdouts": {name: holdout.read(workspace, name).revision for name in workspace.holdout_versions()},
            "held_out": result.held_out,
            "near_duplicates": result.near_duplicates,
            "labels_version": max(one.version for one in (*train, *val)),
            **{name.rpartition(".")[2]: value for name, value in baked_in(params).items()},
            "sha256": hashes,
        },
    )  # fmt: skip
