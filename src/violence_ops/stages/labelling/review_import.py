"""`review import` and `review log`: what people said of clips becomes a new version of the labels."""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, cast

from violence_ops.errors import UsageError
from violence_ops.exchange import cvat, label_studio
from violence_ops.exchange.task import Answer, Vote, majority, moment
from violence_ops.jsonable import Jsonable
from violence_ops.records import Label
from violence_ops.stages.labelling.review import MANIFEST, is_prefilled, known_votes, read_manifest, remember_taken
from violence_ops.stages.labelling.review_votes import Ballot, ballot
from violence_ops.store import frozen, labels_file, tombstones
from violence_ops.store.index import open_catalog
from violence_ops.store.labels import effective_labels, give
from violence_ops.who import named
from violence_ops.wording import counted, listed, printable
from violence_ops.workspace import Workspace

_MAX_BYTES: Final = 128 << 20
_MAX_FILES: Final = 10_000
_MAX_LISTING: Final = 4 << 20  # bytes of a ZIP's list of so many files
_MAX_UNPACKED: Final = 512 << 20  # bytes of all XML files in a ZIP
_ENCRYPTED: Final = 0x1  # a flag of an entry of a ZIP
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_OURS: Final = (MANIFEST, "tasks.json", "labels.json", "label_config.xml")
"""Files of an export that hold no answers."""
_ECHO: Final = "no more than what the model says, which that older export had filled in before anybody looked; export the review again"
_OUTDATED: Final = (
    "as the same person has answered otherwise since; people who have the same number in several Label Studio installations "
    "are told apart only by exports that give e-mail addresses"
)


@dataclass(frozen=True, slots=True)
class ImportResult(Jsonable):
    """The labels' new version (None if everything was known), how many clips were answered, how many of them got another label
    than they had, how many were confirmed, how many are in a frozen holdout, which keeps the label it was frozen with, how many
    clips were left out because the workspace holds them no longer (`violence-ops forget`), how many answers because they say no
    more than the model's verdict that the export had filled in, how many people's because imports have taken all that the files
    say of their clips (what was said of these since is newer), how many because they are older than a label that
    `violence-ops label` gave, and how many because the same person has answered otherwise since."""

    version: int | None
    by: str
    answered: int
    corrected: int
    confirmed: int
    in_holdout: int
    gone: int
    echoes: int
    taken_before: int
    older: int
    outdated: int

    def lines(self) -> list[str]:
        """For people."""
        made = f"Labels are now version {self.version}" if self.version else "Nothing was new; labels stay as they were"
        said = f"{made}: {counted(self.answered, 'clip')} answered by {self.by}, {self.corrected} corrected, {self.confirmed} confirmed."
        lines = [said]
        if self.in_holdout:
            lines.append(frozen.corrected(self.in_holdout))
        if self.gone:
            lines.append(
                f"{counted(self.gone, 'answer was', 'answers were')} left out, of clips that are no longer in this workspace."
            )
        if self.echoes:
            lines.append(f"{counted(self.echoes, 'answer was', 'answers were')} left out, {_ECHO}.")
        if self.taken_before:
            left_out = counted(self.taken_before, "answer was", "answers were")
            lines.append(f"{left_out} left out, unchanged since an earlier import.")
        if self.older:
            left_out = counted(self.older, "answer was", "answers were")
            lines.append(f"{left_out} left out, older than the label that `violence-ops label` gave the clip since.")
        if self.outdated:
            lines.append(f"{counted(self.outdated, 'answer was', 'answers were')} left out, {_OUTDATED}.")
        return lines


@dataclass(frozen=True, slots=True)
class LabelLog(Jsonable):
    """The versions of data/labels.csv, oldest first."""

    versions: list[dict[str, Any]]

    def lines(self) -> Iterator[str]:
        """For people."""
        if not self.versions:
            yield "No label has been given after its clip arrived."
        for one in self.versions:
            yield f"{one['version']:>4}  {one['at']:<25}  {one['source']:<6}  {one['fight']:>5} Fight {one['nonfight']:>5} NonFight  {one['by']}"


