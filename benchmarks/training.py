"""Clips per second of our training against MMAction2's own runner.

    python -m benchmarks.training [--clips 96] [--epochs 4] [--rounds 3]

Both train the family and sizes of params.yaml, from scratch, on the same skeletons in memory, with the same configuration, seed,
mini-batch, epochs, optimiser, threads and a validation and a checkpoint after every epoch. Building the networks counts. MMAction2's side is an mmengine Runner over its
PoseDataset, once without loader processes and once with two, and the better one counts; it is in fp32, as its mixed precision
wants a GPU. Ours is as shipped (`train.precision: auto`, bf16 on processors that compute with it), and once more in fp32. The
contenders take turns, so that whatever else the machine does meets all of them; the load is in the result. On a busy machine
wall times are chance, so `vs_mmaction2` and `vs_mmaction2_fp32` are the smaller of the ratios by wall time and by processor
time. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from violence_ops.params import Params, load_params
from violence_ops.recognition.families import precision
from violence_ops.recognition.model import Settings, bounded_threads, load_config
from violence_ops.recognition.skeleton import Skeleton, to_train_on, windows
from violence_ops.recognition.train import fit
from violence_ops.records import LABELS

# isort: split
from mmengine.config import Config
from mmengine.runner import Runner

PARAMS = Path(__file__).parents[1] / "params.yaml"
FRAMES = 75


def skeletons(count: int) -> list[Skeleton]:
    """Two walking persons a clip, who jerk their limbs in every second one."""
    made = []
    for number in range(count):
        rng = np.random.default_rng(number)
        walk = np.cumsum(rng.normal(size=(2, FRAMES, 1, 2)) * 3, axis=1)
        limbs = rng.normal(size=(2, FRAMES, 17, 2)) * (8 if number % 2 else 1.5)
        points = (rng.normal(size=(2, 1, 17, 2)) * 30 + walk + limbs + 300).astype(np.float32)
        scores = rng.uniform(0.3, 1, points.shape[:-1]).astype(np.float32)
        made.append(
            Skeleton(clip_id=f"{number:020x}", width=640, height=360, step=1.0, intensity=0.5, keypoints=points,
                     keypoint_scores=scores)
        )  # fmt: skip
    return made


def ours(clips: list[Skeleton], held: int, params: Params, folder: Path, wanted: str) -> None:
    labels = {clip.clip_id: LABELS[i % 2] for i, clip in enumerate(clips)}
    train = params.train.model_copy(update={"precision": wanted})
    fit(clips[held:], clips[:held], labels, train, params.windows, checkpoint=folder / "training.pt")


def mmaction2(clips: list[Skeleton], held: int, params: Params, folder: Path, workers: int) -> None:
    config = load_config(Settings.of(params.train, params.windows))
    labels = {clip.clip_id: LABELS[i % 2] for i, clip in enumerate(clips)}

    def loader(part: list[Skeleton], pipeline: Any, train: bool) -> dict[str, Any]:
        most = config.max_windows_per_clip
        stretches = [(clip, *cut) for clip in part for cut in to_train_on(clip, params.windows, most)]
        data = {"type": "WindowDataset", "stretches": stretches, "labels": labels, "pipeline": pipeline}
        return {
            "batch_size": params.train.mini_batch, "num_workers": workers, "persistent_workers": workers > 0,
            "sampler": {"type": "DefaultSampler", "shuffle": train}, "dataset": data,
        }  # fmt: skip

    train = params.train
    runner = Runner(
        model=config.model, work_dir=str(folder), default_scope="mmaction", log_level="WARNING", randomness={"seed": train.seed},
        experiment_name=folder.name,
        train_dataloader=loader(clips[held:], config.train_pipeline, True),
        val_dataloader=loader(clips[:held], config.test_pipeline, False),
        train_cfg={"type": "EpochBasedTrainLoop", "max_epochs": train.epochs, "val_interval": 1}, val_cfg={"type": "ValLoop"},
        val_evaluator=[{"type": "AccMetric"}],
        optim_wrapper={
            "optimizer": {
                "type": "SGD", "lr": train.learning_rate, "momentum": train.momentum, "weight_decay": train.weight_decay, "nesterov": True
            },
            "clip_grad": {"max_norm": train.gradient_clip},
        },
        param_scheduler=[{"type": "MultiStepLR", "milestones": list(train.lr_steps), "gamma": 0.1, "by_epoch": True}],
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 1}, "logger": {"type": "LoggerHook", "interval": 100}},
        cfg=Config({}),
    )  # fmt: skip
    runner.train()


def seconds(run: Callable[[Path], None]) -> tuple[float, float]:
    """Wall and processor seconds of a training, its model's building included."""
    with tempfile.TemporaryDirectory() as folder:
        began, used = time.perf_counter(), _processor_s()
        run(Path(folder))
        return time.perf_counter() - began, _processor_s() - used


def _processor_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    changes = {"train.start": None, "train.epochs": options.epochs, "train.min_epochs": options.epochs}
    params = load_params(PARAMS, changes)
    clips, held = skeletons(options.clips), options.clips // 4
    contenders: dict[str, Callable[[Path], None]] = {
        "ours": lambda folder: ours(clips, held, params, folder, params.train.precision),
        "ours_fp32": lambda folder: ours(clips, held, params, folder, "fp32"),
        "mmaction2": lambda folder: mmaction2(clips, held, params, folder, 0),
        "mmaction2_two_loaders": lambda folder: mmaction2(clips, held, params, folder, 2),
    }
    wall: dict[str, list[float]] = {name: [] for name in contenders}
    processor: dict[str, list[float]] = {name: [] for name in contenders}
    with bounded_threads():
        threads = torch.get_num_threads()
        for _ in range(options.rounds):
            for name, run in contenders.items():
                took, used = seconds(run)
                wall[name].append(took)
                processor[name].append(used)
                print(f"{name:<24} {took:7.1f} s, {used:7.1f} s of processor", flush=True)
    seen = (options.clips - held) * options.epochs
    rates = {name: round(seen / statistics.median(values), 2) for name, values in wall.items()}
    used = {name: round(seen / statistics.median(values), 2) for name, values in processor.items()}

    def ratio(of: dict[str, float], own: str = "ours") -> float:
        return of[own] / max(rate for name, rate in of.items() if name.startswith("mmaction2"))

    result = {
        "vs_mmaction2": round(min(ratio(rates), ratio(used)), 2), "by_wall": round(ratio(rates), 2), "by_processor": round(ratio(used), 2),
        "vs_mmaction2_fp32": round(min(ratio(rates, "ours_fp32"), ratio(used, "ours_fp32")), 2),
        "precision": precision(params.train, params.windows),
        "clips_per_second": rates, "clips_per_processor_second": used, "clips": options.clips, "held_out": held,
        "windows_per_clip": len(windows(clips[0], params.windows)), "epochs": options.epochs, "rounds": options.rounds,
        "base_channels": params.train.base_channels, "threads": threads, "load": [round(value, 2) for value in os.getloadavg()],
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
