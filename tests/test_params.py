"""params.yaml: what is wrong is named with its key and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from violence_ops.errors import ParamsError
from violence_ops.params import families, load_params, shipped_starts

SHIPPED = Path(__file__).parents[1] / "params.yaml"


def test_the_shipped_file_is_valid_and_frozen() -> None:
    params = load_params(SHIPPED)
    with pytest.raises(ValidationError):
        params.train.epochs = 3


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("train.epochs", 0, "train.epochs is 0 but must be greater than or equal to 1"),
        ("train.epochs", "many", "train.epochs is 'many'"),
        ("gate.mode", "off", "'enabled', 'dry_run' or 'disabled'"),
        ("train.epoch", 3, "train.epoch is not a known key"),
        ("windows.stride", 31, "windows.stride must be at most windows.size"),
        ("nothing.here", 1, "nothing.here is not a parameter"),
        ("epochs", 1, "epochs is not a parameter"),
        ("gate.max_latency_ms", float("inf"), "gate.max_latency_ms is inf but must be a finite number"),
        (
            "gate.approval_timeout_h",
            1e12,
            "gate.approval_timeout_h is 1000000000000.0 but must be less than or equal to",
        ),
        ("schedule.task_timeout_h", float("nan"), "schedule.task_timeout_h is nan but must be"),
        (
            "schedule.nightly",
            "every night",
            "schedule.nightly is 'every night' but must be a cron expression of 5 fields",
        ),
        ("schedule.nightly", "0 0 2 * * *", "must be a cron expression of 5 fields"),
        (
            "schedule.timezone",
            "Berlin",
            "schedule.timezone is 'Berlin' but must be an IANA name like UTC or Europe/Berlin",
        ),
        ("schedule.timezone", "../etc/passwd", "must be an IANA name"),
        ("schedule.timezone", "Europe", "must be an IANA name"),
        ("train.family", "stgcn", "train.family is 'stgcn' but must be one of agcn, "),
        ("train.family", "_skeletons", "train.family is '_skeletons' but must be one of agcn, "),
        (
            "train.start",
            "nope",
            "train.start is 'nope' but must be null, synthetic_fights, or a path that ends in .safetensors",
        ),
        ("schedule.nightly", "0 2 31 2 *", "must be a cron expression of 5 fields"),
    ],
    ids=[
        "range",
        "type",
        "choice",
        "unknown-key",
        "order",
        "unknown-section",
        "no-section",
        "infinite",
        "too-long",
        "no-number",
        "no-cron",
        "seconds",
        "no-zone",
        "no-zone-but-a-path",
        "no-zone-but-a-folder",
        "no-family",
        "part-of-families",
        "no-start",
        "no-day",
    ],
)
def test_a_bad_value_is_named(key: str, value: object, sentence: str) -> None:
    with pytest.raises(ParamsError) as refusal:
        load_params(SHIPPED, {key: value})
    assert sentence in str(refusal.value)


@pytest.mark.parametrize("nightly", ["@daily", "30 1 * * mon-fri", "0 */6 1,15 * *"])
def test_a_schedule_is_a_cron_expression(nightly: str) -> None:
    assert load_params(SHIPPED, {"schedule.nightly": nightly}).schedule.nightly == nightly


@pytest.mark.parametrize(
    ("min_f1", "given", "sentence"),
    [
        (0.6, {"train.epochs": 0}, "Set with --set (-S): train.epochs is 0 but"),
        (0.6, {"train.epoch": 3}, "Set with --set (-S): train.epoch is not a known key"),
        (0.6, {"windows.stride": 31}, "Set with --set (-S): windows.stride must be at most windows.size"),
        (0.6, {"involvement.preset": "none"}, "Set with --set (-S): involvement.preset must be one of"),
        (2, {"gate.min_f1": 0.5, "train.epochs": 0}, "Set with --set (-S): train.epochs is 0 but"),
        (2, {"train.epochs": 1}, "{file}: gate.min_f1 is 2 but"),
    ],
    ids=["value", "key", "order", "name", "file-mended", "file"],
)
def test_a_fault_is_laid_to_the_file_or_to_what_was_set_over_it(
    tmp_path: Path, min_f1: float, given: dict[str, object], sentence: str
) -> None:
    file = tmp_path / "params.yaml"
    content = yaml.safe_load(SHIPPED.read_text())
    content["gate"]["min_f1"] = min_f1
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ParamsError) as refusal:
        load_params(file, given)
    assert str(refusal.value).startswith(sentence.format(file=file))


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    content = yaml.safe_load(SHIPPED.read_text())
    del content["gate"]["min_f1"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ParamsError, match=r"gate\.min_f1 is missing"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    "text", ["a: [1,", "- list\n", "", "\x00", "a: 2026-13-45"], ids=["syntax", "list", "empty", "bytes", "date"]
)
def test_a_file_that_is_no_params_file_is_refused_in_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError):
        load_params(tmp_path / "params.yaml")
    with pytest.raises(ParamsError, match="does not exist"):
        load_params(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: " + "[" * 20_000, r"is not readable as YAML \(too many levels\): fix its syntax"),
        ("a: &a [x, x]\nb: &b [*a, *a]\n" + "c: [*b, *b]\n" * 20, r"at line 2 \(aliases are not taken\)"),
    ],
    ids=["deep", "aliases"],
)
def test_yaml_that_could_take_all_memory_is_refused_in_a_sentence(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=told):
        load_params(tmp_path / "params.yaml")


def test_every_family_and_start_that_there_is_may_be_named() -> None:
    for family in families():
        assert load_params(SHIPPED, {"train.family": family}).train.family == family
    for start in (None, "starts/own.safetensors", *shipped_starts()):
        assert load_params(SHIPPED, {"train.start": start}).train.start == start
