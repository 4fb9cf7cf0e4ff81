"""Forgetting a clip in a real git + DVC workspace: nothing of it is left, everything else is, and a kill is finished later."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import date
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from violence_ops import git, versioning
from violence_ops.catalog import Catalog
from violence_ops.errors import ServiceUnavailable, UsageError, WorkspaceError
from violence_ops.files import sha256_file, write_json, write_table, write_text
from violence_ops.records import PREDICTIONS_SCHEMA, ClipRecord
from violence_ops.stages.inspection import check, check_forgotten
from violence_ops.stages.labelling import labels
from violence_ops.stages.learning import assemble
from violence_ops.stages.nightly import annotate, extract_poses, ingest, intake, score, seal, validate
from violence_ops.stages.provenance import forget, lineage, traces
from violence_ops.stages.releasing import holdout, reports
from violence_ops.stages.upkeep import init, status, synth
from violence_ops.store import batches, index, quarantine, tombstones
from violence_ops.store.index import open_catalog
from violence_ops.workspace import Workspace

Seal = Callable[..., list[ClipRecord]]
WHO = {"by": "ann", "reason": "the person asked"}


@pytest.fixture
def site(workspace: Workspace, seal_whole: Seal) -> Workspace:
    """A filled workspace whose remote is a folder of its own."""
    return fill(workspace, seal_whole)


def fill(workspace: Workspace, seal_whole: Seal) -> Workspace:
    """Two versioned batches, a holdout, an assembled dataset, labels, overlays; all of it pushed."""
    for seed, night in ((1, "2026-01-31"), (2, "2026-02-01")):
        batch = workspace.batch(seal_whole(workspace, clips=24, seed=seed, night=night, judged_by="1")[0].batch_id)
        versioning.add_batch(workspace, batch)
    holdout.freeze(workspace, workspace.params())
    assemble.run(workspace, workspace.params())
    for clip_id in (trained_on(workspace), held_out(workspace)):
        labels.run(workspace, clip_id, "Fight", "ann")
        labels.run(workspace, clip_id, "NonFight", "ann")
        write_text(workspace.overlay(clip_id, ".mp4"), "an overlay")
    assemble.run(workspace, workspace.params())
    push(workspace)
    return workspace


def push(workspace: Workspace) -> int:
    """Send all data to the remote; returns how many files it lacked."""
    with versioning.repository(workspace) as repo:
        return int(repo.push())


def trained_on(workspace: Workspace) -> str:
    return min(pq.read_table(workspace.dataset / "train.parquet").column("clip_id").to_pylist())


def held_out(workspace: Workspace) -> str:
    return min(clip.clip_id for clip in holdout.held_out(workspace))


def content_of(workspace: Workspace, clip_id: str) -> bytes:
    (video,) = [path for batch in workspace.sealed_batches() for path in batch.videos.glob(f"{clip_id}.*")]
    return video.read_bytes()


def remnants(workspace: Workspace, clip_id: str, folder: Path | None = None) -> Iterator[Path]:
    """Every file, also of DVC's cache and remote, with the clip's bytes or rows, or that is called after it."""
    for path in (folder or workspace.root).rglob("*"):
        if not path.is_file() or ".git" in path.parts or path == workspace.tombstone(clip_id):
            continue
        if clip_id in path.name or sha256_file(path)[:20] == clip_id:
            yield path
        elif path.open("rb").read(4) == b"PAR1":
            table = pq.ParquetFile(path)
            if "clip_id" in table.schema_arrow.names and clip_id in table.read(["clip_id"])["clip_id"].to_pylist():
                yield path
        elif {".dvc", ".remote", "data"} & set(path.parts) and clip_id.encode() in path.read_bytes():
            yield path


def check_all_else(workspace: Workspace, forgotten: set[str]) -> None:
    """The other clips are whole, batches say what they hold, and every version of now can be fetched from the remote."""
    for batch in workspace.sealed_batches():
        content = json.loads(batch.manifest.read_text())
        for name, described in content["tables"].items():
            path = batch.table(name)
            assert described == {"rows": pq.read_metadata(path).num_rows, "sha256": sha256_file(path)}
        clips = batches.accepted_clips(batch)
        assert content["accepted"] == len(clips) == len(list(batch.videos.iterdir()))
        assert {clip.clip_id for clip in clips}.isdisjoint(forgotten)
        assert set(content["run"]["pose_costs"]["clips"]) == {clip.clip_id for clip in clips}
        assert pq.read_metadata(batch.table("tracks")).num_rows == 72 * len(clips)
    assert push(workspace) == 0
    shutil.rmtree(workspace.root / ".dvc" / "cache")
    shutil.rmtree(workspace.batches / workspace.sealed_batches()[0].batch_id)
    for pointer in (*workspace.batches.glob("*.dvc"), *workspace.holdouts.glob("*.dvc")):
        from dvc.repo import Repo

        with Repo(str(workspace.root)) as repo:
            repo.pull(targets=[str(pointer)])
    assert len(workspace.sealed_batches()) == 2


def test_a_clip_that_was_trained_on_leaves_a_tombstone_and_nothing_else(site: Workspace) -> None:
    clip_id = trained_on(site)
    content = content_of(site, clip_id)
    assert len(set(remnants(site, clip_id))) > 20
    before = json.loads((site.dataset / "split.json").read_text())["revision"]
    planned = forget.run(site, site.params(), clip_id, dry_run=True)
    assert planned.removed["rows"] == {"clips": 1, "poses": 72, "tracks": 72, "predictions": 1}
    assert content_of(site, clip_id) == content

    found = forget.run(site, site.params(), clip_id, **WHO)
    assert found.removed["rows"] == planned.removed["rows"]
    assert found.removed["labels"] in (1, 2)  # what a clip is called already makes no line
    assert found.left == ()
    assert list(remnants(site, clip_id)) == []
    assert json.loads((site.dataset / "split.json").read_text())["revision"] != before
    assert site.holdout_versions() == ["v1"]
    stone = tombstones.read(site, clip_id)
    assert (stone["by"], stone["reason"], stone["done"]) == ("ann", "the person asked", True)
    assert (stone["clip_id"], stone["sha256"][:20]) == (clip_id, clip_id)
    assert {"source_path", "label", "source_group", "camera_id"}.isdisjoint(stone)

    with open_catalog(site) as catalog:
        assert catalog.find([clip_id]) == {}
    assert lineage.run(site, clip_id).to_dict()["kind"] == "forgotten clip"
    refused = drop_again(site, content)
    assert refused["reason"] == "forgotten"
    assert "forgotten on" in refused["message"]
    assert "ann: the person asked" in refused["message"]
    assert not any(sha256_file(path)[:20] == clip_id for path in site.root.rglob("*") if path.is_file())
    check_all_else(site, {clip_id})


class Bucket:
    """A real S3-compatible server with one bucket; what it holds outlasts a stop."""

    def __init__(self) -> None:
        self.port = 0
        self.start()
        self.files().mkdir("store")

    def start(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()
        self.stop = self._server.stop
        self.port = self._server.get_host_and_port()[1]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def files(self) -> S3FileSystem:
        return S3FileSystem(endpoint_url=self.endpoint, skip_instance_cache=True)

    def copy(self, folder: Path) -> Path:
        """All that the bucket holds, as files in a new `folder`."""
        self.files().get("store", str(folder), recursive=True)
        return folder


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    made = Bucket()
    yield made
    made.stop()


@pytest.mark.slow
def test_in_an_s3_bucket_nothing_is_left_either_and_one_that_is_down_is_named_and_cleared_later(
    tmp_path: Path, bucket: Bucket, seal_whole: Seal
) -> None:
    init.run(tmp_path / "site", remote_url="s3://store/violence-ops", remote_endpoint=bucket.endpoint)
    site = fill(Workspace.open(tmp_path / "site"), seal_whole)
    clip_id = trained_on(site)
    assert len(list(remnants(site, clip_id, bucket.copy(tmp_path / "before" / ".remote")))) > 5
    assert forget.run(site, site.params(), clip_id, **WHO).left == ()
    assert list(remnants(site, clip_id, bucket.copy(tmp_path / "after" / ".remote"))) == []

    other = trained_on(site)
    bucket.stop()
    with pytest.raises(ServiceUnavailable):
        forget.run(site, site.params(), other, **WHO)
    bucket.start()
    assert forget.run(site, site.params(), other, **WHO).left == ()
    assert list(remnants(site, other, bucket.copy(tmp_path / "later" / ".remote"))) == []
    check_all_else(site, {clip_id, other})


def test_a_version_that_only_the_remote_lists_may_be_another_workspaces_and_stays(site: Workspace) -> None:
    clip_id = trained_on(site)
    tables = sorted(site.batches.rglob("clips.parquet"))
    table = next(path for path in tables if clip_id in pq.read_table(path).column("clip_id").to_pylist())
    stored = site.root / ".remote" / "files" / "md5"

    def put(content: bytes, kind: str = "") -> tuple[str, Path]:
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        path = stored / digest[:2] / (digest[2:] + kind)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return digest, path

    foreign, note = put(b"another's")
    shared = hashlib.md5(table.read_bytes(), usedforsecurity=False).hexdigest()
    files = [{"md5": shared, "relpath": "clips.parquet"}, {"md5": foreign, "relpath": "note.txt"}]
    _, listed = put(json.dumps(files).encode(), ".dir")
    assert forget.run(site, site.params(), clip_id, **WHO).left == ()
    assert note.is_file()
    assert listed.is_file()


def drop_again(site: Workspace, content: bytes) -> dict[str, str]:
    """The reason.json that ingestion writes when the same file is dropped again."""
    (site.inbox / "again.mp4").write_bytes(content)
    result = ingest.run(site, site.params(), night=date(2026, 3, 1))
    assert (result.batch_ids, result.quarantined) == ([], {"forgotten": 1})
    (entry,) = [entry for entry in quarantine.entries(site) if entry["source_path"] == "again.mp4"]
    assert entry["original"] is None
    return entry


@pytest.mark.parametrize("pushed", [False, True])
def test_datasets_that_no_commit_names_go_too_and_what_others_of_that_kind_need_stays(
    site: Workspace, monkeypatch: pytest.MonkeyPatch, pushed: bool
) -> None:
    """`dvc repro` run again and again with other parameters stores each dataset, and commits nothing to git."""
    clip_id = trained_on(site)
    site.write_progress("seal", {})  # without it, DVC keeps no dataset
    shared = [site.root / "extra" / "note.txt", site.dataset / "note.txt"]
    for path in shared:
        write_text(path, "of both")
    with monkeypatch.context() as inside:
        inside.setenv("DVC_STAGE", "assemble")
        inside.setenv("DVC_ROOT", str(site.root))
        for persons in (1, 3):
            assemble.make(site, site.params({"windows.persons": persons}))
            with versioning.repository(site) as repo:
                repo.commit(target=f"{site.dvc_file}:assemble", force=True)
                repo.add(str(shared[0].parent))
            if pushed:
                push(site)
    shared[1].unlink()
    assemble.run(site, site.params())
    (site.root / "extra.dvc").unlink()
    stored = site.root / ".dvc" / "cache" / "files" / "md5"
    orphans = set(stored.rglob("*.dir"))

    found = forget.run(site, site.params(), clip_id, **WHO)
    assert found.left == ()
    assert list(remnants(site, clip_id)) == []
    assert len(orphans - set(stored.rglob("*.dir"))) >= 2
    digest = hashlib.md5(b"of both", usedforsecurity=False).hexdigest()
    assert (stored / digest[:2] / digest[2:]).is_file()
    push(site)
    check_all_else(site, {clip_id})


@pytest.mark.slow
def test_killed_after_every_step_it_is_finished_by_running_it_again(site: Workspace) -> None:
    clip_id = held_out(site)
    groups = holdout.read(site, "v1").groups

    class Killed(Exception):
        pass

    for last in range(1, len(forget.STEPS) + 1):

        def kill(_: str, done: int, __: int, last: int = last) -> None:
            if done == last:
                raise Killed

        with pytest.raises(Killed):
            forget.run(site, site.params(), clip_id, **(WHO if last == 1 else {}), progress=kill)
        assert tombstones.find(site, clip_id)  # by which ingestion refuses it
    found = forget.run(site, site.params(), clip_id)
    assert list(remnants(site, clip_id)) == []
    assert tombstones.read(site, clip_id)["by"] == "ann"
    assert found.models == ()
    assert site.holdout_versions() == ["v2"]
    facts = json.loads((site.holdout("v2") / "holdout.json").read_text())
    assert facts["replaces"] == ["v1"]
    assert set(facts["groups"]) == set(groups)
    assert site.read_progress("holdout") == {"versions": {"v2": facts["revision"]}}
    assert not (site.holdouts / "v1.dvc").exists()
    assert holdout.next_version(site) == "v3"
    check_all_else(site, {clip_id})


def test_a_clip_is_not_forgotten_while_a_holdout_that_may_hold_it_is_not_pulled(site: Workspace) -> None:
    clip_id = held_out(site)
    shutil.rmtree(site.holdout("v1"))
    with pytest.raises(WorkspaceError, match="The data of holdout v1 is not pulled: run `violence-ops dvc pull` first"):
        forget.run(site, site.params(), clip_id, **WHO)
    assert tombstones.all_of(site) == []
    assert content_of(site, clip_id)


def test_killed_while_a_holdout_gives_way_it_is_finished_by_running_it_again(
    site: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip_id = held_out(site)
    run = git.run

    def killed_at_rm(workspace: Workspace, *arguments: str) -> str:
        if arguments[0] == "rm":
            raise Killed
        return run(workspace, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(git, "run", killed_at_rm)
        with pytest.raises(Killed):
            forget.run(site, site.params(), clip_id, **WHO)
    forget.run(site, site.params(), clip_id)
    assert list(remnants(site, clip_id)) == []
    assert site.holdout_versions() == ["v2"]
    assert not (site.holdouts / "v1.dvc").exists()


def test_who_and_why_must_be_said_and_an_unknown_clip_is_named(workspace: Workspace, seal_whole: Seal) -> None:
    clip_id = seal_whole(workspace, clips=2)[0].clip_id
    why, name = "Say why the clip is forgotten", "needs a name"
    for missing, sentence in (
        ({}, name),
        ({"by": " "}, name),
        ({"by": "ann"}, why),
        ({"by": "ann", "reason": "  "}, why),
    ):
        with pytest.raises(UsageError, match=sentence):
            forget.run(workspace, workspace.params(), clip_id, **missing)
    with pytest.raises(UsageError, match="No clip 00000000000000000000 in this workspace"):
        forget.run(workspace, workspace.params(), "0" * 20, **WHO)
    assert tombstones.all_of(workspace) == []


def test_who_and_why_are_asked_for_before_any_model_is_looked_at(
    workspace: Workspace, seal_whole: Seal, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip_id = seal_whole(workspace, clips=2)[0].clip_id
    monkeypatch.setenv("VIOLENCE_OPS_MLFLOW_URI", "http://127.0.0.1:9")
    unreachable = Workspace(workspace.root)
    with pytest.raises(UsageError, match="Say why the clip is forgotten"):
        forget.run(unreachable, workspace.params(), clip_id, by="ann")
    with pytest.raises(ServiceUnavailable):
        forget.run(unreachable, workspace.params(), clip_id, **WHO)
    assert tombstones.all_of(workspace) == []


def test_a_clip_of_an_open_batch_and_one_in_quarantine_are_forgotten_too(
    workspace: Workspace, open_batch: Callable[..., list[ClipRecord]], broken_folder: Path
) -> None:
    first, second, _ = open_batch(workspace)
    batch = workspace.batch(first.batch_id)
    (workspace.root / "catalog.db.damaged").write_text(f"set aside by `catalog rebuild`, with {first.clip_id}")
    forget.run(workspace, workspace.params(), first.clip_id, **WHO)
    assert list(remnants(workspace, first.clip_id)) == []
    assert not (workspace.root / "catalog.db.damaged").exists()
    assert len(batches.read_manifest(batch).clips) == len(batches.accepted_clips(batch)) == 2
    assert batches.video_of(batch, second).is_file()

    shutil.copy(broken_folder / "too_short.mp4", workspace.inbox / "short.mp4")
    (batch_id,) = ingest.run(workspace, workspace.params(), night=date(2026, 3, 1)).batch_ids
    validate.run(workspace, workspace.params(), batch_id=batch_id)
    (entry,) = [entry for entry in quarantine.entries(workspace) if entry["reason"] == "too_short"]
    forget.run(workspace, workspace.params(), entry["clip_id"], **WHO)
    assert list(remnants(workspace, entry["clip_id"])) == []


def test_a_dataset_that_is_being_assembled_gets_nothing_of_the_clip(site: Workspace) -> None:
    clip_id = trained_on(site)
    with ThreadPoolExecutor(1) as pool:
        forgetting: list[Future[forget.ForgetResult]] = []

        def meanwhile(_: str, done: int, total: int) -> None:
            if done == total and not forgetting:
                forgetting.append(pool.submit(forget.run, site, site.params(), clip_id, **WHO))
                while not tombstones.stands(site, clip_id):
                    time.sleep(0.01)

        assembled = assemble.run(site, site.params(), progress=meanwhile)
        forgetting[0].result()
    assert json.loads((site.dataset / "split.json").read_text())["revision"] == assembled.revision
    assert list(remnants(site, clip_id)) == []


def test_a_dataset_that_got_a_forgotten_clip_all_the_same_is_named_and_made_anew(
    site: Workspace, tmp_path: Path
) -> None:
    clip_id = trained_on(site)
    shutil.copytree(site.dataset, tmp_path / "dataset")
    forget.run(site, site.params(), clip_id, **WHO)
    shutil.rmtree(site.dataset)
    shutil.copytree(tmp_path / "dataset", site.dataset)
    (found,) = check_forgotten.elsewhere(site)
    assert found.why == "They are forgotten, and something of them is still in the dataset."
    assert (found.items, found.remedy) == ((clip_id,), f"violence-ops forget {clip_id}")
    forget.run(site, site.params(), clip_id)
    assert list(check_forgotten.elsewhere(site)) == []
    assert not traces.in_dataset(site, [clip_id])

    (site.dataset / "train.parquet").unlink()
    (site.dataset / "train.parquet").write_text("garbage")
    (found,) = check_forgotten.elsewhere(site)
    assert (found.kind, found.what, found.remedy) == ("damaged", "dataset", "violence-ops assemble")


def test_without_enough_clips_left_there_is_no_dataset_and_it_says_so(workspace: Workspace, seal_whole: Seal) -> None:
    records = seal_whole(workspace, clips=16, per_group=2, seed=1)
    versioning.add_batch(workspace, workspace.batch(records[0].batch_id))
    holdout.freeze(workspace, workspace.params())
    assemble.run(workspace, workspace.params())
    clip_id = trained_on(workspace)
    found = forget.run(workspace, workspace.params({"dataset.min_clips_per_label": 10}), clip_id, **WHO)
    assert found.removed["dataset"].endswith("-> none")
    assert "No dataset can be made without the clip" in found.notices[0]
    assert list(remnants(workspace, clip_id)) == []


class Killed(BaseException):
    """What no code of ours catches."""


def killed(*_: object, **__: object) -> None:
    raise Killed


@pytest.fixture
def half_done(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`half_done({"a.mp4": b"a"}, part_of, "name")`: an ingestion of these files that is killed when it calls that function."""

    def run(files: dict[str, bytes], part_of: object, name: str) -> None:
        for file, content in files.items():
            (workspace.inbox / file).write_bytes(content)
        with monkeypatch.context() as patch:
            patch.setattr(part_of, name, killed)
            with pytest.raises(Killed):
                ingest.run(workspace, workspace.params(), night=date(2026, 1, 2))
        assert claimed_bytes(workspace) >= set(files.values())

    return run


