"""Rows of labels.csv files that match no file of the inbox: they came before their clips, or after them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from violence_ops.catalog import Catalog
from violence_ops.store.inbox import LABELS_FILE, MAX_PATH, Row, parse_label
from violence_ops.wording import counted, listed, printable


def notices(inbox: Path, unmet: dict[str, Row], catalog: Catalog) -> Iterator[str]:
    """What is to be said of such rows: of those whose clip was taken before them, what can still be done. A clip's source group is
    fixed at its arrival, so that none of it is done without a person; and another file of that name may still come. Of several clips
    that came under the name, a row of the inbox is about the newest."""
    shown = {path: printable(path) for path in unmet}
    by_path = catalog.find_paths(shown.values())
    taken = {path: clip for path, name in shown.items() if name in by_path and (clip := by_path[name][-1]).batch_id}
    if waiting := [shown[path][:MAX_PATH] for path in unmet if path not in taken]:
        yield f"These {LABELS_FILE} rows match no file yet: {listed(waiting)}; paths are relative to the folder of their {LABELS_FILE}."
    for table in dict.fromkeys(unmet[path].table for path in taken):
        late = {path: clip for path, clip in taken.items() if unmet[path].table == table}
        new = [path for path, clip in late.items() if (said := parse_label(unmet[path].label)) and said != clip.label]
        yield (
            f"{counted(len(late), 'row')} of {printable(table)} came after the clips, which were taken without (batch "
            f"{listed(sorted({str(clip.batch_id) for clip in late.values()}))}): "
            + (f"{_remedy(inbox, table)} {len(new)} of them the label; " if new else "")
            + "their source groups cannot be changed any more. Then remove these rows, unless other files of the same names will come."
        )


def _remedy(inbox: Path, table: str) -> str:
    """What gives a table's late clips their labels: a command to be copied, if its name holds nothing that a terminal would obey."""
    if printable(table) != table:
        return "rename the folder that has control characters in its name, and the next notice says what gives"
    return f"`{shlex.join(['violence-ops', 'label', '--from', str(inbox / table), '--by', 'NAME'])}` gives"
