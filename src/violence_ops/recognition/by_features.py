"""What classifiers on hand-made features have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from violence_ops.recognition.features import features
from violence_ops.recognition.model import Settings, Windows
from violence_ops.recognition.skeleton import Skeleton, presence, windows
from violence_ops.records import FloatArray


def inputs(skeleton: Skeleton, cuts: Sequence[tuple[int, int]]) -> FloatArray:
    """The features of a clip's windows, `(W, F)`."""
    rows = [features(skeleton.keypoints[:, a:b], skeleton.keypoint_scores[:, a:b]) for a, b in cuts]
    return np.array([list(row.values()) for row in rows], np.float32)


class ByFeatures:
    """A classifier whose input is the features of a window."""

    settings: Settings

    def windows(self, skeleton: Skeleton) -> Windows:
        """Cut a clip and make the features of each window, `(W, F)`."""
        cuts = windows(skeleton, self.settings.windows)
        return Windows(cuts, presence(skeleton, cuts), torch.from_numpy(inputs(skeleton, cuts)))
