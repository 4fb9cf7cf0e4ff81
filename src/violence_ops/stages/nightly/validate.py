"""Validation: accept or refuse every clip of a batch by decoding all of it (SPEC 1), then check the batch's clips table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from violence_ops import expectations
from violence_ops.catalog import Catalog
from violence_ops.errors import Rejected, UserError
from violence_ops.files import fingerprint, load_table, read_fingerprint, sha256_file, write_table
from violence_ops.folders import Batch
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params
from violence_ops.records import CLIPS_SCHEMA, ClipRecord
from violence_ops.store import batches, quarantine
from violence_ops.store.batches import Progress
from violence_ops.store.index import open_catalog
from violence_ops.store.parts import judged_clips, record, record_progress, unless_forgotten, writing
from violence_ops.video.sandbox import Sandbox
from violence_ops.workspace import Workspace


@dataclass(frozen=True, slots=True)
class ValidateResult(Jsonable):
    """Clips accepted, and clips in quarantine by reason."""

    accepted: int
    quarantined: dict[str, int]


def run(
    workspace: Workspace,
    params: Params,
    *,
    batch_id: str | None = None,
    clip_ids: list[str] | None = None,
    progress: Progress | None = None,
) -> ValidateResult:
    """Judge the clips of a batch (or of every open one). One bad clip never fails the batch: it goes to quarantine.

    Clips that were judged under the same limits are left as they are.
    """
    chosen = [batch for batch in batches.chosen_batches(workspace, batch_id) if not batch.is_sealed]
    judged: list[ClipRecord] = []
    with open_catalog(workspace) as catalog, Sandbox(params.validation) as sandbox:
        for batch in chosen:
            judged += _validate_batch(workspace, params, batch, clip_ids, catalog, sandbox, progress)
    if clip_ids is None:
        record_progress(workspace, "validate", batch_id=batch_id)
    reasons = Counter(clip.reason or "" for clip in judged if clip.status == "quarantined")
    return ValidateResult(sum(clip.status == "accepted" for clip in judged), dict(sorted(reasons.items())))


def checkpoint(workspace: Workspace, params: Params, *, batch_id: str | None = None) -> list[expectations.CheckResult]:
    """Check the clips table of a batch, or of every open one, once all of it is judged. A sealed batch was checked before.

    First judges anew what `retry` has taken back meanwhile, which takes back no more from here on, and refuses near-duplicates, if
    `validation.near_duplicate_bits` asks for it. Raises ExpectationsFailed, and WorkspaceError if clips have not been judged yet.
    """
    checked = []
    for batch in batches.chosen_batches(workspace, batch_id):
        if not batch.is_sealed:
            with _going_on(workspace, batch):
                _judge_again(workspace, params, batch)
                checked.append(_check_clips(workspace, params, batch))
    return checked


@contextmanager
def _going_on(workspace: Workspace, batch: Batch) -> Iterator[None]:
    """Make the folder of a batch's poses, so that `retry` leaves it alone while the night goes on with it; away if it stops here.

    Raises UnknownBatch.
    """
    batches.read_manifest(batch)
    poses = batch.open / "poses"
    with batches.locked(workspace, batch):
        poses.mkdir(exist_ok=True)
    try:
        yield
    except UserError:
        with suppress(OSError):  # an earlier run has put poses there
            poses.rmdir()
        raise


def _judge_again(workspace: Workspace, params: Params, batch: Batch) -> None:
    """Judge the clips whose verdict `retry` has taken back since their shard was validated; one that never had one is left."""
    judged = {clip.clip_id for clip in batches.read_clips(batch)}
    missing = [clip.clip_id for clip in batches.read_manifest(batch).clips if clip.clip_id not in judged]
    if again := [clip_id for clip_id in missing if workspace.quarantined(clip_id).is_dir()]:
        run(workspace, params, batch_id=batch.batch_id, clip_ids=again)


def _check_clips(workspace: Workspace, params: Params, batch: Batch) -> expectations.CheckResult:
    clips = judged_clips(workspace, batch)
    with open_catalog(workspace) as catalog:
        if params.validation.near_duplicate_bits:
            clips = _refuse_near_duplicates(
                workspace, params, batch, batches.read_manifest(batch).night, clips, catalog
            )
        # a shard may have judged its clips and failed at telling the catalog
        record(workspace, catalog, batch, clips)
    frame = pa.Table.from_pylist([clip.to_dict() for clip in clips], CLIPS_SCHEMA).to_pandas()
    return expectations.check_clips(workspace, batch.batch_id, frame, params.validation, params.expectations)


def _validate_batch(
    workspace: Workspace,
    params: Params,
    batch: Batch,
    clip_ids: list[str] | None,
    catalog: Catalog,
    sandbox: Sandbox,
    progress: Progress | None,
) -> list[ClipRecord]:
    manifest = batches.read_manifest(batch)
    wanted = None if clip_ids is None else set(clip_ids)
    clips = [clip for clip in manifest.clips if wanted is None or clip.clip_id in wanted]
    judged = []
    for done, clip in enumerate(clips, start=1):
        with unless_forgotten(workspace, clip.clip_id):
            judged.append(_judge(workspace, params, batch, manifest.night, clip, sandbox))
        if progress:
            progress("validate", done, len(clips))
    record(workspace, catalog, batch, judged)
    return judged


def expected(clip: ClipRecord, params: Params) -> str:
    """The fingerprint of the verdict on a clip as ingested, with these parameters."""
    return fingerprint("validate", clip.to_dict(), params.validation.model_dump(exclude={"require_label"}))


def _judge(
    workspace: Workspace, params: Params, batch: Batch, night: str, clip: ClipRecord, sandbox: Sandbox
) -> ClipRecord:
    """The verdict on one clip, on disk afterwards; the steps can be repeated after a crash between any two of them.

    Raises Forgotten, or an error about its files, if the clip is forgotten meanwhile.
    """
    part, video = batch.part("clips", clip.clip_id), batches.video_of(batch, clip)
    mark = expected(clip, params)
    if part.is_file() and (read_fingerprint(part) == mark or not video.exists()):
        known = ClipRecord.from_dict(load_table(part).to_pylist()[0])
        if known.status == "quarantined":
            with writing(workspace, batch, clip.clip_id):
                # else `retry` has just put the video back, to be judged anew
                if part.is_file():
                    video.unlink(missing_ok=True)
        return known
    try:
        verdict, message = _accept(clip, video, sandbox), ""
    except Rejected as refusal:
        verdict = clip.with_(status="quarantined", reason=refusal.reason)
        message = str(refusal).replace(video.name, clip.source_path)
    _write(workspace, batch, night, verdict, message, mark)
    return verdict


def _accept(clip: ClipRecord, video: Path, sandbox: Sandbox) -> ClipRecord:
    if sha256_file(video) != clip.sha256:
        raise Rejected("truncated", f"{clip.source_path} was still being written when it was taken in: drop it again.")
    facts = asdict(sandbox.validate(video))
    return clip.with_(**facts, status="accepted", reason=None)


def _write(workspace: Workspace, batch: Batch, night: str, verdict: ClipRecord, message: str, mark: str | None) -> None:
    """Write down the verdict on a clip; the original of a refused one goes to quarantine with the `message`."""
    part, video = batch.part("clips", verdict.clip_id), batches.video_of(batch, verdict)
    with writing(workspace, batch, verdict.clip_id):
        if verdict.status == "quarantined":
            quarantine.put(workspace, verdict, night=night, message=message, original=video, suffix=video.suffix)
        write_table(part, pa.Table.from_pylist([verdict.to_dict()], CLIPS_SCHEMA), mark)
        if verdict.status == "quarantined":
            video.unlink(missing_ok=True)


def _refuse_near_duplicates(
    workspace: Workspace, params: Params, batch: Batch, night: str, clips: list[ClipRecord], catalog: Catalog
) -> list[ClipRecord]:
    """Quarantine accepted clips whose perceptual hash nearly equals that of an earlier clip (by batch, then clip_id)."""
    earlier = catalog.perceptual_hashes(batch.batch_id)
    own = [clip for clip in clips if clip.status == "accepted"]
    names = [*earlier, *(clip.clip_id for clip in own)]
    hashes = np.array(
        [int(value or "0", 16) for value in (*earlier.values(), *(c.perceptual_hash for c in own))], np.uint64
    )
    kept = np.arange(len(names)) < len(earlier)
    refused = {}
    for place, clip in enumerate(own, start=len(earlier)):
        near = np.bitwise_count(hashes ^ hashes[place]) <= params.validation.near_duplicate_bits
        if (near & kept).any():
            first = names[int((near & kept).argmax())]
            with unless_forgotten(workspace, clip.clip_id):
                refused[clip.clip_id] = _refuse_near_duplicate(workspace, batch, night, clip, first)
        else:
            kept[place] = True
    return [refused.get(clip.clip_id, clip) for clip in clips]


def _refuse_near_duplicate(workspace: Workspace, batch: Batch, night: str, clip: ClipRecord, first: str) -> ClipRecord:
    refused = clip.with_(status="quarantined", reason="near_duplicate")
    message = f"{clip.source_path} shows nearly the same as clip {first} (validation.near_duplicate_bits)."
    mark = read_fingerprint(batch.part("clips", clip.clip_id))
    _write(workspace, batch, night, refused, message, mark)
    return refused
