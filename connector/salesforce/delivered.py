"""The allocation of delivered events: counted, held against the org's limit, warned about once per crossing.

The org counts every event once for each subscriber, over a rolling 24 hours; at its limit the stream stops. Nothing on
the stream tells how much is left, and the `limits` resource costs an API call and is minutes late. So our own events
are counted as they come, and the org is asked seldom: for its limit, and for what others take of it.

Source: Change Data Capture Developer Guide, "Change Data Capture Allocations"; REST API Developer Guide, "Limits".
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

import orjson
import structlog

from connector.errors import OrgRefused, TransientError
from connector.model.times import to_iso, to_ms
from connector.ports import Purpose, Replica, Unit
from connector.salesforce.rolling import HOUR_MS, WINDOW_HOURS, RollingDay, hour_of
from connector.salesforce.warning import Mark, Warner

log = structlog.get_logger()

CURSOR = "delivered"
ASK_EVERY_S = 6 * 3600.0
# A user who may not ask gets the right by a person.
REFUSED_RETRY_S = 24 * 3600.0
FAILED_RETRY_S = 900.0
# So many events of ours after an answer, as a share of the limit, it is old.
ASK_SHARE = 0.05
_SAVE_EVERY_S = 1.0
_EVENTS = "events"

Ask = Callable[[Purpose], Awaitable[Mapping[str, Any]]]


class Deliveries:
    """Counts events, asks for the limit, warns. All methods belong to the event loop's thread.

    Args:
        warn_at: Share of the limit.
        replica: Keeps the counts over restarts, in cursor `delivered`.
        ask: The org's limits resource.
        now_ms: The wall clock, milliseconds since the Unix epoch, UTC.
        elapsed_s: A clock that is never set.
        warner: Told once per crossing of the mark.
    """

    def __init__(
        self,
        warn_at: float,
        replica: Replica,
        *,
        ask: Ask,
        now_ms: Callable[[], int],
        elapsed_s: Callable[[], float] = time.monotonic,
        warner: Warner | None = None,
    ) -> None:
        self._replica = replica
        self._ask = ask
        self._now_ms = now_ms
        self._elapsed_s = elapsed_s
        self._mark = Mark("events", warn_at, replica, warner, now_ms)
        self._day = RollingDay(now_ms, elapsed_s)
        self._hours: dict[str, int] = {}
        self._org: tuple[int, int] | None = None
        self._told_ms: int | None = None
        self._since = 0
        self._ask_at_s = 0.0
        self._changed = asyncio.Event()
        self._unsaved = False

    async def __aenter__(self) -> Self:
        """Read what was counted, and what the org told last."""
        text = await self._replica.run(lambda unit: unit.cursor(CURSOR))
        if text is not None:
            self._restore(text)
        await self._mark.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write what has been counted, if that can be done now: what ends us must not be hidden by it."""
        try:
            await self._save()
        except TransientError as error:
            log.warning("delivered.not_saved", error=str(error))

    def delivered(self, events: int) -> None:
        """Events have come."""
        hour = self._day.add(_EVENTS, events).hour
        self._hours[hour] = self._hours.get(hour, 0) + events
        self._since += events
        if self._org is not None:
            self._org = (self._org[0] + events, self._org[1])
            if self._since >= self._org[1] * ASK_SHARE:
                self._ask_at_s = min(self._ask_at_s, self._elapsed_s())
        self._note()

    def spent(self) -> None:
        """The org delivers no more: its limit is reached, whatever we know of it."""
        self._org = None if self._org is None else (max(self._org), self._org[1])
        self._ask_at_s = min(self._ask_at_s, self._elapsed_s())
        self._note()

    def snapshot(self) -> dict[str, int | None]:
        """Events of the last 24 hours: all subscribers' and the limit, None until the org told; and our own."""
        own = self._day.total()
        if self._org is None:
            return {"used": None, "max": None, "own": own}
        return {"used": max(self._org[0], own), "max": self._org[1], "own": own}

    async def run(self) -> None:
        """Write the counts, ask for the limit when it is time, give the warnings; does not end by itself."""
        while True:
            self._changed.clear()
            if self._elapsed_s() >= self._ask_at_s:
                await self._look()
            try:
                await self._save()
                await self._mark.tell()
            except TransientError as error:
                log.warning("delivered.not_saved", error=str(error))
            await asyncio.sleep(_SAVE_EVERY_S)
            try:
                async with asyncio.timeout(max(0.0, self._ask_at_s - self._elapsed_s())):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _look(self) -> None:
        """Ask the org; one API call, of the class that gives way first."""
        wait_s, self._since = ASK_EVERY_S, 0
        try:
            told = allocation(await self._ask(Purpose.VERIFY))
        except TransientError as error:
            wait_s = max(FAILED_RETRY_S, error.retry_after_s or 0.0)
            log.info("delivered.limit_not_told", error=str(error))
        except OrgRefused as error:
            wait_s = REFUSED_RETRY_S
            log.warning("delivered.limit_refused", error=str(error))
        else:
            self._org, self._told_ms = told, self._now_ms()
            self._note()
        self._ask_at_s = self._elapsed_s() + wait_s

    def _note(self) -> None:
        """Something is to be written, and perhaps to be warned of."""
        used = self.snapshot()
        if used["used"] is not None and used["max"] is not None:
            self._mark.look(used["used"], used["max"])
        self._unsaved = True
        self._changed.set()

    async def _save(self) -> None:
        if not self._unsaved:
            return
        self._unsaved = False
        for hour in sorted(self._hours)[: -WINDOW_HOURS - 1]:
            del self._hours[hour]
        told = None if self._org is None or self._told_ms is None else to_iso(self._told_ms)
        document = {"hours": self._hours, "org": self._org, "told": told}
        text = orjson.dumps(document).decode()

        def store(unit: Unit) -> None:
            unit.set_cursor(CURSOR, text, self._now_ms())

        try:
            await self._replica.run(store)
        except BaseException:
            self._unsaved = True
            raise

    def _restore(self, text: str) -> None:
        now_ms = self._now_ms()
        try:
            document = orjson.loads(text)
            hours = {str(hour): int(count) for hour, count in document["hours"].items()}
            org, told = document["org"], document["told"]
            # Of an hour days ahead, by a clock since set back: as if they had come now.
            late = hour_of(now_ms + WINDOW_HOURS * HOUR_MS)
            for hour in [hour for hour in hours if hour > late]:
                now = hour_of(now_ms)
                hours[now] = hours.get(now, 0) + hours.pop(hour)
            self._day.restore({hour: {_EVENTS: count} for hour, count in hours.items()})
            age_s = (now_ms - to_ms(told)) / 1000 if told else ASK_EVERY_S
            restored = (int(org[0]), int(org[1])) if org else None
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            log.warning("delivered.count_unreadable")
            return
        self._hours = hours
        if restored is not None and 0 <= age_s < ASK_EVERY_S:
            self._org, self._told_ms = restored, to_ms(told)
            self._ask_at_s = self._elapsed_s() + ASK_EVERY_S - age_s


def allocation(limits: Mapping[str, Any]) -> tuple[int, int] | None:
    """Events delivered and allowed in 24 hours, of the limits resource; None where it does not tell."""
    entry = limits.get("DailyDeliveredPlatformEvents")
    if not isinstance(entry, Mapping):
        return None
    most, left = entry.get("Max"), entry.get("Remaining")
    return (max(0, most - left), most) if isinstance(most, int) and isinstance(left, int) and most > 0 else None
