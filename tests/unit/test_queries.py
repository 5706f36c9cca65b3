"""Queries without a mesh and without a database: what waits, what is refused, what is answered with an error."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson
import pytest

from connector.errors import FatalError, LinkDown, PoisonError, QueryTooSlow, StoreBusy, StoreUnusable
from connector.mesh.topics import Topics
from connector.model.documents import QueryRefusalDocument
from connector.model.message import Delivery, Message
from connector.ports import Snapshot
from connector.serve.query.answer import Freshness
from connector.serve.query.payload import QUERIES
from connector.serve.query.queries import MAX_WAITING, WORKERS, Queries, QueryRules
from tests.waiting import until


def delivery(payload: bytes | Mapping[str, Any] = b"", **more: Any) -> Delivery:
    made = Delivery(
        topic="blackroad/salesforce/query/Contact/x",
        payload=payload if isinstance(payload, bytes) else orjson.dumps(payload),
        retained=False,
        duplicate=False,
        packet_id=1,
        token=None,
        response_topic="billing/inbox",
        correlation=None,
    )
    return replace(made, **more)


class Bench:
    """Queries over a reader that answers, waits or fails on order."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = 0
        self.most = 0
        self.read_error: Exception | None = None
        self.publish_error: Exception | None = None
        self.limits_s: list[float] = []
        self.queries = Queries(
            reader=self,
            publisher=self,
            addresses=Topics(),
            change_data=lambda change: {"version": change.version},
            freshness=lambda _name: Freshness("live", None),
            loaded=lambda _snapshot, _name: None,
            rules=QueryRules(max_page=3, timeout_s=2.5, max_payload_bytes=1000),
            now_ms=lambda: 0,
        )

    async def publish(self, message: Message) -> None:
        if self.publish_error is not None:
            raise self.publish_error
        self.sent.append(message)

    async def read(self, work: Callable[[Snapshot], Any], *, timeout_s: float) -> Any:
        self.limits_s.append(timeout_s)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await self.gate.wait()
        self.under_way -= 1
        if self.read_error is not None:
            raise self.read_error
        assert callable(work)
        return b'{"ok": true}'

    @asynccontextmanager
    async def running(self) -> AsyncIterator["asyncio.Task[None]"]:
        task = asyncio.create_task(self.queries.run())
        try:
            yield task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, StoreUnusable):
                await task

    async def error(self, verb: str, one: Delivery) -> Mapping[str, Any]:
        """What the query is refused with."""
        async with self.running():
            await self.queries.handle("Contact", verb, one)
            await until(lambda: bool(self.sent))
        document = orjson.loads(self.sent[-1].payload)
        QueryRefusalDocument.model_validate(document)
        error: Mapping[str, Any] = document["error"]
        return error


async def test_the_reply_goes_where_it_was_asked_for() -> None:
    """MQTT 5 properties, or the payload's own; Correlation Data as it came."""
    bench = Bench()
    async with bench.running():
        await bench.queries.handle("Contact", "list", delivery(correlation=b"\x01"))
        await bench.queries.handle("Contact", "list", delivery({"reply_to": "a/b"}, response_topic=None))
        await until(lambda: len(bench.sent) == 2)
    assert {(m.topic, m.correlation) for m in bench.sent} == {("billing/inbox", b"\x01"), ("a/b", None)}
    assert bench.limits_s == [2.5, 2.5]


@pytest.mark.parametrize("address", [None, "", "blackroad/salesforce/status", "$SYS/x", "a/+", 5])
async def test_without_a_usable_reply_address_it_is_rejected(address: object) -> None:
    """The router reports it: there is nobody to answer to."""
    bench = Bench()
    with pytest.raises(PoisonError, match="reply address"):
        await bench.queries.handle("Contact", "get", delivery({"reply_to": address}, response_topic=None))
    assert not bench.sent


