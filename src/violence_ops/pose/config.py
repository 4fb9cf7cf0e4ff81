"""The mmengine configuration of the small RTMO, and the model built from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import violence_ops.openmmlab  # noqa: F401  (before mmpose)

if TYPE_CHECKING:
    from mmengine.config import Config

_FILE = Path(__file__).parent / "configs" / "rtmo_small.py"
LONG_SIDE, MULTIPLE = 416, 32


def config() -> Config:
    """The small RTMO as an mmengine Config."""
    import mmpose
    from mmengine.config import Config

    metafile = Path(mmpose.__file__).parent / ".mim" / "configs" / "_base_" / "datasets" / "coco.py"
    text = _FILE.read_text().replace("{{$COCO_METAFILE}}", metafile.as_posix())
    return Config.fromstring(text, ".py")


def build() -> Any:
    """The small RTMO (MMPose's BottomupPoseEstimator, which is untyped) with random weights, in evaluation mode."""
    from mmengine.registry import init_default_scope
    from mmpose.registry import MODELS

    settings = config()
    init_default_scope("mmpose")
    return MODELS.build(settings.model).eval()


def input_size(width: int, height: int) -> tuple[int, int]:
    """Width and height (px, multiples of 32) of the model's input for frames of this size: the long side becomes 416 px."""
    scale = LONG_SIDE / max(width, height)
    sides = (max(MULTIPLE, -(-round(side * scale) // MULTIPLE) * MULTIPLE) for side in (width, height))
    return tuple(sides)  # type: ignore[return-value]
