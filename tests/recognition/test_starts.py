"""Training that goes on from a pretrained classifier."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from violence_ops.errors import ParamsError
from violence_ops.params import Params, load_params
from violence_ops.recognition import ensemble, starts
from violence_ops.recognition.families import fit as fit_family
from violence_ops.recognition.model import Recogniser, Settings
from violence_ops.recognition.skeleton import Skeleton
from violence_ops.recognition.train import fit

PARAMS = Path(__file__).parents[2] / "params.yaml"
SHIPPED = "synthetic_fights"


def params(**overrides: object) -> Params:
    small = {"train.epochs": 1, "train.start": SHIPPED}
    return load_params(PARAMS, small | {key.replace("__", "."): value for key, value in overrides.items()})


def clip(number: int, fighting: bool) -> Skeleton:
    """Two persons: jerking limbs, or calm ones."""
    rng = np.random.default_rng(number)
    limbs = rng.normal(size=(2, 30, 17, 2)) * (8 if fighting else 1.5)
    return Skeleton(
        clip_id=f"{number:020x}", width=640, height=360, step=1, intensity=0.6,
        keypoints=(rng.normal(size=(2, 1, 17, 2)) * 30 + limbs + 200).astype(np.float32),
        keypoint_scores=np.full((2, 30, 17), 0.75, np.float32),
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained_start(tmp_path_factory: pytest.TempPathFactory) -> starts.Start:
    """A start that has learnt the toy motions."""
    chosen = params(train__start=None, train__base_channels=8, train__epochs=4, train__learning_rate=0.03)
    trained = fit(CLIPS[:14], CLIPS[14:], LABELS, chosen.train, chosen.windows)
    return starts.save(trained.state, trained.settings, tmp_path_factory.mktemp("s") / "toy.safetensors", note="toy")


CLIPS = [clip(i, fighting=i % 2 == 1) for i in range(20)]
LABELS = {one.clip_id: "Fight" if i % 2 else "NonFight" for i, one in enumerate(CLIPS)}


def first_loss(start: str | None) -> float:
    chosen = params(train__start=start, train__base_channels=8, train__learning_rate=0.001)
    return fit(CLIPS[:14], CLIPS[14:], LABELS, chosen.train, chosen.windows).history[0].train_loss


def test_training_that_goes_on_begins_at_a_lower_loss_than_from_scratch(trained_start: starts.Start) -> None:
    assert first_loss(str(trained_start.path)) < 0.7 * first_loss(None)


def test_the_shipped_start_fits_the_default_network_and_is_small() -> None:
    start = starts.find(SHIPPED)
    chosen = load_params(PARAMS)
    settings = Settings.of(chosen.train, chosen.windows)
    network = Recogniser(settings, starts.load(start, settings)).network
    assert all(bool(torch.isfinite(value).all()) for value in network.state_dict().values())
    assert start.path.stat().st_size < 3 * 2**20


@pytest.mark.parametrize(
    ("override", "wanted"),
    [({"train__base_channels": 8}, "train.base_channels 16"), ({"windows__size": 24}, "windows.size 30")],
)
def test_a_start_of_another_width_or_window_is_refused_in_one_sentence(override: dict[str, int], wanted: str) -> None:
    chosen = params(**override)
    with pytest.raises(ParamsError, match=wanted) as refused:
        fit(CLIPS[:14], CLIPS[14:], LABELS, chosen.train, chosen.windows)
    assert "\n" not in str(refused.value)


def test_the_shipped_start_fits_both_networks_of_the_two_streams() -> None:
    chosen = params(train__family="stgcnpp_two_streams")
    settings = Settings.of(chosen.train, chosen.windows)
    together = ensemble.build(settings, starts.load(starts.find(SHIPPED), settings))
    shown = {name: member.settings.streams for name, member in together.members.items()}
    assert shown == {"joints": ("joint", "joint_motion"), "bones": ("bone", "bone_motion")}
    alone = Settings.of(params().train, chosen.windows)
    joints = starts.load(starts.find(SHIPPED), alone)
    assert torch.equal(
        together.members["joints"].network.state_dict()["cls_head.fc.weight"], joints["cls_head.fc.weight"]
    )


def test_a_start_of_an_ensemble_is_gone_on_with_by_all_of_it_and_by_each_alone(tmp_path: Path) -> None:
    chosen = params(train__family="stgcnpp_two_streams", train__start=None, train__base_channels=8)
    trained = fit_family(CLIPS[:14], CLIPS[14:], LABELS, chosen.train, chosen.windows)
    start = starts.save(trained.state, trained.settings, tmp_path / "both.safetensors")
    again = starts.load(start, trained.settings)
    assert set(again) == set(trained.state)
    bones = params(train__streams=["bone", "bone_motion"], train__base_channels=8)
    alone = starts.load(start, Settings.of(bones.train, bones.windows))
    assert all(torch.equal(value, again[f"bones/{name}"]) for name, value in alone.items())
    with pytest.raises(
        ParamsError, match=r"on bone, bone_motion or stgcnpp on joint, joint_motion, .* not stgcnpp on bone, of 8 "
    ):
        starts.load(start, Settings.of(params(train__streams=["bone"], train__base_channels=8).train, chosen.windows))


def test_an_unknown_start_is_refused_with_the_names_of_the_shipped_ones() -> None:
    with pytest.raises(ParamsError, match=SHIPPED):
        starts.find("nothing")


def test_a_start_that_is_not_there_is_named_by_its_path() -> None:
    with pytest.raises(ParamsError, match=r"/nowhere/own\.safetensors with its \.json is not there"):
        starts.find("/nowhere/own.safetensors")


def test_a_relative_path_is_refused_as_airflow_works_in_another_folder() -> None:
    with pytest.raises(ParamsError, match=f"write {Path('starts/own.safetensors').absolute()}"):
        starts.find("starts/own.safetensors")


def test_a_damaged_start_is_refused(trained_start: starts.Start, tmp_path: Path) -> None:
    path = tmp_path / "toy.safetensors"
    path.write_bytes(trained_start.path.read_bytes()[:-1] + b"x")
    path.with_suffix(".json").write_bytes(trained_start.path.with_suffix(".json").read_bytes())
    with pytest.raises(ParamsError, match="SHA-256"):
        starts.find(path)
    for strange in (json.dumps({"sha256": "0"}), "null", "[" * 20_000):
        path.with_suffix(".json").write_text(strange)
        with pytest.raises(ParamsError, match="does not describe a start"):
            starts.find(path)


def test_what_is_kept_of_a_fine_tuned_network_holds_the_asked_share_of_its_start(trained_start: starts.Start) -> None:
    path = str(trained_start.path)

    def tuned(share: float) -> dict[str, torch.Tensor]:
        chosen = params(train__start=path, train__base_channels=8, train__start_share=share)
        return fit(CLIPS[:14], CLIPS[14:], LABELS, chosen.train, chosen.windows).state

    settings = Settings.of(params(train__base_channels=8).train, params().windows)
    start, learnt, both = starts.load(trained_start, settings), tuned(0.0), tuned(0.25)
    settled = [name for name in both if name.endswith(("running_mean", "running_var"))]
    for name, value in both.items():
        if value.is_floating_point() and name not in settled:
            torch.testing.assert_close(value, 0.25 * start[name] + 0.75 * learnt[name])
    # what batch norms have seen is of the averaged network itself
    assert not any(torch.allclose(both[name], 0.25 * start[name] + 0.75 * learnt[name]) for name in settled)
