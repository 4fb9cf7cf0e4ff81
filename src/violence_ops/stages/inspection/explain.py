"""`explain`: why a clip was refused, or who was ranked first and why, and what the classifier made of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_ops.errors import UsageError, WorkspaceError
from violence_ops.files import atomic_path
from violence_ops.folders import Batch
from violence_ops.params import InvolvementParams, Params
from violence_ops.records import COMPONENTS, TRANSIENT, ClipRecord, piece_starts, seconds_of
from violence_ops.stages.inspection import overlay
from violence_ops.stages.inspection.explain_records import TOP, ExplainResult
from violence_ops.stages.nightly import retry
from violence_ops.stages.nightly.annotation_summary import scene_of
from violence_ops.stages.provenance import traces
from violence_ops.stages.provenance.lineage_records import ForgottenLineage
from violence_ops.store import batches, labels_file, quarantine, tombstones
from violence_ops.store.index import open_catalog
from violence_ops.store.parts import STAGES, batch_of
from violence_ops.wording import clock
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    from violence_ops.catalog import CatalogClip
    from violence_ops.evaluation.records import ModelFacts, Prediction
    from violence_ops.involvement.sightings import Sightings
    from violence_ops.records import ClipTracks


def run(
    workspace: Workspace, params: Params, clip_id: str, *, image: Path | None = None
) -> ExplainResult | ForgottenLineage:
    """Explain one clip; with `image` also write a PNG there: the best frame with regions, tracks, and components as bars.

    Of a forgotten clip there is only its tombstone.
    Raises UsageError if the workspace does not know the clip or `image` is no .png in a folder that exists, WorkspaceError if there
    is no picture of it to write, Rejected if its video does not decode within the limits of validation.
    """
    if image is not None and (image.suffix.lower() != ".png" or not image.parent.is_dir()):
        raise UsageError(f"{image} is no place for a picture: name a .png in a folder that there is.")
    result = _known(workspace, params, clip_id, image)
    if image is not None and (isinstance(result, ForgottenLineage) or result.image is None):
        raise WorkspaceError(f"There is no picture of clip {clip_id}: leave --image out to read why.")
    return result


def _known(workspace: Workspace, params: Params, clip_id: str, image: Path | None) -> ExplainResult | ForgottenLineage:
    if stone := tombstones.find(workspace, clip_id):
        return ForgottenLineage(stone)
    batch, refusal = batch_of(workspace, clip_id), quarantine.read(workspace.quarantined(clip_id))
    found = batches.read_clips(batch, [clip_id]) if batch else []
    if batch and found and found[0].status == "accepted":
        return _accepted(workspace, params, batch, found[0], (refusal or {}).get("occurrences", []), image)
    if not found and (batch or refusal is None or refusal["reason"] == "duplicate"):
        return _claimed(workspace, clip_id, (refusal or {}).get("occurrences", []))
    clip = found[0] if found else quarantine.as_clip(refusal or {})
    return ExplainResult(
        clip_id=clip_id,
        status="quarantined",
        batch_id=clip.batch_id or None,
        sealed=bool(clip.batch_id) and workspace.batch(clip.batch_id).is_sealed,
        source_path=clip.source_path,
        source_group=clip.source_group,
        **_label(workspace, clip),
        refusal=refusal or {"reason": clip.reason, "message": "its quarantine folder is gone"},
        waits_as=_waits_as(workspace, refusal),
    )


def _waits_as(workspace: Workspace, refusal: dict[str, Any] | None) -> str | None:
    """The file in the inbox that holds a refused clip's original since `retry`."""
    if refusal is None or refusal.get("original") or refusal["reason"] not in TRANSIENT:
        return None
    files = retry.in_inbox(workspace, refusal["clip_id"])
    return str(files[0].relative_to(workspace.root)) if files else None


