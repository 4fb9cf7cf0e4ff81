"""The report's charts as inline SVG. They read in black and white: the candidate is solid and dark, the champion dashed and grey."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from markupsafe import Markup

from violence_ops.evaluation.metrics import CalibrationBin, ThresholdPoint
from violence_ops.evaluation.records import Difference

_SIDE: Final = 300.0
_LEFT, _TOP, _PLOT = 40.0, 12.0, 240.0


def calibration_plot(candidate: Sequence[CalibrationBin], champion: Sequence[CalibrationBin] | None) -> Markup:
    """Share of Fights over the mean predicted probability; a dot's area is the number of clips in its bin."""
    parts = [_axes("predicted probability of Fight", "share that are Fights"), _line([(0, 0), (1, 1)], "diagonal")]
    for bins, kind in ((champion, "champion"), (candidate, "candidate")):
        if bins:
            largest = max(part.clips for part in bins)
            parts.append(_line([(part.probability, part.fights) for part in bins], kind))
            parts += [_dot(part.probability, part.fights, 2 + 5 * (part.clips / largest) ** 0.5, kind) for part in bins]
    return _svg(parts, "Calibration plot")


def threshold_plot(
    candidate: Sequence[ThresholdPoint], champion: Sequence[ThresholdPoint] | None, threshold: float
) -> Markup:
    """F1, precision and recall of the candidate over the clip threshold, the champion's F1, and the threshold in use."""
    parts = [_axes("clip threshold", "score"), _line([(threshold, 0), (threshold, 1)], "chosen")]
    if champion:
        parts.append(_line([(point.threshold, point.f1) for point in champion], "champion"))
    parts.append(_line([(point.threshold, point.precision) for point in candidate], "thin"))
    parts.append(_line([(point.threshold, point.recall) for point in candidate], "thin dotted"))
    parts.append(_line([(point.threshold, point.f1) for point in candidate], "candidate"))
    return _svg(parts, "Scores over the threshold")


def interval_plot(found: Difference, wanted: float, width: float = 856.0) -> Markup:
    """The F1 difference with its intervals over source groups and over clips, and what the gate wants."""
    ends = [found.by_group.lower, found.by_group.upper, found.by_clip.lower, found.by_clip.upper, found.f1, wanted, 0.0]
    reach = max(0.05, max(abs(end) for end in ends) * 1.15)

    def at(value: float) -> float:
        return width / 2 + value / reach * (width / 2 - 60)

    step = next(size for size in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if reach / size <= 5)
    ticks = [step * number for number in range(-int(reach / step), int(reach / step) + 1)]
    parts = [f'<line class="axis" x1="{at(-reach):.1f}" x2="{at(reach):.1f}" y1="74" y2="74"/>']
    for tick in ticks:
        parts.append(f'<line class="axis" x1="{at(tick):.1f}" x2="{at(tick):.1f}" y1="74" y2="78"/>')
        parts.append(text(at(tick), 91, "0" if abs(tick) < 1e-9 else f"{tick:+.2f}", "middle"))
    parts.append(f'<line class="zero" x1="{at(0):.1f}" x2="{at(0):.1f}" y1="8" y2="74"/>')
    if abs(wanted) > 1e-9:
        parts.append(f'<line class="chosen" x1="{at(wanted):.1f}" x2="{at(wanted):.1f}" y1="8" y2="74"/>')
    for interval, y, kind in ((found.by_group, 28, "candidate"), (found.by_clip, 54, "champion")):
        parts.append(
            f'<line class="{kind}" x1="{at(interval.lower):.1f}" x2="{at(interval.upper):.1f}" y1="{y}" y2="{y}"/>'
        )
        parts += [
            f'<line class="{kind}" x1="{at(end):.1f}" x2="{at(end):.1f}" y1="{y - 5}" y2="{y + 5}"/>'
            for end in (interval.lower, interval.upper)
        ]
        parts.append(f'<circle class="{kind} dot" cx="{at(found.f1):.1f}" cy="{y}" r="4.5"/>')
    parts.append(text(at(-reach), 112, "champion better", "start"))
    parts.append(text(at(reach), 112, "candidate better", "end"))
    return wrap(parts, width, 118, "F1 difference with its interval")


def _axes(x_name: str, y_name: str) -> str:
    parts = []
    for number in range(6):
        value = number / 5
        x, y = _point(value, value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_TOP + _PLOT}"/>')
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_LEFT + _PLOT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text(x, _TOP + _PLOT + 15, f"{value:.1f}", "middle"))
        parts.append(text(_LEFT - 6, y + 4, f"{value:.1f}", "end"))
    parts.append(text(_LEFT + _PLOT / 2, _TOP + _PLOT + 33, x_name, "middle"))
    parts.append(
        f'<text transform="translate(11 {_TOP + _PLOT / 2:.1f}) rotate(-90)" text-anchor="middle">{y_name}</text>'
    )
    return "".join(parts)


def _point(x: float, y: float) -> tuple[float, float]:
    return _LEFT + x * _PLOT, _TOP + (1 - y) * _PLOT


def _line(points: Iterable[tuple[float, float]], kind: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (_point(*point) for point in points))
    return f'<polyline class="{kind}" points="{path}"/>'


def _dot(x: float, y: float, radius: float, kind: str) -> str:
    across, down = _point(x, y)
    return f'<circle class="{kind} dot" cx="{across:.1f}" cy="{down:.1f}" r="{radius:.1f}"/>'


def text(x: float, y: float, content: str, anchor: str) -> str:
    """Words at a point; `content` must be escaped if it comes from a clip."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{content}</text>'


def _svg(parts: Iterable[str], title: str) -> Markup:
    return wrap(parts, _SIDE, _SIDE - 6, title)


def wrap(parts: Iterable[str], width: float, height: float, title: str) -> Markup:
    """Only numbers and fixed words are put in here: nothing of a clip reaches a chart unescaped."""
    return Markup(
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" aria-label="{title}">'
        f"{''.join(parts)}</svg>"
    )
