"""The replica's file for a program that may outlive it: opened once it is there, anew when another takes its place."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from connector.errors import StoreUnusable
from connector.ports import Overlook
from connector.store.readers import Readers

T = TypeVar("T")


class OpenedReplica:
    """`ports.Onlooker` on a file that may not be there yet. Use with `async with`; entering opens nothing."""

    def __init__(self, path: Path, count: int) -> None:
        """So many reads at once."""
        self._path = path
        self._count = count
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._readers: Readers | None = None
        self._file: tuple[int, int] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def read(self, work: Callable[[Overlook], T], *, timeout_s: float) -> T:
        """See `Onlooker`.

        Raises:
            StoreUnusable: Also where there is no replica yet.
        """
        async with self._opening:
            readers = await self._current()
        return await readers.read(work, timeout_s=timeout_s)

    async def _current(self) -> Readers:
        file = await asyncio.to_thread(self._identity)
        if self._readers is None or file != self._file:
            await self._stack.aclose()
            self._readers = None
            self._readers = await self._stack.enter_async_context(Readers(self._path, self._count))
            self._file = file
        return self._readers

    def _identity(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
        except OSError as error:
            raise StoreUnusable(f"{self._path} is not there: run `salesforce-sync sync` first") from error
        return found.st_dev, found.st_ino
