"""A batch without one of its clips: the same tables, in the form that sealing gives them, less the clip's rows."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, NotRequired

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from typing_extensions import TypedDict

from violence_ops.files import load_table, open_table, read_json, sha256_file, table_writer, write_json, write_table
from violence_ops.folders import Batch
from violence_ops.store import batches


class _Costs(TypedDict):
    clips: dict[str, Any]


class _Run(TypedDict):
    pose_costs: NotRequired[_Costs]


class _Sealed(TypedDict):
    tables: dict[str, Any]
    run: _Run


def open_without(batch: Batch, clip_id: str) -> dict[str, Any]:
    """Take a clip out of the working folder of a batch: manifest, parts and video. Returns what went; can be repeated."""
    manifest = batch.open / "batch.json"
    if not manifest.is_file():
        return {}
    content = read_json(manifest)
    rows = {name: batches.part_rows(batch, name, clip_id) for name in batches.TABLES}
    videos = len(list((batch.open / "videos").glob(f"{clip_id}*")))
    write_json(manifest, content | {"clips": [clip for clip in content["clips"] if clip["clip_id"] != clip_id]})
    for path in sorted(batch.open.rglob(f"*{clip_id}*")):
        path.unlink(missing_ok=True)  # a stage removes what it leaves half written
    return {"rows": rows, "videos": videos}


def sealed_without(batch: Batch, clip_id: str) -> dict[str, Any]:
    """Take a clip out of a sealed batch: rows, video, and what batch.json says of it. Returns what went; can be repeated.

    All tables are read before the first is replaced. Every file is replaced at once, and batch.json last, as it names the
    others' hashes. Raises WorkspaceError if one is missing or damaged.
    """
    if not batch.is_sealed:
        return {}
    content = read_json(batch.manifest, shape=_Sealed)
    clips = load_table(batch.table("clips"))
    kept = clips.filter(pc.not_equal(clips.column("clip_id"), clip_id))
    with ExitStack() as written:
        by_clip = [name for name in content["tables"] if name != "clips"]
        rows = {name: _rows_without(batch.table(name), clip_id, written) for name in by_clip}
    if len(kept) < len(clips):
        write_table(batch.table("clips"), kept)
    videos = sorted(batch.videos.glob(f"{clip_id}*"))
    for video in videos:
        video.unlink()
    _describe(batch, content, clip_id, kept)
    return {"rows": rows | {"clips": len(clips) - len(kept)}, "videos": len(videos)}


def has_rows(file: pq.ParquetFile, clip_id: str) -> bool:
    """Whether a table has rows of a clip; looks only into row groups whose statistics allow it."""
    if "clip_id" not in file.schema_arrow.names:
        return False
    column = file.schema_arrow.names.index("clip_id")
    for number in range(file.num_row_groups):
        found = file.metadata.row_group(number).column(column).statistics
        if found is not None and found.has_min_max and not found.min <= clip_id <= found.max:
            continue
        names = file.read_row_group(number, columns=["clip_id"]).column("clip_id")
        if pc.any(pc.equal(names, clip_id)).as_py():
            return True
    return False


def _rows_without(path: Path, clip_id: str, written: ExitStack) -> int:
    """Write a table without a clip's rows, a row group a clip as before; returns how many there were.

    The file is replaced when `written` is left.
    """
    with open_table(path) as file:
        if not has_rows(file, clip_id):
            return 0
        schema: pa.Schema = file.schema_arrow
    removed = 0
    append = written.enter_context(table_writer(path, schema))
    for name, rows in batches.rows_by_clip(path, [column for column in schema.names if column != "clip_id"]):
        if name == clip_id:
            removed += len(rows)
        else:
            append(rows)
    return removed


def _describe(batch: Batch, content: dict[str, Any], clip_id: str, clips: pa.Table) -> None:
    """Bring batch.json, which has this `content`, in line with the tables."""
    tables = {
        name: {"rows": batches.row_count(batch.table(name)), "sha256": sha256_file(batch.table(name))}
        for name in content["tables"]
    }
    refused = clips.filter(pc.equal(clips.column("status"), "quarantined"))
    by_reason = {row["values"]: row["counts"] for row in pc.value_counts(refused.column("reason")).to_pylist()}
    run = content["run"]
    if costs := run.get("pose_costs"):  # older batches have none
        rest = {name: cost for name, cost in costs["clips"].items() if name != clip_id}
        run = run | {"pose_costs": costs | {"clips": rest}}
    facts = {"tables": tables, "run": run, "accepted": len(clips) - len(refused), "quarantined": by_reason}
    if content != (changed := content | facts):
        write_json(batch.manifest, changed)
