"""Backups: of one moment, beside a writer, one file that opens anywhere; and what takes the replica's place."""

import os
import shutil
import threading
from contextlib import closing
from pathlib import Path
from typing import Self

import apsw
import pytest

from connector.errors import StoreFull, StoreLocked, StoreUnusable
from connector.model.message import Message
from connector.ports import Unit
from connector.store import ReadOnlyReplica, Session
from connector.store import backup as copies
from connector.store.columns import iso
from connector.store.migrate import SCHEMA_VERSION
from tests.store_nouns import NOW_MS, WIDGET, change, record

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A replica of ten records, whose three changes are published."""
    path = tmp_path / "data" / "replica.db"
    with Session(path) as session:
        session.run(lambda unit: unit.define(WIDGET))
        session.run(lambda unit: unit.put(WIDGET, [record(n, Name=f"n{n}", version=3) for n in range(10)]))
        session.run(lambda unit: unit.append([change(), change(), change()]))
        session.run(lambda unit: unit.mark_published(3, NOW_MS))
    return path


class Writer:
    """Commits 50 records and 50 changes at a time in a thread of its own, as beside a daemon."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.commits = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        with Session(self._path) as session:
            while not self._stop.is_set():
                session.run(self._some)
                self.commits += 1

    def _some(self, unit: Unit) -> None:
        unit.put(WIDGET, [record((self.commits + 1) * 50 + n, Name="x" * 500) for n in range(50)])
        unit.append([change()] * 50)


def counts(path: Path) -> tuple[int, int]:
    """Records and changes; the writer keeps records = changes + 7."""
    with ReadOnlyReplica(path) as replica, replica.snapshot() as unit:
        return unit.count(WIDGET), unit.last_version()


def test_a_backup_beside_a_writer_is_of_one_moment(path: Path, tmp_path: Path) -> None:
    """Whole transactions, however much is written meanwhile; the writer goes on."""
    steps: list[tuple[int, int, int]] = []
    with Writer(path) as writer:
        for n in range(5):
            made = copies.backup(
                path,
                tmp_path / "copies",
                now_ms=NOW_MS + n * 1000,
                progress=lambda done, total: steps.append((done, total, writer.commits)),
            )
            records, changes = counts(made)
            assert records == changes + 7
            assert sorted(made.parent.glob(f"{made.name}*")) == [made]
    assert steps[-1][0] == steps[-1][1]
    assert steps[-1][2] > steps[0][2]
    assert len(copies.backups(tmp_path / "copies")) == 5
    assert copies.taken_ms(made) == (NOW_MS + 4000) // 1000 * 1000


