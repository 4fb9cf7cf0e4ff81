"""The RTMO networks by name: their mmengine configurations, input sizes, and the models built from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_ops.letterbox import Fit

if TYPE_CHECKING:
    from mmengine.config import Config

OWN = "rtmo_small"
"""The network that is trained and shipped here."""
_MULTIPLE = 32
_FOLDER = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class Network:
    """One architecture: its configuration's file name, and the long side (px) of the input it was trained for."""

    file: str
    long_side: int


NETWORKS = {
    OWN: Network("rtmo_small.py", 416),
    "rtmo_t": Network("rtmo-t_8xb32-600e_body7-416x416.py", 416),
    "rtmo_s": Network("rtmo-s_8xb32-600e_body7-640x640.py", 640),
    "rtmo_m": Network("rtmo-m_16xb16-600e_body7-640x640.py", 640),
    "rtmo_l": Network("rtmo-l_16xb16-600e_body7-640x640.py", 640),
}


def config(network: str = OWN) -> Config:
    """A network's mmengine Config: ours for `rtmo_small`, for the others the one that MMPose ships.

    Nothing in it would fetch a file: the official configurations start from a backbone behind an address, which is taken out.
    """
    from mmengine.config import Config

    import violence_ops.pose.openmmlab  # noqa: F401  (before mmpose)

    shipped = _shipped()
    metafile = (shipped / "_base_" / "datasets" / "coco.py").as_posix()
    if network == OWN:
        text = (_FOLDER / NETWORKS[OWN].file).read_text().replace("{{$COCO_METAFILE}}", metafile)
        return Config.fromstring(text, ".py")
    settings = Config.fromfile(shipped / "body_2d_keypoint" / "rtmo" / "body7" / NETWORKS[network].file)
    settings.model.backbone.init_cfg = None
    settings.model.head.assigner.oks_calculator.metainfo = metafile
    settings.model.head.loss_oks.metainfo = metafile
    return settings


def _shipped() -> Path:
    """Where MMPose keeps its configurations."""
    import mmpose

    return Path(mmpose.__file__).parent / ".mim" / "configs"


def build(network: str = OWN) -> Any:
    """That RTMO (MMPose's BottomupPoseEstimator, which is untyped) with random weights, in evaluation mode."""
    settings = config(network)
    from mmengine.registry import init_default_scope
    from mmpose.registry import MODELS

    init_default_scope("mmpose")
    return MODELS.build(settings.model).eval()


def fit(network: str = OWN) -> Fit:
    """What the network's input looks like: the long side it was trained with, sides that its coarsest cells divide."""
    return Fit(NETWORKS[network].long_side, _MULTIPLE)
