"""`check` on a workspace that was really damaged: every kind of finding, and the command that mends it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from violence_ops.catalog import Catalog
from violence_ops.cli.program import app
from violence_ops.files import read_fingerprint, write_json, write_table
from violence_ops.folders import Batch
from violence_ops.records import PREDICTIONS_SCHEMA, ClipRecord
from violence_ops.stages.inspection import check, overlay
from violence_ops.stages.inspection.findings import Finding
from violence_ops.stages.labelling import labels
from violence_ops.stages.nightly import extract_poses, ingest, score, seal, validate
from violence_ops.stages.upkeep import init, repair
from violence_ops.store import batches, index
from violence_ops.store.index import open_catalog
from violence_ops.store.labels import effective_labels
from violence_ops.workspace import Workspace


@pytest.fixture(scope="session")
def sealed_once(
    tmp_path_factory: pytest.TempPathFactory, clip_folder: Path, write_annotations: Callable[[Workspace, str], None]
) -> Path:
    """A workspace with one batch of six clips, sealed and versioned as a night does it."""
    root = tmp_path_factory.mktemp("check") / "workspace"
    init.run(root, params_overrides={"ingest.settle_s": 0})
    workspace = Workspace.open(root)
    shutil.copytree(clip_folder, workspace.inbox / "night")
    (batch_id,) = ingest.run(workspace, workspace.params(), night=date(2026, 1, 1)).batch_ids
    validate.run(workspace, workspace.params(), batch_id=batch_id)
    write_annotations(workspace, batch_id)
    seal.run(workspace, workspace.params(), batch_id=batch_id)
    return root


@pytest.fixture
def sealed(sealed_once: Path, tmp_path: Path) -> Workspace:
    """A copy to be damaged."""
    subprocess.run(["cp", "-a", sealed_once, tmp_path / "copy"], check=True)  # keeps the links into DVC's cache
    return Workspace.open(tmp_path / "copy")


def found(workspace: Workspace, **options: object) -> list[Finding]:
    return check.run(workspace, workspace.params(), **options).findings  # type: ignore[arg-type]


def the_only(workspace: Workspace, **options: object) -> Finding:
    (finding,) = found(workspace, **options)
    return finding


def batch_of(workspace: Workspace) -> Batch:
    return workspace.sealed_batches()[0]


def replace(path: Path, content: bytes) -> None:
    """Other bytes under the name, not those in DVC's cache."""
    path.unlink()
    path.write_bytes(content)


