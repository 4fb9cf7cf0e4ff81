"""Import this before mmpose: it closes the import gaps of its last release, as `violence_ops.openmmlab` does for mmaction."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from violence_ops.openmmlab import missing, module


def _bridge() -> None:
    import mmcv  # noqa: F401
    import mmengine.dist

    module("mmcv.ops", MultiScaleDeformableAttention=missing("mmcv.ops.MultiScaleDeformableAttention"))

    def reduce_mean(tensor: Any) -> Any:
        """As mmpose.utils.dist_utils.reduce_mean, which cannot be imported before mmpose is."""
        return mmengine.dist.all_reduce(tensor.clone(), "mean") if mmengine.dist.is_distributed() else tensor

    module("mmdet")
    module("mmdet.utils", ConfigType=dict, reduce_mean=reduce_mean)
    with drawing():
        import mmpose.models  # noqa: F401

    for name in ("mmdet.utils", "mmdet"):
        del sys.modules[name]  # others must still see that these are not installed


@contextmanager
def drawing() -> Iterator[None]:
    """While this lasts, mmpose's parts that draw can be imported (`mmpose.apis`); what they miss raises when used."""
    module("torchvision")
    module("torchvision.transforms", ToPILImage=missing("torchvision.transforms.ToPILImage"))
    yield
    for name in ("torchvision.transforms", "torchvision"):
        del sys.modules[name]


_bridge()
