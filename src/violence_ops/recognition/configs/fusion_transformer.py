"""A transformer of our own over frames, each the streams of both persons side by side (`recognition.fusion`)."""

# ruff: noqa: C408
_base_ = "_skeletons.py"
streams = ["joint"]  # these, whatever train.streams says

model = dict(
    type="RecognizerGCN",
    backbone=dict(type="FusionTransformer", base_channels=16, persons=2, max_heads=16),
    cls_head=dict(
        type="GCNHead", num_classes=2, in_channels=64, dropout=0.5, topk=(1,), loss_cls=dict(type="CrossEntropyLoss")
    ),
)
