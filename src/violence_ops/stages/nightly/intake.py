"""What an ingestion decides of the files it has claimed: which are refused, which are copies, and which become clips."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from typing_extensions import TypedDict

from violence_ops import drop_folder
from violence_ops.catalog import Catalog
from violence_ops.files import sha256_file
from violence_ops.folders import clip_id_of
from violence_ops.params import Params
from violence_ops.records import TRANSIENT, ClipRecord
from violence_ops.store import inbox, tombstones
from violence_ops.store.batches import Progress
from violence_ops.store.claims import Claim, cannot_be_had
from violence_ops.wording import printable
from violence_ops.workspace import Workspace

OURS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors that say nothing of a file: a full disk, too many open files, no memory."""

_Seen = tuple[int, ClipRecord, str | None]
"""A file's number, its record, and why it cannot be a clip, if so."""


class Duplicate(TypedDict):
    """A file of the inbox with the bytes of another: of one beside it, or of a clip that is known, which came as `of`."""

    path: str
    of: str
    clip_id: str
    known: bool


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What would become of files: how many new clips, the `duplicates`, files to be refused by reason, files that
    would stay because they, or their folder, are `closed` to us, and sentences about contradictory labels."""

    clips: int
    duplicates: list[Duplicate]
    refused: dict[str, int]
    closed: int
    notices: list[str]


def decide(
    workspace: Workspace, params: Params, claim: Claim, catalog: Catalog, progress: Progress | None
) -> dict[str, Any]:
    """Look at every file of the claim, and claim in the catalog those that may become clips; returns what `Claim.decide` keeps."""
    seen: list[_Seen] = []
    for number, _ in sorted(claim.drops.items(), key=lambda item: (item[1].source_path, item[0])):
        seen.append((number, *look_at(claim, number, params.validation.max_size_mb, own=True)))
        if progress:
            progress("read", len(seen), len(claim.drops))
    refused, same_bytes, notices = _sorted(workspace, params, catalog, seen)
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


def foresee(
    workspace: Workspace,
    params: Params,
    drops: Sequence[tuple[Path, inbox.Drop]],
    catalog: Catalog,
    progress: Progress | None,
) -> Foreseen:
    """What `decide` would say of these files of the inbox, in order of their names, if a run claimed them now; changes nothing."""
    seen: list[_Seen] = []
    closed = 0
    for number, (path, drop) in enumerate(drops):
        try:
            with drop_folder.opened(workspace.inbox, path.parent) as folder:
                here = folder / path.name
                if not os.access(folder, os.W_OK) or cannot_be_had(here):
                    closed += 1
                else:
                    seen.append((number, *_foreseen(here, drop, number, params.validation.max_size_mb)))
        except (FileNotFoundError, drop_folder.NoFile):  # taken away, or exchanged, meanwhile
            continue
        except PermissionError:  # of the folder
            closed += 1
        if progress:
            progress("read", number + 1, len(drops))
    refused, same_bytes, notices = _sorted(workspace, params, catalog, seen)
    new = catalog.claimable(same_bytes)
    known = catalog.find(set(same_bytes) - new)
    copies = [
        Duplicate(
            path=clip.source_path,
            of=known[name].source_path or name if name in known else found[0][1].source_path,
            clip_id=name,
            known=name in known,
        )
        for name, found in same_bytes.items()
        for _, clip in found[1 if name in new else 0 :]
    ]
    reasons = Counter(item["clip"]["reason"] for item in refused)
    return Foreseen(
        len(new),
        sorted(copies, key=lambda copy: copy["path"]),
        dict(sorted(reasons.items())),
        closed,
        [one["message"] for one in notices],
    )


def _foreseen(here: Path, drop: inbox.Drop, number: int, max_size_mb: float) -> tuple[ClipRecord, str | None]:
    """What `look_at` would say of a file of the inbox."""
    try:
        return _too_large(here, drop, max_size_mb, str(number)) or _seen(here, drop, drop_folder.sha256)
    except (FileNotFoundError, drop_folder.NoFile):
        raise
    except OSError as error:
        if error.errno in OURS:
            raise
        return _unread(drop, error, str(number))


def without(decision: dict[str, Any], forgotten: Collection[str]) -> dict[str, Any]:
    """A decision without what it says of forgotten clips, but for having refused them as such."""

    def rest(name: str) -> list[dict[str, Any]]:
        clips = [(item.get("clip", item), item) for item in decision.get(name, ())]
        return [
            item for clip, item in clips if clip["clip_id"] not in forgotten or clip.get("reason") == tombstones.REASON
        ]

    lists = {name: rest(name) for name in ("refused", "duplicates", "notices", "clips")}
    return lists | {"batch_id": decision["batch_id"] if lists["clips"] else None}


def _sorted(
    workspace: Workspace, params: Params, catalog: Catalog, seen: Iterable[_Seen]
) -> tuple[list[dict[str, Any]], dict[str, list[tuple[int, ClipRecord]]], list[dict[str, str]]]:
    """The files that are refused at the door, the others by clip_id, and what is to be said of their labels."""
    refused: list[dict[str, Any]] = []
    same_bytes: dict[str, list[tuple[int, ClipRecord]]] = {}
    for number, record, message in seen:
        if not message and (stone := tombstones.find(workspace, record.clip_id)):
            record = record.with_(status="quarantined", reason=tombstones.REASON)
            message = f"{record.source_path} was forgotten on {stone['at']} by {stone['by']}: {stone['reason']}."
        if message:
            refused.append({"number": number, "clip": record.to_dict(), "message": message})
        else:
            same_bytes.setdefault(record.clip_id, []).append((number, record))
    notices = _without_contradictions(same_bytes)
    if params.validation.require_label:
        refused += _without_label(catalog, same_bytes)
    return refused, same_bytes, notices


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
    joined = {clip_id: _joined(copies) for clip_id, copies in same_bytes.items() if clip_id not in known}
    lacking = {clip_id: clip for clip_id, clip in joined.items() if clip.label is None}
    return [
        {
            "number": number,
            # what any copy says is kept for all, as one of them may come back by `retry`
            "clip": clip.with_(source_path=record.source_path, status="quarantined", reason="unlabelled").to_dict(),
            "message": (
                f"{record.source_path} has no label and validation.require_label asks for one: drop it again with one, or run "
                f"`violence-ops label {clip_id} LABEL --by NAME`, then `violence-ops retry --reason unlabelled`."
            ),
        }
        for clip_id, clip in lacking.items()
        for number, record in same_bytes.pop(clip_id)
    ]


def look_at(claim: Claim, number: int, max_size_mb: float, *, own: bool = False) -> tuple[ClipRecord, str | None]:
    """The record of one claimed file, and why it cannot be a clip, if so. With `own` it is made ours alone first. One of more than
    `max_size_mb` MB is neither read nor copied, so that it can take neither the night nor the disk.

    Raises FileNotFoundError if it is gone, OSError for what is no fault of the file, naming it.
    """
    drop, path, place = claim.drops[number], claim.file(number), f"{claim.name}/{number}"
    try:
        if refusal := _too_large(path, drop, max_size_mb, place):
            return refusal
        if own:
            replace(claim, drops={number: drop}).make_own()
        return _seen(path, drop, sha256_file)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        if error.errno in OURS:
            raise OSError(error.errno, error.strerror, f"{drop.source_path} (taken to {path})") from error
        return _unread(drop, error, place)


def _too_large(path: Path, drop: inbox.Drop, max_size_mb: float, place: str) -> tuple[ClipRecord, str] | None:
    """What `look_at` says of a file that is too large to be read; None of any other."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size <= max_size_mb * 2**20:
        return None
    sentence = (
        f"{drop.source_path} has {status.st_size / 2**20:.1f} MB and was not read; validation.max_size_mb allows {max_size_mb:g}: raise "
        "that, then drop it again, from where it came from or from the quarantine."
    )
    return _record(drop, _unknown_sha256(drop, place), status.st_size, "too_large"), sentence


