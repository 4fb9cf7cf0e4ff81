"""Seconds of processor per clip of the families that look at pictures: decoding and cutting, and the verdict.

    python -m benchmarks.pictures [--clips 8] [--rounds 3]

The clips are synthetic videos of two seconds, written and decoded for real; the people in them are where they truly are. The
weights are random, which takes no less time than trained ones. One thread, as ONNX. The last line is JSON.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import json
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.training import PARAMS
from violence_ops import synthetic
from violence_ops.params import Params, load_params
from violence_ops.recognition import ensemble, exported
from violence_ops.recognition.model import Settings, load_config
from violence_ops.recognition.package import Package
from violence_ops.recognition.predict import predict_skeleton
from violence_ops.recognition.skeleton import Skeleton
from violence_ops.video import decode

FAMILIES = ("mobilenetv2_frames", "resnet18_timeseries")


def film(folder: Path, number: int) -> tuple[Skeleton, float, Path]:
    """A drawn clip: its true skeletons at half its frames, its frame rate and its file."""
    made = synthetic.clip(number, ("Fight", "NonFight")[number % 2], group=number)
    path = folder / f"{number}.{made.scene.container}"
    synthetic.write_clip(made, path)
    keypoints = made.keypoints[::2, :2].transpose(1, 0, 2, 3).astype(np.float32)
    skeleton = Skeleton(
        clip_id=str(number), width=made.width, height=made.height, step=2.0, intensity=0.6, keypoints=keypoints,
        keypoint_scores=np.ones(keypoints.shape[:-1], np.float32),
    )  # fmt: skip
    return skeleton, made.fps, path


def measured(family: str, clips: list[tuple[Skeleton, float, Path]], params: Params, rounds: int) -> dict[str, Any]:
    """Milliseconds per clip, the median over rounds; the first one warms up."""
    settings = Settings.of(params.train.model_copy(update={"family": family}), params.windows)
    network, asked = ensemble.network(settings), ensemble.pictures(settings)
    assert asked is not None
    with tempfile.TemporaryDirectory() as folder:
        exported.export(network, Path(folder) / "model.onnx")
        network.session = exported.Session(Path(folder) / "model.onnx")
    judge, looked, judged, windows = Package(settings, 0.5, network), [], [], 0
    for _ in range(rounds + 1):
        began = time.process_time()
        # in this process, whose time is taken
        shown = [asked.of(skeleton, fps, partial(decode.frames, path)) for skeleton, fps, path in clips]
        middle = time.process_time()
        windows = sum(len(predict_skeleton(judge, one).probabilities) for one in shown)
        looked.append(1000 * (middle - began) / len(clips))
        judged.append(1000 * (time.process_time() - middle) / len(clips))
    found = {"pictures_ms": statistics.median(looked[1:]), "verdict_ms": statistics.median(judged[1:])}
    return {name: round(value, 1) for name, value in found.items()} | {
        "windows": windows / len(clips), "parameters": sum(value.numel() for value in network.network.parameters()),
        "pictures_per_window": load_config(settings).pictures.per_window,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        clips = [film(Path(folder), number) for number in range(options.clips)]
        size = f"{clips[0][0].width}x{clips[0][0].height}"
        found = {family: measured(family, clips, load_params(PARAMS), options.rounds) for family in FAMILIES}
    for family, row in found.items():
        print(
            f"{family:<20} {row['pictures_ms']:>6} ms pictures, {row['verdict_ms']:>6} ms verdict, {row['windows']} windows a clip"
        )
    print(json.dumps(found | {"clips": options.clips, "size": size}))


if __name__ == "__main__":
    main()
