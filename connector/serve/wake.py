"""What the relay sleeps on: one event to wait for, whatever it is woken by."""

import asyncio
import contextlib


class Wake:
    """Set by whoever has enqueued messages, or changes that nobody hands over."""

    def __init__(self) -> None:
        self._stirred = asyncio.Event()
        self._set = False

    def set(self) -> None:
        """The database has something to publish."""
        self._set = True
        self._stirred.set()

    def is_set(self) -> bool:
        """Whether the database may have something that was not looked for."""
        return self._set

    def clear(self) -> None:
        """The database is about to be asked."""
        self._set = False

    def stir(self) -> None:
        """End the sleep for something that is not in the database alone."""
        self._stirred.set()

    async def sleep(self, at_most_s: float | None) -> None:
        """Wait until something stirs, or has since the last sleep; None: however long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._stirred.wait()
        self._stirred.clear()
