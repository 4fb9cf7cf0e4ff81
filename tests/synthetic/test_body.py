"""Forward kinematics: limbs have their lengths whatever is asked of them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from violence_ops.synthetic.body import Body, rotation, skeleton, standing, two_bones

coordinates = st.floats(-3, 3, allow_nan=False)


@given(target=arrays(float, (4, 3), elements=coordinates), pole=arrays(float, (4, 3), elements=coordinates))
def test_limbs_have_their_lengths_wherever_they_reach(target: np.ndarray, pole: np.ndarray) -> None:
    root = np.zeros((4, 3))
    middle, end = two_bones(root, target + 0.001, 0.4, 0.3, pole + np.array([0.01, 0.02, 0.03]))
    reached = np.linalg.norm(end, axis=-1)
    assert (reached <= 0.7).all()
    assert np.all(np.linalg.norm(middle, axis=-1) <= 0.4 + 1e-6)


@given(angle=st.floats(-10, 10), axis=st.integers(0, 2))
def test_rotations_keep_lengths_and_handedness(angle: float, axis: int) -> None:
    matrix = rotation(axis, np.array([angle]))[0]
    assert np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-9)
    assert np.isclose(np.linalg.det(matrix), 1.0)


def test_a_standing_person_looks_ahead_with_the_left_on_the_left() -> None:
    pose = skeleton(standing(2, (1.0, 4.0), 0.0), Body(1.75, 1.0, 1.0))
    nose, left, right, ankle = (pose.coco[0, joint] for joint in (0, 5, 6, 15))
    assert nose[1] > pose.neck[0, 1]  # looks along +y
    assert left[0] < right[0]
    assert 1.5 < nose[2] < 1.75
    assert 0.0 < ankle[2] < 0.12
