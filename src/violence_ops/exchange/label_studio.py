"""Label Studio: its labelling configuration, tasks with predictions (JSON), and its JSON export read back.

Formats: https://labelstud.io/guide/task_format and https://labelstud.io/tags/videorectangle (percent of the frame, frames from 1).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Final, TextIO
from xml.sax.saxutils import quoteattr

import numpy as np
from pydantic import BaseModel, Field, ValidationError
from typing_extensions import TypedDict

from violence_ops.errors import UsageError
from violence_ops.exchange.keyframes import needed
from violence_ops.exchange.task import Answer, Task, Vote, boxes, moment, runs
from violence_ops.files import fingerprint
from violence_ops.records import LABELS, ClipTracks, FloatArray, IntArray, Label

PERSONS: Final = ("involved", "bystander")
"""Labels of boxes: the two most involved persons, and the others."""

_VERDICT: Final = "verdict"
_MISSED: Final = 0.2
"""How far a drawn box may be off between its keyframes, % of the picture, in a task of no more than `_MAX_KEYFRAMES`."""
_MAX_KEYFRAMES: Final = 40_000
"""Of a task, at most: 6 MB here, and an export has them once more for every annotation that took the boxes over."""
_MAX_TASKS: Final = 100_000
_MAX_TASK: Final = 32 << 20  # characters
_MAX_VALUES: Final = 3_000_000  # of a task; boxes have 80,000 in 1 MB, and each takes up to 100 bytes when it is read
_WINDOW: Final = 1 << 20  # characters
_BETWEEN: Final = re.compile(r"[ \t\n\r]*([\[\],]?)[ \t\n\r]*")


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


def write(out: TextIO, asked: Iterable[Task], address: str) -> None:
    """Write tasks as the JSON list that Label Studio imports, a task a line; one of them at a time is in memory."""
    before = "[\n"
    for one in asked:
        out.write(before + json.dumps(task(one, address), sort_keys=True, ensure_ascii=False))
        before = ",\n"
    out.write("\n]\n" if before == ",\n" else "[]\n")


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
    tracks = asked.tracks
    found = 100 * boxes(tracks) / np.array([tracks.width, tracks.height] * 2)  # % of the picture
    fps = tracks.fps or 1.0
    regions, followed = [], list(runs(tracks))
    missed = _tolerance(tracks, found, [piece for *_, pieces in followed for piece in pieces])
    for track_id, rank, pieces in followed:
        sequence = []
        for piece in pieces:
            kept = piece[needed(tracks.frame[piece], found[piece], missed)]
            sequence += [_keyframe(tracks, found[row], int(tracks.frame[row])) for row in kept]
            gone = int(tracks.frame[piece[-1]]) + 1
            if gone < tracks.frame_count:
                sequence.append(_keyframe(tracks, found[piece[-1]], gone, enabled=False))
        value = {
            "framesCount": tracks.frame_count, "duration": round(tracks.frame_count / fps, 4), "sequence": sequence,
            "labels": [PERSONS[0] if 1 <= rank <= 2 else PERSONS[1]],
        }  # fmt: skip
        regions.append({
            "id": f"track-{track_id}", "from_name": "box", "to_name": "video", "type": "videorectangle", "value": value,
            "meta": {"text": [f"track {track_id}, rank {rank or 'none'}"]},
        })  # fmt: skip
    return regions


def _tolerance(tracks: ClipTracks, found: FloatArray, pieces: Sequence[IntArray]) -> float:
    """How far boxes may be off between keyframes, % of the picture: of a long clip as much more as makes its task small enough to
    come back."""
    missed = _MISSED
    while missed < 100 and sum(len(needed(tracks.frame[one], found[one], missed)) for one in pieces) > _MAX_KEYFRAMES:
        missed *= 2
    return missed


def _keyframe(tracks: ClipTracks, box: FloatArray, frame: int, enabled: bool = True) -> dict[str, Any]:
    """A box (% of the picture) from frame `frame` (counted from 0) on, moving to the next in a straight line; one that is not
    enabled is hidden until the next."""
    x1, y1, x2, y2 = box.tolist()
    return {
        "frame": frame + 1, "time": round((frame + 1) / (tracks.fps or 1.0), 4), "enabled": enabled, "rotation": 0,
        "x": round(x1, 3), "y": round(y1, 3), "width": round(x2 - x1, 3), "height": round(y2 - y1, 3),
    }  # fmt: skip


class _Value(TypedDict, total=False):
    choices: Annotated[list[str], Field(max_length=100)]


class _Result(TypedDict, total=False):
    from_name: str
    value: _Value


class _Annotation(BaseModel):
    completed_by: Any = None
    was_cancelled: bool = False
    updated_at: str | None = None
    result: list[_Result] = Field(max_length=10_000)


class _Data(BaseModel):
    review: str
    clip_id: str
    sha256: str


class _Task(BaseModel):
    data: _Data
    annotations: list[_Annotation] = Field(max_length=1000)


def read(content: bytes, where: str) -> Iterator[Answer]:
    """The answers in a JSON export, one per task that somebody has answered; cancelled annotations do not count.

    A person's last annotation of a task is his vote. One task at a time is parsed, so that memory grows with the largest, and
    that is bounded. Raises UsageError, beginning with `where`, for anything else than such an export, and for an answer that is
    neither Fight nor NonFight.
    """
    try:
        for number, found in enumerate(_tasks(content.decode())):
            if number == _MAX_TASKS:
                raise ValueError(f"more than {_MAX_TASKS} tasks")
            one = _Task.model_validate(found)
            if votes := _votes(one, where):
                yield Answer(one.data.review, one.data.clip_id, one.data.sha256, votes, where)
    except _TooLargeError:
        raise UsageError(
            f"{where} has a task of more than {_MAX_TASK >> 20} MB or {_MAX_VALUES:,} values, as one of a long clip with many boxes may be: delete its boxes in "
            "Label Studio and export again, or take the task out and give the label with `violence-ops label CLIP LABEL --by NAME`."
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in (number, *first["loc"]))
        raise _no_export(where, f"{key}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise _no_export(where, str(error)) from None


class _TooLargeError(Exception):
    """A task is longer than `_MAX_TASK`, or holds more than `_MAX_VALUES`."""


def _no_export(where: str, why: str) -> UsageError:
    return UsageError(
        f"{where} is not Label Studio's JSON export ({why[:200]}): choose JSON, not JSON-MIN, when exporting."
    )


def _tasks(text: str) -> Iterator[Any]:
    """The members of a JSON list, one at a time. Raises ValueError for what is none."""
    position, expected = 0, "["
    while True:
        found = _BETWEEN.match(text, position)
        assert found
        position = found.end()
        if expected == "," and found[1] == "]" and position == len(text):
            return
        if found[1] != expected:
            raise ValueError(f"no {expected!r} at character {found.start(1)}")
        if expected == "[" and text[position:].strip() == "]":
            return
        member, position = _member(text, position)
        yield member
        expected = ","


def _member(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins at `start`, and where it ends; of the text no more is looked at than may belong to it."""
    window = _WINDOW
    while True:
        part = text[start : start + window]
        if sum(map(part.count, ",[{")) > _MAX_VALUES:
            raise _TooLargeError
        try:
            member, end = json.JSONDecoder().raw_decode(part)
            return member, start + end
        except ValueError:
            if start + window >= len(text):
                raise
            if window >= _MAX_TASK:
                raise _TooLargeError from None
            window *= 2


