"""The champion judges videos straight from their files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from violence_ops.cli.program import app
from violence_ops.errors import UsageError, UserError, WorkspaceError
from violence_ops.records import ClipRecord
from violence_ops.stages.learning import assemble, predict, train
from violence_ops.stages.upkeep import synth
from violence_ops.workspace import Workspace


def window(start: int, end: int, probability: float) -> dict[str, Any]:
    """A window of a video of 10 frames per second, as `run` gives it."""
    return {
        "start_frame": start, "end_frame": end, "start_s": start / 10, "end_s": end / 10, "probability": probability, "weight": 0.5,
    }  # fmt: skip


def test_a_table_of_a_long_recording_says_when_each_window_is_and_what_its_piece_says() -> None:
    pieces = [{"start_frame": 100 * i, "end_frame": 100 * i + 100, "probability": 0.2 + 0.6 * i} for i in range(2)]
    windows = [window(50 * i, 50 * i + 50, 0.5) for i in range(4)]
    rows = list(predict.by_window({"path": "a.mp4", "windows": windows, "pieces": pieces}))
    assert [(row["start_s"], row["end_s"], row["piece"], row["piece_probability"]) for row in rows] == [
        (0, 5, 0, 0.2), (5, 10, 0, 0.2), (10, 15, 1, 0.8), (15, 20, 1, 0.8),
    ]  # fmt: skip


def test_a_table_has_a_row_per_window_and_one_for_a_video_that_cannot_be_used() -> None:
    judged = {
        "path": "a.mp4", "model_version": "3", "clip_id": "c", "verdict": "Fight", "probability": 0.7, "confidence": 0.7,
        "threshold": 0.5,
        "fps": 10.0, "windows": [window(10 * i, 10 * i + 30, 0.6) for i in range(2)], "pieces": [],
    }  # fmt: skip
    rows = [
        *predict.by_window(judged),
        *predict.by_window({"path": "b.mp4", "reason": "unreadable", "message": "No video."}),
    ]
    assert all(tuple(row) == predict.COLUMNS for row in rows)
    assert [(row["path"], row["window"], row["end_frame"], row["reason"]) for row in rows] == [
        ("a.mp4", 0, 30, ""), ("a.mp4", 1, 40, ""), ("b.mp4", "", "", "unreadable"),
    ]  # fmt: skip
    assert (rows[1]["start_s"], rows[1]["window_probability"], rows[1]["piece"]) == (1.0, 0.6, "")
    (row,) = predict.by_window({"path": "=1+1.mp4", "reason": "unreadable", "message": "No video.", "confidence": -0.5})
    assert (row["path"], row["confidence"]) == ("'=1+1.mp4", -0.5)


def test_a_name_with_control_characters_stays_in_its_cell_of_the_table() -> None:
    (row,) = predict.by_window({"path": "\x1b[31m\x9b\u202e.mp4", "reason": "unreadable", "message": "No \x1b video."})
    assert (row["path"], row["message"]) == (r"\u001b[31m\u009b\u202e.mp4", r"No \u001b video.")


@pytest.mark.slow
def test_every_video_gets_a_row_and_one_that_is_broken_or_gone_its_reason(
    small_workspace: Callable[..., Workspace], seal_tracks: Callable[..., list[ClipRecord]], tmp_path: Path,
    release: Callable[[Workspace, str], None], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    workspace = small_workspace(**{"train.epochs": 1})
    params = workspace.params()
    seal_tracks(workspace)
    assemble.run(workspace, params)
    version = train.run(workspace, params).model_version

    videos = tmp_path / "videos"
    synth.run(videos, clips=2, seed=1, groups=2, with_truth=False, duration_s=1.5)
    (videos / "broken.mp4").write_text("no video")
    with pytest.raises(WorkspaceError, match=r"no champion .* name a version"):
        next(predict.run(workspace, params, [videos]))
    tried = list(predict.run(workspace, params, [videos], version=version))
    release(workspace, version)
    rows = {Path(row["path"]).name: row for row in predict.run(workspace, params, [videos])}
    assert list(rows.values()) == tried
    assert rows["broken.mp4"]["reason"] == "unreadable"
    assert len(rows) == 3
    judged = [row for row in rows.values() if "verdict" in row]
    assert len(judged) == 2
    for row in judged:
        assert row["model_version"] == "1"
        assert row["verdict"] == ("Fight" if row["probability"] > row["threshold"] else "NonFight")
        assert row["windows"]
        assert row["pieces"] == []
        for one in row["windows"]:
            assert one["end_s"] == pytest.approx(one["end_frame"] / row["fps"], abs=0.01)
    with pytest.raises(UserError, match="has no version 9"):
        list(predict.run(workspace, params, [videos], version="9"))
    with pytest.raises(UsageError, match="does not exist"):
        list(predict.run(workspace, params, [tmp_path / "nowhere"]))

    good, gone, fifo = judged[0]["path"], tmp_path / "gone.mp4", tmp_path / "fifo.mp4"
    os.mkfifo(fifo)
    code, lines = answer(workspace, "-", "--json", stdin=f"{gone}\n\n{good}\n{fifo}\n")
    assert code == 0
    assert [(line["path"], line.get("reason")) for line in lines] == [
        (str(gone), "unreadable"), (good, None), (str(fifo), "unreadable"),
    ]  # fmt: skip
    code, lines = answer(workspace, str(videos / "broken.mp4"), "-", stdin=f"{gone}\n")
    assert code == 4
    assert [line["reason"] for line in lines] == ["unreadable", "unreadable"]

    away = videos / "away.mp4"
    away.write_bytes(Path(good).read_bytes())
    real = predict.sha256_file
    with monkeypatch.context() as patch:
        patch.setattr(
            predict, "sha256_file", lambda path: real(path if path != away else path.rename(tmp_path / "x") and path)
        )
        rows = {Path(row["path"]).name: row for row in predict.run(workspace, params, [away, Path(good)])}
    assert rows[away.name]["reason"] == "unreadable"
    assert "has gone while it was looked at" in rows[away.name]["message"]
    assert "verdict" in rows[Path(good).name]

    odd = videos / os.fsdecode(b"caf\xe9.mp4")
    (videos / "broken.mp4").rename(odd)
    command = [sys.executable, "-m", "violence_ops.cli", "predict", "--workspace", str(workspace.root)]
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    for arguments, stdin in (([str(videos)], b""), (["-"], os.fsencode(f"{odd}\n{good}\n"))):
        done = subprocess.run([*command, *arguments], env=strict, input=stdin, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert str(odd) in {json.loads(line)["path"] for line in done.stdout.splitlines()}
    odd.write_bytes(Path(good).read_bytes())
    (judged_odd,) = predict.run(workspace, params, [odd])
    assert judged_odd["verdict"] == judged[0]["verdict"]
    done = subprocess.run([*command, str(odd), "--csv"], env=strict, capture_output=True, check=False)
    assert rb"caf\udce9.mp4," in done.stdout


def answer(workspace: Workspace, *arguments: str, stdin: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code and the lines of `violence-ops predict`."""
    done = CliRunner().invoke(app, ["predict", *arguments, "--workspace", str(workspace.root)], input=stdin)
    return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()]
