"""How files are written so that nothing is ever half there, and what tables were made from."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from violence_ops.errors import WorkspaceError

_FINGERPRINT: Final = b"violence_ops.fingerprint"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_Made = TypeVar("_Made")


def temporary_beside(path: Path, suffix: str = ".tmp") -> Path:
    """A hidden name in the folder of `path` that nothing has. Whoever makes it there leaves its rights to the umask, which
    `tempfile` does not ask."""
    return path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}{suffix}")


@contextmanager
def atomic_path(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """A temporary path beside `path`; what was written there is synced and renamed to `path` if the block succeeds.

    The file has those rights of `mode` that the umask leaves.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    temporary.touch(mode, exist_ok=False)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, content: str) -> None:
    """Write a whole text file at once."""
    with atomic_path(path) as temporary:
        temporary.write_text(content, "utf-8")


def spreadsheet_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for a CSV table that people open: a text that a spreadsheet would take for a formula begins with an apostrophe."""
    return {
        key: f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell for key, cell in row.items()
    }


def write_json(path: Path, content: Any) -> None:
    """Write JSON at once: sorted keys, so that equal content gives equal bytes."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


class Document(dict[str, Any]):
    """A JSON object of a file. What it lacks is the file's damage: asking for that raises WorkspaceError.

    A copy that `dataclasses.asdict` makes knows of no file and raises KeyError, as any other dict.
    """

    def __init__(
        self, content: Mapping[str, Any] | Iterable[Any] = (), path: Path | None = None, remedy: str = ""
    ) -> None:
        super().__init__(content)
        self._path, self._remedy = path, remedy

    def __missing__(self, key: str) -> NoReturn:
        raise KeyError(key) if self._path is None else self._damaged(f"it lacks {key!r}")

    def without(self, *keys: str) -> Document:
        """The rest of the object."""
        rest = {key: value for key, value in self.items() if key not in keys}
        return Document(rest, self._path, self._remedy)

    def to(self, make: Callable[[dict[str, Any]], _Made]) -> _Made:
        """What `make` makes of the object. Raises WorkspaceError if it lacks a field or has one too many."""
        try:
            return make(self)
        except TypeError as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, fault: str) -> WorkspaceError:
        return WorkspaceError(f"{self._path} is damaged ({fault}): {self._remedy}.")


def read_json(
    path: Path, remedy: str = "`violence-ops check` says what brings it back", shape: Any = dict[str, Any]
) -> Document:
    """Read a JSON object. `remedy` says, as the end of a sentence, what to do about one that cannot be read; `shape` is a
    TypedDict of what must be in it, and of which kind: what it does not name may be anything.

    Raises WorkspaceError if it is missing or damaged; so do the objects in it when they are asked for what they lack.
    """
    try:
        raw = path.read_bytes()
        content = json.loads(raw, object_hook=lambda found: Document(found, path, remedy))
        _adapter(shape).validate_json(raw, strict=True)
    except FileNotFoundError:
        raise WorkspaceError(f"{path} is missing: {remedy}.") from None
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise WorkspaceError(f"{path} is damaged ({place + ': ' if place else ''}{fault['msg']}): {remedy}.") from None
    except (ValueError, RecursionError) as error:
        raise WorkspaceError(f"{path} is damaged ({error}): {remedy}.") from None
    assert isinstance(content, Document)
    return content


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


@contextmanager
def table_writer(path: Path, schema: pa.Schema, fingerprint: str | None = None) -> Iterator[Callable[[pa.Table], None]]:
    """A function that appends to a Parquet file, which is there when the block succeeds and not before.

    The file's metadata hold the fingerprint of what it was made from.
    """
    metadata = {key: value for key, value in (schema.metadata or {}).items() if key != _FINGERPRINT}
    if fingerprint:
        metadata[_FINGERPRINT] = fingerprint.encode()
    marked = schema.with_metadata(metadata or None)
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, marked, compression="zstd") as writer:
        yield lambda table: writer.write_table(table.cast(marked))


def write_table(path: Path, table: pa.Table, fingerprint: str | None = None) -> None:
    """Write a Parquet file at once, with the fingerprint of what it was made from in its metadata."""
    with table_writer(path, table.schema, fingerprint) as append:
        append(table)


def load_table(path: Path, columns: Sequence[str] | None = None, filters: Any = None) -> pa.Table:
    """Read a Parquet file, or only these columns, or the rows for which `filters` hold (as pyarrow takes them).

    Raises WorkspaceError if it is missing or damaged, also if it lacks a column.
    """
    names = None if columns is None else list(columns)
    with _readable(path):
        if filters is not None:
            return pq.read_table(path, columns=names, filters=filters)
        # `read_table` takes twice as long for a file of many row groups, and imports pandas
        with pq.ParquetFile(path) as file:
            if names is None:
                return file.read()
            if not set(names) <= set(file.schema_arrow.names):
                raise pa.ArrowInvalid("It lacks a column.")
            return file.read(names).select(names)


@contextmanager
def open_table(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file to be read in pieces.

    Raises WorkspaceError if it is missing or damaged, also where only reading it in the block shows that.
    """
    with _readable(path), pq.ParquetFile(path) as file:
        yield file


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What a Parquet file's reader cannot read becomes a WorkspaceError that names the file."""
    try:
        yield
        return
    except FileNotFoundError:
        fault = "is missing"
    except (pa.ArrowInvalid, OSError):
        fault = "is damaged"
    raise WorkspaceError(f"{path} {fault}: `violence-ops check` says what brings it back.")


def read_fingerprint(path: Path) -> str | None:
    """The fingerprint that `write_table` stored, or None if the file is missing, damaged or has none: to be made again."""
    try:
        value = (pq.read_schema(path).metadata or {}).get(_FINGERPRINT)
    except (OSError, pa.ArrowInvalid):  # a damaged footer is an OSError
        return None
    return value.decode() if value else None


def fingerprint(*parts: Any) -> str:
    """A short hash of JSON-able values: equal inputs of a step give equal fingerprints."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def folder_sha256(folder: Path) -> str:
    """One SHA-256, in hex, of all files in a folder: of their names and bytes, whatever the order they were written in."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = (f"{sha256_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
