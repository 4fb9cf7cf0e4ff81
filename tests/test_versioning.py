"""DVC and git: a batch is one artifact and one tag, writers wait for each other, `dvc repro` agrees with what we recorded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from dvc.data_cloud import DataCloud

from violence_ops import git, git_index, versioning, versioning_erase
from violence_ops.code_revision import code_revision
from violence_ops.errors import ServiceUnavailable, WorkspaceError
from violence_ops.folders import Batch
from violence_ops.store import releases
from violence_ops.workspace import Workspace


def sealed(workspace: Workspace, number: int) -> Batch:
    batch = workspace.batch(f"2026-01-01-{number:08x}")
    (batch.sealed / "videos").mkdir(parents=True)
    (batch.sealed / "clips.parquet").write_bytes(b"table %d" % number)
    (batch.sealed / "videos" / "a.mp4").write_bytes(b"video %d" % number * 1000)
    return batch


def plain_git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def test_a_batch_is_committed_tagged_linked_and_in_the_remote(workspace: Workspace, tmp_path: Path) -> None:
    batch = sealed(workspace, 1)
    revision = versioning.add_batch(workspace, batch)
    assert plain_git(workspace.root, "rev-parse", f"batch/{batch.batch_id}") == revision == git.revision(workspace)
    video = batch.sealed / "videos" / "a.mp4"
    assert video.stat().st_nlink == 2, "one copy in cache and workspace together"
    assert not video.stat().st_mode & 0o222
    assert versioning.add_batch(workspace, batch) == revision
    assert plain_git(workspace.root, "status", "--short") == ""
    clone = tmp_path / "clone"
    plain_git(tmp_path, "clone", "-q", str(workspace.root), str(clone))
    shutil.copytree(workspace.remote, clone / ".remote")
    subprocess.run(
        [sys.executable, "-m", "dvc", "pull", "-q", f"data/batches/{batch.batch_id}.dvc"], cwd=clone, check=True
    )
    assert (clone / "data/batches" / batch.batch_id / "videos/a.mp4").read_bytes() == video.read_bytes()


def test_a_change_in_a_sealed_batch_is_noticed(workspace: Workspace) -> None:
    batch = sealed(workspace, 1)
    versioning.add_batch(workspace, batch)
    table = batch.sealed / "clips.parquet"
    table.unlink()
    table.write_bytes(b"forged")
    assert f"{batch.batch_id}.dvc" in versioning.status(workspace)


def test_writers_wait_for_each_other(workspace: Workspace) -> None:
    batches = [sealed(workspace, number) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda batch: versioning.add_batch(workspace, batch), batches))
    assert versioning.versioned_batches(workspace) == {batch.batch_id for batch in batches}
    assert plain_git(workspace.root, "status", "--short") == ""


class SlowRemote:
    """A DVC remote over HTTP that takes nothing until it is told to."""

    def __init__(self) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.objects: dict[str, bytes] = {}
        remote = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(200 if self.path in remote.objects else 404)

            def do_GET(self) -> None:
                content = remote.objects.get(self.path)
                self.answer(404 if content is None else 200, content or b"")

            def do_POST(self) -> None:
                content = b""
                while size := int(self.rfile.readline(), 16):
                    content += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                remote.asked.set()
                assert remote.go_on.wait(120)
                remote.objects[self.path] = content
                self.answer(200)

            def answer(self, status: int, content: bytes = b"") -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/dvc"


@pytest.fixture
def slow_remote() -> Iterator[SlowRemote]:
    remote = SlowRemote()
    serving = threading.Thread(target=remote.server.serve_forever)
    serving.start()
    yield remote
    remote.go_on.set()
    remote.server.shutdown()
    serving.join()
    remote.server.server_close()


def test_nobody_waits_for_an_upload_and_its_tag_names_the_commit_that_was_sent(
    workspace: Workspace, slow_remote: SlowRemote, tmp_path: Path
) -> None:
    versioning.init(workspace, remote_url=slow_remote.address)
    git.commit(workspace, [workspace.root / ".dvc" / "config"], "A slow remote")
    batch = sealed(workspace, 1)
    workspace.write_progress("ingest", {"batches": []})
    with ThreadPoolExecutor(2) as pool:
        upload = pool.submit(versioning.add_batch, workspace, batch)
        assert slow_remote.asked.wait(60)

        def write() -> str:
            workspace.ledger.parent.mkdir(exist_ok=True)
            workspace.ledger.write_text("a line\n")
            git.commit(workspace, [workspace.ledger], "Ledger")
            return versioning.commit_stage(workspace, ["ingest"], "Night")

        meanwhile = pool.submit(write).result(timeout=60)
        assert not upload.done()
        assert versioning.versioned_batches(workspace) == set()
        slow_remote.go_on.set()
        sent = upload.result(timeout=60)
    assert plain_git(workspace.root, "rev-parse", f"batch/{batch.batch_id}") == sent
    assert plain_git(workspace.root, "show", "--name-only", "--format=", sent).endswith(f"{batch.batch_id}.dvc")
    assert git.revision(workspace) == meanwhile != sent
    plain_git(tmp_path, "clone", "-q", str(workspace.root), str(tmp_path / "clone"))
    pull = [sys.executable, "-m", "dvc", "pull", "-q", f"data/batches/{batch.batch_id}.dvc"]
    subprocess.run(pull, cwd=tmp_path / "clone", check=True)


def test_two_uploads_at_once_both_arrive_and_one_that_was_killed_is_finished(
    workspace: Workspace, slow_remote: SlowRemote
) -> None:
    versioning.init(workspace, remote_url=slow_remote.address)
    first, second, third = (sealed(workspace, number) for number in range(3))
    command = [
        "from violence_ops import versioning; from violence_ops.workspace import Workspace",
        f"w = Workspace.open(); versioning.add_batch(w, w.batch({first.batch_id!r}))",
    ]
    with subprocess.Popen([sys.executable, "-c", "; ".join(command)], cwd=workspace.root) as process:
        assert slow_remote.asked.wait(60)
        process.kill()
    assert versioning.versioned_batches(workspace) == set()
    committed = git.revision(workspace)
    slow_remote.asked.clear()
    with ThreadPoolExecutor(2) as pool:
        uploads = [pool.submit(versioning.add_batch, workspace, batch) for batch in (second, third)]
        assert slow_remote.asked.wait(60)
        slow_remote.go_on.set()
        for upload in uploads:
            upload.result(timeout=60)
    assert versioning.add_batch(workspace, first) == committed
    assert plain_git(workspace.root, "rev-parse", f"batch/{first.batch_id}") == committed
    assert versioning.versioned_batches(workspace) == {batch.batch_id for batch in (first, second, third)}
    with versioning.repository(workspace) as repo:
        assert repo.push() == 0


def test_what_is_erased_during_an_upload_is_not_in_the_remote_after_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, sent = sealed(workspace, 1), threading.Event()
    transfer, go_on = DataCloud.push, threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        sent.set()
        assert go_on.wait(60)
        return transfer(*arguments, **options)

    monkeypatch.setattr(DataCloud, "push", slow)
    pointer = str(batch.pointer.relative_to(workspace.root))
    with ThreadPoolExecutor(2) as pool:
        upload = pool.submit(versioning.add_batch, workspace, batch)
        assert sent.wait(60)
        erasing = pool.submit(versioning_erase.erase, workspace, {pointer}, lambda name, _: name.endswith("a.mp4"))
        assert wait([erasing], timeout=1).not_done, "it waits for the upload"
        git.commit(workspace, [workspace.params_file], "Others do not wait")
        go_on.set()
        upload.result(timeout=60)
        assert erasing.result(timeout=60).objects == 3
    assert [path for path in workspace.remote.rglob("*") if path.is_file()] == []


OWN_SETTINGS = """\
[diff]
    noprefix = true