def claimed_bytes(workspace: Workspace) -> set[bytes]:
    return {path.read_bytes() for path in workspace.claims.glob("*/files/*")}


def check_it_goes_on_without(workspace: Workspace, clip_id: str, others: set[bytes]) -> None:
    """Nothing of the clip is left in the claims, and the next ingestion takes in the rest of them and what is new."""
    assert list(remnants(workspace, clip_id)) == []
    assert not any(clip_id in path.read_text("utf-8") for path in workspace.claims.glob("*/*.json"))
    assert claimed_bytes(workspace) == others
    (workspace.inbox / "later.mp4").write_bytes(b"later")
    found = ingest.run(workspace, workspace.params(), night=date(2026, 1, 3))
    assert (found.claimed, found.duplicates, found.quarantined) == (len(others) + 1, 0, {})
    assert list(remnants(workspace, clip_id)) == []
    assert list(workspace.claims.iterdir()) == []


@pytest.mark.parametrize("how_far", [(intake, "decide"), (ingest, "_carry_out")], ids=["taken", "decided"])
def test_a_clip_that_was_dropped_again_goes_from_an_ingestion_that_was_killed(
    workspace: Workspace, half_done: Callable[..., None], how_far: tuple[object, str]
) -> None:
    (workspace.inbox / "a.mp4").write_bytes(b"person")
    (batch_id,) = ingest.run(workspace, workspace.params(), night=date(2026, 1, 1)).batch_ids
    (clip,) = batches.read_manifest(workspace.batch(batch_id)).clips
    half_done({"again.mp4": b"person", "new.mp4": b"new"}, *how_far)
    assert forget.run(workspace, workspace.params(), clip.clip_id, dry_run=True).removed["claimed files"] == 1
    assert forget.run(workspace, workspace.params(), clip.clip_id, **WHO).removed["claimed files"] == 1
    check_it_goes_on_without(workspace, clip.clip_id, {b"new"})


