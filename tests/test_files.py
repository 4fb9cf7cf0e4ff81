"""Whatever a small file of a workspace lacks is one sentence that names the file and what to do."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from violence_ops.errors import WorkspaceError
from violence_ops.files import atomic_path, load_table, read_json, spreadsheet_row, write_table, write_text
from violence_ops.processes import Service, recorded
from violence_ops.video.write import VideoWriter

REMEDY = "remove it and begin again"


def written(path: Path, content: str) -> Path:
    path.write_text(content, "utf-8")
    return path


@pytest.mark.parametrize(
    ("content", "fault"),
    [("[1]", "Input should be an object"), ("{", "Expecting property name"), ("[" * 9999, "recursion")],
)
def test_what_is_no_object_is_damaged(content: str, fault: str, tmp_path: Path) -> None:
    path = written(tmp_path / "state.json", content)
    with pytest.raises(WorkspaceError, match=rf"state.json is damaged \(.*{fault}.*\): {REMEDY}\."):
        read_json(path, REMEDY)


def test_an_object_that_lacks_what_is_asked_for_is_damaged(tmp_path: Path) -> None:
    document = read_json(written(tmp_path / "state.json", '{"clips": [{"name": "a"}]}'), REMEDY)
    assert document["clips"][0]["name"] == "a"
    assert document.get("night") is None
    for wrong in (lambda: document["night"], lambda: document["clips"][0]["label"]):
        with pytest.raises(WorkspaceError, match=rf"state.json is damaged \(it lacks '(night|label)'\): {REMEDY}\."):
            wrong()


@dataclass(frozen=True)
class Result:
    facts: dict[str, Any]


def test_what_was_read_can_be_part_of_a_result(tmp_path: Path) -> None:
    document = read_json(written(tmp_path / "state.json", '{"clips": {"a": {"frames": 3}}}'))
    told = asdict(Result(document))
    assert told == {"facts": {"clips": {"a": {"frames": 3}}}}
    assert json.loads(json.dumps(told)) == told
    with pytest.raises(KeyError, match="night"):
        told["facts"]["night"]


def test_a_record_of_a_damaged_file_names_the_file(tmp_path: Path) -> None:
    written(tmp_path / "mlflow.json", '{"name": "mlflow", "pid": 1}')
    with pytest.raises(WorkspaceError, match=r"mlflow.json is damaged \(.*'boot'.*\): end what it names by hand"):
        recorded(tmp_path, ["mlflow"])
    written(tmp_path / "mlflow.json", '{"pid": 1, "created": 2.5}')
    with pytest.raises(WorkspaceError, match=r"mlflow.json is damaged \(.*'name'\): end what it names by hand"):
        recorded(tmp_path, ["mlflow"])
    whole = '{"name": "mlflow", "pid": 1, "boot": "a1", "ticks": 25}'
    written(tmp_path / "mlflow.json", whole)
    assert recorded(tmp_path, ["mlflow"]) == [Service("mlflow", 1, "a1", 25)]


@pytest.fixture
def close_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_what_is_written_is_as_open_as_the_umask_allows(tmp_path: Path, close_umask: None) -> None:
    write_text(tmp_path / "why.txt", "x")
    with VideoWriter(tmp_path / "overlay.avi", width=32, height=32, fps=5) as video:
        video.write(np.zeros((32, 32, 3), np.uint8))
    assert [mode(tmp_path / name) for name in ("why.txt", "overlay.avi")] == [0o600, 0o600]
    os.umask(0o022)
    write_text(tmp_path / "open.txt", "x")
    with atomic_path(tmp_path / "secret", mode=0o600) as temporary:
        temporary.write_text("x")
    assert [mode(tmp_path / name) for name in ("open.txt", "secret")] == [0o644, 0o600]
    assert not list(tmp_path.glob(".*"))


def test_a_name_of_many_bytes_can_be_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("夜" * 80), "x")
    assert (tmp_path / ("夜" * 80)).read_text() == "x"


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_text_of_a_table_for_people_is_a_formula(cell: str) -> None:
    row = {"camera_id": cell, "group": f"yard {cell}", "confidence": -0.5, "label": None}
    assert spreadsheet_row(row) == row | {"camera_id": f"'{cell}"}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "clips.parquet"
    write_table(path, pa.table({"clip_id": ["a", "b"], "label": ["Fight", None], "frames": [3, 4]}))
    return path


def test_a_table_gives_the_columns_asked_for_in_that_order(table: Path) -> None:
    assert load_table(table, columns=["frames", "clip_id"]).to_pydict() == {"frames": [3, 4], "clip_id": ["a", "b"]}
    assert load_table(table).column_names == ["clip_id", "label", "frames"]
    assert load_table(table, ["frames"], [("label", "=", "Fight")]).to_pydict() == {"frames": [3]}


def test_a_table_without_a_column_that_is_asked_for_is_damaged(table: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"clips.parquet is damaged: `violence-ops check` says"):
        load_table(table, columns=["clip_id", "reason"])


def test_to_read_a_table_no_pandas_is_imported(table: Path) -> None:
    code = "import sys; from pathlib import Path; from violence_ops.files import load_table; load_table(Path(sys.argv[1])); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(table)], check=True, capture_output=True, text=True)
    assert not {"pandas", "pyarrow.dataset"} & set(done.stdout.split())
