"""A child process that decodes what nobody has vouched for: bounded in memory and time, killed and replaced when it misbehaves.

Parent and child talk over pipes: a line of JSON for a request; for an answer its length and JSON; raw bytes for frames.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NoReturn, Self

import numpy as np

from violence_ops.deployment import bare_environment, python_module
from violence_ops.errors import Rejected, ServiceUnavailable
from violence_ops.letterbox import Fit, Letterbox
from violence_ops.params import ValidationParams
from violence_ops.video.child import HEADER_BYTES
from violence_ops.video.decode import Frame
from violence_ops.video.facts import VideoFacts

_START_S: Final = 60.0
_PIPE_BYTES: Final = 1 << 20  # a picture at a time, so that the child goes on decoding
_CHILD: Final = "violence_ops.video.child"
_OF_A_CHECK: Final = "validation.timeout_s and, for long clips, validation.seconds_per_video_second"


class _Crashed(Exception):
    """The child ended in the middle of its work."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    def told(self, name: str) -> Rejected | ServiceUnavailable:
        """What it says of the file; that something else killed the child says nothing of it, as the child's memory is bounded."""
        if self.code == -signal.SIGKILL:
            return ServiceUnavailable(
                f"The decoder of {name} was killed twice, most likely because the machine lacks memory: free some, then run the step again."
            )
        return Rejected("decode_error", f"{name} crashed the decoder twice (exit code {self.code}).")


class _Deadline:
    """`seconds` from now, which is what `settings` allow."""

    def __init__(self, seconds: float, settings: str = "validation.timeout_s") -> None:
        self.seconds, self.settings = seconds, settings
        self._end = time.monotonic() + seconds

    def left_s(self) -> float:
        return max(0.0, self._end - time.monotonic())


