"""What an ingestion decides of the files it has claimed: which are refused, which are copies, and which become clips."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from violence_ops.catalog import Catalog
from violence_ops.files import sha256_file
from violence_ops.folders import clip_id_of
from violence_ops.params import Params
from violence_ops.records import TRANSIENT, ClipRecord
from violence_ops.stages import inbox, tombstones
from violence_ops.stages.batches import Progress
from violence_ops.stages.claims import Claim
from violence_ops.workspace import Workspace

OURS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors that say nothing of a file: a full disk, too many open files, no memory."""


def decide(
    workspace: Workspace, params: Params, claim: Claim, catalog: Catalog, progress: Progress | None
) -> dict[str, Any]:
    """Look at every file of the claim, and claim in the catalog those that may become clips; returns what `Claim.decide` keeps."""
    refused: list[dict[str, Any]] = []
    same_bytes: dict[str, list[tuple[int, ClipRecord]]] = {}
    in_order = sorted(claim.drops.items(), key=lambda item: (item[1].source_path, item[0]))
    for done, (number, drop) in enumerate(in_order, start=1):
        record, message = look_at(claim, number, own=True)
        if not message and (stone := tombstones.find(workspace, record.clip_id)):
            record = record.with_(status="quarantined", reason=tombstones.REASON)
            message = f"{drop.source_path} was forgotten on {stone['at']} by {stone['by']}: {stone['reason']}."
        if message:
            refused.append({"number": number, "clip": record.to_dict(), "message": message})
        else:
            same_bytes.setdefault(record.clip_id, []).append((number, record))
        if progress:
            progress("read", done, len(in_order))
    notices = _without_contradictions(same_bytes)
    if params.validation.require_label:
        refused += _without_label(catalog, same_bytes)
    firsts = {clip_id: _joined(copies) for clip_id, copies in same_bytes.items()}
    own = catalog.claim(firsts.values(), by=claim.name)
    clips = sorted((firsts[clip_id] for clip_id in own), key=lambda clip: clip.clip_id)
    batch_id = _batch_id(workspace, claim.night, clips) if clips else None
    numbers = {clip_id: copies[0][0] for clip_id, copies in same_bytes.items() if clip_id in own}
    copies = [
        record.with_(reason="duplicate").to_dict()
        for clip_id, found in same_bytes.items()
        for place, (_, record) in enumerate(found)
        if clip_id not in own or place > 0
    ]
    return {
        "batch_id": batch_id, "refused": refused, "duplicates": copies, "notices": notices,
        "clips": [{"number": numbers[clip.clip_id], "clip": clip.with_(batch_id=batch_id).to_dict()} for clip in clips],
    }  # fmt: skip


def without(decision: dict[str, Any], forgotten: Collection[str]) -> dict[str, Any]:
    """A decision without what it says of forgotten clips, but for having refused them as such."""

    def rest(name: str) -> list[dict[str, Any]]:
        clips = [(item.get("clip", item), item) for item in decision.get(name, ())]
        return [
            item for clip, item in clips if clip["clip_id"] not in forgotten or clip.get("reason") == tombstones.REASON
        ]

    lists = {name: rest(name) for name in ("refused", "duplicates", "notices", "clips")}
    return lists | {"batch_id": decision["batch_id"] if lists["clips"] else None}


def _without_contradictions(same_bytes: dict[str, list[tuple[int, ClipRecord]]]) -> list[dict[str, str]]:
    """Take the labels off copies that contradict each other, so that a person decides; returns what is to be said of them."""
    notices = []
    for clip_id, copies in same_bytes.items():
        said = {clip.label: clip.source_path for _, clip in reversed(copies) if clip.label}
        if len(said) > 1:
            same_bytes[clip_id] = [(number, clip.with_(label=None)) for number, clip in copies]
            given = " and ".join(f"{path} says {label}" for label, path in sorted(said.items()))
            message = f"{given} of the same bytes: neither counts; say which with `violence-ops label {clip_id} LABEL --by NAME`."
            notices.append({"clip_id": clip_id, "message": message})
    return notices


