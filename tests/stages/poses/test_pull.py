"""`weights list` and `weights pull` as a user meets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from violence_ops.errors import UsageError
from violence_ops.pose import official, weights
from violence_ops.stages.poses import pull


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "violence_ops.cli", "weights", *arguments]
    environment = os.environ | {"VIOLENCE_OPS_WEIGHTS": str(folder)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_the_list_names_what_is_there_and_what_can_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIOLENCE_OPS_WEIGHTS", str(tmp_path))
    shipped = weights.find("rtmo_small")
    for name in ("rtmo_s", "rtmo_m"):
        for suffix in (".safetensors", ".json"):
            (tmp_path / f"{name}{suffix}").write_bytes(shipped.path.with_suffix(suffix).read_bytes())
    (tmp_path / "rtmo_m.safetensors").write_bytes(b"damaged")
    rows = {row.name: row for row in pull.available().rows}
    states = {name: row.state for name, row in rows.items()}
    wanted = {"rtmo_small": "shipped", "rtmo_s": "pulled", "rtmo_m": "damaged", "rtmo_t": "available"}
    assert states == wanted | {"rtmo_l": "available"}
    assert rows["rtmo_small"].sha256 == shipped.sha256
    assert rows["rtmo_small"].size == shipped.path.stat().st_size
    assert rows["rtmo_l"].origin == f"{official.ADDRESS}/{official.CHECKPOINTS['rtmo_l'].file}"
    assert rows["rtmo_l"].path is None
    assert {row.licence for row in rows.values() if row.state != "damaged"} == {"Apache-2.0"}


def test_the_list_is_a_table_for_people_and_json_for_programs(tmp_path: Path) -> None:
    table = run(tmp_path, "list").stdout
    assert "about 13.1 MiB" in table
    listed = json.loads(run(tmp_path, "list", "--json").stdout)
    assert list(listed) == ["rtmo_small", "rtmo_t", "rtmo_s", "rtmo_m", "rtmo_l"]
    assert (listed["rtmo_t"]["input"], listed["rtmo_s"]["input"]) == (416, 640)


def test_a_wrong_file_in_a_mirror_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / official.CHECKPOINTS["rtmo_t"].file).write_bytes(b"something else")
    done = run(tmp_path / "weights", "pull", "rtmo-t", "--from", str(tmp_path), "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == answer["exit_code"] == 1
    assert "does not begin with f48f75cb" in answer["error"]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("name", "digest"), [("rtmo-x", None), ("rtmo-t", "abc")], ids=["name", "digest"])
def test_wrong_usage_says_what_is_right(name: str, digest: str | None, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"rtmo-t, rtmo-s|64 hex digits"):
        pull.run(name, source=str(tmp_path), to=tmp_path, sha256=digest)
    assert list(tmp_path.iterdir()) == []
