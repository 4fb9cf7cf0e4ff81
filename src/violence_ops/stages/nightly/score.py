"""`score`: let the champion judge every clip of a batch from its tracks, and draw the overlays that are asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from violence_ops.errors import ServiceUnavailable, UserError
from violence_ops.files import fingerprint, read_fingerprint, read_json, write_json, write_table
from violence_ops.folders import Batch
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params
from violence_ops.records import PREDICTIONS_SCHEMA, ClipRecord
from violence_ops.stages.inspection import overlays
from violence_ops.store import batches, pictures, releases
from violence_ops.store.batches import Progress
from violence_ops.store.models import load_version
from violence_ops.store.parts import record_progress, unless_forgotten, writing
from violence_ops.video.sandbox import Sandbox
from violence_ops.wording import counted
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    from violence_ops.recognition.package import Package

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ScoreResult(Jsonable):
    """The champion's version (None: there is none yet, nothing was judged), clips judged now, done before, Fights among those
    judged now, and overlays drawn now."""

    champion: str | None
    scored: int = 0
    skipped: int = 0
    fights: int = 0
    overlays: int = 0

    def lines(self) -> list[str]:
        """For people."""
        judged = f"{counted(self.scored, 'clip')}, {self.fights} as Fight; {counted(self.skipped, 'was', 'were')} done before"
        lines = [
            f"Champion {self.champion} judged {judged}."
            if self.champion else "There is no champion yet: no clip was judged."
        ]  # fmt: skip
        return lines + [f"{counted(self.overlays, 'overlay was', 'overlays were')} drawn."] * bool(self.overlays)


def run(
    workspace: Workspace,
    params: Params,
    *,
    batch_id: str | None = None,
    clip_ids: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> ScoreResult:
    """Judge the accepted clips of one batch, or of every open one; without a champion the predictions are empty tables.

    Then the overlays that `annotation.overlay` asks for are drawn, as they show the verdict. What fails of them is left out.

    A clip is judged again if its tracks or the champion changed. All clips of a batch have one champion, whatever is promoted or
    rolled back meanwhile: some `clip_ids` have that of the shards before them, a whole batch has the present one.
    Raises ServiceUnavailable if MLflow cannot be reached, UserError if the champion's package is damaged, WorkspaceError if the
    tracks of a clip are missing, or its video and the champion looks at pictures, Rejected if such a video does not decode within
    the limits of validation.
    """
    wanted = None if clip_ids is None else list(clip_ids)
    champion = present = releases.champion(workspace)
    scored, skipped, fights, drawn = 0, 0, 0, 0
    for batch in batches.chosen_batches(workspace, batch_id):
        if batch.is_sealed:
            continue
        champion = _pin_champion(workspace, batch, present, anew=wanted is None)
        clips = batches.accepted_clips(batch, wanted)
        due = [
            clip
            for clip in clips
            if read_fingerprint(batch.part("predictions", clip.clip_id)) != expected(batch, clip, champion)
        ]
        skipped += len(clips) - len(due)
        package = _load(workspace, batch, champion) if champion is not None and due else None
        with Sandbox(params.validation) as sandbox:
            for done, clip in enumerate(due, start=1):
                with unless_forgotten(workspace, clip.clip_id):
                    fights += _score(workspace, batch, clip, champion, package, sandbox)
                    scored += champion is not None
                if progress:
                    progress("score", done, len(due))
        drawn += _draw(workspace, params, batch, clips, progress)
    if clip_ids is None:
        record_progress(workspace, "score", batch_id=batch_id)
    return ScoreResult(champion, scored, skipped, fights, drawn)


def _draw(
    workspace: Workspace, params: Params, batch: Batch, clips: list[ClipRecord], progress: Progress | None
) -> int:
    """Draw the overlays that are asked for; returns how many. What fails is said, and stops no night: `check` misses it then."""
    try:
        result = overlays.asked_for(workspace, params, batch, clips, progress)
    except (UserError, OSError, RuntimeError) as error:
        _log.warning("no overlays of batch %s: %s", batch.batch_id, error)
        return 0
    for sentence in result.failed.values():
        _log.warning("no overlay: %s", sentence)
    return len(result.made)


def pinned_champion(batch: Batch) -> str | None:
    """The version that judges all clips of an open batch; None if there was no champion, or no clip was judged yet."""
    return (
        read_json(batch.pinned_champion, "remove it and run `violence-ops score`")["version"]
        if batch.pinned_champion.is_file()
        else None
    )


def unpin_champion(workspace: Workspace, *, batch_id: str) -> None:
    """The next clips of an open batch that are judged have the champion of then, and all others after them."""
    workspace.batch(batch_id).pinned_champion.unlink(missing_ok=True)


def _pin_champion(workspace: Workspace, batch: Batch, present: str | None, *, anew: bool) -> str | None:
    """Pin the present champion for a batch, unless another process was first and it is not to be chosen anew."""
    with workspace.lock("pinned-champion"):
        if anew or not batch.pinned_champion.is_file():
            write_json(batch.pinned_champion, {"version": present})
        return pinned_champion(batch)


def _load(workspace: Workspace, batch: Batch, champion: str) -> Package:
    try:
        return load_version(workspace, champion)
    except ServiceUnavailable:
        raise
    except UserError as error:
        raise UserError(
            f"{error} Version {champion} judges batch {batch.batch_id} until `violence-ops score --batch {batch.batch_id}` lets the "
            "present champion judge all of it."
        ) from None


def expected(batch: Batch, clip: ClipRecord, champion: str | None) -> str:
    """The fingerprint of the predictions that these tracks and this champion give."""
    return fingerprint(read_fingerprint(batch.part("tracks", clip.clip_id)), champion)


def _score(
    workspace: Workspace,
    batch: Batch,
    clip: ClipRecord,
    champion: str | None,
    package: Package | None,
    sandbox: Sandbox,
) -> bool:
    """Write one clip's predictions; returns whether it is a Fight."""
    from violence_ops.recognition.predict import predict_clip

    tracks, rows, is_fight = batches.read_tracks(batch, clip), PREDICTIONS_SCHEMA.empty_table(), False
    mark = expected(batch, clip, champion)
    if champion is not None and package is not None:
        prediction = predict_clip(package, tracks, pictures.of_clip(batch, clip, sandbox))
        rows, is_fight = prediction.to_table(champion), prediction.verdict == "Fight"
    with writing(workspace, batch, clip.clip_id):
        write_table(batch.part("predictions", clip.clip_id), rows, mark)
    return is_fight
