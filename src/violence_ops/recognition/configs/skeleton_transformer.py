"""A small transformer of our own over persons and frames (`recognition.transformer`). It makes its motions and pairs itself."""

# ruff: noqa: C408
_base_ = "_skeletons.py"
streams = ["joint"]  # these, whatever train.streams says

model = dict(
    type="RecognizerGCN",
    backbone=dict(type="SkeletonTransformer", base_channels=16),
    cls_head=dict(
        type="GCNHead", num_classes=2, in_channels=64, dropout=0.5, topk=(1,), loss_cls=dict(type="CrossEntropyLoss")
    ),
)