def _claimed(workspace: Workspace, clip_id: str, copies: list[dict[str, Any]]) -> ExplainResult:
    """What the catalog knows of a clip that nobody has looked into yet. One without a batch is in the hands of an ingestion that
    goes on, or was killed."""
    with open_catalog(workspace) as catalog:
        clip = catalog.find([clip_id])[clip_id]
    return ExplainResult(
        clip_id=clip_id,
        status="claimed, not validated yet",
        batch_id=clip.batch_id,
        source_path=clip.source_path,
        source_group=clip.source_group,
        copies=copies,
        **_label(workspace, clip),
        next_step=f"validate --batch {clip.batch_id}" if clip.batch_id else "ingest",
    )


def _label(workspace: Workspace, clip: ClipRecord | CatalogClip) -> dict[str, Any]:
    """The label that counts for a clip, where it came from, and of one that was given later by whom and when."""
    given = labels_file.in_force(workspace).get(clip.clip_id)
    if given is None:
        return {"label": clip.label, "label_from": "inbox" if clip.label else None}
    return {
        "label": given.label,
        "label_from": given.source,
        "label_by": given.by or None,
        "label_at": given.at or None,
    }


def _accepted(
    workspace: Workspace,
    params: Params,
    batch: Batch,
    clip: ClipRecord,
    copies: list[dict[str, Any]],
    image: Path | None,
) -> ExplainResult:
    tracks, used = _tracks(batch, clip), _made_with(batch, params)
    verdict = _verdict(batch, clip, tracks)
    if image is not None:
        _write_image(image, params, used, batch, clip, (verdict or {}).get("pieces", []))
    return ExplainResult(
        clip_id=clip.clip_id,
        status="accepted",
        batch_id=batch.batch_id,
        sealed=batch.is_sealed,
        source_path=clip.source_path,
        source_group=clip.source_group,
        copies=copies,
        **_label(workspace, clip),
        video={name: getattr(clip, name) for name in ("width", "height", "fps", "frame_count", "duration_s")},
        scene=None if tracks is None else scene_of(tracks.frame, params.annotation.crowd),
        tracks=None if tracks is None else _described(tracks, clip, used),
        verdict=verdict,
        evaluation=_evaluation(workspace, clip.clip_id),
        image=str(image) if image else None,
        next_step=_next_step(batch, clip),
    )


def _next_step(batch: Batch, clip: ClipRecord) -> str | None:
    """The first stage that has made nothing of this clip yet, and once all have `seal`; None if its batch is sealed."""
    if batch.is_sealed:
        return None
    missing = (stage for stage, table in STAGES.items() if not batch.part(table, clip.clip_id).is_file())
    return f"{next(missing, 'seal')} --batch {batch.batch_id}"


def _tracks(batch: Batch, clip: ClipRecord) -> ClipTracks | None:
    """The clip's tracks, or None if it is not annotated yet."""
    if not batch.is_sealed and not batch.part("tracks", clip.clip_id).is_file():
        return None
    return batches.read_tracks(batch, clip)


def _made_with(batch: Batch, params: Params) -> Params:
    """The parameters that the batch's tracks were made with, as far as it says so and they still exist."""
    content = params.model_dump(mode="json")
    recorded = batches.read_manifest(batch).facts.get("params", {})
    for section in ("pose", "tracking", "involvement"):
        content[section] |= {key: value for key, value in recorded.get(section, {}).items() if key in content[section]}
    return Params.model_validate(content)


