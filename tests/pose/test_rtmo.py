"""The estimator gives what MMPose's own pipeline gives, whatever else is in the mini-batch."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from violence_ops import synthetic
from violence_ops.errors import UsageError
from violence_ops.letterbox import Letterbox
from violence_ops.pose import config, weights
from violence_ops.pose.backends import Backend, BackendName, open_backend, processors
from violence_ops.pose.minibatch import Grower
from violence_ops.pose.quality import overlaps
from violence_ops.pose.rtmo import PoseEstimator
from violence_ops.pose.suppression import distinct, suppress
from violence_ops.pose.weights import Weights
from violence_ops.records import FramePoses

MMPOSE: dict[str, float] = {"score_threshold": 0.3, "nms_threshold": 0.35, "duplicate_distance": 0.0}
"""What MMPose's own configuration of RTMO has."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def estimator() -> PoseEstimator:
    return PoseEstimator("rtmo_small", backend="onnxruntime", **MMPOSE)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """The shipped weights without their refiner, which MMPose does not know."""
    model = weights.load(config.build(), weights.find("rtmo_small"))
    model.refiner = None
    return weights.save(model, tmp_path_factory.mktemp("weights") / "plain.safetensors")


def _mmpose(frame: np.ndarray, plain: Weights) -> Any:
    """The same frame through MMPose's transforms, model.test_step and de-normalisation."""
    from mmengine.dataset import Compose, pseudo_collate
    from mmengine.registry import init_default_scope

    settings = config.config()
    init_default_scope("mmpose")
    model = weights.load(config.build(), plain)
    box = Letterbox.of(frame.shape[1], frame.shape[0], config.fit())
    pipeline = Compose(
        [
            {"type": "BottomupResize", "input_size": (box.input_width, box.input_height), "pad_val": (114, 114, 114)},
            {
                "type": "PackPoseInputs",
                "meta_keys": ("ori_shape", "img_shape", "input_size", "input_center", "input_scale"),
            },
        ]
    )
    wanted = (MMPOSE["score_threshold"], MMPOSE["nms_threshold"])
    assert (settings.model.test_cfg.score_thr, settings.model.test_cfg.nms_thr) == wanted
    data = pseudo_collate([pipeline({"img": frame, "ori_shape": frame.shape[:2], "img_shape": frame.shape[:2]})])
    with torch.inference_mode():
        return model.test_step(data)[0].pred_instances  # type: ignore[operator]


@pytest.mark.parametrize("backend", ["torch", "openvino", "onnxruntime"])
@pytest.mark.parametrize("seed", [2, 4, 7], ids=lambda seed: f"clip {seed}")
def test_every_backend_finds_the_persons_of_mmpose_itself(backend: BackendName, seed: int, plain: Weights) -> None:
    frame = synthetic.clip(seed, duration_s=0.6).frame(3)
    ours, theirs = PoseEstimator(plain, backend=backend, **MMPOSE).estimate([frame])[0], _mmpose(frame, plain)
    assert len(ours) == len(theirs.bboxes)
    assert len(ours) > 0
    assert np.abs(ours.keypoints - theirs.keypoints).max() < 0.5
    assert np.abs(ours.keypoint_scores - theirs.keypoint_scores).max() < 1e-3
    assert np.abs(ours.scores - theirs.bbox_scores).max() < 1e-3


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_every_backend_refines_joints_as_the_reference_does(backend: BackendName, plain: Weights) -> None:
    wide = [synthetic.clip(7, duration_s=0.6).frame(number) for number in (1, 3, 5)]
    narrow = [
        frame[:, : frame.shape[0] * 4 // 3] for frame in wide
    ]  # another input size for the same network of joints
    estimators = (
        PoseEstimator("rtmo_small", **MMPOSE),
        PoseEstimator("rtmo_small", backend=backend, **MMPOSE),
        PoseEstimator(plain, backend=backend, **MMPOSE),
    )
    found = [one.estimate(wide) + one.estimate(narrow) for one in estimators]
    for first, second, third in zip(*found, strict=True):
        assert len(first) == len(second) == len(third) > 0
        assert np.abs(first.keypoints - second.keypoints).max() < 0.5
        assert np.abs(first.keypoints - third.keypoints).max() > 0.5
        assert np.array_equal(second.bboxes, third.bboxes)


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_pictures_of_a_mini_batch_are_refined_each_by_its_own_features(backend: BackendName) -> None:
    """On a GPU several pictures are computed at once; here the backends are asked for that directly."""
    network = open_backend(backend, weights.find("rtmo_small"), "cpu", "fp32")
    frames = [synthetic.clip(7, duration_s=0.6).frame(number) for number in (1, 5)]
    pictures = [Letterbox.of(frame.shape[1], frame.shape[0], config.fit()).apply(frame) for frame in frames]
    together, alone = _joints(network, pictures), [_joints(network, [picture]) for picture in pictures]
    assert all(len(each) for each in alone)
    assert np.abs(together - np.concatenate(alone)).max() < 0.01


def _joints(network: Backend, pictures: list[np.ndarray]) -> np.ndarray:
    """Joints of all candidates after the second look, picture by picture, in the order of their cells."""
    found = network.candidates(np.stack(pictures), 0.3)
    order = np.lexsort((*found.centres.T, found.picture))
    corners = found.boxes[order]
    frames = np.hstack([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]])
    return network.refined(found, order, frames, network.joints(found, order, frames))


