"""Label Studio: its labelling configuration, tasks with predictions (JSON), and its JSON export read back.

Formats: https://labelstud.io/guide/task_format and https://labelstud.io/tags/videorectangle (percent of the frame, frames from 1).
"""

from __future__ import annotations

from typing import Any, Final
from xml.sax.saxutils import quoteattr

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from violence_ops.errors import UsageError
from violence_ops.exchange.task import Answer, Task, boxes, runs
from violence_ops.records import LABELS, ClipTracks, FloatArray, Label

PERSONS: Final = ("involved", "bystander")
"""Labels of boxes: the two most involved persons, and the others."""

_VERDICT: Final = "verdict"


def config(overlays: bool) -> str:
    """The labelling configuration of a project: the clip with tracks, Fight or NonFight, and the overlay below if there is one."""
    persons = "".join(f"<Label value={quoteattr(name)}/>" for name in PERSONS)
    choices = "".join(f'<Choice value="{label}" hotkey="{label[0].lower()}"/>' for label in LABELS)
    overlay = '  <Video name="overlay" value="$overlay" frameRate="$fps" sync="video"/>\n' if overlays else ""
    return (
        '<View>\n  <Header value="$clip_id"/>\n  <Text name="why" value="$why"/>\n'
        '  <Video name="video" value="$video" frameRate="$fps"/>\n'
        f'  <VideoRectangle name="box" toName="video"/>\n  <Labels name="person" toName="video">{persons}</Labels>\n'
        f'  <Choices name="{_VERDICT}" toName="video" choice="single" required="true" showInline="true">{choices}</Choices>\n'
        f"{overlay}</View>\n"
    )


def task(asked: Task, address: str) -> dict[str, Any]:
    """A task as Label Studio imports it: the model's verdict and the tracks are its prediction. Files are at `address` + their name."""
    identity = {"review": asked.review, "clip_id": asked.clip_id, "sha256": asked.sha256}
    data = identity | {"video": address + asked.video, "fps": asked.tracks.fps or 1.0, "why": asked.why}
    if asked.overlay:
        data["overlay"] = address + asked.overlay
    verdict = {
        "id": _VERDICT, "from_name": _VERDICT, "to_name": "video", "type": "choices", "value": {"choices": [asked.verdict]},
        "score": round(asked.confidence, 4),
    }  # fmt: skip
    prediction = {
        "model_version": asked.model,
        "score": round(asked.confidence, 4),
        "result": [verdict, *_regions(asked)],
    }
    return {"data": data, "meta": identity, "predictions": [prediction]}


def _regions(asked: Task) -> list[dict[str, Any]]:
    tracks, found = asked.tracks, boxes(asked.tracks)
    fps = tracks.fps or 1.0
    regions = []
    for track_id, pieces in runs(tracks):
        sequence = []
        for piece in pieces:
            sequence += [_keyframe(tracks, found[row], int(tracks.frame[row])) for row in piece]
            gone = int(tracks.frame[piece[-1]]) + 1
            if gone < tracks.frame_count:
                sequence.append(_keyframe(tracks, found[piece[-1]], gone, enabled=False))
        rank = int(tracks.rank[pieces[0][0]])
        value = {
            "framesCount": tracks.frame_count, "duration": round(tracks.frame_count / fps, 4), "sequence": sequence,
            "labels": [PERSONS[0] if 1 <= rank <= 2 else PERSONS[1]],
        }  # fmt: skip
        regions.append({
            "id": f"track-{track_id}", "from_name": "box", "to_name": "video", "type": "videorectangle", "value": value,
            "meta": {"text": [f"track {track_id}, rank {rank or 'none'}"]},
        })  # fmt: skip
    return regions


def _keyframe(tracks: ClipTracks, box: FloatArray, frame: int, enabled: bool = True) -> dict[str, Any]:
    """A box from frame `frame` (counted from 0) on; one that is not enabled is hidden until the next."""
    x1, y1, x2, y2 = (100 * box / np.array([tracks.width, tracks.height] * 2)).tolist()
    return {
        "frame": frame + 1, "time": round((frame + 1) / (tracks.fps or 1.0), 4), "enabled": enabled, "rotation": 0,
        "x": round(x1, 3), "y": round(y1, 3), "width": round(x2 - x1, 3), "height": round(y2 - y1, 3),
    }  # fmt: skip


class _Value(BaseModel):
    choices: list[str] = []


class _Result(BaseModel):
    from_name: str = ""
    value: _Value = _Value()


class _Annotation(BaseModel):
    completed_by: Any = None
    was_cancelled: bool = False
    updated_at: str | None = None
    result: list[_Result]


class _Data(BaseModel):
    review: str
    clip_id: str
    sha256: str


class _Task(BaseModel):
    data: _Data
    annotations: list[_Annotation] = Field(max_length=1000)


_TASKS: Final = TypeAdapter(list[_Task])


def read(content: bytes, where: str) -> list[Answer]:
    """The answers in a JSON export, one per task that somebody has answered; cancelled annotations do not count.

    A person's last annotation of a task is his vote. Raises UsageError, beginning with `where`, for anything else than such an
    export, and for an answer that is neither Fight nor NonFight.
    """
    try:
        tasks = _TASKS.validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"{where} is not Label Studio's JSON export ({key + ': ' if key else ''}{first['msg']}): choose JSON, not JSON-MIN, when exporting."
        ) from None
    answers = []
    for one in tasks:
        if votes := _votes(one, where):
            answers.append(Answer(one.data.review, one.data.clip_id, one.data.sha256, votes, where))
    return answers


def _votes(one: _Task, where: str) -> tuple[Label, ...]:
    by_person: dict[str, Label] = {}
    for number, annotation in enumerate(sorted(one.annotations, key=lambda found: found.updated_at or "")):
        label = None if annotation.was_cancelled else _choice(annotation, one.data.clip_id, where)
        if label:
            by_person[f"annotation {number}" if annotation.completed_by is None else repr(annotation.completed_by)] = (
                label
            )
    return tuple(by_person.values())


def _choice(annotation: _Annotation, clip_id: str, where: str) -> Label | None:
    chosen = {choice for result in annotation.result if result.from_name == _VERDICT for choice in result.value.choices}
    if not chosen:
        return None
    found = next((label for label in LABELS if chosen == {label}), None)
    if found is None:
        raise UsageError(
            f"{where}: the answer for clip {clip_id!r} is {sorted(chosen)!r} but must be one of {', '.join(LABELS)}."
        )
    return found
