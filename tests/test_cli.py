"""The command line as a user meets it: exit codes, one sentence an error, JSON on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from violence_ops import git
from violence_ops.cli import common
from violence_ops.cli.program import app
from violence_ops.workspace import Workspace

PROGRAM = [sys.executable, "-m", "violence_ops.cli"]


def run(*arguments: str, cwd: Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("VIOLENCE_OPS_")} | environment
    return subprocess.run(
        [*PROGRAM, *arguments], cwd=cwd, env=env, input=stdin, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    "arguments", [["no-such-verb"], ["synth"], ["promote", "--no-such-option"]], ids=["verb", "argument", "option"]
)
def test_wrong_usage_exits_with_2(arguments: list[str], tmp_path: Path) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_stderr_is_empty_where_it_is_no_terminal_and_nothing_went_wrong(workspace: Workspace) -> None:
    done = run("check", cwd=workspace.root)
    assert (done.returncode, done.stderr) == (0, "")


def test_outside_a_workspace_one_sentence_says_what_to_do(tmp_path: Path) -> None:
    done = run("status", cwd=tmp_path)
    assert done.returncode == 2
    assert "violence-ops init" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_interrupt_ends_what_the_first_left_to_be_waited_for(tmp_path: Path) -> None:
    interrupted_twice = (
        "import os, signal, sys, threading, time\n"
        "from violence_ops.cli import main\n"
        "from violence_ops.stages.upkeep import doctor\n"
        "def run(_):\n"
        "    threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "    raise KeyboardInterrupt\n"
        "doctor.run = run\n"
        "sys.argv = ['violence-ops', 'doctor']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", interrupted_twice], cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (130, "Interrupted.\n")


@pytest.mark.parametrize("verb", ["validate", "extract-poses", "annotate", "score", "seal"])
def test_a_step_of_the_night_without_a_batch_says_so(verb: str, workspace: Workspace) -> None:
    done = CliRunner().invoke(app, [verb, "--workspace", str(workspace.root)])
    assert (done.exit_code, done.stdout) == (0, "No batch is open.\n")
    as_json = CliRunner().invoke(app, [verb, "--json", "--workspace", str(workspace.root)])
    assert json.loads(as_json.stdout) != {}


def test_the_version_is_json_too() -> None:
    plain, as_json = (CliRunner().invoke(app, ["version", *more]).stdout for more in ([], ["--json"]))
    assert json.loads(as_json) == {"version": plain.strip()}
    assert CliRunner().invoke(app, ["--version"]).stdout == plain


def test_dvc_works_on_the_workspace_that_the_environment_names_where_the_folder_is_in_none(
    workspace: Workspace, tmp_path: Path
) -> None:
    outside = tmp_path / "elsewhere"
    outside.mkdir()

    def root(folder: Path) -> str:
        done = run("dvc", "root", cwd=folder, VIOLENCE_OPS_WORKSPACE=os.path.relpath(workspace.root, folder))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert root(outside) == "."
    assert root(workspace.inbox) == "."  # nobody's `.dvc` in there counts
    assert root(workspace.data) == ".."


def test_errors_are_json_when_json_was_asked_for(tmp_path: Path) -> None:
    done = run("status", "--json", cwd=tmp_path)
    error = json.loads(done.stdout)
    assert error["exit_code"] == done.returncode == 2
    assert "is not a workspace" in error["error"]


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_a_folder_whose_name_is_no_text_is_printed_so_that_it_can_be_found(tmp_path: Path, encoding: str) -> None:
    folder = os.fsdecode(b"caf\xe9 \xc3\xa9")
    done = run("synth", folder, "--clips", "2", "--groups", "1", "--json", cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["out"] == folder
    again = run("synth", folder, cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert "caf\\udce9" in again.stderr
    assert "Traceback" not in again.stderr


def test_json_and_lines_hold_no_character_that_steers_a_terminal_and_json_keeps_its_content(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = {"name": "\x1b[31m\x9b\u202e\U000e0001\nforged\tcafé"}
    common.show(said, as_json=True)
    content = capsys.readouterr().out
    common.show(said, as_json=False)
    lines = capsys.readouterr().out
    assert json.loads(content) == said
    assert lines == "name  \\u001b[31m\\u009b\\u202e\\udb40\\udc01\\nforged\tcafé\n"
    assert not set(content) & set("\x1b\x9b\u202e\U000e0001")


@pytest.mark.parametrize("verb", ["check", "analyze", "validate", "drift"])
def test_an_unknown_batch_is_wrong_usage_whatever_the_verb(verb: str, workspace: Workspace) -> None:
    done = run(verb, "--batch", "2026-03-03-00000000", cwd=workspace.root)
    assert done.returncode == 2, done.stderr
    assert "`violence-ops status --json` lists" in done.stderr


@pytest.mark.parametrize(
    "command",
    [["drift"], ["lineage", "champion"], ["lineage", "candidate"], ["shadow"], ["shadow", "start"], ["rollback", "--by", "a", "--reason", "r"],
     ["evaluate"]],
    ids=" ".join,
)  # fmt: skip
def test_a_model_that_is_not_there_yet_is_the_same_exit_code_whatever_the_verb(
    command: list[str], workspace: Workspace, seal_tracks: Callable[..., object]
) -> None:
    seal_tracks(workspace, clips=2)
    done = run(*command, cwd=workspace.root)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert done.stderr.strip().count("\n") == 0


def test_a_report_that_is_named_and_does_not_exist_is_wrong_usage(workspace: Workspace) -> None:
    done = run("gate", "--report", "9-vs-8", cwd=workspace.root)
    assert done.returncode == 2
    assert "There is no evaluation 9-vs-8" in done.stderr


def test_a_bad_parameter_names_its_key(workspace: Workspace) -> None:
    done = run("ingest", "--set", "train.epochs=-1", cwd=workspace.root)
    assert done.returncode == 2
    assert "train.epochs is -1" in done.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["abcd"], "Say which label"),
        (["abcd", "Fight", "--from", "answers.csv"], "Give a clip or a file"),
        ([], "Say which clip"),
    ],
)
def test_what_a_label_lacks_is_said(given: list[str], said: str, workspace: Workspace) -> None:
    done = run("label", *given, cwd=workspace.root)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize("value", ["[", "2026-13-45", "!!python/name:os.system"])
def test_a_setting_that_is_no_yaml_is_wrong_usage(value: str, workspace: Workspace) -> None:
    done = run("ingest", "-S", f"pose.device={value}", "--dry-run", cwd=workspace.root)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"'pose.device={value}' is no setting" in done.stderr


def test_an_interrupt_while_the_program_is_loaded_ends_it_quietly(tmp_path: Path) -> None:
    interrupted = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from violence_ops.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", interrupted], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


@pytest.mark.parametrize("verb", ["gate", "evaluate"])
def test_judging_takes_its_policy_from_params_yaml_only(verb: str, workspace: Workspace) -> None:
    assert run(verb, "-S", "gate.min_f1=0", cwd=workspace.root).returncode == 2


def test_a_release_needs_a_name_and_an_approval(workspace: Workspace) -> None:
    assert "needs a name" in run("promote", "--approve", cwd=workspace.root).stderr
    assert "needs a name" in run("rollback", "--reason", "r", cwd=workspace.root).stderr
    assert "needs an approval" in run("promote", "--by", "ann", cwd=workspace.root).stderr


@pytest.mark.parametrize(
    "command",
    [
        ["promote", "--approve", "--by", "ann\udcff"],
        ["refuse", "--by", "ann\udcff", "--reason", "r"],
        ["refuse", "--by", "admin", "--reason", "r\udcff"],
        ["rollback", "--by", "ann\udcff", "--reason", "r"],
        ["label", "--from", "labels.csv", "--by", "ann\udcff"],
        ["ledger", "reinstate", "--by", "ann\udcff"],
    ],
)
def test_a_name_or_a_reason_in_bytes_that_are_no_text_is_wrong_usage(command: list[str], workspace: Workspace) -> None:
    done = run(*command, cwd=workspace.root)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "holds bytes that are no text in UTF-8" in done.stderr
    assert not workspace.ledger.exists()


def test_ingest_of_an_empty_inbox_is_no_error_and_says_so_in_json(workspace: Workspace) -> None:
    done = run("ingest", "--json", cwd=workspace.root)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["claimed"] == 0
    assert git.run(workspace, "status", "--porcelain") == ""


def test_a_dry_run_of_ingest_leaves_the_inbox_as_it_is(workspace: Workspace) -> None:
    clip = workspace.inbox / "Fight" / "a.mp4"
    clip.parent.mkdir(parents=True)
    clip.write_bytes(b"not looked at yet")
    done = run("ingest", "--dry-run", "--json", cwd=workspace.root)
    assert done.returncode == 0, done.stderr
    assert clip.read_bytes() == b"not looked at yet"


def verbs(group: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command of a Typer program and of its groups, by its words."""
    for name, command in group.commands.items():
        yield (*above, name), command
        yield from verbs(command, (*above, name)) if hasattr(command, "commands") else ()


