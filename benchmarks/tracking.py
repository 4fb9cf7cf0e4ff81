"""How well and how fast are people followed, beside the ByteTrack of the `trackers` package?

    python -m benchmarks.tracking [--clips 100] [--world 32] [--set keypoint_weight=0 ...]

Synthetic clips of 4 s of a world on which nothing was trained or tuned, half of them fights, most with people who cross or hide
each other (`benchmarks.tracking_scenes`). Both trackers see the same rows:

- true: the true people, disturbed: noise, drop-outs behind others, boxes with nobody in them;
- extracted: what the shipped pose weights find in the pictures (kept in the temporary folder: ~40 ms a frame the first time).

HOTA, IDF1 and MOTA (percent) are computed by `trackers.eval` against the true boxes, over all clips and over fights and the rest
apart. The peer runs twice, with its own defaults and with our thresholds; the better of the two stands for it in
`hota_trackers` and `idf1_trackers`. Speed is frames per second of CPU time at 10 persons, one thread, median of some rounds taken
in turn, without making the peer's input or reading its answers. The last line is JSON, with the machine's load.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import supervision
from trackers import ByteTrackTracker
from trackers.eval import clear, hota, identity

from benchmarks.tracking_scenes import REPORTED_WORLD, Scene, disturbed, scenes
from violence_ops.params import TrackingParams, load_params
from violence_ops.records import JOINTS, ClipPoses, IntArray
from violence_ops.tracking import ByteTrack
from violence_ops.tracking.boxes import iou

PARAMS = load_params(Path(__file__).parents[1] / "params.yaml")
Tracker = Callable[[ClipPoses, IntArray], IntArray]
"""Of a clip's people and the frames looked at: `(R,)` the id of every row, 0 = none."""
PEERS = ("trackers", "trackers_our_thresholds")


def peer(ours: TrackingParams | None) -> Tracker:
    """The other ByteTrack, with its own defaults or with our thresholds."""

    def track(poses: ClipPoses, frames: IntArray) -> IntArray:
        ids = np.zeros(len(poses), np.int32)
        for found in updated(peer_tracker(ours, poses, frames), detections(poses, frames)):
            if len(found):
                ids[found.class_id] = np.asarray(found.tracker_id) + 1
        return ids

    return track


def peer_tracker(ours: TrackingParams | None, poses: ClipPoses, frames: IntArray) -> ByteTrackTracker:
    """The other ByteTrack for a clip at this rate."""
    rate = poses.fps / float(np.diff(frames[:2], prepend=0)[-1] or 1)
    settings: dict[str, Any] = {"frame_rate": rate}
    if ours:
        settings |= {
            "track_activation_threshold": ours.new_track_score, "high_conf_det_threshold": ours.high_score,
            "minimum_iou_threshold": ours.match_iou, "minimum_consecutive_frames": ours.min_hits,
            "lost_track_buffer": round(30 * ours.buffer_s),
        }  # fmt: skip
    return ByteTrackTracker(**settings)


def detections(poses: ClipPoses, frames: IntArray) -> list[supervision.Detections]:
    """The people of each frame as the other tracker wants them; their class is which row they are."""
    bounds = np.searchsorted(poses.frame, np.append(frames, frames[-1] + 1))
    return [
        supervision.Detections(
            xyxy=poses.bboxes[start:end], confidence=poses.scores[start:end], class_id=np.arange(start, end)
        )
        for start, end in pairwise(bounds)
    ]


def updated(tracker: ByteTrackTracker, seen: list[supervision.Detections]) -> list[supervision.Detections]:
    """What the other tracker says of each frame in turn."""
    return [tracker.update(people) for people in seen]


def judged(scene: Scene, poses: ClipPoses, ids: IntArray) -> dict[str, dict[str, Any]]:
    """The figures of one clip, in the form that `trackers.eval` adds up."""
    names = np.unique(ids[ids > 0])
    true, given, similar = [], [], []
    for index, frame in enumerate(scene.frames):
        people = np.flatnonzero(scene.present[index])
        rows = np.flatnonzero((poses.frame == frame) & (ids > 0))
        true.append(people)
        given.append(np.searchsorted(names, ids[rows]))
        similar.append(iou(scene.bboxes[index, people].astype(float), poses.bboxes[rows].astype(float)))
    return {
        "hota": hota.compute_hota_metrics(true, given, similar),
        "clear": clear.compute_clear_metrics(true, given, similar, threshold=0.5),
        "identity": identity.compute_identity_metrics(true, given, similar, threshold=0.5),
    }


def summed(clips: Iterable[dict[str, dict[str, Any]]]) -> dict[str, float]:
    """HOTA, IDF1, MOTA in percent, and the number of switched ids, over clips."""
    parts = list(clips)
    whole = hota.aggregate_hota_metrics([part["hota"] for part in parts])
    counts = clear.aggregate_clear_metrics([part["clear"] for part in parts])
    same = identity.aggregate_identity_metrics([part["identity"] for part in parts])
    figures = {"hota": whole["HOTA"], "assa": whole["AssA"], "idf1": same["IDF1"], "mota": counts["MOTA"]}
    return {name: round(100 * value, 2) for name, value in figures.items()} | {"switches": int(counts["IDSW"])}


