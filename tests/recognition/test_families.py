"""Every model family by its name: a few iterations of training, the package without pickle, and the same verdicts from it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier

from violence_ops.errors import ParamsError
from violence_ops.params import Params, families, load_params
from violence_ops.recognition import forest, package
from violence_ops.recognition.ensemble import Ensemble, build
from violence_ops.recognition.families import begins_with, fit, most_epochs
from violence_ops.recognition.features import features
from violence_ops.recognition.model import Recogniser, Settings
from violence_ops.recognition.predict import predict_skeleton
from violence_ops.recognition.skeleton import Skeleton
from violence_ops.recognition.train import Epoch

PARAMS = Path(__file__).parents[2] / "params.yaml"


def params(**overrides: object) -> Params:
    small = {"train.start": None, "train.base_channels": 8, "train.epochs": 2}
    small |= {"train.min_epochs": 0, "windows.size": 12}
    return load_params(PARAMS, small | {key.replace("__", "."): value for key, value in overrides.items()})


def clip(number: int, fighting: bool, frames: int = 18) -> Skeleton:
    """Three persons: jerking limbs close together, or calm ones apart."""
    rng = np.random.default_rng(number)
    body = rng.normal(size=(17, 2)) * 20
    keypoints = np.zeros((3, frames, 17, 2), np.float32)
    for person in range(3):
        limbs = rng.normal(size=(frames, 17, 2)) * (8 if fighting else 1.0)
        keypoints[person] = body + limbs + (300 + (30 if fighting else 150) * person, 200)
    return Skeleton(
        clip_id=f"{number:020x}", width=640, height=360, step=2, intensity=0.6, keypoints=keypoints,
        keypoint_scores=np.full((3, frames, 17), 0.75, np.float32),
    )  # fmt: skip


CLIPS = [clip(i, fighting=i % 2 == 1) for i in range(14)]
LABELS = {one.clip_id: "Fight" if i % 2 else "NonFight" for i, one in enumerate(CLIPS)}


@pytest.mark.parametrize("family", families())
def test_a_family_trains_and_judges_the_same_from_its_package_with_pickle_off(
    family: str, shown: Callable[..., list[Skeleton]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = params(train__family=family, windows__persons=3, windows__size=18)
    clips = shown(CLIPS[:8], Settings.of(chosen.train, chosen.windows))
    trained = fit(clips[:4], clips[4:], LABELS, chosen.train, chosen.windows)
    assert np.isfinite([epoch.train_loss for epoch in trained.history]).all()
    judge = package.Package(trained.settings, trained.threshold, build(trained.settings, trained.state))
    package.save(trained, tmp_path, {})

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("somebody unpickles")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refused)
    loaded = package.load(tmp_path)
    before, after = ([predict_skeleton(one, seen).probability for seen in clips[4:]] for one in (judge, loaded))
    assert after == pytest.approx(before, abs=1e-6)
    assert (loaded.settings, loaded.threshold) == (trained.settings, trained.threshold)


def test_an_ensemble_is_the_mean_of_its_members_and_reports_them(tmp_path: Path) -> None:
    chosen = params(train__family="ensemble", train__epochs=1)
    told: list[Epoch] = []
    trained = fit(CLIPS[:8], CLIPS[8:], LABELS, chosen.train, chosen.windows, told.append)
    assert told == trained.history[:-1], "the last one tells of all members together"
    assert len(told) == most_epochs(chosen.train, chosen.windows) == 3
    package.save(trained, tmp_path, {})
    judge = package.load(tmp_path).recogniser
    assert isinstance(judge, Ensemble)
    inputs = judge.windows(CLIPS[9]).inputs
    by_member = judge.by_member(inputs)
    assert judge.probabilities(inputs) == pytest.approx(np.mean(list(by_member.values()), axis=0))
    assert set(by_member) == set(trained.members) == {"stgcnpp", "line", "forest"}
    assert set(json.loads((tmp_path / "thresholds.json").read_text())["members"]) == set(by_member)
    assert "| member forest |" in (tmp_path / "MODEL_CARD.md").read_text()


def test_the_figures_of_an_ensemble_of_networks_are_of_the_verdicts_that_it_will_give() -> None:
    chosen = params(train__family="stgcnpp_two_streams", train__epochs=1, windows__size=8, windows__stride=8)
    trained = fit(CLIPS[:8], CLIPS[8:], LABELS, chosen.train, chosen.windows)
    judge = package.Package(trained.settings, 0.5, build(trained.settings, trained.state))
    found = [predict_skeleton(judge, seen) for seen in CLIPS[8:]]
    assert all(len(one.probabilities) > 1 for one in found)
    assert trained.val_probabilities == pytest.approx([one.probability for one in found], abs=1e-6)


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("agcn", "not agcn on joint, joint_motion, of 8 and 12:"),
        ("stgcnpp_streams", "not stgcnpp on joint, of 8 and 12:"),
        ("skeleton_transformer", "not skeleton_transformer, of 8 and 12:"),
        ("mobilenetv2_frames", "not mobilenetv2_frames, of 8 and 12:"),
    ],
)
def test_a_start_that_does_not_fit_is_refused_by_the_name_of_the_family_that_was_asked_for(
    family: str, reason: str
) -> None:
    chosen = params(train__family=family, train__start="synthetic_fights")
    with pytest.raises(ParamsError, match=f"does not fit train.family {family}: it holds stgcnpp on .* and {reason}"):
        fit(CLIPS[:8], CLIPS[8:], LABELS, chosen.train, chosen.windows)


def test_the_shipped_start_fits_the_families_that_the_docs_name_and_no_other() -> None:
    """docs/learning.md, "From scratch"; the feature families begin with nothing."""
    fitting, refused = set(), set()
    for family in families():
        chosen = load_params(PARAMS, {"train.family": family})
        try:
            if begins_with(chosen.train, chosen.windows):
                fitting.add(family)
        except ParamsError:
            refused.add(family)
    assert fitting == {"stgcnpp", "stgcnpp_two_streams", "ensemble"}
    assert refused == {
        "stgcnpp_streams", "agcn", "skeleton_transformer", "fusion_transformer", "mobilenetv2_frames", "resnet18_timeseries",
    }  # fmt: skip


def test_every_stream_can_be_chosen_and_another_one_is_another_model() -> None:
    found = []
    for streams in (["joint"], ["bone", "bone_motion"]):
        chosen = params(train__epochs=1, train__streams=streams)
        found.append(fit(CLIPS[:8], CLIPS[8:], LABELS, chosen.train, chosen.windows))
    assert [one.settings.streams for one in found] == [("joint",), ("bone", "bone_motion")]
    assert found[0].state["backbone.data_bn.weight"].shape != found[1].state["backbone.data_bn.weight"].shape


def test_the_forest_learns_what_separates_the_clips_and_is_the_one_that_scikit_learn_grew() -> None:
    chosen = params(train__family="feature_forest")
    trained = fit(CLIPS[:8], CLIPS[8:], LABELS, chosen.train, chosen.windows)
    assert trained.history[0].val.f1 == 1.0
    rng = np.random.default_rng(0)
    values, targets = rng.normal(size=(60, 9)).astype(np.float32), rng.integers(0, 2, 60).tolist()
    settings = Settings.of(chosen.train, chosen.windows)
    ours = forest.Forest(settings, forest.grow(values, targets, settings, (1.0, 2.0), 3))
    theirs = RandomForestClassifier(300, min_samples_leaf=2, class_weight={0: 1.0, 1: 2.0}, random_state=3)
    theirs.fit(values, targets)
    unseen = rng.normal(size=(40, 9)).astype(np.float32)
    assert ours.probabilities(torch.from_numpy(unseen)) == pytest.approx(theirs.predict_proba(unseen)[:, 1], abs=1e-6)


def test_features_know_neither_place_nor_size_nor_side_and_are_always_the_same_ones() -> None:
    one = CLIPS[1]
    usual = features(one.keypoints, one.keypoint_scores)
    moved = features(one.keypoints * 2 + 100, one.keypoint_scores)
    mirrored = features(one.keypoints * (-1, 1) + (640, 0), one.keypoint_scores)
    nobody = features(one.keypoints * 0, one.keypoint_scores * 0)
    assert list(usual.values()) == pytest.approx(list(moved.values()), rel=1e-3, abs=1e-3)
    assert list(usual.values()) == pytest.approx(list(mirrored.values()), rel=1e-3, abs=1e-3)
    assert list(usual) == list(nobody)
    assert np.isfinite(list(nobody.values())).all()


def test_of_a_clip_with_three_people_every_pair_is_looked_at_and_one_that_is_not_there_does_not_count() -> None:
    chosen = params(windows__persons=3)
    judge = Recogniser(Settings.of(chosen.train, chosen.windows))
    of_pairs = Recogniser(Settings.of(chosen.train, params(windows__persons=2).windows), judge.network.state_dict())
    three = CLIPS[1]

    def says(one: Recogniser, skeleton: Skeleton) -> np.ndarray:
        return one.probabilities(one.windows(skeleton).inputs)

    by_pair = [says(of_pairs, three.only(pair)) for pair in ((0, 1), (0, 2), (1, 2))]
    assert says(judge, three) == pytest.approx(np.mean(by_pair, axis=0), abs=1e-6)
    for fewer in (three.only([0, 1]), three.only([0])):
        assert says(judge, fewer) == pytest.approx(says(of_pairs, fewer), abs=1e-6)
