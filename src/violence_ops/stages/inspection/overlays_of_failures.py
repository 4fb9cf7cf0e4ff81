"""`overlay --failures`: every clip that the candidate of a report got wrong, with what it said of it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from violence_ops.errors import UserError
from violence_ops.params import Params
from violence_ops.stages.inspection import overlays
from violence_ops.stages.inspection.overlays import OverlaysResult
from violence_ops.store import batches, pictures
from violence_ops.store.parts import accepted_clip
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa


def run(workspace: Workspace, params: Params, report: str | None = None, **options: Any) -> OverlaysResult:
    """The overlays of all clips that the candidate of a report (default: the newest) got wrong, with its windows and verdict.

    They go to `overlays/<report>/`. Raises WorkspaceError if there is no report.
    """
    from violence_ops.evaluation.failures import failures
    from violence_ops.recognition.predict import predict_clip
    from violence_ops.stages.releasing import reports
    from violence_ops.store.models import load_version
    from violence_ops.video.sandbox import Sandbox

    found = reports.find(workspace, report).evaluation
    wrong = [one.clip.clip_id for one in failures(found.clips, "candidate") if one.kind != "correct"]
    version = found.candidate.version
    package = load_version(workspace, version)
    said: dict[str, pa.Table] = {}
    with Sandbox(params.validation) as sandbox:
        for clip_id in wrong:
            with suppress(UserError):  # drawing it says the same, as the sentence of this clip
                batch, clip = accepted_clip(workspace, clip_id)
                look = pictures.of_clip(batch, clip, sandbox)
                said[clip_id] = predict_clip(package, batches.read_tracks(batch, clip), look).to_table(version)
    return overlays.run(workspace, params, wrong, said=(found.name, said), **options)
