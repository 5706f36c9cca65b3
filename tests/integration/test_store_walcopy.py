"""The WAL goes back into the file on a thread of its own, and is used anew."""

import threading
from pathlib import Path

import apsw
import pytest

from connector.store import Database
from connector.store import walcopy as walcopy_module
from connector.store.walcopy import WalCopy
from tests.store_nouns import change

FRAMES = 300


@pytest.fixture(autouse=True)
def short_wal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walcopy_module, "WAL_FRAMES", FRAMES)
    monkeypatch.setattr(walcopy_module, "MOST_FRAMES", 2 * FRAMES)


async def test_the_wal_is_bounded_and_nothing_is_lost(tmp_path: Path) -> None:
    """Ten times its length is written, by commits that do not wait for each other."""
    path = tmp_path / "r.db"
    async with Database(path) as database:
        for _ in range(300):
            await database.run(lambda unit: unit.append([change() for _ in range(10)]))
        wal_bytes = path.with_name("r.db-wal").stat().st_size
        assert wal_bytes < 4 * FRAMES * 1100
        assert path.stat().st_size > wal_bytes
        assert await database.run(lambda unit: unit.last_version()) == 3000
    reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    assert reader.execute("PRAGMA integrity_check").get == "ok"
    assert reader.execute("SELECT count(*) FROM change").get == 3000


async def test_commits_go_on_while_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copying is held up; only a WAL of twice its length would wait for it."""
    held, begun = threading.Event(), threading.Event()
    real = WalCopy._copy

    def copy(wal_copy: WalCopy) -> None:
        begun.set()
        assert threading.current_thread().name.startswith("walcopy")
        held.wait(10)
        real(wal_copy)

    monkeypatch.setattr(WalCopy, "_copy", copy)
    monkeypatch.setattr(walcopy_module, "MOST_FRAMES", 10**6)
    async with Database(tmp_path / "r.db") as database:
        while not begun.is_set():
            await database.run(lambda unit: unit.append([change()]))
        before = await database.run(lambda unit: unit.last_version())
        for _ in range(100):
            await database.run(lambda unit: unit.append([change()]))
        assert await database.run(lambda unit: unit.last_version()) == before + 100
        held.set()


async def test_a_long_reader_holds_it_up_and_breaks_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    async with Database(path) as database:
        await database.run(lambda unit: unit.append([change()]))
        reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM change").get == 1
        for _ in range(100):
            await database.run(lambda unit: unit.append([change() for _ in range(10)]))
        assert reader.execute("SELECT count(*) FROM change").get == 1
        reader.close()
        for _ in range(100):
            await database.run(lambda unit: unit.append([change() for _ in range(10)]))
        assert await database.run(lambda unit: unit.last_version()) == 2001


async def test_a_copying_that_fails_is_done_by_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it would be without one: a full disk is told by a commit."""

    def full(*_: object) -> None:
        raise apsw.FullError

    path = tmp_path / "r.db"
    async with Database(path) as database:
        monkeypatch.setattr("apsw.Connection", full)
        for _ in range(100):
            await database.run(lambda unit: unit.append([change() for _ in range(10)]))
        assert path.with_name("r.db-wal").stat().st_size < 4 * FRAMES * 1100
