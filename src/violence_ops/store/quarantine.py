"""The quarantine: the original of every refused file, and `reason.json`, which says why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from violence_ops.files import read_json, write_json
from violence_ops.records import ClipRecord, Label
from violence_ops.workspace import Workspace


class _Occurrence(TypedDict):
    night: str
    source_path: str


class _Reason(TypedDict):
    clip_id: str
    reason: str
    message: str
    source_path: str
    sha256: str
    source_group: str
    size_bytes: NotRequired[int]
    batch_id: NotRequired[str | None]
    label: NotRequired[Label | None]
    camera_id: NotRequired[str | None]
    recorded_at: NotRequired[str | None]
    original: NotRequired[str | None]
    occurrences: NotRequired[list[_Occurrence]]


def put(
    workspace: Workspace,
    clip: ClipRecord,
    *,
    night: str,
    message: str,
    original: Path | None,
    suffix: str = "",
    facts: dict[str, Any] | None = None,
) -> None:
    """Keep `original` (hard-linked; the caller removes its own name afterwards) and write `reason.json`. Can be repeated. Of another
    user's file the system may allow no link (fs.protected_hardlinks): it is moved then.

    `clip.reason` is the code. A duplicate has no `original`: its bytes are kept where the first one is. Seen again, a file
    adds an occurrence; a reason found in the bytes wins over `duplicate`.
    """
    folder = workspace.quarantined(clip.clip_id)
    with workspace.lock("quarantine"):
        known = read(folder) or {}
        folder.mkdir(parents=True, exist_ok=True)
        for left_by_a_kill in folder.glob(".reason.json.*.tmp"):
            left_by_a_kill.unlink()
        name = known.get("original") or (f"original{suffix}" if original else None)
        is_kept = original is None or (folder / str(name)).exists() or _is_linked(original, folder / str(name))
        content = {
            "clip_id": clip.clip_id, "reason": clip.reason, "message": message, "source_path": clip.source_path,
            "sha256": clip.sha256, "size_bytes": clip.size_bytes, "night": night, "batch_id": clip.batch_id or None,
            "label": clip.label, "source_group": clip.source_group, "camera_id": clip.camera_id,
            "recorded_at": clip.recorded_at, **(facts or {}),
        }  # fmt: skip
        if known and clip.reason == "duplicate":
            content = known
        occurrence = {"night": night, "source_path": clip.source_path}
        occurrences = known.get("occurrences", [])
        if occurrence not in occurrences:
            occurrences = [*occurrences, occurrence]
        write_json(folder / "reason.json", content | {"original": name, "occurrences": occurrences})
        if original is not None and not is_kept:  # last: from here on the caller's name is gone
            original.rename(folder / str(name))


def _is_linked(original: Path, target: Path) -> bool:
    """Give a file a second name; False if the system does not allow it."""
    try:
        os.link(original, target, follow_symlinks=False)
    except PermissionError:
        return False
    return True


def release(workspace: Workspace, clip_id: str) -> None:
    """Give up an original that lies elsewhere by now; `reason.json` stays. Can be repeated."""
    folder = workspace.quarantined(clip_id)
    with workspace.lock("quarantine"):
        known = read(folder) or {}
        if name := known.get("original"):
            write_json(folder / "reason.json", known | {"original": None})
            (folder / name).unlink()


def drop_original(workspace: Workspace, clip_id: str, on: str) -> None:
    """Delete an original for good; `reason.json` says `on` which day. Can be repeated."""
    folder = workspace.quarantined(clip_id)
    with workspace.lock("quarantine"):
        known = read(folder) or {}
        if name := known.get("original"):
            (folder / name).unlink(missing_ok=True)
            write_json(folder / "reason.json", known | {"original": None, "removed": on})


def read(folder: Path) -> dict[str, Any] | None:
    """The `reason.json` of a quarantine folder, or None."""
    path = folder / "reason.json"
    remedy = f"put the original beside it back into the inbox, remove {folder} and run `violence-ops catalog rebuild`"
    return read_json(path, remedy, _Reason) if path.is_file() else None


def entries(workspace: Workspace) -> Iterator[dict[str, Any]]:
    """Every `reason.json`, in clip_id order."""
    for folder in sorted(workspace.quarantine.iterdir()) if workspace.quarantine.is_dir() else ():
        if content := read(folder):
            yield content


def as_clip(entry: dict[str, Any]) -> ClipRecord:
    """The clip that a `reason.json` tells of."""
    names = ("clip_id", "sha256", "source_path", "reason", "label", "source_group", "camera_id", "recorded_at",
             "size_bytes")  # fmt: skip
    known = {name: entry.get(name) for name in names}
    return ClipRecord.from_dict(known | {"batch_id": entry.get("batch_id") or "", "status": "quarantined"})
