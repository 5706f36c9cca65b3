"""Reading beside the writer."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from connector.errors import QueryTooSlow, StoreUnusable
from connector.model.change import CommitInfo, Operation, Origin
from connector.model.command import CommandStatus
from connector.model.message import Message
from connector.model.query import AllOf, Filter, FilterOperator, Page, containing
from connector.ports import ChangeCount, Moved, ObjectFigures, Snapshot, Standing
from connector.store import ReadOnlyReplica, Session
from connector.store.readers import Readers
from tests.store_nouns import DAY_MS, NOW_MS, WIDGET, change, command, record, record_id

NAMES = ["Ärger", "bolt", "Bolt", None, "crank"]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path / "replica.db") as opened:
        opened.run(lambda unit: unit.define(WIDGET))
        rows = [
            record(n, Name=name, Size__c=n, Price__c=n / 2, Active__c=n % 2 == 0, Due__c=f"2026-01-0{n + 1}")
            for n, name in enumerate(NAMES)
        ]
        opened.run(lambda unit: unit.put(WIDGET, [*rows, record(9, Name="bolt", deleted_ms=NOW_MS)]))
        yield opened


@pytest.fixture
def reader(session: Session, tmp_path: Path) -> Iterator[ReadOnlyReplica]:  # noqa: ARG001 - it makes the file
    with ReadOnlyReplica(tmp_path / "replica.db") as opened:
        yield opened


def numbers(page: Page) -> list[Any]:
    return [r.values["Size__c"] for r in page.records]


def found(reader: ReadOnlyReplica, *where: Filter) -> list[Any]:
    return numbers(reader.search("Widget__c", where=AllOf(where), limit=10))


def test_a_record_is_got_in_wire_form(reader: ReadOnlyReplica) -> None:
    """Whole and typed; a deleted one and an unknown one are not there."""
    got = reader.get("Widget__c", record_id(2))
    assert got is not None
    assert (got.id, got.values["Name"], got.values["Active__c"]) == (record_id(2), "Bolt", True)
    assert reader.get("Widget__c", record_id(9)) is None
    assert reader.get("Widget__c", "' OR 1=1 --") is None


def test_a_list_goes_on_behind_the_last_page(reader: ReadOnlyReplica) -> None:
    """Keyset paging, by Id and by a field; the last page says that it is the last."""
    first = reader.list("Widget__c", limit=3)
    second = reader.list("Widget__c", limit=3, after=first.next)
    assert (numbers(first), numbers(second), second.next) == ([0, 1, 2], [3, 4], None)
    by_name = reader.list("Widget__c", limit=10, order_by="Name desc", fields=["Size__c"])
    assert numbers(by_name) == [0, 4, 1, 2, 3]
    assert [list(r.values) for r in by_name.records] == [["Size__c"]] * 5
    assert reader.list("Widget__c", limit=5).next is None


def test_filters_hold_together(reader: ReadOnlyReplica) -> None:
    """Each operator, null, and booleans in wire form."""
    assert found(reader, Filter("Name", FilterOperator.EQ, "bolt")) == [1]
    assert found(reader, Filter("Name", FilterOperator.EQ, None)) == [3]
    assert found(reader, Filter("Name", FilterOperator.LIKE, containing("ÄRG"))) == [0]
    assert found(reader, Filter("Active__c", FilterOperator.EQ, value=False)) == [1, 3]
    assert found(reader, Filter("Size__c", FilterOperator.GT, 3)) == [4]
    assert found(reader, Filter("Price__c", FilterOperator.GTE, 1)) == [2, 3, 4]
    assert found(reader, Filter("Due__c", FilterOperator.LT, "2026-01-02")) == [0]
    both = (Filter("Size__c", FilterOperator.LTE, 2), Filter("Active__c", FilterOperator.EQ, value=True))
    assert found(reader, *both) == [0, 2]
    assert (reader.count("Widget__c", AllOf(both)), reader.count("Widget__c")) == (2, 5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"object_name": "Nope"}, "Nope"),
        ({"object_name": "change"}, "change"),
        ({"object_name": "Widget__c", "fields": ["_version"]}, "_version"),
        ({"object_name": "Widget__c", "order_by": "1; DROP TABLE change"}, "1;"),
        ({"object_name": "Widget__c", "order_by": "Name", "after": "x"}, "after"),
    ],
)
def test_what_is_not_there_is_named(reader: ReadOnlyReplica, arguments: dict[str, Any], says: str) -> None:
    """An unknown object or field is the asker's mistake."""
    with pytest.raises(ValueError, match=says):
        reader.list(**arguments, limit=10)


