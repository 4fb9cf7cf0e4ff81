"""How fast are poses found, and in how much memory? Ours against MMPose's inferencer, ONNX Runtime by hand, and the bare network.

    .venv/bin/python -m benchmarks.pose_speed [--clips FOLDER] [--count 40] [--hour]

All look at every frame of the same clips with the same weights at the same input size, one after the other, each in a
process of its own, each after a warm-up; rates are frames per second from file to poses. Contenders:

- `mmpose`: MMPose's own inferencer on the video files, with all processors.
- `rtmlib_style`: OpenCV decodes, ONNX Runtime gets one picture per call with all processors, suppression in NumPy.
- `ours_…`: `violence_ops.pose.stream` as a night runs it, per backend and precision.
- `night_…`: the same for every second frame, as of 30 frames a second a night looks at 15.
- `limit_…`: the bare network on as many pictures of the same clips, which lie in memory; OpenVINO's with more callers than it runs
  at once, so that it never waits.

`vs_rtmlib_style` and `of_engine_limit` are medians of rounds in which the default and the peer, or the best limit, take turns in one
process, because the machine's speed may change from one minute to the next.

Memory is the peak of the proportional set sizes of the process and its children, for some clips and for ten times as many;
with --hour also for one video of 60 minutes, every second frame of it. Prints one JSON line last.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from violence_ops.params import Params
from violence_ops.pose.backends import settled
from violence_ops.pose.openvino import computes_bf16
from violence_ops.video import facts

ROOT = Path(__file__).resolve().parent.parent
PARAMS = Params.model_validate(yaml.safe_load((ROOT / "params.yaml").read_text()))
BF16 = ("openvino:bf16",) if computes_bf16() else ()
OURS = (*BF16, "onnxruntime:fp32", "openvino:fp32", "torch:fp32")
ROUNDS = 3
DEFAULT = ":".join(settled("auto", "auto", "cpu"))  # what params.yaml gives on this processor


@cache
def size(file: Path) -> tuple[int, int, int]:
    """Width, height and number of frames of a file, which a night knows from its validation."""
    seen = facts.examine(file, PARAMS.validation, lambda _: None)
    return seen.width, seen.height, seen.frame_count


def same_shape(folder: Path, count: int) -> list[Path]:
    """Clips of the commonest input size, so that the peers need only one network."""
    from violence_ops.letterbox import Letterbox
    from violence_ops.pose.config import fit

    files = sorted(file for file in folder.rglob("*.mp4"))
    if not files:
        raise SystemExit(f"There is no .mp4 under {folder}: pass --clips with a folder of clips.")
    shapes = {file: Letterbox.of(*size(file)[:2], fit()) for file in files}
    inputs = [(box.input_width, box.input_height) for box in shapes.values()]
    common = max(set(inputs), key=inputs.count)
    chosen = [file for file, box in shapes.items() if (box.input_width, box.input_height) == common]
    return [chosen[index] for index in np.linspace(0, len(chosen) - 1, min(count, len(chosen))).astype(int)]


_Call = tuple[str, tuple[Any, ...]]  # of a method of a backend, besides its candidates


# contenders: each is a function of the files that gives the number of frames it looked at


def ours(backend: str, precision: str, step: int = 1) -> Callable[[list[Path]], int]:
    from violence_ops.stages.nightly.extract_poses import Video, open_source, pose_stream

    pose = PARAMS.pose.model_copy(update={"backend": backend, "precision": precision})
    params = PARAMS.model_copy(update={"pose": pose})
    source = open_source(pose)

    def run(files: list[Path]) -> int:
        videos = [Video(file, np.arange(0, size(file)[2], step, dtype=np.int32)) for file in files]
        with pose_stream(source, params) as stream:
            return sum(1 for video in stream.over(videos) for _ in video)

    return run


def limit(backend: str, precision: str, files: list[Path]) -> Callable[[list[Path]], int]:
    """The bare network: candidates, and the joints of those whom suppression leaves, over pictures in memory."""
    from violence_ops.stages.nightly.extract_poses import open_source

    source: Any = open_source(PARAMS.pose.model_copy(update={"backend": backend, "precision": precision}))
    asked = _look_up(source, files)
    asked = list(islice(cycle(asked), sum(size(file)[2] for file in files)))

    def one(each: tuple[np.ndarray, list[_Call]]) -> int:
        picture, calls = each
        found = source.backend.candidates(picture[None], source.score_threshold)
        for name, values in calls:
            getattr(source.backend, name)(found, *values)
        return 1

    def run(some: list[Path]) -> int:
        with ThreadPoolExecutor(source.lanes * (2 if backend == "openvino" else 1)) as pool:
            return sum(pool.map(one, asked[: sum(size(file)[2] for file in some)]))

    return run


def _look_up(source: Any, files: list[Path]) -> list[tuple[np.ndarray, list[_Call]]]:
    """Some pictures of every file, and what the network is asked about their candidates."""
    from violence_ops.video.sandbox import Sandbox

    calls: list[_Call] = []
    asked = []

    def listen(name: str) -> None:
        really = getattr(source.backend, name)
        setattr(source.backend, name, lambda found, *values: calls.append((name, values)) or really(found, *values))

    for name in ("joints", "refined"):
        listen(name)
    with Sandbox(PARAMS.validation) as sandbox:
        for file in files:
            few = range(0, size(file)[2], max(1, size(file)[2] // 5))
            for picture, box in sandbox.pictures(file, few, source.fit):
                calls.clear()
                source.persons([picture], [box])
                asked.append((picture, calls.copy()))
    for name in ("joints", "refined"):
        delattr(source.backend, name)
    return asked


def mmpose() -> Callable[[list[Path]], int]:
    import logging

    import torch

    from violence_ops.pose import config, weights
    from violence_ops.pose.openmmlab import drawing

    with drawing():
        from mmpose.apis.inferencers import Pose2DInferencer
        from mmpose.datasets.datasets.utils import parse_pose_metainfo
    found = weights.find(PARAMS.pose.weights)
    model = weights.load(config.build(found.network), found)
    model.refiner = None  # MMPose knows no second look
    state = model.state_dict()
    checkpoint = Path(tempfile.mkdtemp()) / "weights.pth"
    torch.save({"state_dict": state, "meta": {}}, checkpoint)
    settings = config.config(found.network)
    made: list[Any] = []

    def run(files: list[Path]) -> int:
        if not made:
            from violence_ops.letterbox import Letterbox

            box = Letterbox.of(*size(files[0])[:2], config.fit(found.network))
            resize = {
                "type": "BottomupResize",
                "input_size": (box.input_width, box.input_height),
                "pad_val": (114,) * 3,
            }
            keys = ("id", "img_id", "img_path", "ori_shape", "img_shape", "input_size", "input_center", "input_scale")
            pipeline = [{"type": "LoadImage"}, resize, {"type": "PackPoseInputs", "meta_keys": keys}]
            dataset = {
                "type": "CocoDataset",
                "pipeline": pipeline,
                "metainfo": {"from_file": "configs/_base_/datasets/coco.py"},
            }
            settings.data_mode = "bottomup"
            settings.visualizer = {"type": "PoseLocalVisualizer", "name": "peer"}
            settings.test_dataloader = {"dataset": dataset}
            made.append(Pose2DInferencer(settings, str(checkpoint), device="cpu"))
            made[0].model.dataset_meta = parse_pose_metainfo({"from_file": settings.model.head.loss_oks.metainfo})
            logging.disable(logging.WARNING)
        return sum(1 for file in files for _ in made[0](str(file), return_vis=False, show=False))

    return run


def rtmlib_style() -> Callable[[list[Path]], int]:
    import cv2
    import onnxruntime

    from violence_ops.letterbox import Letterbox
    from violence_ops.pose import config, network, weights
    from violence_ops.pose.export import exported
    from violence_ops.pose.suppression import suppress

    found = weights.find(PARAMS.pose.weights)
    made: list[Any] = []
    options = onnxruntime.SessionOptions()
    # three networks in one process: the threads of one must not spin while another computes
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")

    def run(files: list[Path]) -> int:
        frames = 0
        for file in files:
            capture = cv2.VideoCapture(str(file))
            while (read := capture.read())[0]:
                frame = read[1]
                box = Letterbox.of(frame.shape[1], frame.shape[0], config.fit(found.network))
                if not made:
                    paths = exported(found, box.input_width, box.input_height)
                    made.extend(
                        onnxruntime.InferenceSession(path, options)
                        for path in (paths.dense, paths.joints, paths.refined)
                    )
                    made.append(network.cells(box.input_width, box.input_height)[0])
                outputs = made[0].run(None, {"pictures": box.apply(frame)[None]})
                scores, boxes, _, poses = (part[0] for part in outputs[:4])
                kept = np.flatnonzero(scores > PARAMS.pose.score_threshold)
                kept = kept[np.argsort(-scores[kept])]
                kept = kept[suppress(boxes[kept], PARAMS.pose.nms_threshold)]
                if len(kept):
                    corners = boxes[kept]
                    places = [(corners[:, :2] + corners[:, 2:]) / 2, (corners[:, 2:] - corners[:, :2]) * 1.25]
                    persons = {"poses": poses[kept], "frames": np.concatenate(places, 1)}
                    joints = made[1].run(None, {**persons, "centres": made[3][kept]})[0]
                    seen = {"joints": joints, "picture": np.zeros(len(kept), np.int64), "fine": outputs[4]}
                    box.to_frame(made[2].run(None, {**persons, **seen})[0])
                frames += 1
            capture.release()
        return frames

    return run


# measuring


def contender(name: str, files: list[Path]) -> Callable[[list[Path]], int]:
    kind, _, rest = name.partition("_")
    if name == "mmpose":
        return mmpose()
    if name == "rtmlib_style":
        return rtmlib_style()
    backend, precision = rest.split(":")
    if kind == "limit":
        return limit(backend, precision, files)
    return ours(backend, precision, step=2 if kind == "night" else 1)


class PeakMemory:
    """The largest proportional set size (MB) of this process and its children while it lasts."""

    def __init__(self) -> None:
        self.peak_mb, self._over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        own = psutil.Process()
        while not self._over.wait(0.5):  # each look costs 10 ms
            total = 0
            for process in [own, *own.children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.peak_mb = max(self.peak_mb, total / 2**20)


def measure(name: str, files: list[Path]) -> dict[str, float]:
    """Warm up on the first file, then run over all."""
    for file in files:
        size(file)
    run = contender(name, files)
    run(files[:1])
    with PeakMemory() as memory:
        began, busy = time.perf_counter(), time.process_time()
        frames = run(files)
        seconds = time.perf_counter() - began
    return {
        "frames": frames, "fps": round(frames / seconds, 1), "seconds": round(seconds, 2), "peak_mb": round(memory.peak_mb),
        "cpu_s": round(time.process_time() - busy, 2), "load": os.getloadavg()[0],
    }  # fmt: skip


def in_turn(names: list[str], files: list[Path]) -> dict[str, float]:
    """The median over some rounds of the first one's rate over the second one's."""
    runs = [contender(name, files) for name in names]
    for run in runs:
        run(files[:1])
    ratios = []
    for number in range(ROUNDS):
        rates = [0.0, 0.0]
        for which in ((0, 1), (1, 0))[number % 2]:
            began = time.perf_counter()
            rates[which] = runs[which](files) / (time.perf_counter() - began)
        ratios.append(rates[0] / rates[1])
        print(f"{rates[0]:.1f} of {rates[1]:.1f} frames/s: {ratios[-1]:.3f}", file=sys.stderr, flush=True)
    return {
        "ratio": round(statistics.median(ratios), 3),
        "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3),
    }


def apart(name: str, files: list[Path]) -> dict[str, float]:
    """`measure`, or `in_turn` of `A/B`, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.pose_speed", "--part", name]
    done = subprocess.run(command, input="\n".join(map(str, files)), capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name:<24} {', '.join(f'{key} {value}' for key, value in result.items())}", flush=True)
    return result


