"""Failure analysis (SPEC 10): which clips went wrong, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from violence_ops.evaluation.records import JudgedClip, Prediction
from violence_ops.records import Label

LOW_CONFIDENCE: Final = 0.5
"""A verdict with a confidence up to this one is marked as such."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A clip worth looking at; kind is `false negative`, `false positive` or `correct`."""

    clip: JudgedClip
    prediction: Prediction
    kind: str
    low_confidence: bool


def kind_of(label: Label, prediction: Prediction) -> str:
    """How a verdict stands to the label."""
    if prediction.verdict == label:
        return "correct"
    return "false negative" if label == "Fight" else "false positive"


def failures(clips: tuple[JudgedClip, ...], model: str) -> list[Failure]:
    """What is wrong with `model` (`candidate` or `champion`): every failure, surest first, then the low-confidence correct."""
    found = []
    for clip in clips:
        prediction: Prediction | None = getattr(clip, model)
        if prediction is None:
            continue
        kind, low = kind_of(clip.label, prediction), prediction.confidence <= LOW_CONFIDENCE
        if kind != "correct" or low:
            found.append(Failure(clip, prediction, kind, low))
    return sorted(found, key=lambda item: (item.kind == "correct", -item.prediction.confidence, item.clip.clip_id))


def disagreements(clips: tuple[JudgedClip, ...]) -> list[JudgedClip]:
    """The clips that exactly one of the two models has wrong: the candidate's new failures first."""
    both = [clip for clip in clips if clip.champion and clip.candidate.verdict != clip.champion.verdict]
    return sorted(both, key=lambda clip: (clip.candidate.verdict == clip.label, clip.clip_id))
