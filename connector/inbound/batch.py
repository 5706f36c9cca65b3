"""From single events to batches: what waits is taken together, and a transaction is never torn."""

import asyncio
import json
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from connector.inbound.apply import DecodedEvent
from connector.inbound.decode import sequence_of, transaction_of
from connector.model.change import ReceivedEvent

# A transaction with more events than this is applied in parts: it must fit in memory and in one unit.
MAX_TRANSACTION_EVENTS = 10_000
MAX_QUOTED_BYTES = 1 << 20


class Buffer:
    """Events between the source and the replica; `put` waits while enough are here."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._events: deque[ReceivedEvent] = deque()
        self._changed = asyncio.Event()
        self._closed = False

    async def put(self, events: Sequence[ReceivedEvent]) -> None:
        """Add events; returns when there is room for more. After `close` they are dropped: the position stays."""
        if self._closed:
            return
        self._events.extend(events)
        self._signal()
        while len(self._events) >= self._room() and not self._closed:
            self._changed.clear()
            await self._changed.wait()

    def close(self) -> None:
        """No more events will come."""
        self._closed = True
        self._signal()

    async def take(self, linger_s: float) -> list[ReceivedEvent]:
        """The next batch: everything that waits, up to the batch size and beyond it only to end a transaction.

        Waits `linger_s` for the rest where the last transaction has several events and may have more.
        An empty list says that the buffer is closed and drained.
        """
        while not self._events:
            if self._closed:
                return []
            self._changed.clear()
            await self._changed.wait()
        count = self._count()
        if count == len(self._events) and not self._closed and self._may_go_on():
            await self._more(linger_s)
            count = self._count()
        batch = [self._events.popleft() for _ in range(count)]
        self._signal()
        return batch

    async def _more(self, linger_s: float) -> None:
        waiting = len(self._events)
        try:
            async with asyncio.timeout(linger_s):
                while len(self._events) == waiting and not self._closed:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass

    def _count(self) -> int:
        """How many of the waiting events to take."""
        count = min(self._batch_size, len(self._events))
        last = transaction_of(self._events[count - 1].payload)
        while (
            last is not None
            and count < min(len(self._events), MAX_TRANSACTION_EVENTS)
            and transaction_of(self._events[count].payload) == last
        ):
            count += 1
        return count

    def _may_go_on(self) -> bool:
        """Whether the last transaction has shown more than a first event."""
        last = self._events[-1].payload
        key = transaction_of(last)
        if key is None:
            return False
        several = len(self._events) > 1 and transaction_of(self._events[-2].payload) == key
        return several or (sequence_of(last) or 0) > 1

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
