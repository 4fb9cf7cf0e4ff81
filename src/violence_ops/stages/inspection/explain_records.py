"""What `explain` answers, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from violence_ops.jsonable import Jsonable
from violence_ops.records import COMPONENTS, TRANSIENT, piece_starts
from violence_ops.wording import clock, counted

TOP: Final = 2
"""Of each piece of a long clip so many tracks are named, the first by rank."""
_NOBODY: Final = "Nobody is seen for long enough, surely enough or steadily enough to be ranked."
_FEW: Final = 12
"""So many tracks of a long clip are all written out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainResult(Jsonable):
    """All that is known of one clip. `tracks` are by rank, those not ranked (rank 0) last; `refusal` is its reason.json;
    `label_by` and `label_at` say who gave a label after the clip had arrived, and when (UTC); `verdict` is what the champion of its
    night said, `evaluation` what the models of the newest evaluation on it did;
    `copies` are the nights and paths under which a clip that was not refused arrived again; `next_step` is the command that an open
    batch needs next for this clip, `waits_as` the file, seen from the workspace, as which `retry` has put a refused one into the inbox."""

    clip_id: str
    status: str
    batch_id: str | None = None
    sealed: bool = False
    source_path: str | None = None
    source_group: str | None = None
    copies: list[dict[str, Any]] = field(default_factory=list)
    label: str | None = None
    label_from: str | None = None
    label_by: str | None = None
    label_at: str | None = None
    video: dict[str, Any] = field(default_factory=dict)
    scene: str | None = None
    refusal: dict[str, Any] | None = None
    tracks: list[dict[str, Any]] | None = None
    verdict: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    image: str | None = None
    next_step: str | None = None
    waits_as: str | None = None

    def lines(self) -> list[str]:
        """For people."""
        batch = f"{self.batch_id} ({'sealed' if self.sealed else 'open'})" if self.batch_id else "none"
        lines = [
            f"Clip {self.clip_id}: {self.status}",
            f"  from     {self.source_path}, source group {self.source_group}",
            *(f"  also arrived as {copy['source_path']} on {copy['night']}" for copy in self.copies),
            f"  batch    {batch}",
            f"  label    {self._label()}",
        ]
        if self.video:
            lines.append(
                "  video    {width}x{height}, {fps:g} frames/s, {frame_count} frames, {duration_s:.1f} s".format(
                    **self.video
                )
            )
        if self.refusal:
            return [*lines, *_refusal_lines(self.refusal, self.label, self.waits_as)]
        if self.scene:
            lines.append(f"  people   {self.scene}")
        if self.status == "accepted":
            said = [*_verdict_lines(self.verdict, self.sealed), *_evaluation_lines(self.evaluation)]
            # of a long clip what matters first is where to look
            lines += [*said, *_tracks_over_time(self.tracks)] if self._is_long else [*_track_lines(self.tracks), *said]
        if self.next_step:
            lines.append(
                f"Next: `violence-ops {self.next_step}`, or `violence-ops night`, which does all that is still to be done."
            )
        return lines + ([f"Picture: {self.image}"] if self.image else [])

    @property
    def _is_long(self) -> bool:
        """Whether people are ranked and judged in several pieces of the clip."""
        return bool(self.video) and len(piece_starts(self.video["frame_count"], self.video["fps"])) > 1

    def _label(self) -> str:
        if self.label is None:
            return "none yet"
        by = f", by {self.label_by}" if self.label_by else ""
        at = f", {self.label_at[:16].replace('T', ' ')} UTC" if self.label_at else ""
        return f"{self.label} (from {self.label_from}{by}{at})"


