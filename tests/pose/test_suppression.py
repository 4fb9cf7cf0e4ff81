"""Suppression leaves one answer per person: two who hold each other stay, and of doubles the strongest does."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from violence_ops.pose.suppression import distinct
from violence_ops.records import FramePoses

DISTANCE = 0.25
LIMBS = [7, 8, 9, 10, 13, 14, 15, 16]


def figures(middles: list[tuple[float, float]], height: float = 100.0) -> FramePoses:
    """Upright figures around these middles, strongest first."""
    places = np.array(middles, np.float32).reshape(-1, 2)
    half = np.array([0.2, 0.5], np.float32) * height
    shape = np.random.default_rng(0).uniform(-1, 1, (17, 2)).astype(np.float32)
    return FramePoses(
        keypoints=places[:, None] + 0.8 * half * shape,
        keypoint_scores=np.full((len(places), 17), 0.8, np.float32),
        bboxes=np.concatenate([places - half, places + half], axis=1),
        scores=np.linspace(0.9, 0.3, len(places), dtype=np.float32),
    )


anybody = st.lists(st.tuples(st.floats(0, 200), st.floats(0, 200)), max_size=12).map(figures)


def people(found: FramePoses, distance: float = DISTANCE) -> FramePoses:
    """Those who are left of `found`."""
    kept = distinct(found.keypoints, found.bboxes, distance)
    return FramePoses(found.keypoints[kept], found.keypoint_scores[kept], found.bboxes[kept], found.scores[kept])


def middles(found: FramePoses) -> list[list[float]]:
    return found.bboxes.round(3).tolist()


def test_two_answers_for_one_person_become_one_though_their_limbs_differ() -> None:
    twice = figures([(100, 100), (102, 101)])
    twice.keypoints[1, LIMBS] += 30
    assert middles(people(twice)) == middles(twice)[:1]


def test_two_who_share_a_box_but_not_a_trunk_stay_two() -> None:
    couple = figures([(100, 100), (100, 100)])
    couple.keypoints[1] += (25, 10)
    assert len(people(couple)) == 2


@given(anybody)
def test_without_a_distance_everybody_stays(found: FramePoses) -> None:
    assert middles(people(found, 0.0)) == middles(found)


@given(anybody, st.floats(0.01, 1))
def test_the_strongest_stays_and_everybody_who_goes_is_near_a_stronger_one_who_stays(
    found: FramePoses, distance: float
) -> None:
    left = people(found, distance)
    assert middles(left)[:1] == middles(found)[:1]
    assert (np.diff(left.scores) <= 0).all()
    kept = np.isin(found.scores, left.scores)
    reach = distance * np.sqrt(0.53 * 40 * 100)
    for index in np.flatnonzero(~kept):
        stronger = found.bboxes[:index][kept[:index], :2]
        assert np.linalg.norm(stronger - found.bboxes[index, :2], axis=1).min() < reach + 1e-2


@given(anybody, st.floats(0.01, 1))
def test_suppressing_twice_is_suppressing_once(found: FramePoses, distance: float) -> None:
    once = people(found, distance)
    assert middles(people(once, distance)) == middles(once)


@given(anybody, st.sampled_from([0.25, 0.5, 2.0, 4.0]))
def test_the_size_of_the_picture_does_not_matter(found: FramePoses, factor: float) -> None:
    scaled = FramePoses(found.keypoints * factor, found.keypoint_scores, found.bboxes * factor, found.scores)
    assert np.array_equal(people(scaled).scores, people(found).scores)


@given(anybody)
def test_a_picture_turned_around_has_the_same_people(found: FramePoses) -> None:
    turned = FramePoses(-found.keypoints, found.keypoint_scores, -found.bboxes[:, [2, 3, 0, 1]], found.scores)
    assert np.array_equal(people(turned).scores, people(found).scores)
