"""Import this before mmaction: it closes the import gaps of its last release. `pose.openmmlab` does so for mmpose.

The releases are from 2024; on today's Python four names are missing when they are imported, none of which RTMO or
STGCN++ calls (two more are MMPose's own functions, which RTMO's head asks MMDetection for). The stand-ins raise when
used.
"""

from __future__ import annotations

import sys
import warnings
from types import ModuleType
from typing import Any


def missing(what: str) -> type:
    """A class that says, when somebody makes one, that it is not installed here."""

    def refuse(self: Any, *args: Any, **kwargs: Any) -> None:
        raise ImportError(f"{what} is not part of this environment; neither RTMO nor STGCN++ needs it")

    return type(what.rpartition(".")[2], (), {"__init__": refuse, "__doc__": f"Stand-in for {what}."})


def module(name: str, **contents: Any) -> None:
    """Register a module of the given contents."""
    made = ModuleType(name)
    made.__dict__.update(contents)
    sys.modules[name] = made
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], child, made)


def _bridge() -> None:
    # mmengine's and mmcv's notices about their own old habits are not the user's
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated", category=UserWarning)
    warnings.filterwarnings("ignore", message="Fail to import ``MultiScaleDeformableAttention``", category=UserWarning)
    module("mmaction.models.localizers.drn")
    module("mmaction.models.localizers.drn.drn", DRN=missing("mmaction.models.localizers.drn.DRN"))


_bridge()
