"""Families that are several classifiers: the probability of a window is the mean of theirs.

A configuration with `members` is such a family. Their weights lie in one file, each name with its member's in front; their
inputs lie side by side in one row per window, so that an ensemble is handled like any other classifier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from violence_ops.errors import ParamsError
from violence_ops.recognition.by_pictures import PictureNetwork
from violence_ops.recognition.forest import Forest
from violence_ops.recognition.line import Line
from violence_ops.recognition.model import Classifier, Network, Recogniser, Settings, Windows, load_config
from violence_ops.recognition.pictures import Asked
from violence_ops.recognition.skeleton import Skeleton, blank
from violence_ops.records import FloatArray


def build(settings: Settings, state: dict[str, Tensor]) -> Classifier:
    """The classifier of these settings with these weights. Raises ValueError or RuntimeError if they do not fit."""
    config = load_config(settings)
    if "members" in config:
        return Ensemble(settings, state)
    if "forest" in config:
        return Forest(settings, state)
    return Line(settings, state) if "line" in config else network(settings, state)


def network(settings: Settings, state: dict[str, Tensor] | None = None) -> Network:
    """The network of a family that is one, with these weights or random ones."""
    return (PictureNetwork if "pictures" in load_config(settings) else Recogniser)(settings, state)


def pictures(settings: Settings) -> Asked | None:
    """The pictures that a family, or the members of one, look at; None if none does.

    Raises ParamsError if its members want different ones.
    """
    configs = [load_config(one) for one in members(settings).values()]
    asked = {
        Asked(size=one.pictures.size, per_second=one.pictures.per_second, persons=one.persons)
        for one in configs
        if "pictures" in one
    }
    if len(asked) > 1:
        raise ParamsError(
            f"The members of {settings.family} look at pictures of different sizes: choose members of one."
        )
    return next(iter(asked), None)


def members(settings: Settings) -> dict[str, Settings]:
    """The settings of an ensemble's members by name; of any other family itself alone."""
    config = load_config(settings)
    if "members" not in config:
        return {settings.family: settings}
    return {
        one.name: replace(settings, family=one.family, streams=tuple(one.get("streams", settings.streams)))
        for one in config.members
    }


def streams(settings: Settings) -> list[str]:
    """What the graph networks of a family are shown, each stream once; nothing for families that see something else."""
    shown: dict[str, None] = {}
    for one in members(settings).values():
        config = load_config(one)
        if "streams" not in config and any(step.type == "GenSkeFeat" for step in config.get("train_pipeline", ())):
            shown |= dict.fromkeys(one.streams)
    return list(shown)


def joined(states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The members' weights as one."""
    return {f"{member}/{name}": value for member, state in states.items() for name, value in state.items()}


def of_member(state: Mapping[str, Tensor], member: str) -> dict[str, Tensor]:
    """One member's weights of such."""
    start = f"{member}/"
    return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}


class Ensemble:
    """Several classifiers that judge the same windows."""

    def __init__(self, settings: Settings, state: dict[str, Tensor]) -> None:
        """Raises ValueError or RuntimeError if the weights are not those of the members."""
        self.settings = settings
        self.members: dict[str, Classifier] = {}
        for name, own in members(settings).items():
            self.members[name] = build(own, of_member(state, name))
        empty = blank(settings.windows)
        self._shapes = [tuple(member.windows(empty).inputs.shape[1:]) for member in self.members.values()]

    def windows(self, skeleton: Skeleton) -> Windows:
        """Cut a clip; the inputs `(W, N)` of a window are those of all members, flattened."""
        found = [member.windows(skeleton) for member in self.members.values()]
        flat = [one.inputs.numpy().reshape(len(one.inputs), -1) for one in found]
        return Windows(
            found[0].cuts, found[0].presence, torch.from_numpy(np.concatenate(flat, axis=1, dtype=np.float32))
        )

    def probabilities(self, inputs: Tensor) -> FloatArray:
        """Mean probability of Fight `(W,)`."""
        return np.asarray(np.mean(list(self.by_member(inputs).values()), axis=0), np.float32)

    def by_member(self, inputs: Tensor) -> dict[str, FloatArray]:
        """Each member's probability of Fight `(W,)` for inputs that `windows` gave."""
        ends = np.cumsum([math.prod(shape) for shape in self._shapes])[:-1]
        parts = np.split(inputs.numpy(), ends, axis=1)
        return {
            name: member.probabilities(torch.from_numpy(own.reshape(-1, *shape)))
            for (name, member), own, shape in zip(self.members.items(), parts, self._shapes, strict=True)
        }