def _votes(one: _Task, where: str) -> tuple[Vote, ...]:
    by_person: dict[str, Vote] = {}
    for number, annotation in enumerate(sorted(one.annotations, key=lambda found: moment(found.updated_at))):
        label = None if annotation.was_cancelled else _choice(annotation, one.data.clip_id, where)
        if label:
            by, at = _person(annotation.completed_by), moment(annotation.updated_at)
            by_person[by or f"annotation {number}"] = Vote(label, by, at) if by and at else Vote(label)
    return tuple(by_person.values())


def _person(completed_by: Any) -> str:
    """What tells a person from any other without saying who it is: a hash of his number, and after a dot one of number and e-mail
    address, where the export has both. Installations give the same numbers to different people."""
    facts = completed_by if isinstance(completed_by, dict) and "id" in completed_by else {"id": completed_by}
    number, address = facts["id"], facts.get("email")
    if number is None:
        return ""
    hashed = fingerprint("label studio", number)[:12]
    if not (isinstance(address, str) and address.strip()):
        return hashed
    return f"{hashed}.{fingerprint('label studio', number, address.strip().lower())[:12]}"


def _choice(annotation: _Annotation, clip_id: str, where: str) -> Label | None:
    chosen = {
        choice
        for result in annotation.result if result.get("from_name") == _VERDICT
        for choice in result.get("value", {}).get("choices", ())
    }  # fmt: skip
    if not chosen:
        return None
    found = next((label for label in LABELS if chosen == {label}), None)
    if found is None:
        raise UsageError(
            f"{where}: the answer for clip {clip_id[:80]!r} is {str(sorted(chosen))[:200]} but must be one of {', '.join(LABELS)}."
        )
    return found
