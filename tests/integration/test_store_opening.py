"""Opening: what is refused keeps its bytes, and says what to do."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from connector.errors import StoreUnusable
from connector.store import ReadOnlyReplica, Session
from connector.store.migrate import APPLICATION_ID, SCHEMA_VERSION
from connector.store.session import PAGE_BYTES, WAL_BYTES
from tests.store_nouns import NOW_MS, WIDGET, change, command, record

Spoil = Callable[[Path], None]


def fill(path: Path) -> None:
    """A replica of a few hundred pages."""
    with Session(path) as session:
        session.run(lambda unit: unit.define(WIDGET))
        session.run(lambda unit: unit.put(WIDGET, [record(n, Name="x" * 500) for n in range(2000)]))


def not_sqlite(path: Path) -> None:
    path.write_bytes(b"these are notes, not a database\n" * 500)


def zeroed(path: Path) -> None:
    path.write_bytes(b"\0" * PAGE_BYTES * 3)


def of_another_program(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = WAL; CREATE TABLE note (text TEXT)").fetchall()
    connection.close()


def marked_by_another_program(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA application_id = 7; PRAGMA user_version = 1")
    connection.close()


def newer(path: Path) -> None:
    fill(path)
    connection = apsw.Connection(str(path))
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()


def truncated(path: Path) -> None:
    fill(path)
    os.truncate(path, path.stat().st_size // 2 // PAGE_BYTES * PAGE_BYTES)


def scribbled_on(path: Path) -> None:
    fill(path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // PAGE_BYTES * PAGE_BYTES
    data[middle : middle + PAGE_BYTES * 4] = b"\xa5" * PAGE_BYTES * 4
    path.write_bytes(data)


def head_damaged(path: Path) -> None:
    fill(path)
    data = bytearray(path.read_bytes())
    data[100:PAGE_BYTES] = b"\xa5" * (PAGE_BYTES - 100)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (not_sqlite, "set storage.path to another file"),
        (zeroed, "set storage.path to another file"),
        (of_another_program, "another program: set storage.path"),
        (marked_by_another_program, "another program: set storage.path"),
        (newer, "install that version again"),
        (truncated, "damaged.*restore a backup"),
        (scribbled_on, "damaged.*restore a backup"),
        (head_damaged, "damaged.*restore a backup"),
    ],
)
def test_a_file_that_is_not_a_replica_of_ours_keeps_its_bytes(tmp_path: Path, spoil: Spoil, says: str) -> None:
    """Refused with what to do, and not a byte of it written; the lock is given back."""
    path = tmp_path / "replica.db"
    spoil(path)
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(StoreUnusable, match=says):
            Session(path).open()
    assert path.read_bytes() == before
    if spoil in (of_another_program, newer):
        for opened in (ReadOnlyReplica(path), Session(path, guest=True)):
            with pytest.raises(StoreUnusable, match=says):
                opened.open()
        assert path.read_bytes() == before


def test_a_newer_version_that_is_only_in_the_wal_is_seen(tmp_path: Path) -> None:
    """After a crash the file's own head may be older than the database."""
    path, copy = tmp_path / "replica.db", tmp_path / "crashed.db"
    fill(path)
    connection = apsw.Connection(str(path))
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    for suffix in ("", "-wal"):
        Path(f"{copy}{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())
    connection.close()
    before = copy.read_bytes()
    with pytest.raises(StoreUnusable, match="newer"):
        Session(copy).open()
    assert copy.read_bytes() == before


def test_a_new_file_and_its_folder_are_made(tmp_path: Path) -> None:
    """`data/` need not be there; an empty file and one whose making was cut short are new as well."""
    cut_short = tmp_path / "cut.db"
    connection = apsw.Connection(str(cut_short))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    (tmp_path / "empty.db").touch()
    for path in (tmp_path / "data" / "deep" / "replica.db", cut_short, tmp_path / "empty.db"):
        with Session(path) as session:
            session.run(lambda unit: unit.append([change()]))
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        marks = [connection.execute(f"PRAGMA {name}").get for name in ("application_id", "user_version")]
        assert [*marks, connection.execute("PRAGMA journal_mode").get] == [APPLICATION_ID, SCHEMA_VERSION, "wal"]
        connection.close()


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    """A folder, and a folder that cannot be made."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "folder", tmp_path / "file" / "replica.db"):
        with pytest.raises(StoreUnusable, match=r"storage\.path"):
            Session(path).open()


def test_a_second_daemon_is_kept_off_and_told_who_runs(tmp_path: Path) -> None:
    """Also by way of a link; the first goes on undisturbed, and the lock ends with it."""
    path, link = tmp_path / "replica.db", tmp_path / "link.db"
    link.symlink_to(path)
    with Session(path) as first:
        for other in (path, link):
            with pytest.raises(StoreUnusable, match=f"in use by another salesforce-sync .process {os.getpid()}"):
                Session(other).open()
        assert first.run(lambda unit: unit.append([change()])) == 1
    with Session(link) as second:
        assert second.run(lambda unit: unit.last_version()) == 1


def test_readers_and_guests_do_not_take_the_lock(tmp_path: Path) -> None:
    """A command queued by another process is seen by the daemon, which learns of it from `data_version`."""
    path = tmp_path / "replica.db"
    with Session(path) as daemon, ReadOnlyReplica(path) as reader:
        daemon.run(lambda unit: unit.append([change()]))
        before = daemon.data_version()
        daemon.run(lambda unit: unit.append([change()]))
        assert daemon.data_version() == before
        with Session(path, guest=True) as guest:
            guest.run(lambda unit: unit.add_command(command("c1")))
        assert daemon.data_version() != before
        assert len(daemon.run(lambda unit: unit.next_commands(NOW_MS, 10))) == 1
        with reader.snapshot() as unit:
            assert unit.command("c1") is not None
    with Session(path, guest=True) as alone:
        alone.run(lambda unit: unit.add_command(command("c2")))
    with Session(path) as daemon:
        assert len(daemon.run(lambda unit: unit.commands(None, 10))) == 2


def test_readers_and_guests_make_nothing(tmp_path: Path) -> None:
    """Without a replica they say what to run."""
    missing = tmp_path / "data" / "no.db"
    for opened in (ReadOnlyReplica(missing), Session(missing, guest=True)):
        with pytest.raises(StoreUnusable, match="salesforce-sync sync"):
            opened.open()
    assert not missing.parent.exists()


def test_a_closed_session_says_so(tmp_path: Path) -> None:
    """No work is taken before opening or after closing; closing twice is fine."""
    session = Session(tmp_path / "replica.db")
    with pytest.raises(StoreUnusable, match="closed"):
        session.run(lambda unit: unit.last_version())
    session.open()
    session.close()
    session.close()
    with pytest.raises(StoreUnusable, match="closed"):
        session.data_version()


def test_a_commit_waits_for_the_disk_and_the_wal_is_bounded(tmp_path: Path) -> None:
    """The pragmas that the promises rest on."""
    with Session(tmp_path / "replica.db") as session:
        connection = session._connection
        assert connection is not None
        pragmas = ("synchronous", "foreign_keys", "wal_autocheckpoint", "journal_size_limit", "busy_timeout")
        assert [connection.execute(f"PRAGMA {name}").get for name in pragmas] == [2, 1, 30000, WAL_BYTES, 5000]
        assert connection.execute("PRAGMA page_size").get == PAGE_BYTES


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("read_only", ["file", "folder"])
def test_a_read_only_place_is_refused(open_folder: Path, read_only: str) -> None:
    """As a user who may not write there; root may write anywhere, so a child process becomes somebody else."""
    path = open_folder / "replica.db"
    fill(path)
    open_folder.chmod(0o555 if read_only == "folder" else 0o777)
    path.chmod(0o444 if read_only == "file" else 0o666)
    before = path.read_bytes()
    assert "is read-only for this user" in _opened_as_nobody(path)
    assert path.read_bytes() == before


def _opened_as_nobody(path: Path) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        answer = "opened"
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            Session(path).open()
        except BaseException as error:  # noqa: BLE001 - the child must end here, whatever happens
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read().decode()
    os.waitpid(child, 0)
    return answer


def test_a_file_has_an_id_that_stays(tmp_path: Path) -> None:
    """Made with the file, the same at every opening; a file that is made anew has another one."""
    seen = []
    for name in ("a.db", "a.db", "b.db"):
        with Session(tmp_path / name) as session:
            seen.append(session.run(lambda unit: unit.identity()))
    assert len(seen[0]) == 32
    assert seen[0] == seen[1] != seen[2]