def _refusal_lines(refusal: dict[str, Any], label: str | None, waits_as: str | None) -> Iterator[str]:
    reason = refusal["reason"]
    yield f"  refused  {reason}: {refusal['message']}"
    if "removed" in refusal:
        yield f"  file     removed from quarantine on {refusal['removed']}"
    if waits_as:
        yield f"  again    it waits as {waits_as} for the next night, which judges it anew"
    # without a label the message says all that can be done
    elif reason in TRANSIENT and refusal.get("original") and (reason != "unlabelled" or label):
        yield f"  again    `violence-ops retry --reason {reason}` takes it out of quarantine, to be judged anew"


def _tracks_over_time(tracks: list[dict[str, Any]] | None) -> Iterator[str]:
    """The tracks of a long clip by the piece in which each ranks best; of many those alone that are first there."""
    found = sorted(tracks or (), key=lambda track: (track["start_s"], not track["rank"], track["rank"]))
    shown = found if len(found) <= _FEW else [track for track in found if 1 <= track["rank"] <= TOP]
    if not found:
        yield from _track_lines(tracks)
    elif not shown:
        yield _NOBODY
    else:
        yield "Each track in the piece where it ranks best:"
        yield from _track_lines(shown, timed=True)
    if left := len(found) - len(shown):
        yield f"Not shown: {counted(left, 'track')}, first or second in no piece; `--json` has all."


def _track_lines(tracks: list[dict[str, Any]] | None, *, timed: bool = False) -> Iterator[str]:
    """A table of tracks, two lines each; `timed` with the time of the piece in which it ranks so."""
    if tracks is None:
        yield "Not annotated yet."
        return
    if not tracks:
        yield "Nobody was found in it."
        return
    if not any(track["rank"] for track in tracks):
        yield _NOBODY
    head = "piece".center(18) + "  " if timed else ""
    yield f"  {head}rank  track  frames  filled  involvement  " + "  ".join(f"{name:>11}" for name in COMPONENTS)
    for track in tracks:
        values = "  ".join(f"{track[name]:11.2f}" for name in COMPONENTS)
        adds = "  ".join(f"{track['adds'][name]:+11.2f}" if name in track["adds"] else " " * 11 for name in COMPONENTS)
        piece = f"{clock(track['start_s']):>7} to {clock(track['end_s']):>7}  " if timed else ""
        counts = f"{piece}{track['rank'] or '-':>4}  {track['track_id']:>5}  {track['frames']:>6}  {track['filled']:>6}"
        yield f"  {counts}  {track['involvement']:11.2f}  {values}"
        yield f"  {'':>{len(counts)}}  {'adds':>11}  {adds.rstrip()}"
        if track["not_ranked"]:
            yield f"  {'':>{len(piece) + 4}}  not ranked, {track['not_ranked']}"


def _verdict_lines(verdict: dict[str, Any] | None, sealed: bool) -> Iterator[str]:
    if verdict is None:
        yield "No champion judged it in its night." if sealed else "No champion has judged it yet."
        return
    yield f"Model version {_said(verdict)}"
    for part in verdict["pieces"] or verdict["windows"]:
        bar = "#" * round(20 * part["probability"])
        time = f"  {clock(part['start_s']):>7} to {clock(part['end_s']):>7}" if verdict["pieces"] else ""
        first = part.get("tracks", ())
        named = f"{'tracks' if len(first) > 1 else 'track'} {', '.join(map(str, first))}"
        who = f"{'':{20 - len(bar)}}  first: {named}" if first else ""
        yield f"  frames {part['start_frame']:>5} to {part['end_frame'] - 1:>5}{time}  {part['probability']:.2f}  {bar}{who}"


def _evaluation_lines(evaluation: dict[str, Any] | None) -> Iterator[str]:
    if evaluation is None:
        return
    yield f"Evaluation {evaluation['name']}, where its label is {evaluation['label']}:"
    for model in ("candidate", "champion"):
        if said := evaluation[model]:
            yield f"  {model} {_said(said)}"


def _said(model: dict[str, Any]) -> str:
    return (
        f"{model['model_version']}: {model['verdict']}, probability {model['probability']:.3f} "
        f"(Fight above {model['threshold']:.3f})"
    )
