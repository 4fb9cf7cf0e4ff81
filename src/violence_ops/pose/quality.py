"""How good poses are: object keypoint similarity (OKS), recall and average precision, as COCO defines them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from violence_ops.pose.samples import Sample
from violence_ops.records import FramePoses

SIGMAS = (
    np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89], dtype=np.float64) / 1000
)  # COCO's per-joint deviations
THRESHOLDS = np.arange(0.5, 1.0, 0.05)
AREA_SHARE = 0.53  # of a box is the person: the convention where no outline is known


def oks(predicted: np.ndarray, true: np.ndarray, labelled: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """(N, M) similarity of predicted poses (N, 17, 2) px and true ones (M, 17, 2) px over their labelled joints (M, 17).

    exp(-d² / (2 s² k²)) with k = 2σ, averaged over the labelled joints; s² is `areas` (M,) px². A person without
    labelled joints has similarity 0.
    """
    squared = ((predicted[:, None] - true[None]) ** 2).sum(axis=-1)
    scaled = squared / (2 * np.maximum(areas, 1.0)[None, :, None] * (2 * SIGMAS) ** 2)
    count = np.maximum(labelled.sum(axis=1), 1)
    return np.asarray((np.exp(-scaled) * labelled[None]).sum(axis=-1) / count[None])


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, M) intersection over union of boxes (N, 4) and (M, 4), xyxy."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = np.maximum(high - low, 0)
    common = sides[..., 0] * sides[..., 1]
    areas = [(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) for boxes in (first, second)]
    return np.asarray(common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-9))


@dataclass(frozen=True)
class Judgement:
    """One frame: OKS (N, M) and box overlap (N, M) of N found and M true persons, scores (N,), ignored (M,)."""

    similarity: np.ndarray
    overlap: np.ndarray
    scores: np.ndarray
    ignored: np.ndarray


@dataclass(frozen=True)
class PoseQuality:
    """AP over OKS 0.50:0.95 and at 0.50; recall and precision at OKS 0.5; recall of boxes at IoU 0.5; persons judged."""

    average_precision: float
    average_precision_50: float
    recall_50: float
    precision_50: float
    box_recall_50: float
    persons: int


def judge(found: FramePoses, truth: Sample, areas: np.ndarray | None = None) -> Judgement:
    """Compare what was found in a frame with the truth, over the joints that can be seen.

    `areas` (M,) px² of the persons' outlines, where they are known.
    """
    if areas is None:
        areas = AREA_SHARE * (truth.bboxes[:, 2:] - truth.bboxes[:, :2]).prod(axis=-1)
    similarity = oks(found.keypoints, truth.keypoints, truth.visibility == 2, areas)
    return Judgement(similarity, overlaps(found.bboxes, truth.bboxes), found.scores, truth.ignored)


def measure(judgements: Sequence[Judgement], score_threshold: float) -> PoseQuality:
    """Quality over frames of what scores at least `score_threshold`.

    Found persons are matched in falling order of score, each to the free true person most like it (COCO's rule);
    precision is interpolated at 101 recalls. Who is ignored counts neither way.
    """
    kept = [_above(judgement, score_threshold) for judgement in judgements]
    persons = int(sum((~judgement.ignored).sum() for judgement in kept))
    scores = np.concatenate([judgement.scores for judgement in kept])
    curves = []
    for threshold in THRESHOLDS.tolist():
        hits = np.concatenate([match(j.similarity, j.scores, j.ignored, threshold) for j in kept])
        curves.append(_curve(hits, scores, persons))
    boxes = np.concatenate([match(j.overlap, j.scores, j.ignored, 0.5) for j in kept])
    return PoseQuality(
        average_precision=float(np.mean([curve[0] for curve in curves])),
        average_precision_50=curves[0][0],
        recall_50=curves[0][1],
        precision_50=curves[0][2],
        box_recall_50=float((boxes == 1).sum() / max(persons, 1)),
        persons=persons,
    )


def _above(judgement: Judgement, threshold: float) -> Judgement:
    strong = judgement.scores >= threshold
    return Judgement(
        judgement.similarity[strong], judgement.overlap[strong], judgement.scores[strong], judgement.ignored
    )


def match(similarity: np.ndarray, scores: np.ndarray, ignored: np.ndarray, threshold: float) -> np.ndarray:
    """(N,) for each found person 1 (hit), 0 (false), or -1 (matches somebody who does not count)."""
    partners = _partners(similarity, scores, ignored, threshold)
    near_ignored = (similarity[:, ignored] > 0.1).any(axis=1)
    return np.where(partners >= 0, 1, np.where(near_ignored, -1, 0))


def recalled(
    similarity: np.ndarray, scores: np.ndarray, ignored: np.ndarray, score_threshold: float, threshold: float = 0.5
) -> np.ndarray:
    """(M,) whether each true person is matched (as by `match`) by somebody found with at least `score_threshold`."""
    strong = scores >= score_threshold
    partners = _partners(similarity[strong], scores[strong], ignored, threshold)
    return np.isin(np.arange(len(ignored)), partners)


def _partners(similarity: np.ndarray, scores: np.ndarray, ignored: np.ndarray, threshold: float) -> np.ndarray:
    """(N,) the true person that each found one is matched to, or -1."""
    partners = np.full(len(scores), -1)
    free = ~ignored
    for index in np.argsort(-scores, kind="stable"):
        row = np.where(free, similarity[index], -1.0)
        if row.size and row.max() >= threshold:
            partners[index] = row.argmax()
            free[partners[index]] = False
    return partners


def _curve(hits: np.ndarray, scores: np.ndarray, persons: int) -> tuple[float, float, float]:
    """Interpolated average precision, final recall, final precision."""
    flat = hits[np.argsort(-scores, kind="stable")]
    flat = flat[flat >= 0]
    if persons == 0 or len(flat) == 0:
        return 0.0, 0.0, 0.0
    true = np.cumsum(flat)
    recall = true / persons
    precision = true / np.arange(1, len(flat) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    sampled = np.where(places < len(envelope), envelope[np.minimum(places, len(envelope) - 1)], 0.0)
    return float(sampled.mean()), float(recall[-1]), float(precision[-1])
