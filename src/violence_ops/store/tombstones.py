"""Tombstones: what is left of a forgotten clip, so that it is refused when it comes again. No personal data."""

from __future__ import annotations

from typing import Any, Final, NotRequired

from typing_extensions import TypedDict

from violence_ops.files import read_json, write_json
from violence_ops.workspace import Workspace

REASON: Final = "forgotten"
"""For what a file is refused that is a forgotten clip; not even its bytes are kept in the quarantine."""


class _Stone(TypedDict):
    clip_id: str
    by: str
    reason: str
    at: str
    batch_id: NotRequired[str | None]
    models: list[str]
    silent_models: NotRequired[list[str]]
    dataset_revisions: NotRequired[list[str]]
    holdouts: NotRequired[list[str]]
    evaluations: NotRequired[list[str]]


def write(workspace: Workspace, content: dict[str, Any]) -> None:
    """Write the tombstone of `content["clip_id"]`."""
    write_json(workspace.tombstone(content["clip_id"]), content)


def find(workspace: Workspace, clip_id: str) -> dict[str, Any] | None:
    """The tombstone of a clip, or None."""
    path = workspace.tombstone(clip_id)
    return (
        read_json(path, f"restore it with `git checkout -- {path.relative_to(workspace.root)}`", _Stone)
        if path.is_file()
        else None
    )


def stands(workspace: Workspace, clip_id: str) -> bool:
    """Whether a clip is forgotten, or is being so."""
    return workspace.tombstone(clip_id).is_file()


def read(workspace: Workspace, clip_id: str) -> dict[str, Any]:
    """The tombstone of a forgotten clip."""
    found = find(workspace, clip_id)
    assert found is not None
    return found


def all_of(workspace: Workspace) -> list[str]:
    """The forgotten clips, in clip_id order."""
    return sorted(path.stem for path in workspace.tombstones.glob("[0-9a-f]" * 20 + ".json"))


def is_finished(workspace: Workspace, clip_id: str) -> bool:
    """Whether all of a forgotten clip that could be removed is gone. Raises WorkspaceError if its tombstone is damaged."""
    return read(workspace, clip_id).get("done") is True