def _described(
    tracks: ClipTracks, clip: ClipRecord, params: Params, within: tuple[int, int] | None = None
) -> list[dict[str, Any]]:
    """One entry per track, by its best rank in a piece of the clip, of which its components are; of the tracks seen `within` frames
    alone, by their rank there. `adds` is what each component that counts adds to the involvement, `not_ranked` why not, `start_s`
    and `end_s` the seconds of that piece."""
    import numpy as np

    from violence_ops.involvement.sightings import OBSTACLES, Sightings
    from violence_ops.records import sampled_frames

    shares = {name: share for name, share in params.involvement.involvement_shares.items() if share}
    seen = Sightings.of(tracks, sampled_frames(clip, params.pose.max_frames_per_second))
    obstacles = seen.obstacles(params.involvement)
    found = []
    start, end = within or (0, clip.frame_count or 0)
    inside = (tracks.frame >= start) & (tracks.frame < end) & ~tracks.interpolated
    best = dict(zip(*(each.tolist() for each in tracks.at_their_best(inside)), strict=True))
    for place, track_id in enumerate(seen.ids.tolist()):
        if track_id not in best:
            continue
        rows = np.flatnonzero(tracks.track_id == track_id)
        first = best[track_id]
        piece = _piece_at(clip, int(tracks.frame[first]))
        components = dict(zip(COMPONENTS, (round(float(value), 4) for value in tracks.components[first]), strict=True))
        found.append(
            {
                "track_id": track_id,
                "rank": int(tracks.rank[first]),
                "frames": int((~tracks.interpolated[rows]).sum()),
                "filled": int(tracks.interpolated[rows].sum()),
                "first_frame": int(tracks.frame[rows].min()),
                "last_frame": int(tracks.frame[rows].max()),
                **seconds_of(*piece, clip.fps or 1.0),
                "seconds": round(float(seen.seconds[place]), 3),
                "mean_score": round(float(seen.strength[place]), 4),
                "flicker": round(float(seen.flicker[place]), 4),
                "not_ranked": None
                if tracks.rank[first]
                else _obstacle(seen, place, OBSTACLES[obstacles[place]], params.involvement),
                "involvement": round(float(tracks.involvement[first]), 4),
                **components,
                "adds": {
                    name: round(share * float(tracks.components[first, COMPONENTS.index(name)]), 4)
                    for name, share in shares.items()
                },
            }
        )
    return sorted(found, key=lambda track: (not track["rank"], track["rank"], track["track_id"]))


def _piece_at(clip: ClipRecord, frame: int) -> tuple[int, int]:
    """The frames `[start, end)` of the piece of a clip in which a frame lies: all of them if it is short."""
    import numpy as np

    starts = piece_starts(clip.frame_count or 0, clip.fps or 0.0)
    number = int(np.searchsorted(starts, frame, side="right"))
    return int(starts[number - 1]), int([*starts, clip.frame_count or 0][number])


def _obstacle(seen: Sightings, place: int, which: str | None, params: InvolvementParams) -> str:
    """Why a track is not ranked: which of `OBSTACLES`, with the figure and the limit."""
    if which is None:
        return "by the limits of its time, which this batch does not name"
    figures = {
        "short": f"seen for {seen.seconds[place]:.2f} s, involvement.min_track_s is {params.min_track_s:g}",
        "weak": f"mean score {seen.strength[place]:.2f}, involvement.min_mean_score is {params.min_mean_score:g}",
        "flickering": f"{seen.flicker[place]:.0%} of its frames follow a gap, involvement.max_flicker is {params.max_flicker:.0%}",
    }
    return f"{which}: {figures[which]}"


def _verdict(batch: Batch, clip: ClipRecord, tracks: ClipTracks | None) -> dict[str, Any] | None:
    """What the champion said: version, verdict, probability, threshold, the windows, and the votes of a long clip's pieces; None if
    nothing was judged."""
    if not batch.is_sealed and not batch.part("predictions", clip.clip_id).is_file():
        return None
    rows = batches.read_rows(batch, "predictions", clip.clip_id).to_pylist()
    if not rows:
        return None
    return {
        "model_version": rows[0]["model_version"],
        "verdict": rows[0]["verdict"],
        "probability": round(rows[0]["clip_probability"], 4),
        "threshold": round(rows[0]["threshold"], 4),
        "windows": [
            {"start_frame": row["start_frame"], "end_frame": row["end_frame"],
             "probability": round(row["probability"], 4), "weight": round(row["weight"], 4)}
            for row in rows
        ],
        "pieces": _pieces(clip, rows, tracks),
    }  # fmt: skip


