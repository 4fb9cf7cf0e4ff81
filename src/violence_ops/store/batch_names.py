"""How a batch may be named: by its id, or by the beginning of it, such as the night or the year."""

from __future__ import annotations

import re
from typing import Final

from violence_ops.errors import UsageError
from violence_ops.store import batches
from violence_ops.store.clip_names import either
from violence_ops.workspace import Workspace

_LENGTH: Final = len("2026-01-31-0a1b2c3d")
_BEGINNING: Final = re.compile(r"\d{4}(-[0-9a-f-]*)?")


def find(workspace: Workspace, name: str) -> str:
    """The id of the batch that is called so. Raises UsageError if there is none, or several."""
    found = called(workspace, name)
    if len(found) > 1:
        raise UsageError(f"{name!r} may be {either([f'batch {one}' for one in found])}: write more of it.")
    if found:
        return found[0]
    if _BEGINNING.fullmatch(name) and len(name) < _LENGTH:
        raise UsageError(f"No batch's id begins with {name!r}: `violence-ops status --json` lists them.")
    # what is no id is refused there, and one of no batch by the stage that looks for it
    return workspace.batch(name).batch_id


def called(workspace: Workspace, name: str) -> list[str]:
    """The batches whose id is this or begins so, in order: sealed ones, also those that only git knows here, and open ones."""
    if not _BEGINNING.fullmatch(name):
        return []
    sealed = (batch.batch_id for batch in (*workspace.sealed_batches(), *workspace.sealed_elsewhere()))
    known = {*sealed, *batches.open_batch_ids(workspace)}
    return [name] if name in known else sorted(one for one in known if one.startswith(name))
