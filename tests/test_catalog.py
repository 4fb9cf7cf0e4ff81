"""The catalog: a clip is claimed exactly once, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from violence_ops.catalog import Catalog, is_unborn, move_damaged
from violence_ops.errors import ServiceUnavailable, UsageError
from violence_ops.records import ClipRecord


def clip(number: int, **facts: object) -> ClipRecord:
    base = {
        "clip_id": f"{number:020x}",
        "sha256": f"{number:064x}",
        "batch_id": "",
        "source_path": f"{number}.mp4",
        "source_group": "g",
    }
    return ClipRecord(**(base | facts))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'catalog.db'}"
    address = request.getfixturevalue("postgresql")
    with Catalog(address) as catalog:
        catalog.rebuild([], [])
    return address


def test_two_runs_that_claim_the_same_clips_share_them_without_overlap(url: str) -> None:
    clips = [clip(number) for number in range(1200)]

    def claim(by: str) -> set[str]:
        with Catalog(url) as catalog:
            return set().union(*(catalog.claim(clips[start : start + 40], by) for start in range(0, 1200, 40)))

    with ThreadPoolExecutor(4) as pool:
        shares = list(pool.map(claim, ["a", "b", "c", "d"]))
    assert sum(map(len, shares)) == 1200
    assert set().union(*shares) == {item.clip_id for item in clips}


def test_a_run_that_died_gets_its_claims_again_until_they_are_a_batch(url: str) -> None:
    clips = [clip(1), clip(2)]
    with Catalog(url) as catalog:
        assert catalog.claim(clips, "run") == catalog.claim(clips, "run") == {clips[0].clip_id, clips[1].clip_id}
        catalog.open_batch("2026-01-01-00000000", "2026-01-01", clips)
        assert catalog.claim(clips, "run") == set()


def test_claims_of_a_run_whose_files_are_gone_are_forgotten(url: str) -> None:
    with Catalog(url) as catalog:
        catalog.claim([clip(1)], "gone")
        catalog.claim([clip(2)], "alive")
        assert catalog.forget_claims(["alive"]) == 1
        assert catalog.claim([clip(1), clip(2)], "new") == {clip(1).clip_id}


def test_bytes_refused_for_their_name_are_new_under_a_proper_one(url: str) -> None:
    with Catalog(url) as catalog:
        catalog.record([clip(1, status="quarantined", reason="unsafe_name")])
        catalog.record([clip(2, status="quarantined", reason="truncated")])
        assert catalog.claim([clip(1), clip(2)], "run") == {clip(1).clip_id}


def test_bytes_refused_without_a_label_are_new_with_one_and_keep_the_label_that_was_given_meanwhile(url: str) -> None:
    with Catalog(url) as catalog:
        catalog.record([clip(number, status="quarantined", reason="unlabelled") for number in (1, 2)])
        catalog.record(
            [clip(3, status="quarantined", reason="unlabelled")], "2026-01-01-00000000"
        )  # by a batch's validation
        catalog.set_labels({clip(2).clip_id: "Fight"})
        ids = [clip(number).clip_id for number in (1, 2, 3)]
        assert catalog.claim([clip(number, label="NonFight") for number in (1, 2, 3)], "run") == set(ids[:2])
        assert [catalog.find(ids)[name].label for name in ids[:2]] == ["NonFight", "Fight"]


def test_bytes_that_are_kept_and_dropped_again_under_a_name_that_is_refused_are_not_new(url: str) -> None:
    with Catalog(url) as catalog:
        catalog.record([clip(1, status="accepted")], "2026-01-01-00000000")
        catalog.record([clip(1, status="quarantined", reason="unsafe_name")])
        assert catalog.find([clip(1).clip_id])[clip(1).clip_id].status == "accepted"
        assert catalog.claim([clip(1)], "run") == set()


def plans(url: str, ask: Callable[[Catalog], object]) -> list[str]:
    """How the database of an opened catalog looks up what is asked."""
    asked: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, parameters))

    with Catalog(url) as catalog:
        sa.event.listen(sa.Engine, "before_cursor_execute", note)
        try:
            ask(catalog)
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", note)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        explained = (database.execute(f"EXPLAIN QUERY PLAN {query}", values) for query, values in asked)
        return [" ".join(row[3] for row in rows) for rows in explained]


def test_a_clip_is_found_by_its_path_or_the_beginning_of_its_id_without_reading_all_also_in_an_older_catalog(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    known = [clip(number << 64) for number in range(200)]
    with Catalog(url) as catalog:
        catalog.record(known, "2026-01-01-00000000")
    with closing(sqlite3.connect(tmp_path / "catalog.db")) as older:
        older.execute("DROP INDEX IF EXISTS ix_clips_source_path")
    looked_up = [
        *plans(url, lambda catalog: catalog.beginning_with("00ab", 3)),
        *plans(url, lambda catalog: catalog.arrived_as(known[7].source_path, 3)),
        *plans(url, lambda catalog: catalog.find_paths(one.source_path for one in known)),
    ]
    assert len(looked_up) == 3
    assert not [plan for plan in looked_up if "SCAN" in plan]


def test_clips_are_found_by_the_beginning_of_their_ids_and_by_paths_of_any_length(url: str) -> None:
    long = "/".join(f"{number:064x}" for number in range(60))
    known = [
        clip(number, source_path=path)
        for number, path in ((0xAF << 72, long), (0xB0 << 72, "a.mp4"), (0xA0 << 72, "b.mp4"))
    ]
    with Catalog(url) as catalog:
        catalog.record(known, "2026-01-01-00000000")
        assert [one.source_path for one in catalog.beginning_with("a", 9)] == ["b.mp4", long]
        assert [one.source_path for one in catalog.beginning_with("af", 9)] == [long]
        assert catalog.beginning_with("a1", 9) == []
        assert [one.clip_id for one in catalog.arrived_as(long, 9)] == [known[0].clip_id]


def test_a_rebuild_is_seen_whole_or_not_at_all_and_broken_off_changes_nothing(url: str) -> None:
    with Catalog(url) as catalog, Catalog(url) as reader:
        catalog.rebuild([("2026-01-01-00000000", "2026-01-01", "sealed", [clip(1), clip(2)])], [clip(3)])
        seen = []

        def broken_off() -> Iterator[tuple[str, str, str, list[ClipRecord]]]:
            yield "2026-01-02-00000000", "2026-01-02", "open", [clip(1)]
            seen.append(reader.counts())
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            catalog.rebuild(broken_off(), [])
        assert seen == [reader.counts()]
        assert reader.batches() == ["2026-01-01-00000000"]
        assert set(reader.find(clip(number).clip_id for number in (1, 2, 3))) == {
            clip(number).clip_id for number in (1, 2, 3)
        }


def test_a_rebuild_leaves_the_claims_of_runs_that_are_not_finished(url: str) -> None:
    with Catalog(url) as catalog:
        catalog.claim([clip(1)], "alive")
        catalog.claim([clip(2)], "gone")
        catalog.rebuild([], [], alive=["alive"])
        assert catalog.claim([clip(1), clip(2)], "new") == {clip(2).clip_id}
        assert catalog.claim([clip(1)], "alive") == {clip(1).clip_id}


def test_a_label_corrected_later_stays_when_the_clip_is_judged_again(url: str) -> None:
    arrived = clip(1, label="Fight", status="accepted")
    with Catalog(url) as catalog:
        catalog.record([arrived], "2026-01-01-00000000")
        catalog.set_labels({arrived.clip_id: "NonFight"})
        catalog.record([arrived], "2026-01-01-00000000")
        assert catalog.find([arrived.clip_id])[arrived.clip_id].label == "NonFight"


def test_counts_and_lists(url: str) -> None:
    with Catalog(url) as catalog:
        clips = [clip(1, label="Fight"), clip(2), clip(3)]
        catalog.claim(clips, "run")
        catalog.open_batch("2026-01-01-00000000", "2026-01-01", clips)
        judged = [
            clips[0].with_(status="accepted"),
            clips[1].with_(status="accepted"),
            clips[2].with_(status="quarantined", reason="truncated"),
        ]
        catalog.record(judged, "2026-01-01-00000000")
        assert [found.clip_id for found in catalog.unlabelled()] == [clip(2).clip_id]
        catalog.set_labels({clip(2).clip_id: "NonFight"})
        catalog.record(judged, "2026-01-01-00000000")
        assert catalog.unlabelled() == []
        catalog.seal_batch("2026-01-01-00000000")
        assert catalog.counts() == {
            "status": {"accepted": 2, "quarantined": 1}, "reason": {"truncated": 1},
            "label": {"Fight": 1, "NonFight": 1}, "batches": {"sealed": 1},
        }  # fmt: skip
        found = catalog.find_paths(["2.mp4", "9.mp4"])
        assert {path: [one.clip_id for one in clips] for path, clips in found.items()} == {"2.mp4": [clip(2).clip_id]}


@pytest.mark.parametrize("use", [Catalog, is_unborn, move_damaged])
@pytest.mark.parametrize(
    "written",
    [
        "secret",
        "postgresql://u:secret@h:abc/db",
        "postgresql+secret://u@h/db",
        "secret://u@h/db",
        "mysql+pymysql://u:secret@h/db",
        "sqlite+aiosqlite:///secret.db",
    ],
)
def test_a_url_that_is_none_of_a_catalog_is_refused_by_its_variable_without_being_shown(
    use: Callable[[str], object], written: str
) -> None:
    with pytest.raises(UsageError, match="VIOLENCE_OPS_CATALOG_URL is no address") as refusal:
        use(written)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("written", ["u:secret@127.0.0.1:9/none", "127.0.0.1:9/none?user=u&password=secret"])
def test_a_database_that_is_not_there_is_said_in_one_sentence_without_its_password(written: str) -> None:
    with pytest.raises(ServiceUnavailable) as refusal:
        Catalog(f"postgresql+psycopg2://{written}")
    assert "secret" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