def test_the_figures_are_of_one_moment(session: Session, reader: ReadOnlyReplica) -> None:
    """What `status` shows."""
    session.run(lambda unit: unit.append([change(), change()]))
    session.run(lambda unit: unit.mark_published(1, NOW_MS))
    session.run(lambda unit: unit.enqueue(Message(topic="a", payload=b"")))
    session.run(lambda unit: unit.add_command(command("c1")))
    session.run(lambda unit: unit.count_call("2026-11-22T17", "load", 3))
    hole = session.run(lambda unit: unit.open_hole("Widget__c", NOW_MS, "x", NOW_MS))
    figures = reader.figures("2026-11-22T00")
    assert (figures.version, figures.published) == (2, 1)
    assert figures.objects == {"Widget__c": ObjectFigures(records=5, deleted=1)}
    assert figures.queues == {"outbox": 2, "commands": 1, "quarantine": 0, "dirty": 0}
    published, replica = figures.cursors
    assert (published.name, published.value, published.updated_ms) == ("published", "1", NOW_MS)
    assert (replica.name, replica.value) == ("replica", reader.identity())
    assert (figures.calls, figures.holes) == ({"load": 3}, [hole])
    assert reader.figures("2026-11-23T00").calls == {}
    assert reader.standing() == Standing(
        records={"Widget__c": 5}, queues={"outbox": 2, "commands": 1, "quarantine": 0, "dirty": 0}, holes=[hole]
    )


def test_a_snapshot_does_not_see_what_is_committed_meanwhile(session: Session, reader: ReadOnlyReplica) -> None:
    """Records and version of one answer belong together; the writer is not held up."""
    with reader.snapshot() as unit:
        assert unit.last_version() == 0
        session.run(lambda writing: writing.append([change()]))
        session.run(lambda writing: writing.put(WIDGET, [record(7)]))
        assert (unit.last_version(), reader.count("Widget__c")) == (0, 5)
    with reader.snapshot() as unit:
        assert (unit.last_version(), reader.count("Widget__c")) == (1, 6)


def test_a_reader_cannot_write(reader: ReadOnlyReplica) -> None:
    """Whatever method is called on its unit."""
    with pytest.raises(StoreUnusable, match="read-only"), reader.snapshot() as unit:
        unit.append([change()])
    assert reader.count("Widget__c") == 5