def run(workspace: Workspace, source: Path, *, by: str | None = None) -> ImportResult:
    """Take the answers of a file (Label Studio's .json; CVAT's .xml, or its .zip) or of all such files in a folder.

    All of it or, if anything is wrong or nobody is named, nothing: UsageError says what. Every answer must belong to an export of this
    workspace, to a clip that it asked about, and to that clip's bytes. Several people's answers to one clip are votes. Of an export
    that had the model's verdict filled in, only answers that contradict it count. Answers that were imported before change no label:
    they vote again only where a new one contradicts the label; and so do those given before somebody decided with `violence-ops label`.
    Confirmed labels are written too: they are then a person's, and not asked again.
    """
    by = named(by)
    given, echoes = _given(workspace, _read(source))
    if not given:
        raise UsageError(_no_answer(source, echoes))
    with open_catalog(workspace) as catalog:
        # a forgotten one that came again is known, and refused
        here = sorted(catalog.find(given).keys() - set(tombstones.all_of(workspace)))
    known = known_votes(workspace)
    decided = {row.clip_id: moment(row.at) for row in labels_file.read(workspace) if row.source == "label"}
    ballots = {clip_id: ballot(given[clip_id], known.get(clip_id, {}), decided.get(clip_id, "")) for clip_id in here}
    fresh = {clip_id: one for clip_id, one in ballots.items() if one.new}
    before = effective_labels(workspace)
    labels = _decided(fresh, {clip_id: label for clip_id, (label, _) in before.items()})
    changed = {clip_id for clip_id, label in labels.items() if before.get(clip_id, (None,))[0] != label}
    version = give(workspace, labels, by, "review")
    remember_taken(workspace, {clip_id: given[clip_id] for clip_id in fresh})
    held_out = {clip.clip_id for clip in frozen.held_out(workspace)}
    return ImportResult(
        version, printable(by), answered=len(labels), corrected=len(changed), confirmed=len(labels) - len(changed),
        in_holdout=len(changed & held_out), gone=len(given) - len(here), echoes=echoes,
        taken_before=sum(one.unchanged for one in ballots.values() if not one.new),
        older=sum(one.older for one in ballots.values() if not one.new),
        outdated=sum(one.outdated for one in ballots.values()),
    )  # fmt: skip


def log(workspace: Workspace) -> LabelLog:
    """Every version of the labels, with who made it, when, from where, and how many clips it labelled."""
    versions: dict[int, list[labels_file.LabelRow]] = {}
    for row in labels_file.read(workspace):
        versions.setdefault(row.version, []).append(row)
    return LabelLog(
        [
            {
                "version": number, "at": rows[-1].at, "by": rows[-1].by, "source": rows[-1].source, "clips": len(rows),
                "fight": sum(row.label == "Fight" for row in rows), "nonfight": sum(row.label == "NonFight" for row in rows),
            }
            for number, rows in sorted(versions.items())
        ]
    )  # fmt: skip


def _given(workspace: Workspace, answers: Iterable[Answer]) -> tuple[dict[str, dict[str, list[Vote]]], int]:
    """The votes that count, by clip_id and review, each answer held against what was asked; and how many answers do not count,
    because they may be nobody's.

    What was asked about a clip is forgotten with it, so that nothing is left to hold its answers against.
    """
    forgotten = set(tombstones.all_of(workspace))
    reviews: dict[str, tuple[bool, dict[str, dict[str, Any]]]] = {}
    votes: dict[str, dict[str, list[Vote]]] = {}
    echoes = 0
    for one in answers:
        if one.review not in reviews:
            manifest = read_manifest(workspace, one.review)
            reviews[one.review] = is_prefilled(manifest), {clip["clip_id"]: clip for clip in manifest["clips"]}
        prefilled, asked = reviews[one.review]
        clip = asked.get(one.clip_id)
        if clip is None and one.clip_id not in forgotten:
            raise UsageError(f"{one.where}: review {one.review} did not ask about clip {one.clip_id[:80]!r}.")
        if clip and clip["sha256"] != one.sha256:
            raise UsageError(
                f"{one.where}: clip {one.clip_id} was exported with the SHA-256 {clip['sha256'][:12]}…, and the answer is for {one.sha256[:12]!r}…."
            )
        if clip and prefilled and {vote.label for vote in one.votes} == {clip["verdict"]}:
            echoes += 1
            continue
        votes.setdefault(one.clip_id, {}).setdefault(one.review, []).extend(one.votes)
    return votes, echoes


def _no_answer(source: Path, echoes: int) -> str:
    if echoes:
        return f"{source} holds no answer that counts, {_ECHO}."
    return f"{source} holds no answer: annotate and submit tasks first, then export them."


