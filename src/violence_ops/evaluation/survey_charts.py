"""Charts of a survey as inline SVG. They read in black and white: Fight is solid and dark, NonFight grey, unlabelled an outline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from violence_ops.evaluation.charts import text, wrap
from violence_ops.evaluation.survey import UNLABELLED

Float = NDArray[np.float64]

LABELS: Final = ("Fight", "NonFight", UNLABELLED)
_WIDTH: Final = 408.0
_LEFT, _RIGHT, _TOP, _HEIGHT = 54.0, 10.0, 10.0, 150.0
_BOTTOM: Final = _TOP + _HEIGHT
_NAME: Final = 24
"""Letters of a camera's name that a chart has room for."""


def bars(counts: Sequence[float], names: Sequence[str], x_name: str, y_name: str) -> Markup:
    """A bar for each count, its name below and the count above it."""
    most = max([*counts, 1])
    step = (_WIDTH - _LEFT - _RIGHT) / max(len(counts), 1)
    parts = [_frame(x_name, y_name, most)]
    for number, (count, name) in enumerate(zip(counts, names, strict=True)):
        x, height = _LEFT + number * step, count / most * _HEIGHT
        parts.append(
            f'<rect class="bar" x="{x + step * 0.12:.1f}" y="{_BOTTOM - height:.1f}" width="{step * 0.76:.1f}" height="{height:.1f}"/>'
        )
        parts.append(text(x + step / 2, _BOTTOM + 14, name, "middle"))
    return wrap(parts, _WIDTH, _BOTTOM + 34, f"{y_name} by {x_name}")


def scores(counts: Sequence[int], x_name: str, y_name: str) -> Markup:
    """A histogram over [0, 1], as bars without gaps."""
    most, step = max([*counts, 1]), (_WIDTH - _LEFT - _RIGHT) / len(counts)
    parts = [_frame(x_name, y_name, most), _unit_ticks()]
    for number, count in enumerate(counts):
        height = count / most * _HEIGHT
        parts.append(
            f'<rect class="bar" x="{_LEFT + number * step + 0.5:.1f}" y="{_BOTTOM - height:.1f}" width="{step - 1:.1f}" height="{height:.1f}"/>'
        )
    return wrap(parts, _WIDTH, _BOTTOM + 34, f"{y_name} by {x_name}")


def shares(by_label: Mapping[str, Sequence[float]], x_name: str) -> Markup:
    """For each label, a line with the share of its clips in each bin over [0, 1]."""
    most = max([0.05, *(max(values) for values in by_label.values())])
    parts = [_frame(x_name, "share of the label's clips", most, percent=True), _unit_ticks()]
    for label in LABELS:
        if values := by_label.get(label):
            step = (_WIDTH - _LEFT - _RIGHT) / len(values)
            corners = [(_LEFT, _BOTTOM)]
            for number, value in enumerate(values):
                y = _BOTTOM - value / most * _HEIGHT
                corners += [(_LEFT + number * step, y), (_LEFT + (number + 1) * step, y)]
            corners.append((_WIDTH - _RIGHT, _BOTTOM))
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
            parts.append(f'<polyline class="line {_class(label)}" points="{path}"/>')
    return wrap(parts, _WIDTH, _BOTTOM + 34, f"share of clips by {x_name}")


def heat_map(cells: Float, regions: Float, region_names: Sequence[str], in_regions: Mapping[str, float]) -> Markup:
    """Where persons are, darker for more, with the five regions and the share in each. `cells` `(rows, columns)`."""
    width, height, margin = _WIDTH - 2, (_WIDTH - 2) * 9 / 16, 1.0
    rows, columns = cells.shape
    most = max(float(cells.max()), 1e-9)
    parts = []
    for row, column in zip(*np.nonzero(cells), strict=True):
        # the eye takes ink for share: the root lifts what is rare
        ink = (cells[row, column] / most) ** 0.5
        parts.append(
            f'<rect class="heat" x="{margin + column * width / columns:.1f}" y="{margin + row * height / rows:.1f}"'
            f' width="{width / columns:.1f}" height="{height / rows:.1f}" fill-opacity="{ink:.2f}"/>'
        )
    for box, name in zip(regions, region_names, strict=True):
        left, top, right, bottom = box * (width, height, width, height) + margin
        kind = "region middle" if name == "centre" else "region"
        parts.append(
            f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"/>'
        )
        words = f"{name.replace('_', ' ')} {in_regions[name]:.0%}"
        inside = left + 6 if name != "top_right" and name != "bottom_right" else right - 6
        down = top + 15 if name in ("centre", "top_left", "top_right") else bottom - 7
        anchor = "start" if inside < (left + right) / 2 else "end"
        parts.append(text(inside, down, words, anchor).replace("<text", '<text class="plate"'))
    return wrap(parts, _WIDTH, height + 2 * margin, "Where the top-ranked persons are, with the five regions")


def stacks(rows: Sequence[tuple[str, Mapping[str, int]]]) -> Markup:
    """A bar for each name, made of its clips by label."""
    most = max([1, *(sum(counts.values()) for _, counts in rows)])
    width, left, step = 856.0, 190.0, 22.0
    parts = []
    for number, (name, counts) in enumerate(rows):
        x, y = left, 4 + number * step
        shown = name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
        parts.append(text(left - 8, y + 13, str(escape(shown)), "end"))
        for label in LABELS:
            length = counts.get(label, 0) / most * (width - left - 60)
            if length:
                parts.append(
                    f'<rect class="{_class(label)} stack" x="{x:.1f}" y="{y + 2:.1f}" width="{length:.1f}" height="{step - 8:.1f}"/>'
                )
            x += length
        parts.append(text(x + 6, y + 13, str(sum(counts.values())), "start"))
    return wrap(parts, width, 8 + len(rows) * step, "Clips by label")


def _frame(x_name: str, y_name: str, most: float, *, percent: bool = False) -> str:
    """Grid, the axes' names, and ticks of the upright one from 0 to `most`."""
    step = _tick(most, whole=not percent)
    parts = []
    for number in range(int(most / step + 1e-9) + 1):
        y = _BOTTOM - number * step / most * _HEIGHT
        shown = f"{number * step:.0%}" if percent else f"{number * step:,.0f}"
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text(_LEFT - 6, y + 4, shown, "end"))
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{_BOTTOM}" y2="{_BOTTOM}"/>')
    parts.append(text((_LEFT + _WIDTH - _RIGHT) / 2, _BOTTOM + 30, x_name, "middle"))
    parts.append(
        f'<text transform="translate(9 {_TOP + _HEIGHT / 2:.1f}) rotate(-90)" text-anchor="middle">{y_name}</text>'
    )
    return "".join(parts)


def _tick(most: float, *, whole: bool) -> float:
    """A round step that divides `most` into two to five."""
    size = 10.0 ** np.floor(np.log10(most))
    step = next(size * part for part in (0.2, 0.5, 1.0, 2.0) if most / (size * part) <= 5)
    return float(max(step, 1.0) if whole else step)


def _unit_ticks() -> str:
    places = (_LEFT + number / 5 * (_WIDTH - _LEFT - _RIGHT) for number in range(6))
    return "".join(text(x, _BOTTOM + 14, f"{number / 5:.1f}", "middle") for number, x in enumerate(places))


def _class(label: str) -> str:
    return {"Fight": "fight", "NonFight": "calm"}.get(label, "open")
