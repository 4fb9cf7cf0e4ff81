"""What a video is and why it is refused, found by decoding it in a child process."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from violence_ops.errors import Rejected, ServiceUnavailable
from violence_ops.params import ValidationParams
from violence_ops.video import decode
from violence_ops.video import sandbox as sandbox_module
from violence_ops.video.facts import VideoFacts
from violence_ops.video.sandbox import Sandbox

REASONS = (
    "unreadable-empty", "unreadable-text", "unreadable-playlist", "truncated", "decode_error", "too_short", "bad_dimensions",
    "no_video_stream",
)  # fmt: skip


@pytest.fixture(scope="module")
def limits() -> ValidationParams:
    from violence_ops.params import load_params

    return load_params(Path(__file__).parents[2] / "params.yaml").validation


def _facts(path: Path, limits: ValidationParams) -> VideoFacts:
    with Sandbox(limits) as sandbox:
        return sandbox.validate(path)


def _frames(path: Path, limits: ValidationParams, step: int = 1) -> list[tuple[int, np.ndarray]]:
    with Sandbox(limits) as sandbox:
        return list(sandbox.frames(path, step))


def test_facts_are_those_of_the_decoded_frames(clip_folder: Path, limits: ValidationParams) -> None:
    facts = _facts(clip_folder / "clip0.mp4", limits)
    assert (facts.width, facts.height, facts.fps, facts.frame_count) == (160, 120, 15.0, 30)
    assert facts.duration_s == pytest.approx(2.0)
    assert facts.codec == "h264"
    assert 30 < facts.brightness < 90
    assert len(facts.perceptual_hash) == 16


def test_same_bytes_same_facts(clip_folder: Path, limits: ValidationParams) -> None:
    with Sandbox(limits) as sandbox:
        assert sandbox.validate(clip_folder / "clip1.mp4") == sandbox.validate(clip_folder / "clip1.mp4")


@pytest.mark.parametrize("name", REASONS)
def test_every_kind_of_broken_file_has_its_reason(broken_folder: Path, limits: ValidationParams, name: str) -> None:
    with pytest.raises(Rejected) as refusal:
        _facts(broken_folder / f"{name}.mp4", limits)
    assert refusal.value.reason == name.partition("-")[0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"max_size_mb": 0.0001}, "too_large"),
        ({"max_frames": 20}, "too_long"),
        ({"max_duration_s": 1.0}, "too_long"),
        ({"min_duration_s": 3.0}, "too_short"),
        ({"max_pixels": 10_000}, "bad_dimensions"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_limits_are_kept(clip_folder: Path, limits: ValidationParams, change: dict[str, float], reason: str) -> None:
    with pytest.raises(Rejected) as refusal:
        _facts(clip_folder / "clip0.mp4", limits.model_copy(update=change))
    assert refusal.value.reason == reason


def test_a_decoder_that_was_killed_between_two_clips_costs_neither(clip_folder: Path, limits: ValidationParams) -> None:
    with Sandbox(limits) as sandbox:
        sandbox.validate(clip_folder / "clip0.mp4")
        os.kill(sandbox._child.pid, signal.SIGKILL)
        sandbox._child.wait()
        assert sandbox.validate(clip_folder / "clip1.mp4").frame_count == 30


def test_a_decoder_that_is_killed_among_the_frames_goes_on_in_a_new_child(
    clip_folder: Path, limits: ValidationParams
) -> None:
    every = [frame for _, frame in _frames(clip_folder / "clip0.mp4", limits)]
    seen = []
    with Sandbox(limits) as sandbox:
        for index, frame in sandbox.frames(clip_folder / "clip0.mp4"):
            if index == 2:
                os.kill(sandbox._child.pid, signal.SIGSEGV)
            seen.append((index, frame))
    assert [index for index, _ in seen] == list(range(30))
    assert all(np.array_equal(frame, every[index]) for index, frame in seen)


def test_a_clip_that_crashes_the_decoder_is_refused_and_the_next_is_decoded(
    clip_folder: Path, limits: ValidationParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sandbox_module._start

    def crashing(limits: ValidationParams) -> subprocess.Popen[bytes]:
        child = real(limits)
        os.kill(child.pid, signal.SIGSTOP)
        os.kill(child.pid, signal.SIGSEGV)
        threading.Timer(0.3, os.kill, (child.pid, signal.SIGCONT)).start()
        return child

    with Sandbox(limits) as sandbox:
        monkeypatch.setattr(sandbox_module, "_start", crashing)
        with pytest.raises(Rejected) as refusal:
            sandbox.validate(clip_folder / "clip0.mp4")
        assert refusal.value.reason == "decode_error"
        monkeypatch.setattr(sandbox_module, "_start", real)
        assert sandbox.validate(clip_folder / "clip1.mp4").frame_count == 30


def test_a_decoder_that_hangs_is_killed_and_replaced(clip_folder: Path, limits: ValidationParams) -> None:
    with Sandbox(limits.model_copy(update={"timeout_s": 5.0})) as sandbox:
        sandbox.validate(clip_folder / "clip0.mp4")
        stopped = sandbox._child.pid
        os.kill(stopped, signal.SIGSTOP)
        with pytest.raises(Rejected) as refusal:
            sandbox.validate(clip_folder / "clip1.mp4")
        assert refusal.value.reason == "timeout"
        assert not Path(f"/proc/{stopped}").exists()
        assert sandbox.validate(clip_folder / "clip2.mp4").frame_count == 30


def test_a_long_clip_may_take_longer_and_sending_frames_as_long_as_it_takes(
    clip_folder: Path, limits: ValidationParams
) -> None:
    limits = limits.model_copy(update={"timeout_s": 50.0, "seconds_per_video_second": 100.0})
    assert limits.allowance_s(2.0) == 250.0
    assert limits.allowance_s(1e9) == 50.0 + 100.0 * limits.max_duration_s

    def processor_seconds(sandbox: Sandbox) -> str:
        line = next(one for one in Path(f"/proc/{sandbox._child.pid}/limits").read_text().splitlines() if "cpu" in one)
        return line.split()[3]

    with Sandbox(limits) as sandbox:
        sandbox.validate(clip_folder / "clip0.mp4")  # 2 s long
        assert 250 < int(processor_seconds(sandbox)) < 300
        assert len(list(sandbox.frames(clip_folder / "clip0.mp4"))) == 30
        assert processor_seconds(sandbox) == "unlimited"


def test_the_time_that_the_header_earns_a_clip_is_waited_for(
    clip_folder: Path, limits: ValidationParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    left_s = sandbox_module._Deadline.left_s
    monkeypatch.setattr(sandbox_module._Deadline, "left_s", lambda self: waited.append(self.seconds) or left_s(self))
    with Sandbox(limits) as sandbox:
        sandbox.validate(clip_folder / "clip0.mp4")
    assert (min(waited), max(waited)) == (limits.timeout_s, limits.timeout_s + 2 * limits.seconds_per_video_second)


def test_memory_of_the_decoder_is_bounded(tmp_path: Path, limits: ValidationParams) -> None:
    from violence_ops.video.write import VideoWriter

    with VideoWriter(tmp_path / "big.mp4", width=3840, height=2160, fps=15) as writer:
        for _ in range(8):
            writer.write(np.zeros((2160, 3840, 3), np.uint8))
    with pytest.raises(Rejected) as refusal:
        _facts(tmp_path / "big.mp4", limits.model_copy(update={"memory_mb": 256}))
    assert refusal.value.reason in ("too_large", "decode_error")  # FFmpeg does not always say that it was memory


def test_frames_from_the_child_are_those_decoded_here(clip_folder: Path, limits: ValidationParams) -> None:
    path = clip_folder / "clip3.mp4"
    here = dict(enumerate(decode.frames(path)))
    there = _frames(path, limits, step=4)
    assert [index for index, _ in there] == list(range(0, 30, 4))
    assert all(np.array_equal(frame, here[index]) for index, frame in there)


def test_leaving_the_frames_early_ends_the_child(clip_folder: Path, limits: ValidationParams) -> None:
    with Sandbox(limits) as sandbox:
        for _ in sandbox.frames(clip_folder / "clip0.mp4"):
            break
        assert sandbox.validate(clip_folder / "clip1.mp4").frame_count == 30


def test_chosen_frames_come_in_order(clip_folder: Path) -> None:
    chosen = list(decode.frames(clip_folder / "clip0.mp4", [0, 7, 29]))
    every = list(decode.frames(clip_folder / "clip0.mp4"))
    assert all(np.array_equal(a, every[i]) for a, i in zip(chosen, [0, 7, 29], strict=True))


def test_pictures_that_look_alike_have_hashes_that_are_near() -> None:
    from violence_ops.video.facts import hash_of

    random = np.random.default_rng(3)
    picture = np.kron(random.integers(0, 200, (8, 8)), np.ones((4, 4))).astype(np.uint8)
    brighter, other = picture + 10, np.kron(random.integers(0, 200, (8, 8)), np.ones((4, 4))).astype(np.uint8)

    def distance(one: np.ndarray, two: np.ndarray) -> int:
        return (int(hash_of(one), 16) ^ int(hash_of(two), 16)).bit_count()

    assert distance(picture, brighter) <= 2
    assert distance(picture, other) > 15


def test_a_decoder_that_something_else_kills_is_not_held_against_the_file(
    tmp_path: Path, limits: ValidationParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel does when memory runs out: the step fails and is tried again, the clip is not refused for ever."""
    dying = "import os, signal, sys; print(flush=True); sys.stdin.readline(); os.kill(os.getpid(), signal.SIGKILL)"
    (tmp_path / "dying_child.py").write_text(dying)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(sandbox_module, "_CHILD", "dying_child")
    with Sandbox(limits) as sandbox, pytest.raises(ServiceUnavailable, match=r"killed twice.*run the step again"):
        sandbox.validate(tmp_path / "clip.mp4")


