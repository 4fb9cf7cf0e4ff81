import shutil

import pytest

from violence_ops.errors import ParamsError
from violence_ops.files import read_fingerprint, read_json
from violence_ops.pose import weights
from violence_ops.stages.nightly import extract_poses
from violence_ops.store import batches, quarantine


def test_every_sampled_frame_is_looked_at_once_and_a_second_run_does_nothing(workspace, open_batch):
    clips = open_batch(workspace, clips=2)
    params = workspace.params({"pose.max_frames_per_second": 2})
    batch = workspace.batch(clips[0].batch_id)
    seen = []
    result = extract_poses.run(workspace, params, progress=lambda what, done, total: seen.append((done, total)))
    assert (result.extracted, result.skipped, result.frames) == (2, 0, 8)
    assert seen[-1] == (8, 8)
    assert all(batches.read_poses(batch, clip).width == 160 for clip in clips)

    before = [batch.part("poses", clip.clip_id).read_bytes() for clip in clips]
    progress = workspace.read_progress("extract-poses")
    again = extract_poses.run(workspace, params)
    assert (again.extracted, again.skipped, again.frames) == (0, 2, 0)
    assert [batch.part("poses", clip.clip_id).read_bytes() for clip in clips] == before
    assert workspace.read_progress("extract-poses") == progress


def test_the_poses_of_a_clip_do_not_depend_on_its_shard_and_a_bad_clip_does_not_fail_it(new_workspace, open_batch):
    together, alone = new_workspace("together"), new_workspace("alone")
    clips = open_batch(together, clips=3)
    open_batch(alone, clips=3)
    batch, other = (workspace.batch(clips[0].batch_id) for workspace in (together, alone))
    video = batches.video_of(batch, clips[1])
    video.write_bytes(b"damaged after it was validated")
    params = together.params({"pose.max_frames_per_second": 2})

    result = extract_poses.run(together, params)
    extract_poses.run(alone, params, batch_id=clips[2].batch_id, clip_ids=[clips[2].clip_id])

    assert result.extracted == 2
    assert sum(result.quarantined.values()) == 1
    assert quarantine.read(together.quarantined(clips[1].clip_id))["original"]
    assert not batch.part("poses", clips[1].clip_id).exists()
    parts = [each.part("poses", clips[2].clip_id) for each in (batch, other)]
    assert parts[0].read_bytes() == parts[1].read_bytes()
    assert read_fingerprint(parts[0])


@pytest.mark.parametrize(
    ("changes", "again"),
    [({"pose.backend": "onnxruntime"}, 1), ({"pose.precision": "fp32"}, 1), ({"pose.device": "cpu"}, 0)],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_poses_are_looked_for_again_where_a_setting_asks_for_another_precision(workspace, open_batch, changes, again):
    (clip,) = open_batch(workspace, clips=1)
    few = {"pose.max_frames_per_second": 2}
    extract_poses.run(workspace, workspace.params(few))
    assert extract_poses.run(workspace, workspace.params(few | changes)).extracted == again
    cost = read_json(workspace.batch(clip.batch_id).cost(clip.clip_id), "")
    assert cost["engine"] == extract_poses.open_source(workspace.params(few | changes).pose).engine


@pytest.mark.parametrize("name", ["weights", "detector", "keypoints"])
def test_a_path_that_airflow_would_not_find_is_refused_at_the_prompt_too(workspace, tmp_path, monkeypatch, name):
    """Its tasks work in another folder."""
    (tmp_path / "mine").mkdir()
    shipped = weights.find("rtmo_small").path
    for suffix in (".safetensors", ".json"):
        shutil.copy(shipped.with_suffix(suffix), tmp_path / "mine" / f"x{suffix}")
    monkeypatch.chdir(tmp_path)
    whole = str(tmp_path / "mine" / "x.safetensors")
    changes = {f"pose.{key}": whole for key in ("weights", "detector", "keypoints")}
    changes |= {"pose.source": "rtmo" if name == "weights" else "topdown", f"pose.{name}": "mine/x.safetensors"}
    params = workspace.params(changes).pose
    for find in (extract_poses.open_source, extract_poses.source_sha256):
        with pytest.raises(
            ParamsError, match=rf"pose\.{name} is 'mine/x\.safetensors'.*: write {whole}, if you mean that"
        ):
            find(params)
    assert extract_poses.source_sha256(workspace.params({"pose.weights": whole}).pose) == weights.find(whole).sha256