@pytest.mark.parametrize(
    ("verb", "payload", "says"),
    [
        ("get", b"", "id"),
        ("get", {"id": 5}, "id"),
        ("get", {"id": "x", "limit": 1, "colour": "red"}, "limit.*colour|colour.*limit"),
        ("list", b"{", "not JSON"),
        ("list", b"[]", "not a JSON object"),
        ("list", b'"' + b"x" * 1000 + b'"', "more than 1000 bytes"),
        ("list", {"limit": 0}, "limit"),
        ("list", {"limit": "5"}, "limit"),
        ("list", {"fields": "Name"}, "fields"),
        ("list", {"where": {}}, "where"),
        ("search", b"", "text or where"),
        ("search", {"text": ""}, "text"),
        ("search", {"where": {"A": {"x": 1}, "B": {}}}, r"where\.A\.x.*where\.B"),
        ("count", {"where": 1}, "where"),
        ("changes", b"", "since"),
        ("changes", {"since": -1}, "since"),
        ("changes", {"since": 2**63}, "since"),
        ("changes", {"since": True}, "since"),
    ],
)
async def test_a_query_of_another_form_names_what_is_wrong(verb: str, payload: Any, says: str) -> None:
    """Section 11: an error reply that names every wrong field; nothing is read."""
    bench = Bench()
    error = await bench.error(verb, delivery(payload))
    assert error["code"] == "invalid_request"
    assert re.search(says, error["message"])
    assert not bench.limits_s


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (QueryTooSlow("x"), "timed_out"),
        (StoreBusy("x"), "unavailable"),
        (FatalError("the database refused a statement"), "failed"),
        (RuntimeError("a fault of ours"), "failed"),
    ],
)
async def test_what_goes_wrong_is_answered(raised: Exception, code: str) -> None:
    """Whoever asked is told; the next query is served."""
    bench = Bench()
    bench.read_error = raised
    assert (await bench.error("list", delivery()))["code"] == code
    bench.read_error = None
    async with bench.running():
        await bench.queries.handle("Contact", "list", delivery())
        await until(lambda: len(bench.sent) == 2)


async def test_a_replica_that_cannot_be_read_ends_the_process() -> None:
    """Damage is for a person."""
    bench = Bench()
    bench.read_error = StoreUnusable("damaged")
    async with bench.running() as task:
        await bench.queries.handle("Contact", "list", delivery())
        await until(task.done)
        assert isinstance(task.exception(), StoreUnusable)


@pytest.mark.parametrize("raised", [LinkDown("x"), PoisonError("too large")])
async def test_a_reply_that_cannot_be_published_is_dropped(raised: Exception) -> None:
    """Whoever gets none asks again; it does not wait on disk."""
    bench = Bench()
    bench.publish_error = raised
    async with bench.running() as task:
        await bench.queries.handle("Contact", "list", delivery())
        await until(lambda: len(bench.limits_s) == 1)
        bench.publish_error = None
        await bench.queries.handle("Contact", "list", delivery())
        await until(lambda: len(bench.sent) == 1)
        assert not task.done()


async def test_so_many_are_answered_at_once_and_so_many_wait() -> None:
    """A flood is told to come back; commands behind it are not held up."""
    bench = Bench()
    bench.gate.clear()
    async with bench.running():
        for _ in range(WORKERS):
            await bench.queries.handle("Contact", "list", delivery())
        await until(lambda: bench.under_way == WORKERS)
        for _ in range(MAX_WAITING):
            await bench.queries.handle("Contact", "list", delivery())
        assert not bench.sent
        await bench.queries.handle("Contact", "list", delivery(correlation=b"late"))
        assert orjson.loads(bench.sent[0].payload)["error"]["code"] == "busy"
        bench.gate.set()
        await until(lambda: len(bench.sent) == WORKERS + MAX_WAITING + 1)
    assert bench.most == WORKERS


def test_every_verb_of_the_topics_has_its_payload() -> None:
    """A query that is routed is served."""
    topics = Topics()
    assert all(topics.parse(f"{topics.root}/query/Contact/{verb}") for verb in QUERIES)
    assert topics.parse(f"{topics.root}/query/_all/changes")
    assert not topics.parse(f"{topics.root}/query/_all/list")