def test_with_a_distance_doubles_go_and_everybody_else_stays_as_he_was() -> None:
    frame = synthetic.clip(4, duration_s=0.6).frame(3)
    wide, strict = (
        PoseEstimator(
            "rtmo_small", backend="onnxruntime", score_threshold=0.3, nms_threshold=0.9, duplicate_distance=distance
        )
        for distance in (0.0, 0.25)
    )
    everybody, people = wide.estimate([frame])[0], strict.estimate([frame])[0]
    assert 0 < len(people) < len(everybody)
    stayed = (everybody.scores[:, None] == people.scores).any(axis=1)
    assert np.array_equal(people.keypoints, everybody.keypoints[stayed])
    assert len(distinct(people.keypoints, people.bboxes, 0.25)) == len(people)
    assert (overlaps(everybody.bboxes[~stayed], people.bboxes).max(axis=1) > 0.5).all()


def test_nobody_is_a_double_of_somebody_in_another_picture_of_the_mini_batch(
    estimator: PoseEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU pictures are looked at together; here the estimator is told to."""
    monkeypatch.setattr(estimator, "duplicate_distance", 0.25)
    frame = synthetic.clip(4, duration_s=0.6).frame(3)
    alone = estimator.estimate([frame])[0]
    monkeypatch.setattr(estimator, "_grower", Grower(3, 3))
    together = estimator.estimate([frame] * 3)
    assert [len(each) for each in together] == [len(alone)] * 3
    assert len(alone) > 0


def test_a_backend_refuses_a_precision_it_does_not_have() -> None:
    with pytest.raises(UsageError, match=r"no int8: set pose\.precision to fp32, or another pose\.backend"):
        PoseEstimator("rtmo_small", backend="onnxruntime", precision="int8", **MMPOSE)


def test_a_frame_gets_the_same_poses_whatever_else_is_in_the_mini_batch(estimator: PoseEstimator) -> None:
    frames = list(synthetic.clip(4, duration_s=0.6).frames())[:6]
    together, alone = estimator.estimate(frames), [estimator.estimate([frame])[0] for frame in frames]
    assert len(together) == len(frames)
    for first, second in zip(together, alone, strict=True):
        assert len(first) == len(second)
        assert np.abs(first.keypoints - second.keypoints).max(initial=0.0) < 0.01


def test_the_same_frames_give_the_same_numbers_bit_for_bit(estimator: PoseEstimator) -> None:
    frames = list(synthetic.clip(7, duration_s=0.6).frames())[:5]
    first, second = estimator.estimate(frames), estimator.estimate(frames)
    assert all(np.array_equal(a.keypoints, b.keypoints) for a, b in zip(first, second, strict=True))


def test_an_empty_picture_has_nobody_and_no_frames_have_no_answers(estimator: PoseEstimator) -> None:
    nobody = estimator.estimate([np.full((240, 320, 3), 114, np.uint8)])[0]
    assert isinstance(nobody, FramePoses)
    assert nobody.keypoints.shape == (0, 17, 2)
    assert nobody.bboxes.shape == (0, 4)
    assert estimator.estimate([]) == []


def test_a_person_moves_with_the_picture(estimator: PoseEstimator) -> None:
    """Shifting the picture shifts the strongest person."""
    frame = synthetic.clip(4, duration_s=0.6).frame(3)
    shifted = np.roll(frame, 32, axis=1)
    here, there = estimator.estimate([frame])[0], estimator.estimate([shifted])[0]
    distance = there.keypoints.mean(axis=1)[:, 0][None] - here.keypoints.mean(axis=1)[:, 0][:, None]
    assert np.abs(distance[0] - 32).min() < 8


@pytest.mark.parametrize(("width", "height"), [(640, 360), (320, 240), (960, 540), (200, 700), (33, 31)], ids=str)
def test_frames_are_fitted_into_the_input_without_distortion(width: int, height: int) -> None:
    box = Letterbox.of(width, height, config.fit())
    size = np.array([box.input_width, box.input_height])
    corners = np.array([[0, 0], [width, height]]) * box.scale + box.offset
    assert max(size) == config.NETWORKS[config.OWN].long_side
    assert (size % 32 == 0).all()
    assert (corners[0] >= -1e-6).all()
    assert (corners[1] <= size + 1e-6).all()
    assert np.isclose(corners[1] - corners[0], size).any()
    assert np.allclose(box.to_frame(corners.astype(np.float32)), [[0, 0], [width, height]], atol=1e-2)


def test_suppression_keeps_the_strongest_of_overlapping_boxes() -> None:
    boxes = np.array([[0, 0, 10, 10.0], [1, 1, 11, 11], [20, 20, 30, 30], [0, 0, 10, 9]])
    assert suppress(boxes, 0.35).tolist() == [0, 2]
    assert suppress(boxes[:0], 0.35).tolist() == []


def test_openvino_runs_a_picture_per_processor_and_counts_no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = open_backend("openvino", weights.find("rtmo_small"), "cpu", "fp32")
    streams, guard, now = processors(), threading.Lock(), [0, 0]

    class Slow:
        """A request that does nothing for long."""

        def __init__(self) -> None:
            nobody = np.zeros((1, 2), np.float32)
            self.output_tensors = [SimpleNamespace(data=part) for part in (nobody, nobody, nobody, nobody)]
            self.took = 0.0

        def infer(self, *_: object, **__: object) -> None:
            with guard:
                now[:] = now[0] + 1, max(now[1], now[0] + 1)
            began = time.perf_counter()
            time.sleep(0.5)
            self.took = time.perf_counter() - began
            with guard:
                now[0] -= 1

    monkeypatch.setattr(backend, "_network", lambda *_: None)
    monkeypatch.setattr(backend, "_centres", {(32, 32): np.zeros((2, 2), np.float32)})

    own = threading.local()
    monkeypatch.setattr(backend, "_request", lambda *_: own.request)

    def other_costs(_: int) -> float:
        """What a call cost beside running its picture."""
        own.request, before = Slow(), backend.clock()
        backend.candidates(np.zeros((1, 32, 32, 3), np.uint8), 0.5)
        return backend.clock() - before - own.request.took

    with ThreadPoolExecutor(2 * streams) as pool:
        costs = list(pool.map(other_costs, range(2 * streams)))
    assert now[1] <= streams
    assert max(costs) < 0.25, "half of them waited for half a second"