def test_threads_take_turns(reader: ReadOnlyReplica) -> None:
    """Queries are answered in worker threads, over one connection."""
    counts: list[int] = []
    threads = [Thread(target=lambda: counts.append(reader.count("Widget__c"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [5] * 8


def test_another_process_reads_while_the_daemon_runs(session: Session, tmp_path: Path) -> None:
    """The public tables, with nothing but Python's own sqlite3."""
    session.run(lambda unit: unit.append([change()]))
    script = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchall())"
    for sql, answer in (
        ("SELECT count(*) FROM widget__c_live", "[(5,)]"),
        ("SELECT version, object FROM change", "[(1, 'Widget__c')]"),
        ("SELECT name FROM cursor", "[('replica',)]"),
    ):
        done = subprocess.run(  # noqa: S603 - our own script
            [sys.executable, "-c", script, str(tmp_path / "replica.db"), sql],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        assert done.stdout.strip() == answer


def test_a_record_that_does_not_fit_begins_the_next_page(reader: ReadOnlyReplica) -> None:
    """A page is bounded by more than a number: whoever asks says where it is full."""
    page = reader.search("Widget__c", limit=10, fits=lambda r: r.values["Size__c"] < 2)
    assert numbers(page) == [0, 1]
    assert numbers(reader.list("Widget__c", limit=10, after=page.next)) == [2, 3, 4]
    assert reader.search("Widget__c", limit=10, fits=lambda _record: False) == Page([], None)


def test_changes_behind_a_version(session: Session, reader: ReadOnlyReplica) -> None:
    """In order, of one object or of all; never with a hole, and never for a version of another replica."""
    assert reader.changes(0, 10) == []
    session.run(lambda unit: unit.append([change(1), change(2, object="Other__c"), change(3)]))

    def versions(since: int, name: str | None = None, limit: int = 10) -> list[int] | None:
        found = reader.changes(since, limit, name)
        return None if found is None else [c.version for c in found]

    assert (versions(0), versions(1, limit=1), versions(3)) == ([1, 2, 3], [2], [])
    assert (versions(0, "Widget__c"), versions(0, "Nope")) == ([1, 3], [])
    assert versions(4) is None
    session.run(lambda unit: unit.mark_published(2, NOW_MS))
    session.run(lambda unit: unit.trim(NOW_MS + 100 * DAY_MS, DAY_MS, DAY_MS, 100))
    assert (versions(1), versions(2)) == (None, [3])
    session.run(lambda unit: unit.mark_published(3, NOW_MS))
    session.run(lambda unit: unit.trim(NOW_MS + 100 * DAY_MS, DAY_MS, DAY_MS, 100))
    assert (versions(2), versions(3)) == (None, [])


def test_commands_that_are_under_way_on_records(session: Session, reader: ReadOnlyReplica) -> None:
    """Unfinished ones and those whose change has not come back; of the named records alone."""
    waiting = command("waiting")
    done = command("done", status=CommandStatus.SUCCEEDED, completed_ms=NOW_MS)
    failed = command("failed", status=CommandStatus.FAILED, completed_ms=NOW_MS)
    other = command("other", record_id=record_id(2))
    for one in (waiting, done, failed, other):
        session.run(lambda unit, one=one: unit.add_command(one))  # type: ignore[misc]  # bound at once

    def ids(*numbers: int, since_ms: int = NOW_MS) -> list[str]:
        return [c.command_id for c in reader.pending("Widget__c", [record_id(n) for n in numbers], since_ms)]

    assert (ids(1), ids(1, 2), ids(3), ids()) == (["waiting", "done"], ["waiting", "done", "other"], [], [])
    assert ids(1, since_ms=NOW_MS + 1) == ["waiting"]
    session.run(lambda unit: unit.echo_seen("done", 7))
    assert ids(1) == ["waiting"]


def test_a_query_is_interrupted_at_its_limit(session: Session, reader: ReadOnlyReplica) -> None:
    """And the next one is not."""
    session.run(lambda unit: unit.put(WIDGET, [record(n, Name=f"name {n}") for n in range(100, 3000)]))
    slow = Filter("Name", FilterOperator.LIKE, "%x%y%")
    began_s = time.monotonic()
    with pytest.raises(QueryTooSlow, match="time limit"), reader.limited(0), reader.snapshot():
        reader.count("Widget__c", AllOf((slow,) * 90))
    assert time.monotonic() - began_s < 5
    with reader.limited(30):
        assert reader.count("Widget__c") == 2905


async def test_several_readers_answer_at_once(session: Session, tmp_path: Path) -> None:
    """One that takes its time holds up no other; each sees one moment, and none can write."""
    async with Readers(tmp_path / "replica.db", 2) as readers:
        gate, entered = Event(), Event()

        def slow(snapshot: Snapshot) -> tuple[int, int]:
            before = snapshot.count("Widget__c")
            entered.set()
            assert gate.wait(20)
            return before, snapshot.count("Widget__c")

        waiting = asyncio.create_task(readers.read(slow, timeout_s=30))
        await asyncio.to_thread(entered.wait, 20)
        session.run(lambda unit: unit.put(WIDGET, [record(7)]))
        assert await readers.read(lambda snapshot: snapshot.count("Widget__c"), timeout_s=30) == 6
        gate.set()
        assert await waiting == (5, 5)
        with pytest.raises(ValueError, match="Nope"):
            await readers.read(lambda snapshot: snapshot.count("Nope"), timeout_s=30)
        with pytest.raises(StoreUnusable, match="read-only"):
            await readers.read(lambda s: s._open.execute("DELETE FROM change_log"), timeout_s=30)  # type: ignore[attr-defined]  # a reader's own
        assert await readers.read(lambda snapshot: snapshot.version(), timeout_s=30) == 0
    with pytest.raises(StoreUnusable, match="closed"):
        await readers.read(lambda snapshot: snapshot.version(), timeout_s=30)


async def test_readers_of_what_is_not_there(tmp_path: Path) -> None:
    """The file is not made by reading."""
    with pytest.raises(StoreUnusable):
        async with Readers(tmp_path / "nothing.db", 2):
            pass
    assert not (tmp_path / "nothing.db").exists()


def test_what_moved_is_told_by_second_and_by_kind(session: Session, reader: ReadOnlyReplica) -> None:
    """Applied and published since the last look, each once; lag is commit to publishing."""
    committed = CommitInfo(timestamp_ms=NOW_MS - 40)
    later = change(3, applied_ms=NOW_MS + 1000, origin=Origin.POLL, commit=None)
    session.run(lambda unit: unit.append([change(1, commit=committed), change(2, commit=committed), later]))
    session.run(lambda unit: unit.mark_published(1, NOW_MS + 2))
    first = reader.movement(Moved(0, 0), most=10)
    second = NOW_MS // 1000
    assert first.upto == Moved(3, 1)
    assert first.applied == ((second, 2), (second + 1, 1))
    assert first.lags == ((second, 42),)
    session.run(lambda unit: unit.mark_published(3, NOW_MS + 1000))
    then = reader.movement(first.upto, most=10)
    assert (then.applied, then.lags) == ((), ((second + 1, 1040),))
    assert reader.movement(Moved(0, 0), most=1).applied == ((second + 1, 1),)
    assert [c.version for c in reader.newest_changes(2)] == [3, 2]
    updates = ChangeCount("Widget__c", Operation.UPDATE, Origin.STREAM, 2)
    assert reader.change_counts(0, most=2) == (2, (updates,))
    upto, counts = reader.change_counts(0, most=10)
    assert (upto, set(counts)) == (3, {updates, ChangeCount("Widget__c", Operation.UPDATE, Origin.POLL, 1)})
    assert reader.change_counts(3, most=10) == (3, ())
