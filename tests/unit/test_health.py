"""The health document, its state rule and when it is published."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson
import pytest

from connector.errors import LinkDown, StoreBusy
from connector.mesh.envelope import health_message
from connector.mesh.topics import Topics
from connector.model.documents import HealthDocument
from connector.model.message import Message
from connector.serve import health as health_module
from connector.serve.health import (
    Health,
    LagWindow,
    ObjectNow,
    Observations,
    State,
    StreamNow,
    Troubles,
    health_document,
    overall,
)
from tests.store_nouns import NOW_MS
from tests.waiting import until

TOPICS = Topics()
FINE = Observations(
    version=1042,
    stream=StreamNow(state="live", transport="cometd", since_ms=NOW_MS),
    objects={"Contact": ObjectNow(records=1200, streamed=True, last_polled_ms=NOW_MS)},
    queues={"outbox": 0, "commands": 0, "quarantine": 0, "dirty": 7},
    api_used=812,
    api_max=15000,
    api_own={"command": 12},
)


def test_the_document_of_the_contract() -> None:
    """Section 5, every member; it fits its schema."""
    lag = LagWindow()
    for lag_ms in range(1, 101):
        lag.add(lag_ms)
    document = health_document(
        FINE, Troubles(lambda: NOW_MS), lag, node="lucidia", started_ms=NOW_MS - 86_400_999, now_ms=NOW_MS
    )
    assert document == {
        "state": "ok",
        "node": "lucidia",
        "as_of": "2026-11-22T17:26:40.157Z",
        "version": 1042,
        "uptime_s": 86400,
        "stream": {
            "state": "live",
            "transport": "cometd",
            "since": "2026-11-22T17:26:40.157Z",
            "last_frame_at": None,
            "last_event_at": None,
            "delivered": {"used": None, "max": None, "own": 0},
        },
        "objects": {
            "Contact": {
                "records": 1200,
                "streamed": True,
                "last_polled_at": "2026-11-22T17:26:40.157Z",
                "verified_at": None,
                "drift": 0,
                "held": 0,
                "untold": 0,
                "holes": 0,
                "calculated_at": None,
            }
        },
        "queues": {"outbox": 0, "commands": 0, "quarantine": 0},
        "api": {"used": 812, "max": 15000, "own": {"command": 12}},
        "lag_ms": {"p50": 50, "p99": 99},
        "last_error": None,
    }
    HealthDocument.model_validate(document)


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({}, "ok"),
        ({"stream": StreamNow(state="off", transport="off")}, "ok"),
        ({"stream": StreamNow(state="connecting", transport="cometd")}, "degraded"),
        ({"stream": StreamNow(state="down", transport="cometd")}, "degraded"),
        ({"stream": StreamNow(state="paused", transport="cometd")}, "degraded"),
        ({"objects": {"Lead": ObjectNow(records=1, streamed=True, holes=1)}}, "degraded"),
        ({"objects": {"Lead": ObjectNow(records=1, streamed=True, drift=2)}}, "degraded"),
        ({"objects": {"Lead": ObjectNow(records=1, streamed=True, drift=2, held=1)}}, "failing"),
        ({"objects": {"Lead": ObjectNow(records=1, streamed=True, untold=2)}}, "ok"),
        ({"objects": {"Lead": ObjectNow(records=1, streamed=True, untold=2, stream_deaf=True)}}, "degraded"),
        ({"queues": {"quarantine": 1}}, "degraded"),
        ({"queues": {"outbox": 1000}}, "ok"),
        ({"queues": {"outbox": 1001}}, "degraded"),
        ({"queues": {"commands": 1001}}, "degraded"),
        ({"api_used": 15000}, "degraded"),
        ({"api_used": None, "api_max": None}, "ok"),
        ({"mesh_refused": ("a/b",)}, "failing"),
        ({"parked_count": 1}, "failing"),
    ],
)
def test_the_rule_of_the_state(changed: Mapping[str, Any], state: State) -> None:
    """What is late degrades, what needs a person fails."""
    assert overall(replace(FINE, **changed), "ok") == state


def test_troubles_make_the_state_and_the_last_error() -> None:
    """By source; the last error stays after its end; its text is bounded."""
    troubles = Troubles(lambda: NOW_MS)
    assert troubles.worst() == "ok"
    troubles.report("poll.Contact", "HTTP 503")
    assert overall(FINE, troubles.worst()) == "degraded"
    troubles.report("login", "x" * 9000, person=True)
    assert overall(FINE, troubles.worst()) == "failing"
    troubles.clear("login")
    troubles.clear("poll.Contact")
    troubles.clear("never reported")
    assert overall(FINE, troubles.worst()) == "ok"
    assert troubles.last is not None
    assert (troubles.last["source"], len(troubles.last["error"])) == ("login", 500)


def test_lag_window_is_bounded_and_empty_at_first() -> None:
    """Percentiles of the newest lags only."""
    lag = LagWindow()
    assert lag.percentile(99) is None
    for value in (1_000_000, *range(health_module.LAG_WINDOW)):
        lag.add(value)
    assert lag.percentile(100) == health_module.LAG_WINDOW - 1
    assert lag.percentile(0) == 0


class Bench:
    """A health loop with what it sees."""

    def __init__(self, interval_s: float) -> None:
        self.seen = FINE
        self.published: list[Message] = []
        self.error: Exception | None = None
        self.observe_error: Exception | None = None
        self.troubles = Troubles(lambda: NOW_MS)
        self.health = Health(
            publisher=self,
            message=lambda document: health_message(TOPICS, document),
            observe=self._observe,
            troubles=self.troubles,
            lag=LagWindow(),
            node="n",
            started_ms=NOW_MS,
            now_ms=lambda: NOW_MS,
            interval_s=interval_s,
        )

    async def publish(self, message: Message) -> None:
        if self.error is not None:
            raise self.error
        self.published.append(message)

    async def _observe(self) -> Observations:
        if self.observe_error is not None:
            raise self.observe_error
        return self.seen

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.health.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def states(self) -> list[str]:
        return [orjson.loads(m.payload)["state"] for m in self.published]


@pytest.fixture(autouse=True)
def no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "MIN_GAP_S", 0.0)


async def test_published_every_interval_retained() -> None:
    """Also when nothing happens."""
    bench = Bench(interval_s=0.02)
    async with bench.running():
        await until(lambda: len(bench.published) >= 3)
    assert all((m.topic, m.retain) == (TOPICS.health, True) for m in bench.published)


async def test_published_when_the_state_changes_and_not_else() -> None:
    """A report and its end are told at once; a wake without a change is not."""
    bench = Bench(interval_s=3600)
    async with bench.running():
        await until(lambda: len(bench.published) == 1)
        bench.troubles.report("stream", "silent")
        await until(lambda: len(bench.published) == 2)
        bench.troubles.changed.set()
        await until(lambda: not bench.troubles.changed.is_set())
        bench.troubles.clear("stream")
        await until(lambda: len(bench.published) == 3)
    assert bench.states() == ["ok", "degraded", "ok"]


async def test_told_again_when_the_link_is_back() -> None:
    """A broker that was away, or forgot, gets the document at once."""
    bench = Bench(interval_s=3600)
    bench.error = LinkDown("down")
    async with bench.running():
        bench.error = None
        bench.health.link_up()
        await until(lambda: bool(bench.published))


async def test_a_busy_store_is_waited_out() -> None:
    """Health goes on without a document for once."""
    bench = Bench(interval_s=0.02)
    bench.observe_error = StoreBusy("locked")
    async with bench.running():
        await asyncio.sleep(0)
        bench.observe_error = None
        await until(lambda: bool(bench.published))


async def test_while_the_store_is_busy_the_last_figures_are_told() -> None:
    """Degraded, with the reason once; ok again when it can be asked."""
    bench = Bench(interval_s=3600)
    assert (await bench.health.document())["state"] == "ok"
    bench.observe_error = StoreBusy("locked")
    for _ in range(2):
        document = await bench.health.document()
        assert (document["state"], document["last_error"]["error"]) == ("degraded", "locked")
    bench.observe_error = None
    assert (await bench.health.document())["state"] == "ok"
