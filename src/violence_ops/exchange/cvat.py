"""CVAT: its labels, "CVAT for video 1.1" XML of one clip, and that XML read back.

Format: https://docs.cvat.ai/docs/other/xml_format. CVAT leaves tags out when it exports a video, so the verdict is an attribute
of a box around the whole frame, whose label is `clip`; its other attributes say which clip it is and why it is asked about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TextIO
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from violence_ops.errors import UsageError
from violence_ops.exchange.task import Answer, Task, Vote, boxes, joints, moment, runs
from violence_ops.files import fingerprint
from violence_ops.records import LABELS, Label

if TYPE_CHECKING:
    from _typeshed import SupportsRead

UNANSWERED: Final = "unanswered"
"""The verdict of a clip that nobody has answered yet."""

_MAX_TEXT: Final = 200
_MAX_DEPTH: Final = 50
_MAX_NAMES: Final = 1000
_MAX_TAG: Final = 1 << 20  # bytes
_BLOCK: Final = 1 << 16  # bytes
_IDENTITY: Final = ("review", "clip_id", "sha256")
_TASK: Final = ("id", "created", "updated")


def _attribute(name: str, values: tuple[str, ...] = ("",)) -> dict[str, Any]:
    kind = "radio" if len(values) > 1 else "text"
    return {"name": name, "mutable": False, "input_type": kind, "default_value": values[0], "values": list(values)}


LABEL_SET: Final[list[dict[str, Any]]] = [
    {
        "name": "clip", "type": "rectangle",
        "attributes": [_attribute("verdict", (UNANSWERED, *LABELS)), *map(_attribute, ("why", *_IDENTITY))],
    },
    {"name": "person", "type": "rectangle", "attributes": [_attribute("track"), _attribute("rank")]},
    {"name": "joints", "type": "points", "attributes": [_attribute("track"), _attribute("rank")]},
]  # fmt: skip
"""The labels of a task, as CVAT's raw label editor takes them (JSON)."""


def write(out: TextIO, asked: Task) -> None:
    """The XML of one clip: the verdict, which is to be answered, and of every track its boxes and its 17 joints (in COCO's order) as points."""
    tracks = asked.tracks
    out.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n')
    out.write(_meta(asked))
    whole = {"xtl": "0.00", "ytl": "0.00", "xbr": f"{tracks.width:.2f}", "ybr": f"{tracks.height:.2f}"}
    identity = {"review": asked.review, "clip_id": asked.clip_id, "sha256": asked.sha256}
    out.write(_track(0, "clip", [_shape("box", 0, whole, {"verdict": UNANSWERED, "why": asked.why} | identity)]))
    found, points = boxes(tracks), joints(tracks)
    for number, (track_id, rank, pieces) in enumerate(runs(tracks)):
        facts = {"track": str(track_id), "rank": str(rank)}

        def corners(row: int) -> dict[str, str]:
            return {name: f"{value:.2f}" for name, value in zip(("xtl", "ytl", "xbr", "ybr"), found[row], strict=True)}

        def seventeen(row: int) -> dict[str, str]:
            return {"points": ";".join(f"{x:.2f},{y:.2f}" for x, y in points[row])}

        for offset, (label, tag, of_row) in enumerate((("person", "box", corners), ("joints", "points", seventeen))):
            shapes = []
            for piece in pieces:
                shapes += [_shape(tag, int(tracks.frame[row]), of_row(row), facts) for row in piece]
                gone = int(tracks.frame[piece[-1]]) + 1
                if gone < tracks.frame_count:
                    shapes.append(_shape(tag, gone, of_row(piece[-1]), facts, outside=True))
            out.write(_track(1 + 2 * number + offset, label, shapes))
    out.write("</annotations>\n")


def _meta(asked: Task) -> str:
    tracks = asked.tracks
    labels = "".join(
        f"<label><name>{label['name']}</name><type>{label['type']}</type><attributes>"
        + "".join(
            f"<attribute><name>{one['name']}</name><mutable>False</mutable><input_type>{one['input_type']}</input_type>"
            f"<default_value>{one['default_value']}</default_value><values>{chr(10).join(one['values'])}</values></attribute>"
            for one in label["attributes"]
        )
        + "</attributes></label>"
        for label in LABEL_SET
    )
    return (
        f"  <meta><task><name>{escape(asked.clip_id)}</name><size>{tracks.frame_count}</size><mode>interpolation</mode>"
        f"<overlap>0</overlap><start_frame>0</start_frame><stop_frame>{max(0, tracks.frame_count - 1)}</stop_frame>"
        f"<labels>{labels}</labels><original_size><width>{tracks.width}</width><height>{tracks.height}</height></original_size>"
        f"<source>{escape(asked.video)}</source></task></meta>\n"
    )


def _track(number: int, label: str, shapes: list[str]) -> str:
    return f'  <track id="{number}" label="{label}" source="auto">\n{"".join(shapes)}  </track>\n'


