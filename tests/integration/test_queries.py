"""Queries over a real broker, answered from a real database beside its writer."""

import asyncio
import contextlib
import random
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from connector.mesh.envelope import change_data
from connector.mesh.router import Router
from connector.mesh.topics import Incoming, Topics
from connector.model.command import Command, CommandStatus
from connector.model.documents import ChangeDocument, QueryRefusalDocument, QueryReplyDocument
from connector.model.message import Delivery, Message
from connector.ports import Unit
from connector.serve.query.answer import ALL_OBJECTS, PAGE_BYTES, Freshness
from connector.serve.query.queries import Queries, QueryRules
from connector.store import Session
from connector.store.readers import Readers
from tests.broker import Broker
from tests.integration.test_mesh_connection import connection_for, running
from tests.mesh import Service
from tests.store_nouns import DAY_MS, NOW_MS, WIDGET, change, command, record, record_id, spec_of
from tests.waiting import until

TOPICS = Topics()
INBOX = "billing/inbox"


class Node:
    """What answers, what writes beside it, and who asks."""

    def __init__(self, session: Session, service: Service) -> None:
        self.session = session
        self._service = service
        self.rejected: list[Message] = []
        self.freshness = Freshness("live", NOW_MS)
        self.loads: dict[str, str] = {}
        self._asked = 0

    def write(self, work: Any) -> None:
        self.session.run(work)

    def put(self, *numbers: int, **values: Any) -> None:
        rows = [record(n, version=n, Size__c=n, **values) for n in numbers]
        self.write(lambda unit: unit.put(WIDGET, rows))

    async def reply(self, verb: str, query: Mapping[str, Any], name: str = "Widget__c") -> dict[str, Any]:
        """Ask, and wait for the answer with our correlation."""
        self._asked += 1
        correlation = str(self._asked).encode()
        topic = f"{TOPICS.root}/query/{name}/{verb}"
        await self._service.send(topic, dict(query), response_topic=INBOX, correlation=correlation)
        found: list[bytes] = []

        def answered() -> bool:
            messages = self._service.received(INBOX)
            found[:] = [
                bytes(m.payload) for m in messages if getattr(m.properties, "CorrelationData", None) == correlation
            ]
            return bool(found)

        await until(answered)
        document: dict[str, Any] = orjson.loads(found[0])
        assert document["correlation"] == correlation.decode()
        (QueryReplyDocument if document["ok"] else QueryRefusalDocument).model_validate(document)
        return document

    async def ask(self, verb: str, query: Mapping[str, Any], name: str = "Widget__c") -> dict[str, Any]:
        document = await self.reply(verb, query, name)
        assert document["ok"], document
        return document

    async def refused(self, verb: str, query: Mapping[str, Any], name: str = "Widget__c") -> tuple[str, str]:
        document = await self.reply(verb, query, name)
        assert not document["ok"], document
        return document["error"]["code"], document["error"]["message"]

    async def numbers(self, verb: str, query: Mapping[str, Any]) -> list[int]:
        return [r["Size__c"] for r in (await self.ask(verb, query))["records"]]


@pytest.fixture
async def node(broker: Broker, tmp_path: Path) -> AsyncIterator[Node]:
    with Session(tmp_path / "replica.db") as session:
        session.run(lambda unit: unit.define(WIDGET))
        while session.run(lambda unit: unit.extend_indexes("Widget__c", 100)):
            pass
        mesh = connection_for(broker)
        async with (
            Readers(tmp_path / "replica.db", 2) as readers,
            running(mesh),
            Service(broker, INBOX) as service,
        ):
            node = Node(session, service)
            queries = Queries(
                reader=readers,
                publisher=mesh,
                addresses=TOPICS,
                change_data=change_data,
                freshness=lambda _name: node.freshness,
                loaded=lambda _snapshot, name: node.loads.get(name),
                rules=QueryRules(max_page=5, timeout_s=0.5, max_payload_bytes=mesh.max_payload_bytes),
                now_ms=lambda: NOW_MS + 1000,
            )

            async def handle(incoming: Incoming, delivery: Delivery) -> None:
                await queries.handle(incoming.subject, incoming.verb, delivery)

            async def reject(message: Message) -> None:
                node.rejected.append(message)

            router = Router(mesh, TOPICS, {"query": handle}, store=reject, rng=random.Random(1))
            tasks = [asyncio.create_task(job()) for job in (queries.run, router.run)]
            await mesh.wait_connected()
            try:
                yield node
            finally:
                for task in tasks:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task


