# ruff: noqa: C408  (OpenMMLab configurations are written with dict())
"""RTMO (MMPose), made small: width 0.25, 2.6 M parameters, any input whose sides are multiples of 32.

`metafile` is given by `violence_ops.pose.config`: MMPose ships it, and its place depends on the installation.
"""

width = 0.25
metafile = "{{$COCO_METAFILE}}"
default_scope = "mmpose"
norm = dict(type="BN", momentum=0.03, eps=0.001)
swish = dict(type="Swish")

model = dict(
    type="BottomupPoseEstimator",
    data_preprocessor=dict(
        type="PoseDataPreprocessor", pad_size_divisor=32, mean=[0, 0, 0], std=[1, 1, 1], batch_augments=None
    ),
    backbone=dict(
        type="CSPDarknet",
        deepen_factor=0.33,
        widen_factor=width,
        out_indices=(2, 3, 4),
        spp_kernal_sizes=(5, 9, 13),
        use_depthwise=True,
        norm_cfg=norm,
        act_cfg=swish,
        init_cfg=None,
    ),
    neck=dict(
        type="HybridEncoder",
        in_channels=[64, 128, 256],
        deepen_factor=0.33,
        widen_factor=width,
        hidden_dim=128,
        output_indices=[1, 2],
        encoder_cfg=dict(
            self_attn_cfg=dict(embed_dims=128, num_heads=8, dropout=0.0),
            ffn_cfg=dict(embed_dims=128, feedforward_channels=512, ffn_drop=0.0, act_cfg=dict(type="GELU")),
        ),
        projector=dict(
            type="ChannelMapper",
            in_channels=[128, 128],
            kernel_size=1,
            out_channels=256,
            act_cfg=None,
            norm_cfg=dict(type="BN"),
            num_outs=2,
        ),
    ),
    head=dict(
        type="RTMOHead",
        num_keypoints=17,
        featmap_strides=(16, 32),
        head_module_cfg=dict(
            num_classes=1,
            in_channels=256,
            cls_feat_channels=256,
            channels_per_group=36,
            pose_vec_channels=192,
            widen_factor=0.5,
            stacked_convs=2,
            norm_cfg=norm,
            act_cfg=swish,
        ),
        assigner=dict(
            type="SimOTAAssigner",
            dynamic_k_indicator="iou",
            oks_calculator=dict(type="PoseOKS", metainfo=metafile),
            use_keypoints_for_center=True,
        ),
        prior_generator=dict(type="MlvlPointGenerator", centralize_points=True, strides=[16, 32]),
        dcc_cfg=dict(
            in_channels=192,
            feat_channels=128,
            num_bins=(192, 256),
            spe_channels=128,
            gau_cfg=dict(s=128, expansion_factor=2, dropout_rate=0.0, drop_path=0.0, act_fn="SiLU", pos_enc="add"),
        ),
        overlaps_power=0.5,
        loss_cls=dict(type="VariFocalLoss", reduction="sum", use_target_weight=True, loss_weight=1.0),
        loss_bbox=dict(type="IoULoss", mode="square", eps=1e-16, reduction="sum", loss_weight=5.0),
        loss_oks=dict(type="OKSLoss", reduction="none", metainfo=metafile, loss_weight=30.0),
        loss_vis=dict(type="BCELoss", use_target_weight=True, reduction="mean", loss_weight=1.0),
        loss_mle=dict(type="MLECCLoss", use_target_weight=True, loss_weight=1.0),
    ),
    test_cfg=dict(nms_thr=0.35, score_thr=0.3),
)
