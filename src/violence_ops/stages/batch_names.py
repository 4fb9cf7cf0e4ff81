"""How a batch may be named: by its id, or by the beginning of it, such as the night."""

from __future__ import annotations

import re
from typing import Final

from violence_ops.errors import UsageError
from violence_ops.stages import batches
from violence_ops.stages.clip_names import listed
from violence_ops.workspace import Workspace

_BEGINNING: Final = re.compile(r"\d{4}-[0-9a-f-]*")


def find(workspace: Workspace, name: str) -> str:
    """The id of the batch that is called so. Raises UsageError if there is none, or several."""
    found = called(workspace, name)
    if len(found) > 1:
        raise UsageError(f"{name!r} may be {listed([f'batch {one}' for one in found])}: write more of it.")
    # what begins no id is refused there, or by the stage that looks for such a batch
    return found[0] if found else workspace.batch(name).batch_id


def called(workspace: Workspace, name: str) -> list[str]:
    """The batches whose id is this or begins so, in order: sealed ones, also those that only git knows here, and open ones."""
    if not _BEGINNING.fullmatch(name):
        return []
    sealed = (batch.batch_id for batch in (*workspace.sealed_batches(), *workspace.sealed_elsewhere()))
    known = {*sealed, *batches.open_batch_ids(workspace)}
    return [name] if name in known else sorted(one for one in known if one.startswith(name))
