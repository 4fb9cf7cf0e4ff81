"""A picture that explains a ranking: the best frame, and what each component adds to the involvement of the top tracks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from violence_ops.records import ClipTracks
from violence_ops.video.decode import Frame
from violence_ops.video.overlay import Judgement

_COLOURS: Final = {
    "position": "#4e79a7", "movement": "#f28e2b", "interaction": "#e15759", "detection": "#76b7b2", "consistency": "#b6b6ba",
    "persistence": "#59a14f", "closeness": "#b07aa1", "contact": "#9c755f", "limbs": "#edc948", "partner": "#ff9da7",
}  # fmt: skip
_SHOWN: Final = 12


@dataclass(frozen=True, slots=True)
class Bar:
    """One track: its name, and what each component (one of `records.COMPONENTS`) adds to its involvement."""

    name: str
    parts: Mapping[str, float]


def best_frame(tracks: ClipTracks, judgement: Judgement | None = None, within: tuple[int, int] | None = None) -> int:
    """The frame that shows the two top-ranked tracks most surely, inside the window of the highest probability if there is one.

    Of the frames and windows `within` these frames, the end exclusive, as far as somebody is there. 0 for a clip without tracks.
    """
    if not len(tracks):
        return 0
    frames, place = np.unique(tracks.frame, return_inverse=True)
    top = (tracks.rank >= 1) & (tracks.rank <= 2)
    worth = np.bincount(place, tracks.scores * np.where(top, 1.0, 0.01), len(frames))
    first, end = within or (0, tracks.frame_count)
    worth = worth + 100.0 * ((frames >= first) & (frames < end))
    if judgement is not None and len(judgement.probability):
        inside = (judgement.start >= first) & (judgement.start < end)
        window = int(np.where(inside, judgement.probability, -1.0).argmax())
        worth += 10.0 * ((frames >= judgement.start[window]) & (frames < judgement.end[window]))
    return int(frames[worth.argmax()])


def write(path: Path, picture: Frame, bars: Sequence[Bar], title: str) -> None:
    """Write the frame `(H, W, 3)` BGR, and the first bars stacked by component beside it, as a PNG at `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 6.2), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.55, 1))
    left.imshow(picture[..., ::-1], interpolation="lanczos")
    left.set_axis_off()
    left.set_title(title, loc="left", fontsize=11)
    _draw_bars(right, bars[:_SHOWN], len(bars) - _SHOWN)
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})


def _draw_bars(axes: Any, bars: Sequence[Bar], more: int) -> None:
    ends = np.zeros(len(bars))
    places = np.arange(len(bars))
    for component in bars[0].parts if bars else ():
        widths = np.array([bar.parts[component] for bar in bars])
        axes.barh(places, widths, 0.62, left=ends, color=_COLOURS[component], label=component)
        ends += widths
    for place, end in zip(places, ends, strict=True):
        axes.text(end + 0.012, place, f"{end:.2f}", va="center", fontsize=10)
    axes.set_yticks(places, [bar.name for bar in bars])
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    left_out = f"; {more} more tracks are in the table" if more > 0 else ""
    axes.set_xlabel(f"involvement, by component{left_out}")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e4e4e6", linewidth=0.8)
    axes.set_axisbelow(True)
    if bars:
        axes.legend(
            ncols=5, frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2,
            columnspacing=1.2, handlelength=1.2,
        )  # fmt: skip
    else:
        axes.text(0.5, 0.5, "nobody was followed in this clip", ha="center", transform=axes.transAxes)
