"""`costs`: what looking for poses took."""

from __future__ import annotations

import json
from collections.abc import Callable

from violence_ops.records import ClipRecord
from violence_ops.stages.inspection import costs
from violence_ops.workspace import Workspace


def test_the_dearest_clips_come_first_and_are_named_like_the_batches(
    workspace: Workspace, seal_tracks: Callable[..., list[ClipRecord]]
) -> None:
    clips = seal_tracks(workspace, clips=4)
    batch = workspace.batch(clips[0].batch_id)
    facts = json.loads(batch.manifest.read_text())
    spent = {
        clip.clip_id: {"device": "cpu", "engine": "onnx", "engine_s": float(n)} for n, clip in enumerate(clips[:3])
    }
    facts["run"] = {"pose_costs": {"clips": spent}}
    batch.manifest.unlink()  # it is linked to DVC's cache
    batch.manifest.write_text(json.dumps(facts))
    found = costs.run(workspace, dearest=2)
    assert found.to_dict() == {
        "batches": [
            {"batch_id": batch.batch_id, "night": batch.batch_id[:10], "device": "cpu", "engine": "onnx", "clips": 3, "engine_s": 3.0}
        ],
        "dearest": [{"clip_id": clips[2].clip_id, "engine_s": 2.0}, {"clip_id": clips[1].clip_id, "engine_s": 1.0}],
    }  # fmt: skip
    assert list(found.lines())[-1] == f"dearest: clip {clips[1].clip_id}, 1.00 s"
