"""What lies in the inbox: which files are complete, what their folder or labels.csv says of them, which names are unsafe."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import secrets
import stat
import time
from collections import ChainMap, Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from violence_ops import drop_folder
from violence_ops.files import write_text
from violence_ops.jsonable import Jsonable
from violence_ops.records import LABELS, Label
from violence_ops.wording import counted, is_unsafe, listed, printable

LABELS_FILE: Final = "labels.csv"
_AGAIN: Final = re.compile(r"again-[0-9a-f]{8}")
_UNFINISHED: Final = (".part", ".tmp", ".partial", ".crdownload")
MAX_PATH: Final = 200  # characters
_COLUMNS: Final = ("path", "label", "source_group", "camera_id", "recorded_at")
_MAX_BYTES: Final = 8 << 20  # of all labels.csv files that one scan reads
_MAX_ROWS: Final = 100_000  # likewise: whatever they say, each takes some 500 bytes
_SHOWN: Final = 60  # characters of a path that is too long to be shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop(Jsonable):
    """What the inbox says of one file. `source_path` is printable whatever the name was; `unsafe` says what is wrong with it."""

    source_path: str
    unsafe: str | None = None
    label: Label | None = None
    source_group: str | None = None
    camera_id: str | None = None
    recorded_at: str | None = None


Version = tuple[int, int, int]
"""What a file is told by from what it was before: inode, size in bytes, change time in ns."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a labels.csv: of which one (its path below the inbox), and the label that it gives, as it is written."""

    table: str
    label: str | None


@dataclass(slots=True)
class Scan:
    """The inbox at one moment: complete files in order of their names, how many files and closed folders are left for later,
    and what was odd.

    `unsettled` are files that may still be being written, `unmet` the rows without a file so far by their path below the inbox,
    `too_deep` the folders whose own path is too long to look into, `unlabelled` how many clips without a label each folder holds,
    `unread` the labels.csv files for which there was no room, and `waiting` how many files wait for them: `bytes_left` and `rows_left`
    are what the scan may still read of them.
    """

    drops: list[tuple[Path, Drop]] = field(default_factory=list)
    left: int = 0
    notices: list[str] = field(default_factory=list)
    spent: frozenset[str] = frozenset()
    settled: frozenset[Version] = frozenset()
    tables: list[tuple[Path, os.stat_result]] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    unmet: dict[str, Row] = field(default_factory=dict)
    too_deep: list[str] = field(default_factory=list)
    unlabelled: Counter[str] = field(default_factory=Counter)
    unread: list[str] = field(default_factory=list)
    waiting: int = 0
    bytes_left: int = _MAX_BYTES
    rows_left: int = _MAX_ROWS


_Rows = ChainMap[str, dict[str, str]]
"""Rows of labels.csv files by path relative to the inbox, without empty cells; those of the innermost folder first."""

_Folder = tuple[Path, float, _Rows | None]
"""A folder still to be looked into, the time before which its files are complete, and the rows that speak of them; None if there was
no room for these."""


def scan(inbox: Path, settle_s: float, spent: Collection[str] = (), settled: Collection[Version] = ()) -> Scan:
    """List what can be taken. Opens nothing but labels.csv files, follows no link.

    Left for the next run: hidden and unfinished names, files changed less than `settle_s` seconds ago, the files of a folder
    whose labels.csv is that young or one too many to be read, and folders that cannot be looked into. Rows about the `spent` paths (as
    `Drop.source_path`) are passed over: they spoke of files that a killed run has taken. A labels.csv of the `settled` versions is
    never young: `spend` wrote it.
    """
    found = Scan(spent=frozenset(spent), settled=frozenset(settled))
    folders: list[_Folder] = [(inbox, time.time() - settle_s, ChainMap())]
    while folders:
        path, before, rows = folders.pop()
        try:
            folders += reversed(_scan_folder(inbox, path, before, rows, found))
        except FileNotFoundError:  # taken away meanwhile
            continue
        except OSError as error:
            found.left += 1
            shown = printable(os.path.relpath(path, inbox))
            found.notices.append(f"{shown} cannot be read ({error.strerror}): give the pipeline's user access.")
    found.drops.sort(key=lambda item: item[1].source_path)
    found.notices += _overlooked(found, settle_s)
    return found


def _overlooked(found: Scan, settle_s: float) -> Iterator[str]:
    if found.unsettled:
        count = len(found.unsettled)
        yield (
            f"{counted(count, 'file is', 'files are')} left for the next run, perhaps still being written (the name "
            f"says so, or the file or its {LABELS_FILE} changed in the last {settle_s:g} s: ingest.settle_s): "
            f"{listed(sorted(found.unsettled))}."
        )
    yield from no_room(found)
    if found.too_deep:
        folders = listed([f"{folder[:_SHOWN]}…" for folder in found.too_deep])
        yield f"Folders whose path has more than {MAX_PATH} characters are not looked into: {folders}; move their files up."
    if found.unlabelled:
        folders = listed([f"{folder}/ ({count})" for folder, count in found.unlabelled.items()])
        yield f"Clips are unlabelled in folders whose names are no label: {folders}; labels are {', '.join(LABELS)}."


