"""What was found, drawn over the video: people, their ranks, and the verdicts over time (SPEC 6)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from violence_ops.records import ClipTracks, FloatArray, IntArray
from violence_ops.video import drawing
from violence_ops.video.decode import Frame
from violence_ops.video.drawing import BLACK, GREY, RED, WHITE, YELLOW, Colour
from violence_ops.video.write import VideoWriter

_TOP_COLOURS: Final[tuple[Colour, ...]] = ((40, 140, 255), (255, 190, 60))
"""Of rank 1 and 2, the pair that fights, if one does: orange, light blue."""
_OTHER: Final[Colour] = (185, 175, 165)
_PANEL: Final[Colour] = (30, 27, 26)
_CALM: Final[Colour] = (150, 170, 110)
_SHOWN_SCORE: Final = 0.3
"""Keypoints below this are not drawn."""
_LABEL_SCORE: Final = 0.5
"""The id stands above the topmost keypoint that is surer than this."""
_ALARM: Final = 0.8
"""A Fight that is surer than this turns the frame red."""
_CANVAS: Final = (1280, 720)
"""Small pictures are enlarged as far as they fit into this, so that the words can be read."""
_LARGEST: Final = (1920, 1080)
"""Larger ones are reduced to these sides, the long and the short one: a 4K frame takes four times as long to draw and encode."""


Plate = tuple[int, int, int, int]
"""Left, top, right, bottom of a label, px."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the classifier said of a clip: start, end `(W,)` frames, end exclusive; probability `(W,)` of Fight in each window;
    threshold; and of the whole clip its probability and whether it is a Fight."""

    start: IntArray
    end: IntArray
    probability: FloatArray
    threshold: float
    clip_probability: float
    is_fight: bool

    def at(self, frame: int) -> float | None:
        """Mean probability of the windows over `frame`, or None if there is none."""
        over = self.probability[(self.start <= frame) & (frame < self.end)]
        return float(over.mean()) if len(over) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Regions:
    """boxes `(N, 4)` xyxy in shares of width and height, with a name for each."""

    boxes: NDArray[np.float64]
    names: tuple[str, ...]


class Overlay:
    """Draws one frame after the other. Holds the tracks of the clip, never its frames.

    `size` is width and height of the pictures it makes: the frame, enlarged if it is small and reduced if it is larger than 1080p,
    above a strip with the verdicts.
    """

    def __init__(self, tracks: ClipTracks, judgement: Judgement | None = None, regions: Regions | None = None) -> None:
        self.tracks, self.judgement, self.regions = tracks, judgement, regions
        width, height = max(tracks.width, 1), max(tracks.height, 1)
        enlarged = float(np.clip(min(_CANVAS[0] / width, _CANVAS[1] / height), 1.0, 4.0))
        self.scale = min(enlarged, _LARGEST[0] / max(width, height), _LARGEST[1] / min(width, height))
        self.width, self.height = (round(side * self.scale / 2) * 2 for side in (width, height))
        self.unit = max(1, round(min(self.width, self.height) / 360))
        self.font = max(12, round(self.height / 42))
        self.strip = round(self.height * 0.11 / 2) * 2
        self.size = (self.width, self.height + self.strip)
        self._order = np.argsort(tracks.frame, kind="stable")
        self._frames, starts = np.unique(tracks.frame[self._order], return_index=True)
        self._rows = [*starts.tolist(), len(self._order)]
        self._hold = int(np.diff(self._frames).min()) if len(self._frames) > 1 else 1

    def draw(self, frame: Frame, index: int) -> Frame:
        """Frame `index` of the clip, `(H, W, 3)` uint8 BGR, with everything on it, as a new picture of `size`."""
        canvas = np.full((self.size[1], self.size[0], 3), _PANEL, np.uint8)
        picture = canvas[: self.height]
        smooth = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_CUBIC
        picture[:] = cv2.resize(frame, (self.width, self.height), interpolation=smooth)
        if self.regions:
            self._draw_regions(picture, self.regions)
        self._draw_people(picture, index)
        self._draw_strip(canvas[self.height :], index)
        probability = self.judgement.at(index) if self.judgement else None
        if self.judgement and probability is not None and probability > max(_ALARM, self.judgement.threshold):
            self._draw_alarm(picture, probability)
        return canvas

    def _draw_regions(self, picture: Frame, regions: Regions) -> None:
        for box, name in zip(regions.boxes * np.tile((self.width, self.height), 2), regions.names, strict=True):
            left, top, right, bottom = (int(value) for value in box)
            # always rightwards or downwards, so that the dashes of shared borders fall on one another
            for y in (top, bottom):
                drawing.dashes(picture, (left, y), (right, y), WHITE, 5 * self.unit)
            for x in (left, right):
                drawing.dashes(picture, (x, top), (x, bottom), WHITE, 5 * self.unit)
            words, size = name.replace("_", " "), round(0.8 * self.font)
            # of the quadrants at the outer borders, where they hide fewer people than in the middle
            at_left = name == "centre" or not left
            low = left + size if at_left else right - size - drawing.text_size(words, size)[0]
            base = top + 3 * size // 2 if name == "centre" or top else self.height // 2 - size // 2
            drawing.text(picture, words, (low, base), size, WHITE)

    def _rows_at(self, index: int) -> NDArray[np.intp]:
        """The rows to show at a frame: those of the last sampled frame, the least involved first."""
        place = int(np.searchsorted(self._frames, index, side="right")) - 1
        if place < 0 or index - self._frames[place] >= self._hold:
            return np.zeros(0, np.intp)
        rows = self._order[self._rows[place] : self._rows[place + 1]]
        rank = self.tracks.rank[rows]
        return rows[np.lexsort((self.tracks.track_id[rows], -np.where(rank > 0, rank, 1 << 20)))]

    def _draw_people(self, picture: Frame, index: int) -> None:
        rows = self._rows_at(index)
        for row in rows:
            colour, top = _colour(int(self.tracks.rank[row]))
            thickness = self.unit if self.tracks.interpolated[row] else self.unit + top
            drawing.corners(picture, self.tracks.bboxes[row] * self.scale, colour, thickness)
            keypoints, scores = self.tracks.keypoints[row] * self.scale, self.tracks.keypoint_scores[row]
            drawing.skeleton(picture, keypoints, scores, colour, thickness, _SHOWN_SCORE)
        taken: list[Plate] = []
        for row in rows[::-1]:
            taken.append(self._draw_label(picture, row, taken))

    def _draw_label(self, picture: Frame, row: int, taken: list[Plate]) -> Plate:
        """Id, rank and involvement of a person, moved up until it covers none of the labels that are `taken`."""
        rank = int(self.tracks.rank[row])
        parts: list[tuple[str, Colour, bool]] = [(f"ID {self.tracks.track_id[row]}", YELLOW, True)]
        if rank:
            parts.append((f"#{rank}", _colour(rank)[0], True))
            parts.append((f"{self.tracks.involvement[row]:.2f}", WHITE, False))
        if self.tracks.interpolated[row]:
            parts.append(("filled in", GREY, False))
        size = self.font if 0 < rank <= len(_TOP_COLOURS) else round(0.8 * self.font)
        sure = self.tracks.keypoint_scores[row] > _LABEL_SCORE
        bbox = self.tracks.bboxes[row]
        points = self.tracks.keypoints[row][sure]
        x, y = points[points[:, 1].argmin()] if len(points) else ((bbox[0] + bbox[2]) / 2, bbox[1])
        width, height = drawing.plate_size(parts, size)
        corner = np.nan_to_num(np.array([x, y]) * self.scale) - (width / 2, height + 6 * self.unit)
        low = np.clip(corner, 0, np.maximum((self.width - width, self.height - height), 0)).astype(int).tolist()
        place: Plate = (low[0], low[1], low[0] + width, low[1] + height)
        while place[1] > 0 and (other := next((plate for plate in taken if _cover(place, plate)), None)):
            top = max(other[1] - height - 1, 0)
            place = (place[0], top, place[2], top + height)
        drawing.plate(picture, place[:2], parts, size)
        return place

    def _draw_alarm(self, picture: Frame, probability: float) -> None:
        border = 4 * self.unit
        cv2.rectangle(picture, (0, 0), (self.width - 1, self.height - 1), RED, 2 * border)
        words, size = f"WARNING   Fight {probability:.0%}", round(1.25 * self.font)
        width, height = drawing.text_size(words, size, bold=True)
        low = (self.width // 2 - width // 2 - size, 0)
        cv2.rectangle(picture, low, (low[0] + width + 2 * size, height + 2 * size), RED, cv2.FILLED)
        drawing.text(picture, words, (low[0] + size, height + size), size, WHITE, bold=True)

    def _draw_strip(self, strip: Frame, index: int) -> None:
        """Below the picture: what is the same for every frame, the clock on the right and the playhead."""
        strip[:] = self._time_line
        tracks, fps = self.tracks, self.tracks.fps or 1.0
        clock = f"{index / fps:.1f} / {tracks.frame_count / fps:.1f} s"
        width, letter = drawing.text_size(clock, self.font)
        at = (self.width - self.font - width, self.strip // 2 + letter // 2)
        drawing.text(strip, clock, at, self.font, GREY)
        (left, right), (low, high) = self._bar
        playhead = left + round((right - left) * min(index / max(tracks.frame_count - 1, 1), 1.0))
        cv2.line(strip, (playhead, high - 3), (playhead, low + 3), WHITE, self.unit)

    @cached_property
    def _bar(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Left and right end, bottom and top of the time line, px in the strip: beside it there is room for the clip's longest clock."""
        digits = max(2, len(f"{self.tracks.frame_count / (self.tracks.fps or 1.0):.1f}") - 2)
        longest = f"{'0' * digits}.0 / {'0' * digits}.0 s"
        right = self.width - 2 * self.font - drawing.text_size(longest, self.font)[0]
        return (round(0.2 * self.width), right), (round(0.82 * self.strip), round(0.18 * self.strip))

    @cached_property
    def _time_line(self) -> Frame:
        """The strip without clock and playhead: the verdict on the left, the windows over time beside it. Drawn once, as it costs
        a look at every window for each of its columns."""
        strip = np.full((self.strip, self.width, 3), _PANEL, np.uint8)
        words, colour = _verdict(self.judgement)
        letter = drawing.text_size(words, self.font)[1]
        drawing.text(strip, words, (self.font, self.strip // 2 + letter // 2), self.font, colour, bold=True)
        (left, right), (low, high) = self._bar
        cv2.rectangle(strip, (left, high), (right, low), BLACK, cv2.FILLED)
        if self.judgement:
            self._draw_windows(strip, self.judgement, (left, right), (low, high))
        return strip

    def _draw_windows(
        self, strip: Frame, judgement: Judgement, sides: tuple[int, int], levels: tuple[int, int]
    ) -> None:
        """A column for every pixel of the time line, as high as the probability there, and the threshold across."""
        (left, right), (low, high) = sides, levels
        times = np.arange(left, right)
        frames = (times - left) * self.tracks.frame_count // max(right - left, 1)
        known = {frame: judgement.at(int(frame)) for frame in np.unique(frames)}
        for x, frame in zip(times, frames, strict=True):
            probability = known[frame]
            if probability is not None:
                colour = RED if probability > judgement.threshold else _CALM
                strip[round(low - (low - high) * probability) : low, x] = colour
        level = round(low - (low - high) * judgement.threshold)
        drawing.dashes(strip, (left, level), (right, level), GREY, 3 * self.unit)


def frame_image(
    frame: Frame, index: int, tracks: ClipTracks, judgement: Judgement | None = None, regions: Regions | None = None
) -> Frame:
    """One annotated frame, `(H, W, 3)` uint8 BGR."""
    return Overlay(tracks, judgement, regions).draw(frame, index)


def write(frames: Iterable[Frame], path: Path, overlay: Overlay, comment: str | None = None) -> tuple[str, int]:
    """Draw over every frame of a clip, one at a time, into a video at `path`; returns the codec and the number of frames.

    Raises as VideoWriter does.
    """
    width, height = overlay.size
    index = -1
    with VideoWriter(path, width=width, height=height, fps=overlay.tracks.fps or 1.0, comment=comment) as video:
        for index, frame in enumerate(frames):
            video.write(overlay.draw(frame, index))
        return video.codec, index + 1


def _cover(one: Plate, other: Plate) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _colour(rank: int) -> tuple[Colour, bool]:
    """The colour of a rank, and whether it is one of the top ones."""
    top = 0 < rank <= len(_TOP_COLOURS)
    return (_TOP_COLOURS[rank - 1] if top else _OTHER), top


def _verdict(judgement: Judgement | None) -> tuple[str, Colour]:
    if judgement is None:
        return "not judged yet", GREY
    name, colour = ("Fight", RED) if judgement.is_fight else ("NonFight", _CALM)
    return f"{name}  {judgement.clip_probability:.2f}", colour
