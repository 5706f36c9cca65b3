"""The change log: numbers, order, what can be asked of it."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from connector.model.change import Change, CommitInfo, Operation, Origin
from connector.ports import Unit
from connector.store import ReadOnlyReplica, Session
from connector.store.changelog import BLOCK, RECORD_BLOCK
from connector.store.queries import load
from connector.store.unit import StoreUnit
from tests.store_nouns import DAY_MS, NOW_MS, WIDGET, change, record, record_id


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path / "replica.db") as opened:
        opened.run(lambda unit: unit.define(WIDGET))
        yield opened


def test_changes_come_back_as_they_were_appended(session: Session) -> None:
    """A message can be built again exactly: every kind of change, with and without a commit."""
    full = {"Id": record_id(1), "Name": "a", "Active__c": False, "Price__c": None}
    given = [
        change(operation=Operation.CREATE, changed=("Name", "Active__c"), before=None, after=full, record=full),
        change(origin=Origin.COMMAND, command_id="c-1"),
        change(origin=Origin.POLL, commit=None),
        change(commit=CommitInfo(NOW_MS)),
        change(operation=Operation.DELETE, changed=(), before=full, after=None, record=None),
    ]
    assert session.run(lambda unit: unit.append(given)) == 5
    expected = [replace(c, version=v) for v, c in enumerate(given, 1)]
    assert session.run(lambda unit: unit.unpublished(10)) == expected


def test_records_that_reads_corrected_are_counted_once(session: Session, tmp_path: Path) -> None:
    """Not those of an event, a first load or another object, nor what was changed before; by an index."""
    read = {"origin": Origin.POLL, "commit": None}

    def work(unit: Unit) -> int:
        since = unit.append([change(1, **read)])
        unit.append([change(2, **read), change(2, origin=Origin.REPAIR, commit=None), change(3), change(4, **read)])
        unit.append([change(5, origin=Origin.BACKFILL, commit=None), change(6, object="Other__c", **read)])
        unit.append([change(7, origin=Origin.COMMAND, command_id="c-1", commit=None)])
        return unit.corrected("Widget__c", since)

    assert session.run(work) == 3
    assert_by_blocks(tmp_path, "corrected", {"object": "Widget__c", "since": 1})


def assert_by_blocks(folder: Path, query: str, bindings: Mapping[str, Any]) -> None:
    """Nothing is gone through but the blocks in which the object has changes, and nothing is sorted."""
    connection = apsw.Connection(str(folder / "replica.db"), flags=apsw.SQLITE_OPEN_READONLY)
    plan = [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {load('changelog')[query]}", bindings)]
    connection.close()
    assert [step for step in plan if "DISTINCT" not in step] == [
        "SEARCH change_block USING PRIMARY KEY (object=? AND block>?)",
        "SEARCH change_log USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
    ]


def test_an_objects_changes_are_found_among_those_of_others(session: Session, tmp_path: Path) -> None:
    """From any version on, over the borders of blocks, and after the log was trimmed."""
    day_old = NOW_MS - DAY_MS
    names = ["Other__c" if version % 50 else "Widget__c" for version in range(1, 501)]
    young = BLOCK * 3 + 5
    given = [change(object=n, applied_ms=NOW_MS if v >= young else day_old) for v, n in enumerate(names, 1)]
    session.run(lambda unit: [unit.append(given[i : i + 7]) for i in range(0, 500, 7)])
    wanted = list(range(50, 501, 50))

    def told(since: int, limit: int = 100) -> list[int | None]:
        return [c.version for c in session.run(lambda unit: unit.changes(since, limit, "Widget__c"))]

    for since in (0, 49, 50, 51, BLOCK - 1, BLOCK, BLOCK + 1, 499, 500, 9999):
        assert told(since) == [version for version in wanted if version > since]
    assert told(60, 2) == [100, 150]
    assert_by_blocks(tmp_path, "since_of_object", {"object": "Widget__c", "since": 60, "limit": 2})
    session.run(lambda unit: unit.mark_published(500, NOW_MS))
    assert session.run(lambda unit: unit.trim(NOW_MS, DAY_MS, DAY_MS // 2, 1000)) == young - 1
    assert told(0) == [version for version in wanted if version >= young]
    blocks = apsw.Connection(str(tmp_path / "replica.db"), flags=apsw.SQLITE_OPEN_READONLY)
    assert blocks.execute("SELECT min(block) FROM change_block").get == young // BLOCK
    blocks.close()


def test_a_records_changes_are_found_across_blocks(session: Session) -> None:
    """The index by id has blocks of versions; what is asked for may lie in several, or begin within one."""
    first = 2 * RECORD_BLOCK - 3
    session.run(lambda unit: unit.restart_log(first - 1, NOW_MS))
    values = [{"Name": str(number)} for number in range(6)]
    given = [change(number % 2, before=values[number - 1], after=values[number]) for number in range(1, 6)]
    session.run(lambda unit: unit.append(given))
    odd = [first, first + 2, first + 4]

    def versions(changes: Sequence[Change]) -> list[int | None]:
        return [c.version for c in changes]

    def work(unit: Unit) -> None:
        assert isinstance(unit, StoreUnit)
        one = ("Widget__c", record_id(1))
        assert versions(unit.history(*one, 10)) == odd[::-1]
        assert versions(unit.history(*one, 1)) == odd[-1:]
        assert [versions(unit.record_changes(*one, since, 10)) for since in (0, first, odd[2])] == [odd, odd[1:], []]
        assert versions(unit.record_changes(*one, 0, 2)) == odd[:2]
        assert unit.changed_since(*one, first) == {"Name": "2"}
        assert unit.changed_since(*one, odd[2]) == {}
        assert unit.version_at(*one, NOW_MS) == odd[2]
        assert unit.history("Widget__c", record_id(2), 10) == []

    session.run(work)


def test_an_empty_log_has_no_history(session: Session) -> None:
    """There is no block to look into."""

    def work(unit: Unit) -> None:
        assert isinstance(unit, StoreUnit)
        assert unit.history("Widget__c", record_id(1), 10) == []
        assert unit.version_at("Widget__c", record_id(1), NOW_MS) == 0

    session.run(work)


def test_what_others_ask_by_id_walks_the_index(tmp_path: Path) -> None:
    """docs/reading.md shows it; by another SQLite than ours, which is told how the index lies."""
    with Session(tmp_path / "replica.db") as session:
        session.run(lambda unit: unit.append([change(number) for number in range(10)]))
    with closing(sqlite3.connect(f"file:{tmp_path / 'replica.db'}?mode=ro", uri=True)) as other:
        query = "SELECT version FROM change WHERE id = ?"
        ((*_, step),) = other.execute(f"EXPLAIN QUERY PLAN {query}", (record_id(3),)).fetchall()
        assert step.endswith("INDEX change_id (ANY(<expr>) AND id=?)")
        assert other.execute(query, (record_id(3),)).fetchall() == [(4,)]


def test_the_public_columns_read_as_the_contract_says(session: Session, tmp_path: Path) -> None:
    """Section 7, as `sqlite3` shows it."""
    session.run(lambda unit: unit.append([change()]))
    connection = apsw.Connection(str(tmp_path / "replica.db"), flags=apsw.SQLITE_OPEN_READONLY)
    row = connection.execute(
        "SELECT version, object, id, operation, changed, before, after, origin, command_id, committed_at, applied_at,"
        " published_at FROM change"
    ).get
    connection.close()
    what = (1, "Widget__c", record_id(1), "update", '["Name"]', '{"Name":null}', '{"Name":"new"}', "stream", None)
    assert row == (*what, "2026-11-22T17:26:40.120Z", "2026-11-22T17:26:40.157Z", None)


@pytest.mark.parametrize("library", [apsw.Connection, sqlite3.connect])
def test_what_others_ask_of_the_log_reads_its_rows_once(
    session: Session, tmp_path: Path, library: Callable[[str], Any]
) -> None:
    """`change` is a view: a version is found by its number, and each moment by a step through an index of its own."""
    session.run(lambda unit: unit.append([change(number) for number in range(10)]))
    moment = ["CORRELATED SCALAR SUBQUERY", "SEARCH change_published USING INTEGER PRIMARY KEY (rowid>?)"]
    with closing(library(str(tmp_path / "replica.db"))) as other:

        def plan(query: str) -> list[str]:
            steps = other.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
            return [str(step[3]).rstrip("0123456789 ") for step in steps]

        assert plan("SELECT * FROM change") == ["SCAN change_log", *moment]
        assert plan("SELECT * FROM change WHERE version > 3") == [
            "SEARCH change_log USING INTEGER PRIMARY KEY (rowid>?)",
            *moment,
        ]
        assert plan("SELECT * FROM change ORDER BY version DESC LIMIT 3") == ["SCAN change_log", *moment]


def test_versions_have_no_holes_and_never_come_twice(session: Session) -> None:
    """Neither a unit that failed nor a log trimmed to nothing gives a number out again or leaves one out."""

    class Boom(Exception):
        pass

    def fail(unit: Unit) -> None:
        unit.append([change(), change()])
        raise Boom

    assert session.run(lambda unit: unit.append([])) == 0
    assert session.run(lambda unit: unit.append([change(), change()])) == 2
    with pytest.raises(Boom):
        session.run(fail)
    session.run(lambda unit: unit.mark_published(2, NOW_MS))
    assert session.run(lambda unit: unit.trim(NOW_MS + 40 * DAY_MS, DAY_MS, DAY_MS, 100)) == 2
    assert session.run(lambda unit: unit.last_version()) == 2
    assert session.run(lambda unit: unit.append([change()])) == 3


def test_published_changes_are_not_told_again(session: Session, tmp_path: Path) -> None:
    """The watermark only rises; a version that was never given out is refused."""
    session.run(lambda unit: unit.append([change(n) for n in range(5)]))
    assert [c.version for c in session.run(lambda unit: unit.unpublished(2))] == [1, 2]
    session.run(lambda unit: unit.mark_published(3, NOW_MS))
    session.run(lambda unit: unit.mark_published(1, NOW_MS + 1))
    assert [c.version for c in session.run(lambda unit: unit.unpublished(10))] == [4, 5]
    assert session.run(lambda unit: unit.queue_depths())["outbox"] == 2
    with pytest.raises(ValueError, match="6"):
        session.run(lambda unit: unit.mark_published(6, NOW_MS))
    connection = apsw.Connection(str(tmp_path / "replica.db"), flags=apsw.SQLITE_OPEN_READONLY)
    stamps = connection.execute("SELECT count(DISTINCT published_at), count(published_at) FROM change").get
    connection.close()
    assert stamps == (1, 3)


def test_the_origin_of_a_version_is_told(session: Session) -> None:
    """Merge rule 4 asks whether a record's last change came from the stream."""
    session.run(lambda unit: unit.append([change(), change(origin=Origin.REPAIR)]))
    origins = session.run(lambda unit: [unit.origin_of(v) for v in range(4)])
    assert origins == [None, Origin.STREAM, Origin.REPAIR, None]


