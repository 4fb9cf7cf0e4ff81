"""`weights`: shipped weights are found, judged, and trained further."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from violence_ops.errors import UsageError
from violence_ops.pose import album
from violence_ops.pose.weights import WeightsError, find
from violence_ops.stages.nightly.extract_poses import open_source
from violence_ops.stages.poses import weights
from violence_ops.stages.upkeep import synth
from violence_ops.video import decode
from violence_ops.workspace import Workspace

TEACHERS = Path(__file__).parents[4] / "shared" / "data" / "teachers"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_the_shipped_weights_have_a_path_and_a_hash() -> None:
    facts = weights.path("rtmo_small")
    assert Path(facts["path"]).is_file()
    assert len(facts["sha256"]) == 64


def test_unknown_weights_are_refused_in_a_sentence() -> None:
    with pytest.raises(WeightsError, match="shipped ones are"):
        weights.path("no_such")


def test_the_shipped_weights_find_most_people_of_unseen_synthetic_scenes() -> None:
    """The promise of the model card, with room for the chance of 40 frames."""
    facts = weights.evaluate("rtmo_small", clips=20, seed=5)
    assert facts["frames"] == 40
    assert facts["box_recall_50"] > 0.7
    assert facts["recall_50"] > 0.45
    assert 0 < facts["ap"] < facts["ap_50"] < 1


def test_weights_are_judged_as_the_night_finds_people_with_them(workspace: Workspace) -> None:
    """With the suppression of params.yaml, of which MMPose's is another."""
    night = workspace.params().pose.model_copy(update={"device": "cpu", "score_threshold": weights.LOWEST_SCORE})
    found, strict = (
        weights.evaluate_source(open_source(night.model_copy(update=changes)), 6)
        for changes in ({}, {"nms_threshold": 0.35, "duplicate_distance": 0.0})
    )
    assert found.items() <= weights.evaluate("rtmo_small", clips=6).items()
    assert found != strict


def test_weights_may_be_judged_by_a_path_from_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = find("rtmo_small").path
    for suffix in (".safetensors", ".json"):
        shutil.copy(shipped.with_suffix(suffix), tmp_path / f"mine{suffix}")
    monkeypatch.chdir(tmp_path)
    figures = weights.evaluate("mine.safetensors", clips=1)
    assert figures == weights.evaluate("rtmo_small", clips=1) | {"weights": "mine.safetensors"}


def test_real_clips_without_teachers_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Real clips need teachers: pass --teachers"):
        weights.train(tmp_path / "own.safetensors", steps=1, clips=tmp_path)
    with pytest.raises(UsageError, match=r"must hold one \.onnx detector and one \.tflite keypoint model"):
        weights.train(tmp_path / "own.safetensors", steps=1, clips=tmp_path, teachers=tmp_path)
    for teacher in ("yolox.onnx", "movenet.tflite"):
        (tmp_path / teacher).touch()
    with pytest.raises(UsageError, match="none holds no videos"):
        weights.train(tmp_path / "own.safetensors", steps=1, clips=tmp_path / "none", teachers=tmp_path)
    assert not (tmp_path / "own.run").exists()


def test_what_is_trained_must_have_a_name_that_can_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"does not end in \.safetensors"):
        weights.train(tmp_path / "x", steps=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_training_writes_weights_that_load_and_differ(tmp_path: Path) -> None:
    out = tmp_path / "own.safetensors"
    told: list[tuple[str, int, int]] = []
    facts = weights.train(out, steps=2, size=4, progress=lambda *done: told.append(done))
    assert told[-1] == ("training", 2, 2)
    assert facts["sha256"] == find(out).sha256 != find("rtmo_small").sha256
    assert weights.path(str(out))["path"] == str(out)
    assert "pass --tracking" in facts["mlflow"]
    assert sorted(path.name for path in (tmp_path / "own.run" / "pictures").iterdir()) == [
        "held_out_000002.png",
        "training.png",
    ]


@pytest.mark.slow
def test_a_training_goes_on_with_more_steps_and_as_no_other_training(tmp_path: Path) -> None:
    out = tmp_path / "own.safetensors"
    first = weights.train(out, steps=2, size=2)
    written, noted = out.read_bytes(), (tmp_path / "own.run" / "training.json").read_text()
    for changes, said in (
        ({"start": None, "seed": 7}, "learning_rate 0.0004, not 0.001"),
        ({"seed": 7}, "seed 0, not 7"),
        ({"learning_rate": 1e-5}, "learning_rate 0.0004, not 1e-05"),
        ({"size": 3}, "size 2, not 3"),
        ({"refiner": True, "learning_rate": 4e-4}, "refiner False, not True"),
        ({"start": None, "learning_rate": 4e-4}, f"start_sha256 {find('rtmo_small').sha256}, not None"),
        ({"steps": 1}, "2 steps already: ask for as many or more"),
    ):
        with pytest.raises(UsageError, match=f"own.run holds a training .*{said}.* name another file to write"):
            weights.train(out, **{"steps": 2, "size": 2} | changes)
    assert (out.read_bytes(), (tmp_path / "own.run" / "training.json").read_text()) == (written, noted)
    assert weights.train(out, steps=3, size=2)["sha256"] != first["sha256"]
    assert json.loads(out.with_suffix(".json").read_text())["settings"]["steps"] == 3
    (tmp_path / "own.run" / "training.json").unlink()
    with pytest.raises(UsageError, match=r"of which training\.json does not say what it is of"):
        weights.train(out, steps=4, size=2)


@pytest.mark.slow
@pytest.mark.skipif(not TEACHERS.is_dir(), reason="needs the teacher models in ../shared/data/teachers")
def test_real_clips_are_labelled_once_and_kept_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = tmp_path / "clips"
    synth.run(clips, 2, seed=1, groups=1, with_truth=False)
    for clip in clips.glob("syn_*"):
        clip.rename(clip.with_suffix(clip.suffix.upper()))  # as cameras name them
    monkeypatch.setattr(
        decode, "open_video", lambda path: pytest.fail("a stranger's video is decoded in a process of its own")
    )
    out = tmp_path / "own.safetensors"
    weights.train(out, steps=1, size=4, clips=clips, teachers=TEACHERS)
    assert len(album.load(tmp_path / "own.run" / "real.npz")) >= 2
    weights.train(out, steps=2, size=4, clips=clips)
    assert find(out).path == out
    next(clips.glob("syn_*")).unlink()
    for another in (None, clips):
        with pytest.raises(UsageError, match=r"holds a training with clips_digest [0-9a-f]{32}, not "):
            weights.train(out, steps=2, size=4, clips=another)
