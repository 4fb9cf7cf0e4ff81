"""ResNet-18's embeddings of 16 pictures, read in their order by a small transformer (SPEC 9, `recognition.time_series`)."""

# ruff: noqa: C408
_base_ = "_pictures.py"
pictures = dict(size=64, per_second=8, per_window=16)

model = dict(
    type="Recognizer2D",
    backbone=dict(type="ResNet", depth=18),
    cls_head=dict(
        type="TimeSeriesHead", num_classes=2, in_channels=512, base_channels=16, dropout=0.5, topk=(1,),
        loss_cls=dict(type="CrossEntropyLoss"),
    ),
)  # fmt: skip