def test_every_verb_explains_itself_and_what_it_takes(tmp_path: Path) -> None:
    text, found = run("--help", cwd=tmp_path).stdout, dict(verbs(get_command(app)))
    assert {("check",), ("weights", "calibrate"), ("review", "import")} <= found.keys()
    for words, command in found.items():
        assert command.help, words
        assert all(parameter.help for parameter in command.params), words
        if len(words) == 1:
            assert f" {words[0]} " in text, words
        else:
            assert CliRunner().invoke(app, [*words, "--help"]).exit_code == 0, words


def test_weights_are_listed_by_the_names_under_which_they_are_used(tmp_path: Path) -> None:
    listed = run("weights", "list", cwd=tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in listed[:2]] == ["name", "rtmo_small"]


def test_predict_refuses_a_named_video_that_is_not_there_and_takes_what_stdin_lists(workspace: Workspace) -> None:
    done = run("predict", "nowhere.mp4", cwd=workspace.root)
    assert (done.returncode, "nowhere.mp4 does not exist" in done.stderr) == (2, True), done.stderr
    done = run("predict", "-", cwd=workspace.root, stdin="nowhere.mp4\n")  # it may have gone since it was listed
    assert (done.returncode, "There is no champion" in done.stderr) == (1, True), done.stderr
    assert "Nothing was read from stdin" in run("predict", "-", cwd=workspace.root).stderr


@pytest.mark.parametrize("arguments", [["init", "file"], ["init", "file/in_it"], ["synth", "file", "--clips", "2"]])
def test_a_place_that_cannot_be_written_is_one_sentence(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(*arguments, "--json", cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["error"].strip() == done.stderr.strip()