def test_changed_since_names_the_values_of_then(session: Session) -> None:
    """The base of a command: each field's value as it stood at the version the sender saw."""
    session.run(
        lambda unit: unit.append(
            [
                change(before={"Name": "a"}, changed=("Name",)),
                change(2, before={"Name": "other"}),
                change(before={"Name": "b", "Size__c": 1}, changed=("Name", "Size__c")),
                change(operation=Operation.DELETE, before={"Name": "c", "Size__c": 2, "Price__c": 9.0}, changed=()),
                change(operation=Operation.UNDELETE, before=None, changed=("Name",)),
            ]
        )
    )

    def since(version: int) -> object:
        return session.run(lambda unit: unit.changed_since("Widget__c", record_id(1), version))

    assert since(0) == {"Name": "a", "Size__c": 1, "Price__c": 9.0}
    assert since(2) == {"Name": "b", "Size__c": 1, "Price__c": 9.0}
    assert since(3) == {"Name": "c", "Size__c": 2, "Price__c": 9.0}
    assert since(4) == {"Name": None}
    assert since(5) == {}


def test_changed_since_knows_when_the_log_is_too_short(session: Session) -> None:
    """Trimmed away is unknown, unless the record itself shows that nothing happened to it."""
    session.run(lambda unit: unit.append([change(), change(2), change(3, applied_ms=NOW_MS + 9 * DAY_MS)]))
    session.run(lambda unit: unit.put(WIDGET, [record(1, version=1), record(2, version=2)]))
    session.run(lambda unit: unit.mark_published(3, NOW_MS))
    session.run(lambda unit: unit.trim(NOW_MS + 2 * DAY_MS, DAY_MS, DAY_MS, 100))

    def since(number: int, version: int) -> object:
        return session.run(lambda unit: unit.changed_since("Widget__c", record_id(number), version))

    assert since(1, 1) == {}
    assert since(2, 1) is None
    assert since(9, 1) is None
    assert since(2, 2) == {}