@pytest.mark.parametrize(
    "how_far", [(ingest, "_make_batch"), (batches, "write_manifest")], ids=["decided", "half a batch"]
)
def test_a_new_clip_goes_from_an_ingestion_that_was_killed(
    workspace: Workspace, half_done: Callable[..., None], how_far: tuple[object, str]
) -> None:
    clip_id = hashlib.sha256(b"person").hexdigest()[:20]
    half_done({"a.mp4": b"person", "..a.mp4": b"person", "new.mp4": b"new"}, *how_far)
    assert forget.run(workspace, workspace.params(), clip_id, dry_run=True).removed["claimed files"] == 2
    assert forget.run(workspace, workspace.params(), clip_id, **WHO).removed["claimed files"] == 2
    check_it_goes_on_without(workspace, clip_id, {b"new"})


def test_a_clip_forgotten_by_an_earlier_version_does_not_stop_the_ingestion_that_was_killed(
    workspace: Workspace, half_done: Callable[..., None]
) -> None:
    clip_id = hashlib.sha256(b"person").hexdigest()[:20]
    half_done({"a.mp4": b"person", "copy.mp4": b"person", "new.mp4": b"new"}, ingest, "_carry_out")
    with open_catalog(workspace) as catalog:
        catalog.forget(clip_id)
    tombstones.write(workspace, {"clip_id": clip_id})
    found = ingest.run(workspace, workspace.params(), night=date(2026, 1, 3))
    assert (found.claimed, found.duplicates) == (1, 0)
    assert list(remnants(workspace, clip_id)) == []
    assert list(workspace.claims.iterdir()) == []


