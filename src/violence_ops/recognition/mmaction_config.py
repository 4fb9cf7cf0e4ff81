"""A family as a complete MMAction2 configuration over exported windows, for MMAction2's own tools.

What it does: model, pipelines, loaders, optimiser, schedule and start as params.yaml says. What it does not: class weights, the choice
of epoch and threshold, mixup and the vote over a clip's windows are this project's training (`recognition.train`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch

from violence_ops.errors import ParamsError
from violence_ops.files import atomic_path
from violence_ops.params import TrainParams, export_fault
from violence_ops.recognition.model import Settings, load_config
from violence_ops.recognition.starts import Start, load

# isort: split
from mmengine.config import Config

PICKLE: Final = "pose_dataset.pkl"
CHECKPOINT: Final = "start.pth"
_EVALUATOR: Final = [{"type": "AccMetric", "metric_options": {"top_k_accuracy": {"topk": (1,)}}}]
_BESIDE_CONFIG: Final = "{{ fileDirname }}/"


def persons(settings: Settings) -> int:
    """How many persons the family's network looks at. Raises ParamsError for a family that is no network of MMAction2 on skeletons."""
    return int(_network(settings).persons)


def max_windows_per_clip(settings: Settings) -> int:
    """How many windows of a clip at most the family is trained on."""
    return int(_network(settings).max_windows_per_clip)


def write(path: Path, settings: Settings, params: TrainParams, start: Start | None) -> None:
    """Write the configuration, which reads `pose_dataset.pkl` beside it, and the weights of `start` that it begins with.

    Raises ParamsError as `persons` does."""
    config = _network(settings)
    if start:
        with atomic_path(path.with_name(CHECKPOINT)) as temporary:
            torch.save(load(start, settings), temporary)
    content = {
        "default_scope": "mmaction",
        # registers the transforms and networks that MMAction2 lacks
        "custom_imports": {"imports": ["violence_ops.recognition.model"], "allow_failed_imports": False},
        "model": config.model,
        "load_from": _BESIDE_CONFIG + CHECKPOINT if start else None,
        "train_dataloader": _loader(config.train_pipeline, "train", params.mini_batch),
        "val_dataloader": _loader(config.test_pipeline, "val", params.mini_batch),
        "test_dataloader": _loader(config.test_pipeline, "val", params.mini_batch),
        "val_evaluator": _EVALUATOR,
        "test_evaluator": _EVALUATOR,
        "train_cfg": {"type": "EpochBasedTrainLoop", "max_epochs": params.epochs, "val_begin": 1, "val_interval": 1},
        "val_cfg": {"type": "ValLoop"},
        "test_cfg": {"type": "TestLoop"},
        "optim_wrapper": {
            "optimizer": {
                "type": "SGD", "lr": params.learning_rate, "momentum": params.momentum, "weight_decay": params.weight_decay,
                "nesterov": True,
            },
            "clip_grad": {"max_norm": params.gradient_clip},
        },
        "param_scheduler": [_schedule(params)],
        "default_hooks": {"checkpoint": {"type": "CheckpointHook", "interval": 1, "save_best": "auto"}},
        "randomness": {"seed": params.seed},
    }  # fmt: skip
    Config(content).dump(str(path))


def _network(settings: Settings) -> Config:
    if fault := export_fault(settings.family):
        raise ParamsError(f"{fault}.")
    return load_config(settings)


def _loader(pipeline: Any, side: str, mini_batch: int) -> dict[str, Any]:
    dataset = {"type": "PoseDataset", "ann_file": _BESIDE_CONFIG + PICKLE, "split": side, "pipeline": pipeline}
    return {
        "batch_size": mini_batch, "num_workers": 0, "sampler": {"type": "DefaultSampler", "shuffle": side == "train"},
        "dataset": dataset if side == "train" else dataset | {"test_mode": True},
    }  # fmt: skip


def _schedule(params: TrainParams) -> dict[str, Any]:
    if params.schedule == "cosine":
        return {"type": "CosineAnnealingLR", "T_max": params.epochs, "by_epoch": True}
    return {"type": "MultiStepLR", "milestones": list(params.lr_steps), "gamma": 0.1, "by_epoch": True}