def test_version_at_compares_whole_seconds(session: Session) -> None:
    """`LastModifiedDate` has no milliseconds, the commit time may."""
    session.run(
        lambda unit: unit.append(
            [
                change(commit=CommitInfo(NOW_MS - 5000)),
                change(commit=None),
                change(commit=CommitInfo(NOW_MS)),
                change(2, commit=CommitInfo(NOW_MS)),
            ]
        )
    )

    def at(ms: int) -> int:
        return session.run(lambda unit: unit.version_at("Widget__c", record_id(1), ms))

    assert at(NOW_MS - 157) == 3
    assert at(NOW_MS - 1157) == 1
    assert at(NOW_MS - 9000) == 0


def test_readers_ask_for_changes_and_for_a_records_history(session: Session, tmp_path: Path) -> None:
    """The `changes` query and the `history` command."""
    session.run(lambda unit: unit.append([change(1), change(2), change(3, object="Contact"), change(1)]))
    with ReadOnlyReplica(tmp_path / "replica.db") as reader, reader.snapshot() as unit:
        assert [c.version for c in unit.changes(1, 2)] == [2, 3]
        assert [c.version for c in unit.changes(0, 10, "Contact")] == [3]
        assert [c.version for c in unit.history("Widget__c", record_id(1), 10)] == [4, 1]