def test_an_ingestion_under_way_is_waited_for_and_what_it_takes_in_is_forgotten(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip_id = hashlib.sha256(b"person").hexdigest()[:20]
    for name, content in (("a.mp4", b"person"), ("new.mp4", b"new")):
        (workspace.inbox / name).write_bytes(content)
    begun, go_on, real = threading.Event(), threading.Event(), Catalog.open_batch

    def slowly(*arguments: object) -> None:
        begun.set()
        assert go_on.wait(60)
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Catalog, "open_batch", slowly)
    with ThreadPoolExecutor(2) as pool:
        ingestion = pool.submit(ingest.run, workspace, workspace.params(), night=date(2026, 1, 1))
        assert begun.wait(60)
        forgetting = pool.submit(forget.run, workspace, workspace.params(), clip_id, **WHO)
        assert wait([forgetting], timeout=2).not_done
        go_on.set()
    (batch_id,) = ingestion.result().batch_ids
    assert forgetting.result().batch_id == batch_id
    assert len(batches.read_manifest(workspace.batch(batch_id)).clips) == 1
    assert list(remnants(workspace, clip_id)) == []


@pytest.fixture
def person(workspace: Workspace) -> str:
    """A clip of an open batch."""
    (workspace.inbox / "a.mp4").write_bytes(b"person")
    ingest.run(workspace, workspace.params(), night=date(2026, 1, 1))
    return hashlib.sha256(b"person").hexdigest()[:20]


