import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from violence_ops.tracking.boxes import iou, is_box, to_cxcyah, to_xyxy

places = arrays(np.float64, (3, 2), elements=st.floats(-1e4, 1e4))
sizes = arrays(np.float64, (3, 2), elements=st.floats(1e-2, 1e4))


@settings(deadline=None)
@given(places, sizes, places, sizes)
def test_overlap_is_symmetric_and_within_0_and_1(low, size, other_low, other_size):
    first, second = np.hstack([low, low + size]), np.hstack([other_low, other_low + other_size])
    overlap = iou(first, second)
    assert ((overlap >= 0) & (overlap <= 1 + 1e-9)).all()
    np.testing.assert_allclose(overlap, iou(second, first).T)
    np.testing.assert_allclose(np.diag(iou(first, first)), 1)


@settings(deadline=None)
@given(places, sizes)
def test_both_forms_of_a_box_say_the_same(low, size):
    boxes = np.hstack([low, low + size])
    np.testing.assert_allclose(to_xyxy(to_cxcyah(boxes)), boxes, atol=1e-6)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        pytest.param([0, 0, 2, 3], True, id="a box"),
        pytest.param([0, 0, 0, 3], False, id="no width"),
        pytest.param([5, 0, 2, 3], False, id="inside out"),
        pytest.param([0, 0, np.nan, 3], False, id="nan"),
        pytest.param([0, -np.inf, 2, 3], False, id="infinite"),
    ],
)
def test_what_counts_as_a_box(box, expected):
    assert is_box(np.array([box], np.float32)).tolist() == [expected]


def test_boxes_without_area_overlap_with_nothing():
    flat = np.array([[1.0, 1.0, 1.0, 1.0]])
    assert iou(flat, flat).tolist() == [[0.0]]
