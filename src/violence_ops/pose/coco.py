"""Labelled pictures in COCO's keypoint format."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from violence_ops.errors import InputUnusable
from violence_ops.pose.agreement import Labelled
from violence_ops.pose.samples import Sample


def pictures(annotations: Path) -> Iterator[Labelled]:
    """The pictures of an annotation file, which lie beside it.

    All labelled joints count as seen, as in COCO's OKS; persons without any, and crowds, are ignored.

    Raises:
        InputUnusable: the file is no COCO annotation, or a picture of it cannot be read.
    """
    try:
        content = json.loads(annotations.read_text("utf-8"))
        people = defaultdict(list)
        for annotation in content["annotations"]:
            people[annotation["image_id"]].append(annotation)
        listed = [(annotations.parent / image["file_name"], people[image["id"]]) for image in content["images"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputUnusable(f"{annotations} is no file of COCO keypoint annotations ({error!r}).") from None
    for path, persons in listed:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise InputUnusable(f"{annotations} names {path.name}, which is not beside it or is no picture.")
        yield _labelled(np.asarray(image, np.uint8), persons)


def _labelled(image: np.ndarray, persons: list[dict[str, Any]]) -> Labelled:
    rows = np.array([person["keypoints"] for person in persons], np.float32).reshape(-1, 17, 3)
    boxes = np.array([person["bbox"] for person in persons], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    left_out = [person["num_keypoints"] == 0 or bool(person.get("iscrowd")) for person in persons]
    visibility = np.where(rows[..., 2] > 0, 2, 0).astype(np.uint8)
    sample = Sample(image, rows[..., :2].copy(), visibility, boxes, np.array(left_out, bool))
    return Labelled(sample, np.array([person["area"] for person in persons], np.float64))
