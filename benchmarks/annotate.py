"""How many clips a second does `annotate` do, and what share of a night does it take?

    python -m benchmarks.annotate [--clips 48] [--seconds 2.0] [--workers 0]

A real night in a workspace of its own in the temporary folder: synthetic clips go through ingest, validate, extract-poses,
annotate, score and seal, each timed by the wall clock and by the processor time of all its processes, which a busy machine
changes less. Beside the stage stands, in the same run and in one process, what bounds it from below:

- tables: reading the same poses and writing the same tracks, with nothing in between;
- following: tracking, filling and ranking alone, from arrays to arrays.

`clips_per_s` is the whole stage with the start of its processes; `clips_per_s_after_start` leaves that start out and is what
a long night comes near to. The last line is JSON.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from violence_ops import workers
from violence_ops.errors import UserError
from violence_ops.files import write_table
from violence_ops.folders import Batch
from violence_ops.params import Params
from violence_ops.records import sampled_frames
from violence_ops.stages.nightly import annotate, extract_poses, ingest, score, seal, validate
from violence_ops.stages.nightly.following import follow
from violence_ops.stages.upkeep import init, synth
from violence_ops.store import batches
from violence_ops.workspace import Workspace

NIGHT = date(2026, 1, 31)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a clip")
    parser.add_argument("--workers", type=int, default=0, help="annotation.workers; 0: as the machine is free")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="violence-ops-annotate-") as folder:
        try:
            result = measured(Path(folder), options.clips, options.seconds, options.workers)
        except UserError as error:
            print(error, file=sys.stderr)
            return error.exit_code
    print(json.dumps(result))
    return 0


def measured(folder: Path, clips: int, duration_s: float, asked: int) -> dict[str, Any]:
    """Run the night and its bounds; the figures."""
    load = [round(value, 2) for value in os.getloadavg()]
    init.run(folder / "ws", params_overrides={"ingest.settle_s": 0.0, "annotation.workers": asked})
    workspace = Workspace.open(folder / "ws")
    params = workspace.params()
    synth.run(workspace.inbox, clips, 5, max(1, clips // 4), with_truth=False, duration_s=duration_s)
    seconds: dict[str, float] = {}
    processor: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began, before = time.perf_counter(), processor_s()
        found = work()
        seconds[name], processor[name] = time.perf_counter() - began, processor_s() - before
        print(f"{name:<14} {seconds[name]:8.2f} s  {processor[name]:8.2f} s of a processor", flush=True)
        return found

    (batch_id,) = timed("ingest", lambda: ingest.run(workspace, params, night=NIGHT)).batch_ids
    timed("validate", lambda: (validate.run(workspace, params), validate.checkpoint(workspace, params)))
    timed("extract-poses", lambda: extract_poses.run(workspace, params))
    processes = workers.worker_count(asked, clips, seconds=clips * duration_s)
    done = timed("annotate", lambda: annotate.run(workspace, params)).annotated
    batch = workspace.batch(batch_id)
    bounds = alone(batch, params)
    started = started_s(batch, params)
    timed("score", lambda: score.run(workspace, params))
    timed("seal", lambda: seal.run(workspace, params))
    night, work = sum(seconds.values()), sum(processor.values())
    print(f"{'night':<14} {night:8.2f} s  {work:8.2f} s of a processor")
    print(f"annotate is {seconds['annotate'] / night:.1%} of it, {processor['annotate'] / work:.1%} of the processor's")
    for name, took in bounds.items():
        print(f"{name + ' alone':<18} {done / took:8.1f} clips/s in one process")
    return {
        "clips_per_s": round(done / seconds["annotate"], 2),
        "clips_per_s_after_start": round(done / max(seconds["annotate"] - started, 1e-9), 2),
        "share_of_night": round(seconds["annotate"] / night, 4),
        "processor_s_per_clip": round(processor["annotate"] / done, 4),
        "processor_share_of_night": round(processor["annotate"] / work, 4),
        "tables_alone_clips_per_s": round(done / bounds["tables"], 1),
        "following_alone_clips_per_s": round(done / bounds["following"], 1),
        "start_s": round(started, 2), "clips": done, "clip_seconds": duration_s, "workers": processes,
        "seconds": {name: round(value, 2) for name, value in seconds.items()}, "load": load,
    }  # fmt: skip


def processor_s() -> float:
    """Seconds of a processor that this process and its ended children have taken."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def alone(batch: Batch, params: Params) -> dict[str, float]:
    """Seconds in this process for reading and writing the tables of all clips, and for what is done between the two."""
    seconds = {"tables": 0.0, "following": 0.0}
    for clip in batches.accepted_clips(batch):
        tracks = batches.read_tracks(batch, clip)
        began = time.perf_counter()
        poses = batches.read_poses(batch, clip)
        write_table(batch.open / "again.parquet", tracks.to_table(), "again")
        seconds["tables"] += time.perf_counter() - began
        began = time.perf_counter()
        follow(poses, params, sampled_frames(clip, params.pose.max_frames_per_second))
        seconds["following"] += time.perf_counter() - began
    (batch.open / "again.parquet").unlink()
    return seconds


def started_s(batch: Batch, params: Params) -> float:
    """Seconds that a process takes until it has annotated its first clip, less what its second one takes."""
    clips = batches.accepted_clips(batch)[:1]
    common = {"root": str(batch.open.parents[1]), "batch_id": batch.batch_id, "params": params.model_dump(mode="json")}
    limits = {clip.clip_id: 600.0 for clip in clips}
    began = time.perf_counter()
    list(workers.outcomes("violence_ops.stages.nightly.annotate:annotate_clip", common, limits, workers=1))
    first = time.perf_counter() - began
    began = time.perf_counter()
    annotate.annotate_clip(common, clips[0].clip_id)
    return first - (time.perf_counter() - began)


if __name__ == "__main__":
    sys.exit(main())
