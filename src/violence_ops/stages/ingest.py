"""Ingestion: take what lies in the inbox, sort out what cannot be a clip or is known, and make a batch of the rest."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any, Final

from violence_ops.catalog import Catalog
from violence_ops.errors import WorkspaceError
from violence_ops.files import sha256_file, sync_folder
from violence_ops.folders import Batch, clip_id_of
from violence_ops.params import Params
from violence_ops.records import TRANSIENT, ClipRecord, Label
from violence_ops.stages import batches, claims, inbox, labels_file, quarantine, tombstones
from violence_ops.stages.batches import Progress
from violence_ops.stages.claims import Claim
from violence_ops.stages.index import open_catalog
from violence_ops.workspace import Workspace

_OURS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors that say nothing of a file: a full disk, too many open files, no memory."""


@dataclass(slots=True)
class IngestResult:
    """What a run took in. `left` files and folders wait: still being written, closed to us, over `ingest.max_clips`, or not even
    to be put into quarantine. `notices` are sentences about odd labels and files."""

    batch_ids: list[str] = field(default_factory=list)
    claimed: int = 0
    duplicates: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    left: int = 0
    notices: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def run(
    workspace: Workspace, params: Params, *, night: date, dry_run: bool = False, progress: Progress | None = None
) -> IngestResult:
    """Claim the inbox, exactly once also when two runs do it at the same time, and make one batch of what is new.

    Takes up what a killed run left behind. `dry_run` only looks: `claimed` is then the number of files that would be taken
    and `batch_ids` stays empty. Raises ServiceUnavailable if the catalog cannot be reached; nothing is lost then.
    """
    if dry_run:
        scan = inbox.scan(workspace.inbox, params.ingest.settle_s)
        return IngestResult(claimed=len(scan.drops), left=scan.left, notices=scan.notices)
    result = IngestResult()
    with (
        open_catalog(workspace) as catalog,
        claims.held(workspace, night.isoformat(), catalog) as (own, abandoned),
    ):
        _take(workspace, params, own, abandoned, result)
        for claim in (*abandoned, own):
            decision = claim.decision()
            if decision is None:
                decision = _decide(workspace, params, claim, catalog, progress)
                claim.decide(decision)
            if kept := _carry_out(workspace, catalog, claim, decision, own.night, result):
                _keep(claim, kept)
            else:
                claim.release(workspace)
    # every open batch, so that one whose run was killed right here is seen by the stages after it
    batches.write_batch_progress(workspace, "ingest", batches.chosen_batches(workspace, None))
    return result


def shards(workspace: Workspace, params: Params, batch_id: str) -> list[list[str]]:
    """The clip_ids of a batch in pieces of `ingest.shard_size`, in order; none if the batch is sealed."""
    batch = workspace.batch(batch_id)
    clip_ids = [] if batch.is_sealed else [clip.clip_id for clip in batches.read_manifest(batch).clips]
    size = params.ingest.shard_size
    return [clip_ids[start : start + size] for start in range(0, len(clip_ids), size)]


def forget(workspace: Workspace, clip_id: str) -> int:
    """Take a clip that has a tombstone out of what killed runs left half done; returns how many of their files went.

    Runs under way are waited for: they may have looked for the tombstone before it was there.
    """
    _wait_for_runs(workspace)
    with open_catalog(workspace) as catalog, claims.held(workspace, "forget", catalog) as (own, abandoned):
        removed = sum(_take_out(workspace, claim, clip_id) for claim in abandoned)
        own.release(workspace)
    return removed


def half_taken(workspace: Workspace, clip_id: str) -> int:
    """How many files in the claims of killed runs, and of runs under way, are that clip."""
    return sum(len(_numbers_of(claim, clip_id)) for claim in claims.seen(workspace))


def _wait_for_runs(workspace: Workspace) -> None:
    with workspace.lock("claims"):
        locks = sorted(workspace.claims.glob("*/lock"))
    for lock in locks:
        with suppress(FileNotFoundError), lock.open() as handle:  # its run has ended
            fcntl.flock(handle, fcntl.LOCK_SH)


def _take_out(workspace: Workspace, claim: Claim, clip_id: str) -> int:
    """Can be repeated after a crash at any point."""
    found = _numbers_of(claim, clip_id)
    for number in found:
        claim.file(number).unlink()
    shutil.rmtree(claim.folder / "batch", ignore_errors=True)
    claim.take(workspace.inbox, [])
    if decision := claim.decision():
        claim.decide(_without(decision, [clip_id]))
    return len(found)