def test_the_decoder_is_given_no_secret(limits: ValidationParams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("VIOLENCE_OPS_WEBHOOK_SECRET", "s3cret")
    with Sandbox(limits) as sandbox:
        given = Path(f"/proc/{sandbox._running().pid}/environ").read_bytes().split(b"\0")
    assert b"OMP_NUM_THREADS=1" in given
    assert not [one for one in given if b"s3cret" in one]


def _slow_child(folder: Path, monkeypatch: pytest.MonkeyPatch, seconds: str) -> None:
    """From here on, decoding frame number `n` takes this many seconds, also for who looks at them all."""
    (folder / "slow_child.py").write_text(
        "import time\n"
        "from violence_ops.video import child, decode, facts\n"
        "real = decode.decoded\n"
        "def slow(*of):\n"
        "    for n, frame in enumerate(real(*of)):\n"
        f"        time.sleep({seconds})\n"
        "        yield frame\n"
        "decode.decoded = facts.decoded = slow\n"
        "child.main()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr(sandbox_module, "_CHILD", "slow_child")


def test_a_late_frame_is_waited_for_as_long_as_those_before_it_decode(
    clip_folder: Path, tmp_path: Path, limits: ValidationParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clip_folder / "clip0.mp4"
    *_, frame = decode.frames(path)
    _slow_child(tmp_path, monkeypatch, "0.15")
    with Sandbox(limits.model_copy(update={"timeout_s": 3.0})) as sandbox:
        ((late, _),) = sandbox.pictures(path, [29], None)
    assert np.array_equal(late, frame)


def test_a_decoder_that_is_stuck_on_the_way_to_a_late_frame_is_killed(
    clip_folder: Path, tmp_path: Path, limits: ValidationParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    _slow_child(tmp_path, monkeypatch, "60 if n == 20 else 0.05")
    with Sandbox(limits.model_copy(update={"timeout_s": 3.0})) as sandbox, pytest.raises(Rejected) as refusal:
        list(sandbox.pictures(clip_folder / "clip0.mp4", [29], None))
    assert refusal.value.reason == "timeout"


@pytest.mark.slow
def test_a_clip_whose_header_promises_nothing_may_take_as_long_as_the_longest(
    clip_folder: Path, tmp_path: Path, limits: ValidationParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "camera.h264"
    with av.open(str(clip_folder / "clip0.mp4")) as source, av.open(str(path), "w", format="h264") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    _slow_child(tmp_path, monkeypatch, "0.15")
    limits = limits.model_copy(update={"timeout_s": 2.0})
    assert _facts(path, limits).frame_count == 30
    with pytest.raises(Rejected, match=r"took longer than 2\.5 s.*validation\.seconds_per_video_second") as refusal:
        _facts(path, limits.model_copy(update={"max_duration_s": 0.5}))
    assert refusal.value.reason == "timeout"
