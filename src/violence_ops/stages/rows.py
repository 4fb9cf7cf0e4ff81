"""The rows of whole batches, a clip at a time: what looks at everything keeps one clip's rows in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from violence_ops.workspace import Batch


def clip_tables(batch: Batch, name: str, columns: Sequence[str] | None = None) -> Iterator[tuple[str, pa.Table]]:
    """Each clip of a batch that has rows in the table `name`, with its rows, in clip_id order. `columns` chooses some.

    Of an open batch, the clips that the stage was run for. Raises ArrowInvalid or OSError for a damaged file.
    """
    chosen = None if columns is None else ["clip_id", *columns]
    if not batch.is_sealed:
        for part in sorted((batch.open / name).glob("[!.]*.parquet")):
            table = pq.read_table(part, columns=chosen)
            if len(table):
                yield part.stem, table
        return
    with pq.ParquetFile(batch.table(name)) as file:
        groups = (file.read_row_group(index, columns=chosen) for index in range(file.num_row_groups))
        runs = (run for group in groups for run in _runs(group))
        for clip_id, pieces in groupby(runs, key=lambda run: run[0]):
            yield clip_id, pa.concat_tables(piece for _, piece in pieces)


def _runs(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The table cut where the clip changes."""
    ids = table.column("clip_id")
    if not len(ids):
        return
    codes = ids.combine_chunks().dictionary_encode().indices.to_numpy()
    starts = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
    for start, end in zip(starts, starts[1:], strict=False):
        yield ids[start].as_py(), table.slice(start, end - start)
