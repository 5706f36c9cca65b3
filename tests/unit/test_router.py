"""Routing of deliveries: who gets what, when it is acknowledged, what is rejected."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from connector.errors import PoisonError, StoreBusy, StoreFull
from connector.mesh import router as router_module
from connector.mesh.router import Router
from connector.mesh.topics import Incoming, Topics
from connector.model.message import Delivery, Message
from tests.waiting import until

TOPICS = Topics()
ROOT = TOPICS.root


def delivery(topic: str, payload: bytes = b"{}", *, retained: bool = False) -> Delivery:
    return Delivery(
        topic=topic,
        payload=payload,
        retained=retained,
        duplicate=False,
        packet_id=1,
        token=None,
        response_topic=None,
        correlation=None,
    )


class Bench:
    """A router with an inbox to fill and handlers that can be held up or fail."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[Delivery] = asyncio.Queue()
        self.handled: list[tuple[Incoming, bytes]] = []
        self.acknowledged: list[Delivery] = []
        self.rejected: list[dict[str, Any]] = []
        self.errors: list[Exception] = []
        self.store_errors: list[Exception] = []
        self.query_gate = asyncio.Event()
        self.query_gate.set()
        handlers = {"command": self._handle, "query": self._query, "control": self._handle, "signal": self._handle}
        self.router = Router(self, TOPICS, handlers, store=self._store, rng=random.Random(1))

    async def deliveries(self) -> AsyncIterator[Delivery]:
        while True:
            yield await self.inbox.get()

    def acknowledge(self, delivery: Delivery) -> None:
        self.acknowledged.append(delivery)

    async def _handle(self, incoming: Incoming, delivery: Delivery) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.handled.append((incoming, delivery.payload))

    async def _query(self, incoming: Incoming, delivery: Delivery) -> None:
        await self.query_gate.wait()
        await self._handle(incoming, delivery)

    async def _store(self, message: Message) -> None:
        if self.store_errors:
            raise self.store_errors.pop(0)
        assert message.topic == TOPICS.rejected
        self.rejected.append(orjson.loads(message.payload))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.router.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def route(self, *deliveries: Delivery) -> None:
        for given in deliveries:
            self.inbox.put_nowait(given)
        async with self.running():
            await until(lambda: len(self.acknowledged) == len(deliveries))


@pytest.fixture(autouse=True)
def quick_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_module, "RETRY_FIRST_S", 0.001)


async def test_each_kind_reaches_its_handler_and_is_acknowledged() -> None:
    """With what its topic says."""
    bench = Bench()
    await bench.route(
        delivery(f"{ROOT}/command/Contact/update", b"1"),
        delivery(f"{ROOT}/query/_all/changes", b"2"),
        delivery(f"{ROOT}/control/status", b"3"),
        delivery(TOPICS.signals_in, b"4"),
    )
    assert sorted(bench.handled, key=lambda h: h[1]) == [
        (Incoming("command", "Contact", "update"), b"1"),
        (Incoming("query", "_all", "changes"), b"2"),
        (Incoming("control", "", "status"), b"3"),
        (Incoming("signal"), b"4"),
    ]
    assert bench.rejected == []


async def test_nothing_is_acknowledged_before_its_handler_has_returned() -> None:
    """A slow query keeps its own PUBACK back and no command's."""
    bench = Bench()
    bench.query_gate.clear()
    slow = delivery(f"{ROOT}/query/Contact/list")
    bench.inbox.put_nowait(slow)
    bench.inbox.put_nowait(delivery(f"{ROOT}/command/Contact/update"))
    async with bench.running():
        await until(lambda: len(bench.acknowledged) == 1)
        assert slow not in bench.acknowledged
        bench.query_gate.set()
        await until(lambda: slow in bench.acknowledged)


async def test_commands_are_handled_in_the_order_of_arrival() -> None:
    """One after the other."""
    bench = Bench()
    await bench.route(*(delivery(f"{ROOT}/command/Contact/update", b"%d" % i) for i in range(300)))
    assert [int(payload) for _, payload in bench.handled] == list(range(300))


@pytest.mark.parametrize("kind", ["command/Contact/update", "query/Contact/get", "control/pause"])
async def test_retained_messages_are_rejected_and_never_handled(kind: str) -> None:
    """Section 1; acknowledged, so that they do not come again."""
    bench = Bench()
    await bench.route(delivery(f"{ROOT}/{kind}", b"payload", retained=True))
    assert bench.handled == []
    assert bench.rejected == [
        {"topic": f"{ROOT}/{kind}", "reason": "a retained message is never acted on", "payload": "payload"}
    ]


async def test_a_retained_signal_is_ignored() -> None:
    """Signals have no rejected topic."""
    bench = Bench()
    await bench.route(delivery(TOPICS.signals_in, retained=True))
    assert (bench.handled, bench.rejected) == ([], [])


@pytest.mark.parametrize("topic", ["command/Contact/merge", "command", "query/Contact", "control/a/b"])
async def test_malformed_topics_are_rejected(topic: str) -> None:
    """Answered instead of lost."""
    bench = Bench()
    await bench.route(delivery(f"{ROOT}/{topic}"))
    assert [r["topic"] for r in bench.rejected] == [f"{ROOT}/{topic}"]


async def test_a_busy_store_keeps_the_delivery_in_its_place() -> None:
    """Repeated until it is on disk; nothing overtakes it, nothing is acknowledged before."""
    bench = Bench()
    bench.errors = [StoreBusy("locked"), StoreBusy("locked")]
    await bench.route(*(delivery(f"{ROOT}/command/Contact/update", b"%d" % i) for i in range(3)))
    assert [payload for _, payload in bench.handled] == [b"0", b"1", b"2"]


async def test_a_rejection_is_on_disk_before_the_acknowledgement() -> None:
    """A store that is busy then is waited out too."""
    bench = Bench()
    bench.store_errors = [StoreBusy("locked")]
    await bench.route(delivery(f"{ROOT}/command"))
    assert len(bench.rejected) == 1


async def test_poison_is_rejected_with_its_reason() -> None:
    """A reply address that must not be used, for one."""
    bench = Bench()
    bench.errors = [PoisonError("the reply address is empty")]
    await bench.route(delivery(f"{ROOT}/control/pause"))
    assert [r["reason"] for r in bench.rejected] == ["the reply address is empty"]
    assert bench.router.rejected_count == 1


async def test_a_fault_of_ours_does_not_make_a_crash_loop() -> None:
    """The message that brings it out is rejected; the next one is served."""
    bench = Bench()
    bench.errors = [ZeroDivisionError()]
    await bench.route(delivery(f"{ROOT}/control/pause"), delivery(f"{ROOT}/control/resume"))
    assert len(bench.rejected) == len(bench.handled) == 1


async def test_a_full_store_ends_the_router_unacknowledged() -> None:
    """Going on would lose the message; the error comes out as itself."""
    bench = Bench()
    bench.errors = [StoreFull("disk full")]
    bench.inbox.put_nowait(delivery(f"{ROOT}/command/Contact/update"))
    with pytest.raises(StoreFull):
        await bench.router.run()
    assert bench.acknowledged == []
