"""The page a release manager reads, and its one-sentence summary. Made from the records alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from violence_ops.evaluation import charts, drift_page, page, policy
from violence_ops.evaluation.drift import DriftReport
from violence_ops.evaluation.failures import disagreements, failures, kind_of
from violence_ops.evaluation.judgement import arrays
from violence_ops.evaluation.metrics import calibration, threshold_curve
from violence_ops.evaluation.records import (
    Evaluation,
    JudgedClip,
    Leakage,
    Metrics,
    ShadowComparison,
    Slice,
    Verdict,
)
from violence_ops.evaluation.shadow import sentence
from violence_ops.params import GateParams
from violence_ops.wording import counted

MAX_ROWS: Final = 150
"""Rows of a table of clips; `evaluation.json` holds them all."""

MAX_PICTURES: Final = 48
"""Of clips, about 15 KB each."""

_NOTABLE: Final = 0.005
"""Smaller differences are shown without colour."""

_METRICS: Final = (
    ("F1", "f1", +1), ("Recall", "recall", +1), ("Precision", "precision", +1), ("Specificity", "specificity", +1),
    ("Accuracy", "accuracy", +1), ("AUC", "auc", +1), ("Calibration error", "ece", -1), ("Brier score", "brier", -1),
)  # fmt: skip
"""Name, field of Metrics, and whether more is better (+1) or worse (-1)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One compared figure; change is candidate minus champion, tone `better`, `worse` or empty."""

    name: str
    detail: str
    candidate: float | None
    champion: float | None
    change: float | None
    tone: str


def headline(evaluation: Evaluation, verdict: Verdict | None = None) -> str:
    """One or two sentences: better, worse, undecided or first model, by how much, and what the gate says."""
    sentence = _comparison(evaluation)
    if verdict is None:
        return sentence
    return f"{sentence} {_ruling(verdict)}"


def pictured(evaluation: Evaluation) -> list[JudgedClip]:
    """The clips that the page shows a picture of where there is one, the most interesting first."""
    rows = [
        *disagreements(evaluation.clips),
        *(item.clip for model in ("candidate", "champion") for item in failures(evaluation.clips, model)),
    ]
    return list({clip.clip_id: clip for clip in rows}.values())[:MAX_PICTURES]


def render(
    evaluation: Evaluation, verdict: Verdict, gate: GateParams, pictures: Mapping[str, str] = MappingProxyType({}),
    shadow: ShadowComparison | None = None, drift: Sequence[DriftReport] = (),
) -> str:  # fmt: skip
    """The report as one self-contained HTML page. Every value in it is escaped: a clip's path is hostile.

    `pictures` are `data:` addresses by clip_id, `shadow` what the candidate said of nights in shadow, `drift` the
    newest nights against what the champion was trained on.
    """
    shown = {"pictures": pictures, "shadow": shadow, "shadow_sentence": sentence(shadow) if shadow else ""}
    shown["drift"] = drift_page.section(drift) if drift else ""
    context = _context(evaluation, verdict, gate) | shown
    return page.render("report.html", context, {"figure": _figure, "signed": _signed})


def _ruling(verdict: Verdict) -> str:
    if verdict.mode == "disabled":
        return "The gate is off: nothing was checked and only a person decides."
    if verdict.mode == "dry_run":
        return f"A dry run: the gate would say {verdict.verdict}, and nothing can be released."
    because = ", ".join(check.name for check in verdict.checks if check.outcome == verdict.verdict)
    match verdict.verdict:
        case "pass":
            return "The gate lets it pass; a release needs a person's approval."
        case "refuse":
            return f"The gate refuses it because of: {because}."
        case "undecided":
            return f"The gate cannot decide, so it does not let it pass; open: {because}."


def _comparison(evaluation: Evaluation) -> str:
    own, champion, found = evaluation.candidate, evaluation.champion, evaluation.difference
    where = f"on {counted(len(evaluation.clips), 'clip')} of holdout {evaluation.holdout.version}"
    if champion is None or found is None:
        return (
            f"Candidate {own.version} would be the first champion: F1 {own.metrics.f1:.3f} and recall {own.metrics.recall:.3f} {where}, "
            "with nothing to compare it to."
        )
    if champion.version == own.version:
        return f"Version {own.version} is the champion itself, so there is nothing to compare it to: F1 {own.metrics.f1:.3f} {where}."
    interval = found.interval
    figures = (
        f"F1 {own.metrics.f1:.3f} against {champion.metrics.f1:.3f} ({found.f1:+.3f}, {found.confidence:.0%} interval "
        f"{interval.lower:+.3f} to {interval.upper:+.3f}) {where}."
    )
    names = f"candidate {own.version}", f"champion {champion.version}"
    few = interval.units < policy.MIN_GROUPS
    if interval.lower > 0 and not few:
        return f"C{names[0][1:]} is better than {names[1]}: {figures}"
    if interval.upper < 0:
        return f"C{names[0][1:]} is worse than {names[1]}: {figures}"
    if found.only_candidate_right == found.only_champion_right == 0:
        return f"C{names[0][1:]} gives the same verdicts as {names[1]}, F1 {own.metrics.f1:.3f}, {where}."
    why = f", as fewer than {policy.MIN_GROUPS} source groups cannot carry a comparison" if few else ""
    return f"It is undecided whether {names[0]} is better than {names[1]}{why}: {figures}"


def _context(evaluation: Evaluation, verdict: Verdict, gate: GateParams) -> dict[str, Any]:
    own, champion = evaluation.candidate, evaluation.champion
    lost = {
        model: failures(evaluation.clips, model)
        for model in ("candidate", *(["champion"] if champion else []))
    }  # fmt: skip
    return {
        "evaluation": evaluation,
        "verdict": verdict,
        "gate": gate,
        "headline": _comparison(evaluation),
        "ruling": _ruling(verdict),
        "models": [("candidate", own)] + ([("champion", champion)] if champion else []),
        "metric_rows": [_metric_row(entry, own.metrics, champion.metrics if champion else None) for entry in _METRICS],
        "latency_rows": _latency_rows(evaluation),
        "slice_rows": [(cut, _slice_row(cut, gate.min_slice_clips)) for cut in evaluation.slices],
        "failures": lost,
        "disagreements": [
            (clip, kind_of(clip.label, clip.candidate), kind_of(clip.label, clip.champion))
            for clip in disagreements(evaluation.clips)
            if clip.champion
        ],
        "max_rows": MAX_ROWS,
        "leaks": _leak_rows(evaluation),
        "lineage": _lineage(evaluation),
        "calibration": _calibration(evaluation),
        "thresholds": _thresholds(evaluation),
        "interval": charts.interval_plot(evaluation.difference, gate.min_f1_difference)
        if evaluation.difference
        else None,
        "groups": len({clip.source_group for clip in evaluation.clips}),
    }


def _metric_row(entry: tuple[str, str, int], own: Metrics, champion: Metrics | None) -> Row:
    name, field, direction = entry
    return _row(name, "", getattr(own, field), getattr(champion, field) if champion else None, direction)


def _slice_row(cut: Slice, min_clips: int) -> Row:
    measure = policy.slice_measure(cut, min_clips)
    champion = getattr(cut.champion, measure) if cut.champion else None
    return _row(cut.value, {"f1": "F1", "accuracy": "accuracy"}[measure], getattr(cut.candidate, measure), champion, +1)


def _latency_rows(evaluation: Evaluation) -> list[tuple[str, str, float | None, float | None]]:
    own, champion = evaluation.timings.candidate, evaluation.timings.champion
    fields = (("Median time per clip", "ms", "p50_ms"), ("95th percentile", "ms", "p95_ms"), ("Peak memory meanwhile", "MiB", "peak_memory_mb"))  # fmt: skip
    return [(name, unit, getattr(own, field), getattr(champion, field) if champion else None) for name, unit, field in fields]  # fmt: skip


def _row(name: str, detail: str, own: float | None, champion: float | None, direction: int) -> Row:
    change = None if own is None or champion is None else own - champion
    tone = "" if change is None or abs(change) < _NOTABLE else "better" if change * direction > 0 else "worse"
    return Row(name, detail, own, champion, change, tone)


def _leak_rows(evaluation: Evaluation) -> list[tuple[str, Leakage | None]]:
    rows = [("candidate", evaluation.checks.candidate)]
    return rows + ([("champion", evaluation.checks.champion)] if evaluation.champion else [])


def _lineage(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    own = evaluation.candidate.lineage
    other = evaluation.champion.lineage if evaluation.champion else {}
    keys: Iterable[str] = dict.fromkeys([*own, *other])
    return [(key.replace("_", " "), own.get(key, "–"), other.get(key, "–")) for key in keys]


def _calibration(evaluation: Evaluation) -> str:
    champion = calibration(*arrays(evaluation.clips, "champion")) if evaluation.champion else None
    return charts.calibration_plot(calibration(*arrays(evaluation.clips, "candidate")), champion)


def _thresholds(evaluation: Evaluation) -> str:
    champion = threshold_curve(*arrays(evaluation.clips, "champion")) if evaluation.champion else None
    own = threshold_curve(*arrays(evaluation.clips, "candidate"))
    return charts.threshold_plot(own, champion, evaluation.candidate.threshold)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    if value is None:
        return "–"
    return "0.000" if abs(value) < 5e-4 else f"{value:+.3f}".replace("-", "−")
