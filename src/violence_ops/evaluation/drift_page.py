"""Drift as a page, and as a part of another page: nights in columns, quantities in rows, the newest night in full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from markupsafe import Markup

from violence_ops.evaluation import page
from violence_ops.evaluation.drift import QUANTITIES, DriftReport, Shift
from violence_ops.wording import counted

_WIDTH: Final = 260.0
_TONES: Final = {"drift": "worse", "stable": "better", "too few clips": ""}


def section(nights: Sequence[DriftReport]) -> Markup:
    """A `<section>` about these nights, oldest first, to be put into a page; it brings its own style, under the class `drift`.

    With no night it says so. Every value is escaped.
    """
    return Markup(page.render("drift.html", _context(nights), {}))


def render(nights: Sequence[DriftReport], workspace: str) -> str:
    """The same, of at least one night, as one self-contained HTML page that names the workspace."""
    dates = " to ".join(dict.fromkeys((nights[0].night, nights[-1].night)))
    shown = f"{counted(len(nights), 'batch', 'batches')}, {dates}"
    context = {"section": section(nights), "workspace": workspace, "version": nights[-1].model_version, "nights": shown}
    return page.render("drift_page.html", context, {})


def box_plot(shift: Shift) -> Markup:
    """SVG of a quantity: quantiles of the reference (upper, grey) above those of the night, on one scale."""
    low, high = min(shift.reference[0], shift.night[0]), max(shift.reference[-1], shift.night[-1])
    scale = _WIDTH / ((high - low) or 1.0)
    bars = []
    for top, name, quantiles in ((4, "reference", shift.reference), (18, "night", shift.night)):
        q05, q25, q50, q75, q95 = ((value - low) * scale for value in quantiles)
        bars.append(
            f'<g class="{name}"><line x1="{q05:.1f}" x2="{q95:.1f}" y1="{top + 5}" y2="{top + 5}"/>'
            f'<rect x="{q25:.1f}" width="{max(q75 - q25, 1):.1f}" y="{top}" height="10"/>'
            f'<line class="median" x1="{q50:.1f}" x2="{q50:.1f}" y1="{top}" y2="{top + 10}"/></g>'
        )
    label = f"5, 25, 50, 75 and 95 % of {QUANTITIES[shift.quantity]}: reference above, night below"
    return Markup(f'<svg viewBox="-2 0 {_WIDTH + 4:.0f} 32" role="img" aria-label="{label}">{"".join(bars)}</svg>')


def _context(nights: Sequence[DriftReport]) -> dict[str, Any]:
    return {"nights": list(nights), "quantities": QUANTITIES, "tones": _TONES, "tone": _tone, "box_plot": box_plot}


def _tone(night: DriftReport) -> str:
    """That of its verdict, but a night is not good of which some quantities could not be judged."""
    is_whole = night.judged == len(night.shifts)
    return _TONES[night.verdict] if is_whole or night.verdict == "drift" else ""