def mend(workspace: Workspace, finding: Finding) -> None:
    """Type the remedy into a shell, as a user would."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": programs, "VIOLENCE_OPS_WORKSPACE": str(workspace.root), "OMP_NUM_THREADS": "1"}
    command = ["bash", "-c", finding.remedy]
    done = subprocess.run(command, cwd=workspace.root, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def run_cli(workspace: Workspace, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--workspace", str(workspace.root)])


# sealed batches


def test_a_fresh_night_is_in_order(sealed: Workspace) -> None:
    result = check.run(sealed, sealed.params(), content=True)
    assert result.clean, list(result.lines())
    assert (result.batches, result.clips) == (1, 6)
    done = run_cli(sealed, "check")
    assert done.exit_code == 0
    assert "batches 1, accepted clips 6, overlays 0: all in order" in done.stdout


def test_findings_give_exit_code_3_and_json(sealed: Workspace) -> None:
    batch_of(sealed).table("tracks").unlink()
    done = run_cli(sealed, "check", "--json")
    assert done.exit_code == 3
    content = json.loads(done.stdout)
    assert content["clean"] is False
    assert [finding["kind"] for finding in content["findings"]] == ["missing"]
    assert content["findings"][0]["items"] == [f"data/batches/{batch_of(sealed).batch_id}/tracks.parquet"]


def test_a_lost_video_and_a_strange_one(sealed: Workspace) -> None:
    batch = batch_of(sealed)
    first, second, *_ = sorted(batch.videos.iterdir())
    first.rename(batch.videos / "a stranger's.mp4")
    missing, orphaned = found(sealed)
    assert (missing.kind, missing.what, missing.items) == ("missing", "videos", (first.stem,))
    assert (orphaned.kind, orphaned.what) == ("orphaned", "videos")
    assert orphaned.items == (f"data/batches/{batch.batch_id}/videos/a stranger's.mp4",)
    mend(sealed, orphaned)
    assert the_only(sealed).kind == "missing"
    assert second.exists()


def test_damaged_tables_are_sentences(sealed: Workspace) -> None:
    batch = batch_of(sealed)
    replace(batch.table("poses"), batch.table("poses").read_bytes()[:-40])
    replace(batch.table("predictions"), b"no parquet")
    good = bytearray(batch.table("tracks").read_bytes())
    good[1000:1004] = b"xxxx"
    replace(batch.table("tracks"), bytes(good))
    findings = found(sealed)
    assert [finding.kind for finding in findings] == ["damaged"] * 3
    assert {Path(finding.items[0]).stem for finding in findings} == {"poses", "tracks", "predictions"}
    assert all(finding.why.endswith(".") and "\n" not in finding.why for finding in findings)
    assert run_cli(sealed, "check").exit_code == 3


def test_a_damaged_clips_table_hides_nothing_else(sealed: Workspace, clip_folder: Path) -> None:
    batch = batch_of(sealed)
    replace(batch.table("clips"), b"PAR1")
    sealed.overlays.mkdir()
    shutil.copy(
        clip_folder / "clip0.mp4", sealed.overlay(batches.read_manifest(batch).batch_id[-8:] + "0" * 12, ".mp4")
    )
    assert [Path(finding.items[0]).name for finding in found(sealed)] == ["clips.parquet"]


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"], ids=["cut off", "a list", "no text"])
def test_a_damaged_manifest_is_a_finding(sealed: Workspace, content: bytes) -> None:
    replace(batch_of(sealed).manifest, content)
    assert [(f.kind, Path(f.items[0]).name) for f in found(sealed)] == [("damaged", "batch.json")]


def test_bytes_changed_in_a_video_are_found_when_content_is_read(sealed: Workspace) -> None:
    video = min(batch_of(sealed).videos.iterdir())
    good = bytearray(video.read_bytes())
    good[500] ^= 1
    replace(video, bytes(good))
    assert found(sealed) == []
    assert the_only(sealed, content=True).kind == "damaged"
    replace(video, b"short")
    assert the_only(sealed).items == (str(video.relative_to(sealed.root)),)


def test_rows_without_a_clip_and_tracks_without_poses(sealed: Workspace) -> None:
    batch = batch_of(sealed)
    clip, other, *_ = batches.accepted_clips(batch)
    poses, tracks = pq.read_table(batch.table("poses")), pq.read_table(batch.table("tracks"))
    stranger = pa.array(["f" * 20] * 2, pa.string())
    batch.table("poses").unlink()
    write_table(batch.table("poses"), poses.filter(pa.compute.not_equal(poses["clip_id"], clip.clip_id)))
    batch.table("tracks").unlink()
    write_table(
        batch.table("tracks"), pa.concat_tables([tracks, tracks.slice(0, 2).set_column(0, "clip_id", stranger)])
    )
    orphans = {finding.items: finding for finding in found(sealed) if finding.kind == "orphaned"}
    assert orphans.keys() == {("f" * 20,), (clip.clip_id,)}
    assert "no poses" in orphans[(clip.clip_id,)].why
    assert other.clip_id not in str(orphans)


def test_a_batch_that_was_not_pulled_is_a_finding_of_its_own(sealed: Workspace) -> None:
    batch = batch_of(sealed)
    shutil.rmtree(batch.sealed)
    finding = the_only(sealed)
    assert (finding.kind, finding.batch_id) == ("not pulled", batch.batch_id)
    assert finding.remedy == f"violence-ops dvc pull data/batches/{batch.batch_id}.dvc"
    assert the_only(sealed, batch_id=batch.batch_id) == finding


def test_a_holdout_that_was_not_pulled_is_a_finding_too(sealed: Workspace) -> None:
    sealed.holdouts.mkdir()
    (sealed.holdouts / "v1.dvc").write_text("outs: []\n")
    finding = the_only(sealed)
    assert (finding.kind, finding.what, finding.items) == ("not pulled", "holdout", ("data/holdout/v1.dvc",))
    assert finding.remedy == "violence-ops dvc pull data/holdout/v1.dvc"
    sealed.holdout("v1").mkdir()
    assert check.run(sealed, sealed.params()).clean


def test_a_sealed_batch_that_is_in_no_version_is_told(sealed: Workspace) -> None:
    batch_of(sealed).pointer.unlink()
    assert (the_only(sealed).what, the_only(sealed).kind) == ("version", "missing")


@pytest.mark.parametrize(
    ("setting", "stale"),
    [
        ("pose.nms_threshold", ["poses"]),
        ("tracking.min_hits", ["tracks"]),
        ("pose.mini_batch", []),
        ("gate.min_f1", []),
    ],
)
def test_other_parameters_make_what_depends_on_them_stale(sealed: Workspace, setting: str, stale: list[str]) -> None:
    value = {"pose.nms_threshold": 0.6, "tracking.min_hits": 3, "pose.mini_batch": 4, "gate.min_f1": 0.7}[setting]
    params = sealed.params({setting: value})
    result = check.run(sealed, params)
    assert [(finding.kind, finding.what) for finding in result.findings] == [("stale", what) for what in stale]
    assert all(f"{setting} " in finding.why and f"now {value}" in finding.why for finding in result.findings)
    assert check.run(sealed, params, as_sealed=True).clean


def test_other_weights_make_poses_stale(sealed: Workspace) -> None:
    manifest = batch_of(sealed).manifest
    content = json.loads(manifest.read_text()) | {"pose_weights": {"name": "older", "sha256": "ab" * 32}}
    manifest.unlink()
    write_json(manifest, content)
    finding = the_only(sealed)
    assert (finding.kind, finding.what) == ("stale", "poses")
    assert "weights older abababababab, now rtmo_small" in finding.why


def test_the_same_clip_in_two_batches_is_told(sealed: Workspace) -> None:
    batch = batch_of(sealed)
    shutil.copytree(batch.sealed, sealed.batches / "2026-01-02-00000000")
    repeated = [finding for finding in found(sealed) if finding.what == "clips"]
    assert [len(finding.items) for finding in repeated] == [6]
    assert batch.batch_id in repeated[0].why


@pytest.mark.slow
def test_the_remedies_mend_a_sealed_batch(sealed: Workspace) -> None:
    batch = batch_of(sealed)
    videos = sorted(batch.videos.iterdir())
    videos[0].unlink()
    replace(videos[1], b"short")
    # the file in DVC's cache is the same one on disk, so that it is damaged too
    batch.table("tracks").chmod(0o644)
    with batch.table("tracks").open("rb+") as file:
        file.seek(900)
        file.write(b"rotten")
    batch.table("tracks").chmod(0o444)
    batch.table("poses").unlink()
    (batch.sealed / "notes.txt").write_text("mine")
    kinds = sorted(finding.kind for finding in found(sealed))
    assert kinds == ["damaged", "damaged", "missing", "missing", "orphaned"]
    for finding in found(sealed):
        mend(sealed, finding)
    assert found(sealed, content=True) == []
    shutil.rmtree(batch.sealed)
    mend(sealed, the_only(sealed))
    assert found(sealed, content=True) == []


# open batches


@pytest.fixture
def opened(workspace: Workspace, clip_folder: Path, write_annotations: Callable[[Workspace, str], None]) -> Workspace:
    """A workspace with an open batch in which the stages up to `annotate` have run."""
    shutil.copytree(clip_folder, workspace.inbox / "night")
    (batch_id,) = ingest.run(workspace, workspace.params(), night=date(2026, 1, 1)).batch_ids
    validate.run(workspace, workspace.params(), batch_id=batch_id)
    write_annotations(workspace, batch_id)
    batch = workspace.batch(batch_id)
    for clip in batches.accepted_clips(batch):
        mark = score.expected(batch, clip, None)
        write_table(batch.part("predictions", clip.clip_id), PREDICTIONS_SCHEMA.empty_table(), mark)
    return workspace


def opened_batch(workspace: Workspace) -> tuple[Batch, list[ClipRecord]]:
    batch = workspace.batch(batches.open_batch_ids(workspace)[0])
    return batch, batches.accepted_clips(batch)


def test_an_open_batch_is_asked_the_same(opened: Workspace) -> None:
    batch, clips = opened_batch(opened)
    assert found(opened) == []
    first, second, third, fourth, *_ = clips
    batch.part("tracks", first.clip_id).unlink()
    batch.part("predictions", second.clip_id).write_bytes(b"PAR1 and no more")
    batch.part("poses", "f" * 20).write_bytes(b"")
    batches.video_of(batch, third).rename(batch.videos / "stranger.mp4")
    batch.part("clips", fourth.clip_id).unlink()
    told = {(finding.kind, finding.what): finding for finding in found(opened)}
    assert told["missing", "tracks"].items == (first.clip_id,)
    # what is made from lost tracks has lost what it was made from
    assert told["stale", "predictions"].items == (first.clip_id,)
    assert told["damaged", "predictions"].items == (second.clip_id,)
    strays = (f"work/{batch.batch_id}/poses/{clip_id}.parquet" for clip_id in (fourth.clip_id, "f" * 20))
    assert told["orphaned", "parts of poses"].items == tuple(sorted(strays))
    assert told["missing", "video"].items == (third.clip_id,)
    assert f"SHA-256 {third.sha256}" in told["missing", "video"].why
    assert told["orphaned", "videos"].items == (f"work/{batch.batch_id}/videos/stranger.mp4",)
    assert told["missing", "clips"].items == (fourth.clip_id,)


def test_parts_of_other_parameters_or_another_clip_are_stale_or_orphaned(opened: Workspace) -> None:
    batch, clips = opened_batch(opened)
    one, other = (batch.part("predictions", clip.clip_id) for clip in clips[:2])
    rows = pq.read_table(batch.part("tracks", clips[0].clip_id))
    write_table(batch.part("tracks", clips[1].clip_id), rows, read_fingerprint(batch.part("tracks", clips[1].clip_id)))
    assert (the_only(opened).kind, the_only(opened).items) == ("orphaned", (clips[1].clip_id,))
    result = check.run(opened, opened.params({"involvement.preset": "accuracy", "validation.min_frames": 9}))
    stale = {finding.what: len(finding.items) for finding in result.findings if finding.kind == "stale"}
    assert stale == {"clips": 6, "tracks": 6}
    assert one.exists()
    assert other.exists()


@pytest.mark.slow
def test_the_remedies_mend_an_open_batch(opened: Workspace) -> None:
    batch, clips = opened_batch(opened)
    batch.part("poses", clips[0].clip_id).unlink()
    batch.part("tracks", clips[1].clip_id).write_bytes(b"no parquet")
    (batch.videos / "stranger.mp4").write_bytes(b"?")
    assert len(found(opened)) >= 3
    for finding in {finding.remedy: finding for finding in found(opened)}.values():
        mend(opened, finding)
    assert found(opened) == []
    assert read_fingerprint(batch.part("poses", clips[0].clip_id)) == extract_poses.expected(
        clips[0], extract_poses.source_sha256(opened.params().pose), opened.params().pose
    )


LABELS = (
    "path,label,source_group,camera_id,recorded_at\nclip0.mp4,Fight,incident-7,yard,2026-01-01T20:00:00\n"
    "clip1.mp4,NonFight,incident-8,gate,\n"
)


def what_came(clips: Iterable[ClipRecord]) -> dict[str, object]:
    return {clip.sha256: (clip.label, clip.source_group, clip.camera_id, clip.recorded_at) for clip in clips}


@pytest.mark.parametrize("damage", ["cut off", "gone"])
@pytest.mark.parametrize(
    "kill",
    [
        None,
        *(
            pytest.param(at, marks=pytest.mark.slow)
            for at in ((Catalog, "dissolve_batch"), (Path, "rename"), (shutil, "rmtree"))
        ),
    ],
)
def test_a_batch_whose_list_is_lost_goes_back_to_the_inbox_with_all_that_its_clips_came_with(
    workspace: Workspace, clip_folder: Path, monkeypatch: pytest.MonkeyPatch, kill: tuple[Any, str] | None, damage: str
) -> None:
    shutil.copytree(clip_folder, workspace.inbox, dirs_exist_ok=True)
    (workspace.inbox / "labels.csv").write_text(LABELS)
    params = workspace.params()
    (batch_id,) = ingest.run(workspace, params, night=date(2026, 1, 1)).batch_ids
    batch = workspace.batch(batch_id)
    clips = batches.read_manifest(batch).clips
    validated = next(clip for clip in clips if clip.source_path == "clip0.mp4")
    validate.run(workspace, params, batch_id=batch_id, clip_ids=[validated.clip_id])
    labels.run(workspace, validated.clip_id, "NonFight", by="ana")
    batch.manifest.write_text("{")
    finding = the_only(workspace)
    assert (finding.kind, finding.remedy) == ("damaged", f"violence-ops repair {batch_id}")
    if damage == "gone":
        batch.manifest.unlink()
        assert (the_only(workspace).kind, the_only(workspace).remedy) == ("missing", finding.remedy)
    if kill:

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(*kill, killed)
            with pytest.raises(KeyboardInterrupt):
                repair.run(workspace, batch_id)
        clips_wait = not list(workspace.inbox.glob("again-*"))
        assert [one.remedy for one in found(workspace)] == [finding.remedy] * clips_wait
    mend(workspace, finding)
    assert not batch.open.exists()
    (again,) = ingest.run(workspace, params, night=date(2026, 1, 1)).batch_ids
    now = what_came(clip.with_(label="NonFight") if clip == validated else clip for clip in clips)
    assert what_came(batches.read_manifest(workspace.batch(again)).clips) == now
    assert [path.name for path in workspace.inbox.iterdir()] == [".gitkeep"]
    assert not {one.what for one in found(workspace)} - {"clips"}  # which wait for their validation


def test_a_repaired_batch_says_of_which_clips_nothing_is_known(opened: Workspace) -> None:
    batch, clips = opened_batch(opened)
    batch.manifest.write_text("{")
    (batch.videos / "stranger.mp4").write_bytes(b"?")
    done = run_cli(opened, "repair", batch.batch_id)
    assert f"{len(clips) + 1} clips of batch {batch.batch_id} went back to the inbox" in done.stdout
    assert "Of 1 no label" in done.stdout
    assert "stranger" in done.stdout


def test_a_batch_in_order_is_not_changed_by_a_repair(opened: Workspace) -> None:
    batch, clips = opened_batch(opened)
    done = run_cli(opened, "repair", batch.batch_id)
    assert f"Nothing of batch {batch.batch_id} had to be repaired" in done.stdout
    assert batches.accepted_clips(batch) == clips
    assert run_cli(opened, "repair", "2026-01-01-00000000").exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize("is_sealed", [True, False])
def test_of_a_clip_that_two_batches_have_the_later_one_is_repaired_and_keeps_its_others(
    sealed: Workspace,
    clip_folder: Path,
    write_annotations: Callable[[Workspace, str], None],
    is_sealed: bool,
) -> None:
    first = batch_of(sealed)
    repeated = batches.accepted_clips(first)[0]
    with open_catalog(sealed) as catalog:
        catalog.forget(repeated.clip_id)  # as a catalog from an old backup
    shutil.copy(batches.video_of(first, repeated), sealed.inbox / "clip0.mp4")
    name = repeated.source_path.rpartition("/")[2]
    other = next(path for path in clip_folder.iterdir() if path.name != name)
    (sealed.inbox / "clip1.mp4").write_bytes(other.read_bytes() + bytes(8))
    (sealed.inbox / "labels.csv").write_text(LABELS)
    (batch_id,) = ingest.run(sealed, sealed.params(), night=date(2026, 1, 2)).batch_ids
    validate.run(sealed, sealed.params(), batch_id=batch_id)
    write_annotations(sealed, batch_id)
    if is_sealed:
        seal.run(sealed, sealed.params(), batch_id=batch_id)
    finding = next(one for one in found(sealed) if "the same bytes may be one clip only" in one.why)
    assert (finding.batch_id, finding.items) == (batch_id, (repeated.clip_id,))
    mend(sealed, finding)
    assert not [one for one in found(sealed) if one.kind != "missing"]
    (left,) = batches.accepted_clips(sealed.batch(batch_id))
    assert (left.label, left.source_group, left.camera_id) == ("NonFight", "incident-8", "gate")
    with open_catalog(sealed) as catalog:
        assert catalog.find([repeated.clip_id])[repeated.clip_id].batch_id == first.batch_id
    assert effective_labels(sealed)[repeated.clip_id] == ("Fight", "inbox")


# overlays


@pytest.fixture
def with_overlays(sealed: Workspace) -> list[ClipRecord]:
    """The clips of the batch, the first three of which have an overlay."""
    clips = batches.accepted_clips(batch_of(sealed))
    for clip in clips[:3]:
        overlay.run(sealed, sealed.params(), clip.clip_id)
    return clips


def spoil(workspace: Workspace, clips: list[ClipRecord]) -> None:
    """The first clip has a second overlay, the second another's, the third no video; and two are of unknown clips."""
    first, second, third = (workspace.overlay(clip.clip_id, ".mp4") for clip in clips[:3])
    shutil.copy(first, second)
    third.write_bytes(b"no video")
    shutil.copy(first, first.with_suffix(".avi"))
    shutil.copy(first, workspace.overlay("f" * 20, ".mp4"))
    (workspace.overlays / "1-vs-none").mkdir()
    shutil.copy(first, workspace.overlays / "1-vs-none" / first.name)
    shutil.copy(first, workspace.overlays / "1-vs-none" / f"{'e' * 20}.mp4")


