"""`review export`: a folder with clips that people should look at, ready for Label Studio or CVAT."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, NotRequired
from urllib.parse import quote

from typing_extensions import TypedDict

from violence_ops import git
from violence_ops.errors import UsageError, WorkspaceError
from violence_ops.exchange import cvat, label_studio
from violence_ops.exchange.task import Task, Vote
from violence_ops.files import (
    fingerprint,
    read_json,
    sha256_file,
    sync_folder,
    temporary_beside,
    write_json,
    write_text,
)
from violence_ops.jsonable import Jsonable
from violence_ops.params import Params
from violence_ops.records import Label
from violence_ops.stages.inspection import overlay
from violence_ops.stages.labelling.review_choice import Choice, Chosen, choose
from violence_ops.stages.labelling.review_votes import Taken, remembered, taken, together
from violence_ops.store import batches
from violence_ops.store.batches import Progress
from violence_ops.wording import counted
from violence_ops.workspace import Workspace

Format = Literal["label-studio", "cvat"]
MANIFEST: Final = "manifest.json"
_BROWSERS_PLAY: Final = {(".mp4", "h264"), (".m4v", "h264"), (".webm", "vp8"), (".webm", "vp9")}


class _Clip(TypedDict):
    clip_id: str
    sha256: str
    verdict: str
    taken: NotRequired[list[Label | Taken]]


class _Asked(TypedDict):
    review: str
    format: str
    prefilled: NotRequired[bool]
    clips: list[_Clip]
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class ReviewResult(Jsonable):
    """The export's id, where it lies, how many clips it asks about, how many each rule chose, and how many accepted clips were
    left out because a night that is not over has not annotated them yet."""

    review: str
    folder: str
    format: str
    clips: int
    reasons: dict[str, int]
    not_annotated: int


def run(
    workspace: Workspace,
    params: Params,
    out: Path,
    *,
    format: Format = "label-studio",
    confidence: float,
    limit: int,
    overlays: bool = True,
    again: bool = False,
    address: str | None = None,
    progress: Progress | None = None,
) -> ReviewResult:
    """Write the folder `out`, whole or not at all, and remember in data/reviews/ what was asked.

    Names of files are made of clip ids. `address` is what Label Studio finds the folder's files under; by default that of its
    local file serving, with the folder in its document root. Raises UsageError if `out` holds anything, WorkspaceError if there is
    nothing to ask, a clip's video is gone or not what was ingested, or git is on no branch.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already: name a folder that is new or empty.")
    git.check_branch(workspace)
    choice = choose(workspace, params, confidence=confidence, limit=limit, again=again, progress=progress)
    chosen = choice.clips
    if not chosen:
        raise WorkspaceError(f"There is nothing to review: {_why_nothing(choice, confidence)}")
    content = {
        # an export that asks the same again is another one: what was answered to the first is still known
        "at": datetime.now(UTC).isoformat(timespec="microseconds"),
        "format": format, "prefilled": False, "confidence": confidence, "limit": limit, "report": choice.report,
        "clips": [_entry(one) for one in chosen],
    }  # fmt: skip
    review = fingerprint(content)[:12]
    temporary = temporary_beside(out.absolute())
    temporary.mkdir(parents=True)
    try:
        asked = _tasks(workspace, params, temporary, review, chosen, format, overlays, progress)
        served = f"/data/local-files/?d={quote(os.fsencode(out.absolute().name))}/"
        _write(temporary, asked, format, overlays, address or served)
        manifest = {"review": review, **content, "files": _hashes(temporary)}
        write_json(temporary / MANIFEST, manifest)
        write_json(workspace.review(review), manifest)
        temporary.replace(out)
        sync_folder(out.absolute().parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    git.commit(workspace, [workspace.review(review)], f"Review {review} asks about {counted(len(chosen), 'clip')}")
    reasons = Counter(reason for one in chosen for reason in one.reasons)
    return ReviewResult(review, str(out), format, len(chosen), dict(sorted(reasons.items())), choice.not_annotated)


def read_manifest(workspace: Workspace, review: str) -> dict[str, Any]:
    """What an export asked. Raises UsageError if this workspace made none of that id."""
    path = workspace.review(review)
    if not path.is_file():
        raise UsageError(f"This workspace has exported no review {review}: import it into the workspace that did.")
    return read_json(path, f"restore it with `git checkout -- {path.relative_to(workspace.root)}`", _Asked)


def that_asked_about(workspace: Workspace, clip_id: str) -> list[Path]:
    """What is remembered of the exports that asked about a clip."""
    return [path for path in sorted(workspace.reviews.glob("*.json")) if clip_id.encode() in path.read_bytes()]


def known_votes(workspace: Workspace) -> dict[str, dict[str, list[Vote]]]:
    """The votes that imports have taken, by clip_id and review."""
    found: dict[str, dict[str, list[Vote]]] = {}
    for path in sorted(workspace.reviews.glob("*.json")):
        for clip in read_manifest(workspace, path.stem)["clips"]:
            if votes := taken(clip):
                found.setdefault(clip["clip_id"], {})[path.stem] = votes
    return found


def forget(workspace: Workspace, clip_id: str) -> list[Path]:
    """Take a clip out of what is remembered of exports; returns the files that named it. Can be repeated."""
    found = that_asked_about(workspace, clip_id)
    for path in found:
        content = read_manifest(workspace, path.stem)
        clips = [clip for clip in content["clips"] if clip["clip_id"] != clip_id]
        files = {name: digest for name, digest in content["files"].items() if clip_id not in name}
        write_json(path, content | {"clips": clips, "files": files})
    return found


def is_prefilled(manifest: Mapping[str, Any]) -> bool:
    """Whether the model's verdict stood where people answer, as in the exports for CVAT of before `unanswered`: an answer that
    says the same may be nobody's."""
    return bool(manifest.get("prefilled", manifest["format"] == "cvat"))


def remember_taken(workspace: Workspace, votes: Mapping[str, Mapping[str, list[Vote]]]) -> None:
    """Note what was answered, by clip_id and review, so that a later export of the same project does not undo what was said of the
    clips since."""
    by_review: dict[str, dict[str, list[Vote]]] = {}
    for clip_id, by in votes.items():
        for review, given in by.items():
            by_review.setdefault(review, {})[clip_id] = given
    for review, answered in by_review.items():
        content = read_manifest(workspace, review)
        clips = [
            clip | {"taken": remembered(together(taken(clip), answered[clip["clip_id"]]))}
            if clip["clip_id"] in answered else clip for clip in content["clips"]
        ]  # fmt: skip
        write_json(workspace.review(review), content | {"clips": clips})
    if by_review:
        git.commit(
            workspace, [workspace.reviews], f"Answers to {counted(len(by_review), 'review is', 'reviews are')} taken"
        )


def _why_nothing(choice: Choice, confidence: float) -> str:
    if choice.judged:
        others = (
            f" No model has judged {counted(choice.not_judged, 'other clip')}, for there is no champion."
            if choice.not_judged
            else ""
        )
        return (
            f"no judged clip is below a confidence of {confidence:g}, shows nobody, contradicts its label, or divides candidate and champion; raise "
            f"--confidence, or pass --again for clips that people have labelled already.{others}"
        )
    if choice.not_judged:
        return (
            f"no model has judged {counted(choice.not_judged, 'clip')}, for there is no champion; release one, or run `violence-ops "
            "evaluate` on a candidate, which judges the clips of the holdout."
        )
    if choice.not_annotated:
        return f"{counted(choice.not_annotated, 'clip is', 'clips are')} not annotated yet; let their night end (`violence-ops night`)."
    if choice.left_out:
        return "every accepted clip has a person's label; wait for the next night, or pass --again."
    return "no clip is accepted yet; wait for the next night."


def _entry(one: Chosen) -> dict[str, Any]:
    return {
        "clip_id": one.clip.clip_id, "sha256": one.clip.sha256, "label": one.label, "label_source": one.source,
        "model": one.said.model, "verdict": one.said.verdict, "confidence": round(one.said.confidence, 6), "reasons": list(one.reasons),
    }  # fmt: skip


def _tasks(
    workspace: Workspace,
    params: Params,
    folder: Path,
    review: str,
    chosen: Sequence[Chosen],
    format: Format,
    overlays: bool,
    progress: Progress | None,
) -> Iterator[Task]:
    """One task at a time: the tracks of long clips are large."""
    for done, one in enumerate(chosen, start=1):
        yield _ask(workspace, params, folder, review, one, format, overlays)
        if progress:
            progress("export", done, len(chosen))


def _ask(
    workspace: Workspace, params: Params, folder: Path, review: str, one: Chosen, format: Format, overlays: bool
) -> Task:
    """Put the clip's videos into the folder."""
    original = batches.video_of(one.batch, one.clip)
    if not original.is_file():
        raise WorkspaceError(
            f"{original} is missing: `violence-ops dvc pull` brings the videos of sealed batches back."
        )
    if sha256_file(original) != one.clip.sha256:
        raise WorkspaceError(
            f"{original} is not what was ingested (its SHA-256 differs): `violence-ops dvc checkout` restores it."
        )
    for_browser = format == "label-studio"
    video = _copy(
        params, original, folder, one, as_h264=for_browser and (original.suffix, one.clip.codec) not in _BROWSERS_PLAY
    )
    drawn = None
    if overlays:
        made = Path(overlay.run(workspace, params, one.clip.clip_id).path)
        drawn = (
            f"overlays/{_copy(params, made, folder / 'overlays', one, as_h264=for_browser and made.suffix != '.mp4')}"
        )
    return Task(
        review=review, clip_id=one.clip.clip_id, sha256=one.clip.sha256, video=video, overlay=drawn, label=one.label,
        verdict=one.said.verdict, confidence=one.said.confidence, model=one.said.model, reasons=one.reasons,
        tracks=batches.read_tracks(one.batch, one.clip),
    )  # fmt: skip


def _copy(params: Params, source: Path, folder: Path, one: Chosen, *, as_h264: bool) -> str:
    """Copy a video under its clip's id, or write it again in a form that browsers play; returns its name."""
    from violence_ops.video.sandbox import Sandbox
    from violence_ops.video.write import VideoWriter

    folder.mkdir(exist_ok=True)
    target = folder / f"{one.clip.clip_id}{'.mp4' if as_h264 else source.suffix}"
    if not as_h264:
        shutil.copyfile(source, target)
        return target.name
    width, height = one.clip.width or 0, one.clip.height or 0
    with (
        Sandbox(params.validation) as sandbox,
        VideoWriter(target, width=width, height=height, fps=one.clip.fps or 1.0) as video,
    ):
        for _, frame in sandbox.frames(source, known=one.clip.size):
            video.write(frame)
    return target.name


def _write(folder: Path, asked: Iterable[Task], format: Format, overlays: bool, address: str) -> None:
    if format == "label-studio":
        with (folder / "tasks.json").open("w", encoding="utf-8") as out:
            label_studio.write(out, asked, address)
        write_text(folder / "label_config.xml", label_studio.config(overlays))
        return
    write_json(folder / "labels.json", cvat.LABEL_SET)
    for one in asked:
        with (folder / f"{one.clip_id}.xml").open("w", encoding="utf-8") as out:
            cvat.write(out, one)


def _hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}
