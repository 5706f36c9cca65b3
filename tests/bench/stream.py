"""From the org's stream to a subscriber's callback: how many changes a second, and how long one takes.

The stream is `feed.py`, which is faster than what it feeds; everything behind it is the product as it runs, each
change durable and acknowledged by a real broker. The ceiling beside it is paho publishing the same bytes, nothing else.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import requests

from tests.bench.arrivals import arrivals
from tests.bench.disk import writes_ms
from tests.bench.front import ROOT, FrontProcess
from tests.bench.harness import SHIPPED, Figure, cpu_s, percentile, shipped_broker
from tests.bench.publisher import publish_rate, round_trips_ms
from tests.broker import ProcessBroker, free_port
from tests.e2e.stack import Stack

_TIMEOUT_S = 300.0
_FEEDS = {"cometd": "feed", "pubsub": "feed_pubsub"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything.

    Attributes:
        contacts: Records in the org.
        warm_up, sustained, backlog: Events.
        repeats: Of the sustained run, whose median counts.
        latency_s: Of each rate.
    """

    contacts: int = 10_000
    warm_up: int = 2_000
    sustained: int = 40_000
    repeats: int = 3
    latency_s: int = 20
    backlog: int = 100_000


FULL = Scale()


class FeedProcess(FrontProcess):
    """The feed before a local org; use with `with`."""

    def __init__(self, org_url: str, transport: str) -> None:
        pubsub_port = free_port()
        words = ["--pubsub-port", str(pubsub_port)] if transport == "pubsub" else []
        super().__init__(_FEEDS[transport], org_url, words, asked="/feed/times")
        self.settings["stream"] = transport
        if transport == "pubsub":
            self.settings["pubsub_url"] = f"http://127.0.0.1:{pubsub_port}"

    def make(self, ids: Sequence[str], count: int) -> None:
        """Make so many events and hold them back."""
        requests.post(f"{self.url}/feed/make", json={"ids": ids, "count": count}, timeout=_TIMEOUT_S).raise_for_status()

    def go(self, rate: float = 0) -> float:
        """Let them go; the time, by the machine's monotonic clock."""
        answer = requests.post(f"{self.url}/feed/go", json={"rate": rate}, timeout=_TIMEOUT_S)
        return float(answer.json()["at_s"])

    def times(self) -> tuple[list[float], list[float]]:
        """When each event was to be sent, and when it was, by the machine's monotonic clock."""
        told = requests.get(f"{self.url}/feed/times", timeout=_TIMEOUT_S).json()
        return told["due"], told["sent"]


class Subscriber:
    """A subscriber process that ends after so many changes."""

    def __init__(self, port: int, count: int) -> None:
        command = [sys.executable, "-m", "tests.bench.subscriber", "--port", str(port), "--count", str(count)]
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "the subscriber has ended"

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def told(self, paced_s: float = 0) -> dict[str, Any]:
        """What it received, once all has come, which takes no less than `paced_s`."""
        out, _ = self._process.communicate(timeout=paced_s + _TIMEOUT_S)
        answer: dict[str, Any] = json.loads(out)
        return answer


@contextmanager
def fed(directory: Path, contacts: int, transport: str = "cometd") -> Iterator[tuple[Stack, FeedProcess]]:
    """A stack whose daemon listens to the feed, with the settings that ship."""
    options = shipped_broker("max_queued_messages 1000000", "max_inflight_messages 500")
    broker = ProcessBroker(directory / "broker", options)
    settings = {**SHIPPED, "sync": {"objects": ["Contact"], "verify_interval": "30d", "backoff_max": "60s"}}
    with Stack(directory, broker, settings, ("Contact",)) as stack:
        stack.org.set(api_limit=10**9, delivered_event_limit=10**9)
        stack.org.seed(contacts=contacts)
        with FeedProcess(stack.told["url"], transport) as feed:
            stack.configure({"salesforce": feed.settings})
            stack.start()
            stack.watcher.unsubscribe()  # it would be one more subscriber of every change, in the process that measures
            yield stack, feed


def pubsub(directory: Path) -> list[Figure]:
    """The same figures over the Pub/Sub API."""
    return stream(directory, transport="pubsub")


