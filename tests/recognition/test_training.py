"""Training, the package and the verdicts of STGCN++ through MMAction2, on toy motions."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from violence_ops.errors import ParamsError, UserError
from violence_ops.params import Params, load_params
from violence_ops.recognition import families, package, plots
from violence_ops.recognition import train as training
from violence_ops.recognition.export import annotation, pose_dataset
from violence_ops.recognition.model import Recogniser, Settings
from violence_ops.recognition.predict import predict_skeleton
from violence_ops.recognition.skeleton import Skeleton
from violence_ops.recognition.train import Trained, fit
from violence_ops.records import PREDICTIONS_SCHEMA

PARAMS = Path(__file__).parents[2] / "params.yaml"


def params(**overrides: object) -> Params:
    small = {"train.start": None, "train.base_channels": 8} | {
        "train.epochs": 4,
        "train.learning_rate": 0.03,
    }
    return load_params(PARAMS, small | {key.replace("__", "."): value for key, value in overrides.items()})


def clip(number: int, fighting: bool, frames: int = 36) -> Skeleton:
    """Two persons: jerking limbs, or calm ones."""
    rng = np.random.default_rng(number)
    keypoints = np.zeros((2, frames, 17, 2), np.float32)
    for person in range(2):
        walk = np.cumsum(rng.normal(size=(frames, 1, 2)) * 3, axis=0)
        limbs = rng.normal(size=(frames, 17, 2)) * (8 if fighting else 1.5)
        keypoints[person] = rng.normal(size=(17, 2)) * 30 + walk + limbs + (300 + 60 * person, 200)
    return Skeleton(
        clip_id=f"{number:020x}", width=640, height=360, step=2, intensity=0.6, keypoints=keypoints,
        keypoint_scores=np.full((2, frames, 17), 0.75, np.float32),
    )  # fmt: skip


CLIPS = [clip(i, fighting=i % 2 == 1) for i in range(20)]
LABELS = {one.clip_id: "Fight" if i % 2 else "NonFight" for i, one in enumerate(CLIPS)}


def train(chosen: Params) -> Trained:
    return fit(CLIPS[:14], CLIPS[14:], LABELS, chosen.train, chosen.windows)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train(params())


@pytest.fixture(scope="module")
def loaded(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> package.Package:
    folder = tmp_path_factory.mktemp("model")
    package.save(trained, folder, {"dataset_revision": "abc"})
    assert sorted(path.name for path in folder.iterdir()) == [
        "MODEL_CARD.md", "config.json", "model.onnx", "model.safetensors", "thresholds.json",
    ]  # fmt: skip
    return package.load(folder)


def test_it_learns_what_separates_the_toy_motions(trained: Trained) -> None:
    assert trained.history[-1].train_loss < trained.history[0].train_loss
    assert trained.history[trained.best_epoch - 1].val.f1 >= 0.8


@pytest.mark.parametrize(("persons", "leaves_at"), [(2, 36), (3, 36), (3, 20), (4, 36)])
def test_it_learns_from_the_windows_and_pairs_that_a_verdict_looks_at(persons: int, leaves_at: int) -> None:
    """Three persons are there, of whom the third leaves at a frame: before the second of two windows, or never."""
    one = clip(0, fighting=True)
    shape = (persons, *one.keypoints.shape[1:])
    points, scores = np.zeros(shape, np.float32), np.zeros(shape[:-1], np.float32)
    present = min(persons, 3)
    points[:present] = one.keypoints[[0, 1, 0][:present]] + np.arange(present)[:, None, None, None] * 40
    scores[:present] = 0.75
    points[2:, leaves_at:], scores[2:, leaves_at:] = 0.0, 0.0
    crowd = replace(one, keypoints=points, keypoint_scores=scores)
    chosen = params(windows__persons=persons, windows__size=16, windows__stride=16)
    network = Recogniser(Settings.of(chosen.train, chosen.windows))
    taught = network.training_windows([crowd], {crowd.clip_id: "Fight"})
    looked_at = network.windows(crowd).inputs.flatten(2).any(dim=-1)
    assert taught is not None
    assert len(taught.labels) == int(looked_at.sum())


def test_the_memory_of_a_clips_windows_grows_with_its_length_not_with_its_square() -> None:
    chosen = params(windows__persons=3)
    network = Recogniser(Settings.of(chosen.train, chosen.windows))
    peaks = []
    for minutes in (1, 4):
        frames = minutes * 60 * 15
        crowd = replace(
            clip(0, fighting=True),
            keypoints=np.full((3, frames, 17, 2), 9.0, np.float32),
            keypoint_scores=np.full((3, frames, 17), 0.5, np.float32),
        )
        tracemalloc.start()
        network.windows(crowd)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 5 * peaks[0]


def test_the_same_seed_gives_the_same_model_bit_for_bit_and_another_one_another(trained: Trained) -> None:
    again, other = train(params()), train(params(train__seed=1, train__epochs=1))
    assert all(torch.equal(value, again.state[name]) for name, value in trained.state.items())
    assert again.threshold == trained.threshold
    assert any(not torch.equal(value, other.state[name]) for name, value in trained.state.items())


def test_training_leaves_the_random_generators_and_threads_alone() -> None:
    np.random.seed(3)
    torch.manual_seed(3)
    before = (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), torch.get_num_threads())  # type: ignore[union-attr]
    train(params(train__epochs=1))
    assert before == (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), torch.get_num_threads())  # type: ignore[union-attr]


def test_it_stops_early_and_keeps_the_best_epoch() -> None:
    found = train(params(train__epochs=30, train__patience=2, train__min_epochs=3, train__learning_rate=1e-6))
    assert 3 <= len(found.history) < 12
    f1 = [epoch.val.f1 for epoch in found.history]
    assert f1[found.best_epoch - 1] == max(f1)


def test_a_tight_gradient_clip_decides_how_far_the_weights_go() -> None:
    def moved(clip: float) -> float:
        there, start = (
            train(
                params(train__epochs=1, train__weight_decay=0.0, train__gradient_clip=clip, train__learning_rate=rate)
            )
            for rate in (0.03, 1e-30)
        )
        learnt = [name for name in start.state if "running" not in name and "num_batches" not in name]
        return float(torch.cat([(there.state[name] - start.state[name]).flatten() for name in learnt]).double().norm())

    assert moved(0.02) == pytest.approx(2 * moved(0.01), rel=0.05)


@pytest.mark.parametrize("most", [0.5, 5.0, 500.0])
def test_gradients_are_clipped_as_torch_clips_them(most: float) -> None:
    def parameters() -> list[torch.nn.Parameter]:
        chance = torch.Generator().manual_seed(0)
        made = [torch.nn.Parameter(torch.zeros(size)) for size in (3, 40, 500)]
        for one in made:
            one.grad = torch.randn(one.shape, generator=chance)
        return made

    ours, theirs = parameters(), parameters()
    training._clip(ours, most)
    torch.nn.utils.clip_grad_norm_(theirs, most)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize(
    ("family", "computes_bf16", "meant"),
    [
        ("stgcnpp", True, "bf16"), ("stgcnpp", False, "fp32"), ("stgcnpp_two_streams", True, "bf16"), ("ensemble", True, "bf16"),
        ("agcn", True, "fp32"), ("skeleton_transformer", True, "fp32"), ("feature_forest", True, ""),
    ],
)  # fmt: skip
def test_auto_is_bf16_for_stgcnpp_where_the_processor_computes_with_it(
    family: str, computes_bf16: bool, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_computes_bf16", lambda: computes_bf16)
    chosen = params(train__family=family)
    assert families.precision(chosen.train, chosen.windows) == meant


def test_bf16_is_refused_where_nothing_computes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_computes_bf16", lambda: False)
    with pytest.raises(
        ParamsError, match=r"train\.precision is bf16, which needs a GPU or a processor .*: set it to auto or fp32"
    ):
        train(params(train__precision="bf16"))


def test_a_diverging_training_says_which_parameter_to_lower() -> None:
    with pytest.raises(UserError, match=r"diverged in epoch \d+ .*lower train.learning_rate"):
        train(params(train__learning_rate=1e30, train__gradient_clip=1e30))


def test_an_unknown_family_names_the_known_ones() -> None:
    with pytest.raises(ParamsError, match=r"'resnet' but must be one of agcn, .*stgcnpp"):
        train(params(train__family="resnet"))


def test_clips_without_persons_are_refused_when_there_is_nothing_else() -> None:
    empty = [Skeleton(clip_id=one.clip_id, width=640, height=360, step=2, intensity=0.0, keypoints=one.keypoints * 0,
                      keypoint_scores=one.keypoint_scores * 0) for one in CLIPS[:14]]  # fmt: skip
    chosen = params()
    with pytest.raises(UserError, match="No training clip shows a tracked person"):
        fit(empty, CLIPS[14:], LABELS, chosen.train, chosen.windows)


def test_the_package_gives_the_probabilities_of_the_trained_model(trained: Trained, loaded: package.Package) -> None:
    found = [predict_skeleton(loaded, one).probability for one in CLIPS[14:]]
    assert found == pytest.approx(trained.val_probabilities.tolist(), abs=1e-5)
    assert loaded.threshold == trained.threshold


def test_the_verdict_does_not_depend_on_resolution_or_place_in_the_picture(loaded: package.Package) -> None:
    for one in CLIPS[:4]:
        moved = Skeleton(clip_id=one.clip_id, width=1280, height=720, step=2, intensity=0.6, keypoint_scores=one.keypoint_scores,
                         keypoints=one.keypoints * 2 + 100)  # fmt: skip
        assert predict_skeleton(loaded, moved).probability == pytest.approx(
            predict_skeleton(loaded, one).probability, abs=1e-3
        )


@pytest.mark.parametrize("frames", [1, 7, 30, 31, 95])
def test_clips_of_any_length_get_a_verdict_and_windows_in_frames_of_the_video(
    loaded: package.Package, frames: int
) -> None:
    found = predict_skeleton(loaded, clip(50, fighting=True, frames=frames))
    assert 0 <= found.probability <= 1
    assert found.start_frame[0] == 0
    assert found.end_frame[-1] == 2 * frames
    table = found.to_table("3")
    assert table.schema == PREDICTIONS_SCHEMA
    assert table.column("verdict").to_pylist() == [found.verdict] * len(table)


def test_a_clip_without_persons_is_no_fight_and_says_that_it_saw_nothing(loaded: package.Package) -> None:
    one = CLIPS[1]
    empty = Skeleton(clip_id=one.clip_id, width=640, height=360, step=1, intensity=0.0, keypoints=one.keypoints * 0,
                     keypoint_scores=one.keypoint_scores * 0)  # fmt: skip
    found = predict_skeleton(loaded, empty)
    assert (found.verdict, found.probability, found.weights.tolist()) == ("NonFight", 0.0, [0.0])
    assert (found.shows_nobody, found.confidence) == (True, 0.5)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "thresholds.json"])
def test_a_damaged_package_is_refused_in_one_sentence(trained: Trained, tmp_path: Path, name: str) -> None:
    package.save(trained, tmp_path, {})
    (tmp_path / name).write_bytes(b"\x80\x04 no such thing")
    with pytest.raises(UserError, match="is no usable model package"):
        package.load(tmp_path)
    for strange in ("null", '"x"', "[" * 20_000):
        (tmp_path / name).write_text(strange)
        with pytest.raises(UserError, match="is no usable model package"):
            package.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match="is no usable model package"):
        package.load(tmp_path)


def test_the_model_card_and_the_plots_are_written(trained: Trained, tmp_path: Path) -> None:
    package.save(trained, tmp_path, {"dataset_revision": "abc"})
    assert "| dataset_revision | abc |" in (tmp_path / "MODEL_CARD.md").read_text()
    assert json.loads((tmp_path / "thresholds.json").read_text())["threshold"] == trained.threshold
    plots.save_all(trained, tmp_path / "plots")
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        "curves.png",
        "confusion_matrix.png",
        "threshold.png",
        "ranking.png",
        "calibration.png",
    }


def test_mmaction2s_own_dataset_and_reference_pipeline_take_the_export_unchanged(tmp_path: Path) -> None:
    import violence_ops.openmmlab  # noqa: F401

    # isort: split
    import mmaction.datasets.transforms  # noqa: F401
    from mmaction.datasets import PoseDataset
    from mmengine.registry import init_default_scope

    init_default_scope("mmaction")
    path = tmp_path / "pose_dataset.pkl"
    split = {"train": [one.clip_id for one in CLIPS[:14]], "val": [one.clip_id for one in CLIPS[14:]]}
    path.write_bytes(pose_dataset(CLIPS, LABELS, split))
    assert path.read_bytes() == pose_dataset(CLIPS, dict(LABELS), split)
    pipeline = [
        {"type": "PreNormalize2D"}, {"type": "GenSkeFeat", "dataset": "coco", "feats": ["j"]},
        {"type": "UniformSampleFrames", "clip_len": 100}, {"type": "PoseDecode"},
        {"type": "FormatGCNInput", "num_person": 2}, {"type": "PackActionInputs"},
    ]  # fmt: skip
    data = PoseDataset(str(path), pipeline, split="val")
    assert len(data) == 6
    item = data[1]
    assert item["inputs"].shape == (1, 2, 100, 17, 3)
    assert item["data_samples"].gt_label.item() == (LABELS[CLIPS[15].clip_id] == "Fight")
    assert annotation(CLIPS[0], "Fight")["total_frames"] == 36
