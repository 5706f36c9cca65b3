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

    async def _do(self, job: Callable[[], T]) -> T:
        try:
            turn = asyncio.get_running_loop().run_in_executor(self._thread, job)
        except RuntimeError as error:
            raise StoreUnusable("the database is closed") from error
        return await turn

    def _end(self) -> asyncio.Future[None]:
        closed = asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)
        return closed

    def _close(self) -> None:
        self._wal_copy.close()
        self._session.close()