def _evaluation(workspace: Workspace, clip_id: str) -> dict[str, Any] | None:
    """What the models of the newest evaluation with this clip in it made of it; None if there is none."""
    newest = traces.newest_evaluation(workspace, clip_id)
    if newest is None:
        return None
    found, judged = newest

    def said(model: ModelFacts, prediction: Prediction) -> dict[str, Any]:
        return {
            "model_version": model.version,
            "verdict": prediction.verdict,
            "probability": round(prediction.probability, 4),
            "threshold": round(model.threshold, 4),
        }

    champion = said(found.champion, judged.champion) if found.champion and judged.champion else None
    return {
        "name": found.name,
        "label": judged.label,
        "candidate": said(found.candidate, judged.candidate),
        "champion": champion,
    }


def _pieces(clip: ClipRecord, rows: list[dict[str, Any]], tracks: ClipTracks | None) -> list[dict[str, Any]]:
    """The vote of each piece of a long clip, with its seconds, and the `tracks` that are ranked first in it."""
    import numpy as np

    from violence_ops.recognition import vote

    windows = np.array([(row["start_frame"], row["end_frame"]) for row in rows])
    probabilities, weights = (np.array([row[name] for row in rows]) for name in ("probability", "weight"))
    found = vote.pieces(piece_starts(clip.frame_count or 0, clip.fps or 0.0), windows, probabilities, weights)
    return [
        {
            "start_frame": piece.start_frame,
            "end_frame": piece.end_frame,
            **seconds_of(piece.start_frame, piece.end_frame, clip.fps or 1.0),
            "probability": round(piece.probability, 4),
            "tracks": [] if tracks is None else _top(tracks, piece.start_frame, piece.end_frame),
        }
        for piece in found
    ]


def _top(tracks: ClipTracks, start: int, end: int) -> list[int]:
    """The tracks that are ranked first in these frames, in order."""
    rows = (tracks.frame >= start) & (tracks.frame < end) & (tracks.rank >= 1) & (tracks.rank <= TOP)
    found = dict(zip(tracks.rank[rows].tolist(), tracks.track_id[rows].tolist(), strict=True))
    return [found[rank] for rank in sorted(found)]


def _write_image(
    path: Path, params: Params, used: Params, batch: Batch, clip: ClipRecord, pieces: list[dict[str, Any]]
) -> None:
    """Draw the best frame, of a long clip that of its highest piece, and the tracks of that frame's piece; `used` made the tracks."""
    from violence_ops.video import explanation
    from violence_ops.video.overlay import frame_image
    from violence_ops.video.sandbox import Sandbox

    tracks, judged = batches.read_tracks(batch, clip), overlay.judgement(batch, clip)
    highest = max(pieces, key=lambda piece: piece["probability"], default=None)
    within = (highest["start_frame"], highest["end_frame"]) if highest else None
    index = explanation.best_frame(tracks, judged, within)
    with Sandbox(params.validation) as sandbox:
        ((frame, _),) = sandbox.pictures(batches.video_of(batch, clip), [index], None, known=clip.size)
    picture = frame_image(frame, index, tracks, judged, overlay.five_regions())
    piece = _piece_at(clip, index)
    bars = [
        explanation.Bar(
            f"#{track['rank']}  ID {track['track_id']}"
            if track["rank"]
            else f"{track['not_ranked'].partition(':')[0]}  ID {track['track_id']}",
            track["adds"],
        )
        for track in _described(tracks, clip, used, piece)
    ]
    start_s, end_s = seconds_of(*piece, clip.fps or 1.0).values()
    part = "" if piece == (0, clip.frame_count) else f"; tracks of {clock(start_s)} to {clock(end_s)}"
    with atomic_path(path) as temporary:
        explanation.write(temporary, picture, bars, f"Clip {clip.clip_id}, frame {index}{part}")
