"""Windows per second of our verdicts against MMAction2's `inference_skeleton`.

    python -m benchmarks.inference [--clips 8] [--rounds 5]

Both judge the same windows of the same skeletons with the same weights, family and sizes of params.yaml, and may use all
processors of the machine. `inference_skeleton` takes one window at a time, once with one thread of torch and once with one a
processor: the faster counts. Ours makes the inputs of all windows of a clip at once and runs them in batches, as `predict` does:
as ONNX with a batch on each processor, and in torch. The contenders take turns. `vs_inference_skeleton` is of wall time, which
means something on a quiet machine alone, so the load is in the result; `by_processor` is of processor time.
`inference_skeleton` rounds keypoints to half precision, so its probabilities differ in the third digit. The last line is JSON.
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

from benchmarks.training import PARAMS, skeletons
from violence_ops.params import load_params
from violence_ops.recognition import exported, starts
from violence_ops.recognition.model import Recogniser, Settings, device, load_config
from violence_ops.recognition.package import Package
from violence_ops.recognition.predict import predict_skeleton
from violence_ops.recognition.skeleton import Skeleton, windows

# isort: split
from mmaction.apis import inference_skeleton, init_recognizer
from mmengine.dataset import Compose

START = "synthetic_fights"


def peer(recogniser: Recogniser, clips: list[Skeleton]) -> Callable[[], Any]:
    """`inference_skeleton` over all windows, with MMAction2's own network; its pipeline is built once, which it does not do by
    itself."""
    config = load_config(recogniser.settings)
    pipeline = Compose(config.test_pipeline)
    network = init_recognizer(config, device=str(device()))
    network.load_state_dict(recogniser.network.state_dict())
    results = []
    for clip in clips:
        for start, end in windows(clip, recogniser.settings.windows):
            frames = [
                {"keypoints": clip.keypoints[:, t], "keypoint_scores": clip.keypoint_scores[:, t]} for t in range(start, end)
            ]  # fmt: skip
            results.append((frames, (clip.height, clip.width)))

    def run() -> Any:
        return np.array(
            [float(inference_skeleton(network, *one, test_pipeline=pipeline).pred_score[1]) for one in results]
        )

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    params = load_params(PARAMS)
    clips = skeletons(options.clips)
    settings = Settings.of(params.train, params.windows)
    recogniser = Recogniser(settings, starts.load(starts.find(START), settings))
    as_onnx = Recogniser(settings, recogniser.network.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        exported.export(recogniser, Path(folder) / "model.onnx")
        as_onnx.session = exported.Session(Path(folder) / "model.onnx")

    def ours(judge: Recogniser) -> Callable[[], Any]:
        package = Package(settings, 0.5, judge)
        return lambda: np.concatenate([predict_skeleton(package, clip).probabilities for clip in clips])

    everybody, alone = len(os.sched_getaffinity(0)), 1
    theirs = peer(recogniser, clips)
    contenders = {
        "onnx": (ours(as_onnx), everybody), "torch": (ours(recogniser), everybody),
        "inference_skeleton": (theirs, alone), "inference_skeleton_threads": (theirs, everybody),
    }  # fmt: skip
    wall: dict[str, list[float]] = {name: [] for name in contenders}
    processor: dict[str, list[float]] = {name: [] for name in contenders}
    found = {name: run() for name, (run, _) in contenders.items()}
    for _ in range(options.rounds):
        for name, (run, threads) in contenders.items():
            torch.set_num_threads(threads)
            began, used = time.perf_counter(), time.process_time()
            run()
            wall[name].append(time.perf_counter() - began)
            processor[name].append(time.process_time() - used)
    count = len(found["onnx"])
    rates = {name: round(count / statistics.median(values), 1) for name, values in wall.items()}
    used_rates = {name: round(count / statistics.median(values), 1) for name, values in processor.items()}
    for name in contenders:
        print(f"{name:<28} {rates[name]:>8} windows/s, {used_rates[name]:>8} per second of processor")
    by_wall, by_processor = (
        of["onnx"] / max(of["inference_skeleton"], of["inference_skeleton_threads"]) for of in (rates, used_rates)
    )
    result = {
        "vs_inference_skeleton": round(by_wall, 2), "by_processor": round(by_processor, 2),
        "windows_per_second": rates, "windows_per_processor_second": used_rates,
        "onnx_minus_torch": float(np.abs(found["onnx"] - found["torch"]).max()),
        "onnx_minus_inference_skeleton": float(np.abs(found["onnx"] - found["inference_skeleton"]).max()),
        "windows": count, "base_channels": settings.base_channels, "processors": everybody,
        "load": [round(value, 2) for value in os.getloadavg()],
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
