"""MMPose and MMAction2 import and build what the project uses, and the gaps say so when they are used."""

import importlib.util

import pytest


def test_rtmo_and_stgcn_build_from_their_configurations() -> None:
    from mmaction.registry import MODELS
    from mmengine.registry import init_default_scope

    import violence_ops.openmmlab  # noqa: F401
    from violence_ops.pose import config

    assert sum(p.numel() for p in config.build().parameters()) < 3_500_000
    init_default_scope("mmaction")
    graph = {"layout": "coco", "mode": "spatial"}
    model = MODELS.build(
        {
            "type": "RecognizerGCN",
            "backbone": {"type": "STGCN", "gcn_adaptive": "init", "gcn_with_res": True, "tcn_type": "mstcn",
                         "graph_cfg": graph},
            "cls_head": {"type": "GCNHead", "num_classes": 2, "in_channels": 256},
        }
    )  # fmt: skip
    assert sum(p.numel() for p in model.parameters()) > 1_000_000


def test_what_is_not_installed_still_looks_not_installed() -> None:
    import violence_ops.openmmlab  # noqa: F401

    assert importlib.util.find_spec("torchvision") is None
    assert importlib.util.find_spec("mmdet") is None


def test_a_stand_in_raises_when_it_is_used() -> None:
    from mmcv.ops import MultiScaleDeformableAttention

    import violence_ops.openmmlab  # noqa: F401

    with pytest.raises(ImportError, match="not part of this environment"):
        MultiScaleDeformableAttention()