@dataclass(slots=True)
class Sandbox:
    """Decodes many videos, one after the other, in one child while that behaves. Use it as a context manager."""

    limits: ValidationParams
    _child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def validate(self, path: Path) -> VideoFacts:
        """What the video is. Raises Rejected with a reason code of SPEC 1, `timeout` and a crashed decoder included."""
        try:
            return self._examine(path)
        except _Crashed:  # once more, as something else may have killed the child
            try:
                return self._examine(path)
            except _Crashed as crash:
                raise crash.told(path.name) from None

    def _examine(self, path: Path) -> VideoFacts:
        answer = self._ask({"do": "examine", "path": str(path)}, path.name)
        if "promised_s" in answer:
            answer = self._answer(path.name, self.limits.allowance_s(answer["promised_s"]))
        return VideoFacts(**answer["facts"])

    def frames(self, path: Path, step: int = 1, *, known: tuple[int, int] | None = None) -> Iterator[tuple[int, Frame]]:
        """Every `step`-th frame with its index, `(H, W, 3)` uint8 BGR, one at a time; `known` is the clip's size (`Display.of`).

        Raises Rejected if the decoder crashes twice, or takes longer than `limits.timeout_s` for one frame, wanted or not.
        """
        return ((index, frame) for index, frame, _, _ in self._frames(path, {"step": step, "known": known}))

    def pictures(
        self, path: Path, indices: Sequence[int], fit: Fit | None, *, known: tuple[int, int] | None = None
    ) -> Iterator[tuple[Frame, Letterbox]]:
        """The frames with these ascending indices, letterboxed in the child (None: as they are), and how each lies in its picture.

        Fitting there means that a small picture goes through the pipe instead of a large frame. `known` and what it raises: as
        `frames`.
        """
        letterbox = None if fit is None else [fit.long_side, fit.multiple]
        wanted = {"indices": _runs(indices), "fit": letterbox, "known": known}
        for _, picture, width, height in self._frames(path, wanted):
            yield picture, Letterbox(width, height, picture.shape[1], picture.shape[0])

    def _frames(self, path: Path, wanted: dict[str, Any]) -> Iterator[tuple[int, Frame, int, int]]:
        """Frames with their index and their width and height before they were fitted.

        Raises Rejected if the decoder crashes twice, or takes longer than `limits.timeout_s` for one frame, wanted or not.
        """
        last = -1
        try:
            for found in self._stream(path, wanted):
                yield found
                last = found[0]
        except _Crashed:
            try:
                yield from (found for found in self._stream(path, wanted) if found[0] > last)
            except _Crashed as crash:
                raise crash.told(path.name) from None

    def _stream(self, path: Path, wanted: dict[str, Any]) -> Iterator[tuple[int, Frame, int, int]]:
        answer = self._ask({"do": "frames", "path": str(path)} | wanted, path.name)
        try:
            while "index" in answer:
                shape = (answer["height"], answer["width"], 3)
                pixels = self._read(shape[0] * shape[1] * 3, _Deadline(self.limits.timeout_s), path.name)
                yield answer["index"], np.frombuffer(pixels, np.uint8).reshape(shape), *answer["frame"]
                answer = self._answer(path.name)
        finally:
            if "done" not in answer:  # left in the middle: the child still writes frames that nobody wants
                self._kill()

    def close(self) -> None:
        """End the child."""
        self._kill()

    def _ask(self, request: dict[str, Any], name: str) -> dict[str, Any]:
        self._forget_dead()
        child = self._running()
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            self._died(name)
        return self._answer(name)

    def _answer(self, name: str, seconds: float | None = None) -> dict[str, Any]:
        """The child's next answer, within `seconds` (default: `limits.timeout_s`) of the last sign that it decodes frames."""
        answer: dict[str, Any] = {"decoding": True}
        while "decoding" in answer:
            deadline = _Deadline(seconds, _OF_A_CHECK) if seconds else _Deadline(self.limits.timeout_s)
            size = int.from_bytes(self._read(HEADER_BYTES, deadline, name), "big")
            answer = json.loads(self._read(size, deadline, name))
        if "reason" in answer:
            raise Rejected(answer["reason"], answer["message"])
        return answer

    def _read(self, size: int, deadline: _Deadline, name: str) -> bytearray:
        """Exactly `size` bytes of the child's output. Raises Rejected if it dies or the deadline passes."""
        child = self._running()
        assert child.stdout is not None
        data, done = bytearray(size), 0
        while done < size:
            ready, _, _ = select.select([child.stdout], [], [], deadline.left_s())
            if not ready:
                self._kill()
                raise Rejected(
                    "timeout", f"{name} took longer than {deadline.seconds:g} s to decode ({deadline.settings})."
                )
            count = os.readv(child.stdout.fileno(), [memoryview(data)[done:]])
            if not count:
                self._died(name)
            done += count
        return data

    def _died(self, name: str) -> NoReturn:
        assert self._child is not None
        code = self._child.wait()
        self._kill()
        if code == -signal.SIGXCPU:
            raise Rejected("timeout", f"{name} took more processor time than is allowed ({_OF_A_CHECK}).")
        raise _Crashed(code)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            self._child = _start(self.limits)
        return self._child

    def _forget_dead(self) -> None:
        """Drop a child that died since the last answer; that is no fault of the next clip."""
        if self._child is not None and self._child.poll() is not None:
            self._kill()

    def _kill(self) -> None:
        if self._child is None:
            return
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            _close(pipe)
        self._child = None


def _runs(indices: Sequence[int]) -> list[list[int]]:
    """Ascending indices as [first, last, step] of runs of equal steps: a long video's fit into one short line."""
    runs: list[list[int]] = []
    for index in map(int, indices):
        if runs and (runs[-1][0] == runs[-1][1] or index - runs[-1][1] == runs[-1][2]):
            runs[-1][1:] = index, index - runs[-1][1]
        else:
            runs.append([index, index, 1])
    return runs


def _start(limits: ValidationParams) -> subprocess.Popen[bytes]:
    # one thread: every thread of a numeric library reserves address space, which is what the child has little of
    environment = bare_environment(python=True) | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        python_module(_CHILD, json.dumps(limits.model_dump())),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, bufsize=0,
    )  # fmt: skip
    assert child.stdout is not None
    fcntl.fcntl(child.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    ready, _, _ = select.select([child.stdout], [], [], _START_S)
    if not ready or os.read(child.stdout.fileno(), 1) != b"\n":
        child.kill()
        child.wait()
        raise RuntimeError(
            "the decoding process did not start: see that memory is free and validation.memory_mb is not too small"
        )
    return child


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        try:
            pipe.close()
        except BrokenPipeError:
            return
