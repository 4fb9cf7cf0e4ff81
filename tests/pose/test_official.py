"""Official weights: fetched, checked, read without running anything, and converted."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from violence_ops.errors import UserError
from violence_ops.files import sha256_file
from violence_ops.pose import checkpoint as untrusted
from violence_ops.pose import config, loss, official, weights
from violence_ops.pose.official import Checkpoint
from violence_ops.stages.poses import pull

Publish = Callable[[Any], Checkpoint]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> Any:
    """An RTMO-t that nobody trained."""
    torch.manual_seed(0)
    return config.build("rtmo_t")


@pytest.fixture(scope="module")
def published(model: Any) -> dict[str, Any]:
    """What MMPose's publishing tool leaves of a checkpoint: weights, and a `meta` with NumPy arrays in it."""
    meta = {"epoch": 600, "cfg": "model = dict()", "dataset_meta": {"sigmas": np.full(17, 0.05), "one": np.float32(1)}}
    return {"meta": meta, "state_dict": OrderedDict(model.state_dict()), "param_schedulers": [{"last_step": 3}]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pulls go to, and `weights.find` looks."""
    monkeypatch.setenv("VIOLENCE_OPS_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def publish(tmp_path: Path) -> Publish:
    """Write a checkpoint into a mirror's folder, under a name that carries its digest as OpenMMLab's do."""
    (tmp_path / "mirror").mkdir()

    def write(content: Any) -> Checkpoint:
        file = tmp_path / "mirror" / "new.pth"
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            torch.save(content, file)
        name = f"rtmo-t_test-{sha256_file(file)[:8]}_20260101.pth"
        file.rename(file.with_name(name))
        return Checkpoint("rtmo_t", name, 0)

    return write


@pytest.fixture
def served(file_server: Any, tmp_path: Path) -> Callable[[Checkpoint], str]:
    """Put a file of the mirror's folder on the server; gives the address of the mirror."""

    def serve(checkpoint: Checkpoint) -> str:
        file_server.files[f"/rtmo/{checkpoint.file}"] = (tmp_path / "mirror" / checkpoint.file).read_bytes()
        return f"{file_server.address}/rtmo/"

    return serve


def only_the_lock(folder: Path) -> bool:
    return [file.name for file in folder.iterdir()] == [".rtmo_t.lock"]


def test_the_published_files_are_those_that_mmpose_names() -> None:
    import mmpose

    metafile = Path(mmpose.__file__).parent / ".mim/configs/body_2d_keypoint/rtmo/body7/rtmo_body7.yml"
    named = {line.split()[-1] for line in metafile.read_text().splitlines() if "Weights:" in line}
    assert {f"{official.ADDRESS}/{each.file}" for each in official.CHECKPOINTS.values()} == named


@pytest.mark.parametrize("network", official.CHECKPOINTS)
def test_the_sizes_that_are_told_are_those_after_conversion(network: str, tmp_path: Path) -> None:
    saved = weights.save(config.build(network), tmp_path / "x.safetensors", network=network)
    assert saved.path.stat().st_size == pytest.approx(official.CHECKPOINTS[network].converted_bytes, rel=0.001)


def test_pulled_weights_are_the_published_ones_in_half_precision(
    model: Any, published: Any, publish: Publish, served: Any, file_server: Any, folder: Path
) -> None:
    checkpoint = publish(published)
    source = served(checkpoint)
    file_server.cut_after = [1_000_000]
    pulled = official.pull(checkpoint, folder, source=source)
    assert file_server.sent == len(file_server.files[f"/rtmo/{checkpoint.file}"])  # resumed
    found = weights.find("rtmo-t")
    assert (found, pulled.fetched) == (pulled.weights, True)
    card = weights.read_card(found.path)
    assert card["checkpoint_sha256"] == pulled.checkpoint_sha256
    assert pulled.checkpoint_sha256.startswith(checkpoint.digits)
    assert card["licence"] == "Apache-2.0"
    again = weights.load(config.build(found.network), found)
    for name, value in again.state_dict().items():
        assert torch.allclose(value.float(), model.state_dict()[name].float(), atol=2e-3, rtol=2e-3), name
    with torch.inference_mode():
        assert loss.predictions_of(again, again.extract_feat(torch.zeros(1, 3, 64, 64))).boxes.shape == (1, 20, 4)
    asked = len(file_server.requests)
    assert official.pull(checkpoint, folder, source=source) == official.Pulled(found, pulled.checkpoint_sha256, False)
    assert len(file_server.requests) == asked
    assert sorted(file.name for file in folder.iterdir()) == [".rtmo_t.lock", "rtmo_t.json", "rtmo_t.safetensors"]


def test_what_is_to_be_used_is_named_by_its_whole_path(
    published: Any, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = publish(published)
    said = pull.fetch(checkpoint, source=str(tmp_path / "mirror"), to=Path("mine"), sha256=None)
    whole = str(tmp_path / "mine" / "rtmo_t.safetensors")
    assert (said["path"], said["use"]) == (whole, f"pose.weights: {whole}")


def test_wrong_bytes_are_refused_and_removed(publish: Publish, served: Any, file_server: Any, folder: Path) -> None:
    checkpoint = publish(b"the right bytes" * 100)
    source = served(checkpoint)
    file_server.files[f"/rtmo/{checkpoint.file}"] = b"the wrong bytes" * 100
    with pytest.raises(weights.WeightsError, match=f"does not begin with {checkpoint.digits}: it was removed"):
        official.pull(checkpoint, folder, source=source)
    assert only_the_lock(folder)


def test_a_whole_digest_that_is_given_must_match(
    published: Any, publish: Publish, tmp_path: Path, folder: Path
) -> None:
    checkpoint = publish(published)
    mirror = tmp_path / "mirror"
    digest = sha256_file(mirror / checkpoint.file)
    other = checkpoint.digits + digest[8:][::-1]
    with pytest.raises(weights.WeightsError, match=other):
        official.pull(checkpoint, folder, source=str(mirror), sha256=other)
    assert only_the_lock(folder)
    (folder / "rtmo_t.safetensors").write_bytes(b"damaged weights are pulled again")
    (folder / "rtmo_t.json").write_text('{"network": "rtmo_t", "sha256": ""}')
    assert official.pull(checkpoint, folder, source=str(mirror), sha256=digest.upper()).fetched
    assert not official.pull(checkpoint, folder, source=str(mirror), sha256=digest).fetched
    with pytest.raises(weights.WeightsError, match=other):
        official.pull(checkpoint, folder, source=str(mirror), sha256=other)


def test_a_mirror_without_the_file_says_which_is_wanted(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(weights.WeightsError, match="There is no rtmo-s_8xb32"):
        official.pull(official.CHECKPOINTS["rtmo_s"], folder, source=str(tmp_path))


def test_of_two_pulls_at_once_one_fetches(
    published: Any, publish: Publish, served: Any, file_server: Any, folder: Path
) -> None:
    checkpoint = publish(published)
    source = served(checkpoint)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: official.pull(checkpoint, folder, source=source), range(2)))
    assert sorted(each.fetched for each in both) == [False, True]
    assert both[0].weights == both[1].weights
    assert len(file_server.requests) == 1


class _Runs:
    """Its pickle runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_checkpoint_that_would_run_code_runs_nothing(
    legacy: bool, published: Any, publish: Publish, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker, file = tmp_path / "it-ran", tmp_path / "hostile.pth"
    hostile = published | {"meta": _Runs(f"touch {marker}")}
    torch.save(hostile, file, _use_new_zipfile_serialization=not legacy)
    checkpoint = publish(file.read_bytes())
    with pytest.raises(UserError, match=r"wants to run (posix|os)\.system"):
        official.pull(checkpoint, folder, source=str(tmp_path / "mirror"))
    assert not marker.exists()
    assert only_the_lock(folder)


def test_a_bare_pickle_that_would_run_code_runs_nothing(publish: Publish, tmp_path: Path, folder: Path) -> None:
    marker = tmp_path / "it-ran"
    checkpoint = publish(pickle.dumps({"state_dict": _Runs(f"touch {marker}")}))
    with pytest.raises(UserError, match="is refused"):
        official.pull(checkpoint, folder, source=str(tmp_path / "mirror"))
    assert not marker.exists()


def _bomb() -> torch.Tensor:
    return torch.zeros(1).expand(1 << 38)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (hashlib.sha256(b"x").digest() * 50, "cannot be read|more than tensors"),
        ({"meta": {}}, "no state_dict"),
        ({"state_dict": {"a": np.zeros(3)}}, "more than named tensors"),
        ({"state_dict": {"a": torch.zeros(2).to_sparse()}}, "unusual kind"),
        ({"state_dict": {"a": _bomb()}}, "tensors have 1048576 MiB"),
    ],
    ids=["noise", "no weights", "numpy", "sparse", "a bomb"],
)
def test_what_is_no_checkpoint_is_refused_in_a_sentence(content: Any, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(untrusted.CheckpointError, match=reason) as refused:
        untrusted.read(file)
    assert "\n" not in str(refused.value)


def test_the_older_file_format_is_read_too(published: Any, model: Any, tmp_path: Path) -> None:
    torch.save(published, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    found = untrusted.read(tmp_path / "x.pth")
    assert found.keys() == model.state_dict().keys()


def test_parts_for_training_may_be_there_or_not(published: Any, tmp_path: Path) -> None:
    """Another MMPose release may keep other constants; what was learned must be there."""
    state = dict(published["state_dict"])
    constants = [name for name in state if name.endswith(("sigmas", "dim_t", "x_bins"))]
    extra = {"head.assigner.oks.sigmas": torch.ones(3), "data_preprocessor.mean": torch.zeros(3, 1, 1)}
    torch.save({"state_dict": {k: v for k, v in state.items() if k not in constants} | extra}, tmp_path / "x.pth")
    saved = official.convert(tmp_path / "x.pth", "rtmo_t", tmp_path / "rtmo_t.safetensors")
    assert weights.load(config.build("rtmo_t"), saved)


@pytest.mark.parametrize("change", ["missing and unknown", "shape", "nan", "network"])
def test_tensors_that_do_not_fit_are_refused(change: str, published: Any, tmp_path: Path) -> None:
    state = dict(published["state_dict"])
    name = next(name for name in state if name.endswith("running_var"))
    network = "rtmo_t"
    match change:
        case "missing and unknown":
            state["head.more"] = state.pop(name)
        case "shape":
            state[name] = torch.zeros(3)
        case "nan":
            state[name] = torch.full_like(state[name], torch.nan)
        case _:
            network = "rtmo_s"
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    target = tmp_path / "out" / "x.safetensors"
    with pytest.raises(weights.WeightsError, match=f"does not fit the network {network}") as refused:
        official.convert(tmp_path / "x.pth", network, target)
    assert "\n" not in str(refused.value)
    assert not target.exists()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that has room for the checkpoint, and not for the weights made from it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", folder], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("a small disk needs the right to mount one")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_leaves_nothing_half(published: Any, publish: Publish, served: Any, disk: Path) -> None:
    checkpoint = publish(published)
    with pytest.raises(weights.WeightsError, match="No space left on device; no weights were written"):
        official.pull(checkpoint, disk, source=served(checkpoint))
    assert only_the_lock(disk)


def test_who_reads_a_checkpoint_is_given_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    reader = tmp_path / "python"
    reader.write_text(f"#!/bin/sh\ncat /proc/self/environ > {tmp_path}/given\nexit 9\n")
    reader.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(reader))
    with pytest.raises(untrusted.CheckpointError):
        untrusted.read(tmp_path / "x.pth")
    given = (tmp_path / "given").read_bytes().split(b"\0")
    assert b"OMP_NUM_THREADS=1" in given
    assert not [one for one in given if b"s3cret" in one]
