"""The page of a survey: what is in the annotations, for a person to look through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from violence_ops.evaluation import page
from violence_ops.evaluation import survey_charts as charts
from violence_ops.evaluation.survey import LENGTH_EDGES, Part, Survey, histogram

MAX_ROWS: Final = 40
"""Cameras and sources that the page shows, those with most clips; the JSON has all."""
MAX_CLIPS: Final = 60
"""Clips of a list."""
_PERSON_BINS: Final = ((0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 7), (8, 10), (11, 20), (21, 10**9))


def render(survey: Survey, batches: Sequence[Mapping[str, Any]], clip_notes: Mapping[str, str]) -> str:
    """One self-contained HTML page. `batches` has batch_id, night, state, clips and weights of each; `clip_notes` says of
    each list of clips why it wants a look."""
    everything = survey.everything
    parts = [("all", everything), *((name, survey.by_label[name]) for name in charts.LABELS if name in survey.by_label)]
    context = {
        "all": everything.summary(),
        "batches": batches,
        "parts": [(name, part.summary()) for name, part in parts],
        "cameras": _rows(survey.by_camera),
        "sources": _rows(survey.by_source),
        "hidden_cameras": max(0, len(survey.by_camera) - MAX_ROWS),
        "hidden_sources": max(0, len(survey.by_source) - MAX_ROWS),
        "crowd_from": survey.crowd,
        "charts": _charts(survey),
        "heat": _heat(survey),
        "notable": [
            (kind, list(clips.items())[:MAX_CLIPS], len(clips), clip_notes[kind])
            for kind, clips in survey.notable.items()
        ],
        "max_clips": MAX_CLIPS,
    }
    return page.render("survey.html", context, {"share": _share, "figure": _figure, "duration": _duration})


def _charts(survey: Survey) -> dict[str, Markup]:
    lengths = [f"< {edge:g}" if edge != LENGTH_EDGES[-1] else f"≥ {LENGTH_EDGES[-2]:g}" for edge in LENGTH_EDGES[1:]]
    presence = ["0", *(f"< {tenth * 10}" for tenth in range(1, 10)), "≤ 100"]
    involvement = {
        label: (histogram(part.involvement).reshape(-1, 2).sum(axis=1) / len(part.involvement)).tolist()
        for label, part in survey.by_label.items()
        if part.involvement
    }
    return {
        "persons": charts.bars(*_binned(survey.everything.persons), "most persons in one frame", "clips"),
        "tracks": charts.bars(*_binned(survey.tracks), "tracks", "clips"),
        "lengths": charts.bars(survey.lengths.tolist(), lengths, "length of a track, s", "tracks"),
        "presence": charts.bars(survey.presence.tolist(), presence, "share of frames with a person, %", "clips"),
        "scores": charts.scores(survey.scores.tolist(), "score of a person in a frame", "persons"),
        "keypoints": charts.scores(survey.keypoint_scores.tolist(), "mean score of the 17 joints", "persons"),
        "involvement": charts.shares(involvement, "involvement of the first-ranked person"),
        "cameras": charts.stacks([(name, part["labels"]) for name, part in _rows(survey.by_camera)]),
    }


def _heat(survey: Survey) -> list[tuple[str, int, Markup]]:
    """For each label: its name, how many clips have ranked persons, and the heat map."""
    return [
        (
            label,
            survey.placed[label],
            charts.heat_map(survey.heat[label], survey.regions, survey.region_names, survey.region_shares(label)),
        )
        for label in charts.LABELS
        if survey.placed[label]
    ]


def _rows(parts: Mapping[str, Part]) -> list[tuple[str, dict[str, Any]]]:
    """Name and figures, most clips first."""
    order = sorted(parts.items(), key=lambda item: (-item[1].clips, item[0]))
    return [(name, part.summary()) for name, part in order[:MAX_ROWS]]


def _binned(counts: Counter[int]) -> tuple[list[int], list[str]]:
    values = [sum(count for value, count in counts.items() if low <= value <= high) for low, high in _PERSON_BINS]
    names = [
        str(low) if low == high else f"{low}–{high}" if high < 10**9 else f"> {low - 1}" for low, high in _PERSON_BINS
    ]
    return values, names


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}".replace("100.0%", "100%")


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:.1f} min" if hours >= 1 / 60 else f"{hours * 3600:.0f} s"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
