import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from violence_ops.pose.quality import SIGMAS
from violence_ops.records import JOINTS
from violence_ops.tracking.similarity import Poses

EVERY = np.arange(3)
offsets = arrays(np.float64, (3, 2, JOINTS), elements=st.floats(-1e4, 1e4))
trusts = arrays(np.float64, (3, JOINTS), elements=st.floats(0, 1))


def oks(apart, trust, area=4000.0):
    """Likeness of three pairs whose joints are `apart` `(3, 2, 17)` px; both of a pair have this `trust` `(3, 17)`."""
    keypoints = np.concatenate([np.zeros((3, JOINTS, 2)), np.swapaxes(apart, 1, 2)])
    poses = Poses.of(keypoints, np.concatenate([trust, trust]), np.arange(6), np.full(6, area))
    return poses.oks(EVERY, EVERY + 3, np.zeros(3, np.complex64))


def test_the_same_pose_is_wholly_alike_and_one_far_away_is_not():
    trust = np.ones((3, JOINTS))
    assert oks(np.zeros((3, 2, JOINTS)), trust) == pytest.approx(1.0)
    assert oks(np.full((3, 2, JOINTS), 500.0), trust) == pytest.approx(0.0)


def test_a_joint_that_is_not_trusted_does_not_count():
    apart, trust = np.zeros((3, 2, JOINTS)), np.ones((3, JOINTS))
    apart[:, :, 9], trust[:, 9] = 300.0, 0.0
    assert oks(apart, trust) == pytest.approx(1.0)
    assert oks(apart, np.zeros((3, JOINTS))).tolist() == [0.0] * 3


def test_who_has_moved_on_is_compared_where_he_should_be():
    first, second = np.array([0]), np.array([1])
    keypoints = np.stack([np.zeros((JOINTS, 2)), np.full((JOINTS, 2), 30.0)])
    poses = Poses.of(keypoints, np.ones((2, JOINTS)), np.arange(2), np.full(2, 4000.0))
    assert poses.oks(first, second, np.array([30 + 30j], np.complex64)) == pytest.approx(1.0)
    assert poses.oks(first, second, np.array([0j], np.complex64)) < 0.5


@settings(deadline=None)
@given(offsets, trusts, st.floats(0, 1e6))
def test_likeness_is_within_0_and_1_and_what_the_formula_says(apart, trust, area):
    found = oks(apart, trust, area)
    assert ((found >= 0) & (found <= 1 + 1e-5)).all()
    spread = (3 * SIGMAS) ** 2 * 2 * 0.53 * max(area, 1.0)
    expected = (np.exp(-(apart**2).sum(axis=1) / spread) * trust).sum(axis=1) / np.maximum(trust.sum(axis=1), 1e-9)
    np.testing.assert_allclose(found, expected, atol=1e-4)
