"""Training images: labelled pictures, augmented, with targets in the pixels of the model's input."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from violence_ops.letterbox import PADDING

SHAPES = ((416, 256), (352, 224), (320, 256))  # width, height of a mini-batch's images, px
_SHAPE_SHARES = (0.3, 0.45, 0.25)
MIRRORED = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
MIN_SIZE = 14.0  # px; a person who is smaller, or shows fewer than 4 joints, is neither wanted nor wrong
MIN_JOINTS = 4


@dataclass(frozen=True)
class Sample:
    """image (H, W, 3) uint8 BGR; keypoints (P, 17, 2), bboxes (P, 4) px; visibility (P, 17) 0/1/2; ignored (P,) bool.

    A person whose joints are all 0 and who is not ignored is known by the box alone.
    """

    image: np.ndarray
    keypoints: np.ndarray
    visibility: np.ndarray
    bboxes: np.ndarray
    ignored: np.ndarray


Draw = Callable[[np.random.Generator], list[Sample]]


def sample(image: np.ndarray, keypoints: np.ndarray, visibility: np.ndarray, bboxes: np.ndarray) -> Sample:
    """A labelled picture as a sample in its own pixels."""
    return Sample(image, keypoints, visibility, bboxes, ignored(visibility, bboxes))


def ignored(visibility: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(P,) persons too small or too hidden to be asked for."""
    return np.asarray(((visibility == 2).sum(axis=1) < MIN_JOINTS) | _tiny(boxes))


def _tiny(boxes: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]) < MIN_SIZE)


def mini_batches(draw: Draw, seed: int, size: int, start: int = 0) -> Iterator[list[Sample]]:
    """Endless mini-batches of `size` augmented samples of one shape; number n depends on `seed` and n alone.

    `draw` gives some samples in their own pixels for a random generator.
    """
    for number in itertools.count(start):
        rng = np.random.default_rng([seed, number, 5])
        shape = SHAPES[rng.choice(len(SHAPES), p=_SHAPE_SHARES)]
        batch: list[Sample] = []
        while len(batch) < size:
            batch += [augment(drawn, shape, rng) for drawn in draw(rng)]
        yield batch[:size]


def augment(sample: Sample, shape: tuple[int, int], rng: np.random.Generator) -> Sample:
    """The sample scaled, turned, mirrored and recoloured into an image of `shape` (width, height)."""
    matrix = _placement(sample, shape, rng)
    image = cv2.warpAffine(sample.image, matrix, shape, flags=cv2.INTER_LINEAR, borderValue=(PADDING,) * 3)
    keypoints = sample.keypoints @ matrix[:, :2].T + matrix[:, 2]
    x, y = sample.bboxes[:, [0, 2, 2, 0]], sample.bboxes[:, [1, 1, 3, 3]]
    corners = np.stack([x, y], axis=-1) @ matrix[:, :2].T + matrix[:, 2]
    visibility = sample.visibility.copy()
    if rng.random() < 0.5:
        image = np.ascontiguousarray(image[:, ::-1])
        keypoints, visibility = keypoints[:, MIRRORED], visibility[:, MIRRORED]
        keypoints[..., 0] = shape[0] - keypoints[..., 0]
        corners[..., 0] = shape[0] - corners[..., 0]
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    boxes = np.clip(boxes, 0, [shape[0], shape[1]] * 2)
    outside = (keypoints < 0).any(axis=-1) | (keypoints >= shape).any(axis=-1)
    visibility[outside] = 0
    left_out = sample.ignored | _tiny(boxes)
    left_out |= (sample.visibility == 2).any(axis=1) & ignored(visibility, boxes)
    kept = (boxes[:, 2] - boxes[:, 0] > 2) & (boxes[:, 3] - boxes[:, 1] > 2)
    return Sample(
        _recolour(_cover(image, rng), rng),
        keypoints[kept].astype(np.float32),
        visibility[kept],
        boxes[kept].astype(np.float32),
        left_out[kept],
    )


def _placement(sample: Sample, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(2, 3) affine map into the input: fitted, or zoomed around somebody, slightly turned."""
    height, width = sample.image.shape[:2]
    fit = min(shape[0] / width, shape[1] / height)
    scale = fit * float(np.exp(rng.uniform(np.log(0.7), np.log(2.6)))) if rng.random() < 0.7 else fit
    angle = float(rng.normal(0, 6)) if rng.random() < 0.5 else 0.0
    centre = np.array([width / 2, height / 2])
    if scale > fit and len(sample.bboxes):
        box = sample.bboxes[rng.integers(len(sample.bboxes))]
        pull = min(1.0, (scale / fit - 1.0) * 2)
        centre = centre + pull * ((box[:2] + box[2:]) / 2 - centre)
    matrix = cv2.getRotationMatrix2D(centre.tolist(), angle, scale)
    target = np.array(shape) / 2 + rng.uniform(-0.12, 0.12, 2) * shape * (scale != fit)
    matrix[:, 2] += target - centre
    return np.asarray(matrix)


def _cover(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sometimes hide a rectangle."""
    if rng.random() < 0.15:
        height, width = image.shape[:2]
        x, y = rng.integers(0, width), rng.integers(0, height)
        w, h = rng.uniform(0.05, 0.25, 2) * (width, height)
        image[y : y + int(h), x : x + int(w)] = rng.integers(0, 255, 3)
    return image


def _recolour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, colour cast, grey, blur, low resolution and JPEG artefacts, each at times."""
    if rng.random() < 0.7:
        gain, shift = rng.uniform(0.65, 1.4, 3) ** 0.5 * rng.uniform(0.7, 1.3), rng.uniform(-25, 25)
        table = np.clip(np.arange(256)[:, None] * gain + shift, 0, 255).astype(np.uint8)
        image = cv2.LUT(image, table[None])
    if rng.random() < 0.15:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    choice = rng.random()
    if choice < 0.12:
        image = cv2.GaussianBlur(image, (5, 5), rng.uniform(0.5, 1.6))
    elif choice < 0.2:
        length = int(rng.integers(3, 8))
        image = cv2.blur(image, (length, 1) if rng.random() < 0.5 else (1, length))
    elif choice < 0.32:
        height, width = image.shape[:2]
        share = rng.uniform(0.4, 0.8)
        small = cv2.resize(image, (int(width * share), int(height * share)), interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.4:
        _, packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 85))])
        image = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))
    return image
