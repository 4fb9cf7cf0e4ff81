"""OKS, recall and AP behave as COCO's do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from violence_ops.pose.quality import SIGMAS, Judgement, match, measure, oks, overlaps


def _poses(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.uniform(0, 200, (count, 17, 2))


@given(seed=st.integers(0, 1000), count=st.integers(1, 4))
def test_a_perfect_pose_has_similarity_one_and_others_less(seed: int, count: int) -> None:
    true = _poses(np.random.default_rng(seed), count)
    similarity = oks(true, true, np.ones((count, 17), bool), np.full(count, 5000.0))
    assert np.allclose(np.diag(similarity), 1.0)
    assert ((similarity >= 0) & (similarity <= 1)).all()


@given(shift=st.floats(0.1, 40), further=st.floats(1.01, 3))
def test_similarity_falls_with_distance_and_rises_with_size(shift: float, further: float) -> None:
    true = _poses(np.random.default_rng(1), 1)
    labelled = np.ones((1, 17), bool)
    near, far = (oks(true + d, true, labelled, np.array([4000.0]))[0, 0] for d in (shift, shift * further))
    larger = oks(true + shift, true, labelled, np.array([9000.0]))[0, 0]
    assert far <= near <= larger


def test_similarity_matches_the_formula_for_one_joint() -> None:
    true, labelled = np.zeros((1, 17, 2)), np.zeros((1, 17), bool)
    labelled[0, 9] = True
    found = np.zeros((1, 17, 2))
    found[0, 9] = [3.0, 4.0]
    expected = np.exp(-25 / (2 * 900 * (2 * SIGMAS[9]) ** 2))
    assert oks(found, true, labelled, np.array([900.0]))[0, 0] == pytest.approx(expected)


def test_hidden_joints_do_not_count() -> None:
    true = _poses(np.random.default_rng(2), 1)
    found, labelled = true.copy(), np.ones((1, 17), bool)
    found[0, 3] += 500
    labelled[0, 3] = False
    assert oks(found, true, labelled, np.array([4000.0]))[0, 0] == pytest.approx(1.0)


def test_each_true_person_is_found_once_and_the_ignored_are_neither_hit_nor_miss() -> None:
    similarity = np.array([[0.9, 0.1, 0.0], [0.8, 0.1, 0.0], [0.0, 0.0, 0.9]])
    ignored = np.array([False, False, True])
    assert match(similarity, np.array([0.9, 0.8, 0.7]), ignored, 0.5).tolist() == [1, 0, -1]


def _judgement(similarity: list[list[float]], scores: list[float]) -> Judgement:
    table = np.array(similarity, float)
    return Judgement(table, table, np.array(scores), np.zeros(table.shape[1], bool))


def test_perfect_answers_have_ap_one_and_none_have_zero() -> None:
    perfect = measure([_judgement([[1, 0], [0, 1]], [0.9, 0.8])], 0.3)
    assert perfect.average_precision == pytest.approx(1.0)
    assert (perfect.recall_50, perfect.precision_50) == (1.0, 1.0)
    nothing = measure([Judgement(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0), np.zeros(2, bool))], 0.3)
    assert (nothing.average_precision, nothing.recall_50, nothing.persons) == (0.0, 0.0, 2)


def test_a_false_alarm_costs_more_the_stronger_it_is() -> None:
    strong, weak = (
        measure([_judgement([[0, 0], [1, 0], [0, 1]], [score, 0.8, 0.7])], 0.0).average_precision
        for score in (0.9, 0.6)
    )
    assert strong < weak


def test_weak_answers_count_only_below_the_threshold() -> None:
    frames = [_judgement([[1, 0], [0, 1]], [0.9, 0.2])]
    assert measure(frames, 0.1).recall_50 == 1.0
    assert measure(frames, 0.3).recall_50 == 0.5


def test_overlap_of_boxes() -> None:
    first = np.array([[0, 0, 10, 10.0]])
    second = np.array([[0, 0, 10, 10.0], [5, 0, 15, 10], [20, 20, 30, 30]])
    assert overlaps(first, second)[0] == pytest.approx([1.0, 1 / 3, 0.0])
