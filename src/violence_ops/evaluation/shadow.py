"""What a candidate would have said of the nights that the champion judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from violence_ops.evaluation.records import Prediction, ShadowClip, ShadowComparison, ShadowNight
from violence_ops.records import ClipRecord, Label

MAX_CLIPS: Final = 200
"""Disagreements that are listed; all are counted."""


def night(batch_id: str, champion: Mapping[str, Prediction], shadow: Mapping[str, Prediction]) -> ShadowNight:
    """Count, over the clips of one batch that both have judged (predictions by clip_id)."""
    both = champion.keys() & shadow.keys()
    return ShadowNight(
        batch_id=batch_id,
        clips=len(both),
        champion_fights=sum(champion[name].verdict == "Fight" for name in both),
        shadow_fights=sum(shadow[name].verdict == "Fight" for name in both),
        differ=sum(champion[name].verdict != shadow[name].verdict for name in both),
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


def comparison(version: str, nights: Iterable[ShadowNight], differing: Iterable[ShadowClip]) -> ShadowComparison:
    """All nights together; the disagreements that are furthest apart first."""
    found = sorted(
        differing, key=lambda clip: (-abs(clip.shadow.probability - clip.champion.probability), clip.clip_id)
    )
    labelled = [clip for clip in found if clip.label]
    return ShadowComparison(
        version=version, nights=tuple(nights), disagreements=tuple(found[:MAX_CLIPS]), labelled=len(labelled),
        shadow_right=sum(clip.label == clip.shadow.verdict for clip in labelled),
    )  # fmt: skip


def sentence(found: ShadowComparison) -> str:
    """One or two sentences for a person."""
    if not found.clips:
        return f"Version {found.version} has judged no clip in shadow that a champion has judged, too."
    said = (
        f"In shadow, version {found.version} gave the champion's verdict on {found.clips - found.differ} of {found.clips} clips "
        f"of {_count(len(found.nights), 'night')} ({1 - found.differ / found.clips:.0%}); it said Fight {found.shadow_fights} "
        f"times, the champion {found.champion_fights} times."
    )
    if found.labelled:
        said += (
            f" Of the clips they differ on {found.labelled} have a label: the shadow is right on {found.shadow_right}."
        )
    return said


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
