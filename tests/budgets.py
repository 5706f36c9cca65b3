"""What tests of the budget need: clocks that stand until they are moved, a replica's file without threads."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from connector.errors import StoreBusy
from connector.model.times import to_ms
from connector.ports import Unit
from connector.store import Session

T = TypeVar("T")
NOON = to_ms("2026-11-22T12:30:00.000Z")
HOUR_MS = 3_600_000


class Clocks:
    """The wall clock, which can be set, and elapsed time, which cannot.

    Attributes:
        wall_ms: What the wall clock shows.
        elapsed_ms: Since an hour began, as this machine was switched on.
    """

    def __init__(self) -> None:
        self.wall_ms = NOON
        self.elapsed_ms = 30 * 60_000

    def now_ms(self) -> int:
        return self.wall_ms

    def elapsed_s(self) -> float:
        return self.elapsed_ms / 1000

    def pass_ms(self, ms: int) -> None:
        """Time passes."""
        self.wall_ms += ms
        self.elapsed_ms += ms


class FileReplica:
    """`ports.Replica` over an open session.

    Attributes:
        busy: Refuse, as if another process held the lock.
        units: Transactions so far.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.busy = False
        self.units = 0

    async def run(self, work: Callable[[Unit], T]) -> T:
        self.units += 1
        await asyncio.sleep(0)  # as with a thread, others run meanwhile
        if self.busy:
            raise StoreBusy("locked")
        return self._session.run(work)