def hour(clip: Path, folder: Path) -> Path:
    """A video of 60 minutes: the packets of a clip over and over, with later time stamps."""
    import av

    path = folder / "hour.mp4"
    with av.open(str(clip)) as source:
        packets = [packet for packet in source.demux(video=0) if packet.dts is not None]
        stream = source.streams.video[0]
        with av.open(str(path), "w") as target:
            copy = target.add_stream_from_template(stream)
            span = max(p.pts + (p.duration or 1) for p in packets) - min(p.dts for p in packets)
            for turn in range(int(3600 / float(span * stream.time_base)) + 1):
                for packet in _again(clip, turn * span):
                    packet.stream = copy
                    target.mux(packet)
    return path


def _again(clip: Path, later: int) -> Iterator[Any]:
    import av

    with av.open(str(clip)) as source:
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts, packet.dts = packet.pts + later, packet.dts + later
                yield packet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, default=ROOT.parent / "shared" / "data" / "surv_fight")
    parser.add_argument("--count", type=int, default=40, help="clips that are looked at")
    parser.add_argument("--hour", action="store_true", help="also a video of 60 minutes")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        files, names = [Path(line) for line in sys.stdin.read().splitlines()], options.part.split("/")
        print(json.dumps(measure(names[0], files) if len(names) == 1 else in_turn(names, files)))
        return
    load = os.getloadavg()[0]
    files = same_shape(options.clips, options.count)
    print(f"{len(files)} clips; load before: {load:.2f}; processors: {len(os.sched_getaffinity(0))}")
    names = ["mmpose", "rtmlib_style", *(f"{kind}_{each}" for each in OURS for kind in ("ours", "limit"))]
    found = {name: apart(name, files) for name in names}
    few = files[: max(4, len(files) // 5)]
    # by how the lanes happen to overlap, the peak of the same clips differs by some percent
    peaks = [{count: apart(f"ours_{DEFAULT}", few * count)["peak_mb"] for count in (1, 10)} for _ in range(3)]
    memory = {count: statistics.median(each[count] for each in peaks) for count in (1, 10)}
    long = None
    if options.hour:
        with tempfile.TemporaryDirectory() as folder:
            long = apart(f"night_{DEFAULT}", [files[0], hour(files[0], Path(folder))])
    best = max((f"limit_{each}" for each in OURS), key=lambda name: found[name]["fps"])
    peer, share = (apart(f"ours_{DEFAULT}/{other}", files) for other in ("rtmlib_style", best))
    rate = found[f"ours_{DEFAULT}"]["fps"]
    result = {
        "vs_mmpose": round(rate / found["mmpose"]["fps"], 2),
        "vs_mmpose_fp32": round(max(found[f"ours_{e}"]["fps"] for e in OURS if e.endswith("fp32")) / found["mmpose"]["fps"], 2),
        "vs_rtmlib_style": peer["ratio"], "vs_rtmlib_style_range": [peer["lowest"], peer["highest"]],
        "of_engine_limit": share["ratio"], "of_engine_limit_range": [share["lowest"], share["highest"]],
        "peak_rss_mb": found[f"ours_{DEFAULT}"]["peak_mb"],
        "memory_growth_10x": round(memory[10] / memory[1] - 1, 3),
        "hour_peak_mb": long and long["peak_mb"], "hour_fps": long and long["fps"],
        "default": DEFAULT, "frames_per_second": {name: each["fps"] for name, each in found.items()},
        "load_before": round(load, 2), "processors": len(os.sched_getaffinity(0)),
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
