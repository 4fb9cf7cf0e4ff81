"""Ingestion: take what lies in the inbox, sort out what cannot be a clip or is known, and make a batch of the rest."""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import islice
from typing import Any

from violence_ops import git, versioning
from violence_ops.catalog import Catalog
from violence_ops.errors import ServiceUnavailable, WorkspaceError
from violence_ops.files import sync_folder
from violence_ops.folders import Batch
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params
from violence_ops.records import ClipRecord, Label
from violence_ops.stages.nightly import intake, late_rows
from violence_ops.store import batches, claims, inbox, labels_file, quarantine, tombstones
from violence_ops.store.batches import Progress
from violence_ops.store.claims import Claim
from violence_ops.store.index import open_catalog
from violence_ops.wording import counted, listed, printable
from violence_ops.workspace import Workspace

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class IngestResult(Jsonable):
    """What a run took in, or with `dry_run` would take: new clips, `duplicates` of known ones, other files `quarantined` by reason.
    `duplicate_of` says of each duplicate whose bytes it has, if it is a dry run. `left` files and folders wait: still being written,
    closed to us, or not even to be put into quarantine. `notices` are sentences about odd labels and files."""

    batch_ids: list[str] = field(default_factory=list)
    claimed: int = 0
    duplicates: int = 0
    duplicate_of: list[intake.Duplicate] = field(default_factory=list)
    quarantined: dict[str, int] = field(default_factory=dict)
    left: int = 0
    notices: list[str] = field(default_factory=list)
    dry_run: bool = False

    def lines(self) -> Iterator[str]:
        """For people."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.quarantined.items()) or "none"
        if self.dry_run:
            yield f"would claim  {counted(self.claimed, 'new clip')}"
            yield f"duplicates   {counted(self.duplicates, 'file')} would be noted and removed: the bytes are kept already"
            yield f"quarantine   {reasons}"
            yield f"would leave  {self.left}"
        else:
            yield f"batch        {', '.join(self.batch_ids) or 'none'}"
            yield f"claimed      {counted(self.claimed, 'new clip')}"
            yield f"duplicates   {self.duplicates}"
            yield f"quarantine   {reasons}"
            yield f"left         {self.left}"
        yield from (f"notice       {sentence}" for sentence in self.notices)


def run(
    workspace: Workspace, params: Params, *, night: date, dry_run: bool = False, progress: Progress | None = None
) -> IngestResult:
    """Claim the inbox, exactly once also when two runs do it at the same time, and make batches of what is new: one, or where
    there is more than `ingest.max_clips` several.

    Takes up what a killed run left behind. `dry_run` only reads the inbox, and says what a run would do with what lies there.
    Raises ServiceUnavailable if the catalog cannot be reached; nothing is lost then.
    """
    if dry_run:
        return _foreseen(workspace, params, progress)
    result, settled = IngestResult(), set[inbox.Version]()
    with open_catalog(workspace) as catalog:
        while _take_and_sort(workspace, params, night, catalog, result, settled, progress):
            pass
    _record_progress(workspace)
    _commit_labels(workspace, result)
    result.notices = list(dict.fromkeys(result.notices))
    return result


def _record_progress(workspace: Workspace) -> None:
    """Record every open batch, so that one whose run was killed right here is seen by the stages after it; with none, what is
    recorded stays, and a first night without clips leaves nothing to commit. `dvc repro` wants the file in any case."""
    batch_ids = sorted(batches.open_batch_ids(workspace))
    if batch_ids or (versioning.inside_repro(workspace) and not workspace.read_progress("ingest")):
        workspace.write_progress("ingest", {"batches": batch_ids})


def _commit_labels(workspace: Workspace, result: IngestResult) -> None:
    """Commit the labels that copies of known clips have brought, also in a run that was killed before it could.

    A commit that is not possible now stops no night: the next run makes it.
    """
    file = workspace.labels_file
    if versioning.inside_repro(workspace) or not file.is_file():
        return
    if git.committed(workspace, file) == file.read_bytes().strip():
        return
    try:
        git.commit(workspace, [file], "Labels that came by the inbox")
    except (WorkspaceError, ServiceUnavailable) as error:
        result.notices.append(f"New labels are in {file} and not in git yet: {error}")


def _take_and_sort(
    workspace: Workspace,
    params: Params,
    night: date,
    catalog: Catalog,
    result: IngestResult,
    settled: set[inbox.Version],
    progress: Progress | None,
) -> bool:
    """Make one batch of at most `ingest.max_clips`; returns whether there is more to take. `settled` are the labels.csv files that
    this run wrote: they are complete, however young."""
    failures: list[OSError] = []
    with claims.held(workspace, night.isoformat(), catalog) as (own, abandoned):
        is_more = _take(workspace, params, own, abandoned, catalog, result, settled)
        for claim in (*abandoned, own):
            try:
                _finish(workspace, params, claim, catalog, result, progress)
            except OSError as error:  # such as a full disk: the claim waits for the next run, and the others need not
                failures.append(error)
    if failures:
        raise failures[0]
    return is_more


def _finish(
    workspace: Workspace,
    params: Params,
    claim: Claim,
    catalog: Catalog,
    result: IngestResult,
    progress: Progress | None,
) -> None:
    """Decide about the files of a claim, unless that was done, and put each where it belongs."""
    decision = claim.decision()
    if decision is None:
        decision = intake.decide(workspace, params, claim, catalog, progress)
        claim.decide(decision)
    if kept := _carry_out(workspace, catalog, claim, decision, result):
        _keep(claim, kept)
    else:
        claim.release(workspace)


def _foreseen(workspace: Workspace, params: Params, progress: Progress | None) -> IngestResult:
    scan = inbox.scan(workspace.inbox, params.ingest.settle_s)
    with open_catalog(workspace) as catalog:
        found = intake.foresee(workspace, params, scan.drops, catalog, progress)
        late = late_rows.notices(workspace.inbox, scan.unmet, catalog)
        notices = [*scan.notices, *late, *found.notices]
    if found.duplicates:
        said = [f"{one['path']} of {'the known clip ' if one['known'] else ''}{one['of']}" for one in found.duplicates]
        notices.append(f"Duplicates, by their paths when they came: {listed(said)}.")
    return IngestResult(
        claimed=found.clips,
        duplicates=len(found.duplicates),
        duplicate_of=found.duplicates,
        quarantined=found.refused,
        left=scan.left + found.closed,
        notices=notices,
        dry_run=True,
    )


def shards(workspace: Workspace, params: Params, batch_id: str) -> list[list[str]]:
    """The clip_ids of a batch in pieces of at most `ingest.shard_size` clips and `ingest.shard_size_mb`, in order; none if the
    batch is sealed. A clip larger than that is a piece of its own. A batch that cannot be read is a piece without clips, so that its
    own tasks fail, and no other batch's."""
    batch = workspace.batch(batch_id)
    try:
        clips = () if batch.is_sealed else batches.read_manifest(batch).clips
    except WorkspaceError as error:
        _log.warning("Batch %s cannot be worked on: %s", batch_id, error)
        return [[]]
    pieces: list[list[str]] = []
    room = 0.0
    for clip in clips:
        room -= clip.size_bytes / 2**20
        if not pieces or len(pieces[-1]) == params.ingest.shard_size or room < 0:
            pieces.append([])
            room = params.ingest.shard_size_mb - clip.size_bytes / 2**20
        pieces[-1].append(clip.clip_id)
    return pieces


