"""The catalog: an index of clips and batches in SQL, and the place where a clip is claimed exactly once.

Nothing lives only here: `rebuild` makes it again from the batches and the quarantine. SQLite by default, PostgreSQL by URL.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from violence_ops.errors import ServiceUnavailable, UsageError, WorkspaceError
from violence_ops.records import TRANSIENT, ClipRecord

BatchState = Literal["open", "sealed"]
_CHUNK: Final = 500
_WAIT_S: Final = 30
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_metadata: Final = sa.MetaData()
_clips: Final = sa.Table(
    "clips", _metadata,
    sa.Column("clip_id", sa.String(20), primary_key=True),
    sa.Column("claimed_by", sa.String(80), index=True),
    sa.Column("batch_id", sa.String(32), index=True),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(32)),
    sa.Column("label", sa.String(16)),
    sa.Column("source_path", sa.Text),
    sa.Column("source_group", sa.Text),
    sa.Column("camera_id", sa.Text),
    sa.Column("perceptual_hash", sa.String(16)),
    # PostgreSQL's usual kind refuses rows whose path is longer than 2,700 bytes
    sa.Index("ix_clips_source_path", "source_path", postgresql_using="hash"),
)  # fmt: skip
_batches: Final = sa.Table(
    "batches", _metadata,
    sa.Column("batch_id", sa.String(32), primary_key=True),
    sa.Column("night", sa.String(10), nullable=False),
    sa.Column("state", sa.String(8), nullable=False),
)  # fmt: skip
_KEPT: Final = ("status", "reason", "label", "source_path", "source_group", "camera_id", "perceptual_hash")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CatalogClip:
    """What the catalog knows of a clip."""

    clip_id: str
    batch_id: str | None
    status: str
    reason: str | None
    label: str | None
    source_path: str | None
    source_group: str | None
    camera_id: str | None = None


class Catalog:
    """The tables `clips` and `batches` behind a database URL. Safe to use from many processes at once.

    Every method raises ServiceUnavailable, in one sentence, when the database cannot be reached, stays locked or may not be
    written, and WorkspaceError when its file is damaged. Making one raises UsageError for a URL of another kind.
    """

    def __init__(self, url: str) -> None:
        parsed = _parsed(url)
        self._shown = parsed.set(query={}).render_as_string(hide_password=True)  # a driver takes a password there too
        options: dict[str, Any] = {"pool_pre_ping": True}
        if parsed.get_backend_name() == "sqlite":
            options["connect_args"] = {"timeout": _WAIT_S}
        else:
            options["connect_args"] = {"connect_timeout": 10}
        self._engine = sa.create_engine(parsed, **options)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _use_wal)
        with self._transaction() as connection:
            _create_tables(connection)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # claims
    def claim(self, clips: Iterable[ClipRecord], by: str) -> set[str]:
        """Claim clips for the ingestion run `by`; returns the clip_ids that are its own: new, or claimed by it before a crash.

        However many runs claim the same clip, exactly one gets it.
        """
        own: set[str] = set()
        for chunk in _chunks(clips):
            rows = [_row(clip) | {"claimed_by": by, "batch_id": None} for clip in chunk]
            with self._transaction() as connection:
                new = self._insert(_clips).values(rows)
                again = {name: new.excluded[name] for name in rows[0] if name != "clip_id"}
                again["label"] = sa.func.coalesce(_clips.c.label, new.excluded.label)
                untaken = sa.and_(_clips.c.reason.in_(TRANSIENT), _clips.c.batch_id.is_(None))
                connection.execute(new.on_conflict_do_update(index_elements=["clip_id"], set_=again, where=untaken))
                ids = [row["clip_id"] for row in rows]
                mine = sa.select(_clips.c.clip_id).where(
                    _clips.c.claimed_by == by, _clips.c.batch_id.is_(None), _clips.c.clip_id.in_(ids)
                )
                own |= set(connection.scalars(mine))
        return own

    def claimable(self, clip_ids: Iterable[str]) -> set[str]:
        """Those that `claim` would give to a new run; nothing is changed."""
        wanted = set(clip_ids)
        known = self.find(wanted).values()
        return wanted - {clip.clip_id for clip in known if clip.batch_id or clip.reason not in TRANSIENT}

    def forget_claims(self, alive: Iterable[str]) -> int:
        """Forget claims that never became a batch and whose run is not among `alive`; returns how many."""
        with self._transaction() as connection:
            lost = sa.delete(_clips).where(
                _clips.c.batch_id.is_(None), _clips.c.status == "claimed", _clips.c.claimed_by.not_in(list(alive))
            )
            return connection.execute(lost).rowcount

    # states
    def open_batch(self, batch_id: str, night: str, clips: Iterable[ClipRecord]) -> None:
        """Record a new batch and that its clips belong to it."""
        with self._transaction() as connection:
            row = {"batch_id": batch_id, "night": night, "state": "open"}
            connection.execute(self._insert(_batches).values(row).on_conflict_do_nothing())
            for chunk in _chunks(clip.clip_id for clip in clips):
                belongs = sa.update(_clips).where(_clips.c.clip_id.in_(chunk)).values(batch_id=batch_id)
                connection.execute(belongs)

    def seal_batch(self, batch_id: str) -> None:
        """Record that a batch is sealed, without the clips that were refused for a transient reason."""
        without = sa.and_(_clips.c.batch_id == batch_id, _clips.c.reason.in_(TRANSIENT))
        with self._transaction() as connection:
            connection.execute(sa.update(_batches).where(_batches.c.batch_id == batch_id).values(state="sealed"))
            connection.execute(sa.update(_clips).where(without).values(batch_id=None))

    def dissolve_batch(self, batch_id: str) -> None:
        """Record that there is no such batch any more: its clips are new when they come again, but for those in quarantine."""
        of_batch = _clips.c.batch_id == batch_id
        with self._transaction() as connection:
            connection.execute(sa.delete(_clips).where(of_batch, _clips.c.status != "quarantined"))
            connection.execute(sa.update(_clips).where(of_batch).values(batch_id=None))
            connection.execute(sa.delete(_batches).where(_batches.c.batch_id == batch_id))

    def record(self, clips: Iterable[ClipRecord], batch_id: str | None = None) -> None:
        """Insert or overwrite what is known of these clips, but for the label: what they came with never replaces what is known.

        Without `batch_id`, of files that were refused at the door: nothing that is known of their bytes is overwritten then.
        """
        with self._transaction() as connection:
            self._record(connection, clips, batch_id)

    def forget(self, clip_id: str) -> None:
        """Delete what is known of a clip, also from the database's file as far as that is ours (SQLite)."""
        with self._transaction() as connection:
            connection.execute(sa.delete(_clips).where(_clips.c.clip_id == clip_id))
        if self._engine.dialect.name == "sqlite":
            with self._transaction() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def set_labels(self, labels: Mapping[str, str]) -> None:
        """Record labels that arrived later."""
        if not labels:
            return
        by_id = sa.update(_clips).where(_clips.c.clip_id == sa.bindparam("id_")).values(label=sa.bindparam("label_"))
        with self._transaction() as connection:
            connection.execute(by_id, [{"id_": clip_id, "label_": label} for clip_id, label in labels.items()])

    # questions
    def find(self, clip_ids: Iterable[str]) -> dict[str, CatalogClip]:
        """What is known of these clips, by clip_id."""
        found: dict[str, CatalogClip] = {}
        for chunk in _chunks(clip_ids):
            found |= {clip.clip_id: clip for clip in self._select(_clips.c.clip_id.in_(chunk))}
        return found

    def beginning_with(self, prefix: str, limit: int) -> list[CatalogClip]:
        """The first clips whose ids begin with these hex digits (0-9, a-f), in order, at most `limit`."""
        # a range is looked up in the index, what LIKE asks for is not; "g" comes after all hex digits
        return self._select(_clips.c.clip_id >= prefix, _clips.c.clip_id < f"{prefix}g", limit=limit)

    def arrived_as(self, path: str, limit: int) -> list[CatalogClip]:
        """The first clips that came from this path or, if there is none, from one that ends with it; at most `limit`."""
        ending = _clips.c.source_path.endswith(f"/{path}", autoescape=True)
        return self._select(_clips.c.source_path == path, limit=limit) or self._select(ending, limit=limit)

    def find_paths(self, source_paths: Iterable[str]) -> dict[str, list[CatalogClip]]:
        """The clips that came from each of these paths, the newest last; recorders use the same names again."""
        found: dict[str, list[CatalogClip]] = {}
        for chunk in _chunks(source_paths):
            for clip in sorted(self._select(_clips.c.source_path.in_(chunk)), key=lambda clip: clip.batch_id or ""):
                found.setdefault(str(clip.source_path), []).append(clip)
        return found

    def unlabelled(self) -> list[CatalogClip]:
        """Accepted clips without a label, in clip_id order."""
        return self._select(_clips.c.status == "accepted", _clips.c.label.is_(None))

    def refused_without_batch(self) -> list[CatalogClip]:
        """Clips in quarantine for a transient reason that belong to no batch, in clip_id order."""
        transient = sa.and_(_clips.c.reason.in_(TRANSIENT), _clips.c.batch_id.is_(None))
        return self._select(_clips.c.status == "quarantined", transient)

    def counts(self) -> dict[str, dict[str, int]]:
        """How many clips by `status`, quarantined ones by `reason`, accepted ones by `label`, and batches by `state`."""
        label = sa.func.coalesce(_clips.c.label, "unlabelled")
        with self._transaction() as connection:

            def grouped(column: Any, *conditions: Any) -> dict[str, int]:
                table = column.table if isinstance(column, sa.Column) else _clips
                query = sa.select(column, sa.func.count()).select_from(table).where(*conditions).group_by(column)
                return {str(name): int(number) for name, number in connection.execute(query.order_by(column))}

            return {
                "status": grouped(_clips.c.status),
                "reason": grouped(_clips.c.reason, _clips.c.status == "quarantined"),
                "label": grouped(label, _clips.c.status == "accepted"),
                "batches": grouped(_batches.c.state),
            }

    def batches(self, state: BatchState | None = None) -> list[str]:
        """Batch ids, oldest first."""
        query = sa.select(_batches.c.batch_id).order_by(_batches.c.batch_id)
        with self._transaction() as connection:
            return list(connection.scalars(query if state is None else query.where(_batches.c.state == state)))

    def perceptual_hashes(self, without_batch: str) -> dict[str, str]:
        """The perceptual hash of every accepted clip of the other batches, by clip_id."""
        query = sa.select(_clips.c.clip_id, _clips.c.perceptual_hash).where(
            _clips.c.status == "accepted", _clips.c.perceptual_hash.is_not(None), _clips.c.batch_id != without_batch
        )
        with self._transaction() as connection:
            return {row.clip_id: row.perceptual_hash for row in connection.execute(query.order_by(_clips.c.clip_id))}

    def rebuild(
        self,
        batches: Iterable[tuple[str, str, BatchState, list[ClipRecord]]],
        quarantined: Iterable[ClipRecord],
        alive: Iterable[str] = (),
    ) -> None:
        """Make the tables again, at once or not at all, from what lies in the workspace: `(batch_id, night, state, clips)` and
        the quarantine. What the ingestion runs `alive` have claimed stays.

        Others can read, but not write, while the iterables are gone through: what these read cannot be outdated afterwards.
        """
        with self._transaction() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text("LOCK TABLE clips, batches IN EXCLUSIVE MODE"))
            # SQLite: a transaction that begins with a change keeps the other writers out
            connection.execute(sa.delete(_clips).where(sa.func.coalesce(_clips.c.claimed_by, "").not_in(list(alive))))
            claimed = sa.select(_clips.c.batch_id).where(_clips.c.batch_id.is_not(None))
            connection.execute(sa.delete(_batches).where(_batches.c.batch_id.not_in(claimed)))
            for batch_id, night, state, clips in batches:
                self._record(connection, clips, batch_id)
                row = {"batch_id": batch_id, "night": night, "state": state}
                statement = self._insert(_batches).values(row)
                connection.execute(statement.on_conflict_do_update(index_elements=["batch_id"], set_=row))
            self._record(connection, quarantined, None)

    def _select(self, *conditions: Any, limit: int | None = None) -> list[CatalogClip]:
        columns = [_clips.c[name] for name in CatalogClip.__dataclass_fields__]
        query = sa.select(*columns).where(*conditions).order_by(_clips.c.clip_id).limit(limit)
        with self._transaction() as connection:
            return [CatalogClip(*row) for row in connection.execute(query)]

    def _insert(self, table: sa.Table) -> Any:
        return postgresql.insert(table) if self._engine.dialect.name == "postgresql" else sqlite.insert(table)

    def _record(self, connection: sa.Connection, clips: Iterable[ClipRecord], batch_id: str | None) -> None:
        for chunk in _chunks(clips):
            statement = self._insert(_clips).values([_row(clip) | {"batch_id": batch_id} for clip in chunk])
            if batch_id is None:
                connection.execute(statement.on_conflict_do_nothing())
                continue
            changes = {name: statement.excluded[name] for name in ("batch_id", *_KEPT)}
            changes["label"] = sa.func.coalesce(_clips.c.label, statement.excluded.label)
            connection.execute(statement.on_conflict_do_update(index_elements=["clip_id"], set_=changes))

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except (sa.exc.DatabaseError, sa.exc.TimeoutError, sa.exc.InterfaceError) as error:
            origin = getattr(error, "orig", None) or error
            cause = str(origin).strip().splitlines()[0]
            if getattr(origin, "sqlite_errorcode", None) in _DAMAGED:
                raise WorkspaceError(
                    f"The catalog {self._shown} is damaged ({cause}): run `violence-ops catalog rebuild`."
                ) from error
            remedy = (
                "get the right to write there" if self._is_read_only() else "see that the database runs and has room"
            )
            raise ServiceUnavailable(
                f"The catalog {self._shown} cannot be used ({cause}): {remedy}, then run this again."
            ) from error

    def _is_read_only(self) -> bool:
        """Whether the database is a file that may not be written, or may not get its journal beside it."""
        file = _file(self._engine.url)
        return file is not None and not all(os.access(path, os.W_OK) for path in (file, file.parent) if path.exists())


