"""Warns once when the use of a limit crosses its mark; what was told survives a restart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import structlog

from connector.model.message import Message
from connector.ports import Replica, Unit

log = structlog.get_logger()

Limit = Literal["api", "events"]

# Use swings around the mark while old counts leave the window; it has to fall clearly below it to count again.
_REARM = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Warner:
    """How a warning goes out.

    Attributes:
        messages: What is published when (limit, used, max) crosses; enqueued in the unit that remembers the crossing.
        told: Called once they are on disk.
    """

    messages: Callable[[Limit, int, int], Sequence[Message]]
    told: Callable[[], None]


class Mark:
    """The mark of one limit.

    Args:
        limit: Which; names the cursor `warned:{limit}`, which is there while use is above the mark.
        warn_at: Share of the maximum.
        replica: Remembers the crossing.
        warner: None: nobody to tell; the crossing is left to a process that has somebody.
        now_ms: Milliseconds since the Unix epoch, UTC.
    """

    def __init__(
        self, limit: Limit, warn_at: float, replica: Replica | None, warner: Warner | None, now_ms: Callable[[], int]
    ) -> None:
        self._limit = limit
        self._warn_at = warn_at
        self._replica = replica
        self._warner = warner
        self._now_ms = now_ms
        self._over = False
        self._stored = False
        self._use = (0, 0)

    async def open(self) -> None:
        """Read whether the crossing has been told."""
        if self._replica is not None:
            self._over = self._stored = await self._replica.run(lambda unit: unit.cursor(self._cursor)) is not None

    def look(self, used: int, maximum: int) -> bool:
        """Compare the use with the mark; True if there is something to tell or to forget."""
        if not self._over and used >= maximum * self._warn_at:
            self._over, self._use = True, (used, maximum)
            log.warning("budget.use_is_high", limit=self._limit, used=used, max=maximum)
        elif self._over and used < maximum * self._warn_at * _REARM:
            self._over = False
        return self._over != self._stored

    async def tell(self) -> None:
        """Give the warning that is due, if any.

        Raises:
            StoreBusy, StoreFull, StoreUnusable: It is not on disk and stays due.
        """
        over = self._over
        if self._warner is None or self._replica is None or over == self._stored:
            return
        messages = self._warner.messages(self._limit, *self._use) if over else ()

        def remember(unit: Unit) -> None:
            now_ms = self._now_ms()
            unit.set_cursor(self._cursor, "told" if over else None, now_ms)
            for message in messages:
                unit.enqueue(message)

        await self._replica.run(remember)
        self._stored = over
        if messages:
            self._warner.told()

    @property
    def _cursor(self) -> str:
        return f"warned:{self._limit}"
