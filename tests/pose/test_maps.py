"""Joint maps: peaks where joints are seen, nothing asked where labels are missing."""

import pytest
import torch

from violence_ops.pose.loss import Targets
from violence_ops.pose.maps import STRIDE, JointMaps, map_loss


def person(at: tuple[float, float], ignored: bool = False) -> Targets:
    """Somebody whose nose alone is seen, at (x, y) px, in a box of 64 px around it."""
    keypoints, visibility = torch.zeros(1, 17, 2), torch.zeros(1, 17, dtype=torch.uint8)
    keypoints[0, 0], visibility[0, 0] = torch.tensor(at), 2
    box = torch.tensor([[at[0] - 32, at[1] - 32, at[0] + 32, at[1] + 32]])
    return Targets(keypoints, visibility, box, torch.tensor([ignored]))


def learned(target: Targets, steps: int = 150) -> torch.Tensor:
    """Maps (17, 16, 16) of one picture after learning them freely."""
    logits = torch.full((1, 17, 16, 16), -3.0, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.2)
    for _ in range(steps):
        optimizer.zero_grad()
        map_loss([logits], [target]).backward()
        optimizer.step()
    return logits.detach()[0]


def test_the_loss_is_least_with_a_peak_on_the_joint() -> None:
    maps = learned(person((100.0, 44.0)))
    place = divmod(int(maps[0].argmax()), 16)
    assert place == (44 // STRIDE, 100 // STRIDE)
    assert maps[0].max() > 2
    assert maps[1:].max() < -3


def test_an_ignored_person_is_neither_wanted_nor_wrong() -> None:
    target = person((64.0, 64.0), ignored=True)
    logits = torch.zeros(1, 17, 16, 16, requires_grad=True)
    map_loss([logits], [target]).backward()
    assert logits.grad is not None
    assert not logits.grad[0, :, 4:13, 4:13].any()
    assert logits.grad[0, :, 0].all()


@pytest.mark.parametrize("count", [0, 3])
def test_every_level_gives_maps_of_one_size(count: int) -> None:
    levels = [torch.zeros(2, 8, 6, 10), torch.zeros(2, 8, 3, 5), torch.zeros(2, 4, 12, 20)]
    maps = JointMaps([(8, 16), (8, 32), (4, 8)])(levels)
    assert [tuple(level.shape) for level in maps] == [(2, 17, 12, 20)] * 3
    empty = Targets(torch.zeros(count, 17, 2), torch.zeros(count, 17), torch.zeros(count, 4), torch.zeros(count) > 0)
    assert map_loss(maps, [empty, empty]) >= 0
