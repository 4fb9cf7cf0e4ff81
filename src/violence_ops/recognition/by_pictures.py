"""Networks that look at pictures of a window's persons (`mobilenetv2_frames`, `resnet18_timeseries`).

A window is a fixed number of its pictures, evenly spread. Pictures stay bytes until a network takes a few windows at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from violence_ops.errors import UserError
from violence_ops.recognition.inputs import TrainingWindows
from violence_ops.recognition.model import Network, Settings, Windows
from violence_ops.recognition.pictures import Frames, Pictures
from violence_ops.recognition.skeleton import Skeleton, presence, to_train_on, windows
from violence_ops.records import LABELS

_WHITE = 255.0
_MOVED = 12  # a picture is moved by up to its side / _MOVED
_BRIGHTER = 0.3


class PictureNetwork(Network):
    """A network on the pictures that its configuration asks for (`pictures`)."""

    limits = (0.0, _WHITE)
    chunk = 8

    def __init__(self, settings: Settings, state: dict[str, Tensor] | None = None) -> None:
        super().__init__(settings, state)
        self._size, self._count = self.config.pictures.size, self.config.pictures.per_window

    def windows(self, skeleton: Skeleton) -> Windows:
        """Cut a clip into windows of pictures `(W, P, 3, S, S)` uint8, black in a clip without persons."""
        skeleton = skeleton.first(self.config.persons)
        cuts = windows(skeleton, self.settings.windows)
        if skeleton.is_empty:
            shape = (len(cuts), self._count, self._size, self._size, 3)
            return Windows(cuts, presence(skeleton, cuts), _as_input(np.zeros(shape, np.uint8)))
        pictures = self._pictures(skeleton)
        middles = np.full((len(cuts), self._count), 0.5)
        return Windows(
            cuts, presence(skeleton, cuts), _as_input(pictures.frames[_spread(pictures.spans(cuts), middles)])
        )

    def scores(self, inputs: Tensor) -> Tensor:
        """As any network's, of pictures from 0 to 255."""
        return super().scores(inputs * (2 / _WHITE) - 1)

    def training_windows(self, clips: Sequence[Skeleton], labels: Mapping[str, str]) -> TrainingWindows | None:
        """The windows of clips that show somebody, at most so many of a clip as the configuration says."""
        frames, spans, found, before = [], [], [], 0
        for skeleton in (one.first(self.config.persons) for one in clips):
            cuts = to_train_on(skeleton, self.settings.windows, self.config.max_windows_per_clip)
            if cuts:
                pictures = self._pictures(skeleton)
                frames.append(pictures.frames)
                spans.append(pictures.spans(cuts) + before)
                found += [LABELS.index(labels[skeleton.clip_id])] * len(cuts)
                before += len(pictures.frames)
        if not found:
            return None
        return _Augmented(np.concatenate(frames), np.concatenate(spans), np.array(found), self._count)

    def _pictures(self, skeleton: Skeleton) -> Pictures:
        if skeleton.pictures is None:
            raise UserError(
                f"{self.settings.family} looks at pictures, and clip {skeleton.clip_id or 'without a name'} came without any: "
                "judge the video itself with `violence-ops predict`."
            )
        return skeleton.pictures


class _Augmented:
    """Windows of pictures, a mini-batch drawn at once: which pictures, mirrored or not, moved a little, brighter or darker."""

    def __init__(self, frames: Frames, spans: NDArray[np.int64], labels: NDArray[np.int64], count: int) -> None:
        self._frames, self._spans, self.labels, self._count = frames, spans, labels, count

    def mini_batch(self, rows: NDArray[np.int64], chance: np.random.Generator) -> Tensor:
        chosen = _spread(self._spans[rows], chance.random((len(rows), self._count)))
        side = np.arange(self._frames.shape[1])
        most = len(side) // _MOVED
        down, across = (np.clip(side + chance.integers(-most, most + 1, (len(rows), 1)), 0, side[-1]) for _ in "yx")
        mirrored = chance.random((len(rows), 1)) < 0.5
        across = np.where(mirrored, across[:, ::-1], across)
        found = self._frames[chosen[:, :, None, None], down[:, None, :, None], across[:, None, None, :]]
        light = chance.uniform(1 - _BRIGHTER, 1 + _BRIGHTER, len(rows)).astype(np.float32)
        return (_as_input(found) * torch.from_numpy(light)[:, None, None, None, None]).clamp(max=_WHITE)


def _spread(spans: NDArray[np.int64], places: NDArray[np.float64]) -> NDArray[np.int64]:
    """Of each span `(W, 2)` as many pictures as there are places `(W, P)` in [0, 1), each in its own part of it (TSN's sampling)."""
    first, end = spans[:, :1], spans[:, 1:]
    parts = (np.arange(places.shape[1]) + places) / places.shape[1]
    return np.asarray(np.minimum(first + (parts * (end - first)).astype(np.int64), end - 1))


def _as_input(frames: Frames) -> Tensor:
    """`(W, P, S, S, 3)` as networks take it, `(W, P, 3, S, S)`."""
    return torch.from_numpy(frames).permute(0, 1, 4, 2, 3).contiguous()
