"""A transformer of our own over frames, each the streams of both persons side by side (`recognition.fusion`)."""

# ruff: noqa: C408
_base_ = "_skeletons.py"
streams = ["joint"]  # these, whatever train.streams says

model = dict(
    backbone=dict(type="FusionTransformer", base_channels=16, persons=2, max_heads=16),
)