[color]
    ui = always
[log]
    showRoot = false
[commit]
    gpgSign = true
[tag]
    gpgSign = true
[core]
    autocrlf = true
    safecrlf = true
    editor = false
    attributesFile = ATTRIBUTES
"""


@pytest.fixture(params=["the user's", "the workspace's"])
def own_settings(request: pytest.FixtureRequest, workspace: Workspace, tmp_path: Path,
                 monkeypatch: pytest.MonkeyPatch) -> Workspace:  # fmt: skip
    """A workspace whose user has told git much that is sensible for a person's own work, everywhere or here."""
    (tmp_path / "attributes").write_text("*.dvc -diff\n*.lock -diff\n")
    said = OWN_SETTINGS.replace("ATTRIBUTES", str(tmp_path / "attributes"))
    if request.param == "the user's":
        (tmp_path / "gitconfig").write_text(said)
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    else:
        with (workspace.root / ".git" / "config").open("a") as file:
            file.write(said)
    return workspace


def test_a_users_own_settings_of_git_neither_stop_a_batch_nor_keep_one_from_being_erased(
    own_settings: Workspace,
) -> None:
    workspace, batch = own_settings, sealed(own_settings, 1)
    versioning.add_batch(workspace, batch)
    (batch.sealed / "videos" / "a.mp4").unlink()
    versioning_erase.replace(workspace, batch.sealed, "Without the clip", f"batch/{batch.batch_id}")
    workspace.write_progress("ingest", {"batches": []})
    versioning.commit_stage(workspace, ["ingest"], "Night")
    assert plain_git(workspace.root, "cat-file", "-t", f"batch/{batch.batch_id}") == "commit"
    pointer = str(batch.pointer.relative_to(workspace.root))
    # what the cache lists is found without git
    shutil.rmtree(workspace.root / ".dvc" / "cache" / "files")
    erased = versioning_erase.erase(workspace, {pointer}, lambda name, _: name.endswith("a.mp4"))
    assert (erased.versions, erased.objects, erased.left) == (1, 2, ())
    stored = [path for path in workspace.remote.rglob("*") if path.is_file()]
    assert [path for path in stored if b"video 1" in path.read_bytes()] == []


