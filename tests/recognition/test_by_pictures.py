"""What the families on pictures see of a clip, and that they keep the promises of all families."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import violence_ops.params
from violence_ops.errors import ParamsError, UserError
from violence_ops.params import Params, load_params
from violence_ops.recognition import ensemble, model, package
from violence_ops.recognition.by_pictures import _spread
from violence_ops.recognition.families import fit
from violence_ops.recognition.model import Settings
from violence_ops.recognition.pictures import Asked, Pictures
from violence_ops.recognition.predict import predict_skeleton
from violence_ops.recognition.skeleton import Skeleton

PARAMS = Path(__file__).parents[2] / "params.yaml"
ASKED = Asked(size=64, per_second=5, persons=2)


def params(family: str, **overrides: object) -> Params:
    small = {"train.family": family, "train.start": None, "train.epochs": 1, "train.min_epochs": 0}
    return load_params(PARAMS, small | {key.replace("__", "."): value for key, value in overrides.items()})


def clip(number: int, frames: int = 20, place: tuple[float, float] = (300, 200)) -> Skeleton:
    """Two persons 80 px tall, in the frame from its left top corner on."""
    rng = np.random.default_rng(number)
    keypoints = rng.uniform(0, 1, (2, frames, 17, 2)) * (40, 80) + place
    keypoints[1, ..., 0] += 50
    return Skeleton(
        clip_id=f"{number:020x}", width=640, height=360, step=2, intensity=0.6, keypoints=keypoints.astype(np.float32),
        keypoint_scores=np.full((2, frames, 17), 0.75, np.float32),
    )  # fmt: skip


CLIPS = [clip(i) for i in range(8)]
LABELS = {one.clip_id: "Fight" if i % 2 else "NonFight" for i, one in enumerate(CLIPS)}


def seen_by(asked: Asked, one: Skeleton, fps: float = 30.0, length: int | None = None) -> Pictures:
    """The pictures of a clip whose frames show their own number as grey, and its persons in red."""

    def look(indices: list[int]) -> list[np.ndarray]:
        frames = []
        for index in indices[:length]:
            frame = np.full((one.height, one.width, 3), index, np.uint8)
            low, high = (
                f(one.keypoints[one.keypoint_scores > 0].reshape(-1, 2), axis=0).astype(int) for f in (np.min, np.max)
            )
            frame[low[1] : high[1], low[0] : high[0]] = (0, 0, 255)
            frames.append(frame)
        return frames

    found = asked.of(one, fps, look).pictures
    assert found is not None
    return found


@pytest.mark.parametrize("place", [(300.0, 200.0), (0.0, 0.0), (550.0, 280.0)])
def test_pictures_are_cut_around_the_persons_wherever_they_are(place: tuple[float, float]) -> None:
    found = seen_by(ASKED, clip(0, place=place)).frames
    assert found.shape == (7, 64, 64, 3)
    red = (found == (255, 0, 0)).all(axis=-1)
    assert 0.4 < red[0].mean() < 0.75  # 90 x 80 px in a square of 1.3 x 90
    assert red[:, 20:44, 20:44].all() or place != (300.0, 200.0)


def test_pictures_are_so_many_a_second_and_know_their_place_on_the_skeleton() -> None:
    found = seen_by(ASKED, clip(0, frames=30))
    assert found.at.tolist() == [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]
    assert found.frames[:, 0, 0, 0].tolist() == [0, 6, 12, 18, 24, 30, 36, 42, 48, 54]
    slow = seen_by(ASKED, clip(0, frames=5), fps=3.0)  # fewer frames than are asked for: all of them
    assert slow.at.tolist() == [i / 2 for i in range(10)]
    assert len(seen_by(ASKED, clip(0, frames=30), length=4).frames) == 4  # a file that ends early


def test_a_scene_larger_than_the_frame_has_black_borders_and_keeps_its_shape() -> None:
    one = clip(0)
    spread = one.keypoints.copy()
    spread[0, :, :, 0], spread[1, :, :, 0] = 2, 630
    found = seen_by(ASKED, replace(one, keypoints=spread)).frames
    assert not found[1:, 0].any()
    assert not found[1:, -1].any()
    assert found[1:, 16].any()


@given(
    st.tuples(st.integers(48, 700), st.integers(48, 700)), st.tuples(st.floats(-60, 760), st.floats(-60, 760)),
    st.tuples(st.floats(0, 800), st.floats(0, 800)),
)  # fmt: skip
def test_a_picture_can_be_cut_wherever_joints_are_said_to_be(
    size: tuple[int, int], place: tuple[float, float], extent: tuple[float, float]
) -> None:
    one = replace(clip(0, frames=3), width=size[0], height=size[1])
    shape = np.random.default_rng(0).uniform(0, 1, (2, 3, 17, 2))
    moved = replace(one, keypoints=(np.array(place) + shape * extent).astype(np.float32))
    found = ASKED.of(moved, 30.0, lambda indices: [np.full((size[1], size[0], 3), 200, np.uint8)]).pictures
    assert found is not None
    assert (found.frames == 200).all(axis=-1).mean() > 0.05


def test_a_clip_without_people_or_frames() -> None:
    nobody = replace(clip(0), keypoint_scores=np.zeros((2, 20, 17), np.float32))
    assert ASKED.of(nobody, 30.0, lambda indices: pytest.fail("nothing is to be seen")).pictures is None
    with pytest.raises(UserError, match="no frame that decodes"):
        ASKED.of(clip(0), 30.0, lambda indices: [])


@given(st.lists(st.integers(0, 300), min_size=1, max_size=40, unique=True), st.data())
def test_every_window_has_pictures_of_its_own_frames_if_there_are_any(places: list[int], data: st.DataObject) -> None:
    found = Pictures(frames=np.zeros((len(places), 1, 1, 3), np.uint8), at=np.array(sorted(places), np.float32))
    start = data.draw(st.integers(0, 320))
    end = start + data.draw(st.integers(1, 60))
    ((first, last),) = found.spans([(start, end)])
    assert 0 <= first < last <= len(places)
    inside = [i for i, at in enumerate(found.at) if start <= at < end]
    assert list(range(first, last)) == inside or not inside
    count = data.draw(st.integers(1, 20))
    chosen = _spread(np.array([[first, last]]), np.random.default_rng(start).random((1, count)))[0]
    assert (np.diff(chosen) >= 0).all()
    assert first <= chosen[0] <= chosen[-1] < last
    assert len(set(chosen)) == min(count, last - first) or count < 2 * (last - first)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mobilenetv2_frames", "resnet18_timeseries"])
def test_a_training_that_was_cut_off_gives_the_same_bits(
    family: str, shown: Callable[..., list[Skeleton]], tmp_path: Path
) -> None:
    once, twice = params(family), params(family, train__epochs=2)
    clips = shown(CLIPS[:4], Settings.of(once.train, once.windows))

    def train(chosen: Params, checkpoint: Path | None) -> dict[str, torch.Tensor]:
        return fit(clips, clips[:2], LABELS, chosen.train, chosen.windows, None, checkpoint).state

    train(once, tmp_path / "training.pt")
    resumed, whole = train(twice, tmp_path / "training.pt"), train(twice, None)
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())


def test_a_mini_batch_is_the_seeds_and_pictures_differ_from_window_to_window(
    shown: Callable[..., list[Skeleton]],
) -> None:
    settings = Settings.of(params("resnet18_timeseries").train, params("resnet18_timeseries").windows)
    network = ensemble.network(settings)
    data = network.training_windows(shown(CLIPS, settings), LABELS)
    assert data is not None
    rows = np.array([0, 0, 5])
    first, again = (data.mini_batch(rows, np.random.default_rng(3)) for _ in range(2))
    assert first.shape == (3, 16, 3, 64, 64)
    assert torch.equal(first, again)
    assert 0 <= first.min() <= first.max() <= 255
    assert not torch.equal(first[0], first[1])
    assert data.labels.tolist() == [0, 1] * 4


def test_without_pictures_the_clip_is_not_judged_but_nobody_needs_none() -> None:
    settings = Settings.of(params("mobilenetv2_frames").train, params("mobilenetv2_frames").windows)
    judge = package.Package(settings, 0.5, ensemble.network(settings))
    with pytest.raises(UserError, match=r"mobilenetv2_frames looks at pictures, and clip 0+ came without any"):
        predict_skeleton(judge, CLIPS[0])
    nobody = replace(CLIPS[0], keypoint_scores=np.zeros((2, 20, 17), np.float32))
    assert predict_skeleton(judge, nobody).verdict == "NonFight"


def test_members_on_skeletons_and_on_pictures_judge_together_unless_they_want_different_pictures(
    shown: Callable[..., list[Skeleton]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "configs"
    shutil.copytree(model.FAMILIES, folder)
    for module in (model, violence_ops.params):
        monkeypatch.setattr(module, "FAMILIES", folder)
    for name, families in {
        "mixed": ["feature_line", "resnet18_timeseries"],
        "both": ["mobilenetv2_frames", "resnet18_timeseries"],
    }.items():
        content = ", ".join(f"dict(name='{one}', family='{one}')" for one in families)
        (folder / f"{name}.py").write_text(f"members = [{content}]\n")
    chosen, other = params("mixed"), params("both")
    clips = shown(CLIPS, Settings.of(chosen.train, chosen.windows))
    trained = fit(clips[:4], clips[4:], LABELS, chosen.train, chosen.windows)
    package.save(trained, tmp_path / "package", {})
    assert "from pictures of 64 px around the 2 most" in (tmp_path / "package" / "MODEL_CARD.md").read_text()
    judge = package.load(tmp_path / "package").recogniser
    assert isinstance(judge, ensemble.Ensemble)
    by_member = judge.by_member(judge.windows(clips[5]).inputs)
    for name, own in judge.members.items():
        assert by_member[name] == pytest.approx(own.probabilities(own.windows(clips[5]).inputs), abs=1e-5)
    with pytest.raises(ParamsError, match="members of both look at pictures of different sizes"):
        ensemble.pictures(Settings.of(other.train, other.windows))
