"""Publishes what the database holds: changes in version order, and the outbox.

A turn is one unit (mark what was acknowledged, read what is next) and one pipelined batch: all of it is in flight at
once, in order. What counts as published is the batch up to the first message that failed for now; everything from
there is sent again, so order holds through every retry and a message may come twice but is never left out.

What the stream brings is handed over in memory, once it is committed, and published without asking the database, as
long as it follows on the last one published. All else (what polls found, results, signals, what the broker did not
take) is read from the database when somebody says that it is there.

The broker's acknowledgements are remembered here and written down a little later, many at a time: by itself each would
cost as many pages of an SD card as the change it is about. A crash publishes again what was not written down yet.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import field
from functools import partial
from typing import Any, Protocol

import structlog

from connector.errors import PoisonError, TransientError
from connector.model.change import Change
from connector.model.ids import RecordId
from connector.model.message import Message, OutboxMessage
from connector.model.noun import dataclass
from connector.ports import BatchPublisher, Replica, Unit
from connector.serve.wake import Wake

log = structlog.get_logger()

BATCH = 500
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 10.0
# However far the clock is set back, a due signal is not forgotten.
SIGNAL_WAIT_MAX_S = 60.0
# Acknowledged changes are marked as published after so long, or once they are so many: under load each time is a wait
# for the unit that applies, and a wait of the next one for the disk.
MARK_WITHIN_S = 5.0
MARK_AT_COUNT = 5 * BATCH
# More than this waits in the log alone.
HANDED_OVER_AT_MOST = 2 * BATCH

Pages = Callable[[], AsyncIterator[Sequence[Message]]]


class Codec(Protocol):
    """Changes as messages. Both raise PoisonError for what has no form on the wire."""

    def change(self, change: Change) -> Message:
        """The change."""
        ...

    def record(self, object_name: str, record_id: RecordId, record: Any) -> Message:
        """The retained message of a record; None clears it."""
        ...


class UpdateSignals(Protocol):
    """`records_updated`, at most one per interval."""

    def count_updated(self, object_name: str, records: int = 1) -> None:
        """So many records changed."""
        ...

    def updates_due_ms(self) -> int | None:
        """When there is something to tell, or None."""
        ...

    def records_updated(self, now_ms: int) -> Message | None:
        """The signal, if it is due."""
        ...


@dataclass(slots=True)
class _Acknowledged:
    """What the broker has and the database does not know yet.

    Attributes:
        times: Of `count` changes: the last version of those of one moment, and that moment, in version order.
        since_s: When the first of them was added, by the loop's clock.
    """

    times: list[tuple[int, int]] = field(default_factory=list)
    count: int = 0
    since_s: float = 0.0
    message_ids: list[int] = field(default_factory=list)

    @property
    def version(self) -> int:
        """The newest one; 0: none."""
        return self.times[-1][0] if self.times else 0

    def add(self, version: int, at_ms: int, now_s: float) -> None:
        """The next change, acknowledged at this moment."""
        self.since_s = self.since_s if self.count else now_s
        self.count += 1
        if self.times and self.times[-1][1] == at_ms:
            self.times.pop()
        self.times.append((version, at_ms))

    def left_s(self, now_s: float) -> float | None:
        """When it must be written down, seconds from now; None: nothing waits, 0: now."""
        if self.message_ids or self.count >= MARK_AT_COUNT:
            return 0.0
        return max(0.0, self.since_s + MARK_WITHIN_S - now_s) if self.count else None


@dataclass(slots=True)
class _Entry:
    """One message of a batch.

    Attributes:
        message: None where it could not be built, for the reason `problem`.
        change: The change that is published with this message (the last one of several).
        message_id: Of the outbox.
        is_signal: It is `records_updated`, which is kept in memory alone, as its count is.
        commit_ms: When the org committed what this message tells of.
        acknowledged_ms: When the broker took it; None: it has not, or never will.
    """

    message: Message | None
    problem: str = ""
    change: Change | None = None
    message_id: int | None = None
    is_signal: bool = False
    commit_ms: int | None = None
    acknowledged_ms: int | None = None


class Relay:
    """Runs while the process does; `wake` is set by whoever has enqueued messages, or changes without `offer`.

    Attributes:
        parked_count: Messages that the broker refuses for good since the start: skipped, each with its reason logged.
    """

    def __init__(
        self,
        *,
        replica: Replica,
        publisher: BatchPublisher,
        codec: Codec,
        signals: UpdateSignals,
        wake: Wake,
        retain_records: bool,
        retained: Pages,
        observe_lag_ms: Callable[[int], None],
        now_ms: Callable[[], int],
        rng: random.Random,
    ) -> None:
        """`retained` yields, page by page and each read when asked for, what a broker that forgot it must get again.

        `observe_lag_ms` is told the time from a commit in the org to its PUBACK.
        """
        self._replica = replica
        self._publisher = publisher
        self._codec = codec
        self._signals = signals
        self._wake = wake
        self._retain_records = retain_records
        self._retained = retained
        self._observe_lag_ms = observe_lag_ms
        self._now_ms = now_ms
        self._rng = rng
        self._link_up = asyncio.Event()
        self._acknowledged = _Acknowledged()
        self._signal: Message | None = None
        self._fresh: deque[Change] = deque()
        self._behind = True  # the database may have something that nobody tells of
        self._last = 0  # version of the last change published in this run; 0: none yet
        self._pages: AsyncIterator[Sequence[Message]] | None = None
        self._page: list[_Entry] = []
        self._wait_s = BACKOFF_FIRST_S
        self._finishing = False
        self.parked_count = 0

    def link_up(self, forgotten: bool) -> None:
        """The connection is back; `forgotten`: by a broker that may have lost what it retained."""
        if forgotten:
            self.put_back()
        self._link_up.set()

    def offer(self, changes: Sequence[Change]) -> None:
        """Changes that have just been committed."""
        self._fresh.extend(changes)
        self._wake.stir()
        if len(self._fresh) > HANDED_OVER_AT_MOST:
            # The newest does not follow on the last one published: it shows that the log must be read.
            self._fresh = deque([self._fresh[-1]])

    def put_back(self) -> None:
        """Publish every retained message again, between the changes."""
        self._pages = self._retained()
        self._page = []
        self._wake.set()

    def finish(self) -> None:
        """Let `run` return as soon as nothing is left that can be published now."""
        self._finishing = True
        self._wake.set()
        self._link_up.set()

    async def run(self) -> None:
        """Publish until cancelled, or until `finish` was called and nothing is left.

        Raises:
            StoreBusy: Call again: what was acknowledged is not forgotten.
            FatalError: Of the store.
        """
        while True:
            await self._publish_handed()
            if not self._behind and not self._is_due():
                await (self._mark() if self._left_s() == 0 else self._idle())
                continue
            self._wake.clear()
            self._link_up.clear()
            entries = await self._next()
            done = not entries or await self._publish(entries)
            if self._finishing and not (done and entries):
                return
            if not done:
                self._behind = True
                await self._back_off()

    async def _publish_handed(self) -> None:
        """Publish what was handed over and follows on the last change; what does not is read from the log."""
        handed, self._fresh = self._fresh, deque()
        news = [change for change in handed if change.version > self._last]
        if not news:
            return
        if self._page or [change.version for change in news] != [self._last + 1 + i for i in range(len(news))]:
            self._behind = True
        elif not await self._publish([entry for change in news for entry in self._entries(change)]):
            self._behind = True
            await self._back_off()

    def _is_due(self) -> bool:
        """Whether the database has something for us, or there is something else to publish."""
        due_ms = self._signals.updates_due_ms()
        signal = self._signal is not None or (due_ms is not None and due_ms <= self._now_ms())
        return self._wake.is_set() or signal or self._pages is not None or self._finishing

    async def _mark(self) -> None:
        """Write down what was acknowledged, and read nothing: what is new will be handed over."""
        await self._replica.run(partial(self._write_down, self._acknowledged))
        self._acknowledged = _Acknowledged()

    def _left_s(self) -> float | None:
        return self._acknowledged.left_s(asyncio.get_running_loop().time())

    async def _next(self) -> list[_Entry]:
        if self._pages is not None and not self._page:
            page = await anext(self._pages, None)
            self._page = [_Entry(message) for message in page or ()]
            self._pages = None if page is None else self._pages
        if self._signal is None:
            self._signal = self._signals.records_updated(self._now_ms())
        now = self._finishing or self._left_s() == 0
        self._behind = True
        changes, messages = await self._replica.run(partial(self._turn, self._acknowledged, now))
        self._behind = BATCH in (len(changes), len(messages))
        if now:
            self._acknowledged = _Acknowledged()
        signal = [] if self._signal is None else [_Entry(self._signal, is_signal=True)]
        # A message goes behind the change of the version that it was enqueued at.
        stored: list[Change | OutboxMessage] = [*changes, *messages]
        stored.sort(key=_place)
        return [*self._page, *signal, *(entry for item in stored for entry in self._entries(item))]

    @staticmethod
    def _turn(done: _Acknowledged, now: bool, unit: Unit) -> tuple[Sequence[Change], Sequence[OutboxMessage]]:
        if now:
            Relay._write_down(done, unit)
        changes = unit.unpublished(BATCH, done.version)
        return changes, unit.due(BATCH, changes[-1].version if changes else done.version)

    @staticmethod
    def _write_down(done: _Acknowledged, unit: Unit) -> None:
        for version, at_ms in done.times:
            unit.mark_published(version, at_ms)
        if done.message_ids:
            unit.remove_messages(done.message_ids)

    def _entries(self, item: Change | OutboxMessage) -> list[_Entry]:
        if isinstance(item, OutboxMessage):
            return [_Entry(item.message, message_id=item.id)]
        change = item
        commit_ms = None if change.commit is None else change.commit.timestamp_ms
        try:
            message = self._codec.change(change)
            if not self._retain_records:
                return [_Entry(message, change=change, commit_ms=commit_ms)]
            record = self._codec.record(change.object, change.id, change.record)
        except PoisonError as error:
            return [_Entry(None, problem=str(error), change=change)]
        return [_Entry(message, commit_ms=commit_ms), _Entry(record, change=change)]

    async def _publish(self, entries: Sequence[_Entry]) -> bool:
        """Publish all; True if nothing of it has to be repeated."""
        outcomes = await self._sent(entries)
        failed = next((i for i, o in enumerate(outcomes) if isinstance(o, TransientError)), None)
        done = len(entries) if failed is None else failed
        parked = [str(o) for o in outcomes[:done] if o is not None]
        now_s = asyncio.get_running_loop().time()
        for entry in entries[:done]:
            self._settle(entry, now_s)
        self._page = self._page[done:]
        if parked:
            self.parked_count += len(parked)
            log.error("relay.messages_parked", messages=len(parked), first_reason=parked[0])
        if failed is not None and self._wait_s == BACKOFF_FIRST_S:
            log.warning(
                "relay.publish_failed", published=done, waiting=len(entries) - done, error=str(outcomes[failed])
            )
        if failed is not None:
            return False
        self._wait_s = BACKOFF_FIRST_S
        return True

    def _settle(self, entry: _Entry, now_s: float) -> None:
        """The broker has it, or never will: the next turn marks it."""
        done = self._acknowledged
        if entry.is_signal:
            self._signal = None
        elif entry.change is not None:
            at_ms = self._now_ms() if entry.acknowledged_ms is None else entry.acknowledged_ms
            self._last = entry.change.version
            done.add(self._last, at_ms, now_s)
            self._signals.count_updated(entry.change.object)
        elif entry.message_id is not None:
            done.message_ids.append(entry.message_id)

    async def _sent(self, entries: Sequence[_Entry]) -> Sequence[TransientError | PoisonError | None]:
        """Publish all that have a message; the outcome of each."""
        places = [place for place, entry in enumerate(entries) if entry.message is not None]
        messages = [message for entry in entries if (message := entry.message) is not None]

        def acknowledged(place: int) -> None:
            entry = entries[places[place]]
            entry.acknowledged_ms = self._now_ms()
            if entry.commit_ms is not None:
                self._observe_lag_ms(max(0, entry.acknowledged_ms - entry.commit_ms))

        told: Sequence[TransientError | PoisonError | None]
        try:
            told = await self._publisher.publish_all(messages, acknowledged)
        except TransientError as error:
            told = [error] * len(messages)
        known = dict(zip(places, told, strict=True))
        return [known[at] if at in known else PoisonError(entry.problem) for at, entry in enumerate(entries)]

    async def _idle(self) -> None:
        """Wait for work, until `records_updated` is due, or until acknowledgements must be written down."""
        due_ms = self._signals.updates_due_ms()
        signal_s = None if due_ms is None else min(max(0, due_ms - self._now_ms()) / 1000, SIGNAL_WAIT_MAX_S)
        waits_s = [wait_s for wait_s in (signal_s, self._left_s()) if wait_s is not None]
        await self._wake.sleep(min(waits_s, default=None))

    async def _back_off(self) -> None:
        """Wait for the connection, or a growing while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._wait_s * self._rng.uniform(0.5, 1.0)):
                await self._link_up.wait()
        self._wait_s = min(self._wait_s * 2, BACKOFF_MAX_S)


def _place(item: Change | OutboxMessage) -> int:
    return item.version if isinstance(item, Change) else item.after_version
