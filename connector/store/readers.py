"""The replica behind `ports.Reader`: several readers, each on a thread of its own, none of them the writer's."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from connector.errors import StoreUnusable
from connector.ports import Overlook
from connector.store.reader import ReadOnlyReplica

T = TypeVar("T")


class Readers:
    """So many queries at once, each of one moment.

    Use with `async with`; entering raises what `ReadOnlyReplica.open` does.
    """

    def __init__(self, path: Path, count: int) -> None:
        # Last in, first out: what it has read lately is in its cache.
        self._idle: list[ReadOnlyReplica] = []
        self._replicas = [ReadOnlyReplica(path) for _ in range(count)]
        self._threads = ThreadPoolExecutor(max_workers=count, thread_name_prefix="reader")

    async def __aenter__(self) -> Self:
        try:
            await self._do(self._open)
        except BaseException:
            self._threads.shutdown(wait=False)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # What is being answered ends within its time limit.
        await asyncio.shield(asyncio.to_thread(self._close))

    async def read(self, work: Callable[[Overlook], T], *, timeout_s: float) -> T:
        """See `ports.Reader`."""
        return await self._do(lambda: self._read(work, timeout_s))

    def _read(self, work: Callable[[Overlook], T], timeout_s: float) -> T:
        replica = self._idle.pop()  # there are as many as threads
        try:
            with replica.limited(timeout_s), replica.snapshot():
                return work(replica)
        finally:
            self._idle.append(replica)

    async def _do(self, job: Callable[[], T]) -> T:
        try:
            turn = asyncio.get_running_loop().run_in_executor(self._threads, job)
        except RuntimeError as error:
            raise StoreUnusable("the replica is closed") from error
        return await turn

    def _open(self) -> None:
        for replica in self._replicas:
            replica.open()
            self._idle.append(replica)

    def _close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        for replica in self._replicas:
            replica.close()
