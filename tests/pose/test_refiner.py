"""The refiner samples what lies where a joint is, moves joints to what it has learnt to look for, and knows one picture from another."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from violence_ops.errors import UsageError
from violence_ops.pose import config, samples, training, weights
from violence_ops.pose.network import refiner_of
from violence_ops.pose.objective import refiner_alone
from violence_ops.pose.refiner import STRIDE, Refiner, neighbours
from violence_ops.stages.poses import weights as stage
from violence_ops.synthetic.stills import stills as drawn_stills


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def stills(rng: np.random.Generator) -> list[samples.Sample]:
    return [samples.sample(*picture) for picture in drawn_stills(rng)]


def persons(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures, joints, frames and pose vectors of some persons in two pictures of 96 x 64 px."""
    generator = torch.Generator().manual_seed(seed)
    joints = torch.rand(count, 17, 2, generator=generator) * torch.tensor([96.0, 64.0])
    frames = torch.tensor([48.0, 32.0, 40.0, 60.0]).repeat(count, 1)
    return torch.arange(count) % 2, joints, frames, torch.randn(count, 192, generator=generator)


def moving(seed: int = 3) -> Refiner:
    """A refiner as training would leave it: nothing in it is zero."""
    torch.manual_seed(seed)
    refiner = Refiner().eval()
    for parameter in refiner.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return refiner


def test_samples_are_bilinear_and_the_edge_goes_on_outside() -> None:
    fine = torch.randn(2, 16, 24, 5)
    places = torch.rand(6, 17, 9, 2) * torch.tensor([116.0, 84.0]) - 10
    picture = torch.tensor([0, 1, 1, 0, 1, 0])
    grid = places / torch.tensor([24.0, 16.0]) / STRIDE * 2 - 1
    wanted = functional.grid_sample(
        fine.permute(0, 3, 1, 2)[picture], grid, padding_mode="border", align_corners=False
    ).permute(0, 2, 3, 1)
    near, bilinear = neighbours(fine, picture, places[..., 0], places[..., 1])
    sampled = (near.reshape(6, 17, 4, 9, 5) * bilinear[..., None]).sum(dim=2)
    assert torch.allclose(sampled, wanted, atol=1e-4)
    assert torch.allclose(bilinear.sum(dim=2), torch.ones(6, 17, 9), atol=1e-6)


def test_a_person_is_refined_the_same_whoever_else_is_asked_for() -> None:
    refiner, fine = moving(), torch.randn(2, 16, 24, 32)
    picture, joints, frames, poses = persons(5)
    together = refiner(fine, picture, joints, frames, poses)[-1].joints
    alone = refiner(fine, picture[3:4], joints[3:4], frames[3:4], poses[3:4])[-1].joints
    other = refiner(fine, 1 - picture[3:4], joints[3:4], frames[3:4], poses[3:4])[-1].joints
    assert torch.allclose(together[3:4], alone, atol=1e-3)
    assert not torch.allclose(alone, other, atol=0.1)


def test_each_round_starts_where_the_last_one_ended_and_all_stays_finite() -> None:
    picture, joints, frames, poses = persons(4)
    frames[0, 2:] = 0.0
    looks = moving()(torch.randn(2, 16, 24, 32), picture, joints, frames, poses)
    starts = [joints, *(look.joints for look in looks)]
    assert all(torch.equal(look.start, start) for look, start in zip(looks, starts, strict=False))
    assert all(look.joints.isfinite().all() for look in looks)


def test_a_joint_that_is_no_number_spoils_nobody_else() -> None:
    picture, joints, frames, poses = persons(3)
    joints[1, 4] = torch.nan
    found = moving()(torch.randn(2, 16, 24, 32), picture, joints, frames, poses)[-1].joints
    assert found[[0, 2]].isfinite().all()
    assert not found[1].isfinite().all()


def test_a_refiner_learns_and_the_network_stays_as_it_was(tmp_path: Path) -> None:
    model = weights.load(config.build(), weights.find("rtmo_small"))
    model.refiner = Refiner()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = training.TrainingSettings(steps=3, size=4, warm_up=1, report_every=3, refiner=True)
    average = training.train(model, stills, settings, tmp_path)
    changed = {name for name, value in average.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("refiner.") for name in changed)


