"""What a survey counts, asked of clips whose facts are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from violence_ops.evaluation import survey_page
from violence_ops.evaluation.survey import ClipSurvey, Survey, histogram, of_clip

REGIONS = np.array([[0.25, 0.25, 0.75, 0.75], [0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]])
NAMES = ("centre", "top_left", "top_right", "bottom_left", "bottom_right")


def survey(crowd: int = 3) -> Survey:
    return Survey(crowd=crowd, regions=REGIONS, region_names=NAMES)


def clip(
    persons: list[int], *, box: tuple[float, float, float, float] = (10, 10, 30, 30), ranks: int = 2
) -> ClipSurvey:
    """A clip of 100 x 100 px at 10 frames/s with so many persons in each frame, who are one track each."""
    frame = np.repeat(np.arange(len(persons), dtype=np.int32), persons)
    track = np.concatenate([np.arange(1, n + 1, dtype=np.int32) for n in persons] or [np.zeros(0, np.int32)]).astype(
        np.int32
    )
    return of_clip(
        frames=len(persons), fps=10.0, size=(100, 100), scores=np.full(len(frame), 0.5),
        keypoint_scores=np.full((len(frame), 17), 0.25), frame=frame, bboxes=np.tile(np.array(box, float), (len(frame), 1)),
        track_id=track, rank=np.where(track <= ranks, track, 0), involvement=0.8 - track / 10,
    )  # fmt: skip


def add(to: Survey, name: str, added: ClipSurvey, **facts: Any) -> None:
    to.add(name, added, **({"label": "Fight", "camera": "door", "source": "s", "seconds": 1.0} | facts))


def test_a_clips_facts() -> None:
    found = clip([2, 0, 3, 1])
    assert (found.frames, found.with_person, found.most, found.ranked) == (4, 3, 3, 2)
    np.testing.assert_allclose(np.sort(found.lengths), [0.1, 0.3, 0.4])  # frames 2; 0 to 2; 0 to 3
    np.testing.assert_allclose(found.involvement, [0.7, 0.6])
    assert found.places.shape == (5, 2)
    np.testing.assert_allclose(found.places, 0.2)


def test_a_clip_of_nobody_is_counted_and_listed() -> None:
    found = survey()
    add(found, "a", clip([0, 0]))
    content = found.to_dict()
    assert content["nobody"] == 1
    assert content["clips_with"] == {"nobody": {"a": "Fight"}, "one person": {}, "crowd": {}, "nobody ranked": {}}
    assert content["mean_score"] is None
    assert content["median_involvement"] is None
    assert content["clips_by_share_of_frames_with_person"][0] == 1


@pytest.mark.parametrize(
    ("persons", "ranks", "lists"),
    [
        ([1, 0, 1], 2, ["one person"]), ([2, 2], 2, []), ([3, 0], 2, ["crowd"]), ([1, 1], 0, ["one person", "nobody ranked"]),
        ([4], 0, ["crowd", "nobody ranked"]),
    ],
    ids=["one", "two", "crowd", "one unranked", "crowd unranked"],
)  # fmt: skip
def test_which_clips_want_a_look(persons: list[int], ranks: int, lists: list[str]) -> None:
    found = survey()
    add(found, "a", clip(persons, ranks=ranks))
    assert [kind for kind, clips in found.notable.items() if clips] == lists


def test_every_clip_counts_alike_in_the_regions() -> None:
    found = survey()
    add(found, "long", clip([1] * 90, box=(0, 0, 20, 20)))
    add(found, "short", clip([1], box=(60, 60, 80, 80)), label=None)
    assert found.region_shares() == {
        "centre": 0.5, "top_left": 0.5, "top_right": 0.0, "bottom_left": 0.0, "bottom_right": 0.5,
    }  # fmt: skip
    assert found.region_shares("unlabelled")["bottom_right"] == 1.0
    assert found.heat["Fight"].sum() == pytest.approx(1.0)


def test_parts_by_label_camera_and_source_add_up() -> None:
    found = survey()
    for number in range(12):
        facts = {
            "label": ("Fight", "NonFight", None)[number % 3],
            "camera": ("door", None)[number % 2],
            "source": f"s{number % 4}",
        }
        add(found, str(number), clip([number % 5] * 3), **facts)
    for parts in (found.by_label, found.by_camera, found.by_source):
        assert sum(part.clips for part in parts.values()) == 12
        assert sum(part.rows for part in parts.values()) == found.everything.rows
    assert set(found.by_camera) == {"door", "unknown"}
    assert found.to_dict()["median_persons"] == float(np.median([number % 5 for number in range(12)]))


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=40))
def test_a_histogram_counts_every_number_once(values: list[float]) -> None:
    assert histogram(values).sum() == sum(np.isfinite(values))


@pytest.mark.parametrize("clips", [0, 1, 200])
def test_the_page_is_self_contained_and_escapes_names(clips: int) -> None:
    found = survey()
    for number in range(clips):
        facts = {"camera": f'<script>"{number}"</script>', "source": f"<b>{number}</b>"}
        add(found, f"{number:020x}", clip([number % 4] * 5), **facts)
    notes = dict.fromkeys(found.notable, "why & what")
    batch = {
        "batch_id": "2026-01-01-00000000",
        "night": "2026-01-01",
        "state": "sealed",
        "clips": clips,
        "weights": "<i>",
    }
    page = survey_page.render(found, [batch], notes)
    assert "<script" not in page
    assert "<b>" not in page
    assert "http" not in page.split("<body>")[1]
    assert "src=" not in page
    assert "url(" not in page
    assert "nan" not in page.split("<body>")[1]
    if clips > survey_page.MAX_ROWS:
        assert "160 more cameras" in page
