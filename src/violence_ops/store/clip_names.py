"""How a clip may be named: by its id, 4 or more of its first digits, or the path (or the end of it) under which it arrived."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from violence_ops.catalog import Catalog, CatalogClip
from violence_ops.errors import UsageError
from violence_ops.store import quarantine, tombstones
from violence_ops.store.index import open_catalog
from violence_ops.wording import printable
from violence_ops.workspace import Workspace

FORGOTTEN: Final = "forgotten"
"""The status of a clip of which only the tombstone is left."""
SHOWN: Final = 5
"""So many of the clips that a name may mean are listed."""
WAYS: Final = "give its id, 4 or more of its first digits, or the path under which it arrived (such as Fight/one.mp4)"
_ID: Final = re.compile(r"[0-9a-f]{4,20}")


def find(workspace: Workspace, name: str) -> CatalogClip:
    """The clip that is called so; also a forgotten one. Raises UsageError if there is none, or several."""
    found = called(workspace, name)
    if not found:
        raise UsageError(f"No clip of this workspace is called {name[:200]!r}: {WAYS}.")
    if len(found) > 1:
        raise UsageError(f"{ambiguous(name, found)}: write more of it, or one id.")
    return found[0]


def clip_id(workspace: Workspace, name: str) -> str:
    """The id of the clip that is called so. Raises UsageError if there is none, or several, or it was forgotten."""
    found = find(workspace, name)
    if found.status == FORGOTTEN:
        stone = tombstones.read(workspace, found.clip_id)
        raise UsageError("Clip {clip_id} was forgotten on {at} by {by}: {reason}.".format(**stone))
    return found.clip_id


def called(workspace: Workspace, name: str) -> list[CatalogClip]:
    """The clips that the name may mean, one more than SHOWN at most; a path may be as it was, or as it is shown."""
    name = printable(name)
    gone = set(tombstones.all_of(workspace))
    with open_catalog(workspace) as catalog:
        found = _by_id(catalog, name, gone) if is_beginning(name) else []
        found = found or catalog.arrived_as(name, SHOWN + 1) or _copies(workspace, catalog, name)
    found = [replace(clip, status=FORGOTTEN) if clip.clip_id in gone else clip for clip in found]
    return found[: SHOWN + 1]


def is_beginning(name: str) -> bool:
    """Whether the name may be the beginning of an id."""
    return _ID.fullmatch(name) is not None


def ambiguous(name: str, found: list[CatalogClip]) -> str:
    """What is to be said of a name that several clips have."""
    return f"{name!r} may be {either([described(clip) for clip in found])}"


def described(clip: CatalogClip) -> str:
    """The clip in a list of several."""
    if clip.status == FORGOTTEN:
        return f"forgotten clip {clip.clip_id}"
    return f"clip {clip.clip_id} ({f'batch {clip.batch_id}' if clip.batch_id else 'no batch'}, {clip.source_path})"


def either(several: list[str]) -> str:
    """At most SHOWN of them."""
    return "; ".join([*several[:SHOWN], "and more"] if len(several) > SHOWN else several)


def _by_id(catalog: Catalog, name: str, gone: set[str]) -> list[CatalogClip]:
    forgotten = [
        CatalogClip(one, batch_id=None, status=FORGOTTEN, reason=None, label=None, source_path=None, source_group=None)
        for one in sorted(gone)
        if one.startswith(name)
    ]
    return forgotten + [clip for clip in catalog.beginning_with(name, SHOWN + 1) if clip.clip_id not in gone]


def _copies(workspace: Workspace, catalog: Catalog, name: str) -> list[CatalogClip]:
    """The clips whose bytes arrived under this path too; only the quarantine knows of these."""
    found = {
        entry["clip_id"]
        for entry in quarantine.entries(workspace)
        if any(f"/{one['source_path']}".endswith(f"/{name}") for one in entry["occurrences"])
    }
    return list(catalog.find(found).values())
