"""Drift's formulas: the stability index, independent clips, and how often nothing is called drift."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from violence_ops.evaluation import drift, drift_page
from violence_ops.evaluation.drift import QUANTITIES, ClipValues, DriftReport, compare
from violence_ops.params import DriftParams, load_params

PARAMS: DriftParams = load_params(Path(__file__).parents[2] / "params.yaml").drift


def clips(
    random: np.random.Generator, groups: int, of_group: int, likeness: float, shift: float = 0.0
) -> list[ClipValues]:
    """Clips of whose variance `likeness` is between groups; all quantities `shift` standard deviations higher."""
    found = []
    for group in range(groups):
        common = random.normal(size=len(QUANTITIES)) * math.sqrt(likeness)
        for _ in range(of_group):
            own = random.normal(size=len(QUANTITIES)) * math.sqrt(1 - likeness)
            found.append(ClipValues(str(group), None, dict(zip(QUANTITIES, common + own + shift, strict=True))))
    return found


def verdict(reference: list[ClipValues], night: list[ClipValues]) -> str:
    shifts = compare(reference, night, PARAMS)
    return DriftReport("2026-01-31-00000000", "2026-01-31", "1", "x", shifts).verdict


def test_the_stability_index_by_hand() -> None:
    reference, night = np.arange(8.0), np.array([0.0, 1.0, 2.0, 3.0, 3.1, 3.2, 3.3, 7.0])
    value, bins = drift.stability_index(reference, night, 2)  # the halves hold 4 and 4 against 7 and 1
    p, q = (np.array(counts) + 0.5 for counts in ([4, 4], [7, 1]))
    p, q = p / p.sum(), q / q.sum()
    assert bins == 2
    assert value == pytest.approx(((q - p) * np.log(q / p)).sum())


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_the_stability_index_is_finite_never_negative_and_zero_for_the_same_clips(
    a: list[float], b: list[float]
) -> None:
    value, bins = drift.stability_index(np.array(a), np.array(b), 10)
    assert math.isfinite(value)
    assert value >= 0
    assert 2 <= bins <= 11
    assert drift.stability_index(np.array(a), np.array(a), 10)[0] == 0


@pytest.mark.parametrize("level", [0.0, 2.0], ids=["less", "more"])
def test_a_night_beyond_what_nearly_all_clips_share_is_drift_on_either_side(level: float) -> None:
    random = np.random.default_rng(5)
    reference, night = clips(random, 100, 1, 0.0), clips(random, 40, 1, 0.0)
    for number, clip in enumerate(reference):
        clip.values["persons"] = 1.0 if number % 20 else random.uniform(0, 2)  # type: ignore[index]
    for clip in night:
        clip.values["persons"] = level  # type: ignore[index]
    shifts = compare(reference, night, PARAMS)
    assert [shift.quantity for shift in shifts if shift.verdict == "drift"] == ["persons"]


def test_the_fewest_clips_that_are_judged_can_drift() -> None:
    random = np.random.default_rng(6)
    few = PARAMS.min_clips
    assert verdict(clips(random, few, 1, 0.0), clips(random, few, 1, 0.0, shift=9.0)) == "drift"


def test_chance_alone_exceeds_the_limit_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    limit = drift.stability_by_chance(5, (60, 40), 0.05)
    exceeded = [
        drift.stability_index(random.normal(size=60), random.normal(size=40), 5)[0] > limit for _ in range(1000)
    ]
    assert np.mean(exceeded) == pytest.approx(0.05, abs=0.03)


def test_clips_of_a_group_count_as_many_as_they_differ() -> None:
    random = np.random.default_rng(0)
    names = [str(i // 10) for i in range(100)]
    common, own = np.repeat(random.normal(size=10), 10), random.normal(size=100)
    equal, apart = (drift.likeness_in_groups([(values, names)]) for values in (common, own))
    assert equal == pytest.approx(1)
    assert apart < 0.1
    assert drift.effective_count(names, 1.0) == pytest.approx(10)
    assert drift.effective_count(names, 0.0) == 100
    assert drift.likeness_in_groups([(own, list(map(str, range(100))))]) == 0
    assert drift.likeness_in_groups([(own, ["door"] * 100)]) == 1


@pytest.mark.parametrize(("groups", "of_group", "likeness"), [(100, 1, 0.0), (20, 4, 0.5), (20, 10, 0.8)])
def test_nights_of_other_scenes_of_the_same_world_are_hardly_ever_drift_and_of_another_world_always(
    groups: int, of_group: int, likeness: float
) -> None:
    random = np.random.default_rng(1)
    found = {0.0: [], 3.0: []}
    for shift, verdicts in found.items():
        for _ in range(30):
            reference = clips(random, 30, 4, likeness)
            verdicts.append(verdict(reference, clips(random, groups, of_group, likeness, shift)))
    assert found[0.0].count("drift") <= 1
    assert set(found[3.0]) == {"drift"}


def test_one_scene_is_no_world_however_many_clips_show_it() -> None:
    random = np.random.default_rng(2)
    assert verdict(clips(random, 30, 4, 0.9), clips(random, 1, 50, 0.9, 3.0)) == "too few clips"


def test_nights_of_the_same_cameras_are_hardly_ever_drift_if_every_clip_is_a_group_of_its_own() -> None:
    random = np.random.default_rng(4)

    def named(clips: list[ClipValues]) -> list[ClipValues]:
        return [ClipValues(f"incident {i}", clip.group, clip.values) for i, clip in enumerate(clips)]

    found = [
        verdict(named(clips(random, 20, 10, 0.8)), named(clips(random, groups, of_group, 0.8)))
        for groups, of_group in [(6, 30), (15, 12)] * 15
    ]
    assert found.count("drift") <= 1


def test_a_camera_and_an_incident_that_share_a_clip_are_one_cluster() -> None:
    named = [
        ("fall", "door"),
        ("fall", "yard"),
        (None, "yard"),
        ("brawl", None),
        (None, None),
        (None, None),
        ("door", None),
    ]
    found = drift.clusters([ClipValues(group, camera, {}) for group, camera in named])
    together = [found == number for number in found]
    assert [int(same.sum()) for same in together] == [3, 3, 3, 1, 1, 1, 1]
    assert len(drift.clusters([])) == 0


def test_what_cannot_be_told_is_left_out() -> None:
    nobody = drift.of_poses(
        30, 100, np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 17), np.float32)
    )
    assert nobody == {"persons": 0}
    none = np.zeros(0, np.int32)
    assert drift.of_tracks(15, none, none, none, none.astype(np.float32)) == {}
    seen = drift.of_tracks(
        10.0, np.array([0, 9, 4], np.int32), np.array([1, 1, 2], np.int32), np.array([1, 1, 2], np.int32), np.array([0.7, 0.7, 0.1], np.float32)
    )  # fmt: skip
    assert seen == {"track_s": pytest.approx((1.0 + 0.1) / 2), "involvement": pytest.approx(0.7)}


def test_a_verdict_that_does_not_stand_on_all_quantities_says_on_how_many() -> None:
    def report(*of: int) -> DriftReport:
        random = np.random.default_rng(3)
        night = clips(random, 60, 1, 0.0)
        for number, quantity in zip(of, QUANTITIES, strict=False):
            night = [c if i < number else replace(c, values={k: v for k, v in c.values.items() if k != quantity}) for i, c in enumerate(night)]  # fmt: skip
        shifts = compare(clips(random, 60, 1, 0.0), night, PARAMS)
        return DriftReport("2026-01-31-00000000", "2026-01-31", "1", "x", shifts)

    whole, some, none = report(), report(2, 2, 0), report(*[1] * len(QUANTITIES))
    green = '<strong class="better">'
    assert [green in drift_page.section([one]) for one in (whole, some, none)] == [True, False, False]
    assert (whole.headline, none.headline) == ("stable", "too few clips")
    assert some.headline == "stable (4 of 7 quantities judged; too few clips for the others)"
    assert [some.to_dict()[key] for key in ("verdict", "judged", "quantities")] == ["stable", 4, 7]
    assert DriftReport.from_dict(some.to_dict()) == some


def test_a_report_is_read_back_as_it_was_written() -> None:
    random = np.random.default_rng(3)
    shifts = compare(clips(random, 20, 2, 0.1), clips(random, 20, 2, 0.1), PARAMS)
    report = DriftReport("2026-01-31-00000000", "2026-01-31", "1", "x", shifts, ("a note",))
    assert DriftReport.from_dict(report.to_dict()) == report
