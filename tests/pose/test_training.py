"""The trainer learns, survives a kill, and averages."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from violence_ops.pose import config, samples, training, weights
from violence_ops.pose.loss import assign, predictions_of
from violence_ops.pose.network import refiner_of
from violence_ops.pose.objective import whole
from violence_ops.synthetic.stills import stills as drawn_stills


def stills(rng: np.random.Generator) -> list[samples.Sample]:
    return [samples.sample(*picture) for picture in drawn_stills(rng)]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_augmented_samples_keep_joints_and_boxes_together() -> None:
    rng = np.random.default_rng(0)
    for picture in stills(rng):
        sample = samples.augment(picture, (352, 224), rng)
        assert sample.image.shape == (224, 352, 3)
        seen = sample.visibility > 0
        x, y = sample.keypoints[..., 0], sample.keypoints[..., 1]
        assert ((x >= 0) & (x < 352) & (y >= 0) & (y < 224))[seen].all()
        low, high = sample.bboxes[:, None, :2] - 3, sample.bboxes[:, None, 2:] + 3
        assert ((sample.keypoints >= low) & (sample.keypoints <= high)).all(axis=-1)[seen].mean() > 0.97


def test_somebody_known_by_the_box_alone_is_wanted_and_the_unsure_stay_ignored() -> None:
    rng = np.random.default_rng(3)
    boxes = np.array([[50, 50, 120, 200], [160, 40, 220, 180]], np.float32)
    joints = np.zeros((2, 17, 2), np.float32), np.zeros((2, 17), np.uint8)
    real = samples.Sample(np.zeros((240, 320, 3), np.uint8), *joints, boxes, np.array([False, True]))
    sample = samples.augment(real, (320, 256), np.random.default_rng(1))
    assert len(sample.ignored) == 2
    assert sample.ignored.tolist() == [False, True]
    images, targets = training.collate([sample, samples.augment(stills(rng)[0], (320, 256), rng)])
    assert all(torch.isfinite(value) for value in whole(config.build(), "cpu").terms(images.float(), targets).values())


def test_a_mirrored_person_has_its_sides_exchanged() -> None:
    assert sorted(samples.MIRRORED) == list(range(17))
    assert [samples.MIRRORED[samples.MIRRORED[joint]] for joint in range(17)] == list(range(17))


def test_a_mini_batch_depends_on_seed_and_number_alone() -> None:
    first = samples.mini_batches(stills, seed=4, size=3)
    next(first)
    second, again = next(first), next(samples.mini_batches(stills, seed=4, size=3, start=1))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(second, again, strict=True))


def test_cells_answer_for_persons_and_never_for_ignored_ones() -> None:
    model = weights.load(config.build(), weights.find("rtmo_small"))
    images, targets = training.collate(next(samples.mini_batches(stills, seed=1, size=4)))
    with torch.no_grad():
        predictions = predictions_of(model, model.extract_feat(images.float()))
    counted = torch.ones_like(predictions.scores)
    for number, target in enumerate(targets):
        cells, persons = assign(predictions, number, target, counted)
        assert len(cells) == len(set(cells.tolist()))
        assert not target.ignored[persons].any()
        assert set(persons.tolist()) == set(torch.nonzero(~target.ignored).squeeze(1).tolist()) or len(cells) > 0


def test_a_picture_without_people_has_only_a_score_loss() -> None:
    objective = whole(config.build(), "cpu")
    empty = samples.sample(
        np.zeros((64, 64, 3), np.uint8), np.zeros((0, 17, 2), np.float32), np.zeros((0, 17), np.uint8),
        np.zeros((0, 4), np.float32),
    )  # fmt: skip
    images, targets = training.collate([empty, empty])
    assert set(objective.terms(images.float(), targets)) == {"score", "maps"}


def test_a_network_and_its_refiner_learn_together(tmp_path: Path) -> None:
    model = weights.load(config.build(), weights.find("rtmo_small"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = training.TrainingSettings(steps=2, size=4, warm_up=1, report_every=2)
    average = training.train(model, stills, settings, tmp_path)
    changed = {name for name, value in average.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.partition(".")[0] for name in changed} == {"backbone", "neck", "head", "refiner"}
    assert {"score", "refined_oks"} <= set(json.loads((tmp_path / "log.jsonl").read_text()))


def test_the_refiner_beside_a_network_takes_the_larger_steps(tmp_path: Path) -> None:
    """Adam's first step is as long as the learning rate, whatever the gradient."""
    model = weights.load(config.build(), weights.find("rtmo_small"))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    settings = training.TrainingSettings(steps=1, size=4, warm_up=1, weight_decay=0.0)
    average = training.train(model, stills, settings, tmp_path)
    moved = {name: float((value - before[name]).abs().max()) for name, value in average.named_parameters()}
    longest = {part: max(moved[name] for name in moved if name.startswith(part)) for part in ("backbone", "refiner")}
    assert longest["refiner"] == pytest.approx(4 * longest["backbone"], rel=0.05)


def test_the_refiner_teaches_the_features_that_it_reads() -> None:
    model = weights.load(config.build(), weights.find("rtmo_small"))
    images, targets = training.collate(next(samples.mini_batches(stills, seed=2, size=4)))
    terms = whole(model, "cpu").terms(images.float(), targets)
    sum(value for name, value in terms.items() if name.startswith("refined_")).backward()
    assert refiner_of(model) is not None
    for read in (model.backbone.stage1, model.backbone.stage2, model.neck, model.head.head_module):
        assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in read.parameters())


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was_and_the_loss_falls(tmp_path: Path) -> None:
    def settings(steps: int) -> training.TrainingSettings:
        return training.TrainingSettings(steps=steps, size=4, warm_up=2, report_every=4, save_every=4, seed=1)

    start = weights.find("rtmo_small")
    model = weights.load(config.build(), start)
    model.refiner = None
    training.train(model, stills, settings(4), tmp_path)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 4
    average = training.train(config.build(), stills, settings(8), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8]
    assert not average.training
    assert all(torch.isfinite(value).all() for value in average.state_dict().values())


def test_the_learning_rate_warms_up_and_falls() -> None:
    settings = training.TrainingSettings(steps=1000, warm_up=100)
    rates = [training.rate(step, settings) for step in range(1000)]
    assert rates[0] < rates[50] < rates[99] == pytest.approx(settings.learning_rate, rel=0.01)
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(rates[100:]))
    assert rates[-1] < 0.03 * settings.learning_rate
