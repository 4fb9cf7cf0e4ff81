"""Let the champion judge videos that are in no batch: poses, tracks and verdict in one go. Nothing is stored."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_ops.errors import InputUnusable, Rejected, UsageError, WorkspaceError
from violence_ops.files import sha256_file, spreadsheet_row
from violence_ops.folders import clip_id_of
from violence_ops.params import Params
from violence_ops.records import ClipPoses, ClipRecord, ClipTracks, sampled_frames, seconds_of
from violence_ops.stages import pictures, releases
from violence_ops.stages.batches import Progress
from violence_ops.stages.score import load_version
from violence_ops.workspace import Workspace

if TYPE_CHECKING:
    from violence_ops.recognition.package import Package
    from violence_ops.stages.extract_poses import Source
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
    progress: Progress | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield a row per video of these files and folders: the champion's verdict, or why the video cannot be used.

    `sources` must be there; what was `listed` may have gone since, and gets a row that says so. Raises WorkspaceError if
    there is no champion, UsageError if a source does not exist or no file is found, ServiceUnavailable if MLflow cannot be
    reached, and InputUnusable after the last row if no video could be judged.
    """
    from violence_ops.stages.extract_poses import open_source
    from violence_ops.video.sandbox import Sandbox

    files = _files(sources, listed)
    champion = releases.champion(workspace)
    if champion is None:
        raise WorkspaceError("There is no champion to judge videos: train a candidate and promote it first.")
    package = load_version(workspace, champion)
    source = open_source(params.pose)
    judged = 0
    with Sandbox(params.validation) as sandbox:
        for done, path in enumerate(files, start=1):
            row = {"path": str(path)}
            try:
                said = _judge(path, params, package, source, sandbox)
            except Rejected as refusal:
                yield row | {"reason": refusal.reason, "message": str(refusal)}
            else:
                judged += 1
                yield row | {"model_version": champion} | said
            if progress:
                progress("predict", done, len(files))
    if not judged:
        raise InputUnusable(f"None of {len(files)} videos could be judged: the reason is given with each.")


def by_window(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row of `run` as the rows of a table with `COLUMNS`, for a spreadsheet."""
    video = spreadsheet_row({name: row.get(name, "") for name in COLUMNS})
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
            raise UsageError(f"{source} does not exist: name video files or folders.")
    named = (*sources, *listed)
    found = [file for path in named for file in (_inside(path) if os.path.isdir(path) else [path])]
    if not found:
        raise UsageError(f"{', '.join(map(str, named))} holds no file: name video files or folders.")
    return found


def _inside(folder: Path) -> list[Path]:
    """All files of a folder, in order, without hidden ones, links and texts."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(path for path in files if not path.name.startswith(".") and path.suffix.lower() not in _NO_VIDEOS)


def _judge(path: Path, params: Params, package: Package, source: Source, sandbox: Sandbox) -> dict[str, Any]:
    """The verdict on a video, and when its windows and pieces are. Raises Rejected, also if the file goes meanwhile."""
    from violence_ops.recognition.predict import predict_clip

    try:
        tracks = _tracks(path, params, source, sandbox)
        said = predict_clip(package, tracks, pictures.of_file(path, sandbox)).to_dict()
    except (OSError, WorkspaceError):
        if path.is_file():
            raise
        raise Rejected("unreadable", f"{path} has gone while it was looked at.") from None
    timed = {
        name: [part | seconds_of(part["start_frame"], part["end_frame"], tracks.fps) for part in said[name]]
        for name in ("windows", "pieces")
    }
    return {"fps": tracks.fps} | said | timed


def _tracks(path: Path, params: Params, source: Source, sandbox: Sandbox) -> ClipTracks:
    """Validate a video and follow its people, as a night does. Raises Rejected."""
    from violence_ops.stages.extract_poses import Video, pose_stream
    from violence_ops.stages.following import follow

    _open(path)
    facts = sandbox.validate(path)
    sha256 = sha256_file(path)
    clip = ClipRecord(
        clip_id=clip_id_of(sha256), sha256=sha256, batch_id="", source_path=str(path), source_group="", status="accepted",
        width=facts.width, height=facts.height, fps=facts.fps, frame_count=facts.frame_count,
    )  # fmt: skip
    frames = sampled_frames(clip, params.pose.max_frames_per_second)
    with pose_stream(source, params) as stream:
        people = [found for video in stream.over([Video(path, frames)]) for found in video]
    return follow(ClipPoses.from_frames(clip, frames, people), params, frames)


def _open(path: Path) -> None:
    """Raise Rejected if there is no file, or none that may be read: in the sandbox that would look like a crash."""
    try:
        if not path.is_file():
            raise Rejected("unreadable", f"{path} is not there, or is no file.")
        path.open("rb").close()
    except OSError as error:
        raise Rejected("unreadable", f"{path} cannot be read: {error.strerror}.") from None
