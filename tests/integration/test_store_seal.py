"""The seal of a file that was closed sound: what it spares, what breaks it, and that damage is found all the same."""

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from connector.errors import StoreUnusable
from connector.store import Database, ReadOnlyReplica, Session
from connector.store.backup import backup, restore
from connector.store.checks import read_whole
from connector.store.pace import MOST_WAL_BYTES, Pace
from connector.store.seal import seal, sealed
from connector.store.session import PAGE_BYTES
from tests.store_nouns import NOW_MS, WIDGET, change, command, record, record_id
from tests.waiting import until

ROWS = 3000
Step = Callable[[Path], None]


def bytes_read() -> int:
    """By this process, since it began."""
    return int(Path("/proc/self/io").read_text(encoding="utf-8").split()[1])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A replica of a thousand pages and more, with all its indexes; closed sound."""
    made = tmp_path / "replica.db"
    with Session(made) as session:
        session.run(lambda unit: unit.define(WIDGET))
        session.run(lambda unit: unit.put(WIDGET, [record(n, Name=f"word{n} " * 40) for n in range(ROWS)]))
        while session.run(lambda unit: unit.extend_indexes("Widget__c", 1000)):
            pass
    assert sealed(made)
    return made


def damage(path: Path, part: int = 2) -> None:
    """Pages in the middle, or the first of so many parts, are overwritten in place."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // part // PAGE_BYTES * PAGE_BYTES)
        file.write(b"\xa5" * PAGE_BYTES * 4)


def decay(path: Path) -> None:
    """The disk loses what it held, and nothing tells: the seal still fits."""
    damage(path)
    seal(path)


def lose_words(path: Path) -> None:
    """What a text index says is lost, its pages are whole."""
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute(
            "UPDATE widget__c_search_data SET block = zeroblob(length(block)) WHERE id = "
            "(SELECT id FROM widget__c_search_data ORDER BY length(block) DESC LIMIT 1)"
        )
        assert connection.changes() == 1


def test_a_sealed_file_is_opened_without_being_read(path: Path) -> None:
    """A few pages in place of all; without a seal all of them, and for who does not read later in any case."""
    size, before = path.stat().st_size, bytes_read()
    with Session(path, read_later=True) as session:
        assert session.run(lambda unit: len(unit.records(WIDGET, [record_id(7)]))) == 1
        assert bytes_read() - before < size / 20
        assert not sealed(path)
    for read_later in (True, False):  # the one above was never read: it is not sealed
        before = bytes_read()
        with Session(path, read_later=read_later):
            assert bytes_read() - before >= size
        assert sealed(path)


def edited(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content)


