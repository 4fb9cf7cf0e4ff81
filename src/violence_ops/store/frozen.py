"""The clips of frozen holdouts, and what is said when one of them gets another label."""

from __future__ import annotations

from collections.abc import Iterator

from violence_ops.files import load_table
from violence_ops.records import ClipRecord
from violence_ops.workspace import Workspace


def clips_of(workspace: Workspace, version: str) -> Iterator[ClipRecord]:
    """The clips of one holdout version, with the labels that they were frozen with."""
    rows = load_table(workspace.holdout(version) / "clips.parquet").to_pylist()
    return (ClipRecord.from_dict(row) for row in rows)


def held_out(workspace: Workspace) -> list[ClipRecord]:
    """The clips of all holdout versions, each once, as the newest has it. Raises WorkspaceError if the data of one is not here."""
    found: dict[str, ClipRecord] = {}
    for version in workspace.holdout_versions():
        found |= {clip.clip_id: clip for clip in clips_of(workspace, version)}
    return list(found.values())


def corrected(count: int) -> str:
    """That so many clips of a frozen holdout got another label, and what to do."""
    return (
        f"Corrected clips in a frozen holdout, which keeps its labels: {count}; freeze a new one "
        "(`violence-ops holdout freeze`) to judge by the corrected labels."
    )
