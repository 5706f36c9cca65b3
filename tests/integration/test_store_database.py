"""The database thread: turns, cancellation, closing."""

import asyncio
import threading
from pathlib import Path

import pytest

from connector.errors import StoreUnusable
from connector.ports import Replica, Unit
from connector.store import Database, Session
from tests.store_nouns import change


async def test_it_is_the_replica_of_the_ports(tmp_path: Path) -> None:
    """The types agree, units run on a thread of their own and give their result back."""
    async with Database(tmp_path / "replica.db") as database:
        replica: Replica = database
        assert await replica.run(lambda unit: unit.append([change()])) == 1
        assert await replica.run(lambda _: threading.current_thread().name) != threading.current_thread().name
    with pytest.raises(StoreUnusable, match="closed"):
        await database.run(lambda unit: unit.last_version())


async def test_a_unit_that_raises_leaves_nothing(tmp_path: Path) -> None:
    """The error comes through as it is, and the next unit finds nothing of it."""

    def fail(unit: Unit) -> None:
        unit.append([change()])
        unit.set_cursor("x", "1", 0)
        raise ZeroDivisionError

    async with Database(tmp_path / "replica.db") as database:
        with pytest.raises(ZeroDivisionError):
            await database.run(fail)
        assert await database.run(lambda unit: (unit.last_version(), unit.cursor("x"))) == (0, None)


async def test_a_begun_unit_finishes_although_the_caller_is_cancelled(tmp_path: Path) -> None:
    """It commits; one that still waits for its turn is dropped; the next one sees the first one's work."""
    begun, go_on = threading.Event(), threading.Event()

    def slow(unit: Unit) -> None:
        begun.set()
        assert go_on.wait(20)
        unit.append([change()])

    async with Database(tmp_path / "replica.db") as database:
        first = asyncio.create_task(database.run(slow))
        await asyncio.to_thread(begun.wait, 20)
        second = asyncio.create_task(database.run(lambda unit: unit.append([change()])))
        await asyncio.sleep(0)
        for task in (first, second):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        go_on.set()
        assert await database.run(lambda unit: unit.last_version()) == 1


async def test_closing_waits_for_the_begun_unit_even_if_cancelled(tmp_path: Path) -> None:
    """What was begun before the end is on disk, and the lock is free when the thread has ended."""
    begun, go_on = threading.Event(), threading.Event()
    path = tmp_path / "replica.db"

    def slow(unit: Unit) -> None:
        begun.set()
        assert go_on.wait(20)
        unit.append([change()])

    async def use() -> None:
        async with Database(path) as database:
            await database.run(slow)

    task = asyncio.create_task(use())
    await asyncio.to_thread(begun.wait, 20)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    thread = next((t for t in threading.enumerate() if t.name.startswith("store")), None)
    if thread is not None:
        await asyncio.to_thread(thread.join, 20)
    with Session(path) as session:
        assert session.run(lambda unit: unit.last_version()) == 1


async def test_a_refused_file_ends_the_thread(tmp_path: Path) -> None:
    """The error of opening comes through, and nothing stays behind."""
    (tmp_path / "replica.db").write_bytes(b"notes " * 1000)
    with pytest.raises(StoreUnusable):
        await Database(tmp_path / "replica.db").__aenter__()
