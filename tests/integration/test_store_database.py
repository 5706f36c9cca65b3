"""The database thread: turns, cancellation, closing."""

import asyncio
import threading
from pathlib import Path

import apsw
import pytest

from connector.errors import ConnectorError, StoreUnusable
from connector.ports import OwnReplica, Replica, Unit
from connector.store import Database, ReadOnlyReplica, Session
from tests.store_nouns import change


async def test_it_is_the_replica_of_the_ports(tmp_path: Path) -> None:
    """The types agree, units run on a thread of their own and give their result back."""
    async with Database(tmp_path / "replica.db") as database:
        replica: Replica = database
        assert await replica.run(lambda unit: unit.append([change()])) == 1
        assert await replica.run(lambda _: threading.current_thread().name) != threading.current_thread().name
    with pytest.raises(StoreUnusable, match="closed"):
        await database.run(lambda unit: unit.last_version())


@pytest.mark.parametrize("way", ["run", "run_here"])
async def test_a_unit_that_raises_leaves_nothing(tmp_path: Path, way: str) -> None:
    """The error comes through as it is, and the next unit has its turn and finds nothing of it."""

    def fail(unit: Unit) -> None:
        unit.append([change()])
        unit.set_cursor("x", "1", 0)
        raise ZeroDivisionError

    async with Database(tmp_path / "replica.db") as database:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await getattr(database, way)(fail)
        assert await database.run(lambda unit: (unit.last_version(), unit.cursor("x"))) == (0, None)


async def test_short_work_is_done_here_and_committed_on_the_thread(tmp_path: Path) -> None:
    """The loop's thread runs it, another one commits it, and it is on the disk when its result is there."""
    threads: list[str] = []

    def add(unit: Unit) -> int:
        threads.append(threading.current_thread().name)
        return unit.append([change()])

    async with Database(tmp_path / "replica.db") as database:
        database._session._connection.set_commit_hook(  # type: ignore[union-attr]
            lambda: bool(threads.append(threading.current_thread().name))  # type: ignore[func-returns-value]
        )
        replica: OwnReplica = database
        assert await replica.run_here(add) == 1
        with ReadOnlyReplica(tmp_path / "replica.db") as reader:
            assert reader.version() == 1
    here, committing = threads
    assert here == threading.current_thread().name != committing
    with pytest.raises(StoreUnusable, match="closed"):
        await database.run_here(add)


async def test_units_of_both_kinds_take_turns(tmp_path: Path) -> None:
    """In the order of the calls, one at a time: each sees all that was begun before it, and no more."""
    async with Database(tmp_path / "replica.db") as database:
        calls = [database.run_here if number % 3 else database.run for number in range(60)]
        versions = await asyncio.gather(*(call(lambda unit: unit.append([change()])) for call in calls))
    assert versions == list(range(1, 61))


async def test_short_work_is_committed_although_the_caller_is_cancelled(tmp_path: Path) -> None:
    """What has begun ends, and the next one waits for it."""
    committing, go_on = threading.Event(), threading.Event()

    def wait() -> bool:
        committing.set()
        return not go_on.wait(20)

    async with Database(tmp_path / "replica.db") as database:
        database._session._connection.set_commit_hook(wait)  # type: ignore[union-attr]
        task = asyncio.create_task(database.run_here(lambda unit: unit.append([change()])))
        await asyncio.to_thread(committing.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        next_one = asyncio.create_task(database.run_here(lambda unit: unit.append([change()])))
        await asyncio.sleep(0)
        go_on.set()
        assert await next_one == 2


async def test_short_work_does_not_stop_the_loop_while_another_process_writes(tmp_path: Path) -> None:
    """It is not waited for here; the work is done on the thread, once, when the lock is free."""
    runs: list[str] = []
    waited: list[str] = []

    def wait(_tries: int) -> bool:
        waited.append(threading.current_thread().name)
        return False

    def add(unit: Unit) -> int:
        runs.append(threading.current_thread().name)
        return unit.append([change()])

    async with Database(tmp_path / "replica.db") as database:
        connection = database._session._connection
        assert connection is not None
        connection.set_busy_handler(wait)
        other = apsw.Connection(str(tmp_path / "replica.db"))
        other.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(database.run_here(add))
        done, _ = await asyncio.wait((task,), timeout=0.05)
        assert not done
        other.execute("ROLLBACK")
        other.close()
        assert await task == 1
        assert await database.run_here(add) == 2
    assert not waited
    assert len(runs) == 2
    assert runs[0] != runs[1] == threading.current_thread().name


async def test_a_commit_that_is_refused_keeps_nothing(tmp_path: Path) -> None:
    """The error is told, and nothing of the unit is there when it is begun anew."""
    async with Database(tmp_path / "replica.db") as database:
        connection = database._session._connection
        assert connection is not None
        connection.set_commit_hook(lambda: True)
        with pytest.raises(ConnectorError):
            await database.run_here(lambda unit: unit.append([change()]))
        connection.set_commit_hook(None)
        assert await database.run_here(lambda unit: unit.append([change()])) == 1


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
