"""Import this before mmpose or mmaction: it closes the import gaps of their last releases.

The releases are from 2024; on today's Python four names are missing when they are imported, none of which RTMO or
STGCN++ calls (two more are MMPose's own functions, which RTMO's head asks MMDetection for). The stand-ins raise when
used.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


def _missing(what: str) -> type:
    """A class that says, when somebody makes one, that it is not installed here."""

    def refuse(self: Any, *args: Any, **kwargs: Any) -> None:
        raise ImportError(f"{what} is not part of this environment; neither RTMO nor STGCN++ needs it")

    return type(what.rpartition(".")[2], (), {"__init__": refuse, "__doc__": f"Stand-in for {what}."})


def _module(name: str, **contents: Any) -> None:
    """Register a module of the given contents."""
    module = ModuleType(name)
    module.__dict__.update(contents)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], child, module)


def _bridge() -> None:
    # mmengine's and mmcv's notices about their own old habits are not the user's
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated", category=UserWarning)
    warnings.filterwarnings("ignore", message="Fail to import ``MultiScaleDeformableAttention``", category=UserWarning)
    import mmcv  # noqa: F401
    import mmengine.dist

    _module("mmcv.ops", MultiScaleDeformableAttention=_missing("mmcv.ops.MultiScaleDeformableAttention"))

    def reduce_mean(tensor: Any) -> Any:
        """As mmpose.utils.dist_utils.reduce_mean, which cannot be imported before mmpose is."""
        return mmengine.dist.all_reduce(tensor.clone(), "mean") if mmengine.dist.is_distributed() else tensor

    _module("mmdet")
    _module("mmdet.utils", ConfigType=dict, reduce_mean=reduce_mean)
    _module("mmaction.models.localizers.drn")
    _module("mmaction.models.localizers.drn.drn", DRN=_missing("mmaction.models.localizers.drn.DRN"))
    with drawing():
        import mmpose.models  # noqa: F401

    for name in ("mmdet.utils", "mmdet"):
        del sys.modules[name]  # others must still see that these are not installed


@contextmanager
def drawing() -> Iterator[None]:
    """While this lasts, mmpose's parts that draw can be imported (`mmpose.apis`); what they miss raises when used."""
    _module("torchvision")
    _module("torchvision.transforms", ToPILImage=_missing("torchvision.transforms.ToPILImage"))
    yield
    for name in ("torchvision.transforms", "torchvision"):
        del sys.modules[name]


_bridge()
