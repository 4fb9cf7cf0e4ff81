"""A workspace with a real MLflow registry of three versions, and evaluations to judge them by."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from violence_ops.evaluation import judgement
from violence_ops.evaluation.records import DataChecks, HoldoutFacts, JudgedClip, Latency, Leakage, ModelFacts, Timings
from violence_ops.files import folder_sha256, sha256_file, write_json, write_table
from violence_ops.params import Params
from violence_ops.records import CLIPS_SCHEMA, LABELS, POSES_SCHEMA, PREDICTIONS_SCHEMA, ClipPoses, ClipRecord
from violence_ops.registry import MODEL, Registry
from violence_ops.store import batches, labels_file, releases
from violence_ops.workspace import Workspace

Judge = Callable[..., str]


def package_of(version: str, artifacts: Path) -> str:
    """Write a version's package, one file that no network is made of; returns its SHA-256."""
    (artifacts / "package").mkdir(parents=True)
    (artifacts / "package" / "network.txt").write_text(f"version {version}")
    return folder_sha256(artifacts / "package")


@pytest.fixture(scope="session")
def package_sha256(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The SHA-256 of the package of a version in `released`."""
    return lambda version: package_of(version, tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="session")
def registry_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with versions 1, 2 and 3, each with a package; making one takes seconds, copying one does not."""
    from mlflow.tracking import MlflowClient

    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    Registry(uri, folder).check()
    client = MlflowClient(uri, uri)
    client.create_registered_model(MODEL)
    for version in "123":
        package_of(version, folder / version / "artifacts")
        client.create_model_version(MODEL, source=(folder / version).as_uri())
    return folder / "mlflow.db"


@pytest.fixture
def released(workspace: Workspace, registry_template: Path) -> Workspace:
    """A workspace whose registry has three versions and no alias."""
    shutil.copy(registry_template, workspace.root / "mlflow.db")
    return workspace


@pytest.fixture
def registry(released: Workspace) -> Registry:
    return Registry(released.mlflow_uri, released.mlflow_artifacts)


@pytest.fixture
def release() -> Callable[[Workspace, str], None]:
    """Make a version champion in ledger and registry, as `promote` does once gate and person have agreed."""

    def move(workspace: Workspace, version: str) -> None:
        with workspace.lock("release"):
            registry = releases.open_registry(workspace)
            releases.move(
                workspace,
                registry,
                event="promotion",
                actor="admin",
                to=version,
                expected=registry.alias("champion"),
                facts={},
            )

    return move


@pytest.fixture
def params(workspace: Workspace) -> Params:
    return workspace.params()


@pytest.fixture
def write_evaluation(released: Workspace, package_sha256: Callable[[str], str]) -> Judge:
    """`write(candidate, champion=None, wrong=0)`: an evaluation in the workspace, as `evaluate` leaves it; returns its name.

    The candidate has `wrong` of 24 clips wrong, the champion four.
    """

    def write(candidate: str, champion: str | None = None, wrong: int = 0, p95_ms: float = 9.0) -> str:
        name = f"{candidate}-vs-{champion or 'none'}"
        revision, gate = "ab" * 16, released.params().gate
        clips = [_clip(i, i < wrong, i % 6 == 5 if champion else None) for i in range(24)]
        time = Latency(p50_ms=4.0, p95_ms=p95_ms, peak_memory_mb=500.0)

        def model(version: str) -> ModelFacts:
            return ModelFacts(
                version=version,
                threshold=0.5,
                lineage={},
                holdout_version="v1",
                holdout_revision=revision,
                package=package_sha256(version),
            )

        made = judgement.evaluate(
            clips, name=name, holdout=HoldoutFacts(version="v1", revision=revision, batches=()), candidate=model(candidate),
            champion=model(champion) if champion else None, timings=Timings(candidate=time, champion=time if champion else None),
            checks=DataChecks(near_duplicate_bits=0, candidate=Leakage(), champion=Leakage() if champion else None),
            confidence=gate.confidence, resamples=gate.resamples,
        )  # fmt: skip
        write_json(released.report(name).evaluation, made.to_dict())
        released.write_progress("evaluate", {"report": name})
        return name

    return write


def _clip(number: int, own_wrong: bool, other_wrong: bool | None) -> JudgedClip:
    fight = number % 2 == 0

    def made(wrong: bool) -> judgement.Prediction:
        says_fight = fight != wrong
        return judgement.prediction(0.9 if says_fight else 0.1, "Fight" if says_fight else "NonFight")

    return JudgedClip(
        clip_id=f"{number:020x}", label="Fight" if fight else "NonFight", source_group=f"g{number}", batch_id="2026-01-01-00000000",
        source_path=f"inbox/{number}.mp4", slices={"camera": "door"}, candidate=made(own_wrong),
        champion=None if other_wrong is None else made(other_wrong),
    )  # fmt: skip


@pytest.fixture
def go_stale() -> Callable[[Workspace, str], None]:
    """Make the holdout of `write_evaluation` stale: by a label of its first clip that was `corrected`, or a `newer` holdout."""

    def happen(workspace: Workspace, what: str) -> None:
        if what == "corrected":
            labels_file.record(workspace, {f"{0:020x}": "NonFight"}, "ada")
        else:
            workspace.holdout("v2").mkdir(parents=True)

    return happen


@pytest.fixture
def open_batch(clip_folder: Path) -> Callable[..., list[ClipRecord]]:
    """Put an open batch of accepted clips (small real videos) into a workspace, as `validate` leaves it; `labels` by clip.

    With `people(number)` given, clip `number` has the poses of so many persons, as if `extract-poses` had run.
    """

    def open_(
        workspace: Workspace, clips: int = 3, people: Callable[[int], int] | None = None, **facts: Any
    ) -> list[ClipRecord]:
        batch, records = workspace.batch("2026-01-31-0000beef"), []
        for number in range(clips):
            content = (clip_folder / f"clip{number}.mp4").read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            known: dict[str, Any] = {
                "label": LABELS[number % 2],
                "width": 160,
                "height": 120,
                "fps": 15.0,
                "frame_count": 30,
            }
            record = ClipRecord(
                clip_id=digest[:20], sha256=digest, batch_id=batch.batch_id, source_path=f"night/clip{number}.mp4",
                source_group=f"g{number}", duration_s=2.0, size_bytes=len(content), status="accepted", **(known | facts),
            )  # fmt: skip
            records.append(record)
            video = batches.video_of(batch, record)
            video.parent.mkdir(parents=True, exist_ok=True)
            video.write_bytes(content)
            write_table(
                batch.part("clips", record.clip_id), pa.Table.from_pylist([record.to_dict()], CLIPS_SCHEMA), "validated"
            )
            if people:
                write_table(
                    batch.part("poses", record.clip_id),
                    _walkers(record, people(number)).to_table(),
                    f"poses of {number}",
                )
        batches.write_manifest(batch, "2026-01-31", records)
        return records

    return open_


def _walkers(clip: ClipRecord, people: int) -> ClipPoses:
    """People on a grid who sway a little, in every frame."""
    rng = np.random.default_rng(people)
    frames = clip.frame_count or 0
    places = np.stack(np.divmod(np.arange(people), 20)[::-1], axis=1) * (8, 11) + (10, 20)
    places = places + rng.normal(0, 0.3, (frames, people, 2))
    size = (3, 5) if people > 4 else (10, 18)
    place = places.reshape(-1, 2)
    return ClipPoses(
        clip_id=clip.clip_id, frame_count=frames, width=clip.width or 0, height=clip.height or 0, fps=clip.fps or 0.0,
        frame=np.repeat(np.arange(frames, dtype=np.int32), people), bboxes=np.hstack([place - size, place + size]).astype(np.float32),
        scores=np.full(len(place), 0.8, np.float32), keypoint_scores=np.full((len(place), 17), 0.75, np.float32),
        keypoints=(place[:, None] + rng.normal(0, 0.4, (len(place), 17, 2)) * size).astype(np.float32),
    )  # fmt: skip


@pytest.fixture
def seal_whole(seal_tracks: Callable[..., list[ClipRecord]]) -> Callable[..., list[ClipRecord]]:
    """The same batch as `seal_tracks` with all its tables, its facts and (fake) videos whose bytes have the clips' hashes.

    People are `scale` times as tall; `judged_by` names a model that gave probabilities, all of them 0.99 if `surely`.
    """

    def seal(
        workspace: Workspace,
        *,
        scale: float = 1.0,
        judged_by: str | None = None,
        surely: bool = False,
        seed: int = 0,
        **options: Any,
    ) -> list[ClipRecord]:
        records = seal_tracks(workspace, seed=seed, **options)
        batch = workspace.batch(records[0].batch_id)
        tracks = pq.read_table(batch.table("tracks"))
        boxes = tracks.column("bbox").combine_chunks().flatten().to_numpy() * np.float32(scale)
        tracks = tracks.set_column(2, "bbox", pa.FixedSizeListArray.from_arrays(pa.array(boxes), 4))
        write_table(batch.table("tracks"), tracks)
        write_table(batch.table("poses"), tracks.select(POSES_SCHEMA.names))
        write_table(batch.table("predictions"), _predictions(records, judged_by, seed, surely))
        batch.videos.mkdir()
        for number in range(len(records)):
            content = f"{seed}/{number}".encode()
            (batch.videos / f"{hashlib.sha256(content).hexdigest()[:20]}.mp4").write_bytes(content)
        names = ("clips", "poses", "tracks", "predictions")
        tables = {
            name: {"rows": pq.read_metadata(batch.table(name)).num_rows, "sha256": sha256_file(batch.table(name))}
            for name in names
        }
        costs = {record.clip_id: {"engine_s": 0.5, "device": "cpu"} for record in records}
        facts = {
            "batch_id": batch.batch_id, "night": batch.batch_id[:10], "tables": tables, "accepted": len(records), "quarantined": {},
            "params": workspace.params().model_dump(mode="json"), "code_revision": "c0de",
            "pose_weights": {"name": "rtmo_small", "sha256": "ab" * 32},
            "run": {"pose_costs": {"engine_s": {"cpu": 0.5 * len(records)}, "clips": costs}},
        }  # fmt: skip
        write_json(batch.manifest, facts)
        return records

    return seal


def _predictions(records: list[ClipRecord], version: str | None, seed: int, surely: bool) -> pa.Table:
    probabilities = np.random.default_rng(seed).random(len(records)) if not surely else np.full(len(records), 0.99)
    rows = [
        {
            "clip_id": record.clip_id, "model_version": version, "window": 0, "start_frame": 0, "end_frame": 30, "probability": p,
            "weight": 1.0, "clip_probability": p, "threshold": 0.5, "verdict": LABELS[int(p > 0.5)],
        }
        for record, p in zip(records, probabilities, strict=True)
        if version
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, PREDICTIONS_SCHEMA)


@pytest.fixture
def trained() -> Callable[..., None]:
    """`trained(workspace, version, clips)`: what a registered version says it was trained on, as in its downloaded package."""

    def write(workspace: Workspace, version: str, clips: list[ClipRecord], dataset_revision: str = "da7a" * 8) -> None:
        rows = [
            {
                "clip_id": clip.clip_id, "source_group": clip.source_group, "perceptual_hash": clip.perceptual_hash,
                "batch_id": clip.batch_id, "label": clip.label, "label_source": "inbox", "side": ("train", "val")[number % 4 == 3],
            }
            for number, clip in enumerate(clips)
        ]  # fmt: skip
        content = {"dataset_revision": dataset_revision, "clips": rows}
        write_json(workspace.model_package(version) / "training.json", content)

    return write