def test_a_shell_that_speaks_of_another_repository_leads_nothing_there(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_git(tmp_path, "init", "--quiet", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    versioning.add_batch(workspace, sealed(workspace, 1))
    assert len(versioning.versioned_batches(workspace)) == 1
    monkeypatch.undo()
    assert plain_git(tmp_path / "other", "rev-list", "--all") == ""
    assert plain_git(workspace.root, "log", "-1", "--format=%s").startswith("Batch ")


def aged(lock: Path, seconds: float) -> None:
    lock.touch()
    os.utime(lock, (time.time() - seconds,) * 2)


def test_a_git_lock_that_a_killed_run_left_is_removed(workspace: Workspace) -> None:
    aged(workspace.root / ".git" / "index.lock", 3600)
    versioning.add_batch(workspace, sealed(workspace, 1))
    assert len(versioning.versioned_batches(workspace)) == 1


def test_a_git_lock_that_may_be_somebodys_in_another_container_stays_and_is_named(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_index, "_PATIENCE_S", 1.0)
    lock, before = workspace.root / ".git" / "index.lock", git.revision(workspace)
    aged(lock, 60)
    with pytest.raises(ServiceUnavailable, match=f"{lock} has been there .* remove the file"):
        releases.record(workspace, actor="ann", event="reinstatement", payload={"from": None, "to": None})
    assert lock.exists()
    assert not workspace.ledger.exists()
    assert git.revision(workspace) == before


def test_a_git_lock_that_another_command_takes_for_a_moment_is_waited_for_and_one_that_stays_asks_for_a_retry(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = workspace.root / ".git" / "index.lock"
    # not there when it is looked for, and there when git wants it
    monkeypatch.setattr(git_index, "wait_for", lambda _: lock.touch())
    workspace.labels_file.write_text("clip_id,label,by,at\n")
    gone = threading.Timer(1, lock.unlink)
    gone.start()
    lock.touch()
    git.run(workspace, "add", "--", "data/labels.csv")
    gone.join()
    monkeypatch.setattr(git, "_LOCK_PATIENCE_S", 0.5)
    with pytest.raises(ServiceUnavailable, match=r"git add failed in .*index\.lock': File exists"):
        git.commit(workspace, [workspace.labels_file], "labels")


def test_an_open_editor_of_a_persons_commit_is_not_waited_for_without_limit(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(git_index, "_PATIENCE_S", 1.0)
    opened, closed = tmp_path / "opened", tmp_path / "closed"
    editor = f"sh -c 'touch {opened}; while ! test -e {closed}; do sleep 0.1; done; echo Mine > \"$1\"' -"
    (workspace.root / "mine.txt").write_text("mine")
    plain_git(workspace.root, "add", "mine.txt")
    lock = workspace.root / ".git" / "index.lock"
    identity = ["-c", "user.name=Ann", "-c", "user.email=ann@localhost"]
    command = ["git", *identity, "commit", "-q"]
    with subprocess.Popen(command, cwd=workspace.root, env=os.environ | {"GIT_EDITOR": editor}) as commit:
        try:
            while not opened.exists():
                assert commit.poll() is None
                time.sleep(0.05)
            aged(lock, 3600)
            with pytest.raises(ServiceUnavailable, match=rf"{lock} .* \(process {commit.pid}; perhaps an open editor"):
                git.commit(workspace, [workspace.params_file], "Nothing")
            assert lock.exists()
        finally:
            closed.touch()
    assert plain_git(workspace.root, "log", "-1", "--format=%an %s") == "Ann Mine"
    versioning.add_batch(workspace, sealed(workspace, 1))


def test_only_the_named_files_are_committed(workspace: Workspace) -> None:
    (workspace.root / "mine.txt").write_text("not yours")
    plain_git(workspace.root, "add", "mine.txt")
    before = git.revision(workspace)
    assert git.commit(workspace, [workspace.labels_file], "nothing new") == before
    workspace.labels_file.write_text("clip_id,label,by,at\nx\n")
    git.commit(workspace, [workspace.labels_file], "labels")
    assert plain_git(workspace.root, "show", "--name-only", "--format=") == "data/labels.csv"
    assert plain_git(workspace.root, "status", "--short") == "A  mine.txt"


def test_a_stage_run_outside_dvc_is_recorded_and_dvc_repro_has_nothing_to_do(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    versioning.commit_stage(workspace, ["ingest", "validate"], "too early")
    assert versioning.status(workspace).keys() >= {"ingest", "validate"}
    workspace.write_progress("ingest", {"batches": []})
    versioning.commit_stage(workspace, ["ingest"], "Night")
    assert "ingest" not in versioning.status(workspace)
    monkeypatch.chdir(workspace.root)
    reproduced = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "ingest"], capture_output=True, text=True, check=True
    )
    assert "up to date" in reproduced.stdout + reproduced.stderr


def test_a_stage_that_ran_with_other_params_than_the_workspaces_stays_to_be_done(workspace: Workspace) -> None:
    workspace.write_progress("ingest", {"batches": []})
    versioning.commit_stage(workspace, ["ingest"], "Night", workspace.params({"ingest.shard_size": 3}))
    assert "ingest" in versioning.status(workspace)
    versioning.commit_stage(workspace, ["ingest"], "Night", workspace.params())
    assert "ingest" not in versioning.status(workspace)


def test_a_link_dropped_while_a_night_runs_stops_only_the_recording_of_ingest(workspace: Workspace) -> None:
    for stage in ("ingest", "validate"):
        workspace.write_progress(stage, {})
    (workspace.inbox / "link.mp4").symlink_to("/dev/zero")
    versioning.commit_stage(workspace, ["validate"], "Night")
    with pytest.raises(WorkspaceError, match="not a regular file"):
        versioning.commit_stage(workspace, ["ingest"], "Night")


def hide_things(inbox: Path) -> None:
    """What editors, uploads under way and ill will leave behind hidden names; DVC would hang or end on any of it."""
    (inbox / "Fight" / ".partial").mkdir(parents=True)
    for folder in (inbox, inbox / "Fight", inbox / "Fight" / ".partial"):
        (folder / ".#labels.csv").symlink_to("ann@host.123:456")
        (folder / ".zero").symlink_to("/dev/zero")
        os.mkfifo(folder / ".pipe")
        Path(os.fsdecode(os.fsencode(folder) + b"/.\xff\xfe")).write_bytes(b"x")
    (inbox / ".dvcignore").write_bytes(b"\xff")
    (inbox / "Fight" / ".dvcignore").write_text("*\n")


def test_hidden_things_in_the_inbox_are_nobodys_business(workspace: Workspace) -> None:
    workspace.write_progress("ingest", {"batches": []})
    hide_things(workspace.inbox)
    versioning.commit_stage(workspace, ["ingest"], "Night")
    assert "ingest" not in versioning.status(workspace)
    hide_things(workspace.inbox / "more")
    assert "ingest" not in versioning.status(workspace)
    (workspace.inbox / "Fight" / "..up.mp4").write_bytes(b"to be refused by ingestion")
    assert "ingest" in versioning.status(workspace)


def test_a_workspace_of_an_earlier_version_learns_what_to_leave_alone_in_the_inbox(workspace: Workspace) -> None:
    own = {
        ".gitignore": versioning.GITIGNORE.replace("/inbox/", "/inbox/*\n!/inbox/.gitkeep") + "/mine",
        ".dvcignore": versioning.DVCIGNORE.replace("/inbox/**/.[!.]*", "/inbox/.gitkeep"),
    }
    for name, content in own.items():
        (workspace.root / name).write_text(content)
    git.commit(workspace, [workspace.root / name for name in own], "As before")
    workspace.write_progress("ingest", {"batches": []})
    plain_git(workspace.root, "checkout", "--quiet", "--detach")
    with pytest.raises(WorkspaceError, match="is on no branch"):
        versioning.commit_stage(workspace, ["ingest"], "Night")
    plain_git(workspace.root, "switch", "--quiet", "main")
    versioning.status(workspace)
    assert plain_git(workspace.root, "status", "--short", *own) == ""
    hide_things(workspace.inbox)
    for _ in range(2):
        versioning.commit_stage(workspace, ["ingest"], "Night")
    assert "ingest" not in versioning.status(workspace)
    assert plain_git(workspace.root, "status", "--short") == ""
    for name, content in own.items():
        lines = (workspace.root / name).read_text().split()
        assert lines[:-1] == content.split()
        assert lines.count(lines[-1]) == 1


@pytest.mark.parametrize("folder", [".x", "x"])
def test_a_pipeline_in_the_inbox_is_not_run_whatever_a_gitignore_there_says(workspace: Workspace, folder: str) -> None:
    ran = workspace.work / "ran"
    hostile = workspace.inbox / folder / "dvc.yaml"
    hostile.parent.mkdir()
    hostile.write_text(f"stages:\n  evil:\n    cmd: touch {ran}\n    outs: [out.txt]\n")
    (workspace.inbox / ".gitignore").write_text(f"!{folder}/\n!dvc.yaml\n")
    workspace.dvc_file.write_text("stages:\n  own:\n    cmd: echo own > own\n    deps: [inbox]\n    outs: [own]\n")
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q", "--all-pipelines"], cwd=workspace.root, check=True)
    assert (workspace.root / "own").is_file()
    assert not ran.exists()
    # git says so itself, and not only DVC's reading of its rules
    assert plain_git(workspace.root, "check-ignore", str(hostile)) == str(hostile)
    assert plain_git(workspace.root, "ls-files", "--others", "--exclude-standard", "inbox") == ""


def test_inside_dvc_repro_a_batch_can_be_added_and_stages_are_left_to_dvc(workspace: Workspace) -> None:
    batch = sealed(workspace, 1)
    script = workspace.work / "stage.py"
    script.write_text(
        "from violence_ops import versioning\nfrom violence_ops.workspace import Workspace\n"
        "workspace = Workspace.open()\n"
        f"versioning.add_batch(workspace, workspace.batch({batch.batch_id!r}))\n"
        "workspace.write_progress('ingest', {'batches': []})\n"
        "versioning.commit_stage(workspace, ['ingest'], 'inside')\n"
    )
    pipeline = workspace.dvc_file.read_text().replace(
        "cmd: violence-ops ingest", f"cmd: {sys.executable} work/stage.py"
    )
    workspace.dvc_file.write_text(pipeline)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "-q", "ingest"],
        cwd=workspace.root,
        env=environment,
        check=True,
        timeout=300,
    )
    assert versioning.versioned_batches(workspace) == {batch.batch_id}
    assert not versioning.status(workspace).keys() & {"ingest", f"{batch.batch_id}.dvc"}


def test_the_code_revision_names_a_commit_of_this_checkout() -> None:
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        pytest.skip("not run from a checkout")
    assert code_revision().removesuffix("-dirty") == plain_git(root, "rev-parse", "HEAD")


def test_a_code_revision_that_is_given_counts_whatever_git_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIOLENCE_OPS_CODE_REVISION", "0123abc")
    assert code_revision() == "0123abc"


def test_without_git_the_code_revision_changes_with_the_code_and_with_nothing_else(tmp_path: Path) -> None:
    package = Path(versioning.__file__).parent
    asked = "from violence_ops.code_revision import code_revision; print(code_revision())"

    def installed(name: str, change: str | None = None) -> str:
        ignored = shutil.ignore_patterns("*.safetensors", "__pycache__")
        shutil.copytree(package, tmp_path / name / package.name, ignore=ignored)
        if change:
            (tmp_path / name / package.name / "__init__.py").write_text(change)
        environment = os.environ | {"PYTHONPATH": str(tmp_path / name), "GIT_CEILING_DIRECTORIES": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", asked], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    one, same, other = installed("one"), installed("same"), installed("other", '"""Changed."""\n')
    assert one == same != other
    assert one.startswith("violence-ops 0.")
    assert "sha256:" in one