def _numbers_of(claim: Claim, clip_id: str) -> list[int]:
    """Which of a claim's files are that clip."""
    found = []
    for number in claim.drops:
        with suppress(FileNotFoundError):  # a run under way has put it elsewhere
            if _look_at(claim, number)[0].clip_id == clip_id:
                found.append(number)
    return found


def _without(decision: dict[str, Any], forgotten: Collection[str]) -> dict[str, Any]:
    """A decision without what it says of forgotten clips, but for having refused them as such."""

    def rest(name: str) -> list[dict[str, Any]]:
        clips = [(item.get("clip", item), item) for item in decision.get(name, ())]
        return [
            item for clip, item in clips if clip["clip_id"] not in forgotten or clip.get("reason") == tombstones.REASON
        ]

    lists = {name: rest(name) for name in ("refused", "duplicates", "notices", "clips")}
    return lists | {"batch_id": decision["batch_id"] if lists["clips"] else None}


def _take(workspace: Workspace, params: Params, own: Claim, abandoned: Iterable[Claim], result: IngestResult) -> None:
    """Move what lies in the inbox into the claim, and take the rows that spoke of it out of the labels.csv files.

    One run at a time, so that none writes over another's table. A killed run may have left the rows of its files behind.
    """
    with workspace.lock("inbox"):
        undecided = [claim for claim in (*abandoned, own) if claim.decision() is None]
        spent = [drop.source_path for claim in undecided for drop in claim.drops.values()]
        scan = inbox.scan(workspace.inbox, params.ingest.settle_s, spent)
        waiting, closed = iter(scan.drops), []
        while chosen := list(islice(waiting, max(0, params.ingest.max_clips - len(own.drops)))):
            closed += own.take(workspace.inbox, chosen)
        inbox.spend(workspace.inbox, scan, [drop.source_path for drop in own.drops.values()])
    result.left = scan.left + len(closed) + len(list(waiting))
    result.notices += scan.notices
    for folder, count in Counter(os.path.relpath(path.parent, workspace.root) for path in closed).items():
        result.notices.append(
            f"{inbox.printable(folder)} keeps {count} of its files: give the pipeline's user the right to read them and to change "
            "that folder."
        )


def _decide(
    workspace: Workspace, params: Params, claim: Claim, catalog: Catalog, progress: Progress | None
) -> dict[str, Any]:
    """Look at every file of the claim, and claim in the catalog those that may become clips."""
    refused: list[dict[str, Any]] = []
    same_bytes: dict[str, list[tuple[int, ClipRecord]]] = {}
    in_order = sorted(claim.drops.items(), key=lambda item: (item[1].source_path, item[0]))
    for done, (number, drop) in enumerate(in_order, start=1):
        record, message = _look_at(claim, number, own=True)
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


def _look_at(claim: Claim, number: int, *, own: bool = False) -> tuple[ClipRecord, str | None]:
    """The record of one claimed file, and why it cannot be a clip, if so. With `own` it is made ours alone first.

    Raises FileNotFoundError if it is gone, OSError for what is no fault of the file.
    """
    drop = claim.drops[number]
    try:
        if own:
            replace(claim, drops={number: drop}).make_own()
        return _seen(claim.file(number), drop)
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno in _OURS:
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
    """What `_look_at` says of a file that can be read. Opens nothing but regular files."""
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


def _carry_out(
    workspace: Workspace, catalog: Catalog, claim: Claim, decision: dict[str, Any], night: str, result: IngestResult
) -> list[dict[str, Any]]:
    """Put every file where the decision says, unless its clip was forgotten since; `night` is that of this run.

    Can be repeated after a crash at any point. Returns what was refused and has to stay in the claim.
    """
    decision = _without(decision, tombstones.all_of(workspace))
    quarantined = Counter(result.quarantined)
    kept = []
    lying = set(os.listdir(claim.folder / "files")) if decision["refused"] else set()
    for item in decision["refused"]:
        if str(item["number"]) not in lying:  # it had to stay, and somebody took it away by hand
            continue
        clip = ClipRecord.from_dict(item["clip"])
        if notice := _refuse(workspace, claim, item["number"], clip, item["message"]):
            kept.append(item)
            result.notices.append(notice)
            continue
        catalog.record([clip])
        quarantined[clip.reason or ""] += 1
    copies = [ClipRecord.from_dict(clip) for clip in decision["duplicates"]]
    if batch_id := decision["batch_id"]:
        batch = workspace.batch(batch_id)
        _make_batch(workspace, catalog, claim, batch, decision["clips"])
        if claim.night != night and not batch.is_sealed:
            batches.adopt(batch, night)
        result.batch_ids.append(batch_id)
        result.claimed += len(decision["clips"])
    _sort_duplicates(workspace, catalog, claim.night, copies, result)
    result.duplicates += len(copies)
    quarantined["duplicate"] += len(copies)
    result.quarantined = dict(sorted((+quarantined).items()))
    result.notices += [item["message"] for item in decision["notices"]]
    result.left += len(kept)
    return kept


