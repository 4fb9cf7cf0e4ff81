"""The traits by which the holdout is cut into slices, so that a gain on average cannot hide a loss somewhere."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from violence_ops.evaluation.metrics import BoolArray, confusion
from violence_ops.evaluation.records import JudgedClip, Slice
from violence_ops.evaluation.scene import persons_at_once
from violence_ops.records import ClipRecord, ClipTracks

UNKNOWN: Final = "unknown"
"""The slice of clips of which nobody has said what the dimension asks."""
DIMENSIONS: Final = ("camera", "resolution", "crowd", "darkness")
_HEIGHTS: Final = ((288, 480, 720), ("under 288 lines", "288 to 479 lines", "480 to 719 lines", "720 lines and more"))
NOBODY: Final = "nobody found"
"""The value of `crowd` for clips without a person."""
_CROWDS: Final = ((1, 2, 3, 6), (NOBODY, "1 person", "2 persons", "3 to 5 persons", "6 persons and more"))
_LUMAS: Final = ((50.0, 100.0), ("dark", "dim", "bright"))
"""Mean luma of the clip's frames, 0 to 255."""


def slices_of(clip: ClipRecord, tracks: ClipTracks) -> dict[str, str]:
    """Which slice of each dimension a clip belongs to."""
    return {
        "camera": clip.camera_id or UNKNOWN,
        "resolution": _bin(clip.height, *_HEIGHTS),
        "crowd": _bin(persons_at_once(tracks.frame), *_CROWDS),
        "darkness": _bin(clip.brightness, *_LUMAS),
    }


def cut(clips: Iterable[JudgedClip]) -> tuple[Slice, ...]:
    """Count both models' results in every slice that has a clip, ordered by dimension and value."""
    members: dict[tuple[str, str], list[JudgedClip]] = defaultdict(list)
    for clip in clips:
        for dimension, value in clip.slices.items():
            members[dimension, value].append(clip)
    return tuple(
        _slice(dimension, value, members[dimension, value]) for dimension, value in sorted(members, key=_order)
    )


def _slice(dimension: str, value: str, clips: list[JudgedClip]) -> Slice:
    labels = np.array([clip.label == "Fight" for clip in clips])
    candidate = np.array([clip.candidate.verdict == "Fight" for clip in clips])
    champion = np.array([clip.champion.verdict == "Fight" for clip in clips if clip.champion], bool)
    counted: dict[str, Any] = {"candidate": confusion(labels, candidate), "champion": None}
    if len(champion):
        counted |= _compared(labels, candidate, champion, [clip.source_group for clip in clips])
    return Slice(dimension=dimension, value=value, **counted)


def _compared(labels: BoolArray, candidate: BoolArray, champion: BoolArray, groups: list[str]) -> dict[str, Any]:
    won, lost = (candidate == labels) & (champion != labels), (candidate != labels) & (champion == labels)
    return {
        "champion": confusion(labels, champion),
        "only_candidate_right": int(won.sum()), "only_champion_right": int(lost.sum()),
        "only_candidate_finds": int((won & labels).sum()), "only_champion_finds": int((lost & labels).sum()),
        "losing_groups": len({group for group, is_lost in zip(groups, lost, strict=True) if is_lost}),
    }  # fmt: skip


def _order(key: tuple[str, str]) -> tuple[int, int, str]:
    dimension, value = key
    names = {"resolution": _HEIGHTS[1], "crowd": _CROWDS[1], "darkness": _LUMAS[1]}.get(dimension, ())
    return DIMENSIONS.index(dimension), names.index(value) if value in names else 0, value


def _bin(value: float | None, edges: tuple[float, ...], names: tuple[str, ...]) -> str:
    return UNKNOWN if value is None else names[bisect_right(edges, value)]
