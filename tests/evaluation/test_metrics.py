"""Metrics agree with their definitions and with scikit-learn, and do not care for the order of clips."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from violence_ops.evaluation.metrics import auc, calibration, calibration_error, confusion, metrics, threshold_curve

CLIPS = st.lists(
    st.tuples(st.booleans(), st.floats(0, 1, allow_nan=False, width=32), st.booleans()), min_size=1, max_size=60
)


def _columns(clips: list[tuple[bool, float, bool]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels, probabilities, verdicts = zip(*clips, strict=True)
    return np.array(labels), np.array(probabilities, float), np.array(verdicts)


@given(CLIPS)
@settings(deadline=None, max_examples=60)
def test_figures_equal_those_of_scikit_learn(clips: list[tuple[bool, float, bool]]) -> None:
    labels, probabilities, verdicts = _columns(clips)
    found = metrics(labels, probabilities, verdicts)
    assert found.f1 == pytest.approx(reference.f1_score(labels, verdicts, zero_division=0))
    assert found.precision == pytest.approx(reference.precision_score(labels, verdicts, zero_division=0))
    assert found.recall == pytest.approx(reference.recall_score(labels, verdicts, zero_division=0))
    assert found.accuracy == pytest.approx(reference.accuracy_score(labels, verdicts))
    if 0 < labels.sum() < len(labels):
        assert found.auc == pytest.approx(reference.roc_auc_score(labels, probabilities))
        assert found.brier == pytest.approx(reference.brier_score_loss(labels, probabilities))
    else:
        assert found.auc is None


@given(CLIPS, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40)
def test_the_order_of_clips_changes_no_digit(clips: list[tuple[bool, float, bool]], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = clips.copy()
    random.shuffle(shuffled)
    first, second = metrics(*_columns(clips)), metrics(*_columns(shuffled))
    assert first.confusion == second.confusion
    assert first.brier == second.brier
    assert math.isclose(first.ece, second.ece, abs_tol=1e-12)
    assert first.auc == second.auc


def test_a_calibrated_model_has_no_calibration_error_and_a_sure_wrong_one_has_all_of_it() -> None:
    labels = np.array([True, False, True, False])
    assert calibration_error(labels, np.full(4, 0.5)) == 0
    assert calibration_error(labels, np.array([0.0, 1.0, 0.0, 1.0])) == 1


def test_calibration_bins_hold_every_clip_once_also_at_probability_one() -> None:
    bins = calibration(np.array([True, True, False]), np.array([1.0, 0.95, 0.0]))
    assert [part.clips for part in bins] == [1, 2]


def test_auc_counts_ties_half() -> None:
    assert auc(np.array([True, False]), np.array([0.5, 0.5])) == 0.5


def test_the_threshold_curve_meets_the_confusion_at_its_points() -> None:
    labels, probabilities = np.array([True, False, True, False]), np.array([0.9, 0.6, 0.4, 0.1])
    point = threshold_curve(labels, probabilities)[50]
    assert point.threshold == 0.5
    assert point.f1 == confusion(labels, probabilities > 0.5).f1 == 0.5