async def test_get_tells_the_record_and_how_fresh_it_is(node: Node) -> None:
    """Whole, in wire form; a shorter id is the same id; nothing there is no error."""
    node.write(lambda unit: unit.append([change(), change()]))
    node.put(1, Name="Ärger", Active__c=True, Price__c=1.5)
    got = await node.ask("get", {"id": record_id(1)[:15]})
    assert got == {
        "ok": True,
        "object": "Widget__c",
        "verb": "get",
        "records": [
            {
                "Id": record_id(1),
                "Name": "Ärger",
                "Active__c": True,
                "Size__c": 1,
                "Price__c": 1.5,
                "Due__c": None,
                "Seen__c": None,
                "_version": 1,
                "_modstamp": "2026-11-22T17:26:40.000Z",
            }
        ],
        "next": None,
        "version": 2,
        "replica": node.session.run(lambda unit: unit.identity()),
        "as_of": "2026-11-22T17:26:41.157Z",
        "stream": "live",
        "verified_at": "2026-11-22T17:26:40.157Z",
        "pending": [],
        "correlation": "1",
    }
    assert (await node.ask("get", {"id": record_id(2)}))["records"] == []
    assert (await node.ask("get", {"id": record_id(1), "fields": ["Size__c"]}))["records"][0]["Size__c"] == 1
    node.freshness = Freshness("down", None)
    late = await node.ask("get", {"id": record_id(1)})
    assert (late["stream"], late["verified_at"]) == ("down", None)


async def test_list_goes_page_by_page(node: Node) -> None:
    """At most `max_page`, whatever is asked for; in the order asked for; deleted ones left out."""
    node.put(*range(12), Name="x")
    node.put(12, deleted_ms=NOW_MS)
    query: dict[str, Any] = {"limit": 1000, "order_by": "Size__c desc", "fields": ["Size__c"]}
    pages = []
    while True:
        reply = await node.ask("list", query)
        pages.append([r["Size__c"] for r in reply["records"]])
        if reply["next"] is None:
            break
        query["after"] = reply["next"]
    assert pages == [[11, 10, 9, 8, 7], [6, 5, 4, 3, 2], [1, 0]]
    assert await node.numbers("list", {"limit": 2}) == [0, 1]
    assert await node.refused("list", {"order_by": "Name", "after": query["after"]}) == (
        "invalid_request",
        "after: not a position of this list",
    )


async def test_search_and_count_by_condition(node: Node) -> None:
    """The operators reach SQLite; more of them in tests/property."""
    node.put(1, 2, 3, Name="Bolt", Due__c="2026-01-31")
    node.put(4, Name=None)
    assert await node.numbers("search", {"where": {"Name": {"like": "bo%"}, "Size__c": {"gte": 2}}}) == [2, 3]
    assert await node.numbers("search", {"where": {"not": {"Name": "Bolt"}}}) == [4]
    assert await node.numbers("search", {"text": "bolt", "where": {"or": [{"Size__c": 1}, {"Size__c": 4}]}}) == [1]
    assert (await node.ask("count", {"where": {"Due__c": {"lt": "2026-02-01"}}}))["count"] == 3
    counted = await node.ask("count", {})
    assert (counted["count"], counted["records"], counted["next"]) == (4, [], None)


@pytest.mark.parametrize(
    ("verb", "query", "says"),
    [
        ("get", {"id": "x"}, "id: "),
        ("get", {"id": record_id(1, "003")}, "id: begins with 003"),
        ("get", {"id": record_id(1), "fields": ["_version", "Nope"]}, "'_version'.*'Nope'"),
        ("list", {"order_by": "Name; DROP TABLE change"}, "no synced field 'Name;'"),
        ("list", {"order_by": "Nope", "fields": ["Wrong"]}, "Wrong.*Nope|Nope.*Wrong"),
        ("search", {"where": {"Nope": 1, "Size__c": "5"}}, "Nope.*Size__c"),
        ("search", {"where": {'Name" OR 1 --': "x"}}, "no synced field"),
        ("search", {"where": {"Size__c": 2**63}}, "Size__c"),
        ("count", {"where": {"Price__c": {"like": "5"}}}, "Price__c"),
    ],
)
async def test_what_the_object_does_not_have_is_named(node: Node, verb: str, query: dict[str, Any], says: str) -> None:
    """An error reply with every wrong name."""
    code, message = await node.refused(verb, query)
    assert code == "invalid_request"
    assert re.search(says, message), message


async def test_an_object_that_is_not_synced(node: Node) -> None:
    """Also not the public tables of other kinds."""
    for name in ("Contact", "change", "widget__c", "sqlite_schema"):
        assert (await node.refused("list", {}, name))[0] == "unknown_object"


