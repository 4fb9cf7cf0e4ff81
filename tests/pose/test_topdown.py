"""The second source of poses: two models given as files, found good or refused in a sentence."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from violence_ops.pose import coco
from violence_ops.pose.agreement import agreement
from violence_ops.pose.rtmo import PoseEstimator
from violence_ops.pose.topdown import TopDown
from violence_ops.pose.weights import WeightsError
from violence_ops.stages.poses.weights import teacher_files

DATA = Path(__file__).parents[3] / "shared" / "data"
THRESHOLDS: dict[str, float] = {"score_threshold": 0.3, "nms_threshold": 0.5, "duplicate_distance": 0.0}
needs_models = pytest.mark.skipif(
    not (DATA / "teachers").is_dir(), reason="needs the detector and the keypoint model in ../shared/data/teachers"
)


@pytest.fixture(scope="module")
def models() -> tuple[Path, Path]:
    return teacher_files(DATA / "teachers")


@pytest.fixture(scope="module")
def source(models: tuple[Path, Path]) -> TopDown:
    return TopDown(*models, **THRESHOLDS)


@needs_models
def test_the_people_of_labelled_pictures_are_found(source: TopDown) -> None:
    found = agreement(source, coco.pictures(DATA / "keypoints" / "coco" / "test_coco.json"), 0.3).share()
    assert found.persons == 12
    assert found.pose_recall is not None
    assert found.pose_recall >= 0.8


@needs_models
def test_an_empty_picture_holds_nobody(source: TopDown) -> None:
    grey = np.full((240, 320, 3), 114, np.uint8)
    noise = np.random.default_rng(0).integers(0, 255, (360, 640, 3)).astype(np.uint8)
    assert [len(source.estimate([picture])[0]) for picture in (grey, noise, np.zeros_like(grey))] == [0, 0, 0]


@needs_models
@pytest.mark.parametrize("shape", [(64, 64), (90, 400), (400, 90)], ids=str)
@pytest.mark.parametrize("thorough", [False, True])
def test_pictures_of_any_shape_are_taken(models: tuple[Path, Path], shape: tuple[int, int], thorough: bool) -> None:
    pictures = [np.full((*shape, 3), 90, np.uint8)] * 2
    assert len(TopDown(*models, thorough=thorough, **THRESHOLDS).estimate(pictures)) == 2


@needs_models
def test_it_answers_as_rtmo_does(source: TopDown) -> None:
    """Same fields, types and shapes, strongest first, inside the picture, so that all that follows takes either."""
    picture = next(iter(coco.pictures(DATA / "keypoints" / "coco" / "test_coco.json"))).sample.image
    answers = [each.estimate([picture])[0] for each in (source, PoseEstimator("rtmo_small", **THRESHOLDS))]
    for found in answers:
        assert len(found) >= 1
        assert (np.diff(found.scores) <= 0).all()
        assert ((found.scores >= 0.3) & (found.scores <= 1)).all()
        assert ((found.keypoint_scores >= 0) & (found.keypoint_scores <= 1)).all()
        assert (found.bboxes >= 0).all()
        assert (found.bboxes <= [picture.shape[1], picture.shape[0]] * 2).all()
    for name in ("keypoints", "keypoint_scores", "bboxes", "scores"):
        ours, theirs = (getattr(found, name) for found in answers)
        assert ours.dtype == theirs.dtype
        assert ours.shape[1:] == theirs.shape[1:]


@needs_models
def test_a_source_is_known_by_the_content_of_its_files(
    models: tuple[Path, Path], source: TopDown, tmp_path: Path
) -> None:
    again = tmp_path / "elsewhere.onnx"
    again.write_bytes(models[0].read_bytes())
    other = tmp_path / "other.onnx"
    other.write_bytes(models[0].read_bytes() + b"\x0a\x00")
    assert TopDown(again, models[1], **THRESHOLDS).sha256 == source.sha256
    assert TopDown(other, models[1], **THRESHOLDS).sha256 != source.sha256


def test_a_missing_file_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"There is no model file .*gone\.onnx: give the path"):
        TopDown(tmp_path / "gone.onnx", tmp_path / "gone.tflite", **THRESHOLDS)


@pytest.mark.parametrize("name", ["detector.onnx", "detector.tflite", "detector.xml", "detector.bin"])
@pytest.mark.parametrize(
    "content", [b"", b"this is no model\n" * 100, bytes(range(256)) * 20], ids=["empty", "text", "bytes"]
)
def test_a_file_that_is_no_model_is_refused_in_a_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{name} is no model that can be read here") as refused:
        TopDown(tmp_path / name, tmp_path / name, **THRESHOLDS)
    assert "\n" not in str(refused.value)


@needs_models
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param(lambda one, two: (two, two), "is no YOLOX detector: its output is", id="joints as detector"),
        pytest.param(lambda one, two: (one, one), "is no model of 17 joints: its output is", id="detector as joints"),
    ],
)
def test_models_in_the_wrong_place_are_refused(
    models: tuple[Path, Path], change: Callable[[Path, Path], tuple[Path, Path]], sentence: str
) -> None:
    with pytest.raises(WeightsError, match=sentence):
        TopDown(*change(*models), **THRESHOLDS)


@needs_models
def test_half_a_model_is_refused(models: tuple[Path, Path], tmp_path: Path) -> None:
    halves = [tmp_path / path.name for path in models]
    for half, whole in zip(halves, models, strict=True):
        half.write_bytes(whole.read_bytes()[:100_000])
    for pair in ((halves[0], models[1]), (models[0], halves[1])):
        with pytest.raises(WeightsError, match="is no model that can be read here"):
            TopDown(*pair, **THRESHOLDS)
