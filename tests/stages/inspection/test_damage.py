"""State files with the wrong content, however it came there: one sentence that names the file and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from violence_ops.errors import WorkspaceError
from violence_ops.stages.labelling import review
from violence_ops.stages.releasing import drift_summary, notify
from violence_ops.store import batches, claims, quarantine, tombstones
from violence_ops.workspace import Workspace

CLIP, BATCH, NIGHT = "0" * 20, "2026-11-22-0123abcd", "2026-11-22"
STONE = {"clip_id": CLIP, "by": "a", "reason": "b", "at": NIGHT, "batch_id": None, "models": []}
Reader = Callable[[Workspace], Any]
FILES: dict[str, tuple[Callable[[Workspace], Path], Reader]] = {
    "manifest": (lambda w: w.batch(BATCH).open / "batch.json", lambda w: batches.read_manifest(w.batch(BATCH))),
    "sealed manifest": (lambda w: w.batch(BATCH).sealed / "batch.json", lambda w: batches.read_manifest(w.batch(BATCH))),
    "tombstone": (lambda w: w.tombstone(CLIP), lambda w: tombstones.find(w, CLIP)),
    "reason": (lambda w: w.quarantined(CLIP) / "reason.json", lambda w: list(quarantine.entries(w))),
    "review": (lambda w: w.review("0" * 12), lambda w: review.read_manifest(w, "0" * 12)),
    "drift": (lambda w: w.drift_report(BATCH), lambda w: drift_summary.drift_summary(w, "1")),
    "plan": (lambda w: w.claims / f"{NIGHT}-ab" / "plan.json", claims.seen),
    "progress": (lambda w: w.progress / "evaluate.json", lambda w: w.read_progress("evaluate")),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest", []),
        ("manifest", {"batch_id": BATCH, "night": NIGHT, "clips": None}),
        ("manifest", {"batch_id": BATCH, "night": NIGHT, "clips": ["a"]}),
        ("manifest", {"batch_id": BATCH, "night": 7, "clips": []}),
        ("sealed manifest", {"batch_id": BATCH, "night": NIGHT, "pose_weights": "x"}),
        ("sealed manifest", {"batch_id": BATCH, "night": NIGHT, "tables": {"clips": 3}}),
        ("tombstone", STONE | {"models": ["1", 2]}),
        ("tombstone", {key: value for key, value in STONE.items() if key != "at"}),
        ("reason", {"clip_id": [CLIP]}),
        ("review", {"review": "0" * 12, "clips": ["a"]}),
        ("drift", {"model_version": "1", "shifts": "x"}),
        ("plan", {"night": NIGHT, "drops": ["a"]}),
        ("plan", {"night": NIGHT, "drops": {"x": {"source_path": "a"}}}),
        ("progress", {"report": ["2-vs-1"]}),
    ],
)
def test_a_file_of_another_shape_is_one_sentence(workspace: Workspace, name: str, content: Any) -> None:
    path, read = FILES[name][0](workspace), FILES[name][1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    with pytest.raises(WorkspaceError) as refused:
        read(workspace)
    assert str(path) in str(refused.value)
    assert "is damaged" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_a_sealed_manifest_lacks_is_told_when_it_is_asked_for(workspace: Workspace) -> None:
    path = workspace.batch(BATCH).sealed / "batch.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"batch_id": BATCH, "night": NIGHT}))
    facts = batches.read_manifest(workspace.batch(BATCH)).facts
    with pytest.raises(WorkspaceError, match="lacks 'run'"):
        facts["run"]


def test_a_receivers_damaged_memory_is_one_sentence(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIOLENCE_OPS_WEBHOOK_URL", "http://127.0.0.1:9/hook")
    monkeypatch.setenv("VIOLENCE_OPS_WEBHOOK_SECRET", "s")
    (receiver,) = notify.receivers(workspace)
    path = workspace.told(receiver.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"told": "x", "problem": null}')
    with pytest.raises(WorkspaceError, match="told: Input should be a valid integer"):
        notify.state(workspace)
