"""Each formula of SPEC 4 and 5, and of docs/involvement.md, by itself against its plain transcription in slow.py."""

import importlib.util
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from violence_ops.involvement import components, pairs, regions

spec = importlib.util.spec_from_file_location("slow_formulas", Path(__file__).parent / "slow.py")
slow = importlib.util.module_from_spec(spec)
spec.loader.exec_module(slow)

WIDTH, HEIGHT, PERSONS = 640, 360, 3
rngs = st.integers(0, 2**32 - 1).map(np.random.default_rng)
quick = settings(max_examples=60, deadline=None)


def persons(rng, rows=12):
    """Joints `(R, 17, 2)` and scores `(R, 17)`, some joints not seen, sometimes nobody's."""
    scores = rng.uniform(0, 1, (rows, 17)) * (rng.random((rows, 17)) < rng.choice([0.2, 0.8], (rows, 1)))
    scores[rng.random(rows) < 0.1] = 0
    points = rng.uniform(0, (WIDTH, HEIGHT), (rows, 1, 2)) + rng.normal(0, 30, (rows, 17, 2))
    return points, scores, components.valid_keypoints(points, scores)


def weights(rng):
    return dict(zip(regions.REGION_NAMES, rng.uniform(0.3, 1.2, 5), strict=True))


def as_point(row):
    return tuple(row) if np.isfinite(row).all() else None


@quick
@given(rngs)
def test_a_person_s_centre_and_detection(rng):
    points, scores, valid = persons(rng)
    middles = components.centres(points, valid)
    for row in range(len(points)):
        expected = slow.centre(points[row], scores[row])
        assert np.isnan(middles[row]).all() if expected is None else middles[row] == pytest.approx(expected)
    expected = [slow.detection(row) for row in scores]
    np.testing.assert_allclose(components.detection(scores, valid), expected)


@quick
@given(rngs)
def test_position_in_its_frame_form(rng):
    points, _, valid = persons(rng)
    middles, shares = components.centres(points, valid), weights(rng)
    got = regions.frame_scores(middles, WIDTH, HEIGHT, np.array(list(shares.values())))
    expected = [slow.frame_position(as_point(row), WIDTH, HEIGHT, shares) for row in middles]
    np.testing.assert_allclose(got, expected)


@quick
@given(rngs, st.integers(0, 20))
def test_position_in_its_track_form(rng, rows):
    middles, half, shares = rng.uniform(0, (WIDTH, HEIGHT), (rows, 2)), rng.uniform(5, 60, (rows, 2)), weights(rng)
    track = rng.integers(0, PERSONS, rows)
    got = regions.track_scores(middles, WIDTH, HEIGHT, np.array(list(shares.values())), track, PERSONS, 20)
    boxes = np.hstack([middles - half, middles + half])
    expected = [slow.track_position(boxes[track == one], WIDTH, HEIGHT, shares, 20) for one in range(PERSONS)]
    np.testing.assert_allclose(got, expected)


@quick
@given(rngs, st.integers(2, 8))
def test_movement_in_pixels_and_in_heights(rng, history):
    points, _, valid = persons(rng, 30)
    middles, track, unit = components.centres(points, valid), rng.integers(0, PERSONS, 30), rng.uniform(20, 300, 30)
    earlier = {one: [] for one in range(PERSONS)}
    expected = []
    for point, one, length in zip(map(as_point, middles), track, unit, strict=True):
        expected.append(slow.movement(point, earlier[one], history, length))
        earlier[one] += [point] if point else []
    np.testing.assert_allclose(components.movement(middles, track, unit, history), expected)


@quick
@given(rngs)
def test_interaction_in_pixels_and_in_heights(rng):
    points, _, valid = persons(rng, 30)
    middles, frame, reach = components.centres(points, valid), np.sort(rng.integers(0, 8, 30)), rng.uniform(20, 400, 30)
    known = [as_point(row) for row in middles]
    expected = [
        slow.interaction(known[row], [known[o] for o in np.flatnonzero(frame == frame[row]) if o != row], reach[row])
        for row in range(30)
    ]
    np.testing.assert_allclose(components.interaction(middles, frame, reach), expected, atol=1e-9)


@quick
@given(rngs, st.integers(3, 12), st.floats(0, 0.5))
def test_consistency_of_composites_that_it_is_itself_a_part_of(rng, history, weight):
    partial, track = rng.uniform(0, 1 - weight, 40), rng.integers(0, PERSONS, 40)
    composites = {one: [] for one in range(PERSONS)}
    expected = []
    for value, one in zip(partial, track, strict=True):
        expected.append(slow.consistency(composites[one], history))
        composites[one].append(value + weight * expected[-1])
    np.testing.assert_allclose(components.consistency(partial, track, weight, history), expected)


@quick
@given(rngs)
def test_limbs(rng):
    points, scores, valid = persons(rng, 30)
    track, seconds = rng.integers(0, PERSONS, 30), np.cumsum(rng.uniform(0.02, 0.3, 30))
    height = rng.uniform(50, 300, PERSONS)
    got = components.limbs(points, valid, seconds, track, 2.0 * height[track])
    expected = np.full(30, np.nan)
    for one in range(PERSONS):
        for before, row in pairwise(np.flatnonzero(track == one)):
            now, then = ((points[r], scores[r]) for r in (row, before))
            speed = slow.limb_speed(now, then, seconds[row] - seconds[before], height[one], 2.0)
            expected[row] = np.nan if speed is None else speed
    np.testing.assert_allclose(got, expected)


class Reaches:
    closeness_heights, contact_heights = 1.0, 0.5


@quick
@given(rngs)
def test_closeness_and_contact_of_every_pair(rng):
    points, scores, valid = persons(rng, 24)
    frame, track = (grid.ravel() for grid in np.meshgrid(np.arange(8), np.arange(PERSONS), indexing="ij"))
    middles, half = rng.uniform(0, 200, (24, 2)), rng.uniform(20, 80, (24, 2))
    chosen = rng.random(24) < 0.8
    points = points - points.mean(axis=1, keepdims=True) + middles[:, None]
    boxes, height = np.hstack([middles - half, middles + half]), rng.uniform(50, 150, PERSONS)
    sure = rng.uniform(0, 1, 24)
    got = pairs.pairs(
        frame[chosen], track[chosen], boxes[chosen], sure[chosen], points[chosen], valid[chosen], height[track[chosen]],
        frames=9, closeness_reach=Reaches.closeness_heights, contact_reach=Reaches.contact_heights,
    )  # fmt: skip

    class Tracks:
        def __len__(self):
            return int(chosen.sum())

    tracks = Tracks()
    tracks.frame, tracks.track_id, tracks.bboxes = frame[chosen], track[chosen], boxes[chosen]
    tracks.keypoints, tracks.keypoint_scores, tracks.scores = points[chosen], scores[chosen], sure[chosen]
    expected = slow.pairs(tracks, Reaches, dict(enumerate(height)), range(9))
    found = {
        (int(a), int(b)): (near, touch)
        for a, b, near, touch in zip(got.first, got.second, got.closeness, got.contact, strict=True)
    }
    assert {ids for ids in expected if ids[0] < ids[1]} == set(found)
    for ids, values in found.items():
        assert values == pytest.approx(expected[ids])
