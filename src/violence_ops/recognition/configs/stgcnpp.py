"""STGCN++ on two persons (SPEC 8 and 9). Sizes, streams and rates come from params.yaml."""

# ruff: noqa: C408
_base_ = "_skeletons.py"

model = dict(
    backbone=dict(
        type="STGCN",
        in_channels=3,
        base_channels=64,
        gcn_adaptive="init",
        gcn_with_res=True,
        tcn_type="mstcn",
        graph_cfg=dict(layout="coco", mode="spatial"),
    ),
)
