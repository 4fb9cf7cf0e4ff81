"""What a candidate would have said of the nights that the champion judged."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from violence_ops.evaluation.records import Prediction, ShadowClip, ShadowComparison, ShadowNight
from violence_ops.records import ClipRecord, Label
from violence_ops.wording import counted

MAX_CLIPS: Final = 200
"""Disagreements that are listed; all are counted."""


def night(
    batch_id: str, champion: Mapping[str, Prediction], shadow: Mapping[str, Prediction], learnt: Collection[str] = ()
) -> ShadowNight:
    """Count, over the clips of one batch that both have judged (predictions by clip_id), without those that the shadow has `learnt`."""
    both = champion.keys() & shadow.keys()
    counted = both.difference(learnt)
    return ShadowNight(
        batch_id=batch_id,
        clips=len(counted),
        left_out=len(both) - len(counted),
        champion_fights=sum(champion[name].verdict == "Fight" for name in counted),
        shadow_fights=sum(shadow[name].verdict == "Fight" for name in counted),
        differ=sum(champion[name].verdict != shadow[name].verdict for name in counted),
    )


def disagreements(
    clips: Iterable[ClipRecord], labels: Mapping[str, Label], champion: Mapping[str, Prediction], shadow: Mapping[str, Prediction]
) -> list[ShadowClip]:  # fmt: skip
    """The clips whose verdicts differ, with the label where somebody has given one."""
    return [
        ShadowClip(
            clip_id=clip.clip_id, batch_id=clip.batch_id, camera=clip.camera_id, source_path=clip.source_path,
            label=labels.get(clip.clip_id), champion=champion[clip.clip_id], shadow=shadow[clip.clip_id],
        )
        for clip in clips
        if clip.clip_id in champion and clip.clip_id in shadow and champion[clip.clip_id].verdict != shadow[clip.clip_id].verdict
    ]  # fmt: skip


def comparison(
    version: str, nights: Iterable[ShadowNight], differing: Iterable[ShadowClip], *, training_known: bool = True
) -> ShadowComparison:
    """All nights together; the disagreements that are furthest apart first."""
    found = sorted(
        differing, key=lambda clip: (-abs(clip.shadow.probability - clip.champion.probability), clip.clip_id)
    )
    labelled = [clip for clip in found if clip.label]
    return ShadowComparison(
        version=version, nights=tuple(nights), disagreements=tuple(found[:MAX_CLIPS]), labelled=len(labelled),
        shadow_right=sum(clip.label == clip.shadow.verdict for clip in labelled), training_known=training_known,
    )  # fmt: skip


def sentence(found: ShadowComparison) -> str:
    """A few sentences for a person."""
    if not found.clips:
        new = ", and that is new to it" if found.left_out else ""
        return f"Version {found.version} has judged no clip in shadow that a champion has judged, too{new}.{_learnt(found)}"
    said = (
        f"In shadow, version {found.version} gave the champion's verdict on {found.clips - found.differ} of {counted(found.clips, 'clip')} "
        f"of {_nights(found)} ({1 - found.differ / found.clips:.0%}); it said Fight "
        f"{counted(found.shadow_fights, 'time')}, the champion {counted(found.champion_fights, 'time')}."
    )
    if found.labelled:
        said += f" Of the clips they differ on {counted(found.labelled, 'has', 'have')} a label: the shadow is right on {found.shadow_right}."
    return said + _learnt(found)


def _nights(found: ShadowComparison) -> str:
    """The nights of which clips count: `1 night, 2026-02-01`, `3 nights from 2026-01-30 to 2026-02-01`."""
    dates = sorted({night.batch_id[:10] for night in found.nights if night.clips})
    which = f", {dates[0]}" if len(dates) == 1 else f" from {dates[0]} to {dates[-1]}"
    return counted(len(dates), "night") + which


def _learnt(found: ShadowComparison) -> str:
    """What the figures leave out because the shadow knows it from its training."""
    if not found.training_known:
        return " Which clips it was trained on is not known: they may be among these."
    clips = counted(found.left_out, "clip")
    return f" Left out: {clips} of source groups that it was trained on." if found.left_out else ""
