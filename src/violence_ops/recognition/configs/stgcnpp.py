"""STGCN++ on two persons (SPEC 8 and 9). Sizes, streams and rates come from params.yaml."""

# ruff: noqa: C408
max_persons = 2
max_windows_per_clip = 32  # of a long clip, spread evenly: one long video must not outweigh the others in training

_left = [1, 3, 5, 7, 9, 11, 13, 15]
_right = [2, 4, 6, 8, 10, 12, 14, 16]

model = dict(
    type="RecognizerGCN",
    backbone=dict(
        type="STGCN",
        in_channels=3,
        base_channels=64,
        gcn_adaptive="init",
        gcn_with_res=True,
        tcn_type="mstcn",
        graph_cfg=dict(layout="coco", mode="spatial"),
    ),
    cls_head=dict(
        type="GCNHead", num_classes=2, in_channels=256, dropout=0.5, topk=(1,), loss_cls=dict(type="CrossEntropyLoss")
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
