"""Fixtures shared by all tests: real parts only, in temporary folders."""

from __future__ import annotations

import os

os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DVC_NO_ANALYTICS="1", GX_ANALYTICS_ENABLED="False")

import hashlib
import json
import pwd
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pyarrow as pa
import pytest

from violence_ops.files import write_json, write_table
from violence_ops.records import CLIPS_SCHEMA, COMPONENTS, LABELS, PREDICTIONS_SCHEMA, ClipRecord, ClipTracks
from violence_ops.stages.upkeep import init
from violence_ops.workspace import Workspace

hypothesis.settings.register_profile("busy", deadline=None)  # a machine that stalls is no fault of an engine
hypothesis.settings.load_profile("busy")


@pytest.fixture(autouse=True)
def _no_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see the defaults whatever the shell that started them has set."""
    for name in [name for name in os.environ if name.startswith("VIOLENCE_OPS_") or name in ("DVC_STAGE", "DVC_ROOT")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def fresh_workspace(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A real workspace (git + DVC) with some parameters overridden: made once, and then only to be copied."""
    made: dict[str, Path] = {}

    def fresh(**overrides: object) -> Path:
        deployment = {name: value for name, value in os.environ.items() if name.startswith("VIOLENCE_OPS_")}
        key = json.dumps([overrides, deployment], sort_keys=True)
        if key not in made:
            folder = tmp_path_factory.mktemp("fresh") / "workspace"
            init.run(folder, params_overrides=overrides)
            made[key] = folder
        return made[key]

    return fresh


@pytest.fixture
def new_workspace(tmp_path: Path, fresh_workspace: Callable[..., Path]) -> Callable[..., Workspace]:
    """Make a real workspace (git + DVC) in a temporary folder; files of its inbox count as complete at once."""

    def make(name: str = "workspace", **overrides: object) -> Workspace:
        fresh = fresh_workspace(**{"ingest.settle_s": 0} | overrides)
        shutil.copytree(fresh, tmp_path / name, symlinks=True)
        return Workspace.open(tmp_path / name)

    return make


@pytest.fixture
def small_workspace(new_workspace: Callable[..., Workspace]) -> Callable[..., Workspace]:
    """Make a workspace that trains one small network from scratch."""
    small = {"train.start": None, "train.base_channels": 8}

    def make(name: str = "workspace", **overrides: object) -> Workspace:
        return new_workspace(name, **small | overrides)

    return make


@pytest.fixture
def workspace(new_workspace: Callable[..., Workspace]) -> Workspace:
    """A real, empty workspace."""
    return new_workspace()