def test_a_backup_opens_where_nothing_can_be_written(path: Path, tmp_path: Path) -> None:
    """It needs no WAL beside it: a card that is mounted read-only will do."""
    made = copies.backup(path, tmp_path / "copies", now_ms=NOW_MS)
    with apsw.Connection(
        f"file:{made}?mode=ro&immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    ) as db:
        assert db.execute("PRAGMA journal_mode").get == "delete"
        assert db.execute("PRAGMA integrity_check").get == "ok"
        assert db.execute("SELECT count(*) FROM widget__c").get == 10


def test_a_disk_without_room_is_not_filled(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The replica needs the room more than its copy does."""
    monkeypatch.setattr(copies, "SPARE_BYTES", 2**60)
    with pytest.raises(StoreFull, match="bytes are free"):
        copies.backup(path, tmp_path / "copies", now_ms=NOW_MS)
    assert list((tmp_path / "copies").iterdir()) == []


def test_what_a_crash_left_is_removed(path: Path, tmp_path: Path) -> None:
    """A copy that was not finished never has a backup's name."""
    folder = tmp_path / "copies"
    folder.mkdir()
    (folder / "salesforce-20200101T000000Z.db.partial").write_bytes(b"half")
    (folder / "salesforce-20200101T000000Z.db.partial-journal").write_bytes(b"half")
    made = copies.backup(path, folder, now_ms=NOW_MS)
    assert list(folder.iterdir()) == [made]


def test_old_backups_go_and_the_newest_stays(path: Path, tmp_path: Path) -> None:
    """A replica that nobody could back up for a month still has its last backup; other files are left alone."""
    folder = tmp_path / "copies"
    made = [copies.backup(path, folder, now_ms=NOW_MS + day * DAY_MS) for day in range(4)]
    (folder / "salesforce-notes.db").write_bytes(b"mine")
    assert copies.prune(folder, before_ms=NOW_MS + 2 * DAY_MS) == made[:2]
    assert copies.prune(folder, before_ms=NOW_MS + 100 * DAY_MS) == made[2:3]
    assert copies.backups(folder) == made[3:]
    assert (folder / "salesforce-notes.db").exists()


def test_a_missing_replica_has_no_backup(tmp_path: Path) -> None:
    """An empty file would look like one."""
    with pytest.raises(StoreUnusable, match="no replica"):
        copies.backup(tmp_path / "none.db", tmp_path / "copies", now_ms=NOW_MS)


def test_a_restored_replica_goes_on_behind_every_version_given_out(path: Path, tmp_path: Path) -> None:
    """Changes made since the backup are made again, under new numbers; nobody takes them for ones that he has."""
    made = copies.backup(path, tmp_path / "copies", now_ms=NOW_MS)
    with Session(path) as session:
        session.run(lambda unit: unit.append([change()] * 4))
        session.run(lambda unit: unit.put(WIDGET, [record(77, Name="later")]))
    aside = copies.restore(made, path)
    assert aside is not None
    assert counts(aside) == (11, 7)
    with Session(path) as session:
        assert session.run(lambda unit: (unit.count(WIDGET), unit.last_version())) == (10, 1_000_000)
        assert session.run(lambda unit: unit.queue_depths())["outbox"] == 0
        session.run(lambda unit: unit.append([change()]))
        session.run(lambda unit: unit.enqueue(Message(topic="t", payload=b"")))
        assert [c.version for c in session.run(lambda unit: unit.unpublished(9))] == [1_000_001]
        session.run(lambda unit: unit.mark_published(1_000_001, NOW_MS))
        assert [m.message.topic for m in session.run(lambda unit: unit.due(9))] == ["t"]


def test_power_fails_while_the_present_replica_is_moved_aside(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed daemon committed last is in the WAL alone: file and WAL are never torn apart."""
    made = copies.backup(path, tmp_path / "backups", now_ms=NOW_MS)
    killed = tmp_path / "killed" / path.name
    killed.parent.mkdir()
    with Session(path) as session:
        session.run(lambda unit: unit.append([change()]))
        for name in (path.name, f"{path.name}-wal"):
            shutil.copy(path.with_name(name), killed.with_name(name))
    renamed: list[Path] = []
    rename = Path.rename

    def rename_once(file: Path, target: Path) -> Path:
        if renamed:
            raise OSError("the power fails")
        renamed.append(target)
        return rename(file, target)

    monkeypatch.setattr(Path, "rename", rename_once)
    with pytest.raises(OSError, match="the power fails"):
        copies.restore(made, killed)
    left = killed if killed.exists() else renamed[0]
    assert apsw.Connection(str(left)).execute("SELECT max(version) FROM change").get == 4


def test_a_wal_that_was_left_alone_does_not_come_to_stand_beside_the_backup(path: Path, tmp_path: Path) -> None:
    """SQLite would read it as the backup's own."""
    made = copies.backup(path, tmp_path / "backups", now_ms=NOW_MS)
    place = tmp_path / "elsewhere" / path.name
    place.parent.mkdir()
    place.with_name(f"{path.name}-wal").write_bytes(b"of another file")
    assert copies.restore(made, place) is None
    assert not place.with_name(f"{path.name}-wal").exists()


def published_at(path: Path) -> list[str | None]:
    """Of each change in the log."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as reader:
        return [row[0] for row in reader.execute("SELECT published_at FROM change ORDER BY version")]


def test_what_was_not_published_is_published_after_a_restore(path: Path, tmp_path: Path) -> None:
    """Under numbers behind the leap, with the messages that wait for it and the records that carry it."""
    with Session(path) as session:
        session.run(lambda unit: unit.append([change(), change()]))
        session.run(lambda unit: unit.enqueue(Message(topic="after", payload=b"")))
        session.run(lambda unit: unit.put(WIDGET, [record(1, Name="b", version=5)]))
    made = copies.backup(path, tmp_path / "copies", now_ms=NOW_MS)
    path.unlink()
    assert copies.restore(made, path) is None
    with Session(path) as session:
        assert [c.version for c in session.run(lambda unit: unit.unpublished(9))] == [1_000_001, 1_000_002]
        assert session.run(lambda unit: unit.changes(0, 9, "Widget__c")) == session.run(lambda unit: unit.changes(0, 9))
        assert session.run(lambda unit: unit.queue_depths())["outbox"] == 3
        assert session.run(lambda unit: unit.due(9)) == []
        assert published_at(path) == [iso(NOW_MS)] * 3 + [None] * 2
        session.run(lambda unit: unit.mark_published(1_000_002, NOW_MS + 1))
        assert published_at(path) == [iso(NOW_MS)] * 3 + [iso(NOW_MS + 1)] * 2
        assert [m.after_version for m in session.run(lambda unit: unit.due(9))] == [1_000_002]
        one = record(1)
        assert session.run(lambda unit: unit.records(WIDGET, [one.id]))[one.id].version == 1_000_002


def test_nothing_is_restored_under_a_running_daemon(path: Path, tmp_path: Path) -> None:
    """Its file would be gone under its hands."""
    made = copies.backup(path, tmp_path / "copies", now_ms=NOW_MS)
    with Session(path) as session:
        with pytest.raises(StoreLocked):
            copies.restore(made, path)
        assert session.run(lambda unit: unit.count(WIDGET)) == 10


def test_a_damaged_backup_is_refused(path: Path, tmp_path: Path) -> None:
    """The replica in place stays."""
    made = copies.backup(path, tmp_path / "copies", now_ms=NOW_MS)
    before = path.read_bytes()
    with made.open("r+b") as file:
        file.seek(os.path.getsize(made) // 2)  # noqa: PTH202 - as bytes of the file
        file.write(os.urandom(4096))
    with pytest.raises(StoreUnusable, match="damaged"):
        copies.restore(made, path)
    shutil.copy(path, tmp_path / "other.db")
    foreign = tmp_path / "foreign.db"
    apsw.Connection(str(foreign)).execute("CREATE TABLE t (x)")
    with pytest.raises(StoreUnusable, match="another program"):
        copies.restore(foreign, path)
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*before-restore*"))


def test_a_copy_that_cannot_be_read_is_no_backup(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that wrote something else is found out now, not on the day of need."""
    copy = copies._copy

    def flipped(source: apsw.Connection, target: Path, progress: copies.Progress) -> None:
        copy(source, target, progress)
        with target.open("r+b") as file:
            file.seek(os.path.getsize(target) // 2)  # noqa: PTH202 - as bytes of the file
            file.write(os.urandom(4096))

    monkeypatch.setattr(copies, "_copy", flipped)
    with pytest.raises(StoreUnusable, match="damaged"):
        copies.backup(path, tmp_path / "copies", now_ms=NOW_MS)
    assert list((tmp_path / "copies").iterdir()) == []


def migrated(path: Path) -> None:
    """What a newer release does to the replica when it is started first."""
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("CREATE TABLE newer (x)")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


def test_going_back_over_a_migration_gives_no_version_out_twice(path: Path, tmp_path: Path) -> None:
    """The older release refuses the newer file and says what to do; the upgrade's backup goes on behind both."""
    with Session(path) as session:
        session.run(lambda unit: unit.restart_log(999_999, NOW_MS))
    made = copies.backup(path, tmp_path / "copies", now_ms=NOW_MS)
    with Session(path) as session:
        session.run(lambda unit: unit.append([change()] * 5))
        session.run(lambda unit: unit.put(WIDGET, [record(77, Name="by the newer release")]))
    migrated(path)
    before = path.read_bytes()
    with pytest.raises(StoreUnusable, match=r"newer salesforce-sync.*install that version again"):
        Session(path).open()
    with pytest.raises(StoreUnusable, match="newer salesforce-sync"):
        copies.backup(path, tmp_path / "copies", now_ms=NOW_MS + DAY_MS)
    assert path.read_bytes() == before
    assert copies.backups(tmp_path / "copies") == [made]

    aside = copies.restore(made, path)

    assert counts(path) == (10, 2_000_000)  # 1,000,004 was given out
    assert aside is not None
    with closing(apsw.Connection(str(aside), flags=apsw.SQLITE_OPEN_READONLY)) as newer:
        assert newer.execute("PRAGMA user_version").get == SCHEMA_VERSION + 1
        assert newer.execute("SELECT count(*) FROM widget__c").get == 11
    with pytest.raises(StoreUnusable, match="newer salesforce-sync"):
        copies.restore(aside, path)
    assert counts(path) == (10, 2_000_000)
