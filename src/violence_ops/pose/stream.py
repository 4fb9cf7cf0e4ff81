"""Poses of many videos, with decoding and looking overlapped: the network never waits for a frame while there is one.

Some threads decode, a video each, and hand pictures to a short queue; as many threads as the network has lanes take
pictures from it, of whichever video. Results come out in the order of the videos and of their frames.

What is held is bounded: the queue, and the results that nobody has taken yet, of some videos and of so many frames of each.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np

from violence_ops.letterbox import Fit, Letterbox
from violence_ops.records import FramePoses

AHEAD = 2048  # frames of one video that may be ready before they are taken
_VIDEOS_AHEAD = 8  # that may be begun beyond the one that is being taken, besides one for each decoder
_QUEUED = 16  # pictures per lane that wait for the network
_TICK_S = 0.2  # how often a waiting thread looks whether all is over

_Video = TypeVar("_Video")
Picture = tuple[np.ndarray, Letterbox]
Decoder = Callable[[_Video], Iterator[Picture]]
"""Gives the pictures of a video that are to be looked at, in order; what it raises is raised again where they are taken."""


class PoseSource(Protocol):
    """Whoever finds people in pictures. `lanes` calls may run at once; `fit` is how it wants its pictures (None: as they are)."""

    @property
    def fit(self) -> Fit | None: ...

    @property
    def lanes(self) -> int: ...

    @property
    def mini_batch(self) -> int: ...

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds that have gone by for the lane that asks: what a call costs is their difference."""

    def persons(self, pictures: Sequence[np.ndarray], boxes: Sequence[Letterbox]) -> list[FramePoses]: ...


@dataclass
class Poses(Generic[_Video]):
    """The poses of one video: iterate over it to get a FramePoses per picture. `engine_s` is what looking took, by the source's clock."""

    video: _Video
    _check: Callable[[], None]
    engine_s: float = 0.0
    _ready: dict[int, FramePoses] = field(default_factory=dict)
    _room: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(AHEAD))
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _count: int | None = None
    _failure: BaseException | None = None

    def __iter__(self) -> Iterator[FramePoses]:
        number = 0
        while (found := self._take(number)) is not None:
            self._room.release()
            yield found
            number += 1

    def _take(self, number: int) -> FramePoses | None:
        with self._changed:
            while number not in self._ready:
                if self._count == number:
                    if self._failure is not None:
                        raise self._failure
                    return None
                self._check()
                self._changed.wait(_TICK_S)
            return self._ready.pop(number)

    def _put(self, number: int, found: FramePoses, seconds: float) -> None:
        with self._changed:
            self._ready[number] = found
            self.engine_s += seconds
            self._changed.notify()

    def _end(self, count: int, failure: BaseException | None) -> None:
        with self._changed:
            self._count, self._failure = count, failure
            self._changed.notify()


@dataclass(frozen=True)
class _Task:
    """Picture `number` of a video, to be looked at."""

    poses: Poses
    number: int
    picture: np.ndarray
    box: Letterbox


class PoseStream(Generic[_Video]):
    """Use it as a context manager; `over(videos)` yields the `Poses` of each video, to be taken before the next one."""

    def __init__(
        self, source: PoseSource, decoder: Callable[[], AbstractContextManager[Decoder[_Video]]], decoders: int = 2
    ) -> None:
        """`decoder` opens what one thread decodes with; there are `decoders` of them."""
        self._source, self._decoder, self._decoders = source, decoder, decoders
        self._tasks: queue.Queue[_Task] = queue.Queue(_QUEUED * source.lanes * max(1, source.mini_batch // 4))
        self._opened: set[tuple[int, ...]] = set()
        self._opening = threading.Lock()
        self._begun = threading.Semaphore(decoders + _VIDEOS_AHEAD)
        self._stop = threading.Event()
        self._broken: BaseException | None = None
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> PoseStream[_Video]:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def over(self, videos: Sequence[_Video]) -> Iterator[Poses[_Video]]:
        """The poses of every video, in their order.

        Raises whatever the network raised; what a decoder raised is raised by the `Poses` of its video alone.
        """
        every = [Poses(video, self._check) for video in videos]
        waiting: queue.SimpleQueue[Poses[_Video]] = queue.SimpleQueue()
        for poses in every:
            waiting.put(poses)
        workers = [lambda: self._decode(waiting)] * min(self._decoders, len(every)) + [self._look] * self._source.lanes
        self._threads = [threading.Thread(target=self._guarded, args=(work,), daemon=True) for work in workers]
        for thread in self._threads:
            thread.start()
        for poses in every:
            yield poses
            self._begun.release()

    def _check(self) -> None:
        """Raise why nothing more will come, if that is so."""
        if self._broken is not None:
            raise self._broken
        if self._stop.is_set():
            raise RuntimeError("poses were asked for after their stream was closed")

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run a thread's work; what goes wrong ends the stream and is raised where the results are taken."""
        try:
            work()
        except BaseException as error:
            self._broken = self._broken or error
            self._stop.set()

    def _decode(self, waiting: queue.SimpleQueue[Poses[_Video]]) -> None:
        with self._decoder() as decode:
            while not self._stop.is_set():
                if not self._begun.acquire(timeout=_TICK_S):
                    continue
                try:
                    poses = waiting.get_nowait()
                except queue.Empty:
                    return
                self._decode_one(decode, poses)

    def _decode_one(self, decode: Decoder[_Video], poses: Poses[_Video]) -> None:
        count = 0
        try:
            for count, (picture, box) in enumerate(decode(poses.video), start=1):
                task = _Task(poses, count - 1, picture, box)
                while not poses._room.acquire(timeout=_TICK_S):
                    if self._stop.is_set():
                        return
                while not self._stop.is_set():
                    try:
                        self._tasks.put(task, timeout=_TICK_S)
                        break
                    except queue.Full:
                        continue
        except Exception as failure:
            poses._end(count, failure)
        else:
            poses._end(count, None)

    def _look(self) -> None:
        held: _Task | None = None
        while not self._stop.is_set():
            tasks, held = self._batch(held)
            if not tasks:
                continue
            self._open(tasks)
            clock = self._source.clock
            begin = clock()
            found = self._persons(tasks)
            seconds = (clock() - begin) / len(tasks)
            for task, persons in zip(tasks, found, strict=True):
                task.poses._put(task.number, persons, seconds)

    def _open(self, tasks: list[_Task]) -> None:
        """Have the network opened for pictures of this size by looking at some twice: that is no cost of their clips."""
        shape = tasks[0].picture.shape
        with self._opening:
            if shape not in self._opened:
                self._persons(tasks)
                self._opened.add(shape)

    def _persons(self, tasks: list[_Task]) -> list[FramePoses]:
        return self._source.persons([task.picture for task in tasks], [task.box for task in tasks])

    def _batch(self, held: _Task | None) -> tuple[list[_Task], _Task | None]:
        """Waiting pictures of one size, at most a mini-batch, and one of another size that was taken by the way."""
        first = held or self._next(_TICK_S)
        tasks = [first] if first else []
        while tasks and len(tasks) < self._source.mini_batch:
            task = self._next(0.0)
            if task is None:
                break
            if task.picture.shape != tasks[0].picture.shape:
                return tasks, task
            tasks.append(task)
        return tasks, None

    def _next(self, wait_s: float) -> _Task | None:
        try:
            return self._tasks.get(block=wait_s > 0, timeout=wait_s or None)
        except queue.Empty:
            return None
