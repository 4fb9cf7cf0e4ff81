"""2s-AGCN's adaptive graph with attention (AAGCN) on two persons. Sizes, streams and rates come from params.yaml."""

# ruff: noqa: C408
_base_ = "_skeletons.py"

model = dict(
    backbone=dict(
        type="AAGCN",
        in_channels=3,
        base_channels=64,
        graph_cfg=dict(layout="coco", mode="spatial"),
    ),
)
