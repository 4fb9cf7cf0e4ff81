"""Weights are verified before they are used, and never unpickled."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from violence_ops.files import sha256_file
from violence_ops.letterbox import Letterbox
from violence_ops.pose import config, export, loss, weights
from violence_ops.pose.weights import WeightsError


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A copy of the shipped weights that a test may damage."""
    shipped = weights.find("rtmo_small").path
    for suffix in (".safetensors", ".json"):
        shutil.copy(shipped.with_suffix(suffix), tmp_path / f"mine{suffix}")
    return tmp_path / "mine.safetensors"


def _rewrite(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, path)
    card = path.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | {"sha256": sha256_file(path)}))


def test_the_shipped_weights_are_there_small_and_what_the_card_says() -> None:
    found = weights.find("rtmo_small")
    assert found.path.stat().st_size < 12_000_000
    assert found.sha256 == sha256_file(found.path)
    assert found.sha256[:12] in (found.path.parent / "MODEL_CARD.md").read_text()
    wide = [tensor for tensor in load_file(found.path).values() if tensor.dtype == torch.float32]
    assert all(tensor.abs().max() > torch.finfo(torch.float16).max for tensor in wide)
    assert sum(tensor.numel() for tensor in wide) < 100


def test_changed_bytes_are_refused(own: Path) -> None:
    content = bytearray(own.read_bytes())
    content[-5] ^= 1
    own.write_bytes(content)
    with pytest.raises(weights.WeightsError, match="fetch it again"):
        weights.find(own)


def test_a_missing_file_names_the_shipped_ones() -> None:
    with pytest.raises(weights.WeightsError, match=r"shipped ones are: .*rtmo_small"):
        weights.find("rtmo_huge")


def test_weights_without_their_json_are_refused(own: Path) -> None:
    own.with_suffix(".json").unlink()
    with pytest.raises(weights.WeightsError, match="is missing"):
        weights.find(own)


def test_weights_of_another_network_are_refused(own: Path) -> None:
    card = own.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | {"network": "rtmo_huge"}))
    with pytest.raises(
        weights.WeightsError, match="holds weights of rtmo_huge; known networks are: rtmo_small, rtmo_t"
    ):
        weights.find(own)
    card.write_text(json.dumps(json.loads(card.read_text()) | {"network": "rtmo_t"}))
    with pytest.raises(weights.WeightsError, match="does not fit the network rtmo_t"):
        weights.load(config.build("rtmo_t"), weights.find(own))


def test_a_damaged_json_is_refused_in_a_sentence(own: Path) -> None:
    for content in ('{"network": ', "[]", "[" * 20_000):
        own.with_suffix(".json").write_text(content)
        with pytest.raises(weights.WeightsError, match="again"):
            weights.find(own)


def test_a_missing_or_misshapen_tensor_is_refused(own: Path) -> None:
    tensors = load_file(own)
    name = next(name for name in tensors if name.endswith("weight"))
    _rewrite(own, {key: value for key, value in tensors.items() if key != name})
    with pytest.raises(weights.WeightsError, match="1 tensors are missing, 0 are unknown"):
        weights.load(config.build(), weights.find(own))
    _rewrite(own, tensors | {name: torch.zeros(3, 3)})
    with pytest.raises(weights.WeightsError, match="does not fit"):
        weights.load(config.build(), weights.find(own))


def test_saving_and_loading_keeps_the_model(tmp_path: Path) -> None:
    model = config.build()
    saved = weights.save(model, tmp_path / "x.safetensors", origin="a test")
    again = weights.load(config.build(), weights.find(saved.path))
    for name, value in again.state_dict().items():
        assert torch.allclose(value.float(), model.state_dict()[name].float(), atol=2e-3, rtol=2e-3), name
    assert not list(tmp_path.glob(".*"))


def test_a_value_beyond_half_precision_survives(tmp_path: Path) -> None:
    model = config.build()
    name = next(name for name in model.state_dict() if name.endswith("running_var"))
    model.state_dict()[name].fill_(1e5)
    again = weights.load(config.build(), weights.save(model, tmp_path / "x.safetensors"))
    assert (again.state_dict()[name] == 1e5).all()


@pytest.mark.parametrize(("network", "long_side"), [("rtmo_t", 416), ("rtmo_s", 640)])
def test_an_official_network_is_built_from_mmposes_own_configuration(network: str, long_side: int) -> None:
    box = Letterbox.of(1280, 720, config.fit(network))
    width, height = box.input_width, box.input_height
    assert (width, height % config.fit(network).multiple) == (long_side, 0)
    model = config.build(network)
    with torch.inference_mode():
        found = loss.predictions_of(model, model.extract_feat(torch.zeros(2, 3, height, width)))
    cells = sum(-(-width // stride) * -(-height // stride) for stride in (16, 32))
    assert found.boxes.shape == (2, cells, 4)
    assert found.visible.shape == (2, cells, 17)


def test_a_pulled_name_is_found_with_a_hyphen_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that `pose.weights: rtmo-t` works after a pull."""
    monkeypatch.setenv("VIOLENCE_OPS_WEIGHTS", str(tmp_path))
    saved = weights.save(config.build("rtmo_t"), tmp_path / "rtmo_t.safetensors", network="rtmo_t")
    assert weights.find("rtmo-t") == weights.find("rtmo_t") == saved
    assert weights.find("rtmo_small").path.parent == weights.FOLDER
    model = weights.load(config.build(saved.network), saved)
    with torch.inference_mode():
        assert loss.predictions_of(model, model.extract_feat(torch.zeros(1, 3, 64, 64))).scores.shape == (1, 20)


def test_networks_are_made_in_the_users_cache_and_not_beside_weights_that_others_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "mounted" / "weights"
    shared.mkdir(parents=True)
    monkeypatch.setenv("VIOLENCE_OPS_WEIGHTS", str(shared))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = export.exported(weights.find("rtmo_small"), 64, 64)
    assert made.dense.is_relative_to(tmp_path / "cache")
    assert list((tmp_path / "mounted").rglob("*")) == [shared]


def test_a_cache_that_cannot_be_written_is_said_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"cannot be kept in .*/file/.* \(Not a directory\): .* XDG_CACHE_HOME"):
        export.exported(weights.find("rtmo_small"), 64, 64)