def stream(directory: Path, scale: Scale = FULL, transport: str = "cometd") -> list[Figure]:
    """All figures of the stream."""
    with fed(directory, scale.contacts, transport) as (stack, feed):
        ids = sorted(stack.org.records("Contact"))
        run(stack, feed, ids, scale.warm_up)
        return [
            *_sustained(stack, feed, ids, scale),
            *_latency(stack, feed, ids, scale, 50, (3.0, 15.0)),
            *_latency(stack, feed, ids, scale, 500, (None, 50.0)),
            *_backlog(stack, feed, ids, scale),
        ]


def run(
    stack: Stack, feed: FeedProcess, ids: Sequence[str], count: int, rate: float = 0
) -> tuple[float, dict[str, Any]]:
    """So many events through everything; when they began, and what the subscriber tells."""
    feed.make(ids, count)
    subscriber = Subscriber(stack.broker.port, count)
    began_s = feed.go(rate)
    return began_s, subscriber.told(count / rate if rate else 0)


def _sustained(stack: Stack, feed: FeedProcess, ids: Sequence[str], scale: Scale) -> Iterator[Figure]:
    rates, used_s, ceilings = [], [], []
    for _ in range(scale.repeats):
        before_s = cpu_s(stack.daemon.pid)
        began_s, told = run(stack, feed, ids, scale.sustained)
        used_s.append(cpu_s(stack.daemon.pid) - before_s)
        rates.append(scale.sustained / (told["times"][-1] - began_s))
        ceilings.append(publish_rate(stack.broker.port, scale.sustained, told["bytes"] // scale.sustained))
    rate, ceiling = median(rates), median(ceilings)
    micros = median(used_s) / scale.sustained * 1e6
    yield Figure(name="changes a second", value=rate, unit="/s", target=8000, ceiling=ceiling)
    yield Figure(name="of what paho alone publishes", value=rate / ceiling * 100, unit="%", target=35)
    yield Figure(name="the daemon's processor per change", value=micros, unit="µs", better="less")
    yield Figure(name="bytes of a change message", value=told["bytes"] / scale.sustained, unit="B", better="less")


def _latency(
    stack: Stack,
    feed: FeedProcess,
    ids: Sequence[str],
    scale: Scale,
    rate: int,
    targets_ms: tuple[float | None, float],
) -> Iterator[Figure]:
    """What the daemon adds, from an answer of the org to the PUBACK; and from when an event was due, sent then or not.

    The latter counts what an org that is held up by a slow reader would hide by sending later. What the disk takes is
    measured just after, at the same rate: each change alone waits for it once.
    """
    count = max(rate * scale.latency_s, 10)
    first = len(feed.times()[0])
    feed.make(ids, count)
    with arrivals(stack.broker.port, count) as came:
        feed.go(rate)
        at_s = came.at_s()
    due_s, sent_s = feed.times()
    assert sorted(at_s) == list(range(first, first + count)), "not every event came, once"
    alone_ms = round_trips_ms(stack.broker.port, min(count, 500), came.bytes // count)
    for name, began_s, targets in (("latency", sent_s, targets_ms), ("from due to subscriber", due_s, (None, None))):
        taken_ms = [(came_s - began_s[number]) * 1000 for number, came_s in at_s.items()]
        for part, target in zip((0.5, 0.99), targets, strict=True):
            yield Figure(
                name=f"{name} at {rate}/s, p{part * 100:.0f}",
                value=percentile(taken_ms, part),
                unit="ms",
                better="less",
                target=target,
                ceiling=percentile(alone_ms, part),
            )
    disk_ms = writes_ms(stack.replica.path.parent, rate, count)
    for part in (0.5, 0.99):
        name = f"a write to the disk alone at {rate}/s, p{part * 100:.0f}"
        yield Figure(name=name, value=percentile(disk_ms, part), unit="ms", better="less")


def _backlog(stack: Stack, feed: FeedProcess, ids: Sequence[str], scale: Scale) -> Iterator[Figure]:
    """Events that came while the daemon was away; from its start to the last message."""
    if stack.daemon.stop() != 0:
        raise RuntimeError(stack.daemon.last_words())
    feed.make(ids, scale.backlog)
    feed.go()
    subscriber = Subscriber(stack.broker.port, scale.backlog)
    began_s = time.monotonic()
    stack.daemon.launch()
    told = subscriber.told()
    ceiling = publish_rate(stack.broker.port, scale.backlog, told["bytes"] // scale.backlog)
    yield Figure(
        name=f"a backlog of {scale.backlog:,} events",
        value=told["times"][-1] - began_s,
        unit="s",
        better="less",
        target=15.0,
        ceiling=scale.backlog / ceiling,
    )