def no_room(found: Scan) -> list[str]:
    """What to do about the labels.csv files that are one too many to be read, as a sentence; empty if there is none."""
    if not found.unread:
        return []
    return [
        f"A run reads at most {_MAX_ROWS:,} rows and {_MAX_BYTES >> 20} MB of {LABELS_FILE} files, so there was no room for "
        f"{listed(found.unread)}, and the clips beside and below wait ({counted(found.waiting, 'file')}): remove rows that match no file, "
        "or split that file into one in each folder."
    ]


def new_again(inbox: Path) -> Path:
    """A folder still to be made, for clips that come out of quarantine again."""
    return inbox / f"again-{secrets.token_hex(4)}"


def remove_empty_again(inbox: Path) -> None:
    """Remove the folders of clips that came out of quarantine again whose files are all taken."""
    for path in inbox.iterdir():
        if _AGAIN.fullmatch(path.name):
            with suppress(OSError):  # not empty, a link, or somebody else's
                path.rmdir()


def spend(inbox: Path, scanned: Scan, taken: Collection[str]) -> set[Version]:
    """Take the rows of the files that were `taken` (as `Drop.source_path`) out of the labels.csv files that were read; returns what
    these are afterwards.

    Rows of files still to come stay; a table without any goes. One that changed since the scan is somebody's new word and
    is left alone, and one that cannot be written is told.
    """
    gone = scanned.spent | set(taken)
    left: set[Version] = set()
    for path, read in scanned.tables:
        try:
            with drop_folder.opened(inbox, path.parent) as folder:
                table = folder / path.name
                if _version(table.lstat()) == _version(read) and _spend_rows(inbox, path, table, gone):
                    left.add(_version(table.lstat()))
        except (FileNotFoundError, drop_folder.NoFile):
            continue
        except PermissionError:
            shown = printable(str(path.relative_to(inbox)))
            scanned.notices.append(
                f"{shown} still has rows of clips that were taken: give the pipeline's user the right to change its folder."
            )
    return left


def _spend_rows(inbox: Path, path: Path, table: Path, gone: Collection[str]) -> bool:
    """Whether any rows are left. `table` is the way to the file that does not change; its rows count from the folder of `path`."""
    head, *rows = [row for row in csv.reader(io.StringIO(drop_folder.read_text(table, _MAX_BYTES))) if any(row)]
    column = head.index("path")
    named = [row for row in rows if len(row) > column and row[column].strip()]
    kept = [row for row in named if printable(path_of_row(inbox, path, row[column])) not in gone]
    if not kept:
        table.unlink()
    elif len(kept) < len(named):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([head, *kept])
        write_text(table, text.getvalue())
    return bool(kept)


def _version(status: os.stat_result) -> Version:
    return status.st_ino, status.st_size, status.st_ctime_ns


def parse_label(text: str | None) -> Label | None:
    """`Fight` or `NonFight`, whatever the case, or None."""
    return {label.lower(): label for label in LABELS}.get((text or "").strip().lower())


def _what_is_unsafe(relative: str) -> str | None:
    if any(map(is_unsafe, relative)):
        return "its name holds control characters or bytes that are no text"
    if any(part.startswith("..") for part in relative.split("/")):
        return "its name begins with '..'"
    if "\\" in relative:
        return "its name holds a backslash"
    if len(relative) > MAX_PATH:
        return f"its path has {len(relative)} characters and at most {MAX_PATH} are taken"
    return None


def _scan_folder(inbox: Path, folder: Path, before: float, rows: _Rows | None, found: Scan) -> list[_Folder]:
    """Add what one folder holds to `found`; returns the folders in it, with what holds for their files."""
    folders: list[_Folder] = []
    with drop_folder.opened(inbox, folder) as here:
        entries = sorted(os.scandir(here), key=lambda entry: os.fsencode(entry.name))
        table = next(
            (entry for entry in entries if entry.name == LABELS_FILE and entry.is_file(follow_symlinks=False)), None
        )
        if table is not None:
            status = table.stat(follow_symlinks=False)
            young = status.st_ctime > before and _version(status) not in found.settled
            # what lies here and below waits for a table that is young, or one too many
            if young:
                before = -math.inf
            elif rows is not None:
                read = _read_table(inbox, folder / LABELS_FILE, here / LABELS_FILE, status, found)
                rows = None if read is None else rows.new_child(read)
        for entry in entries:
            path = folder / entry.name
            if drop_folder.is_hidden(entry.name) or entry is table:
                continue
            if not entry.is_dir(follow_symlinks=False):
                _add(inbox, path, entry, before, rows, found)
            elif len(relative := os.path.relpath(path, inbox)) > MAX_PATH:
                found.left += 1
                found.too_deep.append(printable(relative))
            else:
                folders.append((path, before, rows))
    return folders


