"""The rows of whole batches, open or sealed, a clip at a time: what looks at everything keeps one clip's rows in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from violence_ops.files import open_table
from violence_ops.folders import Batch
from violence_ops.stages import batches


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
