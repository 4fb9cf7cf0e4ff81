"""From judged clips to the whole evaluation: metrics of both models, their paired difference, and the slices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from violence_ops.evaluation.comparison import f1_difference_interval, mcnemar
from violence_ops.evaluation.metrics import BoolArray, Floats, metrics
from violence_ops.evaluation.records import (
    DataChecks,
    Difference,
    Evaluation,
    HoldoutFacts,
    Interval,
    JudgedClip,
    JudgedModel,
    Latency,
    Leakage,
    ModelFacts,
    Prediction,
    Timings,
)
from violence_ops.evaluation.slices import cut
from violence_ops.records import Label

_DIGITS: Final = 1e-9
"""How far figures computed from the same clips may lie apart."""


def evaluate(
    clips: Iterable[JudgedClip],
    *,
    name: str,
    holdout: HoldoutFacts,
    candidate: ModelFacts,
    champion: ModelFacts | None,
    checks: DataChecks,
    timings: Timings,
    confidence: float,
    resamples: int,
) -> Evaluation:
    """Put an evaluation together. Every clip must carry a champion's prediction exactly if there is a champion.

    The clips' order changes nothing: they are sorted by clip_id. `confidence` and `resamples` are the gate's.
    """
    ordered = tuple(sorted(clips, key=lambda clip: clip.clip_id))
    return Evaluation(
        name=name,
        holdout=holdout,
        candidate=_judged(candidate, ordered, [clip.candidate for clip in ordered]),
        champion=_judged(champion, ordered, [clip.champion for clip in ordered if clip.champion]) if champion else None,
        difference=difference(ordered, confidence=confidence, resamples=resamples) if champion else None,
        slices=cut(ordered),
        checks=checks,
        clips=ordered,
        timings=timings,
    )


def follows(evaluation: Evaluation) -> bool:
    """Whether the figures of an evaluation that was read back are those that its clips give.

    Its last digits may differ, as those of two machines do. Facts, checks and times come from elsewhere and are not looked at.
    """
    found, judged = evaluation.difference, evaluation.champion is not None
    if (found is not None) != judged or any((clip.champion is not None) != judged for clip in evaluation.clips):
        return False
    again = evaluate(
        evaluation.clips, name=evaluation.name, holdout=evaluation.holdout, candidate=_facts(evaluation.candidate),
        champion=_facts(evaluation.champion) if evaluation.champion else None, checks=evaluation.checks, timings=evaluation.timings,
        confidence=found.confidence if found else 0.0, resamples=found.resamples if found else 0,
    )  # fmt: skip
    return _close(evaluation.to_dict(), again.to_dict())


def difference(clips: tuple[JudgedClip, ...], *, confidence: float, resamples: int) -> Difference:
    """The paired comparison of clips that both models have judged."""
    labels = _fights(clip.label for clip in clips)
    candidate = _fights(clip.candidate.verdict for clip in clips)
    champion = _fights(clip.champion.verdict for clip in clips if clip.champion)

    def interval(units: list[str]) -> Interval:
        return f1_difference_interval(labels, candidate, champion, units, confidence=confidence, resamples=resamples)

    only_candidate, only_champion, p_value = mcnemar(labels, candidate, champion)
    scores = [metrics(labels, said.astype(float), said).f1 for said in (candidate, champion)]
    return Difference(
        f1=scores[0] - scores[1],
        confidence=confidence,
        resamples=resamples,
        by_group=interval([clip.source_group for clip in clips]),
        by_clip=interval([clip.clip_id for clip in clips]),
        only_candidate_right=only_candidate,
        only_champion_right=only_champion,
        mcnemar_p=p_value,
    )


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a clip comes from, as far as leakage is concerned. perceptual_hash is 64 bits in hex, or None."""

    clip_id: str
    source_group: str
    perceptual_hash: str | None


def leakage(holdout: Sequence[Origin], training: Sequence[Origin], near_duplicate_bits: int) -> Leakage:
    """What holdout and training data share: clips, source groups, and other clips whose perceptual hashes differ in at most
    `near_duplicate_bits` bits (0: equal hashes)."""
    clip_ids = {clip.clip_id for clip in holdout} & {clip.clip_id for clip in training}
    groups = {clip.source_group for clip in holdout} & {clip.source_group for clip in training}
    pairs = _near_duplicates(holdout, training, near_duplicate_bits)
    return Leakage(
        clip_ids=tuple(sorted(clip_ids)), source_groups=tuple(sorted(groups)), near_duplicates=tuple(sorted(pairs))
    )


def latency(seconds: list[float], peak_memory_mb: float | None) -> Latency:
    """Median and 95th percentile of the time per clip."""
    p50, p95 = np.percentile(np.array(seconds or [0.0]) * 1000, [50, 95])
    return Latency(p50_ms=float(p50), p95_ms=float(p95), peak_memory_mb=peak_memory_mb)


def prediction(probability: float, verdict: Label) -> Prediction:
    """A model's judgement; the confidence in it is the probability of the verdict's label."""
    return Prediction(
        probability=probability, verdict=verdict, confidence=probability if verdict == "Fight" else 1 - probability
    )


def arrays(clips: Iterable[JudgedClip], model: str) -> tuple[BoolArray, Floats]:
    """Labels `(N,)`, True = Fight, and probabilities `(N,)` of one model (`candidate` or `champion`)."""
    chosen = [(clip.label, getattr(clip, model)) for clip in clips]
    labels = _fights(label for label, made in chosen if made)
    return labels, np.array([made.probability for _, made in chosen if made], float)


def _judged(model: ModelFacts, clips: tuple[JudgedClip, ...], made: list[Prediction]) -> JudgedModel:
    labels = _fights(clip.label for clip in clips)
    probabilities = np.array([one.probability for one in made], float)
    figures = metrics(labels, probabilities, _fights(one.verdict for one in made))
    return JudgedModel(**model.to_dict(), metrics=figures)


def _facts(model: JudgedModel) -> ModelFacts:
    return ModelFacts(**model.model_dump(exclude={"metrics"}))


def _close(one: Any, other: Any) -> bool:
    """Whether two JSON-able values are equal but for the last digits of their numbers."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_close(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_close, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_DIGITS, abs_tol=_DIGITS)
    return bool(one == other)


def _fights(values: Iterable[str]) -> BoolArray:
    return np.array([value == "Fight" for value in values], bool)


def _near_duplicates(held: Sequence[Origin], trained: Sequence[Origin], bits: int) -> list[tuple[str, str]]:
    others = [(clip.clip_id, int(clip.perceptual_hash, 16)) for clip in trained if clip.perceptual_hash]
    hashes = np.array([value for _, value in others], np.uint64)
    pairs = []
    for clip in held:
        if clip.perceptual_hash:
            apart = np.bitwise_count(hashes ^ np.uint64(int(clip.perceptual_hash, 16)))
            near = (others[i][0] for i in np.flatnonzero(apart <= bits))
            pairs += [(clip.clip_id, name) for name in near if name != clip.clip_id]
    return pairs