async def test_changes_catch_up_in_order(node: Node) -> None:
    """As they were published, page by page, of one object or of all."""
    made = [change(1), change(2, object="Other__c"), *(change(n) for n in range(3, 9))]
    node.write(lambda unit: unit.append(made))
    first = await node.ask("changes", {"since": 0}, ALL_OBJECTS)
    for document in first["records"]:
        ChangeDocument.model_validate(document)
    assert [c["version"] for c in first["records"]] == [1, 2, 3, 4, 5]
    assert first["records"][0] == orjson.loads(orjson.dumps(change_data(replace(made[0], version=1))))
    assert (first["next"], first["version"], first["object"]) == (5, 8, "_all")
    rest = await node.ask("changes", {"since": first["next"]}, ALL_OBJECTS)
    assert ([c["version"] for c in rest["records"]], rest["next"]) == ([6, 7, 8], None)
    assert (await node.ask("changes", {"since": 8}, ALL_OBJECTS))["records"] == []
    own = await node.ask("changes", {"since": 0, "limit": 2})
    assert ([c["version"] for c in own["records"]], own["next"]) == ([1, 3], 3)


async def test_the_changes_of_one_record(node: Node) -> None:
    """As far back as the log reaches, and it says how far that is."""
    node.write(lambda unit: unit.append([change(1), change(2), change(1), change(1)]))
    first = await node.ask("changes", {"id": record_id(1)[:15], "limit": 2})
    assert ([c["version"] for c in first["records"]], first["next"], first["known_since"]) == ([1, 3], 3, None)
    assert first["records"][0]["applied_at"] == "2026-11-22T17:26:40.157Z"
    rest = await node.ask("changes", {"id": record_id(1), "since": 3})
    assert ([c["version"] for c in rest["records"]], rest["next"]) == ([4], None)
    node.write(lambda unit: unit.mark_published(2, NOW_MS))
    node.write(lambda unit: unit.trim(NOW_MS + 100 * DAY_MS, DAY_MS, DAY_MS, 100))
    trimmed = await node.ask("changes", {"id": record_id(1)})
    assert [c["version"] for c in trimmed["records"]] == [3, 4]
    assert trimmed["known_since"] == "2026-11-22T17:26:40.157Z"
    assert (await node.refused("changes", {"id": record_id(1)}, ALL_OBJECTS))[0] == "invalid_request"
    assert (await node.refused("changes", {"id": "x"}))[1].startswith("id: ")


async def test_describe_tells_the_tables(node: Node) -> None:
    """Fields in the order of the columns, which load the rows are of, object by object."""
    node.write(lambda unit: unit.define(spec_of({"Owner__c": "reference"}, "Another__c", "a02")))
    node.loads["Widget__c"] = "first:2026-11-22T17:26:40.000Z"
    reply = await node.ask("describe", {"limit": 1}, "_all")
    assert reply["records"] == [
        {
            "object": "Another__c",
            "key_prefix": "a02",
            "loaded": None,
            "fields": [{"name": "Owner__c", "kind": "text", "searched": False, "looked_up": True}],
        }
    ]
    (widget,) = (await node.ask("describe", {"after": reply["next"]}, "_all"))["records"]
    assert (widget["object"], widget["loaded"]) == ("Widget__c", "first:2026-11-22T17:26:40.000Z")
    assert [(f["name"], f["kind"]) for f in widget["fields"]] == [
        ("Name", "text"),
        ("Active__c", "boolean"),
        ("Size__c", "integer"),
        ("Price__c", "number"),
        ("Due__c", "date"),
        ("Seen__c", "datetime"),
    ]
    alone = await node.ask("describe", {})
    assert (alone["records"], alone["next"]) == ([widget], None)
    assert alone["replica"] == reply["replica"]


async def test_a_log_that_no_longer_reaches_back_says_so(node: Node) -> None:
    """Nobody takes a log with a hole for the whole; nor that of another replica."""
    node.write(lambda unit: unit.append([change(n) for n in range(4)]))
    node.write(lambda unit: unit.mark_published(2, NOW_MS))
    node.write(lambda unit: unit.trim(NOW_MS + 100 * DAY_MS, DAY_MS, DAY_MS, 100))
    for since, name in ((1, ALL_OBJECTS), (0, "Widget__c"), (5, ALL_OBJECTS)):
        assert (await node.refused("changes", {"since": since}, name))[0] == "snapshot_required"
    assert [c["version"] for c in (await node.ask("changes", {"since": 2}))["records"]] == [3, 4]


