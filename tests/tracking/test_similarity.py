import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from violence_ops.records import JOINTS
from violence_ops.tracking.similarity import oks

AREA = np.array([4000.0])
offsets = arrays(np.float64, (3, 2, JOINTS), elements=st.floats(-1e4, 1e4))
trusts = arrays(np.float64, (3, JOINTS), elements=st.floats(0, 1))


def test_the_same_pose_is_wholly_alike_and_one_far_away_is_not():
    trust = np.ones((1, JOINTS))
    assert oks(np.zeros((1, 2, JOINTS)), trust, AREA) == pytest.approx(1.0)
    assert oks(np.full((1, 2, JOINTS), 500.0), trust, AREA) == pytest.approx(0.0)


def test_a_joint_that_is_not_trusted_does_not_count():
    apart, trust = np.zeros((1, 2, JOINTS)), np.ones((1, JOINTS))
    apart[0, :, 9], trust[0, 9] = 300.0, 0.0
    assert oks(apart, trust, AREA) == pytest.approx(1.0)
    assert oks(apart, np.zeros((1, JOINTS)), AREA).tolist() == [0.0]


@settings(deadline=None)
@given(offsets, trusts, st.floats(0, 1e6))
def test_likeness_is_within_0_and_1(apart, trust, area):
    found = oks(apart, trust, np.full(3, area))
    assert ((found >= 0) & (found <= 1 + 1e-9)).all()