def quality(
    chosen: list[Scene], views: dict[str, list[ClipPoses]], contenders: dict[str, Tracker]
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Figures by view, contender, and part (all, fights, rest)."""
    result: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for view, seen in views.items():
        result[view] = {}
        for name, track in contenders.items():
            each = [judged(scene, poses, track(poses, scene.frames)) for scene, poses in zip(chosen, seen, strict=True)]
            fights = [part for scene, part in zip(chosen, each, strict=True) if scene.fight]
            rest = [part for scene, part in zip(chosen, each, strict=True) if not scene.fight]
            result[view][name] = {"all": summed(each), "fights": summed(fights), "rest": summed(rest)}
    return result


def crowd(people: int, frames: int = 300, fps: float = 15.0) -> ClipPoses:
    """So many who walk up and down a picture of 640 x 360, straight through each other, for the speed."""
    rng = np.random.default_rng(0)
    begin, speed = rng.uniform((40, 60), (600, 300), (people, 2)), rng.normal(0, 40, (people, 2)) / fps
    walked = (begin + speed * np.arange(frames)[:, None, None]) % (1280, 720)
    centres = np.abs(walked - (640, 360)) + rng.normal(0, 2, (frames, people, 2))
    figure = rng.normal(0, 0.25, (people, JOINTS, 2)) * (40, 100)
    joints = centres[:, :, None] + figure + rng.normal(0, 2, (frames, people, JOINTS, 2))
    half = np.array([20.0, 50.0])
    return ClipPoses(
        clip_id="crowd", frame_count=frames, width=640, height=360, fps=fps,
        frame=np.repeat(np.arange(frames), people).astype(np.int32),
        bboxes=np.concatenate([centres - half, centres + half], -1).reshape(-1, 4).astype(np.float32),
        scores=rng.uniform(0.4, 0.95, frames * people).astype(np.float32),
        keypoints=joints.reshape(-1, JOINTS, 2).astype(np.float32),
        keypoint_scores=rng.uniform(0.3, 0.9, (frames * people, JOINTS)).astype(np.float32),
    )  # fmt: skip


def speed(ours: TrackingParams, people: int = 10, rounds: int = 15) -> dict[str, float]:
    """Frames per second of CPU time of each, at so many persons in every frame: median of some rounds taken in turn.

    Both get what they want to have: making the other's detections, and reading its answers, are not timed.
    """
    poses, frames = crowd(people), np.arange(300, dtype=np.int32)
    seen = detections(poses, frames)
    contenders: dict[str, Callable[[], object]] = {
        name: partial(ByteTrack(params).track, poses, frames) for name, params in own(ours).items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in (*contenders, *PEERS)}
    for _ in range(rounds):
        fresh = {
            name: partial(updated, peer_tracker(each, poses, frames), seen)
            for name, each in zip(PEERS, (None, ours), strict=True)
        }
        for name, track in (contenders | fresh).items():
            began = time.process_time()
            track()
            seconds[name].append(time.process_time() - began)
    return {name: round(len(frames) / float(np.median(each)), 1) for name, each in seconds.items()}


def own(params: TrackingParams) -> dict[str, TrackingParams]:
    """Our tracker with the joints as second cue, and with boxes alone."""
    return {"ours": params, "ours_boxes_alone": params.model_copy(update={"keypoint_weight": 0.0})}


def changed(settings: list[str]) -> TrackingParams:
    """The tracking parameters with some `name=value` set."""
    values = {name: json.loads(value) for name, _, value in (each.partition("=") for each in settings)}
    return TrackingParams.model_validate(PARAMS.tracking.model_dump() | values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--world", type=int, default=REPORTED_WORLD)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="another value of tracking.NAME"
    )
    options = parser.parse_args()
    ours = changed(options.set)
    contenders: dict[str, Tracker] = {
        **{name: ByteTrack(params).track for name, params in own(ours).items()},
        **dict(zip(PEERS, (peer(None), peer(ours)), strict=True)),
    }
    rates = speed(ours)
    chosen = list(scenes(options.world, options.clips, PARAMS, extract=True))
    views = {
        "true": [disturbed(scene) for scene in chosen],
        "extracted": [scene.extracted for scene in chosen if scene.extracted is not None],
    }
    found = quality(chosen, views, contenders)
    for view, parts in found.items():
        for name, figures in parts.items():
            print(f"{view:<10} {name:<24} " + "   ".join(f"{part} {values}" for part, values in figures.items()))
    for name, rate in rates.items():
        print(f"speed      {name:<24} {rate:>9} frames/s at 10 persons")
    result: dict[str, Any] = {"speed_vs_trackers": round(rates["ours"] / max(rates[name] for name in PEERS), 2)}
    for metric in ("hota", "idf1", "mota"):
        for suffix, part in (("", "all"), ("_fights", "fights"), ("_rest", "rest")):
            for name, group in (("", ("ours",)), ("_trackers", PEERS)):
                result[f"{metric}{suffix}{name}"] = {
                    view: max(found[view][each][part][metric] for each in group) for view in found
                }
    result |= {
        "clips": len(chosen), "crossing": sum(scene.crossing for scene in chosen), "world": options.world,
        "frames_per_second": rates, "load": [round(value, 2) for value in os.getloadavg()],
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