def _add(inbox: Path, path: Path, entry: os.DirEntry[str], before: float, rows: _Rows | None, found: Scan) -> None:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # another run was faster
        return
    relative = os.path.relpath(path, inbox)
    found.unmet.pop(relative, None)
    # the change time, because a copy may carry an old modification time while it is still being written
    unsettled = status.st_ctime > before or entry.name.lower().endswith(_UNFINISHED)
    if stat.S_ISREG(status.st_mode) and (unsettled or rows is None):
        found.left += 1
        if rows is None:
            found.waiting += 1
        else:
            found.unsettled.append(printable(relative)[:MAX_PATH])
        return
    row = {} if rows is None else rows.get(relative, {})
    found.drops.append((path, _drop(relative, row, found)))


def _drop(relative: str, row: dict[str, str], found: Scan) -> Drop:
    shown = printable(relative)
    folder = shown.rpartition("/")[0]
    label: Label | None = next(filter(None, map(parse_label, reversed(folder.split("/")))), None)
    if given := row.get("label"):
        label = parse_label(given)
        if label is None:
            found.notices.append(
                f"{shown}: label {printable(given)!r} in {LABELS_FILE} is not one of {', '.join(LABELS)}; the clip gets no label."
            )
    elif folder and label is None and not _AGAIN.fullmatch(folder):
        found.unlabelled[folder] += 1
    recorded_at = row.get("recorded_at")
    if recorded_at and not _is_time(recorded_at):
        found.notices.append(f"{shown}: recorded_at {printable(recorded_at)!r} is no ISO 8601 time; it is left out.")
        recorded_at = None
    return Drop(
        source_path=shown, unsafe=_what_is_unsafe(relative), label=label, source_group=row.get("source_group"),
        camera_id=row.get("camera_id"), recorded_at=recorded_at,
    )  # fmt: skip


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def path_of_row(inbox: Path, table: Path, path: str) -> str:
    """The path relative to the inbox that a row of `table` speaks of."""
    return os.path.relpath(table.parent / path.strip(), inbox)


def _read_table(
    inbox: Path, path: Path, table: Path, status: os.stat_result, found: Scan
) -> dict[str, dict[str, str]] | None:
    """The rows of a labels.csv by path relative to the inbox, without empty cells; None if there is no room for them any more.
    `table` is as in `_spend_rows`."""
    of = str(path.relative_to(inbox))
    shown = printable(of)
    try:
        if (text := _text_of(table, status, found)) is None:
            found.unread.append(shown)
            return None
        lines = csv.reader(io.StringIO(text))
        if "path" not in (head := next(lines, [])):
            found.notices.append(f"{shown} has no column 'path': its first line must name path,label,source_group,…")
            return {}
        rows = {path_of_row(inbox, path, row["path"]): row for row in _rows(head, lines) if "path" in row}
        found.tables.append((path, status))
        due = {name: row for name, row in rows.items() if printable(name) not in found.spent}
        found.unmet |= {name: Row(of, row.get("label")) for name, row in due.items()}
        return due
    except OSError as error:
        found.left += 1
        problem = error.strerror
    except (UnicodeDecodeError, csv.Error) as error:
        problem = str(error)
    found.notices.append(f"{shown} cannot be read as CSV in UTF-8 ({problem}): it is ignored.")
    return {}


def _text_of(table: Path, status: os.stat_result, found: Scan) -> str | None:
    """The text of a labels.csv; None if it is more than the scan may still read."""
    if status.st_size > found.bytes_left:
        return None
    text = drop_folder.read_text(table, _MAX_BYTES)
    rows = text.count("\n")
    if rows > found.rows_left:
        return None
    found.bytes_left -= status.st_size
    found.rows_left -= rows
    return text


def _rows(head: list[str], lines: Iterator[list[str]]) -> Iterator[dict[str, str]]:
    """The cells of our columns, whatever others there are: a line is not as wide as the first one promises."""
    places = {name: head.index(name) for name in _COLUMNS if name in head}
    for line in lines:
        cells = {name: line[place].strip() for name, place in places.items() if place < len(line)}
        yield {key: value if key == "path" else printable(value)[:MAX_PATH] for key, value in cells.items() if value}
