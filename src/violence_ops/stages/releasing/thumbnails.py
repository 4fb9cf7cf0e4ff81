"""Small pictures of clips for the report, drawn once and kept in the cache."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable

from violence_ops.errors import Rejected
from violence_ops.evaluation.records import JudgedClip
from violence_ops.files import atomic_path
from violence_ops.params import Params
from violence_ops.store import batches
from violence_ops.video.sandbox import Sandbox
from violence_ops.workspace import Workspace


def data_uris(workspace: Workspace, params: Params, clips: Iterable[JudgedClip]) -> dict[str, str]:
    """`data:` addresses of the clips' pictures, by clip_id, for those whose video is in this workspace."""
    found = {}
    with Sandbox(params.validation) as sandbox:
        for clip in clips:
            path = workspace.thumbnail(clip.clip_id)
            if path.is_file() or _draw(workspace, clip, sandbox):
                found[clip.clip_id] = f"data:image/jpeg;base64,{b64encode(path.read_bytes()).decode()}"
    return found


def _draw(workspace: Workspace, judged: JudgedClip, sandbox: Sandbox) -> bool:
    """Draw a clip's best frame; False if its batch or video is not here, or does not decode within the sandbox's limits."""
    from violence_ops.video import explanation
    from violence_ops.video.thumbnail import thumbnail

    batch = workspace.batch(judged.batch_id)
    clips = batches.accepted_clips(batch, [judged.clip_id]) if batch.is_sealed else []
    if not clips or not batches.video_of(batch, clips[0]).is_file():
        return False
    tracks = batches.read_tracks(batch, clips[0])
    index = explanation.best_frame(tracks)
    try:
        frames = list(sandbox.pictures(batches.video_of(batch, clips[0]), [index], None, known=clips[0].size))
    except Rejected:
        return False
    if not frames:
        return False
    with atomic_path(workspace.thumbnail(judged.clip_id)) as temporary:
        temporary.write_bytes(thumbnail(frames[0][0], index, tracks))
    return True
