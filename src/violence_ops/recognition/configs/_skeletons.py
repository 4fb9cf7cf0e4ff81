"""What the networks on skeletons of two persons have in common: which windows they see, and how these are made. No family itself."""

# ruff: noqa: C408
max_persons = 2
max_windows_per_clip = 32  # of a long clip, spread evenly: one long video must not outweigh the others in training

_left = [1, 3, 5, 7, 9, 11, 13, 15]
_right = [2, 4, 6, 8, 10, 12, 14, 16]

model = dict(
    type="RecognizerGCN",
    cls_head=dict(
        type="GCNHead", num_classes=2, in_channels=64, dropout=0.5, topk=(1,), loss_cls=dict(type="CrossEntropyLoss")
    ),
)

train_pipeline = [
    dict(type="CropToPersons"),
    dict(type="Flip", flip_ratio=0.5, left_kp=_left, right_kp=_right),
    dict(type="PreNormalize2D"),
    dict(type="RandomRotateScale", degrees=10.0, scale=0.15),
    dict(type="ZeroMissing"),
    dict(type="GenSkeFeat", dataset="coco", feats=["j"]),
    dict(type="UniformSampleFrames", clip_len=30),
    dict(type="PoseDecode"),
    dict(type="FormatGCNInput", num_person=2),
    dict(type="PackActionInputs"),
]
test_pipeline = [
    dict(type="CropToPersons"),
    dict(type="PreNormalize2D"),
    dict(type="ZeroMissing"),
    dict(type="GenSkeFeat", dataset="coco", feats=["j"]),
    dict(type="UniformSampleFrames", clip_len=30, num_clips=1, test_mode=True),
    dict(type="PoseDecode"),
    dict(type="FormatGCNInput", num_person=2),
    dict(type="PackActionInputs"),
]
