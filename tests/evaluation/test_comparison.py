"""The paired comparison: exact where it can be, seeded where it draws, and never fooled by order or by itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap

from violence_ops.evaluation.comparison import f1_difference_interval, f1_differences, mcnemar

ROWS = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.booleans(), st.sampled_from("abcdefg")), min_size=1, max_size=40
)


def _columns(rows: list[tuple[bool, bool, bool, str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    labels, own, other, groups = zip(*rows, strict=True)
    return np.array(labels), np.array(own), np.array(other), list(groups)


def _f1(labels: np.ndarray, verdicts: np.ndarray) -> float:
    claims = labels.sum() + verdicts.sum()
    return 2 * (labels & verdicts).sum() / claims if claims else 0.0


@given(ROWS)
@settings(deadline=None, max_examples=40)
def test_a_model_never_beats_itself(rows: list[tuple[bool, bool, bool, str]]) -> None:
    labels, own, _, groups = _columns(rows)
    found = f1_difference_interval(labels, own, own, groups, confidence=0.9, resamples=100)
    assert (found.lower, found.upper) == (0, 0)
    assert mcnemar(labels, own, own) == (0, 0, 1.0)


@given(ROWS, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40)
def test_the_order_of_clips_does_not_change_the_interval(rows: list[tuple[bool, bool, bool, str]], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = rows.copy()
    random.shuffle(shuffled)
    first = f1_differences(*_columns(rows), resamples=150)
    assert np.array_equal(first, f1_differences(*_columns(shuffled), resamples=150))


@given(ROWS)
@settings(deadline=None, max_examples=40)
def test_one_more_failure_lowers_every_resample_or_leaves_it(rows: list[tuple[bool, bool, bool, str]]) -> None:
    labels, own, other, groups = _columns(rows)
    right = np.flatnonzero(own == labels)
    before = f1_differences(labels, own, other, groups, resamples=150)
    for index in right[:3]:
        worse = own.copy()
        worse[index] = not worse[index]
        assert np.all(f1_differences(labels, worse, other, groups, resamples=150) <= before + 1e-12)


@given(ROWS)
@settings(deadline=None, max_examples=30)
def test_every_resample_is_the_f1_difference_of_clips_drawn_by_group(rows: list[tuple[bool, bool, bool, str]]) -> None:
    labels, own, other, groups = _columns(rows)
    names = sorted(set(groups))
    drawn = np.random.default_rng(0).integers(0, len(names), (20, len(names)), dtype=np.int32)
    found = f1_differences(labels, own, other, groups, resamples=20)
    for resample, difference in zip(drawn, found, strict=True):
        index = np.concatenate([np.flatnonzero(np.array(groups) == names[unit]) for unit in resample])
        assert difference == pytest.approx(_f1(labels[index], own[index]) - _f1(labels[index], other[index]))


def test_the_interval_by_clip_agrees_with_scipys_bootstrap() -> None:
    generator = np.random.default_rng(5)
    labels = generator.random(200) < 0.5
    own, other = labels ^ (generator.random(200) < 0.15), labels ^ (generator.random(200) < 0.25)
    found = f1_difference_interval(
        labels, own, other, [str(i) for i in range(200)], confidence=0.9, resamples=20000, seed=1
    )
    reference = bootstrap(
        (labels, own, other), lambda a, b, c: _f1(a, b) - _f1(a, c), paired=True, vectorized=False, n_resamples=4000,
        confidence_level=0.9, method="percentile", rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    assert found.lower == pytest.approx(reference.low, abs=0.01)
    assert found.upper == pytest.approx(reference.high, abs=0.01)


def test_groups_of_like_clips_widen_the_interval() -> None:
    labels = np.tile([True, False], 100)
    groups = [f"g{i // 20}" for i in range(200)]
    own = labels.copy()
    other = labels ^ (np.arange(200) < 60)  # three whole groups wrong
    by_group = f1_difference_interval(labels, own, other, groups, confidence=0.9, resamples=2000)
    by_clip = f1_difference_interval(labels, own, other, [str(i) for i in range(200)], confidence=0.9, resamples=2000)
    assert by_group.upper - by_group.lower > 1.5 * (by_clip.upper - by_clip.lower)
    assert (by_group.units, by_clip.units) == (10, 200)


def test_the_seed_decides_the_draws() -> None:
    rows = [(True, True, False, "a"), (False, True, False, "b"), (True, False, True, "c"), (False, False, False, "d")]
    same = [f1_differences(*_columns(rows), resamples=50, seed=3) for _ in range(2)]
    assert np.array_equal(*same)
    assert not np.array_equal(same[0], f1_differences(*_columns(rows), resamples=50, seed=4))


@pytest.mark.parametrize(("only_own", "only_other"), [(0, 1), (3, 9), (20, 4), (0, 0)])
def test_mcnemar_is_the_two_sided_binomial_test(only_own: int, only_other: int) -> None:
    labels = np.ones(only_own + only_other + 5, bool)
    own = np.r_[np.ones(only_own, bool), np.zeros(only_other, bool), np.ones(5, bool)]
    other = np.r_[np.zeros(only_own, bool), np.ones(only_other, bool), np.ones(5, bool)]
    expected = binomtest(only_own, only_own + only_other).pvalue if only_own + only_other else 1.0
    assert mcnemar(labels, own, other) == (only_own, only_other, pytest.approx(expected))


def test_few_groups_call_an_equal_model_better_no_more_often_than_promised() -> None:
    """Two models that err alike on five cameras: at 90 % confidence about one in twenty, where a plain percentile has one in eight."""
    rng, better = np.random.default_rng(1), 0
    groups = [f"g{number // 8}" for number in range(40)]
    for _ in range(300):
        labels = rng.random(40) < 0.5
        right = [rng.random(40) < rng.normal(0.8, 0.2, 5).clip(0.02, 0.98).repeat(8) for _ in range(2)]
        own, other = (np.where(each, labels, ~labels) for each in right)
        better += f1_difference_interval(labels, own, other, groups, confidence=0.9, resamples=400).lower > 0
    assert better / 300 < 0.085