@pytest.mark.parametrize("refiner", [True, False], ids=["another start", "the network"])
def test_a_training_of_something_else_is_not_gone_on_with(refiner: bool, tmp_path: Path) -> None:
    def model() -> Any:
        return weights.load(config.build(), weights.find("rtmo_small"))

    def settings(steps: int, refiner: bool) -> training.TrainingSettings:
        return training.TrainingSettings(steps=steps, size=2, warm_up=1, save_every=1, refiner=refiner)

    training.train(model(), stills, settings(1, refiner=True), tmp_path)
    other = model()
    with torch.no_grad():
        other.head.dcc.x_fc.weight.add_(0.1)
    with pytest.raises(UsageError, match="holds a training of something else"):
        training.train(other, stills, settings(2, refiner), tmp_path)
    training.train(model(), stills, settings(2, refiner=True), tmp_path)


def test_pictures_without_known_joints_ask_nothing_of_the_refiner() -> None:
    model = weights.load(config.build(), weights.find("rtmo_small"))
    model.refiner = Refiner()
    empty = samples.sample(
        np.zeros((64, 64, 3), np.uint8), np.zeros((0, 17, 2), np.float32), np.zeros((0, 17), np.uint8),
        np.zeros((0, 4), np.float32),
    )  # fmt: skip
    images, targets = training.collate([empty, empty])
    assert refiner_alone(model).terms(images.float(), targets) == {}


def test_the_refiner_comes_and_goes_with_the_weights(tmp_path: Path) -> None:
    model = weights.load(config.build(), weights.find("rtmo_small"))
    model.refiner = moving()
    kept = weights.save(model, tmp_path / "with.safetensors")
    again = refiner_of(weights.load(config.build(), kept))
    assert again is not None
    assert torch.allclose(again.rounds[0].joint, model.refiner.rounds[0].joint, atol=1e-3)
    model.refiner = None
    assert refiner_of(weights.load(model, weights.save(model, tmp_path / "without.safetensors"))) is None


def test_a_refiner_of_before_it_grew_moves_joints_as_it_did(tmp_path: Path) -> None:
    """Its weights lack the residual blocks and the hidden state, and call the first fine block by another name."""
    model = weights.load(config.build(), weights.find("rtmo_small"))
    model.refiner = moving()
    kept = {}
    for name, module in model.refiner.named_modules():
        if hasattr(module, "convolution") or name.endswith("earlier"):
            kept |= {f"refiner.{name}.{part}": torch.zeros_like(value) for part, value in module.state_dict().items()}
    model.load_state_dict(model.state_dict() | {name: value for name, value in kept.items() if "running" not in name})
    written = weights.save(model, tmp_path / "now.safetensors")
    old = {
        name.replace("fine_features.fine.0.", "fine_features.fine."): value
        for name, value in load_file(written.path).items()
        if name not in kept
    }
    save_file(old, tmp_path / "before.safetensors")
    before = replace(written, path=tmp_path / "before.safetensors")
    early, levels = [torch.rand(1, 32, 16, 24), torch.rand(1, 64, 8, 12)], torch.rand(1, 128, 4, 6)
    now, then = (refiner_of(weights.load(config.build(), each).eval()) for each in (written, before))
    assert now is not None
    assert then is not None
    (fine, _), (wanted, _) = now.fine_features(*early, levels), then.fine_features(*early, levels)
    assert torch.allclose(fine, wanted, atol=1e-4)
    picture, joints, frames, poses = persons(3)
    places = [each(fine, picture * 0, joints, frames, poses)[-1].joints for each in (now, then)]
    assert torch.allclose(*places, atol=1e-3)


def test_a_refiner_without_a_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name its weights with --start"):
        stage.train(tmp_path / "x.safetensors", steps=1, start=None, refiner=True)


@pytest.mark.parametrize("refiner", [True, False], ids=["the refiner", "the network"])
def test_weights_of_another_network_are_no_start_of_a_training(refiner: bool, tmp_path: Path) -> None:
    saved = weights.save(config.build("rtmo_t"), tmp_path / "rtmo_t.safetensors", network="rtmo_t")
    with pytest.raises(UsageError, match=r"holds weights of rtmo_t, and only rtmo_small is trained here: "):
        stage.train(tmp_path / "x.safetensors", steps=1, start=str(saved.path), refiner=refiner)
    assert not (tmp_path / "x.run").exists()
