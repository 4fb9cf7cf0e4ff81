"""The pictures of clips, for model families that look at pictures. They are decoded when they are needed and kept nowhere.

A caller opens one sandbox for all its clips; its child starts with the first clip that is looked at, and so never for other families.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from violence_ops.errors import WorkspaceError
from violence_ops.folders import Batch
from violence_ops.params import Params
from violence_ops.records import ClipRecord
from violence_ops.store import batches
from violence_ops.store.batches import Progress
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    from violence_ops.recognition.pictures import Asked, Frames, Look
    from violence_ops.recognition.skeleton import Skeleton
    from violence_ops.video.sandbox import Sandbox


def of_clip(batch: Batch, clip: ClipRecord, sandbox: Sandbox) -> Look:
    """As `of_file`, of an accepted clip."""
    return of_file(batches.video_of(batch, clip), sandbox, clip.size)


def of_file(path: Path, sandbox: Sandbox, known: tuple[int, int] | None = None) -> Look:
    """The frames of a validated video, decoded in the sandbox when a family asks for them; `known` is the clip's size, if it is one.

    Asking raises WorkspaceError without the file, Rejected if it does not decode within the sandbox's limits.
    """

    def look(indices: Sequence[int]) -> Iterable[Frames]:
        if not path.is_file():
            raise WorkspaceError(
                f"{path} is missing, and the model looks at pictures: `violence-ops dvc pull` brings the videos of sealed batches back."
            )
        return (frame for frame, _ in sandbox.pictures(path, indices, None, known=known))

    return look


def wanted(params: Params) -> Asked | None:
    """The pictures that `train.family` looks at, if it does."""
    from violence_ops.recognition import ensemble
    from violence_ops.recognition.model import Settings

    return ensemble.pictures(Settings.of(params.train, params.windows))


def attached(
    workspace: Workspace,
    params: Params,
    clips: pa.Table,
    skeletons: dict[str, Skeleton],
    progress: Progress | None,
) -> dict[str, Skeleton]:
    """The skeletons of clips by clip_id, with pictures if `train.family` looks at pictures. `clips` says their batches."""
    from violence_ops.video.sandbox import Sandbox

    asked = wanted(params)
    if asked is None:
        return skeletons
    found: dict[str, Skeleton] = {}
    with Sandbox(params.validation) as sandbox:
        for batch_id in sorted(set(clips.column("batch_id").to_pylist())):
            batch = workspace.batch(batch_id)
            for clip in batches.accepted_clips(batch, clips.column("clip_id").to_pylist()):
                look = of_clip(batch, clip, sandbox)
                found[clip.clip_id] = asked.of(skeletons[clip.clip_id], clip.fps or 0.0, look)
                if progress:
                    progress("look", len(found), len(clips))
    return found
