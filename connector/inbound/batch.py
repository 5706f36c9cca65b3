"""From single events to batches: what waits is taken together, and a transaction is never torn."""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby, takewhile
from typing import Any

from connector.inbound.apply import DecodedEvent
from connector.inbound.decode import sequence_of, transaction_of
from connector.model.change import ReceivedEvent
from connector.model.noun import dataclass
from connector.model.objects import ObjectSpec

# A transaction with more events than this is applied in parts: it must fit in memory and in one unit.
MAX_TRANSACTION_EVENTS = 10_000
# One that has shown so many may be longer than one answer of the org: nobody minds half a second for a bulk edit.
LARGE_TRANSACTION_EVENTS = 25
MAX_QUOTED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Arrived:
    """A received event, read while those before it are being applied.

    Attributes:
        specs: The descriptions it was read with; None: it has not been read, or that has failed.
        decoded: What it says; None for an event that is not synced.
    """

    received: ReceivedEvent
    specs: Mapping[str, ObjectSpec] | None = None
    decoded: DecodedEvent | None = None


class Buffer:
    """Events between the source and the replica; `put` waits while enough are here.

    Args:
        batch_size: A batch has so many events at most, and more only to end a transaction.
        ask: Called with how many more events the source may send: as many as have been applied, which is when the
            next batch is taken, or as wait for the rest of their transaction.
    """

    def __init__(self, batch_size: int, ask: Callable[[int], None]) -> None:
        self._batch_size = batch_size
        self._ask = ask
        self._events: deque[Arrived] = deque()
        self._changed = asyncio.Event()
        self._closed = False
        self._wanting = False
        self._starved = False  # nothing comes until more are asked for
        self._ahead = 0  # of those here, for so many more were asked for before they were applied
        self._applied = 0  # and not yet asked for again

    async def put(self, events: Sequence[Arrived]) -> None:
        """Add events; returns when there is room for more. After `close` they are dropped: the position stays."""
        if self._closed:
            return
        self._events.extend(events)
        self._starved = events[-1].received.held_back
        self._wanting = False
        self._signal()
        while len(self._events) >= self._room() and not self._closed and not self._wanting:
            self._changed.clear()
            await self._changed.wait()

    def close(self) -> None:
        """No more events will come."""
        self._closed = True
        self._signal()

    async def take(self, linger_s: float, rest_s: float) -> list[Arrived]:
        """The next batch: everything that waits, up to the batch size and beyond it only to end a transaction.

        An empty list says that the buffer is closed and drained.

        Args:
            linger_s: Waited for the next event where the last transaction has several and may have more.
            rest_s: The same where more was known to be held back, or the transaction is too large for one answer.
        """
        self._ask_for(self._applied)
        self._applied = 0
        while not self._events:
            if self._closed:
                return []
            self._changed.clear()
            await self._changed.wait()
        count = await self._whole(linger_s, rest_s)
        batch = [self._events.popleft() for _ in range(count)]
        self._applied = max(0, count - self._ahead)
        self._ahead = max(0, self._ahead - count)
        self._signal()
        return batch

    async def _whole(self, linger_s: float, rest_s: float) -> int:
        """How many of the waiting events to take, once the last transaction is here as far as can be known."""
        while True:
            count = self._count()
            if count < len(self._events) or count >= MAX_TRANSACTION_EVENTS or self._closed:
                return count
            last, cut = self._last_transaction(), self._events[-1].received.held_back
            if not cut and not self._may_go_on(last):
                return count
            if self._starved and last < count:
                return count - last  # once these are applied, what follows the others is asked for
            if self._starved:
                self._ask_for(count - self._ahead)
                self._ahead = count
            if not await self._more(rest_s if cut or last >= LARGE_TRANSACTION_EVENTS else linger_s):
                return count

    async def _more(self, wait_s: float) -> bool:
        """Whether another event came in time."""
        waiting = len(self._events)
        self._wanting = True
        self._signal()
        try:
            async with asyncio.timeout(wait_s):
                while len(self._events) == waiting and not self._closed:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        finally:
            self._wanting = False
        return len(self._events) > waiting

    def _count(self) -> int:
        """How many of the waiting events make the next batch."""
        count = min(self._batch_size, len(self._events))
        last = transaction_of(self._events[count - 1].received.payload)
        while (
            last is not None
            and count < min(len(self._events), MAX_TRANSACTION_EVENTS)
            and transaction_of(self._events[count].received.payload) == last
        ):
            count += 1
        return count

    def _last_transaction(self) -> int:
        """How many events at the end share their transaction; one that names none stands alone."""
        key = transaction_of(self._events[-1].received.payload)
        if key is None:
            return 1
        return sum(1 for _ in takewhile(lambda e: transaction_of(e.received.payload) == key, reversed(self._events)))

    def _may_go_on(self, last: int) -> bool:
        """Whether the last transaction has shown more than a first event."""
        return last > 1 or (sequence_of(self._events[-1].received.payload) or 0) > 1

    def _ask_for(self, events: int) -> None:
        if events > 0 and not self._closed:
            self._starved = False
            self._ask(events)

    def _room(self) -> int:
        return max(2 * self._batch_size, 1000)

    def _signal(self) -> None:
        self._changed.set()


def in_order(batch: Iterable[DecodedEvent]) -> list[DecodedEvent]:
    """The batch with each transaction's adjacent events in the order of their sequence numbers."""
    out: list[DecodedEvent] = []
    for key, run in groupby(batch, key=_transaction):
        events = list(run)
        out += events if key is None else sorted(events, key=_sequence)
    return out


def quoted(payload: Any) -> bytes:
    """A payload as JSON for the quarantine, whatever it is."""
    try:
        return json.dumps(payload, default=repr, skipkeys=True).encode()[:MAX_QUOTED_BYTES]
    except (ValueError, RecursionError):
        return b'"not representable as JSON"'


def _transaction(item: DecodedEvent) -> str | None:
    return item.event.commit.transaction if item.event is not None else None


def _sequence(item: DecodedEvent) -> int:
    return (item.event.commit.sequence or 0) if item.event is not None else 0