def _without_label(catalog: Catalog, same_bytes: dict[str, list[tuple[int, ClipRecord]]]) -> list[dict[str, Any]]:
    """Take out of `same_bytes` the new clips that have no label, neither by a copy nor by `label`; they are welcome with one."""
    known = {
        clip_id
        for clip_id, clip in catalog.find(same_bytes).items()
        if clip.label or clip.batch_id or clip.reason not in TRANSIENT
    }
    lacking = [name for name, copies in same_bytes.items() if name not in known and _joined(copies).label is None]
    return [
        {
            "number": number,
            "clip": record.with_(status="quarantined", reason="unlabelled").to_dict(),
            "message": f"{record.source_path} has no label and validation.require_label asks for one: drop it again with one.",
        }
        for clip_id in lacking
        for number, record in same_bytes.pop(clip_id)
    ]


def look_at(claim: Claim, number: int, *, own: bool = False) -> tuple[ClipRecord, str | None]:
    """The record of one claimed file, and why it cannot be a clip, if so. With `own` it is made ours alone first.

    Raises FileNotFoundError if it is gone, OSError for what is no fault of the file.
    """
    drop = claim.drops[number]
    try:
        if own:
            replace(claim, drops={number: drop}).make_own()
        return _seen(claim.file(number), drop)
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno in OURS:
            raise
        # its bytes are not known: were it taken for the same clip as another, only the first would be kept
        name = f"{drop.source_path}\0{claim.name}/{number}"
        return _record(drop, hashlib.sha256(name.encode()).hexdigest(), 0, "unreadable"), _why_unread(drop, error)


def _why_unread(drop: inbox.Drop, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"{drop.source_path} cannot be opened: give the pipeline's user read access."
    return (
        f"{drop.source_path} cannot be read ({error.strerror}): look at its disk, then drop it again, from where it came from or "
        "from the quarantine."
    )


def _seen(path: Path, drop: inbox.Drop) -> tuple[ClipRecord, str | None]:
    """What `look_at` says of a file that can be read. Opens nothing but regular files."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        kind = f"a link to {inbox.printable(os.readlink(path))}" if stat.S_ISLNK(status.st_mode) else "no regular file"
        sentence = f"{drop.source_path} is {kind}: only regular files are taken, and links are never followed."
        sha256 = hashlib.sha256(f"{drop.source_path}\0{kind}".encode()).hexdigest()
        return _record(drop, sha256, status.st_size, "not_a_regular_file"), sentence
    sha256 = sha256_file(path)
    if drop.unsafe:
        sentence = f"{drop.source_path}: {drop.unsafe}; rename the file and drop it again."
        return _record(drop, sha256, status.st_size, "unsafe_name"), sentence
    return _record(drop, sha256, status.st_size, None), None


def _record(drop: inbox.Drop, sha256: str, size_bytes: int, reason: str | None) -> ClipRecord:
    clip_id = clip_id_of(sha256)
    clip = ClipRecord(
        clip_id=clip_id, sha256=sha256, batch_id="", source_path=drop.source_path, label=drop.label, camera_id=drop.camera_id,
        recorded_at=drop.recorded_at, size_bytes=size_bytes, source_group=drop.source_group or clip_id,
    )  # fmt: skip
    return clip.with_(status="quarantined", reason=reason) if reason else clip


def _joined(copies: list[tuple[int, ClipRecord]]) -> ClipRecord:
    """The first of several files with the same bytes, with a label if any of them brings one."""
    first = copies[0][1]
    return first.with_(label=first.label or next((clip.label for _, clip in copies if clip.label), None))


def _batch_id(workspace: Workspace, night: str, clips: Iterable[ClipRecord]) -> str:
    """The same clips on the same night are the same batch, unless one was sealed that had to do without all of them."""
    joined = "\n".join(sorted(clip.sha256 for clip in clips))
    while True:
        batch = workspace.batch(f"{night}-{hashlib.sha256(joined.encode()).hexdigest()[:8]}")
        if not (batch.is_sealed or batch.pointer.is_file()):
            return batch.batch_id
        joined += "\nagain"
