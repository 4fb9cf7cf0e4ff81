"""The sandbox's child: `python -m violence_ops.video.child LIMITS`. Reads requests from stdin, answers on stdout."""

from __future__ import annotations

import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from violence_ops.errors import Rejected
from violence_ops.letterbox import Fit
from violence_ops.params import ValidationParams
from violence_ops.video import decode, facts

HEADER_BYTES = 4  # of an answer: its length


def main() -> None:
    """Serve until stdin ends."""
    limits = ValidationParams.model_validate_json(sys.argv[1])
    # whatever a library prints must not get between the answers
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _load_libraries()
    memory = limits.memory_mb << 20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out.write(b"\n")
    out.flush()
    for line in sys.stdin.buffer:
        _serve(json.loads(line), limits, out)


def _serve(request: dict[str, Any], limits: ValidationParams, out: BinaryIO) -> None:
    try:
        if request["do"] == "examine":
            _say(out, {"facts": asdict(_examine(Path(request["path"]), limits, out))})
        else:
            _allow_seconds(None)  # frames come at the pace of who wants them, who bounds the time of each
            _send_frames(Path(request["path"]), request, _Pulse(out, limits.timeout_s / 10), out)
    except Rejected as refusal:
        _say(out, {"reason": refusal.reason, "message": str(refusal)})
    except MemoryError:
        name = Path(request["path"]).name
        message = f"{name} needs more memory to decode than validation.memory_mb allows ({limits.memory_mb} MB)."
        _say(out, {"reason": "too_large", "message": message})


def _examine(path: Path, limits: ValidationParams, out: BinaryIO) -> facts.VideoFacts:
    def promised(seconds: float) -> None:
        _allow_seconds(limits.allowance_s(seconds))
        _say(out, {"promised_s": seconds})

    _allow_seconds(limits.timeout_s)
    return facts.examine(path, limits, promised)


class _Pulse:
    """Says every few seconds that frames decode, for it may be long until the next one that somebody wants."""

    def __init__(self, out: BinaryIO, every_s: float) -> None:
        self._out, self._every_s, self._last = out, every_s, time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._last > self._every_s:
            _say(self._out, {"decoding": True})
            self._last = time.monotonic()


def _send_frames(path: Path, request: dict[str, Any], pulse: _Pulse, out: BinaryIO) -> None:
    for index, (picture, width, height) in zip(_wanted(request), _pictures(path, request, pulse), strict=False):
        facts = {"index": index, "height": picture.shape[0], "width": picture.shape[1], "frame": [width, height]}
        _say(out, facts, np.ascontiguousarray(picture).data)
    _say(out, {"done": True})


def _pictures(path: Path, request: dict[str, Any], pulse: _Pulse) -> Iterator[tuple[decode.Frame, int, int]]:
    """The frames that are asked for, letterboxed if that is asked for, and their own width and height."""
    known = tuple(request["known"]) if request["known"] else None
    if not request.get("fit"):
        frames = decode.frames(path, _wanted(request), pulse, known)
        yield from ((frame, frame.shape[1], frame.shape[0]) for frame in frames)
        return
    for picture, box in decode.fitted(path, _wanted(request), Fit(*request["fit"]), pulse, known):
        yield picture, box.width, box.height


def _wanted(request: dict[str, Any]) -> Iterator[int]:
    """The indices of the frames that are asked for: every n-th, or those of some runs [first, last, step]."""
    if "step" in request:
        return itertools.count(0, request["step"])
    return (index for first, last, step in request["indices"] for index in range(first, last + 1, step))


def _say(out: BinaryIO, answer: dict[str, Any], pixels: memoryview | bytes = b"") -> None:
    message = json.dumps(answer).encode()
    out.write(len(message).to_bytes(HEADER_BYTES, "big") + message)
    if pixels:
        out.write(pixels)
    out.flush()


def _allow_seconds(seconds: float | None) -> None:
    """Let the process use this much processor time from now (None: any); more ends it with SIGXCPU."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = resource.RLIM_INFINITY if seconds is None else int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def _load_libraries() -> None:
    """Import what examining needs before memory is bounded."""
    import av
    import cv2

    av.logging.set_level(None)
    cv2.setNumThreads(1)


if __name__ == "__main__":
    main()
