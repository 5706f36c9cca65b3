"""A daemon with a million records: what a change costs it, what it holds in memory, how soon it is at work, idle.

The rows are put into the replica's file by the store itself, as for the reads; the stream is `feed.py`.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.bench.contacts import CONTACTS, fill, spread_ids
from tests.bench.harness import Figure, cpu_s, resident_mb
from tests.bench.stream import FeedProcess, Subscriber, fed, run
from tests.e2e.stack import Stack

_EVENTS_PER_S = 100
_READ_WHOLE_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything.

    Attributes:
        few, many: Records in the replica.
        touched: Different records that the events are about, evenly out of all.
        events: For the cost of one, each time.
        repeats: Starts, and costs of each side; the median counts.
        busy_s: With a hundred events a second, for the memory.
        rest_s: For what the events have left to do (the text index, the WAL).
        idle_s: Without any.
    """

    few: int = 10_000
    many: int = CONTACTS
    touched: int = 10_000
    events: int = 20_000
    repeats: int = 3
    busy_s: int = 60
    rest_s: int = 15
    idle_s: int = 20


FULL = Scale()


def million(directory: Path, scale: Scale = FULL) -> list[Figure]:
    """All figures."""
    with ExitStack() as open_ones:
        sides = [open_ones.enter_context(_Side.of(directory, count, scale)) for count in (scale.few, scale.many)]
        for side in sides:
            side.fill()
        few, many = sides
        starts_s = [many.start_s() for _ in range(scale.repeats)]
        few.start_s()
        # Turn by turn: the speed of a shared machine changes by the minute.
        costs = [(few.cost_us(scale.events), many.cost_us(scale.events)) for _ in range(scale.repeats + 1)][1:]
        ratio = median(cost for _, cost in costs) / median(cost for cost, _ in costs)
        told = f"processor per change, {scale.many:,} records to {scale.few:,}"
        return [
            Figure(name=told, value=ratio, unit="times", better="less", target=1.2),
            Figure(
                name=f"start with {scale.many:,} records", value=median(starts_s), unit="s", better="less", target=1.0
            ),
            *_memory(many.stack, many.feed, many.ids, scale),
            _idle(many.stack, scale),
        ]


@dataclass(frozen=True, slots=True)
class _Side:
    """A daemon with so many records, its feed, and those of its records that the events are about."""

    stack: Stack
    feed: FeedProcess
    count: int
    ids: Sequence[str]

    @classmethod
    @contextmanager
    def of(cls, directory: Path, count: int, scale: Scale) -> Iterator["_Side"]:
        """With a stream that has a position, and few records yet."""
        place = directory / str(count)
        place.mkdir()
        with fed(place, 10) as (stack, feed):
            run(stack, feed, sorted(stack.org.records("Contact")), 1)
            yield cls(stack, feed, count, spread_ids(count, min(count, scale.touched)))

    def fill(self) -> None:
        """Put the records into the replica; the daemon is down then."""
        self._stop()
        fill(self.stack.replica.path, self.count)
        os.sync()  # what of the filling is not on the disk yet would be written while the start is measured

    def start_s(self) -> float:
        """Start the daemon; seconds to the message of an event that waited for it."""
        self._stop()
        self.feed.make(self.ids, 1)
        self.feed.go()
        subscriber = Subscriber(self.stack.broker.port, 1)
        began_s = time.monotonic()
        self.stack.daemon.launch()
        first_s = float(subscriber.told()["times"][0]) - began_s
        self.stack.until_ready()
        self.stack.daemon.until_logged("store.read_whole", _READ_WHOLE_S)  # only then are changes all that it works on
        return first_s

    def cost_us(self, events: int) -> float:
        """Processor of the daemon for one of so many events."""
        before_s = cpu_s(self.stack.daemon.pid)
        run(self.stack, self.feed, self.ids, events)
        return (cpu_s(self.stack.daemon.pid) - before_s) / events * 1e6

    def _stop(self) -> None:
        if self.stack.daemon.alive and self.stack.daemon.stop() != 0:
            raise RuntimeError(self.stack.daemon.last_words())


def _memory(stack: Stack, feed: FeedProcess, ids: Sequence[str], scale: Scale) -> Iterator[Figure]:
    """The first half may still fill what is bounded; what the second adds is growth."""
    half = _EVENTS_PER_S * scale.busy_s // 2
    run(stack, feed, ids, half, _EVENTS_PER_S)
    between_mb, _ = resident_mb(stack.daemon.pid)
    run(stack, feed, ids, half, _EVENTS_PER_S)
    at_end_mb, peak_mb = resident_mb(stack.daemon.pid)
    told = f"resident memory, {scale.many:,} records, {_EVENTS_PER_S} events/s"
    yield Figure(name=told, value=at_end_mb, unit="MB", better="less", target=120.0)
    yield Figure(name="its peak", value=peak_mb, unit="MB", better="less")
    yield Figure(
        name=f"its growth in the last {scale.busy_s // 2} s",
        value=at_end_mb - between_mb,
        unit="MB",
        better="less",
        target=1.0,
    )


def _idle(stack: Stack, scale: Scale) -> Figure:
    time.sleep(scale.rest_s)
    before_s = cpu_s(stack.daemon.pid)
    time.sleep(scale.idle_s)  # what is measured is that nothing happens
    used = (cpu_s(stack.daemon.pid) - before_s) / scale.idle_s
    return Figure(name="idle, of a core", value=used * 100, unit="%", better="less", target=1.0)
