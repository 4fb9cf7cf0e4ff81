"""Building a classifier of a family from its MMAction2 configuration, and running it on windows."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

import violence_ops.openmmlab
import violence_ops.recognition.dataset
import violence_ops.recognition.fusion  # registers its network and skeleton_transformer's
import violence_ops.recognition.time_series  # noqa: F401 - registers its head
from violence_ops.deployment import compute_device
from violence_ops.errors import ParamsError
from violence_ops.params import FAMILIES, TrainParams, WindowParams, family_fault
from violence_ops.recognition import channels_first, vectorised
from violence_ops.recognition.export import annotation
from violence_ops.recognition.inputs import TrainingWindows, training_windows
from violence_ops.recognition.skeleton import (
    Skeleton,
    Stretch,
    blank,
    presence,
    to_train_on,
    views,
    views_there,
    windows,
)
from violence_ops.records import FloatArray

# isort: split
import mmaction.engine.model  # noqa: F401 - registers how AAGCN's weights begin
from mmaction.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

STREAMS = {"joint": "j", "bone": "b", "joint_motion": "jm", "bone_motion": "bm"}
"""The streams that a graph network can be shown, and what MMAction2 calls them."""
_MAX_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that is needed to build a classifier again, beside its weights."""

    family: str
    base_channels: int
    dropout: float
    windows: WindowParams
    streams: tuple[str, ...] = ("joint", "joint_motion")
    """What a graph network is shown, of `STREAMS`; packages of before it do not name it."""

    @classmethod
    def of(cls, train: TrainParams, windows: WindowParams) -> Settings:
        """The settings that `params.yaml` asks for."""
        return cls(
            family=train.family, base_channels=train.base_channels, dropout=train.dropout, windows=windows,
            streams=tuple(train.streams),
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON-able values."""
        return asdict(self) | {"windows": self.windows.model_dump(), "streams": list(self.streams)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Settings:
        """Read back what `to_dict` gave."""
        streams = tuple(content.get("streams", cls.__dataclass_fields__["streams"].default))
        return cls(**content | {"windows": WindowParams.model_validate(content["windows"]), "streams": streams})


def load_config(settings: Settings) -> Config:
    """The family's MMAction2 configuration with the settings filled in.

    Raises ParamsError if there is no such family.
    """
    if fault := family_fault(settings.family):
        raise ParamsError(f"{fault}.")
    init_default_scope("mmaction")
    MMLogger.get_current_instance().setLevel("WARNING")
    config = Config.fromfile(str(FAMILIES / f"{settings.family}.py"))
    if "model" in config:
        _fill_in(config, settings)
    return config


def _fill_in(config: Config, settings: Settings) -> None:
    """The settings into the configuration of a network."""
    config.persons = min(config.get("max_persons", settings.windows.persons), settings.windows.persons)
    backbone, head = config.model.backbone, config.model.cls_head
    values = {
        "base_channels": settings.base_channels, "persons": config.persons,
        "dropout": settings.dropout, "dropout_ratio": settings.dropout,
    }  # fmt: skip
    for part in (backbone, head):
        part.update({name: value for name, value in values.items() if name in part})
    if "base_channels" in backbone:
        head.in_channels = 4 * settings.base_channels
    for step in (*config.get("train_pipeline", ()), *config.get("test_pipeline", ())):
        if step.type == "GenSkeFeat" and "streams" not in config:
            step.feats = [STREAMS[name] for name in settings.streams]
            backbone.in_channels = 3 * len(settings.streams)
        if step.type == "UniformSampleFrames":
            step.clip_len = settings.windows.size
        if step.type == "FormatGCNInput":
            step.num_person = config.persons


@contextmanager
def bounded_threads() -> Iterator[None]:
    """Let torch use half of the processors that this process may use, at most 8; as before afterwards.

    These networks are small: threads that have to wait for a busy processor at every layer cost far more than they bring.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(len(os.sched_getaffinity(0)) // 2, _MAX_THREADS)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def exact() -> AbstractContextManager[None]:
    """Convolutions on a GPU in full fp32, by algorithms that give the same numbers every time; as before afterwards."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def device() -> torch.device:
    """The GPU if there is one. Raises UserError if `$VIOLENCE_OPS_DEVICE` asks for one and there is none."""
    return torch.device(compute_device())


@dataclass(frozen=True, slots=True)
class Windows:
    """A clip cut into W windows: `cuts` as `[start, end)` on the skeleton's frames, `presence` `(W,)`, and the classifier's
    `inputs` `(W, ...)`: of a network on skeletons `(W, views, K, T, 17, C)`, already normalised."""

    cuts: Sequence[tuple[int, int]]
    presence: FloatArray
    inputs: Tensor


class Session(Protocol):
    """The network in another form, which `probabilities` uses instead."""

    def probabilities(self, inputs: Tensor) -> FloatArray:
        """Probability of Fight `(W,)` for windows in the form that the network takes."""


class Classifier(Protocol):
    """Gives the probability of Fight for windows of skeletons: a `Network`, a `Forest` or an `Ensemble`, for example."""

    settings: Settings

    def windows(self, skeleton: Skeleton) -> Windows:
        """Cut a clip and make the input of each window."""

    def probabilities(self, inputs: Tensor) -> FloatArray:
        """Probability of Fight `(W,)` for the inputs of W windows."""


class Network(ABC):
    """A network of MMAction2 that gives the probability of Fight for windows of clips."""

    limits = (-1.0, 1.0)
    """What inputs lie between, most of them."""
    chunk = 16
    """Windows of one forward pass of torch at most, so that the length of a clip does not decide the memory."""

    def __init__(self, settings: Settings, state: dict[str, Tensor] | None = None) -> None:
        """Build the network of `settings`, with the weights `state` or MMAction2's random start."""
        self.settings, self.config = settings, load_config(settings)
        if channels_first.fits(self.config.model.backbone):
            self.config.model.backbone.type = "ChannelsFirstSTGCN"
        self.network: Any = MODELS.build(self.config.model)
        self.session: Session | None = None
        if state is None:
            self.network.init_weights()
        else:
            self.network.load_state_dict(state)
        self.network.to(device()).eval()

    @abstractmethod
    def windows(self, skeleton: Skeleton) -> Windows:
        """Cut a clip and make the input of each window."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row of what the network itself takes."""
        return tuple(self.windows(blank(self.settings.windows)).inputs.shape[1:])

    @abstractmethod
    def training_windows(self, clips: Sequence[Skeleton], labels: Mapping[str, str]) -> TrainingWindows | None:
        """The windows to train on; None if no clip shows anybody."""

    def scores(self, inputs: Tensor) -> Tensor:
        """The network's scores of NonFight and Fight `(W, 2)`, before softmax, for windows on its device."""
        found: Tensor = self.network.extract_feat(inputs, stage="head")[0]
        return found

    @torch.inference_mode()
    def probabilities(self, inputs: Tensor) -> FloatArray:
        """Probability of Fight `(W,)` for the inputs of W windows."""
        if self.session:
            return self.session.probabilities(inputs)
        where = device()
        with bounded_threads(), exact():
            parts = inputs.split(self.chunk)
            found = [self.scores(part.to(where, torch.float32)).softmax(dim=-1)[:, 1].cpu() for part in parts]
        return torch.cat(found).numpy()


class Recogniser(Network):
    """A network on skeletons.

    It looks at so many persons at a time as its configuration says, two as a rule. Of a clip with more (`windows.persons`) it is
    shown each pair that is there: whoever of three or four people fights, one pair are the fighters.
    """

    def __init__(self, settings: Settings, state: dict[str, Tensor] | None = None) -> None:
        super().__init__(settings, state)
        self._pipeline = Compose(self.config.test_pipeline)
        self._together = vectorised.read(self.config.test_pipeline)
        self._views = views(settings.windows.persons, self.config.persons)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one view."""
        return (1, *super().shape[1:])

    def windows(self, skeleton: Skeleton) -> Windows:
        """Cut a clip, and run MMAction2's test pipeline on every view of every window; one that lacks a person stays zero."""
        cuts = windows(skeleton, self.settings.windows)
        there = views_there(skeleton, cuts, self._views)
        seen = [skeleton.only(view) for view in self._views]
        found = self._inputs([(seen[view], *cuts[row]) for row, view in np.argwhere(there)])
        inputs = np.zeros((*there.shape, *found.shape[2:]), np.float32)
        inputs[there] = found[:, 0]
        return Windows(cuts, presence(skeleton, cuts), torch.from_numpy(inputs))

    def probabilities(self, inputs: Tensor) -> FloatArray:
        """Probability of Fight `(W,)`: the mean of the views that are there. The first one always counts."""
        values = (
            inputs.numpy()
        )  # after torch has shared out work this small, its idle thread spins where a session's lane would run
        there = np.asarray(values.reshape(*values.shape[:2], -1).any(axis=-1))
        there[:, 0] = True
        found = np.zeros(there.shape, np.float32)
        found[there] = super().probabilities(torch.from_numpy(values[there][:, None]))
        return np.asarray(found.sum(axis=1) / there.sum(axis=1), np.float32)

    def training_windows(self, clips: Sequence[Skeleton], labels: Mapping[str, str]) -> TrainingWindows | None:
        """The windows of clips that show somebody, in the family's training pipeline: every view that a verdict looks at."""
        shown: list[Stretch] = []
        for clip in clips:
            cuts = to_train_on(clip, self.settings.windows, self.config.max_windows_per_clip)
            seen = [clip.only(view) for view in self._views]
            for row, view in np.argwhere(views_there(clip, cuts, self._views)):
                pair, (start, end) = seen[view], cuts[row]
                if pair.keypoint_scores[:, start:end].any():
                    shown.append((pair, start, end))
        return training_windows(shown, labels, self.config.train_pipeline)

    def _inputs(self, pieces: Sequence[tuple[Skeleton, int, int]]) -> FloatArray:
        """The network's input `(N, 1, K, T, 17, C)` of stretches of clips: at once where `vectorised` knows the pipeline."""
        if self._together:
            found = self._together.prepare(vectorised.gathered([vectorised.piece(*one) for one in pieces]))
            return self._together.inputs(found, vectorised.NO_CHANCE)
        # UniformSampleFrames reseeds NumPy's global generator
        state = np.random.get_state()
        items = [self._pipeline(annotation(skeleton, None, *cut))["inputs"] for skeleton, *cut in pieces]
        np.random.set_state(state)
        return np.asarray(torch.stack(items), np.float32)
