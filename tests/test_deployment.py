"""Facts of an installation: a machine that is to use its GPU says so in one sentence where there is none."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from violence_ops.deployment import Deployment, compute_device, has_password, without_password
from violence_ops.errors import UsageError, UserError
from violence_ops.recognition.model import device
from violence_ops.stages.nightly import extract_poses
from violence_ops.workspace import Workspace


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def test_a_gpu_worker_without_a_gpu_finds_no_poses_and_trains_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert device().type == "cpu"
    monkeypatch.setenv("VIOLENCE_OPS_DEVICE", "cuda")
    for start in (lambda: extract_poses.open_source(workspace.params().pose), device):
        with pytest.raises(
            UserError, match=r"A GPU was asked for, but this process sees none: .*VIOLENCE_OPS_DEVICE to cpu"
        ):
            start()


def test_a_gpu_that_params_ask_for_and_that_is_not_there_is_said(workspace: Workspace) -> None:
    with pytest.raises(UserError, match=r"this process sees none.*pose\.device to cpu"):
        extract_poses.open_source(workspace.params({"pose.device": "cuda"}).pose)


def test_the_documented_variables_are_those_that_the_source_reads() -> None:
    root = Path(__file__).parents[1]
    source = "\n".join(path.read_text("utf-8") for path in (root / "src").rglob("*.py"))
    read = set(re.findall(r'(?:environ(?:\.get\(|\[)|envvar=)"(VIOLENCE_OPS_\w+)"', source))
    read |= {f"VIOLENCE_OPS_{each.name.upper()}" for each in fields(Deployment)}
    rows = re.findall(
        r"^\| `(VIOLENCE_OPS_\w+)` \|", (root / "docs" / "architecture.md").read_text("utf-8"), re.MULTILINE
    )
    assert sorted(rows) == sorted(read)


def test_the_processor_can_be_asked_for_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIOLENCE_OPS_DEVICE", "cpu")
    assert compute_device() == "cpu"
    monkeypatch.setenv("VIOLENCE_OPS_DEVICE", "tpu")
    with pytest.raises(UsageError, match="VIOLENCE_OPS_DEVICE is 'tpu'"):
        compute_device()


@pytest.mark.parametrize(
    ("address", "secret"),
    [
        ("https://bob:hunter2@host/dvc", True),
        ("https://t0ken@host/dvc", True),
        ("ssh://bob:hunter2@host/dvc", True),
        ("s3://key:hunter2@bucket/dvc", True),
        ("https://bob:hunt@er2@host:8443", True),
        ("ssh://bob@host/dvc", False),
        ("https://host/dvc/a:b@c", False),
        ("s3://bucket/path", False),
        ("bob@host:/path", False),
        ("/mnt/nas@home:1", False),
    ],
)
def test_an_address_with_a_password_is_known_and_never_shown(address: str, secret: bool) -> None:
    assert has_password(address) == secret
    shown = without_password(f"No answer from {address}.")
    assert "hunt" not in shown
    assert "t0ken" not in shown
    assert not has_password(shown)
