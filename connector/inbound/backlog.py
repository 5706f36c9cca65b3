"""Whether the stream is still telling of what happened while it was away.

A poll that overtakes the stream turns many changes of a record into one: the events that come behind it are older than
what it read and are left out. Nothing would differ in the end, but the mesh would never hear of the states between. So
a poll that nobody asked for waits until the stream has come level; not for ever, for a stream may be alive and late.
"""

import asyncio
import contextlib
from collections.abc import Callable

# With nothing under way and an event committed this recently, the stream tells news; what is older was kept for us.
LEVEL_MS = 5_000
# With nothing under way, this long without an event: there is no more, or the org holds it back.
QUIET_S = 1.0
# The replica must not grow old behind a stream that cannot keep up, or behind a clock that is wrong.
MOST_S = 300.0


class Backlog:
    """The stream tells what it does, the poller waits."""

    def __init__(self, now_ms: Callable[[], int], *, quiet_s: float = QUIET_S, most_s: float = MOST_S) -> None:
        self._now_ms = now_ms
        self._quiet_s = quiet_s
        self._most_s = most_s
        self._under_way = 0
        self._moved_s = 0.0
        self._level = asyncio.Event()
        self._level.set()

    def subscribed(self, *, resumed: bool) -> None:
        """A subscription began; `resumed`: at a stored position, so that there may be events behind it."""
        self._under_way = 0
        self._move(level=not resumed)

    def received(self, events: int) -> None:
        """Events came and wait to be applied."""
        self._under_way += events
        self._move(level=False)

    @property
    def under_way(self) -> int:
        """Events that came and are not applied."""
        return self._under_way

    def applied(self, events: int, newest_ms: int | None) -> None:
        """Some were applied; `newest_ms` is when the newest so far was committed, by the org's clock."""
        self._under_way = max(0, self._under_way - events)
        fresh = newest_ms is None or newest_ms >= self._now_ms() - LEVEL_MS
        self._move(level=fresh and not self._under_way)

    def ended(self) -> None:
        """The subscription ended: until the next one there is nothing to wait for."""
        self._level.set()

    async def worked_off(self) -> None:
        """Return once the stream is level, has gone quiet, is down, or has taken five minutes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._most_s):
                await self._still()

    async def _still(self) -> None:
        now_s = asyncio.get_running_loop().time
        while not self._level.is_set():
            left_s = self._quiet_s if self._under_way else self._moved_s + self._quiet_s - now_s()
            if left_s <= 0:
                self._level.set()
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._level.wait()

    def _move(self, *, level: bool) -> None:
        self._moved_s = asyncio.get_running_loop().time()
        if level:
            self._level.set()
        else:
            self._level.clear()
