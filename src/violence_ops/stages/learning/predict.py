"""Let a model judge videos that are in no batch: poses, tracks and verdict in one go. Nothing is stored."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_ops.errors import InputUnusable, Rejected, UsageError, WorkspaceError
from violence_ops.files import sha256_file, spreadsheet_row
from violence_ops.folders import clip_id_of
from violence_ops.params import Params
from violence_ops.records import ClipPoses, ClipRecord, IntArray, sampled_frames, seconds_of
from violence_ops.store import pictures, releases
from violence_ops.store.batches import Progress
from violence_ops.store.models import load_version
from violence_ops.wording import harmless
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    from violence_ops.pose.stream import Picture, Poses
    from violence_ops.recognition.package import Package
    from violence_ops.video.sandbox import Sandbox

COLUMNS = (
    "path", "clip_id", "model_version", "verdict", "probability", "confidence", "threshold", "window", "start_frame", "end_frame",
    "start_s", "end_s", "window_probability", "window_weight", "piece", "piece_probability", "reason", "message",
)  # fmt: skip
"""Of a table with a row per window; a video that cannot be used has one row, with its reason and message."""
_NO_VIDEOS = {".csv", ".json", ".md", ".txt"}
"""What lies beside videos. Whatever else a folder holds is looked at, as in the inbox: a recorder may name its files anyhow."""


def run(
    workspace: Workspace,
    params: Params,
    sources: Sequence[Path],
    *,
    listed: Sequence[Path] = (),
    version: str | None = None,
    progress: Progress | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield a row per video of these files and folders: the verdict of a model `version` (None: the champion), or why there is none.

    `sources` must be there; what was `listed` may have gone since, and gets a row that says so. Raises WorkspaceError if
    there is no champion, UserError if there is no such version, UsageError if a source does not exist or no file is found,
    ServiceUnavailable if MLflow cannot be reached, and InputUnusable after the last row if no video could be judged.
    """
    from violence_ops.stages.nightly.extract_poses import open_source, stream_of
    from violence_ops.video.sandbox import Sandbox

    files = _files(sources, listed)
    version = version or releases.champion(workspace)
    if version is None:
        raise WorkspaceError(
            "There is no champion to judge videos: train a candidate and promote it first, or name a version (--model)."
        )
    package = load_version(workspace, version)
    source = open_source(params.pose)

    def decoded(sandbox: Sandbox, video: _Video) -> Iterator[Picture]:
        video.look(sandbox, params)
        return sandbox.pictures(video.path, video.frames.tolist(), source.fit, known=video.clip.size)

    judged = 0
    with Sandbox(params.validation) as sandbox, stream_of(decoded, source, params) as stream:
        for done, poses in enumerate(stream.over([_Video(path) for path in files]), start=1):
            row = {"path": str(poses.video.path)}
            try:
                said = _judge(poses, params, package, sandbox)
            except Rejected as refusal:
                yield row | {"reason": refusal.reason, "message": str(refusal)}
            else:
                judged += 1
                yield row | {"model_version": version} | said
            if progress:
                progress("predict", done, len(files))
    if not judged:
        raise InputUnusable(f"None of {len(files)} videos could be judged: the reason is given with each.")


def by_window(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row of `run` as the rows of a table with `COLUMNS`, for a spreadsheet."""
    cells = {name: row.get(name, "") for name in COLUMNS}
    video = spreadsheet_row(
        {name: harmless(one, kept="") if isinstance(one, str) else one for name, one in cells.items()}
    )
    if "windows" not in row:
        yield video
    for number, window in enumerate(row.get("windows", ())):
        own = {"window_probability": window["probability"], "window_weight": window["weight"]}
        place = {name: window[name] for name in ("start_frame", "end_frame", "start_s", "end_s")}
        yield video | {"window": number} | place | own | _piece_of(window, row["pieces"])


def _piece_of(window: dict[str, Any], pieces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The cells about the piece that holds a window; none of a video that is one piece."""
    for number, piece in enumerate(pieces):
        if piece["start_frame"] <= window["start_frame"] < piece["end_frame"]:
            return {"piece": number, "piece_probability": piece["probability"]}
    return {}


def _files(sources: Sequence[Path], listed: Sequence[Path]) -> list[Path]:
    """The files named, be those listed there or not, and all files of the folders named, in order."""
    for source in sources:
        if not source.exists():
            raise UsageError(f"{harmless(str(source), kept='')} does not exist: name video files or folders.")
    named = (*sources, *listed)
    found = [file for path in named for file in (_inside(path) if os.path.isdir(path) else [path])]
    if not found:
        raise UsageError(f"{', '.join(map(str, named))} holds no file: name video files or folders.")
    return found


def _inside(folder: Path) -> list[Path]:
    """All files of a folder, in order, without hidden ones, links and texts."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(path for path in files if not path.name.startswith(".") and path.suffix.lower() not in _NO_VIDEOS)


@dataclass
class _Video:
    """A file; what clip it is, and which frames of it are looked at, is there once `look` has returned."""

    path: Path
    clip: ClipRecord = field(init=False)
    frames: IntArray = field(init=False)

    def look(self, sandbox: Sandbox, params: Params) -> None:
        """Validate it as a night does. Raises Rejected, also if the file goes meanwhile."""
        _open(self.path)
        facts = sandbox.validate(self.path)
        sha256 = sha256_file(self.path)
        self.clip = ClipRecord(
            clip_id=clip_id_of(sha256), sha256=sha256, batch_id="", source_path=str(self.path), source_group="", status="accepted",
            width=facts.width, height=facts.height, fps=facts.fps, frame_count=facts.frame_count,
        )  # fmt: skip
        self.frames = sampled_frames(self.clip, params.pose.max_frames_per_second)


def _judge(poses: Poses[_Video], params: Params, package: Package, sandbox: Sandbox) -> dict[str, Any]:
    """The verdict on a video, and when its windows and pieces are. Raises Rejected, also if the file goes meanwhile."""
    from violence_ops.recognition.predict import predict_clip
    from violence_ops.stages.nightly.following import follow

    video = poses.video
    try:
        people = list(poses)
        tracks = follow(ClipPoses.from_frames(video.clip, video.frames, people), params, video.frames)
        said = predict_clip(package, tracks, pictures.of_file(video.path, sandbox)).to_dict()
    except (OSError, WorkspaceError):
        if video.path.is_file():
            raise
        raise Rejected("unreadable", f"{video.path} has gone while it was looked at.") from None
    timed = {
        name: [part | seconds_of(part["start_frame"], part["end_frame"], tracks.fps) for part in said[name]]
        for name in ("windows", "pieces")
    }
    return {"fps": tracks.fps} | said | timed


def _open(path: Path) -> None:
    """Raise Rejected if there is no file, or none that may be read: in the sandbox that would look like a crash."""
    try:
        if not path.is_file():
            raise Rejected("unreadable", f"{path} is not there, or is no file.")
        path.open("rb").close()
    except OSError as error:
        raise Rejected("unreadable", f"{path} cannot be read: {error.strerror}.") from None