def test_what_cannot_be_read_in_the_cache_goes_too(workspace: Workspace, person: str) -> None:
    names = ("garbage.parquet", "cut.parquet", "page.html", ".killed.parquet.x1.tmp", ".killed.html.x1.tmp")
    damaged = [workspace.cache / name for name in names]
    write_table(damaged[1], pa.table({"clip_id": ["another"] * 100}))
    cut, page = damaged[1].read_bytes()[:-20], b"\xff" + person.encode()
    for path, content in zip(damaged, (b"garbage", cut, page, cut, page), strict=True):
        path.write_bytes(content)
    sound = workspace.cache / "sound.parquet"
    write_table(sound, pa.table({"clip_id": ["another"]}))
    planned = forget.run(workspace, workspace.params(), person, dry_run=True)
    assert set(planned.removed["files"]) == {str(path.relative_to(workspace.root)) for path in damaged}
    forget.run(workspace, workspace.params(), person, **WHO)
    assert [path.exists() for path in (*damaged, sound)] == [*[False] * len(damaged), True]
    assert tombstones.is_finished(workspace, person)


def test_a_training_that_was_not_registered_goes_if_it_names_the_clip(workspace: Workspace, person: str) -> None:
    named, other = (workspace.cache / "training" / name for name in ("a1b2", "c3d4"))
    write_text(named / "tables" / "validation.csv", f"clip_id,label\n{person},Fight\n")
    write_table(named / "tables" / "rows.parquet", pa.table({"clip_id": [person]}))
    write_text(other / "tables" / "validation.csv", "clip_id,label\nanother,Fight\n")
    planned = forget.run(workspace, workspace.params(), person, dry_run=True)
    assert ".cache/training/a1b2" in planned.removed["files"]
    forget.run(workspace, workspace.params(), person, **WHO)
    assert (named.exists(), other.exists()) == (False, True)