def _unread(drop: inbox.Drop, error: OSError, place: str) -> tuple[ClipRecord, str]:
    """What `look_at` says of a file that cannot be read."""
    if isinstance(error, PermissionError):
        sentence = f"{drop.source_path} cannot be opened: give the pipeline's user read access."
    else:
        sentence = (
            f"{drop.source_path} cannot be read ({error.strerror}): look at its disk, then drop it again, from where it came from or "
            "from the quarantine."
        )
    return _record(drop, _unknown_sha256(drop, place), 0, "unreadable"), sentence


def _unknown_sha256(drop: inbox.Drop, place: str) -> str:
    """What stands for the hash of bytes that nobody has read: were the file taken for another, only the first would be kept."""
    return hashlib.sha256(f"{drop.source_path}\0{place}".encode()).hexdigest()


def _seen(path: Path, drop: inbox.Drop, digest: Callable[[Path], str]) -> tuple[ClipRecord, str | None]:
    """What `look_at` says of a file that can be read. Opens nothing but regular files."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        kind = f"a link to {printable(os.readlink(path))}" if stat.S_ISLNK(status.st_mode) else "no regular file"
        sentence = f"{drop.source_path} is {kind}: only regular files are taken, and links are never followed."
        sha256 = hashlib.sha256(f"{drop.source_path}\0{kind}".encode()).hexdigest()
        return _record(drop, sha256, status.st_size, "not_a_regular_file"), sentence
    sha256 = digest(path)
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
    """The first of several files with the same bytes, with what the first that says anything of it says: label, group, camera, time."""
    first = copies[0][1]

    def given(name: str) -> Any:
        return next((value for _, clip in copies if (value := getattr(clip, name))), None)

    # a group of its own is what a file without any has
    group = next((clip.source_group for _, clip in copies if clip.source_group != clip.clip_id), first.source_group)
    return first.with_(
        label=given("label"), source_group=group, camera_id=given("camera_id"), recorded_at=given("recorded_at")
    )


def _batch_id(workspace: Workspace, night: str, clips: Iterable[ClipRecord]) -> str:
    """The same clips on the same night are the same batch, unless one was sealed that had to do without all of them."""
    joined = "\n".join(sorted(clip.sha256 for clip in clips))
    while True:
        batch = workspace.batch(f"{night}-{hashlib.sha256(joined.encode()).hexdigest()[:8]}")
        if not (batch.is_sealed or batch.pointer.is_file()):
            return batch.batch_id
        joined += "\nagain"
