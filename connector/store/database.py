"""The replica behind `ports.Replica`: one session on one thread of its own."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from connector.errors import StoreUnusable
from connector.ports import Unit
from connector.store.checks import read_whole
from connector.store.pace import Pace
from connector.store.session import Session
from connector.store.walcopy import WalCopy

T = TypeVar("T")


class Database:
    """The SQLite database of a daemon or of a command that takes its place: one writer thread.

    Use with `async with`; entering raises what `Session.open` does.

    Args:
        path: The SQLite file.
        read_later: Enter without reading a sealed file, for a daemon: it calls `prove` once it is at work.
    """

    def __init__(self, path: Path, *, read_later: bool = False) -> None:
        self._path = path.resolve()
        self._wal_copy = WalCopy(self._path)
        self._session = Session(path, read_later=read_later, wal_copy=self._wal_copy)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._turn = asyncio.Lock()
        self._ended = False

    async def __aenter__(self) -> Self:
        try:
            await self._do(self._session.open)
        except BaseException:
            self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Begun units are finished first; the close happens even if this wait is cancelled.
        await asyncio.shield(self._end())

    async def run(self, work: Callable[[Unit], T]) -> T:
        """Run `work(unit)` as one transaction on the database thread.

        Once begun it finishes, even if the caller is cancelled; one that still waits for its turn is dropped. If
        `work` raises, nothing is kept.

        Raises:
            StoreBusy: Another process held the write lock for too long.
            StoreFull, StoreUnusable: Going on would lose data.
        """
        return await self._do(lambda: self._session.run(work))

    async def run_here(self, work: Callable[[Unit], T]) -> T:
        """Run a short `work(unit)` as one transaction on the caller's thread; the commit waits on the database's.

        For what comes often and takes a few milliseconds, in which the loop stands still. On a thread of its own it
        would take no less of the loop's time: at each of SQLite's statements the two hand each other the interpreter's
        lock. While another process has the write lock `work` is run as by `run`.

        Raises:
            StoreBusy, StoreFull, StoreUnusable: As `run`.
        """
        await self._turn.acquire()
        try:
            job = self._begun_here(work)
        except BaseException:
            self._turn.release()
            raise
        return await self._on_thread(job)

    async def data_version(self) -> int:
        """A number that changes when another process has committed (a queued command), and by nothing of our own."""
        return await self._do(self._session.data_version)

    async def prove(self) -> bool:
        """Read the file whole for damage while units go on; False if it was given up, to be tried again another time.

        It takes a quarter of one core at most, and is given up where the WAL grows too long meanwhile.

        Raises:
            StoreUnusable: Damaged.
        """
        pace = Pace(self._path)
        try:
            whole = await asyncio.to_thread(read_whole, self._path, pace.interrupted)
        except StoreUnusable:
            self._session.sound = False
            raise
        finally:
            pace.stop.set()
        self._session.sound = self._session.sound or whole
        return whole

    def _begun_here(self, work: Callable[[Unit], T]) -> Callable[[], T]:
        """Do the work, if the write lock is free; what is left to be done on the thread."""
        if self._ended:
            raise StoreUnusable("the database is closed")
        if not self._session.begin_now():
            return lambda: self._session.run(work)
        result = self._session.prepare(work)

        def committed() -> T:
            self._session.commit()
            return result

        return committed

    async def _do(self, job: Callable[[], T]) -> T:
        """`job` on the thread, when it is its turn."""
        await self._turn.acquire()
        return await self._on_thread(job)

    async def _on_thread(self, job: Callable[[], T]) -> T:
        """`job` on the thread, in a turn that has begun; it ends when the job does, even if the caller is cancelled."""
        try:
            done = asyncio.get_running_loop().run_in_executor(self._thread, job)
        except RuntimeError as error:
            self._turn.release()
            raise StoreUnusable("the database is closed") from error
        done.add_done_callback(lambda _: self._turn.release())
        return await asyncio.shield(done)

    def _end(self) -> asyncio.Future[None]:
        self._ended = True
        closed = asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)
        return closed

    def _close(self) -> None:
        self._wal_copy.close()
        self._session.close()