def test_a_page_that_lists_the_clip_among_its_shadow_nights_is_drawn_without_it(
    released: Workspace, seal_whole: Seal, write_evaluation: Callable[..., str]
) -> None:
    clips = seal_whole(released, clips=12, judged_by="1", surely=True)
    batch = released.batch(clips[0].batch_id)
    versioning.add_batch(released, batch)
    clip = next(clip for clip in clips if clip.label == "NonFight")
    rows = [
        row | {"model_version": "2", "clip_probability": 0.0, "verdict": "NonFight"}
        for row in pq.read_table(batch.table("predictions")).to_pylist()
    ]
    write_table(released.shadow("2", batch.batch_id), pa.Table.from_pylist(rows, PREDICTIONS_SCHEMA))
    pages = [released.report(write_evaluation(version, "1")) for version in ("2", "3")]
    for files in pages:
        reports.write_page(released, files, reports.read(files).evaluation, released.params())
    shown, other = (files.page for files in pages)
    half_written = shown.with_name(".report.html.x1y2z3.tmp")
    shutil.copy(shown, half_written)
    before = other.read_bytes()
    assert clip.clip_id in shown.read_text()
    assert clip.clip_id not in pages[0].evaluation.read_text()

    forget.run(released, released.params(), clip.clip_id, **WHO)
    assert shown.read_text().startswith("<!doctype html>")
    assert clip.clip_id not in shown.read_text()
    assert not half_written.exists()
    assert other.read_bytes() == before


