"""The rows of tables clip by clip: of one in memory, or of whole batches, open or sealed, of which one clip's rows are held at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa

from violence_ops.files import open_table
from violence_ops.folders import Batch
from violence_ops.store import batches


def by_clip(table: pa.Table) -> dict[str, pa.Table]:
    """The rows of each clip of a table, in their order."""
    names = table.column("clip_id").to_numpy(zero_copy_only=False)
    order = np.argsort(names, kind="stable")
    ordered, names = table.take(order), names[order]
    starts = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1)] if len(names) else []
    return {names[start]: ordered.slice(start, end - start) for start, end in pairwise([*starts, len(names)])}


def clip_tables(batch: Batch, name: str, columns: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    """Each clip of a batch that has rows in the table `name`, with `clip_id` and those of `columns` that the table has.

    Of an open batch, the clips that the stage was run for. Raises WorkspaceError, naming the file, for a damaged one.
    """
    if batch.is_sealed:
        yield from batches.rows_by_clip(batch.table(name), columns)
        return
    for part in sorted((batch.open / name).glob("[!.]*.parquet")):
        with open_table(part) as file:
            table = file.read(columns=["clip_id", *columns])
        if len(table):
            yield part.stem, table