def set_back(path: Path) -> None:
    """The clock is no witness: neither of a file whose times were set, nor of one set back to what they were."""
    before = path.stat()
    damage(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def copied(path: Path) -> None:
    """With its times, over the file itself, by way of another."""
    shutil.copy2(path, path.with_name("copy"))
    path.with_name("copy").rename(path)


def restored(path: Path) -> None:
    restore(backup(path, path.parent / "backups", now_ms=NOW_MS), path)


def queued(path: Path) -> None:
    """A guest wrote, and its changes were copied back."""
    with Session(path, guest=True) as guest:
        guest.run(lambda unit: unit.add_command(command("c1")))


def queued_and_died(path: Path) -> None:
    """A guest wrote, and was killed: all that it wrote is in the WAL."""
    child = os.fork()
    if child == 0:
        guest = Session(path, guest=True)
        guest.open()
        guest.run(lambda unit: unit.add_command(command("c1")))
        os._exit(0)
    os.waitpid(child, 0)
    assert path.with_name("replica.db-wal").stat().st_size


def torn(path: Path) -> None:
    """Power failed while it was sealed."""
    mark = path.with_name("replica.db.seal")
    mark.write_bytes(mark.read_bytes()[:-3])


def unreadable(path: Path) -> None:
    path.with_name("replica.db.seal").write_bytes(b"\xff" * 5_000_000)


def a_pipe(path: Path) -> None:
    """Would be waited at for ever."""
    path.with_name("replica.db.seal").unlink()
    os.mkfifo(path.with_name("replica.db.seal"))


@pytest.mark.parametrize(
    "step",
    [edited, damage, set_back, copied, restored, queued, queued_and_died, torn, unreadable, a_pipe],
)
def test_who_touches_the_file_breaks_its_seal(path: Path, step: Step) -> None:
    """It is read whole before it is opened: what is damaged is refused untouched, the rest is sealed again."""
    step(path)
    assert not sealed(path)
    if step in (damage, set_back):
        content = path.read_bytes()
        with pytest.raises(StoreUnusable, match=r"damaged.*restore a backup"):
            Session(path, read_later=True).open()
        assert path.read_bytes() == content
        assert not sealed(path)
        return
    before = bytes_read()
    with Session(path, read_later=True):
        assert bytes_read() - before >= path.stat().st_size
    assert sealed(path)


def test_who_only_reads_leaves_the_seal(path: Path) -> None:
    """Ours, and any other program, though it makes a WAL beside the file and clears it away."""
    with ReadOnlyReplica(path) as reader:
        assert reader.version() == 0
    read = (
        "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM widget__c').fetchone())"
    )
    told = subprocess.run([sys.executable, "-c", read, str(path)], check=True, capture_output=True, text=True)  # noqa: S603 - our own script
    assert told.stdout == f"({ROWS},)\n"
    assert sealed(path)


def test_a_seal_that_is_a_link_leads_nowhere(path: Path, tmp_path: Path) -> None:
    """Taken away before anything is written, whatever it points at stays."""
    mark, other = path.with_name("replica.db.seal"), tmp_path / "other"
    mark.unlink()
    other.write_bytes(b"precious")
    mark.symlink_to(other)
    with Session(path, read_later=True):
        assert not mark.is_symlink()
    assert other.read_bytes() == b"precious"


def test_a_seal_that_cannot_be_broken_lets_nobody_write(path: Path) -> None:
    """Else it would tell of a file that has been written to since."""
    before = path.read_bytes()
    mark = path.with_name("replica.db.seal")
    mark.unlink()
    mark.mkdir()
    with pytest.raises(StoreUnusable, match=r"replica\.db\.seal cannot be removed"):
        Session(path).open()
    assert path.read_bytes() == before


def test_a_file_that_was_killed_over_is_not_sealed(path: Path) -> None:
    """From before the first write to behind the last one: at whatever point the process dies, no seal is left."""
    for ends in (lambda _session: None, lambda session: session.run(lambda unit: unit.append([change()]))):
        child = os.fork()
        if child == 0:
            session = Session(path, read_later=True)
            session.open()
            ends(session)
            os._exit(0)
        os.waitpid(child, 0)
        assert not path.with_name("replica.db.seal").exists()
        with Session(path):
            pass
        assert sealed(path)


def test_a_link_is_sealed_where_the_file_is(path: Path, tmp_path: Path) -> None:
    """The WAL and the lock stand there, too."""
    link = tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(path)
    with Session(link, read_later=True):
        assert not sealed(path)
    with Session(link):
        pass
    assert sealed(path)
    assert [p.name for p in link.parent.iterdir()] == ["link.db"]


def test_a_reader_that_stays_leaves_the_file_unsealed(path: Path) -> None:
    """What was committed cannot all be copied back while it reads; closing does not wait for it."""
    with ReadOnlyReplica(path) as reader, reader.snapshot() as seen:
        seen.last_version()
        with Session(path) as session:
            session.run(lambda unit: unit.append([change()]))
        assert not sealed(path)
    with ReadOnlyReplica(path) as reader, Session(path) as session:  # one that only has it open is in nobody's way
        session.run(lambda unit: unit.append([change()]))
        session.close()
        assert sealed(path)
        assert reader.version() == 2
    assert sealed(path)


def test_a_damage_that_a_unit_met_is_never_sealed(path: Path) -> None:
    """The next start reads all of it, and refuses."""
    session = Session(path, read_later=True)
    session.open()
    session.sound = True  # as if it was read, and lost after that
    damage(path, part=8)  # among the rows
    with pytest.raises(StoreUnusable, match="damaged"):
        session.run(lambda unit: [unit.records(WIDGET, [record_id(n)]) for n in range(ROWS)])
    session.close()
    assert not sealed(path)
    with pytest.raises(StoreUnusable, match="damaged"):
        Session(path, read_later=True).open()


def test_words_that_were_lost_are_found_by_a_backup(path: Path) -> None:
    """A start does not read them, which would take thrice as long; the backup of every night does."""
    lose_words(path)
    with Session(path):
        pass
    with pytest.raises(StoreUnusable, match="damaged"):
        backup(path, path.parent / "backups", now_ms=NOW_MS)


async def test_what_the_disk_lost_is_found_later(path: Path) -> None:
    """With the words that a start would have used; and it is not sealed."""
    decay(path)
    async with Database(path, read_later=True) as database:
        assert await database.run(lambda unit: unit.last_version()) == 0
        with pytest.raises(StoreUnusable, match=r"damaged.*restore a backup"):
            await database.prove()
    assert not sealed(path)


async def test_a_file_is_sealed_once_it_is_proved(path: Path) -> None:
    """Though units went on meanwhile; reading them is part of it."""
    async with Database(path, read_later=True) as database:
        proving = asyncio.create_task(database.prove())
        written = 0
        while not proving.done():
            written = await database.run(lambda unit: unit.append([change()]))
        assert await proving
        assert written
    assert sealed(path)
    with Session(path) as session:
        assert session.run(lambda unit: unit.last_version()) == written


async def test_reading_gives_up_when_the_wal_has_grown(path: Path) -> None:
    """Nothing is proved then; another time it is."""
    with (path.with_name("replica.db-wal")).open("wb") as wal:
        os.truncate(wal.fileno(), MOST_WAL_BYTES + 1)
    pace = Pace(path)
    pace._since_s -= 1.0  # it has worked so long
    assert await asyncio.to_thread(read_whole, path, pace.interrupted) is False
    path.with_name("replica.db-wal").unlink()
    assert await asyncio.to_thread(read_whole, path, Pace(path).interrupted) is True


async def test_reading_ends_with_the_daemon(path: Path) -> None:
    """Cancelled, it lets go of the file at once; what is not proved is not sealed."""
    async with Database(path, read_later=True) as database:
        proving = asyncio.create_task(database.prove())
        await until(lambda: any(t.name.startswith("asyncio_") for t in threading.enumerate()) or proving.done())
        proving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await proving
    assert not sealed(path)