def test_a_page_that_cannot_be_drawn_again_goes_and_is_told(workspace: Workspace, person: str) -> None:
    files = workspace.report("2-vs-1")
    write_text(files.page, f"<td>{person}</td>")
    found = forget.run(workspace, workspace.params(), person, **WHO)
    assert not files.page.exists()
    assert "reports/2-vs-1/report.html cannot be made without the clip and was removed" in found.notices[0]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_link_in_the_inbox_leads_forgetting_nowhere(
    workspace: Workspace, person: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    theirs, again = tmp_path / "theirs" / f"{person}.mp4", workspace.inbox / "again-00000000"
    write_text(theirs, "somebody else's")
    remove = forget._remove

    def exchanged(*arguments: Any) -> None:
        if not again.is_symlink():
            shutil.rmtree(again)
            again.symlink_to(theirs.parent)
        remove(*arguments)

    if when == "before":
        again.symlink_to(theirs.parent)
    else:
        write_text(again / theirs.name, "put there by retry")
        monkeypatch.setattr(forget, "_remove", exchanged)
    found = forget.run(workspace, workspace.params(), person, **WHO)
    assert theirs.is_file()
    assert again.is_symlink()
    assert ("files" in found.removed) == (when == "meanwhile")


def unfinished(workspace: Workspace) -> list[tuple[str, str]]:
    """What `check` says of clips that are not wholly forgotten: its kind and what to do."""
    found = check.run(workspace, workspace.params(), as_sealed=True).findings
    return [(one.kind, one.remedy) for one in found if one.what in ("forgotten clip", "tombstone")]


def test_a_damaged_table_stops_it_before_any_is_changed_and_check_says_how_to_finish_it(
    workspace: Workspace, seal_whole: Seal
) -> None:
    """In a batch that was sealed before costs were recorded."""
    records = seal_whole(workspace, clips=3)
    clip_id, batch = records[0].clip_id, workspace.batch(records[0].batch_id)
    content = json.loads(batch.manifest.read_text())
    del content["run"]["pose_costs"]
    write_json(batch.manifest, content)
    versioning.add_batch(workspace, batch)
    tracks = batch.table("tracks")
    sound = tracks.read_bytes()
    tracks.unlink()
    tracks.write_bytes(sound[:-200])
    before = {path: sha256_file(path) for path in batch.sealed.iterdir() if path.is_file()}
    for _ in range(2):
        with pytest.raises(WorkspaceError, match=r"tracks.parquet is damaged: `violence-ops check`"):
            forget.run(workspace, workspace.params(), clip_id, **WHO)
    with pytest.raises(WorkspaceError, match=r"tracks.parquet is damaged"):
        lineage.run(workspace, batch.batch_id)
    assert {path: sha256_file(path) for path in batch.sealed.iterdir() if path.is_file()} == before
    assert unfinished(workspace) == [("orphaned", f"violence-ops forget {clip_id}")]
    assert any(f"`violence-ops forget {clip_id}`" in line for line in status.run(workspace).lines())

    tracks.write_bytes(sound)
    forget.run(workspace, workspace.params(), clip_id)
    assert unfinished(workspace) == []
    assert status.run(workspace).half_forgotten == []
    assert list(remnants(workspace, clip_id)) == []
    assert len(batches.accepted_clips(batch)) == 2
    assert "pose_costs" not in json.loads(batch.manifest.read_text())["run"]

    workspace.tombstone(clip_id).write_text("garbage")
    ((kind, remedy),) = unfinished(workspace)
    assert (kind, remedy) == ("damaged", f"git checkout -- data/forgotten/{clip_id}.json")


def test_a_stored_table_that_cannot_be_read_is_named_until_it_is_gone(
    workspace: Workspace, seal_whole: Seal, person: str
) -> None:
    records = seal_whole(workspace, clips=16, per_group=2, seed=1)
    versioning.add_batch(workspace, workspace.batch(records[0].batch_id))
    workspace.write_progress("seal", {})  # without it, DVC keeps no dataset
    assemble.run(workspace, workspace.params())
    train = workspace.dataset / "train.parquet"
    digest = hashlib.md5(train.read_bytes(), usedforsecurity=False).hexdigest()
    stored = workspace.root / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]
    stored.unlink()
    stored.write_bytes(b"PAR1 and no more")
    (sentence,) = forget.run(workspace, workspace.params(), person, **WHO).left
    assert sentence.startswith(f"{stored}, the train.parquet of a version that dvc.lock named, cannot be read")
    assert not tombstones.is_finished(workspace, person)
    stored.unlink()
    assert forget.run(workspace, workspace.params(), person).left == ()
    assert tombstones.is_finished(workspace, person)