def is_unborn(url: str) -> bool:
    """Whether it is a SQLite database that was not made yet."""
    file = _file(_parsed(url))
    return file is not None and not file.exists()


def move_damaged(url: str) -> Path | None:
    """Move a SQLite database that cannot be read out of the way, so that another can be made; returns where it lies now.

    None if it is sound, or not there. Raises ServiceUnavailable if it cannot be looked at.
    """
    file = _file(_parsed(url))
    if file is None or not file.is_file() or not _is_damaged(file):
        return None
    aside = file.with_name(f"{file.name}.damaged")
    file.replace(aside)
    for journal in ("-wal", "-shm"):
        file.with_name(f"{file.name}{journal}").unlink(missing_ok=True)
    return aside


def _parsed(url: str) -> sa.URL:
    """The URL of a database that a catalog can be in. Raises UsageError, which does not show it, if there is none such."""
    try:
        parsed = sa.make_url(url)
        dialect = parsed.get_dialect()
        dialect.import_dbapi()
        if dialect.name in ("sqlite", "postgresql") and not dialect.is_async:
            return parsed
    except (sa.exc.ArgumentError, ValueError, ImportError):  # the last for a driver that is not installed
        pass
    raise UsageError(
        "VIOLENCE_OPS_CATALOG_URL is no address of a catalog: write postgresql+psycopg2://USER@HOST/DATABASE or sqlite:///FILE."
    )


def _file(url: sa.URL) -> Path | None:
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def _is_damaged(file: Path) -> bool:
    try:
        with closing(sqlite3.connect(file, timeout=_WAIT_S)) as connection:
            return bool(connection.execute("PRAGMA quick_check").fetchone() != ("ok",))
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", None) in _DAMAGED:
            return True
        raise ServiceUnavailable(f"The catalog {file} cannot be looked at ({error}): run this again.") from None


def _create_tables(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        # two first users at once would both try to create the tables
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(7110)"))
    elif connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    _metadata.create_all(connection)
    for index in _clips.indexes:  # one that an earlier version did not make
        index.create(connection, checkfirst=True)


def _use_wal(connection: sqlite3.Connection, _: object) -> None:
    connection.execute(f"PRAGMA busy_timeout={_WAIT_S * 1000}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA secure_delete=ON")  # what `forget` deletes is overwritten


def _row(clip: ClipRecord) -> dict[str, Any]:
    return {"clip_id": clip.clip_id} | {name: getattr(clip, name) for name in _KEPT}


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    remaining = iter(items)
    while chunk := list(islice(remaining, _CHUNK)):
        yield chunk