def _take(
    workspace: Workspace,
    params: Params,
    own: Claim,
    abandoned: Iterable[Claim],
    catalog: Catalog,
    result: IngestResult,
    settled: set[inbox.Version],
) -> bool:
    """Move what lies in the inbox into the claim, and take the rows that spoke of it out of the labels.csv files.

    One run at a time, so that none writes over another's table. A killed run may have left the rows of its files behind.
    Returns whether there is more than the claim may hold.
    """
    with workspace.lock("inbox"):
        undecided = [claim for claim in (*abandoned, own) if claim.decision() is None]
        spent = [drop.source_path for claim in undecided for drop in claim.drops.values()]
        scan = inbox.scan(workspace.inbox, params.ingest.settle_s, spent, settled)
        waiting, closed = iter(scan.drops), []
        while chosen := list(islice(waiting, max(0, params.ingest.max_clips - len(own.drops)))):
            closed += own.take(workspace.inbox, chosen)
        settled |= inbox.spend(workspace.inbox, scan, [drop.source_path for drop in own.drops.values()])
        inbox.remove_empty_again(workspace.inbox)
    result.left = scan.left + len(closed)
    result.notices += [*scan.notices, *late_rows.notices(workspace.inbox, scan.unmet, catalog)]
    for folder, count in Counter(os.path.relpath(path.parent, workspace.root) for path in closed).items():
        result.notices.append(
            f"{printable(folder)} keeps {count} of its files: give the pipeline's user the right to read them and to change "
            "that folder."
        )
    return next(waiting, None) is not None


def _carry_out(
    workspace: Workspace, catalog: Catalog, claim: Claim, decision: dict[str, Any], result: IngestResult
) -> list[dict[str, Any]]:
    """Put every file where the decision says, unless its clip was forgotten since.

    Can be repeated after a crash at any point. Returns what was refused and has to stay in the claim.
    """
    decision = intake.without(decision, tombstones.all_of(workspace))
    quarantined = Counter(result.quarantined)
    kept = []
    lying = set(os.listdir(claim.folder / "files")) if decision["refused"] else set()
    for item in decision["refused"]:
        clip = ClipRecord.from_dict(item["clip"])
        is_here = str(item["number"]) in lying
        if not is_here and not quarantine.read(workspace.quarantined(clip.clip_id)):
            # it had to stay, and somebody took it away by hand
            continue
        if is_here and (notice := _refuse(workspace, claim, item["number"], clip, item["message"])):
            kept.append(item)
            result.notices.append(notice)
            continue
        catalog.record([clip])
        quarantined[clip.reason or ""] += 1
    copies = [ClipRecord.from_dict(clip) for clip in decision["duplicates"]]
    if batch_id := decision["batch_id"]:
        batch = workspace.batch(batch_id)
        _make_batch(workspace, catalog, claim, batch, decision["clips"])
        result.batch_ids.append(batch_id)
        result.claimed += len(decision["clips"])
    _sort_duplicates(workspace, catalog, claim.night, copies, result)
    result.duplicates += len(copies)
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
        if clip.reason != "unreadable" or error.errno in intake.OURS:
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
    target = printable(os.readlink(path)) if path.is_symlink() else None
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
                f"{clip.source_path} says {clip.label} and clip {clip.clip_id} is labelled {first.label}: nothing was changed; if "
                f"{clip.label} is right, run `violence-ops label {clip.clip_id} {clip.label} --by NAME`."
            )
        if clip.source_group not in (clip.clip_id, first.source_group):
            result.notices.append(
                f"{clip.source_path} names source group {clip.source_group} and clip {clip.clip_id} was taken in as one of "
                f"{first.source_group}: nothing was changed."
            )
    labels_file.record(workspace, new_labels, by="ingest", source="inbox")
    catalog.set_labels(new_labels)