@pytest.fixture(scope="session")
def drop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three real clips of people."""
    folder = tmp_path_factory.mktemp("drop")
    synth.run(folder, 3, seed=3, groups=3, with_truth=False, duration_s=1.5)
    return folder


NIGHT: Final = {"validate": validate, "extract-poses": extract_poses, "annotate": annotate, "score": score}


@pytest.mark.slow
@pytest.mark.parametrize("stage", NIGHT)
@pytest.mark.parametrize("victim", ["first", "last"])
def test_a_clip_that_is_forgotten_while_a_stage_works_on_its_batch_stays_forgotten(
    workspace: Workspace, drop: Path, stage: str, victim: str
) -> None:
    """The first clip is being worked on, or was, when it is forgotten; the last one still waits for its turn."""
    params = workspace.params({"annotation.overlay": "all", "annotation.workers": 1})
    shutil.copytree(drop, workspace.inbox / "drop")
    (batch_id,) = ingest.run(workspace, params, night=date(2026, 1, 1)).batch_ids
    clip_ids = [clip.clip_id for clip in batches.read_manifest(workspace.batch(batch_id)).clips]
    clip_id = clip_ids[0 if victim == "first" else -1]

    def meanwhile(*_: object) -> None:
        if not tombstones.all_of(workspace):
            removed = forget.run(workspace, params, clip_id, **WHO).removed
            assert removed["videos"] == 1

    for name, step in NIGHT.items():
        options = {"progress": meanwhile} if name == stage else {}
        result = step.run(workspace, params, batch_id=batch_id, **options).to_dict()  # type: ignore[attr-defined]
        assert result.get("quarantined", {}) == {}
        if name == "validate":
            validate.checkpoint(workspace, params, batch_id=batch_id)
    assert tombstones.all_of(workspace) == [clip_id]
    assert [clip.clip_id for clip in batches.accepted_clips(workspace.batch(batch_id))] == sorted(
        {*clip_ids} - {clip_id}
    )
    assert seal.run(workspace, params, batch_id=batch_id).clips == 2
    assert list(remnants(workspace, clip_id)) == []
    assert list(quarantine.entries(workspace)) == []
    with open_catalog(workspace) as catalog:
        assert catalog.find([clip_id]) == {}
        assert catalog.counts()["status"] == {"accepted": 2}
    assert check.run(workspace, params).findings == []


def test_check_names_what_is_left_of_a_forgotten_clip_and_forgetting_it_again_removes_it(
    workspace: Workspace, seal_whole: Seal, open_batch: Callable[..., list[ClipRecord]]
) -> None:
    """As versions before this one could leave it: a stage that was running brought the clip back."""
    sealed, opened = seal_whole(workspace, clips=3)[0], open_batch(workspace, people=lambda _: 2)[0]
    versioning.add_batch(workspace, workspace.batch(sealed.batch_id))
    params = workspace.params()
    for clip in (sealed, opened):
        stone = {"clip_id": clip.clip_id, "sha256": clip.sha256, "batch_id": clip.batch_id, "done": True, "at": "then"}
        lists = ("models", "silent_models", "dataset_revisions", "holdouts", "evaluations")
        tombstones.write(workspace, stone | WHO | {name: [] for name in lists})
    refused = sealed.with_(status="quarantined", reason="unreadable")
    quarantine.put(workspace, refused, night="2026-01-31", message="it is gone", original=None)
    index.rebuild(workspace)

    def left() -> dict[str, tuple[str, ...]]:
        found = check.run(workspace, params, as_sealed=True).findings
        return {f"{one.batch_id} {one.why}": one.items for one in found if one.what == "traces of forgotten clips"}

    both = tuple(sorted((sealed.clip_id, opened.clip_id)))
    said = "They are forgotten, and something of them is still"
    assert left() == {
        f"{sealed.batch_id} {said} in its tables or files.": (sealed.clip_id,),
        f"{opened.batch_id} {said} in its tables or files.": (opened.clip_id,),
        f"None {said} in the catalog.": both,
        f"None {said} in the quarantine.": (sealed.clip_id,),
    }
    assert not check.run(workspace, params, as_sealed=True).clean
    for clip_id in both:
        forget.run(workspace, params, clip_id)
        assert list(remnants(workspace, clip_id)) == []
    assert left() == {}


def test_what_went_of_an_open_batch_is_told(workspace: Workspace, open_batch: Callable[..., list[ClipRecord]]) -> None:
    clip_id = open_batch(workspace, people=lambda _: 2)[0].clip_id
    planned = forget.run(workspace, workspace.params(), clip_id, dry_run=True)
    found = forget.run(workspace, workspace.params(), clip_id, **WHO)
    assert planned.removed["rows"] == found.removed["rows"] == {"clips": 1, "poses": 60, "tracks": 0, "predictions": 0}
    assert found.removed["videos"] == 1


def test_a_sealed_clip_of_which_no_version_was_stored_is_told(workspace: Workspace, seal_whole: Seal) -> None:
    clip = seal_whole(workspace, judged_by="1")[0]
    result = forget.run(workspace, workspace.params(), clip.clip_id, **WHO)
    assert f"No stored version of batch {clip.batch_id} held the clip" in "\n".join(result.lines())
    again = forget.run(workspace, workspace.params(), clip.clip_id)
    assert "No stored version" not in "\n".join(again.lines())
