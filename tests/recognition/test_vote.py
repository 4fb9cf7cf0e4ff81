"""The vote over windows and the choice of the threshold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from violence_ops.recognition import vote

shares = st.floats(0, 1, width=32)


@given(st.lists(st.tuples(shares, shares), min_size=1, max_size=20))
def test_the_vote_lies_between_the_windows_and_more_fight_never_lowers_it(pairs: list[tuple[float, float]]) -> None:
    p, weights = np.array(pairs, np.float64).T
    found = vote.clip_probability(p, weights)
    if weights.sum() > 0:
        assert p[weights > 0].min() - 1e-6 <= found <= p[weights > 0].max() + 1e-6
        assert vote.clip_probability(np.minimum(p + 0.1, 1), weights) >= found - 1e-9
    else:
        assert found == 0


def test_a_sure_window_counts_more_than_an_unsure_one_and_an_empty_one_not_at_all() -> None:
    p = np.array([1.0, 0.4])
    assert vote.clip_probability(p, vote.confidences(p, np.ones(2))) == pytest.approx((1.0 + 0.4 * 0.6) / 1.6)
    assert vote.clip_probability(p, vote.confidences(p, np.array([0.0, 1.0]))) == pytest.approx(0.4)


@given(shares, shares)
def test_confidence_is_a_half_at_the_threshold_and_whole_at_the_ends(probability: float, threshold: float) -> None:
    found = vote.confidence(probability, threshold)
    assert 0.5 <= found <= 1
    assert vote.confidence(threshold, threshold) == 0.5
    assert threshold in (0, 1) or vote.confidence(0, threshold) == vote.confidence(1, threshold) == 1
    assert vote.confidence(probability, 0.5) == pytest.approx(max(probability, 1 - probability))


def test_f1_precision_and_recall_by_hand() -> None:
    found = vote.scores_at(0.5, np.array([0.9, 0.6, 0.5, 0.1]), np.array([True, False, True, True]))
    assert (found.precision, found.recall) == (0.5, pytest.approx(1 / 3))
    assert found.f1 == pytest.approx(0.4)
    assert found.accuracy == 0.25


def test_cross_entropy_by_hand_is_finite_even_of_a_sure_mistake() -> None:
    sure, half = vote.cross_entropy(np.array([1.0]), np.array([False])), np.array([0.5, 0.5])
    assert sure == pytest.approx(-np.log(1e-6))
    assert vote.cross_entropy(half, np.array([True, False])) == pytest.approx(np.log(2))


def test_without_fights_nothing_divides_by_zero() -> None:
    found = vote.scores_at(0.5, np.array([0.1, 0.2]), np.array([False, False]))
    assert (found.f1, found.precision, found.recall, found.accuracy) == (0, 0, 0, 1)


def test_the_grid_of_thresholds_is_specs() -> None:
    scores = vote.sweep(np.array([0.1, 0.2, 0.9]), np.array([False, False, True]))
    assert [one.threshold for one in scores] == [0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7]


def test_of_thresholds_that_are_not_surely_worse_the_nearest_to_a_half_is_taken() -> None:
    few = np.array([0.1, 0.36, 0.9]), np.array([False, True, True])
    assert vote.chosen(*few).threshold == 0.5  # three clips tell nothing
    many = np.tile(few[0], 100), np.tile(few[1], 100)
    assert vote.chosen(*many).threshold == 0.35  # a hundred times as many do
    assert vote.chosen(*many).f1 == 1.0
    assert vote.chosen(np.zeros(0), np.zeros(0, bool)).threshold == 0.5


@given(st.lists(st.tuples(shares, st.booleans()), min_size=1, max_size=30))
def test_the_threshold_is_of_the_grid_and_the_scores_are_its_own(clips: list[tuple[float, bool]]) -> None:
    probabilities, fights = (np.array(column) for column in zip(*clips, strict=True))
    found = vote.chosen(probabilities, fights)
    assert found.threshold in vote.THRESHOLDS
    assert found == vote.scores_at(found.threshold, probabilities, fights)


@given(st.lists(st.tuples(shares, shares), min_size=2, max_size=30), st.data())
def test_the_votes_of_the_pieces_are_those_of_their_windows_alone(
    pairs: list[tuple[float, float]], data: st.DataObject
) -> None:
    p, weights = np.array(pairs, np.float64).T
    windows = np.array([(10 * i, 10 * i + 10) for i in range(len(p))])
    inner = sorted(data.draw(st.sets(st.integers(1, len(p) - 1), min_size=1)))
    found = vote.pieces(np.array([0, *inner]) * 10, windows, p, weights)
    assert [(piece.start_frame, piece.end_frame) for piece in found] == list(
        zip([0, *(10 * i for i in inner)], [*(10 * i for i in inner), 10 * len(p)], strict=True)
    )
    for piece in found:
        rows = slice(piece.start_frame // 10, piece.end_frame // 10)
        assert piece.probability == vote.clip_probability(p[rows], weights[rows])


def test_a_short_clip_is_no_pieces() -> None:
    assert vote.pieces(np.array([0]), np.array([(0, 30), (10, 40)]), np.array([0.2, 0.9]), np.ones(2)) == []
