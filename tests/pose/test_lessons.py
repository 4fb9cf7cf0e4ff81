"""Training pictures depend on seeds alone, and real ones come in their share."""

import numpy as np

from violence_ops.pose.album import Print
from violence_ops.pose.lessons import REAL_SHARE, Lessons
from violence_ops.pose.samples import Sample


def _picture(grey: int, people: int, wanted: int | None = None) -> Sample:
    ignored = np.arange(people) >= (people if wanted is None else wanted)
    return Sample(
        np.full((24, 32, 3), grey, np.uint8), np.zeros((people, 17, 2), np.float32), np.zeros((people, 17), np.uint8),
        np.zeros((people, 4), np.float32), ignored,
    )  # fmt: skip


def _scene(rng: np.random.Generator) -> list[Sample]:
    """Dark stills, so that real ones are told apart by their brightness."""
    grey = int(rng.integers(0, 100))
    return [_picture(grey, 1) for _ in range(4)]


def _real(people: tuple[int, ...]) -> list[Print]:
    return [Print.of(_picture(150 + 10 * number, 5, count)) for number, count in enumerate(people)]


def _drawn(lessons: Lessons, seed: int, times: int) -> list[int]:
    rng = np.random.default_rng(seed)
    return [int(sample.image[0, 0, 0]) for _ in range(times) for sample in lessons(rng)]


def test_the_same_seeds_give_the_same_pictures_whatever_was_drawn_before() -> None:
    real = _real((1, 2))
    first, second = Lessons(_scene, real, scenes=20, seed=3), Lessons(_scene, real, scenes=20, seed=3)
    _drawn(second, seed=9, times=30)
    assert _drawn(first, seed=1, times=30) == _drawn(second, seed=1, times=30)
    assert _drawn(first, seed=1, times=30) != _drawn(Lessons(_scene, real, scenes=20, seed=4), seed=1, times=30)


def test_a_scene_is_made_once_and_there_are_only_so_many() -> None:
    made = []

    def counted(rng: np.random.Generator) -> list[Sample]:
        made.append(1)
        return _scene(rng)

    lessons = Lessons(counted, scenes=3, seed=0)
    assert len(set(_drawn(lessons, seed=0, times=60))) <= 3
    assert len(made) == 3


def test_real_pictures_come_in_their_share_and_the_more_persons_the_oftener() -> None:
    drawn = np.array(_drawn(Lessons(_scene, _real((0, 3, 5)), scenes=5, seed=0), seed=2, times=1500))
    nobody, three, five = (np.mean(np.abs(drawn - grey) < 4) for grey in (150, 160, 170))
    assert abs(nobody + three + five - REAL_SHARE) < 0.05
    assert 0 < nobody < three / 4
    assert abs(three - five) < 0.04


def test_without_real_pictures_all_are_synthetic() -> None:
    assert max(_drawn(Lessons(_scene, scenes=5), seed=0, times=50)) < 150