@pytest.fixture
def close() -> Iterator[Callable[[Path], None]]:
    """Make a folder one that may be read and not changed, as if it were another user's."""
    closed: list[Path] = []

    def close_(folder: Path) -> None:
        folder.chmod(0o555)
        closed.append(folder)
        if os.geteuid() == 0 and subprocess.run(["chattr", "+i", folder], capture_output=True, check=False).returncode:
            pytest.skip("nothing keeps this user from changing a folder")

    yield close_
    for folder in closed:
        if os.geteuid() == 0:
            subprocess.run(["chattr", "-i", folder], capture_output=True, check=False)
        folder.chmod(0o755)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small real videos `<name>.mp4` of a moving square, 160x120, 15 fps, 30 frames; different bytes each."""
    import numpy as np

    from violence_ops.video.write import VideoWriter

    folder = tmp_path_factory.mktemp("clips")
    for number in range(6):
        with VideoWriter(folder / f"clip{number}.mp4", width=160, height=120, fps=15) as writer:
            for index in range(30):
                frame = np.full((120, 160, 3), 40 + 20 * number, np.uint8)
                frame[20 + index : 50 + index, 10 * number + 10 : 10 * number + 60] = (200, 30 * number, 90)
                writer.write(frame)
    return folder


@pytest.fixture(scope="session")
def broken_folder(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file for each way in which a video can be broken, named by the reason it is refused for."""
    import av
    import numpy as np

    from violence_ops.video.write import VideoWriter

    folder, good = tmp_path_factory.mktemp("broken"), (clip_folder / "clip0.mp4").read_bytes()
    (folder / "unreadable-empty.mp4").write_bytes(b"")
    (folder / "unreadable-text.mp4").write_text("this is no video\n" * 50)
    (folder / "unreadable-playlist.mp4").write_text(f"ffconcat version 1.0\nfile {clip_folder / 'clip0.mp4'}\n")
    (folder / "truncated.mp4").write_bytes(good[: len(good) // 2])
    garbled = bytearray(good)
    for position in range(300, len(good) - 2500, 5):
        garbled[position] ^= 0x5A
    (folder / "decode_error.mp4").write_bytes(garbled)
    with VideoWriter(folder / "too_short.mp4", width=160, height=120, fps=15) as writer:
        writer.write(np.zeros((120, 160, 3), np.uint8))
    with VideoWriter(folder / "bad_dimensions.mp4", width=32, height=32, fps=15) as writer:
        for _ in range(30):
            writer.write(np.zeros((32, 32, 3), np.uint8))
    with av.open(str(folder / "no_video_stream.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        for index in range(10):
            sound = av.AudioFrame(format="s16", layout="mono", samples=1024)
            sound.rate, sound.pts = 16000, index * 1024
            for plane in sound.planes:
                plane.update(bytes(plane.buffer_size))
            container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    return folder


@pytest.fixture(scope="session")
def seal_tracks() -> Callable[..., list[ClipRecord]]:
    """Put a sealed batch of tracked clips into a workspace without going through videos.

    Fighters jerk their limbs, others walk calmly: a classifier learns it in a few epochs. `labels` gives the label of clip i;
    unless `is_named`, nobody has given it a source group.
    """

    def seal(workspace: Workspace, *, clips: int = 24, per_group: int = 3, night: str = "2026-01-31", seed: int = 0,
             labels: Callable[[int], str | None] = lambda i: LABELS[i % 2], group_of: str | None = None,
             perceptual_hash_of: str | None = None, is_named: bool = True) -> list[ClipRecord]:  # fmt: skip
        rng = np.random.default_rng(seed)
        batch = workspace.batch(f"{night}-{seed:08x}")
        records, tables = [], []
        for i in range(clips):
            digest = hashlib.sha256(f"{seed}/{i}".encode()).hexdigest()
            record = ClipRecord(
                clip_id=digest[:20], sha256=digest, batch_id=batch.batch_id, source_path=f"{i}.mp4", label=labels(i),  # type: ignore[arg-type]
                source_group=group_of or (f"s{seed}g{i // per_group:02d}" if is_named else digest[:20]), width=640, height=360, fps=15.0, frame_count=36, duration_s=2.4,
                size_bytes=1000, perceptual_hash=perceptual_hash_of or digest[20:36], status="accepted",
            )  # fmt: skip
            records.append(record)
            tables.append(moving_people(record, rng, fighting=i % 2 == 1).to_table())
        records.sort(key=lambda record: record.clip_id)
        tables.sort(key=lambda table: table.column("clip_id")[0].as_py())
        write_table(batch.sealed / "clips.parquet", pa.Table.from_pylist([r.to_dict() for r in records], CLIPS_SCHEMA))
        write_table(batch.sealed / "tracks.parquet", pa.concat_tables(tables))
        write_json(batch.sealed / "batch.json", {"batch_id": batch.batch_id, "night": night, "clips": []})
        return records

    return seal


def moving_people(clip: ClipRecord, rng: np.random.Generator, *, fighting: bool) -> ClipTracks:
    """Tracks of two ranked persons, present in every frame."""
    frames = clip.frame_count or 0
    keypoints = np.zeros((frames, 2, 17, 2), np.float32)
    for person in range(2):
        walk = np.cumsum(rng.normal(size=(frames, 1, 2)) * 3, axis=0)
        limbs = rng.normal(size=(frames, 17, 2)) * (8 if fighting else 1.5)
        keypoints[:, person] = rng.normal(size=(17, 2)) * 30 + walk + limbs + (280 + 70 * person, 180)
    count = 2 * frames
    person = np.tile(np.array([1, 2], np.int32), frames)
    points = keypoints.reshape(count, 17, 2)
    return ClipTracks(
        clip_id=clip.clip_id, frame_count=frames, width=640, height=360, fps=15.0,
        frame=np.repeat(np.arange(frames, dtype=np.int32), 2), keypoints=points,
        bboxes=np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1), scores=np.full(count, 0.9, np.float32),
        keypoint_scores=np.full((count, 17), 0.75, np.float32), track_id=person, rank=person,
        involvement=np.full(count, 0.6, np.float32), components=np.full((count, len(COMPONENTS)), 0.6, np.float32),
    )  # fmt: skip


@pytest.fixture(scope="session")
def write_annotations() -> Callable[[Workspace, str], None]:
    """Write poses and tracks of two walking people, and predictions without a champion, for every accepted clip of an open
    batch, as the stages would."""
    from violence_ops.pose import weights
    from violence_ops.stages.nightly import annotate, extract_poses, score
    from violence_ops.store import batches

    def write(workspace: Workspace, batch_id: str) -> None:
        batch, params = workspace.batch(batch_id), workspace.params()
        weights_sha256 = weights.find(params.pose.weights).sha256
        for clip in batches.accepted_clips(batch):
            random, rows = np.random.default_rng(int(clip.clip_id[:8], 16)), 2 * (clip.frame_count or 0)
            corner = random.uniform(0, 60, (rows, 2))
            people = ClipTracks(
                clip_id=clip.clip_id, frame_count=clip.frame_count or 0, width=clip.width or 0, height=clip.height or 0,
                fps=clip.fps or 0.0, frame=np.repeat(np.arange(rows // 2, dtype=np.int32), 2),
                bboxes=np.hstack([corner, corner + 30]).astype(np.float32),
                scores=random.random(rows).astype(np.float32),
                keypoints=random.uniform(0, 100, (rows, 17, 2)).astype(np.float32),
                keypoint_scores=random.random((rows, 17)).astype(np.float32),
                track_id=np.tile(np.array([1, 2], np.int32), rows // 2), rank=np.tile(np.array([2, 1], np.int32), rows // 2),
                involvement=np.full(rows, 0.5, np.float32), components=np.full((rows, len(COMPONENTS)), 0.5, np.float32),
            )  # fmt: skip
            tracks = people.to_table()
            mark = extract_poses.expected(clip, weights_sha256, params.pose)
            write_table(batch.part("poses", clip.clip_id), tracks.select(tracks.schema.names[:6]), mark)
            write_table(batch.part("tracks", clip.clip_id), tracks, annotate.expected(batch, clip, params))
            mark = score.expected(batch, clip, None)
            write_table(batch.part("predictions", clip.clip_id), PREDICTIONS_SCHEMA.empty_table(), mark)

    return write


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL cluster of our own on loopback."""
    servers = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not servers:
        pytest.skip("no PostgreSQL server binaries in /usr/lib/postgresql")
    if os.getuid() == 0 and not _has_user("postgres"):
        pytest.skip("initdb refuses root and there is no user postgres to run it as")
    binaries, folder = (
        servers[-1].parent,
        Path(subprocess.check_output(["mktemp", "-d", "/tmp/pg-XXXXXX"], text=True).strip()),
    )
    user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    if user:
        shutil.chown(folder, "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    subprocess.run(
        [*user, binaries / "initdb", "-D", data, "-U", "catalog", "-A", "trust", "--no-sync"],
        check=True,
        capture_output=True,
        cwd="/",
    )
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    subprocess.run(
        [*user, binaries / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start"],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd="/",
    )
    try:
        yield f"postgresql+psycopg2://catalog@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run(
            [*user, binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
        )
        shutil.rmtree(folder)


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
