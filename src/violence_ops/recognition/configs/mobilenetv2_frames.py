"""MobileNetV2 on single pictures, their scores averaged over a window (SPEC 9): every 6th frame of 30 a second, 96 px."""

# ruff: noqa: C408
_base_ = "_pictures.py"
pictures = dict(size=96, per_second=5, per_window=10)

model = dict(
    type="Recognizer2D",
    backbone=dict(type="MobileNetV2"),
    cls_head=dict(
        type="TSNHead",
        num_classes=2,
        in_channels=1280,
        dropout_ratio=0.5,
        topk=(1,),
        loss_cls=dict(type="CrossEntropyLoss"),
    ),
)
