"""From the org's stream to a subscriber's callback: how many changes a second, and how long one takes.

The stream is `feed.py`, which is faster than what it feeds; everything behind it is the product as it runs, each
change durable and acknowledged by a real broker. The ceiling beside it is paho publishing the same bytes, nothing else.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from tests.bench.harness import SHIPPED, Figure, cpu_s
from tests.bench.publisher import publish_rate
from tests.broker import BrokerOptions, ProcessBroker, free_port
from tests.e2e.stack import Stack
from tests.e2e.waiting import until

ROOT = Path(__file__).parents[2]
CONTACTS = 10_000
WARM_UP = 2_000
SUSTAINED = 40_000
BACKLOG = 100_000
_TIMEOUT_S = 300.0


class FeedProcess:
    """The feed before a local org; use with `with`."""

    def __init__(self, org_url: str) -> None:
        port = free_port()
        self.url = f"http://localhost:{port}"
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "tests.bench.feed", "--org", org_url, "--port", str(port)], cwd=ROOT
        )

    def __enter__(self) -> Self:
        until(self._answers, 20.0, say=lambda: "the feed does not answer")
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/feed/sent", timeout=5).ok
        except requests.ConnectionError:
            return False

    def make(self, ids: Sequence[str], count: int) -> None:
        """Make so many events and hold them back."""
        requests.post(f"{self.url}/feed/make", json={"ids": ids, "count": count}, timeout=_TIMEOUT_S).raise_for_status()

    def go(self, rate: float = 0) -> float:
        """Let them go; the time, by the machine's monotonic clock."""
        answer = requests.post(f"{self.url}/feed/go", json={"rate": rate}, timeout=_TIMEOUT_S)
        return float(answer.json()["at_s"])

    def sent_s(self) -> list[float]:
        """When each event was sent."""
        told: list[float] = requests.get(f"{self.url}/feed/sent", timeout=_TIMEOUT_S).json()
        return told


class Subscriber:
    """A subscriber process that ends after so many changes."""

    def __init__(self, port: int, count: int, *, values: bool = False) -> None:
        command = [sys.executable, "-m", "tests.bench.subscriber", "--port", str(port), "--count", str(count)]
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [*command, *(["--values"] if values else [])], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "the subscriber has ended"

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def told(self) -> dict[str, Any]:
        """What it received, once all has come."""
        out, _ = self._process.communicate(timeout=_TIMEOUT_S)
        answer: dict[str, Any] = json.loads(out)
        return answer


@contextmanager
def fed(directory: Path) -> Iterator[tuple[Stack, FeedProcess]]:
    """A stack whose daemon listens to the feed, with the settings that ship."""
    options = BrokerOptions(extra=("max_queued_messages 1000000", "max_inflight_messages 500", "set_tcp_nodelay true"))
    broker = ProcessBroker(directory / "broker", options)
    settings = {**SHIPPED, "sync": {"objects": ["Contact"], "verify_interval": "30d", "backoff_max": "60s"}}
    with Stack(directory, broker, settings, ("Contact",)) as stack:
        stack.org.set(api_limit=10**9, delivered_event_limit=10**9)
        stack.org.seed(contacts=CONTACTS)
        with FeedProcess(stack.told["url"]) as feed:
            stack.configure({"salesforce": {"instance_url": feed.url}})
            stack.start()
            stack.watcher.unsubscribe()  # it would be one more subscriber of every change, in the process that measures
            yield stack, feed


def stream(directory: Path) -> list[Figure]:
    """All figures of the stream."""
    with fed(directory) as (stack, feed):
        ids = sorted(stack.org.records("Contact"))
        _run(stack, feed, ids, WARM_UP)
        return [*_sustained(stack, feed, ids)]


def _run(
    stack: Stack, feed: FeedProcess, ids: Sequence[str], count: int, rate: float = 0
) -> tuple[float, dict[str, Any]]:
    feed.make(ids, count)
    subscriber = Subscriber(stack.broker.port, count)
    began_s = feed.go(rate)
    return began_s, subscriber.told()


def _sustained(stack: Stack, feed: FeedProcess, ids: Sequence[str]) -> Iterator[Figure]:
    used_s = cpu_s(stack.daemon.pid)
    began_s, told = _run(stack, feed, ids, SUSTAINED)
    took_s = told["times"][-1] - began_s
    used_s = cpu_s(stack.daemon.pid) - used_s
    ceiling = publish_rate(stack.broker.port, SUSTAINED, told["bytes"] // SUSTAINED)
    yield Figure(name="changes a second", value=SUSTAINED / took_s, unit="/s", target=8000, ceiling=ceiling)
    yield Figure(name="the daemon's processor per change", value=used_s / SUSTAINED * 1e6, unit="µs", better="less")
    yield Figure(name="bytes of a change message", value=told["bytes"] / SUSTAINED, unit="B", better="less")
