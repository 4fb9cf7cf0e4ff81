"""A small transformer of our own over persons and frames (`recognition.transformer`). It makes its motions and pairs itself."""

# ruff: noqa: C408
_base_ = "_skeletons.py"
streams = ["joint"]  # these, whatever train.streams says

model = dict(
    backbone=dict(type="SkeletonTransformer", base_channels=16),
)
