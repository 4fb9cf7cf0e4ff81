"""The transformer over frames: as many heads as its width allows, and frames without people count for nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from violence_ops.recognition.fusion import FusionTransformer, most_heads


@pytest.mark.parametrize(("width", "limit", "heads"), [(930, 16, 15), (930, 10, 10), (304, 16, 16), (7, 4, 1)])
def test_the_head_count_is_that_of_the_specification(width: int, limit: int, heads: int) -> None:
    assert most_heads(width, limit) == heads


@given(st.integers(1, 5000), st.integers(1, 64))
def test_no_larger_head_count_within_the_limit_would_divide_the_width(width: int, limit: int) -> None:
    heads = most_heads(width, limit)
    assert heads <= limit
    assert width % heads == 0
    assert all(width % more for more in range(heads + 1, min(width, limit) + 1))


@pytest.mark.parametrize("persons", [1, 2, 3])
def test_it_takes_any_number_of_persons_and_the_empty_frames_make_no_difference(persons: int) -> None:
    torch.manual_seed(0)
    network = FusionTransformer(base_channels=8, persons=persons).eval()
    seen = torch.rand(4, persons, 12, 17, 3) + 0.1
    seen[:, :, 8:] = 0
    with torch.inference_mode():
        whole, cut = network(seen), network(seen[:, :, :8])
    assert whole.shape == (4, 1, 32, 1, 1)
    torch.testing.assert_close(whole, cut, rtol=1e-4, atol=1e-5)


def test_a_person_alone_has_no_other_and_gives_finite_gradients() -> None:
    network = FusionTransformer(base_channels=8)
    seen = torch.rand(2, 2, 10, 17, 3)
    seen[0, 1] = 0
    seen[1, :, :, 3:9] = 0
    network(seen.requires_grad_()).sum().backward()
    assert all(torch.isfinite(value.grad).all() for value in network.parameters() if value.grad is not None)
    assert torch.isfinite(seen.grad).all()  # type: ignore[arg-type]
