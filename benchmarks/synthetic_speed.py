"""How fast are synthetic clips drawn and encoded at 640×360 on one core? Prints one JSON line last.

The limit is named: the rate of the bare encoder for the same frames in the same run (drawing can at best cost nothing).
Rates are frames per second of CPU time, so that other load on the machine does not count as ours; it is printed too.

    .venv/bin/python benchmarks/synthetic_speed.py [clips]
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np

from violence_ops import synthetic
from violence_ops.synthetic.encode import write_frames

cv2.setNumThreads(1)


def seeds_of_size(count: int, width: int, height: int) -> list[int]:
    """The first `count` seeds whose clips have that size."""
    found: list[int] = []
    seed = 0
    while len(found) < count:
        clip = synthetic.clip(seed)
        if (clip.width, clip.height) == (width, height):
            found.append(seed)
        seed += 1
    return found


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    frames, persons = 0, list[int]()
    seconds = {"make": 0.0, "draw": 0.0, "encode": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds_of_size(count, 640, 360):
            began = time.process_time()
            clip = synthetic.clip(seed)
            seconds["make"] += time.process_time() - began
            persons.append(len(clip.track_ids))
            began = time.process_time()
            drawn = list(clip.frames())
            seconds["draw"] += time.process_time() - began
            began = time.process_time()
            rate = int(clip.scene.bits_per_pixel * clip.width * clip.height * clip.fps)
            write_frames(drawn, Path(folder) / f"clip.{clip.scene.container}", clip.fps, clip.scene.codec, rate)
            seconds["encode"] += time.process_time() - began
            frames += clip.frame_count
    result = {
        "frames_per_second": round(frames / sum(seconds.values()), 1),
        "limit_bare_encoder_frames_per_second": round(frames / seconds["encode"], 1),
        "milliseconds_per_frame": {name: round(1000 * value / frames, 2) for name, value in seconds.items()},
        "frames": frames,
        "persons_mean": round(float(np.mean(persons)), 1),
        "load_average": round(os.getloadavg()[0], 1),
        "target": 60,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
