"""A batch: its manifest, its clips, and each clip's rows while it is open or sealed."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NotRequired

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from typing_extensions import TypedDict

from violence_ops.errors import UnknownBatch, WorkspaceError
from violence_ops.files import load_table, open_table, read_json, write_json
from violence_ops.folders import Batch
from violence_ops.records import CLIPS_SCHEMA, ClipPoses, ClipRecord, ClipTracks
from violence_ops.workspace import Workspace

Progress = Callable[[str, int, int], None]
"""Called as `progress(what, done, total)` after every unit of work."""

TABLES: Final = ("clips", "poses", "tracks", "predictions")
"""Of a batch, in the order in which they are made."""

_AT_ONCE: Final = 16_384
"""So many rows of a table, of up to 300 bytes each, are read at once: a row group is a clip's, and to read each alone takes longer."""

_SUFFIXES: Final = frozenset(
    {
        ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".wmv", ".asf", ".flv",
        ".3gp", ".dav", ".h264", ".h265", ".hevc", ".mjpeg", ".mjpg", ".ogv", ".mxf",
    }
)  # fmt: skip


class _Weights(TypedDict):
    name: str
    sha256: str


class _Table(TypedDict):
    rows: int
    sha256: str


class _Content(TypedDict):
    batch_id: str
    night: str
    clips: NotRequired[list[ClipRecord]]
    tables: NotRequired[dict[str, _Table]]
    params: NotRequired[dict[str, Any]]
    pose_weights: NotRequired[_Weights]
    run: NotRequired[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Manifest:
    """`batch.json`: what was ingested, before and after sealing. `facts` holds what only the sealed batch knows."""

    batch_id: str
    night: str
    clips: tuple[ClipRecord, ...]
    facts: dict[str, Any]


def write_manifest(batch: Batch, night: str, clips: Iterable[ClipRecord]) -> None:
    """Write the manifest of an open batch: its clips as ingested, in clip_id order."""
    rows = [clip.to_dict() for clip in sorted(clips, key=lambda clip: clip.clip_id)]
    write_json(batch.open / "batch.json", {"batch_id": batch.batch_id, "night": night, "clips": rows})


def read_manifest(batch: Batch) -> Manifest:
    """Read `batch.json`. Raises UnknownBatch."""
    if not batch.manifest.is_file():
        raise UnknownBatch(batch.batch_id)
    content = read_json(batch.manifest, shape=_Content)
    facts = content.without("batch_id", "night", "clips")
    clips = tuple(row.to(ClipRecord.from_dict) for row in content.get("clips", ()))
    return Manifest(content["batch_id"], content["night"], clips, facts)


def open_batch_ids(workspace: Workspace) -> list[str]:
    """Batches that were ingested and not yet sealed, oldest first."""
    names = sorted(path.parent.name for path in workspace.work.glob("*/batch.json"))
    return [name for name in names if not workspace.batch(name).is_sealed]


def chosen_batches(workspace: Workspace, batch_id: str | None) -> list[Batch]:
    """The named batch, or every open one."""
    return [workspace.batch(name) for name in ([batch_id] if batch_id else open_batch_ids(workspace))]


def read_clips(batch: Batch, clip_ids: Iterable[str] | None = None) -> list[ClipRecord]:
    """The validated clips (accepted and quarantined) of an open or sealed batch, in clip_id order.

    Of an open batch only those that `validate` has passed judgement on. `clip_ids` chooses some.
    """
    wanted = None if clip_ids is None else set(clip_ids)
    if batch.is_sealed:
        table = load_table(batch.table("clips"))
    else:
        # not the whole folder for a few: every clip is asked for alone
        folder = (batch.open / "clips").glob("*.parquet")
        parts = sorted(folder if wanted is None else filter(Path.is_file, (batch.part("clips", one) for one in wanted)))
        tables = [found for part in parts if (found := _part(part)) is not None]
        table = pa.concat_tables(tables) if tables else CLIPS_SCHEMA.empty_table()
    records = (ClipRecord.from_dict(row) for row in table.to_pylist())
    return [record for record in records if wanted is None or record.clip_id in wanted]


def _part(path: Path) -> pa.Table | None:
    """The rows of a part; None if it was taken away since it was listed, as `forget` and `retry` do."""
    try:
        return load_table(path)
    except WorkspaceError:
        if path.exists():
            raise
        return None


def accepted_clips(batch: Batch, clip_ids: Iterable[str] | None = None) -> list[ClipRecord]:
    """The clips that passed validation, in clip_id order."""
    return [clip for clip in read_clips(batch, clip_ids) if clip.status == "accepted"]


@contextmanager
def locked(workspace: Workspace, batch: Batch, *, shared: bool = False) -> Iterator[None]:
    """Hold a batch: alone to seal it or to take a clip out, with others (`shared`) to write what is told of one of its clips."""
    with workspace.lock(lock_of(batch), shared=shared):
        yield


def lock_of(batch: Batch) -> str:
    """The name of the lock that `locked` holds."""
    return f"seal-{batch.batch_id}"


def is_video(path: Path) -> bool:
    """Whether a file's name ends as that of a known video format does, in small letters or large."""
    return path.suffix.lower() in _SUFFIXES


def stored_suffix(source_path: str) -> str:
    """The suffix under which a file is kept: its own if it is that of a known video format, else `.bin`."""
    path = Path(source_path)
    return path.suffix.lower() if is_video(path) else ".bin"


def video_of(batch: Batch, clip: ClipRecord) -> Path:
    """The original file of an accepted clip."""
    return batch.videos / f"{clip.clip_id}{stored_suffix(clip.source_path)}"


def read_rows(batch: Batch, table: str, clip_id: str) -> pa.Table:
    """One clip's rows of `poses`, `tracks` or `predictions`. Raises WorkspaceError if the stage has not run."""
    if batch.is_sealed:
        return next(rows_of(batch, table, [clip_id]))
    part = batch.part(table, clip_id)
    if not part.is_file():
        raise WorkspaceError(
            f"Clip {clip_id} of batch {batch.batch_id} has no {table} yet: run the stage that makes them first."
        )
    return load_table(part)


def part_rows(batch: Batch, table: str, clip_id: str) -> int:
    """How many rows a table of an open batch has of a clip; 0 if the stage has not run, or they cannot be read."""
    try:
        return row_count(batch.part(table, clip_id))
    except WorkspaceError:
        return 0


def most_rows(batch: Batch, table: str, clips: Iterable[ClipRecord]) -> int:
    """How many rows a table has of that one of these clips of which it has most; 0 where it cannot be read."""
    clip_ids = [clip.clip_id for clip in clips]
    if not batch.is_sealed:
        return max((part_rows(batch, table, clip_id) for clip_id in clip_ids), default=0)
    try:
        with open_table(batch.table(table)) as file:
            rows = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
            groups = row_groups(file)
    except WorkspaceError:
        return 0
    return max((sum(rows[number] for number in groups.get(clip_id, ())) for clip_id in clip_ids), default=0)


def read_poses(batch: Batch, clip: ClipRecord) -> ClipPoses:
    """One clip's poses."""
    return ClipPoses.from_table(read_rows(batch, "poses", clip.clip_id), clip)


def read_tracks(batch: Batch, clip: ClipRecord) -> ClipTracks:
    """One clip's tracks."""
    return ClipTracks.from_table(read_rows(batch, "tracks", clip.clip_id), clip)


def tracks_by_clip(batch: Batch, clips: Iterable[ClipRecord]) -> Iterator[tuple[ClipRecord, ClipTracks]]:
    """The tracks of these clips, one after the other, in their order."""
    clips = list(clips)
    for clip, rows in zip(clips, rows_of(batch, "tracks", [clip.clip_id for clip in clips]), strict=True):
        yield clip, ClipTracks.from_table(rows, clip)


def rows_of(batch: Batch, table: str, clip_ids: Iterable[str]) -> Iterator[pa.Table]:
    """The rows of `poses`, `tracks` or `predictions` of each of these clips, in their order, empty where it has none.

    For many clips of a sealed batch: `read_rows` looks for the row groups of each of them, this once for all.
    Of other clips nothing is read. Raises WorkspaceError for a damaged table.
    """
    if not batch.is_sealed:
        yield from (read_rows(batch, table, clip_id) for clip_id in clip_ids)
        return
    with open_table(batch.table(table)) as file:
        groups = row_groups(file)
        read: list[int] = []
        rows = file.read_row_groups(read)
        for clip_id in clip_ids:
            if (wanted := groups.get(clip_id, [])) != read:  # clips of one row group come after each other
                read, rows = wanted, file.read_row_groups(wanted)
            yield rows.filter(pc.field("clip_id") == clip_id)


def row_groups(file: pq.ParquetFile) -> dict[str, list[int]]:
    """The row groups that hold rows of each clip; `seal` writes one a clip."""
    column = file.schema_arrow.names.index("clip_id")
    groups: dict[str, list[int]] = defaultdict(list)
    for number in range(file.num_row_groups):
        found = file.metadata.row_group(number).column(column).statistics
        if found is not None and found.has_min_max and found.min == found.max:
            groups[found.min].append(number)
            continue
        for clip_id in file.read_row_group(number, columns=["clip_id"]).column("clip_id").unique().to_pylist():
            groups[clip_id].append(number)
    return groups


def row_count(path: Path) -> int:
    """How many rows a table has, as its end says."""
    with open_table(path) as file:
        return int(file.metadata.num_rows)


def rows_by_clip(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each clip of a sealed table (`clip_id` and `columns`), in the table's order, some row groups at a time."""
    pending: pa.Table | None = None
    with open_table(path) as file:
        ends = itertools.accumulate(file.metadata.row_group(number).num_rows for number in range(file.num_row_groups))
        for _, piece in itertools.groupby(enumerate(ends), key=lambda one: one[1] // _AT_ONCE):
            group = file.read_row_groups([number for number, _ in piece], columns=["clip_id", *columns])
            group = group if pending is None else pa.concat_tables([pending, group])
            runs = pc.run_end_encode(group.column("clip_id").combine_chunks())
            start = 0
            # the last clip may go on in the next row group
            for clip_id, end in zip(runs.values.to_pylist()[:-1], runs.run_ends.to_pylist()[:-1], strict=True):
                yield clip_id, group.slice(start, end - start)
                start = end
            pending = group.slice(start)
    if pending is not None and len(pending):
        yield pending.column("clip_id")[0].as_py(), pending
