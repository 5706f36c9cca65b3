"""A daemon with a million records: what a change costs it, what it holds in memory, how soon it is at work, idle.

The rows are put into the replica's file by the store itself, as for the reads; the stream is `feed.py`.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.contacts import CONTACTS, fill, spread_ids
from tests.bench.harness import Figure, cpu_s, resident_mb
from tests.bench.stream import FeedProcess, Subscriber, fed, run
from tests.e2e.stack import Stack

_EVENTS_PER_S = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything.

    Attributes:
        few, many: Records in the replica.
        touched: Different records that the events are about, evenly out of all.
        events: For the cost of one.
        busy_s: With a hundred events a second, for the memory.
        idle_s: Without any.
    """

    few: int = 10_000
    many: int = CONTACTS
    touched: int = 10_000
    events: int = 20_000
    busy_s: int = 60
    idle_s: int = 20


FULL = Scale()


def million(directory: Path, scale: Scale = FULL) -> list[Figure]:
    """All figures."""
    few_us = 0.0
    for count in (scale.few, scale.many):
        place = directory / str(count)
        place.mkdir()
        with fed(place, 10) as (stack, feed):
            ids = spread_ids(count, min(count, scale.touched))
            first_s = _filled(stack, feed, count, ids)
            run(stack, feed, ids, scale.events // 10)
            cost_us = _cost_us(stack, feed, ids, scale.events)
            if count == scale.few:
                few_us = cost_us
                continue
            return [
                Figure(
                    name=f"processor per change, {scale.many:,} records to {scale.few:,}",
                    value=cost_us / few_us,
                    unit="times",
                    better="less",
                    target=1.2,
                ),
                Figure(name=f"start with {count:,} records", value=first_s, unit="s", better="less", target=1.0),
                *_memory(stack, feed, ids, scale),
                _idle(stack, scale),
            ]
    raise AssertionError("unreachable")


def _filled(stack: Stack, feed: FeedProcess, count: int, ids: Sequence[str]) -> float:
    """Fill the replica; seconds from the daemon's start to the message of an event that waited for it."""
    run(stack, feed, sorted(stack.org.records("Contact")), 1)  # the stream has a position
    if stack.daemon.stop() != 0:
        raise RuntimeError(stack.daemon.last_words())
    fill(stack.replica.path, count)
    feed.make(ids, 1)
    feed.go()
    subscriber = Subscriber(stack.broker.port, 1)
    began_s = time.monotonic()
    stack.daemon.launch()
    first_s = float(subscriber.told()["times"][0]) - began_s
    stack.until_ready()
    return first_s


def _cost_us(stack: Stack, feed: FeedProcess, ids: Sequence[str], events: int) -> float:
    before_s = cpu_s(stack.daemon.pid)
    run(stack, feed, ids, events)
    return (cpu_s(stack.daemon.pid) - before_s) / events * 1e6


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
    before_s = cpu_s(stack.daemon.pid)
    time.sleep(scale.idle_s)  # what is measured is that nothing happens
    used = (cpu_s(stack.daemon.pid) - before_s) / scale.idle_s
    return Figure(name="idle, of a core", value=used * 100, unit="%", better="less", target=1.0)