def test_overlays_are_of_one_clip_and_show_what_it_has_now(sealed: Workspace, with_overlays: list[ClipRecord]) -> None:
    assert found(sealed) == []
    missing = check.run(sealed, sealed.params({"annotation.overlay": "all"})).findings
    assert [(finding.kind, len(finding.items)) for finding in missing] == [("missing", 3)]
    spoil(sealed, with_overlays)
    batch_id = batch_of(sealed).batch_id
    assert {(finding.kind, finding.batch_id): finding.items for finding in found(sealed)} == {
        ("orphaned", batch_id): (f"overlays/{with_overlays[0].clip_id}.avi",),
        ("stale", batch_id): (with_overlays[1].clip_id,),
        ("damaged", batch_id): (with_overlays[2].clip_id,),
        ("orphaned", None): (f"overlays/1-vs-none/{'e' * 20}.mp4", f"overlays/{'f' * 20}.mp4"),
    }


def test_small_pictures_of_reports_count_as_no_overlays_and_those_of_unknown_clips_are_found(
    sealed: Workspace, with_overlays: list[ClipRecord]
) -> None:
    sealed.thumbnails.mkdir()
    sealed.thumbnail(with_overlays[0].clip_id).write_bytes(b"a picture")
    result = check.run(sealed, sealed.params())
    assert (result.clean, result.overlays) == (True, 3)
    sealed.thumbnail("f" * 20).write_bytes(b"a picture")
    assert the_only(sealed).items == (f"overlays/thumbnails/{'f' * 20}.jpg",)


@pytest.mark.slow
def test_the_remedies_mend_overlays(sealed: Workspace, with_overlays: list[ClipRecord]) -> None:
    spoil(sealed, with_overlays)
    for finding in found(sealed):
        mend(sealed, finding)
    assert found(sealed) == []


def test_a_catalog_from_an_old_backup_is_stale_and_its_remedy_makes_it_whole(sealed: Workspace) -> None:
    (batch,) = sealed.sealed_batches()
    for file in sealed.root.glob("catalog.db*"):
        file.unlink()
    with Catalog(sealed.catalog_url) as catalog:
        catalog.open_batch("2025-12-31-0a1b2c3d", "2025-12-31", [])
    finding = the_only(sealed)
    assert (finding.kind, finding.what, finding.items) == ("stale", "catalog", (batch.batch_id,))
    assert finding.remedy == "violence-ops catalog rebuild"
    index.rebuild(sealed)
    assert found(sealed) == []