def _decided(ballots: Mapping[str, Ballot], labels: Mapping[str, Label]) -> dict[str, Label]:
    """What most people said of each clip, by clip_id; `labels` are the present ones.

    New answers that agree with the label stand alone; otherwise all vote. So nothing but a new answer changes a label. Raises
    UsageError if a vote is tied.
    """
    found: dict[str, Label | None] = {}
    for clip_id, one in sorted(ballots.items()):
        said = majority(Counter(vote.label for vote in one.new))
        all_say = majority(Counter(vote.label for vote in one.votes))
        found[clip_id] = said if said and said == labels.get(clip_id) else all_say
    tied = [clip_id for clip_id, label in found.items() if label is None]
    if tied:
        raise UsageError(
            f"As many people say Fight as NonFight of {listed(tied, 20)}: let one more person decide, then import again."
        )
    return {clip_id: label for clip_id, label in found.items() if label}


def _read(source: Path) -> Iterator[Answer]:
    if not source.exists():
        raise UsageError(
            f"{source} does not exist: name the file that Label Studio or CVAT exported, or a folder of such files."
        )
    paths = [source]
    if source.is_dir():
        paths = sorted(path for path in source.iterdir() if path.suffix.lower() in _READERS and path.name not in _OURS)
    for path in paths:
        reader = _READERS.get(path.suffix.lower())
        where = printable(str(path))
        if reader is None or not path.is_file():
            raise UsageError(
                f"{where} is no file that can be imported: give a .json (Label Studio), .xml or .zip (CVAT)."
            )
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise UsageError(f"{where} has more than {_MAX_BYTES >> 20} MB: export the tasks in smaller parts.")
            with path.open("rb") as handle:
                yield from reader(handle, where)
        except OSError as error:
            raise UsageError(f"{where} cannot be read: {error.strerror or error}.") from None


def _json(handle: IO[bytes], where: str) -> Iterator[Answer]:
    return label_studio.read(handle.read(_MAX_BYTES + 1), where)


def _xml(handle: IO[bytes], where: str) -> Iterator[Answer]:
    return cvat.read(_Bounded(handle, where), where)


class _Bounded:
    """Passes a stream on, and stops where it is longer than it may be (a ZIP's header may lie)."""

    def __init__(self, handle: IO[bytes], where: str) -> None:
        self._handle, self._where, self._left = handle, where, _MAX_BYTES

    def read(self, size: int = 1 << 16) -> bytes:
        block = self._handle.read(size)
        self._left -= len(block)
        if self._left < 0:
            raise UsageError(f"{self._where} has more than {_MAX_BYTES >> 20} MB: export one clip's task at a time.")
        return block


class _Listed:
    """A ZIP of which `zipfile` reads the list of files, at once and whole, only if that is not too long."""

    def __init__(self, handle: IO[bytes], where: str) -> None:
        self._handle, self._where = handle, where

    def read(self, size: int = -1) -> bytes:
        if size > _MAX_LISTING:
            raise UsageError(f"{self._where} lists far more files than a CVAT export has: export the task again.")
        return self._handle.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)


def _zip(handle: IO[bytes], where: str) -> Iterator[Answer]:
    """The XML files in an archive; nothing is unpacked to disk."""
    try:
        with zipfile.ZipFile(cast(IO[bytes], _Listed(handle, where))) as archive:
            names = [entry for entry in archive.infolist() if entry.filename.lower().endswith(".xml")]
            if not names or len(names) > _MAX_FILES:
                raise UsageError(
                    f"{where} holds {len(names)} XML files, not those of a CVAT export: export the task again."
                )
            # zipfile reads no more of an entry than its header says
            if sum(entry.file_size for entry in names) > _MAX_UNPACKED:
                raise UsageError(
                    f"{where} unpacks to more than {_MAX_UNPACKED >> 20} MB: export the tasks in smaller parts."
                )
            for entry in names:
                if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _METHODS:
                    raise zipfile.BadZipFile("a file in it is encrypted, or packed as CVAT does not pack")
                with archive.open(entry) as inner:
                    yield from _xml(inner, f"{where}/{printable(entry.filename)}")
    # NotImplementedError is how zipfile says that an archive uses what it does not know
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error) as error:
        raise UsageError(f"{where} is no ZIP that CVAT wrote ({error}): export the task again.") from None


_READERS: Final = {".json": _json, ".xml": _xml, ".zip": _zip}
