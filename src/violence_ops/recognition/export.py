"""Skeletons in the form of MMAction2's `PoseDataset`: one annotation per clip, and the pickle it reads.

The pickle is for the data scientist's own MMAction2 configurations; this project writes it and never reads one.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from violence_ops.params import WindowParams
from violence_ops.recognition.skeleton import Skeleton, views, views_there, windows
from violence_ops.records import LABELS

Annotation = dict[str, Any]
"""One item of MMAction2's `PoseDataset`: frame_dir, label, img_shape, original_shape, total_frames, keypoint `(M, T, 17, 2)`
px, keypoint_score `(M, T, 17)`."""


def annotation(skeleton: Skeleton, label: str | None, start: int = 0, end: int | None = None) -> Annotation:
    """A clip, or the frames `[start, end)` of it. An unlabelled one has label index 0."""
    keypoints = skeleton.keypoints[:, start:end]
    shape = (skeleton.height, skeleton.width)
    return {
        "frame_dir": skeleton.clip_id,
        "label": LABELS.index(label) if label else 0,
        "img_shape": shape,
        "original_shape": shape,
        "total_frames": keypoints.shape[1],
        "keypoint": np.array(keypoints, np.float32),
        "keypoint_score": np.array(skeleton.keypoint_scores[:, start:end], np.float32),
    }


def pose_dataset(skeletons: Sequence[Skeleton], labels: Mapping[str, str], split: Mapping[str, Sequence[str]]) -> bytes:
    """The pickle that MMAction2's `PoseDataset` reads: `split` (name to clip_ids) and one annotation per clip."""
    content = {
        "split": {name: list(clip_ids) for name, clip_ids in split.items()},
        "annotations": [annotation(one, labels[one.clip_id]) for one in skeletons],
    }
    return pickle.dumps(content, protocol=4)


def window_dataset(
    skeletons: Mapping[str, Skeleton],
    labels: Mapping[str, str],
    split: Mapping[str, Sequence[str]],
    params: WindowParams,
    at_a_time: int,
    at_most: Mapping[str, int],
) -> tuple[bytes, dict[str, int]]:
    """The same pickle with an annotation per window and choice of `at_a_time` persons who are in it, as the classifier sees a
    clip, and how many each side has; `frame_dir` is `<clip_id>/<start>-<end>/<rank>+<rank>`.

    `at_most` limits the windows of a clip, spread evenly, on the sides it names, where windows that show nobody are left out
    too, as in training. On the other sides every window is there.
    """
    shown = views(params.persons, at_a_time)
    names: dict[str, list[str]] = {}
    annotations = []
    for side, clip_ids in split.items():
        names[side] = []
        for clip_id in clip_ids:
            skeleton = skeletons[clip_id]
            seen = [skeleton.only(view) for view in shown]
            cuts = windows(skeleton, params)
            cuts = cuts[:: math.ceil(len(cuts) / at_most.get(side, len(cuts)))]
            for row, view in np.argwhere(views_there(skeleton, cuts, shown)):
                start, end = cuts[row]
                if side in at_most and not seen[view].keypoint_scores[:, start:end].any():
                    continue
                name = f"{clip_id}/{start}-{end}/{'+'.join(str(person + 1) for person in shown[view])}"
                names[side].append(name)
                annotations.append(annotation(seen[view], labels[clip_id], start, end) | {"frame_dir": name})
    counts = {side: len(found) for side, found in names.items()}
    return pickle.dumps({"split": names, "annotations": annotations}, protocol=4), counts
