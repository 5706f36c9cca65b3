"""Readers of other programs beside the writer: they hold nothing up, and what they keep in use is told."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from structlog.testing import capture_logs

from connector.app import retention
from connector.store import Session
from connector.store.session import WAL_BYTES
from tests.store_nouns import WIDGET, record, record_id

_ROWS = 2000
_READER = """
import sqlite3, sys
connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, isolation_level=None)
connection.execute("BEGIN")
print(connection.execute("SELECT count(*), max(Size__c) FROM widget__c").fetchone(), flush=True)
sys.stdin.readline()
print(connection.execute("SELECT count(*), max(Size__c) FROM widget__c").fetchone(), flush=True)
"""


@contextmanager
def reading(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process in the middle of a read transaction."""
    with subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-c", _READER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline().strip() == f"({_ROWS}, 0)"
        try:
            yield process
        finally:
            process.stdin.close()


def written(session: Session, size: int) -> float:
    """Write every row anew; the longest time that one unit took, seconds."""
    longest_s = 0.0
    for start in range(0, _ROWS, 200):
        began_s = time.monotonic()
        rows = [record(n, Size__c=size, Name="x" * 200) for n in range(start, start + 200)]
        session.run(lambda unit, rows=rows: unit.put(WIDGET, rows))  # type: ignore[misc]  # bound at once
        longest_s = max(longest_s, time.monotonic() - began_s)
    return longest_s


def test_a_long_reader_holds_nothing_up(tmp_path: Path) -> None:
    """It goes on seeing its moment, the writer goes on; the WAL grows meanwhile, is told of, and shrinks afterwards."""
    path = tmp_path / "replica.db"
    wal = path.with_name("replica.db-wal")
    with Session(path) as session:
        session.run(lambda unit: unit.define(WIDGET))
        written(session, 0)
        with reading(path) as reader:
            size = 0
            while wal.stat().st_size <= retention.MUCH_WAL_BYTES:
                size += 1
                assert written(session, size) < 2.5  # half of what a unit that had to wait for a lock would take
            with capture_logs() as logs:
                retention.watch_wal(path)
            assert [entry["event"] for entry in logs] == ["store.wal_grown"]
            assert reader.stdin is not None
            assert reader.stdout is not None
            reader.stdin.write("\n")
            reader.stdin.flush()
            assert reader.stdout.readline().strip() == f"({_ROWS}, 0)"
        written(session, size + 1)  # is copied back, and the file begun again
        written(session, size + 2)
        assert wal.stat().st_size <= WAL_BYTES
        with capture_logs() as logs:
            retention.watch_wal(path)
        assert logs == []
        stored = session.run(lambda unit: unit.records(WIDGET, [record_id(0)]))
        assert stored[record_id(0)].values["Size__c"] == size + 2


def test_no_wal_is_nothing_to_tell(tmp_path: Path) -> None:
    """A file that was closed orderly has none."""
    with capture_logs() as logs:
        retention.watch_wal(tmp_path / "replica.db")
    assert logs == []