async def test_pending_commands_are_told_with_the_records(node: Node) -> None:
    """What is accepted, or in the org but not back yet; nothing that the record shows already."""
    node.put(1, 2, 3)

    def add(unit: Unit) -> None:
        done = {"status": CommandStatus.SUCCEEDED, "completed_ms": NOW_MS}
        commands: list[Command] = [
            command("waiting"),
            command("sending", status=CommandStatus.SENDING),
            command("done", **done, written_ms=NOW_MS + 1000),
            command("shown", **done, written_ms=NOW_MS - 1000),
            command("failed", status=CommandStatus.FAILED, completed_ms=NOW_MS),
            command("other", record_id=record_id(3)),
        ]
        for one in commands:
            unit.add_command(one)

    node.write(add)
    reply = await node.ask("list", {"limit": 2})
    assert [(p["command_id"], p["status"]) for p in reply["pending"]] == [
        ("waiting", "accepted"),
        ("sending", "accepted"),
        ("done", "succeeded"),
    ]
    assert reply["pending"][0] == {
        "command_id": "waiting",
        "id": record_id(1),
        "operation": "update",
        "status": "accepted",
        "fields": {"Name": "wanted", "Active__c": True},
        "accepted_at": "2026-11-22T17:26:40.157Z",
    }
    assert (await node.ask("get", {"id": record_id(2)}))["pending"] == []


async def test_a_page_has_at_most_256_kib(node: Node) -> None:
    """It ends where it is full and goes on there; one record that is too large is asked for with fewer fields."""
    node.put(1, 2, 3, Name="x" * 100_000)
    first = await node.ask("list", {"limit": 5})
    assert [r["Size__c"] for r in first["records"]] == [1, 2]
    assert len(orjson.dumps(first)) <= PAGE_BYTES
    assert await node.numbers("list", {"limit": 5, "after": first["next"]}) == [3]
    big = command("big", record_id=record_id(1), fields={"Name": "y" * 100_000})
    node.write(lambda unit: unit.add_command(big))
    with_pending = await node.ask("list", {})
    assert ([r["Size__c"] for r in with_pending["records"]], len(with_pending["pending"])) == ([1], 1)
    node.put(1, Name="x" * 300_000)
    assert (await node.refused("list", {}))[0] == "too_large"
    assert (await node.refused("get", {"id": record_id(1)}))[0] == "too_large"
    assert await node.numbers("list", {"fields": ["Size__c"], "after": None, "order_by": "Size__c"}) == [1, 2, 3]


async def test_a_change_that_is_too_large_goes_alone(node: Node) -> None:
    """It was published like that; nobody could get past it otherwise."""
    large = change(2, record={"Id": record_id(2), "Name": "x" * 300_000})
    node.write(lambda unit: unit.append([change(1), large, change(3)]))
    since: int | None = 0
    seen: list[list[int]] = []
    for _ in range(3):
        reply = await node.ask("changes", {"since": since})
        seen.append([c["version"] for c in reply["records"]])
        since = reply["next"]
    assert seen == [[1], [2], [3]]
    assert since is None


async def test_a_query_that_takes_too_long_is_ended(node: Node) -> None:
    """The next one is answered."""
    rows = [record(n, Name=f"{n} " * 200) for n in range(20_000)]
    node.write(lambda unit: unit.put(WIDGET, rows))
    slow = {"or": [{"Name": {"like": f"%{n} x%{n}"}} for n in range(20)]}
    code, message = await node.refused("count", {"where": slow})
    assert (code, "time limit" in message) == ("timed_out", True)
    assert (await node.ask("count", {}))["count"] == 20_000


async def test_queries_without_an_address_and_retained_ones_are_reported(node: Node, broker: Broker) -> None:
    """Section 1: on `{root}/rejected`, and nothing else happens."""
    async with Service(broker) as service:
        await service.send(f"{TOPICS.root}/query/Widget__c/list", {})
        await service.send(f"{TOPICS.root}/query/Widget__c/list", {"reply_to": f"{TOPICS.root}/status"})
        await service.send(f"{TOPICS.root}/query/Widget__c/explode", {"reply_to": INBOX})
        await service.send(f"{TOPICS.root}/query/Widget__c/list", {"reply_to": INBOX}, retain=True)
        await until(lambda: len(node.rejected) == 4)
    reasons = {orjson.loads(m.payload)["reason"] for m in node.rejected}
    assert len(reasons) == 4
    assert any("names no reply address" in reason for reason in reasons)


async def test_a_3_1_1_client_asks_with_its_payload(node: Node, broker: Broker) -> None:
    """`reply_to` and `correlation` instead of properties."""
    node.put(1)
    async with Service(broker, "old/inbox", mqtt5=False) as service:
        query: dict[str, object] = {"id": record_id(1), "reply_to": "old/inbox", "correlation": "abc"}
        await service.send(f"{TOPICS.root}/query/Widget__c/get", query)
        reply = await service.document("old/inbox")
    assert (reply["ok"], reply["correlation"]) == (True, "abc")
