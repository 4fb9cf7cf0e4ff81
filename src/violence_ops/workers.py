"""Work on clips in child processes, with a time limit for each item, whatever the item does.

A child is a fresh interpreter that runs one function; items and results travel as JSON lines. So a child that hangs or dies
takes nothing with it, and no thread or lock of the caller is copied into it.
"""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Container, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import IO, Any, Final

from violence_ops.capacity import free_memory, free_processors
from violence_ops.deployment import python_module
from violence_ops.errors import UserError

MEMORY_PER_WORKER: Final = 1 << 30
"""Bytes that a worker is expected to need for anything but a very long clip."""
_ITEMS_PER_WORKER: Final = 4
_SECONDS_PER_WORKER: Final = 8.0
"""Fewer items than this do not repay the start of another process, unless they are this much video: four usual clips."""
_START_S: Final = 60.0
"""Time for a child to import its function; no part of an item's limit."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item: its `value`, or why there is none: `timeout`, or twice `crashed` or `killed` (by the system,
    while no other child was at work).

    Nothing bounds a child's memory but what the machine has free, so that it was killed may lie in the item or in the machine.
    """

    item: str
    value: dict[str, Any] | None = None
    failure: str | None = None


def worker_count(asked: int, items: int, memory: int = MEMORY_PER_WORKER, *, seconds: float = 0.0) -> int:
    """How many processes to use for `items`: `asked`, or if that is 0 as many as free processors and memory allow.

    memory: bytes that one of them may need; seconds: of video in all the items, so that few long ones are worked on at once too.
    """
    if asked:
        return max(1, min(asked, items))
    useful = max(items // _ITEMS_PER_WORKER, min(items, int(seconds // _SECONDS_PER_WORKER)))
    if useful < 2:
        return 1
    return max(1, min(useful, free_processors(), free_memory() // memory))


def outcomes(target: str, common: dict[str, Any], limits_s: Mapping[str, float], *, workers: int) -> Generator[Outcome]:
    """Call `target` ("module:function") as `function(common, item) -> dict` for every item; yields in order of completion.

    `limits_s` are the items, each with the seconds it may take. An item whose child crashed gets one more try; one whose child was
    killed gets two, after all others and with no other child beside it. Raises UserError if the function raised one; RuntimeError
    if it ended with another error, whose traceback the child has printed.
    """
    killed: list[str] = []
    children = _Children(target, common)
    pool = ThreadPoolExecutor(workers)
    try:
        for future in as_completed([pool.submit(children.work_on, *each) for each in limits_s.items()]):
            if (outcome := future.result()).failure == "killed":
                killed.append(outcome.item)
            else:
                yield outcome
        for item in killed:
            children.end()  # those that wait for work hold memory
            yield children.work_on(item, limits_s[item], again=("crashed", "killed"))
    finally:
        children.stop.set()
        pool.shutdown(cancel_futures=True)
        children.end()


class _Children:
    """The child processes that wait for an item."""

    def __init__(self, target: str, common: dict[str, Any]) -> None:
        self.target, self.common = target, common
        self.stop = threading.Event()
        self._idle: queue.SimpleQueue[_Child] = queue.SimpleQueue()

    def work_on(self, item: str, limit_s: float, again: Container[str | None] = ("crashed",)) -> Outcome:
        """Have a child work on one item; two of them if the first fails in one of the ways `again`."""
        outcome = self._attempt(item, limit_s)
        return self._attempt(item, limit_s) if outcome.failure in again else outcome

    def _attempt(self, item: str, limit_s: float) -> Outcome:
        try:
            child = self._idle.get_nowait()
        except queue.Empty:
            child = _Child(self.target, self.common)
        healthy = False
        try:
            child.wait_until_ready(self.stop)
            outcome = child.answer(item, limit_s, self.stop)
            healthy = outcome.failure is None
            return outcome
        finally:
            if healthy:
                self._idle.put(child)
            else:
                child.end()

    def end(self) -> None:
        while not self._idle.empty():
            self._idle.get().end()


class _Child:
    """One child process."""

    def __init__(self, target: str, common: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            python_module(__name__, target), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        self.ready = False
        self._send(common)

    def wait_until_ready(self, stop: threading.Event) -> None:
        """Wait for the child's imports. Raises RuntimeError if it does not start."""
        if not self.ready and not (self._line(_START_S, stop) or b"").endswith(b"\n") and not stop.is_set():
            raise RuntimeError("a worker process did not start: see standard error, and that memory is free.")
        self.ready = True

    def answer(self, item: str, timeout_s: float, stop: threading.Event) -> Outcome:
        """The outcome of one item; raises as `outcomes` does."""
        self._send(item)
        line = self._line(timeout_s, stop)
        if line is None:
            return Outcome(item, failure="timeout")
        if not line.endswith(b"\n"):
            if (code := self.process.wait()) < 0:
                return Outcome(item, failure="killed" if code == -signal.SIGKILL else "crashed")
            raise RuntimeError(f"a worker process failed on {item}: its traceback is on standard error.")
        reply = json.loads(line)
        if "error" in reply:
            raise UserError(reply["error"])
        return Outcome(item, value=reply["value"])

    def end(self) -> None:
        """Kill the child, if it still runs, and let go of its pipes."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()

    def _send(self, content: Any) -> None:
        assert self.process.stdin
        with suppress(BrokenPipeError):  # the child is dead then, and reading its answer says so
            self.process.stdin.write(json.dumps(content).encode() + b"\n")

    def _line(self, timeout_s: float, stop: threading.Event) -> bytes | None:
        """One line, what there was of it if the child ended, or None when the time is over or nobody wants it any more."""
        assert self.process.stdout
        line, deadline = b"", time.monotonic() + timeout_s
        while not line.endswith(b"\n"):
            if time.monotonic() > deadline or stop.is_set():
                return None
            if select.select([self.process.stdout], [], [], 0.2)[0]:
                piece = os.read(self.process.stdout.fileno(), 1 << 16)
                if not piece:
                    break
                line += piece
        return line


def _work(function: Callable[[dict[str, Any], str], dict[str, Any]], source: IO[str], answers: IO[str]) -> None:
    """The child's side: one answer for each item, until the parent closes the pipe."""
    common = json.loads(source.readline())
    answers.write("\n")
    answers.flush()
    for line in source:
        try:
            reply: dict[str, Any] = {"value": function(common, json.loads(line))}
        except UserError as error:
            reply = {"error": str(error)}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


if __name__ == "__main__":
    # what a library prints must not end up among the answers
    private = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module, _, name = sys.argv[1].partition(":")
    _work(getattr(import_module(module), name), sys.stdin, private)