def _shape(tag: str, frame: int, place: Mapping[str, str], facts: Mapping[str, str], outside: bool = False) -> str:
    where = " ".join(f"{name}={quoteattr(value)}" for name, value in place.items())
    inside = "".join(f'<attribute name="{name}">{escape(value)}</attribute>' for name, value in facts.items())
    return f'    <{tag} frame="{frame}" keyframe="1" outside="{int(outside)}" occluded="0" {where} z_order="0">{inside}</{tag}>\n'


def read(source: SupportsRead[bytes], where: str) -> Iterator[Answer]:
    """The answer in a CVAT XML (of a video or of images), none if it has no box `clip` or that is unanswered.

    CVAT does not say who answered, so that a task, or a job of it, counts as a person. Read as a stream, in memory that does not
    grow with the file. Raises UsageError, beginning with `where`, for what is no such XML, holds a document type (and so could
    hold an entity bomb), is nested or tagged as no XML of CVAT is, contradicts itself, or gives neither Fight nor NonFight.
    """
    reader = _Reader(where)
    reader.parse(source)
    if not any(reader.facts.values()):
        return
    for name, values in reader.facts.items():
        if len(values) != 1:
            said = " and ".join(map(repr, sorted(values))) or "nothing"
            raise UsageError(f"{where}: the box `clip` says {said} as its {name}, but it must say one thing.")
    verdict, review, clip_id, sha256 = (values.pop() for values in reader.facts.values())
    if verdict == UNANSWERED:
        return
    label: Label | None = next((label for label in LABELS if label == verdict), None)
    if label is None:
        raise UsageError(f"{where}: the verdict is {verdict!r} but must be one of {', '.join(LABELS)}.")
    yield Answer(review, clip_id, sha256, (Vote(label, *reader.who_and_when()),), where)


class _Reader:
    """Collects the attributes of everything labelled `clip` and which task it is, and keeps nothing else."""

    def __init__(self, where: str) -> None:
        self.facts: dict[str, set[str]] = {name: set() for name in ("verdict", *_IDENTITY)}
        self._task: dict[str, str] = {}
        self._names: set[str] = set()
        self._where = where
        self._path: list[str] = []
        self._clip_depth = 0
        self._name: str | None = None
        self._text = ""

    def parse(self, source: SupportsRead[bytes]) -> None:
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        read = 0
        try:
            while block := source.read(_BLOCK):
                parser.Parse(block)
                read += len(block)
                if read - parser.CurrentByteIndex > _MAX_TAG:  # a tag is parsed when all of it is in memory
                    raise self._no_cvat(f"a tag of more than {_MAX_TAG >> 20} MB")
            parser.Parse(b"", True)
        except (expat.ExpatError, ValueError, LookupError) as error:
            raise UsageError(
                f"{self._where} is no XML that CVAT wrote ({error}): export the task from CVAT again."
            ) from None

    def who_and_when(self) -> tuple[str, str]:
        """What tells the task or job from any other, and when it was last changed; two empty texts if it does not say all of it."""
        who, at = [self._task.get(name, "") for name in ("id", "created")], moment(self._task.get("updated"))
        return (fingerprint("cvat", *who)[:12], at) if at and all(who) else ("", "")

    def _no_cvat(self, what: str) -> UsageError:
        return UsageError(f"{self._where} holds {what}, which no XML of CVAT does: export the task from CVAT again.")

    def _refuse(self, *_: object) -> None:
        raise UsageError(
            f"{self._where} declares a document type, which CVAT never does: export the task from CVAT again."
        )

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if not self._path and tag != "annotations":
            raise UsageError(
                f"{self._where} begins with <{tag[:40]}>, not <annotations>: export the task from CVAT as XML."
            )
        self._path.append(tag)
        self._names.update((tag, *attributes))
        if len(self._path) > _MAX_DEPTH:
            raise self._no_cvat(f"tags nested more than {_MAX_DEPTH} deep")
        if len(self._names) > _MAX_NAMES:  # the parser keeps every name
            raise self._no_cvat(f"more than {_MAX_NAMES} different names of tags")
        if not self._clip_depth and tag in ("track", "box") and attributes.get("label") == "clip":
            self._clip_depth = len(self._path)
        elif self._clip_depth and tag == "attribute":
            self._name, self._text = attributes.get("name", "")[:_MAX_TEXT], ""
        elif tag in _TASK and len(self._path) == 4 and self._path[1] == "meta":  # annotations/meta/task/id
            self._name, self._text = tag, ""

    def _characters(self, text: str) -> None:
        if self._name is not None:
            self._text = (self._text + text)[:_MAX_TEXT]

    def _end(self, tag: str) -> None:
        if self._name is not None and tag == "attribute":
            if self._name in self.facts and len(self.facts[self._name]) < 2:  # two contradict each other already
                self.facts[self._name].add(self._text.strip())
            self._name = None
        elif self._name == tag and tag in _TASK:
            self._task[tag], self._name = self._text.strip(), None
        if len(self._path) == self._clip_depth:
            self._clip_depth = 0
        self._path.pop()
