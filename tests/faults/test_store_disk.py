"""The disk is full, or somebody keeps the database locked."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from connector.errors import StoreBusy, StoreFull
from connector.ports import Unit
from connector.store import ReadOnlyReplica, Session
from connector.store.session import WAL_BYTES
from tests.store_nouns import NOW_MS, WIDGET, change, command, record


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path / "replica.db") as opened:
        opened.run(lambda unit: unit.define(WIDGET))
        opened.run(lambda unit: unit.put(WIDGET, [record(1, Name="before")]))
        yield opened


def limit_pages(session: Session, pages: int) -> None:
    assert session._connection is not None
    session._connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()


def test_on_a_full_disk_nothing_of_the_unit_is_kept_and_the_error_is_told(session: Session) -> None:
    """StoreFull, not the failure of a rollback that SQLite has done already; with room again it goes on."""

    def much(unit: Unit) -> None:
        unit.set_cursor("x", "1", NOW_MS)
        unit.append([change() for _ in range(100)])
        unit.put(WIDGET, [record(n, Name="x" * 1000) for n in range(2000)])

    limit_pages(session, 60)
    for _ in range(2):
        with pytest.raises(StoreFull, match="make room"):
            session.run(much)
    assert session.run(lambda unit: (unit.count(WIDGET), unit.last_version(), unit.cursor("x"))) == (1, 0, None)
    limit_pages(session, 100_000)
    session.run(much)
    assert session.run(lambda unit: (unit.count(WIDGET), unit.last_version(), unit.cursor("x"))) == (2000, 100, "1")


def test_a_command_that_found_no_room_is_not_accepted(session: Session) -> None:
    """PUBACK goes by this: no error means on disk."""
    limit_pages(session, 1)
    with pytest.raises(StoreFull):
        session.run(lambda unit: [unit.add_command(command(f"c{n}", sender="x" * 2000)) for n in range(500)])
    assert session.run(lambda unit: unit.commands(None, 10)) == []


def test_a_write_lock_held_elsewhere_is_waited_for_then_told(session: Session, tmp_path: Path) -> None:
    """StoreBusy is transient: the same unit succeeds once the lock is free; readers are not disturbed."""
    other = apsw.Connection(str(tmp_path / "replica.db"))
    assert session._connection is not None
    session._connection.set_busy_timeout(20)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy):
        session.run(lambda unit: unit.append([change()]))
    with ReadOnlyReplica(tmp_path / "replica.db") as reader:
        assert reader.count("Widget__c") == 1
    other.execute("ROLLBACK")
    other.close()
    assert session.run(lambda unit: unit.append([change()])) == 1


def test_the_wal_is_cut_after_a_long_transaction(session: Session, tmp_path: Path) -> None:
    """One large unit must not leave its size on the disk for good."""
    wal = tmp_path / "replica.db-wal"
    session.run(lambda unit: unit.put(WIDGET, [record(n, Name="x" * 2000) for n in range(30_000)]))
    assert wal.stat().st_size > WAL_BYTES
    for number in range(3):
        session.run(lambda unit: unit.set_cursor("x", "1", NOW_MS))
        assert number >= 0
    assert wal.stat().st_size <= WAL_BYTES
