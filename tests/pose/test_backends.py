"""What `auto` stands for on a machine, and what one without bf16 is told."""

import numpy as np
import pytest

from violence_ops import synthetic
from violence_ops.errors import UsageError
from violence_ops.params import PoseParams
from violence_ops.pose import backends
from violence_ops.stages.nightly.extract_poses import open_source
from violence_ops.workspace import Workspace


@pytest.fixture
def old_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor without instructions for bf16, as far as anybody asks."""
    monkeypatch.setattr(backends, "computes_bf16", lambda: False)


@pytest.fixture
def pose(workspace: Workspace) -> PoseParams:
    return workspace.params().pose


def test_a_new_workspace_looks_with_what_is_fastest_here(pose: PoseParams) -> None:
    assert open_source(pose).engine == ("openvino bf16" if backends.computes_bf16() else "onnxruntime fp32")


def test_it_looks_in_full_precision_where_the_processor_has_no_lower_one(pose: PoseParams, old_processor: None) -> None:
    assert open_source(pose).engine == "onnxruntime fp32"


def test_bf16_that_was_asked_for_is_not_replaced_in_silence(pose: PoseParams, old_processor: None) -> None:
    with pytest.raises(UsageError, match=r"does not compute with bf16: set pose\.precision to auto or fp32"):
        open_source(pose.model_copy(update={"precision": "bf16"}))


@pytest.mark.parametrize(
    ("backend", "device", "meant"),
    [("torch", "cpu", "torch"), ("onnxruntime", "cpu", "onnxruntime"), ("auto", "cuda", "torch")],
)
def test_auto_is_full_precision_for_a_backend_without_bf16_and_on_a_gpu(backend: str, device: str, meant: str) -> None:
    assert backends.settled(backend, "auto", device) == (meant, "fp32")


@pytest.mark.skipif(not backends.computes_bf16(), reason="this processor does not compute with bf16")
def test_bf16_gives_the_same_numbers_bit_for_bit_whoever_looks(pose: PoseParams) -> None:
    frames = list(synthetic.clip(7, duration_s=0.6).frames())[:4]
    first, second = (open_source(pose.model_copy(update={"precision": "bf16"})) for _ in range(2))
    together, alone = first.estimate(frames), [second.estimate([frame])[0] for frame in frames]
    assert any(len(found) for found in together)
    assert all(np.array_equal(a.keypoints, b.keypoints) for a, b in zip(together, alone, strict=True))