def _keep(claim: Claim, kept: list[dict[str, Any]]) -> None:
    """Leave these refused files in the claim, to be put into quarantine by the next run; the others have found their places."""
    claim.decide({"batch_id": None, "refused": kept, "duplicates": [], "notices": [], "clips": []})
    for number in claim.drops.keys() - {item["number"] for item in kept}:
        claim.file(number).unlink(missing_ok=True)


def _refuse(workspace: Workspace, claim: Claim, number: int, clip: ClipRecord, message: str) -> str | None:
    """Put a file into quarantine. One that cannot be read may not even be linked: it stays, and what is to be said is returned."""
    try:
        _put_away(workspace, claim, number, clip, message)
    except OSError as error:
        if clip.reason != "unreadable" or error.errno in _OURS:
            raise
        path = claim.file(number)
        return (
            f"{clip.source_path} can be neither read nor put into quarantine ({error.strerror}) and stays in {path}: look at its disk; "
            "the next night tries again."
        )
    return None


def _put_away(workspace: Workspace, claim: Claim, number: int, clip: ClipRecord, message: str) -> None:
    path = claim.file(number)
    kept = clip.reason != tombstones.REASON and stat.S_ISREG(path.lstat().st_mode)
    target = inbox.printable(os.readlink(path)) if path.is_symlink() else None
    quarantine.put(
        workspace, clip, night=claim.night, message=message, original=path if kept else None,
        suffix=batches.stored_suffix(clip.source_path), facts={"link_target": target} if target else None,
    )  # fmt: skip


def _make_batch(
    workspace: Workspace, catalog: Catalog, claim: Claim, batch: Batch, chosen: list[dict[str, Any]]
) -> None:
    clips = [ClipRecord.from_dict(item["clip"]) for item in chosen]
    # first the catalog: one that knows of no batch although a folder is there would be rebuilt by another run
    catalog.open_batch(batch.batch_id, claim.night, clips)
    if not batch.is_sealed and not batch.open.exists():
        staging = replace(batch, open=claim.folder / "batch")
        if staging.open.exists():
            shutil.rmtree(staging.open)
        staging.videos.mkdir(parents=True)
        for item, clip in zip(chosen, clips, strict=True):
            os.link(claim.file(item["number"]), batches.video_of(staging, clip))
        sync_folder(staging.videos)
        batches.write_manifest(staging, claim.night, clips)
        staging.open.rename(batch.open)
        sync_folder(workspace.work)


def _sort_duplicates(
    workspace: Workspace, catalog: Catalog, night: str, copies: list[ClipRecord], result: IngestResult
) -> None:
    """Note every copy in the quarantine (the bytes are kept once), and pass on a label that the first one had not."""
    known = catalog.find(clip.clip_id for clip in copies)
    new_labels: dict[str, Label] = {}
    for clip in copies:
        first = known.get(clip.clip_id)
        if first is None:
            raise WorkspaceError(f"Clip {clip.clip_id} vanished from the catalog while it was used: run ingest again.")
        kept = f"batch {first.batch_id}" if first.batch_id else "the quarantine"
        message = f"{clip.source_path} has the same bytes as {first.source_path}, kept in {kept}."
        quarantine.put(workspace, clip, night=night, message=message, original=None)
        if clip.label and first.label is None:
            new_labels[clip.clip_id] = clip.label
        elif clip.label and clip.label != first.label:
            result.notices.append(
                f"{clip.source_path} says {clip.label} and clip {clip.clip_id} is labelled {first.label}: nothing was changed."
            )
        if clip.source_group not in (clip.clip_id, first.source_group):
            result.notices.append(
                f"{clip.source_path} names source group {clip.source_group} and clip {clip.clip_id} was taken in as one of "
                f"{first.source_group}: nothing was changed."
            )
    labels_file.record(workspace, new_labels, by="ingest", source="inbox")
    catalog.set_labels(new_labels)
